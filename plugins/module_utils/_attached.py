# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Namespaces that something else has made, and that get a name: what is behind a process or a path, and what was.

That a name in /run/netns was given to somebody else's namespace is in /run/nslab/attached/NAME, by that one's inode: a
container that was started anew has another one, and the name may go over to it. It is written before the name is given.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable

from . import _namespaces as namespaces
from ._model import HOST, Attach, Attachment
from ._namespaces import Entry, Handle, NamespaceError
from ._own_files import RUN_DIRECTORY, open_file, own_folder, replace_file, run_directory

_FOLDER = "attached"


def find(name: str, attach: Attach, entries: dict[str, Entry]) -> tuple[Attachment, Handle | None]:
    """What shall have the name and what has it; and the former, opened, if it is there."""
    entry = entries.get(name)
    current, kind = (entry.inode, entry.kind) if entry else (0, "")
    target = entry.target if entry else ""
    path = f"/proc/{attach.pid}/ns/net" if attach.pid else attach.path
    command = namespaces.command_of(attach.pid) if attach.pid else ""
    what = f"process {attach.pid} ({command})" if attach.pid else path
    found = Attachment(what=what, current=current, kind=kind, target=target, is_known=current in _inodes(name))
    try:
        handle = namespaces.open_path(name, path)
    except NamespaceError as error:
        there_is_none = attach.pid and not os.path.lexists(f"/proc/{attach.pid}")
        problem = f"there is no process {attach.pid}" if there_is_none else str(error)
        return found._replace(problem=problem, is_missing=not os.path.lexists(path)), None
    with contextlib.closing(namespaces.open_host()) as host:
        if handle.inode == host.inode:
            handle.close()
            return found._replace(problem=f"{what} is in the host's own namespace, which is {HOST!r} here"), None
    return found._replace(inode=handle.inode), handle


def names() -> set[str]:
    """The names that stand for the namespaces that they were given to."""
    if not _is_in_use():
        return set()
    with _folder() as folder:
        found = os.listdir(folder)
    return set(filter(_holds, found))


def note(name: str, inode: int) -> set[int]:
    """Remember that a name is about to be given to somebody else's namespace; what it may still stand for as well.

    Returns that: what the name has been given to already.
    """
    given = {namespaces.inode_of(name)} & _inodes(name)
    _write(name, sorted(given | {inode}))
    return given


def _write(name: str, inodes: Iterable[int]) -> None:
    with _folder() as folder:
        replace_file(name, " ".join(map(str, inodes)) + "\n", folder)


def settle(name: str, given: Collection[int] = ()) -> None:
    """Keep of what is remembered of a name, or was when it was ``given`` to another one, what still holds."""
    if _holds(name, given):
        _write(name, [namespaces.inode_of(name)])
        return
    if not _is_in_use():
        return
    with _folder() as folder, contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)
    with run_directory() as directory, contextlib.suppress(OSError):
        os.rmdir(_FOLDER, dir_fd=directory)


def _holds(name: str, given: Collection[int] = ()) -> bool:
    """Does a name stand for what it was given to? A symlink is somebody else's."""
    return namespaces.inode_of(name) in {*_inodes(name), *given} and not os.path.islink(
        f"{namespaces.RUN_DIRECTORY}/{name}"
    )


def _inodes(name: str) -> set[int]:
    if not _is_in_use():
        return set()
    try:
        with _folder() as folder, open(open_file(name, os.O_RDONLY, folder), encoding="ascii") as file:
            return {int(word) for word in file.read().split() if word.isdigit()}
    except FileNotFoundError:
        return set()


def _is_in_use() -> bool:
    return os.path.lexists(f"{RUN_DIRECTORY}/{_FOLDER}")


def _folder() -> contextlib.AbstractContextManager[int]:
    """The folder of the notes, made if need be."""
    return own_folder(RUN_DIRECTORY, _FOLDER, mode=0o700)
