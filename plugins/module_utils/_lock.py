# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One run at a time on a machine, and the folder under /run that the collection keeps for itself.

The lock is an flock: it dies with the process that holds it, however that ends.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import stat
import time
from collections.abc import Iterator

from ._errors import Busy, NslabError

RUN_DIRECTORY = "/run/nslab"
_LOCK_FILE = "lock"
_POLL_SECONDS = 0.05


def run_directory() -> int:
    """An open descriptor of /run/nslab, made with mode 700 if need be.

    Raises NslabError if it is a symlink, or belongs to or can be written by somebody else: whoever planted it could
    otherwise direct what root writes there.
    """
    with contextlib.suppress(FileExistsError):
        os.mkdir(RUN_DIRECTORY, 0o700)
    try:
        fd = os.open(RUN_DIRECTORY, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise NslabError(f"cannot use {RUN_DIRECTORY}: {error.strerror}; it has to be root's own folder") from error
    found = os.fstat(fd)
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        os.close(fd)
        raise NslabError(
            f"cannot use {RUN_DIRECTORY}: it belongs to user {found.st_uid} with mode {stat.S_IMODE(found.st_mode):o}; "
            "it has to be root's own folder, mode 700"
        )
    return fd


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
    directory = run_directory()
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(_LOCK_FILE, flags, 0o600, dir_fd=directory)
    except OSError as error:
        raise NslabError(f"cannot open {RUN_DIRECTORY}/{_LOCK_FILE}: {error.strerror}") from error
    finally:
        os.close(directory)
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
