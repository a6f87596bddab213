# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lets a lab come back after a boot, or not any more: writes what _persisted.py reads.

It is all files, so they are compared and changed one by one, and all of them are as they were if one step fails. The
engine is the one that runs here: its sources are in the archive that the module has come in.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import contextlib
import os
import pkgutil
import re
import shutil
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from . import _boot as boot
from . import _lock as lock
from . import _persisted as persisted
from . import _systemd as systemd
from ._changes import Description
from ._errors import FOREIGN, InvalidInput, Missing, NslabError, Problem, Refused, StepFailed
from ._model import HOST, Wanted
from ._persisted import DOCUMENTS, ENGINES, UNITS, Record, Seen
from ._version import VERSION

_PACKAGE = "nslab_netns"
_PROGRAM = f"""\
# The engine of nslab.netns {VERSION}, which applies /etc/nslab/labs/LAB.json. Made by nslab.netns.persist.
import sys

from {_PACKAGE}._boot import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""
_IMPORT = re.compile(r"^ *from (\.+)([\w.]*) import (\([^)]*\)|[^\n]*)", re.MULTILINE)
_USUAL_PYTHON = "/usr/bin/python3"
#: What ``systemctl mask`` puts in the place of a unit.
_MASK = Seen("", "a symlink to /dev/null")


def record_of(options: Mapping[str, Any], topology: Mapping[str, Any]) -> Record:
    """What shall be kept of a lab. Raises InvalidInput where the document is none, or cannot be applied in a boot."""
    record = Record(
        lab=str(topology.get("name") or ""),
        options={**_whose(options, topology), "adopt": options["adopt"], "strict": options["strict"]},
        boot=options["boot"],
        device_timeout=options["device_timeout"],
        version=VERSION,
        engine=_name_of(sources()),
        python=_python(),
    )
    wanted = boot.read(record)
    problems = list(_unbootable(wanted))
    if wanted.span and not wanted.span.host:
        text = f"{record.options['host']!r} is none of the document's hosts, so that nothing could come back; it has"
        problems.append(Problem("host", f"{text} {' and '.join(wanted.span.hosts)}; say 'state: absent' here"))
    if not 0 <= record.device_timeout <= persisted.MAX_DEVICE_TIMEOUT:
        text = f"{record.device_timeout:g} is no number of seconds from 0 to {persisted.MAX_DEVICE_TIMEOUT}"
        problems.append(Problem("device_timeout", text))
    if problems:
        raise InvalidInput(problems)
    # As it will be when it has been read from its file.
    return persisted.parse(record.text())


def _whose(options: Mapping[str, Any], topology: Mapping[str, Any]) -> dict[str, Any]:
    """The document, and which of its hosts this one is."""
    return {"topology": dict(topology), **({"host": options["host"]} if topology.get("hosts") else {})}


def _unbootable(wanted: Wanted) -> Iterator[Problem]:
    for namespace in wanted.namespaces.values():
        if namespace.attach and (namespace.attach.pid or namespace.attach.path.startswith("/proc/")):
            path = f"{namespace.path}.attach"
            yield Problem(path, "is a process, which is gone after a boot; such a lab cannot come back by itself")
        for service in namespace.services.values():
            for variable in service.kept:
                path = f"{service.path}.environment.{variable}"
                yield Problem(path, "has no value that it could come back with; say one")


def _python() -> str:
    """The Python of this run. Its usual name outlives an upgrade of the system."""
    with contextlib.suppress(OSError):
        if os.path.samefile(sys.executable, _USUAL_PYTHON) and sys.prefix == sys.base_prefix:
            return _USUAL_PYTHON
    return sys.executable


def run(lab: str, record: Record | None, check: bool, lock_seconds: float) -> list[Description]:
    """Let a lab come back as ``record`` says, or not at all; return what was changed, or would be with ``check``.

    Raises Refused, Missing, Busy or StepFailed; after any of them all is as it was before.
    """
    if os.geteuid() != 0:
        raise Missing("what is done in a boot can be changed only as root; use 'become: true'")
    if record and not systemd.is_installed():
        raise Missing("labs come back by systemd, and this host has none")
    if check:
        return _descriptions(_plan(lab, record))
    with lock.held(f"nslab.netns.persist for lab {lab}", lock_seconds):
        steps = _plan(lab, record)
        if steps or os.path.lexists(_begun(lab).path):
            _apply(lab, record, steps)
        return _descriptions(steps)


def alterations(lab: str) -> list[str]:
    """What to warn of: that others alter the units of a lab."""
    files = {unit: systemd.lasting_files(unit) for unit in persisted.all_units(lab)}
    return [
        f"the unit {unit} is altered by {', '.join(found)}; it stays so until that is removed"
        for unit, found in files.items()
        if found
    ]


# --- the engine ------------------------------------------------------------------------------------------------------


def sources() -> dict[str, str]:
    """The texts of all that the program for the boot is made of, by their paths."""
    there = _modules()
    found: dict[str, str] = {}
    todo = [boot.__name__.rpartition(".")[2]]
    while todo:
        name = todo.pop()
        path = f"{name.replace('.', '/')}.py"
        if path in found:
            continue
        found[path] = there[name].loader.get_source(there[name].name)
        todo += [other for other in _imported(name, found[path]) if other in there]
    packages = {os.path.dirname(path) for path in found}
    inits = {os.path.join(_PACKAGE, package, "__init__.py"): "" for package in packages}
    return {"__main__.py": _PROGRAM, **inits, **{f"{_PACKAGE}/{path}": text for path, text in sorted(found.items())}}


def _modules() -> dict[str, Any]:
    """Where the files of the engine are, by their names below this package."""
    package = __name__.rpartition(".")[0]
    found = {}
    for prefix in ("", "_netlink."):
        name = f"{package}.{prefix}".rstrip(".")
        for module in pkgutil.iter_modules(sys.modules[name].__path__):
            spec = module.module_finder.find_spec(f"{name}.{module.name}", None)
            if spec and not module.ispkg:
                found[f"{prefix}{module.name}"] = spec
    return found


def _imported(name: str, text: str) -> Iterator[str]:
    """What may be a module among all that a text imports of the collection."""
    for dots, module, names in _IMPORT.findall(text):
        base = name.split(".")[: -len(dots)]
        if module:
            yield ".".join([*base, module])
        for word in names.strip("()").split(","):
            yield ".".join([*base, *filter(None, [module]), word.split(" as ")[0].split("#")[0].strip()])


def _name_of(texts: Mapping[str, str]) -> str:
    return f"{VERSION}-{persisted.digest_of(texts)}"


# --- what is to be done ----------------------------------------------------------------------------------------------


class _Step(Protocol):
    """A change of one thing."""

    def describe(self) -> list[Description]:
        """How it reads."""

    def do(self) -> None:
        """Make it. Raises OSError or NslabError."""

    def undo(self) -> None:
        """Take back as much of it as was done."""

    def settle(self) -> None:
        """Clean up, when nothing can fail any more."""


def _descriptions(steps: list[_Step]) -> list[Description]:
    return [description for step in steps for description in step.describe()]


def _plan(lab: str, record: Record | None) -> list[_Step]:
    """The steps, in their order: what is needed goes before what needs it, and the other way round in the end."""
    units = persisted.units(record) if record else {}
    steps: list[_Step] = []
    if record:
        steps += [_Folder(path, found, fault) for path, found, fault in persisted.folder_faults()]
        fault = persisted.engine_fault(record.engine)
        if fault:
            is_there = os.path.lexists(f"{ENGINES}/{record.engine}")
            steps.append(_Engine(record.engine, sources(), fault if is_there else ""))
    document = persisted.path_of(lab)
    before = persisted.seen(document, is_secret=True)
    changes = _changed(_Document, document, before, record.text() if record else None, 0o600, lab)
    for name in persisted.all_units(lab):
        file, link = f"{UNITS}/{name}", persisted.start_of(name)
        before, after = persisted.seen(file), units.get(name)
        if before and before != _MASK and not before.text.startswith(f"# nslab:{lab} "):
            raise Refused([Problem("topology.name", f"{file} is a unit of somebody else; remove it", FOREIGN)])
        changes += _changed(_Unit, file, before, after, 0o644, name)
        if after is None or not persisted.starts(name):
            changes += _changed(_Link, link, persisted.seen(link), None if after is None else f"../{name}", 0, name)
    steps += changes if record else reversed(changes)
    return [*steps, *(_OldEngine(name) for name in _unused(lab, record))]


def _changed(
    kind: Callable[..., _Step], path: str, before: Seen | None, after: str | None, mode: int, name: str
) -> list[_Step]:
    """The step that a file needs, if it needs one."""
    if before and before.fault == persisted.NO_FILE:
        raise Refused([Problem("topology.name", f"{path} is no file; remove it", FOREIGN)])
    is_right = before is None if after is None else before == Seen(after, "")
    return [] if is_right else [kind(path, before, after, mode, name)]


def _unused(lab: str, record: Record | None) -> list[str]:
    """The engines that no lab needs any more."""
    needed = {record.engine} if record else set()
    try:
        there = sorted(os.listdir(ENGINES))
        others = [persisted.read(other) for other in persisted.labs() if other != lab]
    except (OSError, NslabError):
        # Where it is not known what is needed, nothing goes.
        return []
    needed |= {other.engine for other in others if other}
    return [name for name in there if name not in needed and not name.startswith(".")]


class _Folder(NamedTuple):
    """A folder that somebody else could change, or look into, becomes root's own again."""

    path: str
    before: os.stat_result
    fault: str

    def describe(self) -> list[Description]:
        text = f"folder {self.path}"
        return [Description("change", "folder", HOST, self.path, f"{text} ({self.fault})", text)]

    def do(self) -> None:
        _make_own(self.path)

    def undo(self) -> None:
        os.chown(self.path, self.before.st_uid, self.before.st_gid)
        os.chmod(self.path, stat.S_IMODE(self.before.st_mode))

    def settle(self) -> None:
        """There is nothing to be done."""


class _File(NamedTuple):
    """A file that shall have another text, or shall not be. It is there whole, or not at all.

    What it was before stays aside until nothing can fail any more, with its owner and mode, and whatever it was.
    """

    path: str
    before: Seen | None
    after: str | None
    mode: int
    name: str

    def do(self) -> None:
        if self.after is None:
            os.rename(self.path, self._aside)
            return
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.link(self.path, self._aside, follow_symlinks=False)
        self.put(self.after)

    def undo(self) -> None:
        try:
            os.rename(self._aside, self.path)
        except (FileNotFoundError, NotADirectoryError):
            if self.before is None:
                _remove(self.path)
        # rename() does nothing where both are names of one file.
        _remove(self._aside)

    def settle(self) -> None:
        _remove(self._aside)

    @property
    def _aside(self) -> str:
        return beside(self.path, "old")

    def put(self, text: str) -> None:
        """Have it hold a text, whatever was there before."""
        _make_folder(os.path.dirname(self.path))
        new = beside(self.path, "new")
        _remove(new)
        try:
            self._write(new, text)
            os.rename(new, self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(new)
            raise

    def _write(self, path: str, text: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(path, flags, 0o600), "w", encoding="utf-8", errors="surrogateescape") as file:
            os.fchmod(file.fileno(), self.mode)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    def _of(self, text: str) -> str:
        """What it was before, in words, where only its owner or mode was wrong, or it was something else."""
        return f"{text} ({self.before.fault})" if self.before and self.before.fault else ""


def beside(path: str, end: str) -> str:
    """Where something is as long as it is changed."""
    folder, _slash, name = path.rpartition("/")
    return f"{folder}/.{name}.{end}"


class _Document(_File):
    def describe(self) -> list[Description]:
        text = f"document {self.path}"
        if self.before is None or self.after is None:
            before, after = ("", text) if self.before is None else (text, "")
            return [Description("remove" if before else "add", "document", HOST, self.name, before, after)]
        fault = self._of(text)
        found = [Description("change", "document", HOST, self.name, fault, text)] if fault else []
        try:
            before_lines = persisted.parse(self.before.text).lines()
        except NslabError:
            return found or [Description("change", "document", HOST, self.name, "", f"{text} (unreadable)")]
        after_lines = persisted.parse(self.after).lines()
        paths = {*before_lines, *after_lines}
        found += [
            Description(
                "change",
                "document",
                HOST,
                self.name,
                self._line(path, before_lines),
                self._line(path, after_lines, before_lines),
            )
            for path in sorted(paths)
            if before_lines.get(path) != after_lines.get(path)
        ]
        return found or [Description("change", "document", HOST, self.name, "", f"{text} (its form)")]

    def _line(self, path: str, lines: Mapping[str, str], other: Mapping[str, str] = MappingProxyType({})) -> str:
        value = persisted.shown(path, lines[path]) if path in lines else "absent"
        if path in lines and value != lines[path] and path in other:
            value = "(another one)"
        return f"document {self.name} {path.replace('options.topology.', '', 1)} {value}"


class _Unit(_File):
    def describe(self) -> list[Description]:
        text = f"unit {self.name}"
        if self.before is None:
            return [Description("add", "unit", HOST, self.name, "", text)]
        if self.after is None:
            return [Description("remove", "unit", HOST, self.name, text, "")]
        fault = self._of(text)
        if fault:
            return [Description("change", "unit", HOST, self.name, fault, text)]
        before, after = self.before.text.splitlines(), self.after.splitlines()
        gone = "; ".join(line for line in before if line not in after)
        new = "; ".join(line for line in after if line not in before)
        return [Description("change", "unit", HOST, self.name, f"{text} {gone}", f"{text} {new}")]


class _Link(_File):
    """The symlink by which systemd starts a unit in each boot."""

    def describe(self) -> list[Description]:
        text = f"start of {self.name}"
        action = "add" if self.before is None else "remove" if self.after is None else "change"
        before = self._of(text) if action == "change" else text if action == "remove" else ""
        return [Description(action, "start", HOST, self.name, before, "" if self.after is None else text)]

    def _write(self, path: str, text: str) -> None:
        os.symlink(text, path)


class _Engine(NamedTuple):
    name: str
    texts: Mapping[str, str]
    #: What is wrong with the one that is there; empty for none.
    fault: str

    def describe(self) -> list[Description]:
        text = f"engine {self.name}"
        if not self.fault:
            return [Description("add", "engine", HOST, self.name, "", text)]
        return [Description("change", "engine", HOST, self.name, f"{text} ({self.fault})", text)]

    def do(self) -> None:
        place = f"{ENGINES}/{self.name}"
        new, old = (beside(place, end) for end in ("new", "old"))
        for folder in (new, old):
            _remove(folder)
        for path, text in self.texts.items():
            _File(f"{new}/{path}", None, text, 0o644, "").put(text)
        with contextlib.suppress(FileNotFoundError):
            os.rename(place, old)
        os.rename(new, place)

    def undo(self) -> None:
        place = f"{ENGINES}/{self.name}"
        _remove(beside(place, "new"))
        if os.path.lexists(beside(place, "old")):
            _remove(place)
            os.rename(beside(place, "old"), place)

    def settle(self) -> None:
        _remove(beside(f"{ENGINES}/{self.name}", "old"))


class _OldEngine(NamedTuple):
    """An engine that nobody needs any more. It goes when all else is done."""

    name: str

    def describe(self) -> list[Description]:
        return [Description("remove", "engine", HOST, self.name, f"engine {self.name}", "")]

    def do(self) -> None:
        """It is there until nothing can fail any more."""

    def undo(self) -> None:
        """It is there still."""

    def settle(self) -> None:
        _remove(f"{ENGINES}/{self.name}")


def _remove(path: str) -> None:
    """Remove whatever is there, as far as that can be done."""
    with contextlib.suppress(OSError):
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)


def _make_folder(path: str) -> None:
    """Make a folder and those above it. Raises NslabError if it is a symlink in the place of one of this room's."""
    if not os.path.lexists(path):
        _make_folder(os.path.dirname(path))
        os.mkdir(path)
        _make_own(path)
    if os.path.islink(path) and path in (DOCUMENTS, ENGINES):
        raise NslabError(f"cannot use {path}: it is a symlink, and has to be root's own folder")


def _make_own(path: str) -> None:
    os.chown(path, os.geteuid(), os.getegid(), follow_symlinks=False)
    os.chmod(path, 0o700 if persisted.FOLDERS.get(path) else 0o755)


# --- doing it --------------------------------------------------------------------------------------------------------


def _begun(lab: str) -> _File:
    """What is there from the first step until all is done: a run that is killed in between is finished by the next."""
    return _File(f"{DOCUMENTS}/.{lab}.begun", None, "", 0o600, lab)


def _sweep(lab: str) -> None:
    """Remove what a run that was killed has left half done. Nobody else writes: this one holds the lock."""
    units = persisted.all_units(lab)
    of_units = (file for unit in units for file in (f"{UNITS}/{unit}", persisted.start_of(unit)))
    for file in (persisted.path_of(lab), *of_units):
        for end in ("new", "old"):
            _remove(beside(file, end))
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for name in os.listdir(ENGINES):
            if name.startswith(".") and name.endswith((".new", ".old")):
                _remove(f"{ENGINES}/{name}")


def _apply(lab: str, record: Record | None, steps: list[_Step]) -> None:
    done: list[_Step] = []
    name = "begin"
    try:
        _begun(lab).put("")
        _sweep(lab)
        for step in steps:
            name = str(step.describe()[0])
            done.append(step)
            step.do()
        if record:
            name = "verify"
            persisted.try_out(record)
        name = "tell systemd"
        systemd.reload()
    except BaseException as error:
        remains = _roll_back(done)
        _end(lab)
        if isinstance(error, (NslabError, OSError)):
            raise StepFailed(name, "", str(error), remains) from error
        raise
    if record is None:
        # What it has applied stays; systemd does not speak of it any more.
        systemd.forget(persisted.all_units(lab))
    for step in done:
        step.settle()
    _end(lab)


def _end(lab: str) -> None:
    """All is done, or taken back."""
    with contextlib.suppress(OSError):
        _begun(lab).undo()
    of_rules = os.path.dirname(persisted.start_of(persisted.rules_unit(lab)))
    for folder in (DOCUMENTS, os.path.dirname(DOCUMENTS), ENGINES, os.path.dirname(ENGINES), of_rules):
        # One that has something in it stays.
        with contextlib.suppress(OSError):
            os.rmdir(folder)


def _roll_back(done: list[_Step]) -> list[str]:
    remains = []
    for step in reversed(done):
        try:
            step.undo()
        except OSError as error:
            remains.append(f"{step.describe()[0]}: {error}")
    with contextlib.suppress(NslabError):
        systemd.reload()
    return remains
