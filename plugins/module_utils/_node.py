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
from ._model import HOSTNAME, NODE_FILES, NodeSetting
from ._own_files import RUN_DIRECTORY, own_folder, replace_file

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


def _folder(name: str, make: bool) -> contextlib.AbstractContextManager[int]:
    """/etc/netns/NAME, where everybody inside reads its files."""
    return own_folder("/etc", "netns", name, mode=0o755 if make else None)


def _write_file(name: str, what: str, text: str) -> None:
    with _folder(name, make=True) as folder:
        replace_file(what, text, folder, mode=0o644)


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
    with own_folder(RUN_DIRECTORY, "uts", mode=0o700) as folder:
        path = f"/proc/self/fd/{folder}/{name}"
        if os.path.lexists(path):
            # A new one in its place: who is in the old one keeps that, with the name that it has.
            _take_away(path)
        if hostname:
            _name_host(path, hostname)
            return
    with contextlib.suppress(OSError):
        os.rmdir(UTS)


def _name_host(path: str, hostname: str) -> None:
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


def _take_away(path: str) -> None:
    with contextlib.suppress(OSError):
        _call("umount2", path.encode(), _MNT_DETACH)
    os.unlink(path)
