# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Services where there is no systemd: each is watched by a process of its own (_supervisor.py).

That one holds a lock in the folder of the service for as long as it lives, and writes there how the service is: the
numbers of both processes with the times of their start, so that nothing is ever taken for one of them that has got its
number since.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import sys
import time
from typing import Any

from . import _supervisor
from ._errors import NslabError
from ._model import HOST
from ._own_files import open_file
from ._service import MARK, SETTLE_SECONDS, STOP_SECONDS, Definition, Running, ServiceKey
from ._supervisor import FOLDER, LOCK, REPORT, start_time, stat_of

#: Its text. The collection is gone from the host when the module has ended, which may be before a service is started:
#: by what waits for a confirmation.
_TEXT: str = _supervisor.__spec__.loader.get_source(_supervisor.__name__)  # type: ignore[union-attr]

#: How long one that was told to end has to end what it watches, and one that is killed to be gone.
_END_SECONDS = STOP_SECONDS + 5.0
_KILL_SECONDS = 5.0
_REPORT_SECONDS = 30.0
_POLL_SECONDS = 0.01

_State = dict[str, Any]

#: What it is made of (Supervisor._write_state()).
_KINDS: dict[str, Any] = {
    "state": str,
    "supervisor": list,
    "pid": int,
    "pid_started": int,
    "since": (int, float),
    "restarts": int,
    "ended": str,
}

#: All of its files in the folder of a service.
FILES = ("state", "pid", "lock", "log", "log.1", ".state.new", ".pid.new")


class Start:
    """A service that is being started."""

    def __init__(self, report: int) -> None:
        self._report = report

    def wait(self) -> None:
        """Return when it runs. Raises NslabError if it does not start, or ends at once."""
        deadline = time.monotonic() + _REPORT_SECONDS
        said = b""
        while True:
            ready, _write, _except = select.select([self._report], [], [], max(deadline - time.monotonic(), 0))
            if not ready:
                raise NslabError(f"what watches it has said nothing for {_REPORT_SECONDS:g} s")
            data = os.read(self._report, 65536)
            if not data:
                break
            said += data
        report = json.loads(said) if said else {"error": "what watches it has ended at once"}
        if "error" in report:
            lines = [line for line in report.get("log", "").splitlines() if line.strip()]
            raise NslabError(report["error"] + (f"; it said: {'; '.join(lines[-5:])}" if lines else ""))

    def close(self) -> None:
        os.close(self._report)


def start(key: ServiceKey, definition: Definition, inode: int, folder: int) -> Start:
    """Begin to start a service, of which nothing runs, in the namespace with that inode. Raises NslabError."""
    job = {
        "key": str(key),
        "mark": MARK,
        "namespace": key.namespace,
        "host": HOST,
        "inode": inode,
        "command": list(definition.command),
        "user": definition.user,
        "group": definition.group,
        "directory": definition.directory,
        "environment": dict(definition.environment),
        "path": definition.path,
        "restart": definition.restart,
        "settle_seconds": SETTLE_SECONDS,
        "stop_seconds": STOP_SECONDS,
    }
    lock = _lock(folder)
    if lock is None:
        raise NslabError("another process watches it already")
    try:
        _unlink(folder, "state", "pid")
        return Start(_spawn(key, job, folder, lock))
    finally:
        os.close(lock)


def _spawn(key: ServiceKey, job: dict[str, Any], folder: int, lock: int) -> int:
    """Start what watches the service; return the descriptor on which it tells how that went."""
    # What is in no file has no name, and takes as much as there is: a pipe takes 64 KiB before it waits for a reader.
    text = os.memfd_create("nslab-service")
    report, reporter = os.pipe()
    high = []
    try:
        with open(text, "wb", closefd=False) as file:
            file.write(f"{_TEXT}\nmain({job!r})\n".encode("utf-8", "surrogateescape"))
        os.lseek(text, 0, os.SEEK_SET)
        null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        places = {0: text, 1: null, 2: null, FOLDER: folder, LOCK: lock, REPORT: reporter}
        # Away from the places where they go.
        copies = {place: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, REPORT + 1) for place, fd in places.items()}
        high = [*copies.values(), null]
        actions = [(os.POSIX_SPAWN_DUP2, fd, place) for place, fd in copies.items()]
        command = [sys.executable, "-I", "-S", "-", "nslab-service", str(key)]
        variables = {"LC_ALL": "C.UTF-8"}
        # run_command() is AnsibleModule's, which this room knows nothing of.
        pid = os.posix_spawn(  # pylint: disable=ansible-bad-function
            sys.executable, command, variables, file_actions=actions, setsigmask=()
        )
        os.waitpid(pid, 0)
    except BaseException:
        os.close(report)
        raise
    finally:
        for fd in (text, reporter, *high):
            os.close(fd)
    return report


def ask_to_end(folder: int) -> None:
    """Ask the one who watches a service to end it, and do not wait for it."""
    state = _read_state(folder)
    if state:
        pid, started = state["supervisor"]
        _send(pid, started, signal.SIGTERM)


def stop(key: ServiceKey, inode: int, folder: int) -> None:
    """End a service, what watches it, and all that it has started. Raises NslabError if they do not end."""
    lock = _lock(folder)
    if lock is None:
        lock = _end_supervisor(folder)
    try:
        _end_leftovers(key, _read_state(folder), inode)
        _unlink(folder, "state", "pid")
    finally:
        os.close(lock)


def look(folder: int) -> Running:
    """How it is with a service. Looking changes nothing."""
    state = _read_state(folder)
    if not state:
        return Running()
    if not _lives(*state["supervisor"]):
        ended = state["ended"] if state["state"] == "stopped" else "what watches it has been killed"
        return Running("stopped", 0, state["since"], state["restarts"], ended)
    is_running = state["state"] == "running" and _lives(state["pid"], state["pid_started"])
    word = "running" if is_running else "stopped" if state["state"] == "stopped" else "restarting"
    return Running(word, state["pid"] if is_running else 0, state["since"], state["restarts"], state["ended"])


def _lives(pid: int, started: int) -> bool:
    return bool(pid and started) and start_time(pid) == started


def _read_state(folder: int) -> _State:
    try:
        with open(open_file("state", os.O_RDONLY, folder), encoding="utf-8") as file:
            found = json.load(file)
    except (FileNotFoundError, ValueError, NslabError):
        return {}
    return found if _is_state(found) else {}


def _is_state(found: Any) -> bool:
    """Is it what a supervisor writes, and no more and no less?"""
    if not isinstance(found, dict) or found.keys() != _KINDS.keys():
        return False
    pair = found["supervisor"]
    is_pair = isinstance(pair, list) and list(map(type, pair)) == [int, int]
    return is_pair and all(isinstance(found[name], kind) for name, kind in _KINDS.items())


def _unlink(folder: int, *names: str) -> None:
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)


def _lock(folder: int) -> int | None:
    """The lock that the one who watches the service has, held here; None while somebody has it."""
    fd = open_file("lock", os.O_RDWR | os.O_CREAT, folder)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def _end_supervisor(folder: int) -> int:
    """End the one who watches the service, and return the lock that it had."""
    for number, seconds in ((signal.SIGTERM, _END_SECONDS), (signal.SIGKILL, _KILL_SECONDS)):
        deadline = time.monotonic() + seconds
        asked: set[int] = set()
        while time.monotonic() < deadline:
            for pid, started in _supervisors(folder).items():
                if pid not in asked:
                    _send(pid, started, number)
                asked.add(pid)
            lock = _lock(folder)
            if lock is not None:
                return lock
            time.sleep(_POLL_SECONDS)
    who = ", ".join(f"process {pid}" for pid in _supervisors(folder)) or "something"
    raise NslabError(f"{who}, which watches it, does not end")


def _supervisors(folder: int) -> dict[int, int]:
    """Who watches the service: what it says itself, or else who has the lock open.

    One that was just started says nothing yet, and there may be one whose file somebody has removed.
    """
    state = _read_state(folder)
    if state and _lives(*state["supervisor"]):
        return dict([state["supervisor"]])
    lock = os.stat("lock", dir_fd=folder, follow_symlinks=False)
    found = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        pid, started = int(name), start_time(int(name))
        with contextlib.suppress(OSError):
            opened = os.listdir(f"/proc/{pid}/fd") if started and pid != os.getpid() else []
            for fd in opened:
                one = os.stat(f"/proc/{pid}/fd/{fd}")
                if (one.st_dev, one.st_ino) == (lock.st_dev, lock.st_ino):
                    found[pid] = started
    return found


def _send(pid: int, started: int, number: int) -> None:
    """Send a signal to the process that was started then, and to no other that may have its number by now."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    except (OSError, AttributeError):  # The kernel, or Python, is too old.
        if _lives(pid, started):
            os.kill(pid, number)
        return
    try:
        if _lives(pid, started):
            signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        pass
    finally:
        os.close(fd)


def _end_leftovers(key: ServiceKey, state: _State, inode: int) -> None:
    """End what is left of a service whose supervisor was killed."""
    deadline = time.monotonic() + STOP_SECONDS
    while True:
        left = _leftovers(key, state, inode)
        if not left:
            return
        number = signal.SIGTERM if time.monotonic() < deadline else signal.SIGKILL
        if time.monotonic() > deadline + _KILL_SECONDS:
            raise NslabError(f"process {min(left)}, which it has started, does not end")
        for pid, started in left.items():
            _send(pid, started, number)
        time.sleep(_POLL_SECONDS)


def _leftovers(key: ServiceKey, state: _State, inode: int) -> dict[int, int]:
    """The processes in the service's namespace that are in its session, or have its name in their environment."""
    session = state.get("pid", 0)
    if start_time(session) not in (0, state.get("pid_started", 0)):
        session = 0  # Somebody else has its number by now. No number is given anew as long as its session lives.
    mark = f"{MARK}={key}".encode()
    found = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        pid = int(name)
        started = start_time(pid)
        try:
            if not started or pid == os.getpid() or os.stat(f"/proc/{pid}/ns/net").st_ino != inode:
                continue
            fields = stat_of(pid)
            with open(f"/proc/{pid}/environ", "rb") as file:
                is_marked = mark in file.read().split(b"\0")
        except OSError:
            continue
        if is_marked or (session and fields and int(fields[3]) == session):
            found[pid] = started
    return found
