# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files and folders that are root's own, such as /run/nslab: nobody else directs what is read and written there.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator

from ._errors import NslabError

RUN_DIRECTORY = "/run/nslab"


@contextlib.contextmanager
def own_folder(path: str, *within: str, mode: int | None = None) -> Iterator[int]:
    """An open descriptor of a folder, or of the one that is ``within`` it by its names; made with a mode if need be.

    Raises NslabError if one of them is a symlink, or belongs to or can be written by somebody else: whoever planted it
    could otherwise direct what root writes there. Raises FileNotFoundError for what is missing and has no mode.
    """
    with contextlib.ExitStack() as stack:
        fd = _open_folder(path, path, None, mode)
        stack.callback(os.close, fd)
        for name in within:
            path = f"{path}/{name}"
            fd = _open_folder(path, name, fd, mode)
            stack.callback(os.close, fd)
        yield fd


def run_directory() -> contextlib.AbstractContextManager[int]:
    """An open descriptor of /run/nslab, made if need be. Raises NslabError as ``own_folder`` does."""
    return own_folder(RUN_DIRECTORY, mode=0o700)


def _open_folder(path: str, name: str, within: int | None, mode: int | None) -> int:
    if mode is not None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, mode, dir_fd=within)
            os.chmod(name, mode, dir_fd=within)  # mkdir() minds the umask
    try:
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=within)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise NslabError(f"cannot use {path}: {error.strerror}; it has to be root's own folder") from error
    found = os.fstat(fd)
    if weakness(found):
        os.close(fd)
        raise NslabError(
            f"cannot use {path}: it belongs to user {found.st_uid} with mode {stat.S_IMODE(found.st_mode):o}; "
            "it has to be root's own folder, and nobody else's to write to"
        )
    return fd


def weakness(found: os.stat_result, is_secret: bool = False) -> str:
    """Why a file or a folder is not root's own, or not for root alone to look into; empty if it is."""
    if found.st_uid != os.geteuid():
        return f"of the user {found.st_uid}"
    return f"mode {stat.S_IMODE(found.st_mode):04o}" if found.st_mode & (0o077 if is_secret else 0o022) else ""


def open_file(name: str, flags: int, folder: int) -> int:
    """Open a file in such a folder, or make it if ``flags`` say so.

    Raises NslabError if it is anything but a file of root's own with one name: whatever somebody has planted there is
    not followed, and what else it is a name of is not written to. Raises FileNotFoundError.
    """
    try:
        fd = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise NslabError(f"cannot open {_path(name, folder)}: {error.strerror}") from error
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink > 1:
        os.close(fd)
        what = "has more than one name" if found.st_nlink > 1 else "is no file of root's"
        raise NslabError(f"cannot use {_path(name, folder)}: it {what}; remove it")
    return fd


def replace_file(name: str, text: str, folder: int, mode: int = 0o600) -> None:
    """Have a file hold a text, or be as it was if this run is killed. Raises NslabError, and OSError of a full disk."""
    new = f".{name}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new, dir_fd=folder)
    fd = open_file(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, folder)
    with open(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
        os.fchmod(fd, mode)  # open() minds the umask
        file.write(text)
    os.rename(new, name, src_dir_fd=folder, dst_dir_fd=folder)


def _path(name: str, folder: int) -> str:
    return f"{os.readlink(f'/proc/self/fd/{folder}')}/{name}"
