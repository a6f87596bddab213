# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The namespaces that a run works on: opened once each, with one netlink session each.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from types import TracebackType

from . import _namespaces as namespaces
from ._errors import NoNamespace
from ._model import HOST
from ._namespaces import Handle
from ._netlink import encode
from ._netlink.session import Session


class Machine:
    """Handles and sessions by namespace name. The name may go or be given anew; a handle keeps its namespace."""

    def __init__(self) -> None:
        self._handles: dict[str, Handle] = {HOST: namespaces.open_host()}
        self._sessions: dict[str, Session] = {}
        #: Namespaces whose name was removed; they live until this object is closed.
        self._nameless: dict[str, tuple[Handle, Session | None]] = {}
        #: What names stood for that were given to other namespaces.
        self._replaced: dict[str, namespaces.Replaced] = {}

    def __enter__(self) -> Machine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        for session in self._sessions.values():
            session.close()
        for handle, nameless_session in self._nameless.values():
            handle.close()
            if nameless_session:
                nameless_session.close()
        for replaced in self._replaced.values():
            if replaced.handle:
                replaced.handle.close()
        for handle in self._handles.values():
            handle.close()
        self._sessions, self._nameless, self._replaced, self._handles = {}, {}, {}, {}

    def find(self, name: str) -> Handle | None:
        """The open namespace of that name; None if there is none."""
        if name not in self._handles:
            handle = namespaces.open_named(name)
            if handle is None:
                return None
            self._handles[name] = handle
        return self._handles[name]

    def handle(self, name: str) -> Handle:
        """The open namespace of that name. Raises NoNamespace if there is none."""
        handle = self.find(name)
        if handle is None:
            raise NoNamespace(name)
        return handle

    def entered(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Put this thread into the namespace, and back. Raises NoNamespace if there is none."""
        return namespaces.entered(self.handle(name))

    def session(self, name: str) -> Session:
        """The netlink session in that namespace. Raises NoNamespace if there is no such namespace."""
        if name not in self._sessions:
            with self.entered(name):
                self._sessions[name] = Session()
        return self._sessions[name]

    def create(self, name: str, alias: str) -> Handle:
        """Make a namespace. Its ``lo`` is up and has its alias before anybody can see the name."""
        opened: list[Session] = []

        def prepare() -> None:
            opened.append(Session())
            encode.set_link(opened[0], index=1, up=True, alias=alias or None)

        try:
            handle = namespaces.create(name, prepare)
        except BaseException:
            for session in opened:
                session.close()
            raise
        self._handles[name] = handle
        self._sessions[name] = opened[0]
        return handle

    def adopt(self, handle: Handle) -> None:
        """Know a namespace by the name that it shall have."""
        if handle.name in self._handles:
            handle.close()
        else:
            self._handles[handle.name] = handle

    def attach(self, name: str, kind: str, inode: int) -> None:
        """Give such a namespace its name, in the place of an entry of that kind for the namespace with that inode."""
        self._replaced[name] = namespaces.replace_name(self.handle(name), kind, inode)

    def detach(self, name: str) -> None:
        """Let the name stand for what it stood for before."""
        replaced = self._replaced.pop(name)
        namespaces.restore_name(name, replaced)
        if replaced.handle:
            replaced.handle.close()
        # That is opened when it is asked for.
        self._forget(name)

    def remove_name(self, name: str) -> None:
        """Take a namespace's name away. The namespace ends when this object is closed, if nobody else holds it."""
        handle = self._handles.get(name)
        namespaces.remove_name(name, handle.inode if handle else 0)
        if handle:
            self._nameless[name] = (self._handles.pop(name), self._sessions.pop(name, None))

    def restore_name(self, name: str) -> None:
        handle, session = self._nameless[name]
        namespaces.give_name(handle)
        del self._nameless[name]
        self._handles[name] = handle
        if session:
            self._sessions[name] = session

    def lost(self) -> list[str]:
        """The names that were opened and stand for another namespace by now, or for none."""
        return [
            name for name, handle in self._handles.items() if name != HOST and namespaces.inode_of(name) != handle.inode
        ]

    def all_names(self, preferred: Iterable[str] = ()) -> list[str]:
        """One name for each of the namespaces that can be opened now, without the host's; if it has one of them, a
        ``preferred`` one.
        """
        names = namespaces.first_names(namespaces.entries(), preferred).values()
        return sorted(name for name in names if name != HOST)

    @contextlib.contextmanager
    def released(self, name: str) -> Iterator[Handle | None]:
        """A handle for one look, closed afterwards unless it was open before."""
        known = name in self._handles
        try:
            yield self.find(name)
        finally:
            if not known and name in self._handles:
                self._forget(name)

    def _forget(self, name: str) -> None:
        session = self._sessions.pop(name, None)
        if session:
            session.close()
        self._handles.pop(name).close()
