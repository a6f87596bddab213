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


def open_file(name: str, flags: int, directory: int) -> int:
    """Open a file in /run/nslab, or make it if ``flags`` say so.

    Raises NslabError if it is anything but a file of root's own with one name: whatever somebody has planted there is
    not followed, and what else it is a name of is not written to. Raises FileNotFoundError.
    """
    try:
        fd = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600, dir_fd=directory)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise NslabError(f"cannot open {RUN_DIRECTORY}/{name}: {error.strerror}") from error
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink > 1:
        os.close(fd)
        what = "has more than one name" if found.st_nlink > 1 else "is no file of root's"
        raise NslabError(f"cannot use {RUN_DIRECTORY}/{name}: it {what}; remove it")
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
        fd = open_file(_LOCK_FILE, os.O_RDWR | os.O_CREAT, directory)
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
