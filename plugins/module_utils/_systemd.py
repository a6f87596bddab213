# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Services as units of systemd, in /run/systemd/system, which end with the boot as labs do.

A unit names the namespace. Its command goes through a shell that does what systemd has no setting for: it puts the
files of /etc/netns in the place of those in /etc, as many as there are, and enters the node's UTS namespace.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Callable, NamedTuple

from ._errors import NslabError
from ._model import HOST
from ._service import MARK, SETTLE_SECONDS, STOP_SECONDS, Definition, Running, ServiceKey

#: Where units live that are gone after a reboot; it is there if systemd is process 1 (sd_booted(3)).
_UNITS = "/run/systemd/system"

#: Where files are in folders UNIT.d that alter a unit: those that are gone after a reboot, and the others.
_RUNTIME_FOLDERS = ("/run/systemd/system.control", _UNITS)
_LASTING_FOLDERS = ("/etc/systemd/system.control", "/etc/systemd/system", "/usr/local/lib/systemd/system")

_PROGRAM_SECONDS = 60
_POLL_SECONDS = 0.05

#: So long one that has ended at once may take to have its last words in the journal.
_WORDS_SECONDS = 1.0

_PROPERTIES = (
    "Id", "LoadState", "ActiveState", "SubState", "MainPID", "NRestarts", "ExecMainStartTimestamp", "ExecMainCode",
    "ExecMainStatus", "Result", "FragmentPath",
)  # fmt: skip

#: What a service finds inside (docs/inside.md), in a mount namespace of its own. A systemd that does not know
#: NetworkNamespacePath= (before 242) says so in the journal, and starts the command all the same.
#: $1: the namespace, and $5 its inode, for another one may have got its name since; $2 and $3: the user and the group,
#: empty for root's; $4: the directory, for which systemd does not take every path; the rest: the command. The variables
#: of the service hold here, so programs are named by their paths.
_ENTER = """u=/run/nslab/uts/$1 e=/etc/netns/$1 n=$2 g=$3 d=$4
[ "/run/netns/$1" -ef /proc/self/ns/net ] || { echo "systemd has not entered the namespace $1" >&2; exit 225; }
[ "$(/usr/bin/stat -Lc %i /proc/self/ns/net)" = "$5" ] || { echo "its namespace $1 is gone" >&2; exit 225; }
shift 5
/bin/mount -t sysfs sysfs /sys || exit 226
for f in "$e"/*; do t=/etc/${f##*/}
if [ -e "$f" ] && [ -e "$t" ]; then /bin/mount --bind "$f" "$t" || exit 226; fi
done
cd -- "$d" || exit 200
if [ -n "$n$g" ]; then
n=${n:-0} i=--init-groups; /usr/bin/id -un "$n" >/dev/null 2>&1 || i=--clear-groups
g=${g:-$(/usr/bin/id -g "$n" 2>/dev/null)}
set -- /usr/bin/setpriv --reuid="$n" --regid="${g:-$n}" "$i" -- /usr/bin/env --chdir="$d" -- "$@"
fi
if [ -e "$u" ]; then set -- /usr/bin/nsenter --uts="$u" -- "$@"; fi
exec "$@"
"""

#: systemd looks for a program without '/' where it was built to, whatever PATH says.
_ON_HOST = 'cd -- "$1" || exit 200; shift; exec "$@"'

#: How the command lines begin of what becomes the command of a service; the last one is env's.
_PREPARING = tuple(
    "\0".join(words).encode()
    for words in (
        ("/bin/sh", "-c", _ENTER),
        ("/bin/sh", "-c", _ON_HOST),
        ("/usr/bin/nsenter", "--uts=/run/nslab/uts/"),
        ("/usr/bin/setpriv", "--reuid="),
        ("/usr/bin/env", "--chdir="),
    )
)

#: The unit of a service that runs, as it is altered if its file is not there, or another one goes before it.
NO_FILE = "no file"


#: What is between the file of a unit and each file that alters it until the next boot, and behind the name of that one.
_NEXT = "\0"


class Unit(NamedTuple):
    """What systemd has of a name.

    ``text``: its file in /run/systemd/system, or NO_FILE, and the files in /run that alter it; ``overrides``: the files
    elsewhere that do, which an administrator has made to stay.
    """

    is_known: bool
    running: Running
    text: str
    overrides: tuple[str, ...]


def is_booted() -> bool:
    return os.path.isdir(_UNITS)


def name(lab: str, key: ServiceKey) -> str:
    """The name of a unit. None of its parts has a colon in it, so that no two services come to have one name."""
    return f"nslab-{lab}:{key.namespace}:{key.name}.service"


def text(lab: str, key: ServiceKey, definition: Definition, folder: str, inode: int) -> str:
    """The unit of a service, whose files are in ``folder``, in the namespace with that inode.

    The values of its environment are not in it.
    """
    whose = f"the lab {lab}" if lab else "no lab"
    user, group, switch, variables = _accounts(definition.user, definition.group)
    command, is_switching = _command(key, definition, inode, switch)
    # Only root enters: systemd leaves the change of the user to the command, and does all else as for that user.
    prefix = ":!" if is_switching else ":"
    lines = [
        f"# nslab:{lab} (made by nslab.netns, and removed with its lab)",
        "[Unit]",
        f"Description={key.name} in the namespace {key.namespace}, of {whose}",
        "StartLimitIntervalSec=0",
    ]
    if key.namespace != HOST:
        # Without its namespace it is not started again, nor in another one that has got its name.
        lines.append(f"ConditionPathExists=/run/netns/{key.namespace}")
    lines += ["[Service]", "Type=exec"]
    if key.namespace != HOST:
        lines += [f"NetworkNamespacePath=/run/netns/{key.namespace}", "PrivateMounts=yes"]
        lines.append("RestartPreventExitStatus=225")
    lines.append(f"User={user or 'root'}")
    if group:
        lines.append(f"Group={group}")
    variables[MARK] = str(key)
    lines += [
        f"EnvironmentFile={folder}/environment",
        f"Environment={' '.join(_quoted(f'{name}={value}') for name, value in variables.items())}",
        f"ExecStart={prefix}{' '.join(map(_quoted, command))}",
        f"Restart={definition.restart}",
        "RestartSec=1",
        f"TimeoutStopSec={STOP_SECONDS:g}",
    ]
    return "".join(f"{line}\n" for line in lines)


def _command(key: ServiceKey, definition: Definition, inode: int, switch: Sequence[str]) -> tuple[list[str], bool]:
    """The whole command of a unit, and whether it changes the user itself."""
    directory = definition.directory or "/"
    if key.namespace == HOST:
        return [*switch, "/bin/sh", "-c", _ON_HOST, "sh", directory, *definition.command], bool(switch)
    account = (definition.user, definition.group)
    entering = ["/bin/sh", "-c", _ENTER, "sh", key.namespace, *account, directory, str(inode)]
    return [*entering, *definition.command], any(account)


def _accounts(user: str, group: str) -> tuple[str, str, list[str], dict[str, str]]:
    """The user and the group that systemd is told; what becomes those that it refuses; and the variables of these.

    It refuses numbers that nobody has.
    """
    no_user = _is_nobodys(user, pwd.getpwuid)
    no_group = _is_nobodys(group, grp.getgrgid)
    switch: list[str] = []
    if no_user or no_group:
        groups = "--clear-groups" if no_user else "--init-groups"
        switch = ["/usr/bin/setpriv", f"--reuid={user or 'root'}", f"--regid={group or user}", groups, "--"]
    variables = {"HOME": "/", "USER": user, "LOGNAME": user, "SHELL": "/bin/sh"} if no_user else {}
    return "" if no_user else user, "" if no_group else group, switch, variables


def _is_nobodys(number: str, look_up: Callable[[int], object]) -> bool:
    try:
        if number.isdigit():
            look_up(int(number))
    except KeyError:
        return True
    return False


def environment(definition: Definition) -> str:
    """The environment of a service as systemd reads it from a file (systemd.exec(5), EnvironmentFile=)."""
    values = {"PATH": definition.path, **dict(definition.environment)}
    lines = []
    for variable, value in values.items():
        escaped = "".join(f"\\{letter}" if letter in '\\"$`' else letter for letter in value)
        lines.append(f'{variable}="{escaped}"\n')
    return "".join(lines)


def _quoted(word: str) -> str:
    """A word of a command as systemd.syntax(7) has it. With ':' before the command, no '$' means anything."""
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return '"' + "".join(escapes.get(letter, letter) for letter in word.replace("%", "%%")) + '"'


# --- systemd ---------------------------------------------------------------------------------------------------------


def look(services: Mapping[ServiceKey, str]) -> dict[ServiceKey, Unit]:
    """What systemd has of services, which are given with their labs. Looking changes nothing."""
    if not services:
        return {}
    names = {key: name(lab, key) for key, lab in services.items()}
    output = _ask("show", f"--property={','.join(_PROPERTIES)}", "--", *names.values())
    found = {block.get("Id", ""): block for block in map(_properties, output.split("\n\n"))}
    return {key: _unit(found.get(unit, {}), unit) for key, unit in names.items()}


def _unit(found: Mapping[str, str], unit: str) -> Unit:
    path = f"{_UNITS}/{unit}"
    is_ours = found.get("FragmentPath", "") in ("", path)
    written = (_read(path) if is_ours else "") or NO_FILE
    written += "".join(f"{_NEXT}{file}{_NEXT}{_read(file)}" for file in _files(unit, _RUNTIME_FOLDERS))
    is_known = written != NO_FILE or found.get("LoadState", "not-found") not in ("not-found", "")
    pid = int(found.get("MainPID") or 0)
    state = "stopped"
    if found.get("ActiveState") == "active" and pid:
        state = "running"
    elif found.get("SubState") == "auto-restart" or found.get("ActiveState") == "activating":
        state = "restarting"
    restarts = int(found.get("NRestarts") or 0)
    running = Running(state, pid, _since(pid), restarts, _ended(found), _inode(pid))
    return Unit(is_known, running, written, tuple(lasting_files(unit)))


def _since(pid: int) -> float:
    """When a process has begun: its folder in /proc is as old."""
    try:
        return os.stat(f"/proc/{pid}").st_ctime if pid else 0.0
    except OSError:
        return 0.0


def _inode(pid: int) -> int:
    """The namespace that a process is in: systemd looks for it by its name at each start."""
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino if pid else 0
    except OSError:
        return 0


def _ended(found: Mapping[str, str]) -> str:
    """How the last process of a unit has ended; empty if none has, or another one runs."""
    code, status = found.get("ExecMainCode", "0"), found.get("ExecMainStatus", "0")
    if code in ("0", ""):
        return ""
    # include/uapi/asm-generic/siginfo.h: CLD_EXITED
    if code == "1":
        return f"exit status {status}"
    try:
        return f"signal {signal.Signals(int(status)).name}"
    except ValueError:
        return f"signal {status}"


def lasting_files(unit: str) -> list[str]:
    """The files of administrators that alter a unit, in this boot and in the next ones."""
    return _files(unit, _LASTING_FOLDERS)


def _files(unit: str, folders: Sequence[str]) -> list[str]:
    """The files that alter a unit."""
    found = []
    for folder in folders:
        with contextlib.suppress(OSError):
            here = f"{folder}/{unit}.d"
            found += [f"{here}/{file}" for file in sorted(os.listdir(here)) if file.endswith(".conf")]
    return found


def _read(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    with open(fd, encoding="utf-8", errors="surrogateescape") as file:
        return file.read() if stat.S_ISREG(os.fstat(fd).st_mode) else ""


class Start:
    """A service that is being started."""

    def __init__(self, unit: str, began: float) -> None:
        self._unit = unit
        self._began = began

    def wait(self) -> None:
        """Return when its command runs, and has run for a while. Raises NslabError if it has ended at once."""
        limit = time.monotonic() + _PROGRAM_SECONDS
        settled = 0.0
        while True:
            now = time.monotonic()
            found = _show(self._unit)
            if found.get("ActiveState") != "active" or found.get("NRestarts") != "0":
                raise NslabError(_ended_at_once(self._unit, found, self._began))
            if not settled and not _is_on_its_way(int(found.get("MainPID") or 0)):
                settled = now + SETTLE_SECONDS
            if settled and now > settled:
                return
            if now > limit:
                raise NslabError(f"its command has not been reached within {_PROGRAM_SECONDS} s")
            time.sleep(_POLL_SECONDS)

    def close(self) -> None:
        """There is nothing to be done."""


def start(unit: str, content: str, altered: str = "") -> Start:
    """Make a unit and start it, as it was ``altered`` if it was.

    Raises NslabError if it does not start; then ``stop`` has to follow.
    """
    other = _show(unit).get("FragmentPath", "")
    if other:
        raise NslabError(f"there is a unit of that name already, {other}; remove it")
    own, *more = altered.split(_NEXT)
    _write(_UNITS, unit, content if own in ("", NO_FILE) else own)
    for path, text_ in zip(more[::2], more[1::2]):
        folder, _slash, file = path.rpartition("/")
        os.makedirs(folder, 0o755, exist_ok=True)
        _write(folder, file, text_)
    _ask("daemon-reload")
    began = time.time()
    failed, _output, error = _run("start", "--", unit)
    if failed:
        found = _show(unit)
        raise NslabError(_ended_at_once(unit, found, began) if _ended(found) else error or "systemd does not start it")
    return Start(unit, began)


def _is_on_its_way(pid: int) -> bool:
    """Whether a process is still one of those that prepare the command of a unit, and has not become that."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return words.startswith(_PREPARING)


def _write(folder: str, name_: str, content: str) -> None:
    new = f"{folder}/.{name_}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(new, flags, 0o644), "w", encoding="utf-8", errors="surrogateescape") as file:
        os.fchmod(file.fileno(), 0o644)  # open() minds the umask
        file.write(content)
    os.rename(new, f"{folder}/{name_}")


def _ended_at_once(unit: str, found: Mapping[str, str], began: float) -> str:
    # Of one that waits to be started again, or has ended well, systemd does not tell how in time.
    return f"it has ended at once: {_ended(found) or 'exit status 0'}{_last_words(unit, began)}"


def ask_to_end(units: Sequence[str]) -> None:
    """Ask units to end, and do not wait for it."""
    if units:
        _run("stop", "--no-block", "--", *units)


def stop(unit: str) -> None:
    """End a unit and remove it, if it is there. Raises NslabError if it does not end."""
    failed, _output, error = _run("stop", "--", unit)
    # One that is not there, or that systemd cannot read, is not stopped, which is as good if it does not run.
    if failed and _show(unit).get("ActiveState") not in ("inactive", "failed", "", None):
        raise NslabError(error or f"systemd does not stop {unit}")
    for path in (*_files(unit, _RUNTIME_FOLDERS), f"{_UNITS}/{unit}"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    for folder in _RUNTIME_FOLDERS:
        with contextlib.suppress(OSError):  # It is not there most often, or has something else in it.
            os.rmdir(f"{folder}/{unit}.d")
    _run("reset-failed", "--", unit)
    # One that is stopped is forgotten most often; to read all units again takes long on a host that has many.
    if _show(unit).get("LoadState") != "not-found":
        _ask("daemon-reload")


# --- units of others -------------------------------------------------------------------------------------------------


def is_installed() -> bool:
    """Whether systemd boots this host, though it may not run just now, as in an image that is being built."""
    return is_booted() or shutil.which("systemctl") is not None


def reload() -> None:
    """Let systemd read all units again, if it runs. Raises NslabError."""
    if is_booted():
        _ask("daemon-reload")


def forget(units: Sequence[str]) -> None:
    """Let systemd forget units whose files are gone, and which have no process."""
    if is_booted():
        for words in (("stop", "--"), ("reset-failed", "--")):
            _run(*words, *units)


# --- asking ----------------------------------------------------------------------------------------------------------


def _show(unit: str) -> dict[str, str]:
    output = _ask("show", f"--property={','.join(_PROPERTIES)}", "--", unit)
    return _properties(output)


def _properties(block: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in block.splitlines() if "=" in line)


def _last_words(unit: str, began: float) -> str:
    """What a service has said last since then, if there is a journal."""
    program = shutil.which("journalctl")
    if program is None:
        return ""
    command = [program, "--quiet", "--no-pager", "--output=cat", "--lines=5", f"--since=@{began:.6f}"]
    deadline = time.monotonic() + _WORDS_SECONDS
    said = ""
    # What was said last is on its way to the journal still, and journald looks at what asks it to hurry first.
    while True:
        before = said
        _call([program, "--quiet", "--sync"])
        failed, output, _error = _call([*command, f"_SYSTEMD_UNIT={unit}"])
        said = "" if failed else "; ".join(line for line in output.splitlines() if line.strip())
        if (said and said == before) or time.monotonic() > deadline:
            return f"; it said: {said}" if said else ""
        time.sleep(_POLL_SECONDS)


def _ask(*words: str) -> str:
    failed, output, error = _run(*words)
    if failed:
        raise NslabError(f"systemctl {words[0]}: {error}")
    return output


def _run(*words: str) -> tuple[bool, str, str]:
    return _call([shutil.which("systemctl") or "/usr/bin/systemctl", "--no-ask-password", "--no-pager", *words])


def _call(command: Sequence[str]) -> tuple[bool, str, str]:
    environment_of_all = {**os.environ, "LC_ALL": "C"}
    try:
        # run_command() is AnsibleModule's, which this room knows nothing of.
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False, env=environment_of_all,
            timeout=_PROGRAM_SECONDS,
        )  # fmt: skip
    except OSError as error:
        raise NslabError(f"{command[0]} could not be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise NslabError(f"{command[0]} has not answered within {_PROGRAM_SECONDS} s") from error
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return done.returncode != 0, done.stdout.decode("utf-8", "replace"), lines[0] if lines else ""
