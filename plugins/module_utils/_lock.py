# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One run at a time on a machine.

The lock is an flock: it dies with the process that holds it, however that ends.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import time
from collections.abc import Iterator

from ._errors import Busy
from ._own_files import open_file, run_directory

_LOCK_FILE = "lock"
_POLL_SECONDS = 0.05


class Lock:
    """The lock, held."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._is_ours = True

    def rename(self, purpose: str) -> None:
        """Tell others that this process holds the lock, and for what."""
        text = f"process {os.getpid()} ({purpose})\n".encode()
        os.pwrite(self._fd, text, 0)
        os.ftruncate(self._fd, len(text))

    def leave(self) -> None:
        """Leave the lock to a child process, which holds it by the same open file."""
        self._is_ours = False

    def close(self) -> None:
        if self._is_ours:
            os.ftruncate(self._fd, 0)
        os.close(self._fd)


@contextlib.contextmanager
def held(purpose: str, seconds: float) -> Iterator[Lock]:
    """Hold the machine's lock. ``purpose`` is what others are told.

    Raises Busy after ``seconds``, naming the holder.
    """
    with run_directory() as folder:
        fd = open_file(_LOCK_FILE, os.O_RDWR | os.O_CREAT, folder)
    try:
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    holder = os.pread(fd, 400, 0).decode("utf-8", "replace").strip() or "another process"
                    raise Busy(f"{holder} has been changing this machine's namespaces for over {seconds:g} s") from None
                select.select([], [], [], _POLL_SECONDS)
    except BaseException:
        os.close(fd)
        raise
    lock = Lock(fd)
    try:
        lock.rename(purpose)
        yield lock
    finally:
        lock.close()
