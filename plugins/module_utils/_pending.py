# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changes that take themselves back unless somebody confirms them in time.

A process of its own keeps the journal, the open namespaces and the lock of the machine, and listens on a socket in
/run/nslab. It outlives the module and the SSH session by which that came. If it is asked to, it commits; if nobody
asks in time, or it is told to stop, it rolls back and leaves a note of that.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import syslog
import time
from typing import Any, NoReturn, Protocol

from ._errors import NslabError
from ._lock import Lock
from ._own_files import RUN_DIRECTORY, open_file, replace_file, run_directory

Record = dict[str, Any]

_SOCKET = "pending.sock"
_NOTE = "reverted.json"
_ASK_SECONDS = 30.0
_REQUEST_BYTES = 1024
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Transaction(Protocol):
    """What was done, and can be kept or taken back."""

    def commit(self) -> None: ...

    def roll_back(self) -> list[str]: ...

    def leave(self) -> None: ...


# --- the process that waits ------------------------------------------------------------------------------------------


def leave_to_confirmation(transaction: Transaction, lock: Lock, seconds: float, record: Record) -> str:
    """Hand what was done and the lock on to a process that waits for ``confirm()``; return until when it does.

    ``record`` has the purpose of the run, its lab, and its changes. Raises NslabError or OSError if that process cannot
    be had.
    """
    until = time.time() + seconds
    record = {**record, "until": _when(until)}
    listener = _listen()
    ready, is_ready = os.pipe()
    try:
        child = os.fork()
        if child == 0:
            os.close(ready)
            _detach(transaction, lock, listener, is_ready, seconds, record)
        os.close(is_ready)
        os.waitpid(child, 0)
        if not os.read(ready, 1):
            raise NslabError("the process that shall wait for the confirmation has ended at once")
    except BaseException:
        _unlink(_SOCKET)
        raise
    finally:
        os.close(ready)
        listener.close()
    transaction.leave()
    lock.leave()
    return _when(until)


def _listen() -> socket.socket:
    _unlink(_SOCKET)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        # The folder is root's own, so that nobody else can get at the socket.
        with run_directory() as folder:
            listener.bind(f"/proc/self/fd/{folder}/{_SOCKET}")
        listener.listen()
    except BaseException:
        listener.close()
        raise
    return listener


def _detach(
    transaction: Transaction, lock: Lock, listener: socket.socket, is_ready: int, seconds: float, record: Record
) -> NoReturn:
    """Become a process without parent, session and terminal, say so to ``is_ready``, and wait."""
    status = 1
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        _Waiting(transaction, lock, listener, seconds, record).wait(is_ready)
        lock.close()
        status = 0
    finally:
        os._exit(status)


class _Waiting:
    """Waits for what comes first: the confirmation, the deadline, or a signal to stop."""

    def __init__(
        self, transaction: Transaction, lock: Lock, listener: socket.socket, seconds: float, record: Record
    ) -> None:
        self._transaction = transaction
        self._listener = listener
        self._deadline = time.monotonic() + seconds
        self._record = {**record, "pid": os.getpid()}
        lock.rename(f"{record['purpose']}, which takes its changes back at {record['until']} unless they are confirmed")

    def wait(self, is_ready: int) -> None:
        wake, waker = os.pipe()
        os.set_blocking(waker, False)
        signal.set_wakeup_fd(waker)
        for number in _STOP_SIGNALS:
            signal.signal(number, lambda _number, _frame: None)
        os.write(is_ready, b".")
        os.close(is_ready)
        while True:
            left = self._deadline - time.monotonic()
            ready, _write, _except = select.select([self._listener, wake], [], [], max(left, 0))
            if self._listener in ready:
                if self._answer():
                    return
            elif wake in ready or left <= 0:
                self._take_back()
                return

    def _answer(self) -> bool:
        """Answer one request. True if that was the end."""
        asker, _address = self._listener.accept()
        with asker, contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            asker.settimeout(_ASK_SECONDS)
            request = json.loads(asker.recv(_REQUEST_BYTES))
            if request["ask"] == "confirm" and request["lab"] == self._record["lab"]:
                return self._confirm(asker)
            left = round(max(self._deadline - time.monotonic(), 0), 1)
            asker.sendall(json.dumps({**self._record, "seconds_left": left}).encode())
        return False

    def _confirm(self, asker: socket.socket) -> bool:
        try:
            self._transaction.commit()
        except (NslabError, OSError) as error:
            asker.sendall(json.dumps({**self._record, "error": str(error)}).encode())
            return False
        # From here on it is kept, whether or not the one who has asked is still there to hear it.
        _unlink(_SOCKET)
        with contextlib.suppress(OSError):
            asker.sendall(json.dumps(self._record).encode())
        return True

    def _take_back(self) -> None:
        remains = self._transaction.roll_back()
        note = {**self._record, "reverted": _when(time.time()), "remains": remains}
        _write_note(note)
        _unlink(_SOCKET)
        text = f"nslab.netns: {self._record['purpose']} was not confirmed; its changes were taken back"
        syslog.syslog(syslog.LOG_WARNING, text + (", but for: " + "; ".join(remains) if remains else ""))


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _write_note(note: Record) -> None:
    with run_directory() as folder:
        replace_file(_NOTE, json.dumps(note), folder)


def _unlink(name: str) -> None:
    with run_directory() as folder, contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


# --- those who ask ---------------------------------------------------------------------------------------------------


def pending() -> Record | None:
    """What waits for its confirmation: lab, purpose, changes, until, seconds_left, pid; None if nothing does."""
    return _ask({"ask": "tell"})


def confirm(lab: str) -> Record | None:
    """Have what waits be kept; None if nothing does.

    Raises NslabError if that is not of this lab (empty: of none), or could not be kept.
    """
    record = _ask({"ask": "confirm", "lab": lab})
    check_lab(record, lab)
    if record and "error" in record:
        raise NslabError(f"cannot confirm {record['purpose']}: {record['error']}")
    return record


def check_lab(record: Record | None, lab: str) -> None:
    """Raise NslabError if what waits is of another lab than the one that is to be confirmed."""
    if record and record["lab"] != lab:
        own = f"of the lab {lab!r}" if lab else "without a lab"
        whose = f"say 'lab: {record['lab']}'" if record["lab"] else "leave 'lab' out"
        raise NslabError(f"what waits is {record['purpose']}, not a change {own}; {whose} to confirm that")


def _ask(request: Record) -> Record | None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as asker:
        asker.settimeout(_ASK_SECONDS)
        try:
            asker.connect(f"{RUN_DIRECTORY}/{_SOCKET}")
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            return None
        try:
            asker.sendall(json.dumps(request).encode())
            answer = b"".join(iter(lambda: asker.recv(65536), b""))
        except (ConnectionResetError, BrokenPipeError):
            # It was just taking its changes back.
            return None
        except socket.timeout as error:
            text = f"the process that waits for a confirmation does not answer within {_ASK_SECONDS:g} s"
            raise NslabError(f"{text}; is it stopped?") from error
    found = json.loads(answer) if answer else None
    return found if isinstance(found, dict) else None


def reverted() -> Record | None:
    """The note of the last changes that took themselves back, until their lab is changed again; None: there is none."""
    if not os.path.lexists(f"{RUN_DIRECTORY}/{_NOTE}"):
        return None
    try:
        with run_directory() as folder, open(open_file(_NOTE, os.O_RDONLY, folder), encoding="utf-8") as file:
            found = json.load(file)
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def forget(lab: str) -> None:
    """Forget what was reverted of this lab: it has been changed anew."""
    note = reverted()
    if note and note["lab"] == lab:
        _unlink(_NOTE)
