# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Waiting for the real end of namespaces.

A namespace without a name lives on while a process or an open file holds it. After that the kernel takes it apart in
the background (cleanup_net()): its devices come home or vanish, and so do the other ends of its veths.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import select
import time

from . import _namespaces as namespaces
from ._errors import KernelError, NslabError
from ._machine import Machine
from ._model import HOST
from ._netlink import decode, encode
from ._netlink.session import Session

_POLL_SECONDS = 0.01


class Leaving:
    """Namespaces that are about to be removed. Made before, waited for after their handles are closed."""

    def __init__(self, machine: Machine, names: list[str], seconds: float) -> None:
        self._seconds = seconds
        self._inodes = {name: machine.handle(name).inode for name in names}
        self._ids = {name: _identify(machine, name) for name in names}

    def wait(self) -> None:
        """Return when the kernel has taken all of them apart. Raises NslabError, naming who keeps one alive."""
        deadline = time.monotonic() + self._seconds
        session = Session()
        try:
            for name, identifier in self._ids.items():
                while decode.nsid_lives(session, identifier):
                    if time.monotonic() > deadline:
                        raise NslabError(self._who_holds(name))
                    select.select([], [], [], _POLL_SECONDS)
        finally:
            session.close()
        _pass_through_the_cleanup(deadline)

    def _who_holds(self, name: str) -> str:
        pids = namespaces.pids_inside().get(self._inodes[name], [])
        who = "processes " + ", ".join(str(pid) for pid in pids) if pids else "an open file or another mount of it"
        return (
            f"the namespace {name} has lost its name, but is alive after {self._seconds:g} s: "
            f"it is held by {who}; end that, or do not 'wait'"
        )


def _identify(machine: Machine, name: str) -> int:
    """The id by which the host knows a namespace. It ends when the kernel begins to take the namespace apart."""
    session = machine.session(HOST)
    identifier = decode.nsid(session, machine.handle(name).fd)
    if identifier < 0:
        encode.add_nsid(session, machine.handle(name).fd)
        identifier = decode.nsid(session, machine.handle(name).fd)
    return identifier


def _pass_through_the_cleanup(deadline: float) -> None:
    """Send a namespace of our own through the kernel's cleanup, which takes namespaces apart in order.

    When the veth end that stands in for it is gone from our side, so is everything that went before.
    """
    with namespaces.scratch():
        session = Session()
        with namespaces.scratch():
            handle = namespaces.open_host()
        try:
            encode.add_veth(session, "end", "end", handle.fd)
        finally:
            handle.close()
    try:
        while decode.link(session, name="end"):
            if time.monotonic() > deadline:
                raise NslabError("the kernel has not ended the removed namespaces in time")
            select.select([], [], [], _POLL_SECONDS)
    except KernelError as error:
        raise NslabError(f"cannot see whether the removed namespaces have ended: {error}") from error
    finally:
        session.close()
