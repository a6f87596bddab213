# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What of labs outlives the boot: their documents in /etc/nslab/labs, the units that apply them, the engine for that.

This file reads it, and knows how it reads; _persist.py writes it.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import stat
import subprocess
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from ._errors import NslabError
from ._model import HOST, Wanted
from ._own_files import weakness
from ._reader import name_problem
from ._version import VERSION

#: One file for each lab, NAME.json. They may have secrets in them, in the environment of services.
DOCUMENTS = "/etc/nslab/labs"
#: The engines, a folder for each that some lab needs.
ENGINES = "/usr/local/lib/nslab/engine"
UNITS = "/etc/systemd/system"
#: What is started in a normal boot.
_TARGET = "multi-user.target"
#: Its start, restart and reload empty the tables of the host while labs stand there.
_EMPTYING = "nftables.service"

EARLY, ONLINE = "early", "online"

#: Seconds.
MAX_DEVICE_TIMEOUT = 600

_TEXTS = ("lab", "boot", "version", "engine", "python", "digest")
_READ_SECONDS = 120
_CONTENT = "its content"
NO_FILE = "no file"
_SUFFIX = ".json"
_HIDDEN = "(not shown)"
_READING = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

_SYSTEM = (
    "systemd-tmpfiles-setup.service", "systemd-modules-load.service", "systemd-sysctl.service", "systemd-udevd.service",
    "systemd-udev-trigger.service",
)  # fmt: skip
#: They empty the tables of the firewall when they start, or write their own into it.
_FIREWALLS = (
    _EMPTYING, "iptables.service", "ip6tables.service", "netfilter-persistent.service", "ufw.service",
    "firewalld.service",
)  # fmt: skip
_AFTER_FIREWALLS = f"After={' '.join(_FIREWALLS)}"
#: They look for networks and bridges when they start, and add their rules to what is there.
_CONTAINERS = (
    "containerd.service", "docker.service", "podman.service", "podman-restart.service", "lxc-net.service",
    "lxc.service", "libvirtd.service", "virtnetworkd.service",
)  # fmt: skip


class Record(NamedTuple):
    """A lab that comes back. ``options`` are those of the module topology that it is applied with."""

    lab: str
    options: Mapping[str, Any]
    boot: str
    device_timeout: float
    version: str
    engine: str
    python: str
    #: Of all the rest, so that what is changed by hand is told.
    digest: str = ""

    @property
    def has_services(self) -> bool:
        return any(body.get("services") for body in self._namespaces().values() if body)

    @property
    def has_rules_of_the_host(self) -> bool:
        body = self._namespaces().get(HOST) or {}
        return bool(body.get("snat") or body.get("dnat"))

    def _namespaces(self) -> dict[str, Any]:
        """Those of this host of the document, by their names."""
        namespaces: Mapping[str, Any] = self.options["topology"].get("namespaces") or {}
        if "host" not in self.options:
            return dict(namespaces)
        own = f"{self.options['host']}/"
        return {key[len(own) :]: body for key, body in namespaces.items() if key.startswith(own)}

    @property
    def is_as_written(self) -> bool:
        return self.digest == self._own_digest()

    def text(self) -> str:
        return json.dumps(self._replace(digest=self._own_digest())._asdict(), indent=2, sort_keys=True) + "\n"

    def _own_digest(self) -> str:
        return _short_hash(json.dumps(self._replace(digest="")._asdict(), sort_keys=True))

    def lines(self) -> dict[str, str]:
        """All that is in it, one value for each path, as people may read it."""
        return {path: value for path, value in _flat(self._asdict(), "") if path != "digest"}


def _flat(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _flat(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, (list, tuple)) and value:
        for i, item in enumerate(value):
            yield from _flat(item, f"{path}[{i}]")
    else:
        yield path, json.dumps(value, ensure_ascii=False)


def shown(path: str, value: str) -> str:
    """A value of a record, if it is none that might be secret."""
    return _HIDDEN if ".environment." in path else value


def parse(text: str) -> Record:
    """The record that a text is. Raises NslabError."""
    try:
        record = Record(**json.loads(text))
        options, topology = record.options, record.options["topology"]
        namespaces = topology.get("namespaces") or {}
        is_right = (
            all(isinstance(getattr(record, name), str) for name in _TEXTS)
            and isinstance(record.device_timeout, (int, float))
            and 0 <= record.device_timeout <= MAX_DEVICE_TIMEOUT
            and all(isinstance(options[name], bool) for name in ("adopt", "strict"))
            and isinstance(options.get("host", ""), str)
            and all(isinstance(body or {}, dict) for body in namespaces.values())
        )
        if not is_right:
            raise TypeError
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise NslabError("it is no document that nslab.netns.persist has written") from error
    return record


def path_of(lab: str) -> str:
    return f"{DOCUMENTS}/{lab}{_SUFFIX}"


def labs() -> list[str]:
    """The labs that have a document, sorted."""
    try:
        names = os.listdir(DOCUMENTS)
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = (name[: -len(_SUFFIX)] for name in names if name.endswith(_SUFFIX))
    return sorted(name for name in found if not name_problem(name))


def read(lab: str) -> Record | None:
    """The record of a lab, None if it has none. Raises NslabError if it is not such as root has written it."""
    try:
        text = read_file(path_of(lab))
    except NslabError as error:
        raise NslabError(f"{error}; persist the lab anew") from error
    if text is None:
        return None
    try:
        record = parse(text)
    except NslabError as error:
        raise NslabError(f"{path_of(lab)} cannot be read: {error}; persist the lab anew") from error
    if record.lab != lab:
        raise NslabError(f"{path_of(lab)} is the document of the lab {record.lab!r}; persist the lab anew")
    return record


def read_file(path: str) -> str | None:
    """The text of a file of root's own; None if it is not there. Raises NslabError if it is anything else."""
    try:
        fd = os.open(path, _READING)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise NslabError(f"cannot read {path}: {error.strerror}") from error
    with open(fd, encoding="utf-8", errors="surrogateescape") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or weakness(found):
            raise NslabError(f"cannot use {path}: it has to be a file of root's, and nobody else's to write to")
        return file.read()


class Seen(NamedTuple):
    """What is at the place of a file that this room has made."""

    #: Empty where it cannot be had.
    text: str
    #: What else than its text is not as it was made; empty if nothing.
    fault: str


def seen(path: str, is_secret: bool = False) -> Seen | None:
    """What is at a place, whatever it is; None for nothing. Raises OSError."""
    try:
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode):
            return Seen("", f"a symlink to {os.readlink(path)}")
        if not stat.S_ISREG(found.st_mode):
            return Seen("", NO_FILE)
        with open(os.open(path, _READING), encoding="utf-8", errors="surrogateescape") as file:
            return Seen(file.read(), weakness(os.fstat(file.fileno()), is_secret))
    except (FileNotFoundError, NotADirectoryError):
        return None


#: The folders of this room, the outer ones first, and whether they are for root alone to look into.
FOLDERS = {
    os.path.dirname(DOCUMENTS): False,
    DOCUMENTS: True,
    os.path.dirname(ENGINES): False,
    ENGINES: False,
}


def folder_faults() -> Iterator[tuple[str, os.stat_result, str]]:
    """The folders that somebody else than root could change, or look into: what they are, and why."""
    for path, is_secret in FOLDERS.items():
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            found = os.lstat(path)
            fault = weakness(found, is_secret)
            if fault and not stat.S_ISLNK(found.st_mode):
                yield path, found, fault


# --- units -----------------------------------------------------------------------------------------------------------


def lab_unit(lab: str) -> str:
    return f"nslab-lab@{lab}.service"


def services_unit(lab: str) -> str:
    return f"nslab-services@{lab}.service"


def rules_unit(lab: str) -> str:
    return f"nslab-rules@{lab}.service"


def all_units(lab: str) -> tuple[str, str, str]:
    """The names of all units that a lab may have."""
    return lab_unit(lab), services_unit(lab), rules_unit(lab)


def start_of(unit: str) -> str:
    """The symlink by which systemd starts a unit: in each boot, or whenever the tables of the host are emptied."""
    wanting = _EMPTYING if unit.startswith(rules_unit("").partition("@")[0]) else _TARGET
    return f"{UNITS}/{wanting}.wants/{unit}"


def units(record: Record) -> dict[str, str]:
    """The units of a lab, by their names.

    Early in the boot systemd starts no services of others, and who waits for one that waits for him waits forever. So
    the services of a lab that comes early have a unit of their own.
    """
    is_early = record.boot == EARLY
    found = {lab_unit(record.lab): _early(record) if is_early else _online(record)}
    if is_early and record.has_services:
        found[services_unit(record.lab)] = _services(record)
    if record.has_rules_of_the_host:
        found[rules_unit(record.lab)] = _rules(record)
    return found


def _early(record: Record) -> str:
    # udev gives interfaces their names; a device that is moved before it has its own would keep another one.
    settle = ["ExecStartPre=-/usr/bin/udevadm settle --timeout=30"] if _has_devices(record) else []
    lines = [
        "DefaultDependencies=no",
        f"RequiresMountsFor={ENGINES} {DOCUMENTS} {record.python}",
        f"After=local-fs.target {' '.join(_SYSTEM)}",
        _AFTER_FIREWALLS,
        # Before there is any network, so that no packet goes where the lab would not let it go, and nobody else takes
        # the devices that are for it.
        "Wants=network-pre.target",
        f"Before=network-pre.target {' '.join(_CONTAINERS)} shutdown.target",
        "Conflicts=shutdown.target",
    ]
    if record.has_services:
        # They come with it also when it is only started later, after it has failed in the boot.
        lines.append(f"Wants={services_unit(record.lab)}")
    return _unit(record, "Lab {}", lines, [*settle, *_start(record, "--without-services")])


def _online(record: Record) -> str:
    lines = [
        "Wants=network-online.target",
        "After=network-online.target",
        _AFTER_FIREWALLS,
        f"Before={' '.join(_CONTAINERS)}",
    ]
    return _unit(record, "Lab {}", lines, _start(record))


def _services(record: Record) -> str:
    lines = [f"Requires={lab_unit(record.lab)}", f"After={lab_unit(record.lab)}"]
    return _unit(record, "Services of the lab {}", lines, _start(record))


def _rules(record: Record) -> str:
    lines = [
        f"After={_EMPTYING} {lab_unit(record.lab)}",
        f"PartOf={_EMPTYING}",
        f"ReloadPropagatedFrom={_EMPTYING}",
    ]
    return _unit(record, "Rules on the host of the lab {}", lines, _start(record, "--lost-rules"), _EMPTYING)


def _has_devices(record: Record) -> bool:
    return any(".device" in path for path in record.lines() if ".interfaces." in path)


def _start(record: Record, *options: str) -> list[str]:
    words = [record.python, "-I", f"{ENGINES}/{record.engine}", record.lab, *options]
    command = shlex.join(words).replace("%", "%%").replace("$", "$$")
    return [f"ExecStart={command}", f"ExecReload={command}"]


def _unit(
    record: Record, title: str, lines: Collection[str], commands: Collection[str], wanted_by: str = _TARGET
) -> str:
    whole = [
        f"# nslab:{record.lab} (made by nslab.netns.persist, which removes it, too)",
        "[Unit]",
        f"Description={title.format(record.lab)}",
        f"ConditionPathExists={path_of(record.lab)}",
        *lines,
        "",
        "[Service]",
        "Type=oneshot",
        "RemainAfterExit=yes",
        *commands,
        "SyslogIdentifier=nslab",
        "TimeoutStartSec=15min",
        "",
        "[Install]",
        f"WantedBy={wanted_by}",
    ]
    return "".join(f"{line}\n" for line in whole)


# --- what others say of it -------------------------------------------------------------------------------------------


def facts() -> list[dict[str, Any]]:
    """The labs that come back, as plain data."""
    found: list[dict[str, Any]] = [{"name": lab, "problem": _left_unit(lab)} for lab in _left_units()]
    for lab in labs():
        try:
            record = read(lab)
        except NslabError as error:
            found.append({"name": lab, "problem": str(error)})
            continue
        if record:
            found.append(
                {
                    "name": lab,
                    "version": record.version,
                    "engine": record.engine,
                    "python": record.python,
                    "boot": record.boot,
                    "units": list(units(record)),
                    "problem": _problem(record) or None,
                }
            )
    empty = dict.fromkeys(("version", "engine", "python", "boot"))
    return sorted(({**empty, "units": [], **fact} for fact in found), key=lambda fact: str(fact["name"]))


def _problem(record: Record) -> str:
    """Why the lab cannot come back as its document says; empty if it can."""
    try:
        fault = _fault(record)
    except (NslabError, OSError) as error:
        fault = str(error)
    return f"{fault}; persist the lab anew" if fault else ""


def _fault(record: Record) -> str:
    """What of the files is not as the document needs it to be applied; empty if all is. Raises OSError."""
    for path, _found, fault in folder_faults():
        return f"{path} is not as it was: {fault}"
    document = path_of(record.lab)
    fault = weakness(os.lstat(document), is_secret=True) or ("" if record.is_as_written else _CONTENT)
    if fault:
        return f"{document} is not as it was: {fault}"
    for name, text in units(record).items():
        unit = f"{UNITS}/{name}"
        there = seen(unit)
        if there != Seen(text, ""):
            return f"{unit} is {f'not as it was: {there.fault or _CONTENT}' if there else 'missing'}"
        if not starts(name):
            return f"{start_of(name)} is missing or leads elsewhere"
    fault = engine_fault(record.engine)
    if fault:
        return fault
    return "" if os.path.exists(record.python) else f"{record.python} is missing"


def starts(unit: str) -> bool:
    """Does the symlink by which systemd starts a unit lead to it?"""
    link = start_of(unit)
    target = os.path.join(os.path.dirname(link), os.readlink(link)) if os.path.islink(link) else ""
    return os.path.normpath(target) == f"{UNITS}/{unit}"


def digest_of(texts: Mapping[str, str]) -> str:
    """What an engine's folder is named after, behind the version: the texts of its files, by their paths."""
    return _short_hash(repr(sorted(texts.items())))


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def engine_fault(engine: str) -> str:
    """What of an engine is not as its name says, or could be changed by others than root; empty if all is right."""
    top = f"{ENGINES}/{engine}"
    if not os.path.lexists(top):
        return f"{top} is missing"
    texts = {}
    for folder, folders, names in os.walk(top):
        for path in (folder, *(os.path.join(folder, name) for name in (*folders, *names))):
            found = os.lstat(path)
            fault = "a symlink" if stat.S_ISLNK(found.st_mode) else weakness(found)
            if fault:
                return f"{path} is not as it was: {fault}"
            if path.endswith(".py"):
                texts[os.path.relpath(path, top)] = read_file(path) or ""
    return "" if digest_of(texts) == engine.rpartition("-")[2] else f"{top} is not as it was: {_CONTENT}"


def try_out(record: Record) -> None:
    """Have the program read its document, as it will be run by systemd. Raises NslabError if it cannot."""
    command = [record.python, "-I", f"{ENGINES}/{record.engine}", record.lab, "--read"]
    environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
    try:
        # run_command() is AnsibleModule's, which this room knows nothing of.
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            command, capture_output=True, text=True, check=False, env=environment, timeout=_READ_SECONDS, cwd="/"
        )
    except subprocess.TimeoutExpired as error:
        raise NslabError(f"the program for the boot has not ended within {_READ_SECONDS} s") from error
    except OSError as error:
        raise NslabError(f"the program for the boot cannot be run: {error}") from error
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        raise NslabError(f"the program for the boot does not work by itself: {said}")


def _left_units() -> list[str]:
    """The labs that have a unit and no document."""
    prefix, suffix = lab_unit("").split(".")
    try:
        names = [name for name in os.listdir(UNITS) if name.startswith(prefix) and name.endswith(f".{suffix}")]
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = {name[len(prefix) : -len(suffix) - 1] for name in names}
    return sorted(lab for lab in found - set(labs()) if not name_problem(lab))


def _left_unit(lab: str) -> str:
    return f"{path_of(lab)} is missing, and {UNITS}/{lab_unit(lab)} is there; persist the lab anew, or not at all"


def compared(
    lab: str, topology: Mapping[str, Any] | None, host: str | None = None, tries: bool = False
) -> dict[str, Any] | None:
    """How what comes back of a lab differs from what is asked for now, on that ``host`` of it; None if nothing does.

    Without a ``topology`` nothing is compared with it. ``tries``: have the program read its document, too.
    """
    try:
        record = read(lab)
    except NslabError as error:
        return {"version": None, "differences": [], "problem": str(error)}
    if record is None:
        if not os.path.lexists(f"{UNITS}/{lab_unit(lab)}"):
            return None
        return {"version": None, "differences": [], "problem": _left_unit(lab)}
    problem = f"the engine is of version {record.version}, and this is {VERSION}" if record.version != VERSION else ""
    found: list[str] = []
    if topology is not None:
        found += ["host"] if record.options.get("host") != host else []
        found += differences(record.options["topology"], {"name": lab, **topology})
    problem = _problem(record) or problem or (_trial(record) if tries else "")
    return {"version": record.version, "differences": found, "problem": problem or None}


def _trial(record: Record) -> str:
    try:
        try_out(record)
    except NslabError as error:
        return str(error)
    return ""


def remark(wanted: Wanted, options: Mapping[str, Any], check: bool) -> tuple[dict[str, Any], list[str]]:
    """What the module topology returns of it, and what it warns of: of labs that go now and come back in a boot.

    An audit, which is done in check mode, wants to know whether the program runs; others have to do with it later.
    """
    is_removal = options["state"] == "absent"
    if wanted.valid_labs is not None:
        return {}, [_returns(lab) for lab in labs() if lab not in wanted.valid_labs]
    host = wanted.span.host or None if wanted.span else None
    found = compared(wanted.lab, None if is_removal else options["topology"], host, tries=check and not is_removal)
    return {"persisted": found, "host": host}, [_returns(wanted.lab)] if is_removal and wanted.lab in labs() else []


def _returns(lab: str) -> str:
    return (
        f"the lab {lab} is persisted, and comes back with the next boot, unless nslab.netns.persist with "
        "'state: absent', or the role nslab.netns.persist, makes an end of it"
    )


def differences(one: Any, other: Any) -> list[str]:
    """The paths at which two documents differ."""
    before, after = (dict(_flat(json.loads(json.dumps(document)), "")) for document in (one, other))
    return sorted(path for path in {*before, *after} if before.get(path) != after.get(path))
