# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The program that watches one service where there is no systemd: a process of its own, which outlives the module.

It starts the service in its namespace, writes down what it says, starts it again when it dies, and ends all of its
processes when it is asked to end. It is run from its text, which needs nothing of the collection: that is gone when the
module has ended. It holds neither the namespace nor a file in it.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import contextlib
import ctypes
import grp
import json
import os
import pwd
import select
import shutil
import signal
import stat
import time
from typing import Any, NoReturn

#: The descriptors that it is started with: the folder of the service, the lock in it that says that it lives, and where
#: it tells how the start went.
FOLDER, LOCK, REPORT = 3, 4, 5

#: The log is renamed to its name with .1 when it is as large, so that there is at most twice as much.
LOG_BYTES = 1 << 20

#: What the service said last, for the one who has started it.
_TAIL_BYTES = 2000

#: How long it waits before it starts a service again: twice as long each time, until that has run for a while.
_FIRST_DELAY, _LAST_DELAY, _LONG_RUN = 0.2, 10.0, 10.0

#: Whose signals are no failure (systemd.service(5), Restart=).
_CLEAN_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)

# include/uapi/linux/sched.h, mount.h, prctl.h
_CLONE_NEWNS, _CLONE_NEWUTS, _CLONE_NEWNET = 0x00020000, 0x04000000, 0x40000000
_MS_BIND, _MS_REC, _MS_SLAVE = 4096, 16384, 1 << 19
_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_SET_CHILD_SUBREAPER = 1, 15, 36

_libc = ctypes.CDLL(None, use_errno=True)


def start_time(pid: int) -> int:
    """When a process was started, in ticks since the boot: with its number, what it is. 0 if it has ended."""
    fields = stat_of(pid)
    return int(fields[19]) if fields and fields[0] not in ("Z", "X") else 0


def stat_of(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; empty if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class _Failure(Exception):
    """The service cannot be started, and why."""


class _Gone(_Failure):
    """Its namespace is not there any more, so that it never will."""


class Supervisor:
    """One service: ``job`` says which, and what it is."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._job = job
        self._pid = 0
        self._pid_started = 0
        self._since = 0.0
        self._began = 0.0
        self._restarts = 0
        self._ended = ""
        self._delay = _FIRST_DELAY
        self._output = -1
        self._tail = b""
        self._log = -1
        self._is_asked_to_end = False
        self._wake, waker = os.pipe()
        for fd in (self._wake, waker):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask_to_end)
        _call("prctl", _PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        _call("prctl", _PR_SET_NAME, b"nslab-service", 0, 0, 0)

    def _ask_to_end(self, _number: int, _frame: object) -> None:
        self._is_asked_to_end = True

    def run(self) -> None:
        """Start the service, tell how that went, and watch it until it shall run no more."""
        try:
            self._launch()
            self._settle()
        except (_Failure, OSError) as error:
            self._end_all()
            self._drain()
            self._tell({"error": str(error), "log": self._tail.decode("utf-8", "replace")})
            return
        self._tell({"pid": self._pid})
        while not self._is_asked_to_end:
            self._watch()
            if self._is_asked_to_end or not self._restart():
                break
        self._write_state("stopped")
        self._end_all()
        self._drain()

    def _tell(self, report: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # Nobody is waiting any more.
            os.write(REPORT, json.dumps(report).encode())
        os.close(REPORT)

    # --- its life ----------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        deadline = time.monotonic() + self._job["settle_seconds"]
        while time.monotonic() < deadline and not self._is_asked_to_end:
            self._wait(deadline)
            if not self._pid:
                raise _Failure(f"it has ended at once: {self._ended}")
        if self._is_asked_to_end:
            raise _Failure("it was asked to end meanwhile")

    def _watch(self) -> None:
        """Return when the service has died, or shall end."""
        while self._pid and not self._is_asked_to_end:
            self._wait(None)

    def _restart(self) -> bool:
        """Start the service anew if it shall be; False if it stays as it is."""
        while True:
            failed = not self._ended.startswith("exit status 0") and not self._ended.endswith("(clean)")
            if self._job["restart"] == "no" or (self._job["restart"] == "on-failure" and not failed):
                return False
            if time.monotonic() - self._began > _LONG_RUN:
                self._delay = _FIRST_DELAY
            self._write_state("restarting")
            self._end_all()
            deadline = time.monotonic() + self._delay
            self._delay = min(self._delay * 2, _LAST_DELAY)
            while time.monotonic() < deadline:
                self._wait(deadline)
                if self._is_asked_to_end:
                    return False
            self._restarts += 1
            try:
                self._launch()
            except _Gone as error:
                self._ended = str(error)
                return False
            except (_Failure, OSError) as error:
                self._ended = str(error)
                self._say(f"nslab.netns: {error}\n".encode())
                continue
            return True

    def _wait(self, deadline: float | None) -> None:
        """Wait for something to happen: output, the end of a process, a signal, or the deadline."""
        left = None if deadline is None else max(deadline - time.monotonic(), 0)
        files = [self._wake] if self._output < 0 else [self._wake, self._output]
        ready, _write, _except = select.select(files, [], [], left)
        if self._wake in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake, 4096)
        if self._output in ready:
            self._read()
        self._reap()

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self._pid:
                    self._pid = 0
                    self._ended = _words(status)

    # --- starting ----------------------------------------------------------------------------------------------------

    def _launch(self) -> None:
        """Start the service. Raises _Failure if it cannot be."""
        self._drain()
        output, self_output = os.pipe()
        failure, is_failing = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._become(self_output, is_failing)
        os.close(self_output)
        os.close(is_failing)
        self._output, self._tail = output, b""
        os.set_blocking(output, False)
        with open(failure, "rb") as file:
            said = file.read().decode("utf-8", "replace")
        if said:
            os.waitpid(pid, 0)
            kind, _colon, text = said.partition(":")
            raise (_Gone if kind == "gone" else _Failure)(text)
        self._pid, self._pid_started = pid, start_time(pid)
        self._since, self._began = float(int(time.time())), time.monotonic()
        self._write_state("running")

    def _become(self, output: int, is_failing: int) -> NoReturn:
        """In the child: become the service."""
        try:
            self._enter(output)
        except _Failure as error:
            kind = "gone" if isinstance(error, _Gone) else "failed"
            os.write(is_failing, f"{kind}:{error}".encode())
        except OSError as error:
            where = f"{error.filename!r}: " if error.filename else ""
            os.write(is_failing, f"failed:{where}{error.strerror}".encode("utf-8", "replace"))
        except BaseException as error:  # noqa: BLE001 - a child ends here, whatever it is
            os.write(is_failing, f"failed:{error}".encode("utf-8", "replace"))
        finally:
            os._exit(127)

    def _enter(self, output: int) -> None:
        job = self._job
        os.setsid()
        null = os.open(os.devnull, os.O_RDONLY)
        for fd, source in ((0, null), (1, output), (2, output)):
            os.dup2(source, fd)
        user, uid, gid, variables = _account(job["user"], job["group"])
        if job["namespace"] != job["host"]:
            _enter_namespace(job["namespace"], job["inode"])
        variables = {"PATH": job["path"], **variables, **job["environment"]}
        variables[job["mark"]] = job["key"]
        program = shutil.which(job["command"][0], path=variables["PATH"])
        if program is None:
            raise _Failure(f"there is no program {job['command'][0]!r} that could be run")
        if uid or gid:
            if user:
                os.initgroups(user, gid)
            else:
                os.setgroups([gid])
            os.setgid(gid)
            os.setuid(uid)
        os.chdir(job["directory"] or "/")
        os.umask(0o022)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGHUP, signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        # Changing the user takes it away again. If the one who watches is killed, so is what it watches.
        _call("prctl", _PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != job["supervisor"]:
            raise _Failure("what watches it has been killed")
        os.execve(program, job["command"], variables)  # noqa: S606 - as itself, not in a shell

    # --- ending ------------------------------------------------------------------------------------------------------

    def _end_all(self) -> None:
        """End the service and all processes that it has started, wherever they have gone: they are our descendants."""
        deadline = time.monotonic() + self._job["stop_seconds"]
        number = signal.SIGTERM
        asked: set[int] = set()
        while True:
            self._reap()
            left = _descendants()
            if not left:
                self._pid = 0
                return
            if time.monotonic() > deadline:
                number = signal.SIGKILL
            for pid in left if number == signal.SIGKILL else left - asked:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
                    os.kill(pid, signal.SIGCONT)
            asked |= left
            self._wait(time.monotonic() + 0.02)

    # --- what it writes ----------------------------------------------------------------------------------------------

    def _write_state(self, state: str) -> None:
        found = {
            "state": state,
            "supervisor": [os.getpid(), start_time(os.getpid())],
            "pid": self._pid,
            "pid_started": self._pid_started,
            "since": self._since,
            "restarts": self._restarts,
            "ended": self._ended,
        }
        # Who reads that it runs finds its number as well.
        if self._pid:
            _put("pid", f"{self._pid}\n")
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink("pid", dir_fd=FOLDER)
        _put("state", json.dumps(found))

    def _read(self) -> bool:
        """Take what the service has said into its log. False if there is no more for now."""
        try:
            data = os.read(self._output, 65536)
        except BlockingIOError:
            return False
        if not data:
            os.close(self._output)
            self._output = -1
            return False
        self._say(data)
        return True

    def _drain(self) -> None:
        """Take the last of it, and listen no more."""
        while self._output >= 0 and self._read():
            pass
        if self._output >= 0:
            os.close(self._output)
            self._output = -1

    def _say(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-_TAIL_BYTES:]
        try:
            if self._log < 0:
                self._log = _open_log()
            os.write(self._log, data)
            if os.fstat(self._log).st_size >= LOG_BYTES:
                os.close(self._log)
                self._log = -1
                os.rename("log", "log.1", src_dir_fd=FOLDER, dst_dir_fd=FOLDER)
        except OSError:
            # Without room for its log it goes on.
            pass


def _open_log() -> int:
    """The log, to be added to. What is of that name and no file of our own with one name goes, for a new one."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open("log", flags, 0o600, dir_fd=FOLDER)
        found = os.fstat(fd)
        if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and found.st_nlink == 1:
            return fd
        os.close(fd)
    except OSError:
        pass
    os.unlink("log", dir_fd=FOLDER)
    return os.open("log", flags | os.O_EXCL, 0o600, dir_fd=FOLDER)


def _put(name: str, text: str) -> None:
    """Write a file in the folder as a whole. Without room for it the service goes on."""
    new = f".{name}.new"
    with contextlib.suppress(OSError):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new, dir_fd=FOLDER)
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=FOLDER)
        with open(fd, "w", encoding="utf-8") as file:
            file.write(text)
        os.rename(new, name, src_dir_fd=FOLDER, dst_dir_fd=FOLDER)


def _words(status: int) -> str:
    if os.WIFEXITED(status):
        return f"exit status {os.WEXITSTATUS(status)}"
    number = os.WTERMSIG(status)
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = str(number)
    return f"signal {name}" + (" (clean)" if number in _CLEAN_SIGNALS else "")


def _descendants() -> set[int]:
    """All processes below this one that have not ended."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = stat_of(int(name))
            if fields:
                parents[int(name)] = int(fields[1])
    found = {os.getpid()}
    while True:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        if not more:
            return found - {os.getpid()}
        found |= more


def _account(user: str, group: str) -> tuple[str, int, int, dict[str, str]]:
    """The name, the numbers, and the variables of the one who runs the service."""
    try:
        entry = pwd.getpwuid(int(user or "0")) if user.isdigit() or not user else pwd.getpwnam(user)
        name, uid, gid, home, shell = entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir, entry.pw_shell
    except KeyError:
        if user and not user.isdigit():
            raise _Failure(f"there is no user {user!r}") from None
        name, uid, gid, home, shell = "", int(user or "0"), int(user or "0"), "/", "/bin/sh"
    try:
        if group:
            gid = int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    except KeyError:
        raise _Failure(f"there is no group {group!r}") from None
    return name, uid, gid, {"HOME": home, "USER": name or str(uid), "LOGNAME": name or str(uid), "SHELL": shell}


def _enter_namespace(name: str, inode: int) -> None:
    """Enter the namespace of that name, as the become plugin does: with /sys, files and host name of its own."""
    try:
        fd = os.open(f"/run/netns/{name}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        fd = -1
    if fd < 0 or os.fstat(fd).st_ino != inode:
        raise _Gone(f"its namespace {name} is gone")
    _call("setns", fd, _CLONE_NEWNET)
    with contextlib.suppress(FileNotFoundError):
        _call("setns", os.open(f"/run/nslab/uts/{name}", os.O_RDONLY | os.O_CLOEXEC), _CLONE_NEWUTS)
    _call("unshare", _CLONE_NEWNS)
    # What is mounted by others has to be unmounted here as well, or else it would keep their namespaces alive.
    _call("mount", b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_SLAVE), None)
    _call("mount", b"sysfs", b"/sys", b"sysfs", ctypes.c_ulong(0), None)
    with contextlib.suppress(FileNotFoundError):
        for file in os.listdir(f"/etc/netns/{name}"):
            source = os.fsencode(f"/etc/netns/{name}/{file}")
            target = os.fsencode(f"/etc/{file}")
            if os.path.exists(source) and os.path.exists(target):
                _call("mount", source, target, b"none", ctypes.c_ulong(_MS_BIND), None)


def main(job: dict[str, Any]) -> None:
    """Become a process without parent, session and terminal, and watch the service of the job."""
    for fd in (FOLDER, LOCK, REPORT):
        os.set_inheritable(fd, False)
    os.setsid()
    if os.fork():
        os._exit(0)
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    Supervisor({**job, "supervisor": os.getpid()}).run()
