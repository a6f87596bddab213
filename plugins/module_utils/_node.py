# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What makes a namespace look like a machine of its own: its host name, and its files in the place of those in /etc.

The files are in /etc/netns/NAME, by the convention of ``ip netns exec``; their first line says whose they are. The host
name is that of a UTS namespace, kept alive without a process by a mount at /run/nslab/uts/NAME.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import stat
from collections.abc import Iterator

from ._errors import NslabError
from ._lock import RUN_DIRECTORY, run_directory
from ._model import HOSTNAME, NODE_FILES, NodeSetting

ETC = "/etc/netns"
UTS = f"{RUN_DIRECTORY}/uts"

_THIS_UTS = "/proc/thread-self/ns/uts"
# include/uapi/linux/sched.h, include/uapi/linux/mount.h
_CLONE_NEWUTS = 0x04000000
_MS_BIND, _MNT_DETACH = 4096, 2

_HEADER = "# nslab:{} (made by nslab.netns, and removed with its lab)\n"
_OWNER = re.compile(r"# nslab:([^ ]+) .*\n")

_libc = ctypes.CDLL(None, use_errno=True)


def read_all() -> dict[str, dict[str, NodeSetting]]:
    """The settings of all names, whether or not there are such namespaces.

    Of a host name the lab is not known; of a file that is not a lab's it is empty.
    """
    found: dict[str, dict[str, NodeSetting]] = {}
    for name in _names(ETC):
        for what in NODE_FILES:
            text = _read(f"{ETC}/{name}/{what}")
            if text is not None:
                match = _OWNER.match(text)
                setting = NodeSetting(match.group(1), text[match.end() :]) if match else NodeSetting("", text)
                found.setdefault(name, {})[what] = setting
    for name in _names(UTS):
        hostname = read_hostname(name)
        if hostname is not None:
            found.setdefault(name, {})[HOSTNAME] = NodeSetting("", hostname)
    return found


def obstacle(name: str) -> str:
    """Why no files can be put into /etc/netns/NAME, in words; empty if nothing is in the way."""
    try:
        with _folder(name, make=False):
            return ""
    except NslabError as error:
        return str(error)
    except OSError:
        return ""


def files_of(name: str) -> list[str]:
    """The names of all files that are in the place of those in /etc, whoever has put them there."""
    return _names(f"{ETC}/{name}")


def write(name: str, what: str, setting: NodeSetting | None) -> None:
    """Let a namespace of that name have a setting, or none. Raises NslabError or OSError."""
    if what == HOSTNAME:
        _write_hostname(name, setting.value if setting else "")
    elif setting:
        _write_file(name, what, (_HEADER.format(setting.lab) if setting.lab else "") + setting.value)
    else:
        _remove_file(name, what)


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []


# --- files -----------------------------------------------------------------------------------------------------------


def _read(path: str) -> str | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    with open(fd, encoding="utf-8", errors="surrogateescape") as file:
        return file.read() if stat.S_ISREG(os.fstat(fd).st_mode) else None


@contextlib.contextmanager
def _folder(name: str, make: bool) -> Iterator[int]:
    """An open descriptor of /etc/netns/NAME. Raises NslabError if others could direct what is written there."""
    opened = [os.open("/etc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]
    try:
        for path, part in ((ETC, "netns"), (f"{ETC}/{name}", name)):
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=opened[-1])
                    os.chmod(part, 0o755, dir_fd=opened[-1])  # noqa: S103 - everybody inside reads its files
            try:
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                opened.append(os.open(part, flags, dir_fd=opened[-1]))
            except (NotADirectoryError, OSError) as error:
                if isinstance(error, FileNotFoundError):
                    raise
                raise NslabError(f"cannot use {path}: {error.strerror}; it has to be root's own folder") from error
            found = os.fstat(opened[-1])
            if found.st_uid != os.geteuid() or found.st_mode & 0o022:
                raise NslabError(
                    f"cannot use {path}: it belongs to user {found.st_uid} with mode {stat.S_IMODE(found.st_mode):o}; "
                    "it has to be root's own folder, and nobody else's to write to"
                )
        yield opened[-1]
    finally:
        for fd in reversed(opened):
            os.close(fd)


def _write_file(name: str, what: str, text: str) -> None:
    with _folder(name, make=True) as folder:
        new = f".{what}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new, dir_fd=folder)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(new, flags, 0o644, dir_fd=folder)
        with open(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
            os.fchmod(fd, 0o644)  # open() minds the umask
            file.write(text)
        os.rename(new, what, src_dir_fd=folder, dst_dir_fd=folder)


def _remove_file(name: str, what: str) -> None:
    with contextlib.suppress(FileNotFoundError), _folder(name, make=False) as folder:
        os.unlink(what, dir_fd=folder)
    for path in (f"{ETC}/{name}", ETC):
        # Neither says anything as long as it is empty.
        with contextlib.suppress(OSError):
            os.rmdir(path)


# --- host names ------------------------------------------------------------------------------------------------------


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@contextlib.contextmanager
def _at_home() -> Iterator[None]:
    """Bring this thread back into its UTS namespace."""
    home = os.open(_THIS_UTS, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            yield
        finally:
            _call("setns", home, _CLONE_NEWUTS)
    finally:
        os.close(home)


def read_hostname(name: str) -> str | None:
    """The host name that a namespace has of its own; empty where a run was killed on the way; None if it has none."""
    try:
        fd = os.open(f"{UTS}/{name}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        with _at_home():
            _call("setns", fd, _CLONE_NEWUTS)
            return os.uname().nodename
    except OSError:
        return ""
    finally:
        os.close(fd)


def _write_hostname(name: str, hostname: str) -> None:
    directory = run_directory()
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir("uts", 0o700, dir_fd=directory)
        path = f"/proc/self/fd/{directory}/uts/{name}"
        if os.path.lexists(path):
            # A new one in its place: who is in the old one keeps that, with the name that it has.
            _take_away(path)
        if not hostname:
            with contextlib.suppress(OSError):
                os.rmdir("uts", dir_fd=directory)
            return
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0))
        try:
            with _at_home():
                _call("unshare", _CLONE_NEWUTS)
                text = hostname.encode()
                _call("sethostname", text, len(text))
                _call("mount", _THIS_UTS.encode(), path.encode(), b"none", ctypes.c_ulong(_MS_BIND), None)
        except BaseException:
            os.unlink(path)
            raise
    finally:
        os.close(directory)


def _take_away(path: str) -> None:
    with contextlib.suppress(OSError):
        _call("umount2", path.encode(), _MNT_DETACH)
    os.unlink(path)
