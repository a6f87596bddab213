# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Handles on network namespaces: their names in /run/netns, entering and leaving, who lives inside.

The conventions are those of iproute2's ip/ipnetns.c, so that ``ip netns`` and this collection see the same things.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
from collections.abc import Iterable, Iterator
from typing import Callable, NamedTuple

from ._errors import NslabError
from ._model import HOST

RUN_DIRECTORY = "/run/netns"
_THIS_NAMESPACE = "/proc/thread-self/ns/net"

# include/uapi/linux/sched.h, include/uapi/linux/mount.h
_CLONE_NEWNET = 0x40000000
_MS_BIND, _MS_REC, _MS_SHARED = 4096, 16384, 1 << 20
_MNT_DETACH = 2


class NamespaceError(NslabError):
    """A namespace could not be made, opened, entered or removed."""


class Entry(NamedTuple):
    """A name in /run/netns. ``kind``:

    mount or symlink (somebody's link to /proc/PID/ns/net) for a namespace; stale for the empty file of an interrupted
    ``ip netns add`` or of before a reboot, dangling for a symlink that leads to no namespace, foreign for all else.
    """

    name: str
    kind: str
    inode: int
    target: str


class Handle:
    """An open namespace. It lives as long as the handle does, whatever happens to its name."""

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self.fd = fd
        self.inode = os.fstat(fd).st_ino

    def close(self) -> None:
        os.close(self.fd)


class _Libc:
    """The system calls that Python 3.9 does not have."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)

    def _call(self, name: str, *arguments: object) -> None:
        if getattr(self._libc, name)(*arguments) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def setns(self, fd: int) -> None:
        self._call("setns", fd, _CLONE_NEWNET)

    def unshare(self) -> None:
        self._call("unshare", _CLONE_NEWNET)

    def mount(self, source: str, target: str, flags: int) -> None:
        self._call("mount", source.encode(), target.encode(), b"none", ctypes.c_ulong(flags), None)

    def umount(self, target: str) -> None:
        self._call("umount2", target.encode(), _MNT_DETACH)


_libc = _Libc()


def open_host() -> Handle:
    """The namespace that this thread is in."""
    return Handle(HOST, os.open(_THIS_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC))


def open_named(name: str) -> Handle | None:
    """The namespace of that name in /run/netns; None if there is none or the name is stale."""
    try:
        # What else may have the name, such as a FIFO, is not to be waited for.
        fd = os.open(f"{RUN_DIRECTORY}/{name}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:  # not there, dangling, a loop of symlinks, ...
        return None
    if os.fstat(fd).st_dev != _nsfs_device():
        os.close(fd)
        return None
    return Handle(name, fd)


def open_path(name: str, path: str) -> Handle:
    """The network namespace behind a path, such as /proc/PID/ns/net, to be known by ``name``.

    Raises NamespaceError if there is none.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise NamespaceError(f"{path} cannot be opened: {error.strerror}") from error
    # include/uapi/linux/nsfs.h: NS_GET_NSTYPE
    if os.fstat(fd).st_dev != _nsfs_device() or fcntl.ioctl(fd, 0xB703) != _CLONE_NEWNET:
        os.close(fd)
        raise NamespaceError(f"{path} is no network namespace")
    return Handle(name, fd)


def inode_of(name: str) -> int:
    """The inode of the namespace of that name; 0 if there is none."""
    try:
        found = os.stat(f"{RUN_DIRECTORY}/{name}")
    except OSError:
        return 0
    return found.st_ino if found.st_dev == _nsfs_device() else 0


def entries() -> list[Entry]:
    """All names in /run/netns, sorted."""
    try:
        names = sorted(os.listdir(RUN_DIRECTORY))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [_entry(name) for name in names]


def first_names(found: Iterable[Entry], preferred: Iterable[str] = ()) -> dict[int, str]:
    """The one name by which each namespace that can be opened is known, by inode.

    ``host`` for the one that this thread is in; else one of the ``preferred``; else the one that was given first.
    """
    with contextlib.closing(open_host()) as host:
        names = {host.inode: HOST}
    # What is called `host` in /run/netns has no name: that is the host's own namespace here.
    inodes = {entry.name: entry.inode for entry in found if entry.inode and entry.name != HOST}
    ages = _mount_ages() if len(set(inodes.values())) < len(inodes) else {}
    for name in (*preferred, *sorted(inodes, key=lambda name: (ages.get(name, len(ages)), name))):
        if name in inodes:
            names.setdefault(inodes[name], name)
    return names


def _mount_ages() -> dict[str, int]:
    """The names that are mounts, by when they were mounted: as /proc/self/mountinfo lists them."""
    with open("/proc/thread-self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        points = [line.split(" ", 5)[4] for line in file]
    prefix = f"{RUN_DIRECTORY}/"
    found = [point[len(prefix) :] for point in points if point.startswith(prefix)]
    return {name: age for age, name in reversed(list(enumerate(found)))}


def _entry(name: str) -> Entry:
    path = f"{RUN_DIRECTORY}/{name}"
    target = ""
    try:
        if stat.S_ISLNK(os.lstat(path).st_mode):
            target = os.readlink(path)
        found = os.stat(path)
    except OSError:
        return Entry(name, "dangling" if target else "stale", 0, target)
    if found.st_dev == _nsfs_device():
        return Entry(name, "symlink" if target else "mount", found.st_ino, target)
    if target:
        return Entry(name, "dangling", 0, target)
    return Entry(name, "stale" if stat.S_ISREG(found.st_mode) else "foreign", 0, "")


def _nsfs_device() -> int:
    """All namespaces live on one pseudo file system, which is how a real one is told from a stale file."""
    return os.stat(_THIS_NAMESPACE).st_dev


@contextlib.contextmanager
def entered(handle: Handle) -> Iterator[None]:
    """Put this thread into a namespace, and back. Sockets and /proc/sys files opened inside stay its own."""
    home = os.open(_THIS_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            _libc.setns(handle.fd)
        except OSError as error:
            raise NamespaceError(f"cannot enter the namespace {handle.name}: {error.strerror}") from error
        try:
            yield
        finally:
            _libc.setns(home)
    finally:
        os.close(home)


@contextlib.contextmanager
def initial() -> Iterator[None]:
    """Put this thread into the machine's initial namespace, where all sysctls are, if it may go there; and back.

    Process 1 lives there, and the kernel's own threads (2 is kthreadd). The kernel lets nobody look at a process that
    has more capabilities than the one who asks (ptrace_may_access()), which process 1 has on some machines.
    """
    for path in ("/proc/1/ns/net", "/proc/2/ns/net"):
        try:
            handle = Handle("initial", os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            break
        except OSError:
            continue
    else:
        yield
        return
    try:
        with entered(handle):
            yield
    finally:
        handle.close()


@contextlib.contextmanager
def scratch() -> Iterator[None]:
    """Put this thread into a new namespace that has no name and is gone afterwards."""
    home = os.open(_THIS_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _libc.unshare()
        try:
            yield
        finally:
            _libc.setns(home)
    finally:
        os.close(home)


def create(name: str, prepare: Callable[[], None]) -> Handle:
    """Make a namespace and give it a name, as ``ip netns add`` does.

    ``prepare`` is called inside before the name exists: whoever sees the name sees a namespace that is prepared, and
    a run that is killed before leaves no nameless half. A stale file of that name is taken over.
    Raises NamespaceError, or what ``prepare`` raises; nothing is left behind then.
    """
    home = os.open(_THIS_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            _libc.unshare()
        except OSError as error:
            raise NamespaceError(f"cannot make the namespace {name}: {error.strerror}") from error
        try:
            prepare()
            handle = Handle(name, os.open(_THIS_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC))
        finally:
            _libc.setns(home)
    finally:
        os.close(home)
    try:
        give_name(handle)
    except BaseException:
        handle.close()
        raise
    return handle


def give_name(handle: Handle) -> None:
    """Bind a namespace to its name in /run/netns. Raises NamespaceError if the name stands for a namespace."""
    name = handle.name
    path = f"{RUN_DIRECTORY}/{name}"
    with _locked_run_directory():
        try:
            entry = _entry(name) if os.path.lexists(path) else None
            if entry is not None:
                if entry.kind != "stale":
                    raise NamespaceError(f"cannot name the namespace {name}: {path} has come to exist meanwhile")
                os.unlink(path)
            os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0))
            try:
                _libc.mount(f"/proc/self/fd/{handle.fd}", path, _MS_BIND)
            except BaseException:
                os.unlink(path)
                raise
        except OSError as error:
            raise NamespaceError(f"cannot name the namespace {name} in {RUN_DIRECTORY}: {error.strerror}") from error


class Replaced(NamedTuple):
    """What had a name before: an entry in /run/netns, and the namespace that it stood for."""

    entry: Entry | None
    handle: Handle | None


def replace_name(handle: Handle, kind: str, inode: int) -> Replaced:
    """Bind a namespace to its name in the place of an entry of that kind for the namespace with that inode.

    Raises NamespaceError if there is another one by now.
    """
    name = handle.name
    path = f"{RUN_DIRECTORY}/{name}"
    entry = _entry(name) if os.path.lexists(path) else None
    if (entry.kind if entry else "", entry.inode if entry else 0) != (kind, inode):
        raise NamespaceError(f"cannot name the namespace {name}: {path} has changed meanwhile")
    replaced = Replaced(entry, open_named(name) if entry and entry.inode else None)
    try:
        if entry:
            remove_name(name, entry.inode)
        give_name(handle)
    except BaseException:
        restore_name(name, replaced)
        raise
    return replaced


def restore_name(name: str, replaced: Replaced) -> None:
    """Let a name stand for what it stood for before ``replace_name``."""
    remove_name(name, inode_of(name))
    if replaced.entry and replaced.entry.target:
        os.symlink(replaced.entry.target, f"{RUN_DIRECTORY}/{name}")
    elif replaced.handle:
        give_name(replaced.handle)


def remove_name(name: str, inode: int) -> None:
    """Take a name from /run/netns, of the namespace with that inode, or one that stands for none (0).

    A name that is gone, or that stands for something else by now, is left alone.
    """
    path = f"{RUN_DIRECTORY}/{name}"
    with _locked_run_directory():
        if not os.path.lexists(path):
            return
        entry = _entry(name)
        if entry.inode != inode:
            return
        try:
            if entry.kind == "mount":
                _libc.umount(path)
            os.unlink(path)
        except OSError as error:
            raise NamespaceError(f"cannot remove the namespace {name}: {error.strerror}") from error


@contextlib.contextmanager
def _locked_run_directory() -> Iterator[None]:
    """/run/netns, made if need be, shared between mount namespaces, and locked as ``ip netns`` locks it."""
    try:
        os.mkdir(RUN_DIRECTORY, 0o755)
        os.chmod(RUN_DIRECTORY, 0o755)  # noqa: S103 - as ip netns makes it; mkdir() minds the umask
    except FileExistsError:
        pass
    except OSError as error:
        raise NamespaceError(f"cannot make {RUN_DIRECTORY}: {error.strerror}") from error
    try:
        fd = os.open(RUN_DIRECTORY, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise NamespaceError(f"cannot use {RUN_DIRECTORY}: {error.strerror}; it has to be a directory") from error
    try:
        found = os.fstat(fd)
        if found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise NamespaceError(
                f"cannot use {RUN_DIRECTORY}: it belongs to user {found.st_uid} with mode "
                f"{stat.S_IMODE(found.st_mode):o}, so that others could plant names; it has to be root's, mode 755"
            )
        fcntl.flock(fd, fcntl.LOCK_EX)
        # Without this a mount made here stays invisible to processes in other mount namespaces, and keeps
        # namespaces alive there after their name is gone (iproute2, ip/ipnetns.c, create_netns_dir()).
        try:
            _libc.mount("", RUN_DIRECTORY, _MS_SHARED | _MS_REC)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise NamespaceError(f"cannot share {RUN_DIRECTORY}: {error.strerror}") from error
            try:
                _libc.mount(RUN_DIRECTORY, RUN_DIRECTORY, _MS_BIND | _MS_REC)
                _libc.mount("", RUN_DIRECTORY, _MS_SHARED | _MS_REC)
            except OSError as second:
                raise NamespaceError(f"cannot share {RUN_DIRECTORY}: {second.strerror}") from second
            # The directory was opened below the mount that now covers it. ``ip netns`` locks what it opens by path.
            os.close(fd)
            fd = os.open(RUN_DIRECTORY, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def pids_inside() -> dict[int, list[int]]:
    """The processes in each network namespace of this machine, by the namespace's inode."""
    found: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                inode = os.stat(f"/proc/{name}/ns/net").st_ino
            except OSError:
                continue
            found.setdefault(inode, []).append(int(name))
    return {inode: sorted(pids) for inode, pids in found.items()}


def command_of(pid: int) -> str:
    """The name of a process, as ``ps`` shows it; empty if it has ended."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().rstrip("\n")
    except OSError:
        return ""
