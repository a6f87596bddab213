# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Services of namespaces: the notes of what they are, in /run/nslab/services, and the manager that runs them.

The note is written before a service is started, so that a run that is killed leaves none that nobody knows. What it
says dies with the boot, as the services and the labs do. The managers are imported where there is a service: most runs
have to do with none, and every file costs all of them.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pwd
import shutil
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from ._errors import NslabError
from ._own_files import RUN_DIRECTORY, open_file, own_folder, replace_file
from ._service import Definition, Running, Service, ServiceKey

_FOLDER = "services"
_NOTE = "note"
#: The environment of a service, which systemd reads as root and tells nobody, unlike what is in a unit.
_ENVIRONMENT = "environment"

_FILES = (_NOTE, _ENVIRONMENT, f".{_NOTE}.new", f".{_ENVIRONMENT}.new")


class Start(Protocol):
    """A service that is being started."""

    def wait(self) -> None:
        """Return when it runs. Raises NslabError if it does not start, or ends at once."""

    def close(self) -> None:
        """Be done with it, whether or not it was waited for."""


class Found(NamedTuple):
    """A service that is there, and how it is with its process."""

    service: Service
    running: Running
    #: Where what it says goes: a file, or the name of its unit for the journal.
    log: str = ""
    unit: str = ""


def read_all(asked: Collection[tuple[str, ServiceKey]] = ()) -> dict[ServiceKey, Found]:
    """All services that there are; of those that are ``asked`` for, with their lab, also whether others have them."""
    notes = {key: note for key in _keys() for note in [_read_note(key)] if note}
    found: dict[ServiceKey, Found] = {}
    if not notes and not asked:
        return found
    from . import _supervised as supervised
    from . import _systemd as systemd

    if systemd.is_booted():
        others = {key: lab for lab, key in asked if key not in notes}
        units = systemd.look({**{key: note.lab for key, note in notes.items()}, **others})
        for key, note in notes.items():
            unit = units[key]
            expected = systemd.text(note.lab, key, note.definition, _path(key), note.inode)
            # Of one that does not run the file may be gone: it is made anew in any case.
            same = (expected, systemd.NO_FILE) if unit.running.state == "stopped" else (expected,)
            altered = "" if unit.text in same else unit.text
            inode = unit.running.inode or note.inode
            service = Service(note.lab, note.definition, inode, unit.running.state, altered, unit.overrides)
            found[key] = Found(service, unit.running, unit=systemd.name(note.lab, key))
        for key, lab in others.items():
            if units[key].is_known or units[key].overrides:
                service = Service("", Definition(()), 0, "foreign", overrides=units[key].overrides)
                found[key] = Found(service, units[key].running, unit=systemd.name(lab, key))
        return found
    for key, note in notes.items():
        with _folder(key, make=False) as folder:
            running = supervised.look(folder)
        service = Service(note.lab, note.definition, note.inode, running.state)
        found[key] = Found(service, running, log=f"{_path(key)}/log")
    return found


def host_obstacle(names: Sequence[str]) -> str:
    """Why the namespace that this run is in, which has these names, can have no services as the host's, in words.

    Where process 1 is in another one, they are taken for those of that one, or of each other.
    """
    from . import _systemd as systemd

    with contextlib.suppress(OSError):
        if os.stat("/proc/1/ns/net").st_ino == os.stat("/proc/thread-self/ns/net").st_ino:
            return ""
    for name in names[:1]:
        text = f"'host' is the namespace {name} here, in which this task runs itself"
        return f"{text}; run the task on the machine, without entering it, and say {name!r} in the place of 'host'"
    return "'host' is not the namespace here that systemd is in, and starts services in" if systemd.is_booted() else ""


def labs() -> set[str]:
    """The labs that have services."""
    return {note.lab for key in _keys() for note in [_read_note(key)] if note and note.lab}


def write(key: ServiceKey, service: Service | None, inode: int) -> Start | None:
    """Let a service be so, or let there be none of that name. ``inode`` is that of its namespace as it is now.

    What is returned for one that shall run is to be waited for. Raises NslabError or OSError; then it is not there.
    """
    from . import _supervised as supervised
    from . import _systemd as systemd

    _stop(key)
    if service is None:
        _remove(key)
        return None
    if service.state != "running":
        _note(key, service)
        return None
    if service.inode not in (0, inode):
        _remove(key)
        raise NslabError(f"the namespace {key.namespace} in which it ran has no name any more")
    try:
        _check(service.definition)
        _note(key, service._replace(inode=inode))
        with _folder(key, make=True) as folder:
            if systemd.is_booted():
                replace_file(_ENVIRONMENT, systemd.environment(service.definition), folder)
                unit = systemd.text(service.lab, key, service.definition, _path(key), inode)
                return systemd.start(systemd.name(service.lab, key), unit, service.altered)
            return supervised.start(key, service.definition, inode, folder)
    except BaseException:
        with contextlib.suppress(NslabError, OSError):
            _stop(key)
            _remove(key)
        raise


def ask_to_end(keys: Iterable[ServiceKey]) -> None:
    """Ask services to end, and do not wait for it. What cannot be asked is left to ``write``."""
    from . import _supervised as supervised
    from . import _systemd as systemd

    notes = {key: note for key in keys for note in [_read_note(key)] if note}
    if systemd.is_booted():
        systemd.ask_to_end([systemd.name(note.lab, key) for key, note in notes.items()])
        return
    for key in notes:
        with contextlib.suppress(NslabError, OSError), _folder(key, make=False) as folder:
            supervised.ask_to_end(folder)


def _stop(key: ServiceKey) -> None:
    from . import _supervised as supervised
    from . import _systemd as systemd

    note = _read_note(key)
    if note is None:
        return
    with _folder(key, make=False) as folder:
        if systemd.is_booted():
            systemd.stop(systemd.name(note.lab, key))
        else:
            supervised.stop(key, note.inode, folder)


def _check(definition: Definition) -> None:
    """Raise NslabError if the host lacks what the service needs to start."""
    program = definition.command[0]
    if shutil.which(program, path=definition.path) is None:
        where = "" if "/" in program else f" in {definition.path}"
        raise NslabError(f"there is no program {program!r}{where} that could be run")
    with contextlib.suppress(KeyError):
        what, name = "user", definition.user
        if name and not name.isdigit():
            pwd.getpwnam(name)
        what, name = "group", definition.group
        if name and not name.isdigit():
            grp.getgrnam(name)
        what, name = "directory", definition.directory
        if not name or os.path.isdir(name):
            return
    raise NslabError(f"there is no {what} {name!r}")


# --- the notes -------------------------------------------------------------------------------------------------------


def _path(key: ServiceKey) -> str:
    return f"{RUN_DIRECTORY}/{_FOLDER}/{key.namespace}/{key.name}"


def _keys() -> list[ServiceKey]:
    top = f"{RUN_DIRECTORY}/{_FOLDER}"
    return [ServiceKey(namespace, name) for namespace in _names(top) for name in _names(f"{top}/{namespace}")]


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _folder(key: ServiceKey, make: bool) -> contextlib.AbstractContextManager[int]:
    """The folder of a service."""
    return own_folder(RUN_DIRECTORY, _FOLDER, *key, mode=0o700 if make else None)


def unreadable() -> dict[ServiceKey, str]:
    """What stands in the place of notes and is nothing that is read, in words."""
    found = {}
    for key in _keys():
        try:
            _open_note(key)
        except NslabError as error:
            found[key] = f"the service {key}, if there is one, is not known: {error}"
    return found


def _read_note(key: ServiceKey) -> Service | None:
    """What a service shall be. None where a run was killed before it was written, or where nothing is read."""
    with contextlib.suppress(NslabError):
        return _open_note(key)
    return None


def _open_note(key: ServiceKey) -> Service | None:
    try:
        with _folder(key, make=False) as folder, open(open_file(_NOTE, os.O_RDONLY, folder), encoding="utf-8") as file:
            body: dict[str, Any] = json.load(file)
        definition = {**body["definition"], "command": tuple(body["definition"]["command"])}
        definition["environment"] = tuple((name, value) for name, value in definition["environment"])
        return Service(body["lab"], Definition(**definition), body["inode"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _note(key: ServiceKey, service: Service) -> None:
    body = {"lab": service.lab, "inode": service.inode, "definition": service.definition._asdict()}
    with _folder(key, make=True) as folder:
        replace_file(_NOTE, json.dumps(body), folder)


def _remove(key: ServiceKey) -> None:
    """Remove the files of a service, the note last: until then it is known."""
    from . import _supervised as supervised

    with contextlib.suppress(FileNotFoundError), _folder(key, make=False) as folder:
        for name in (*supervised.FILES, *(file for file in _FILES if file != _NOTE), _NOTE):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
    top = f"{RUN_DIRECTORY}/{_FOLDER}"
    for path in (_path(key), f"{top}/{key.namespace}", top):
        # What somebody has put there stays.
        with contextlib.suppress(OSError):
            os.rmdir(path)
