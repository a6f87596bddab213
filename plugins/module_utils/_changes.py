# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The vocabulary of plans: every change that the engine can make, and how it reads.

A change names its object by namespace and interface, as people do; apply resolves the names to inodes and indexes.
``path`` is the place in the user's input that asked for it. The inverse of a change is again one or more changes.

Private to the collection: no stable interface.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Optional, Tuple, Union

from ._model import Address, Endpoint, Remembered, Route
from ._sysctl import name_of


class AddNamespace(NamedTuple):
    """Make a namespace with its ``lo`` up and marked. ``stale``: the name's leftover file is replaced."""

    name: str
    alias: str = ""
    stale: bool = False
    path: str = ""


class RemoveNamespace(NamedTuple):
    name: str
    stale: bool = False
    path: str = ""


class RestoreNamespace(NamedTuple):
    """The inverse of RemoveNamespace: the namespace, alive through its open handle, gets its name back."""

    name: str
    path: str = ""


class AddVeth(NamedTuple):
    """Make a veth, both ends in place. MTU 0, MAC "" and index 0 are the kernel's choice."""

    ends: Tuple[Endpoint, Endpoint]
    mtus: Tuple[int, int] = (0, 0)
    macs: Tuple[str, str] = ("", "")
    aliases: Tuple[str, str] = ("", "")
    indexes: Tuple[int, int] = (0, 0)
    path: str = ""


class RemoveLink(NamedTuple):
    end: Endpoint
    kind: str = ""
    peer: Optional[Endpoint] = None
    path: str = ""


class MoveLink(NamedTuple):
    """Move a link to another namespace, where it may have another name. The kernel sets it down and empties it."""

    end: Endpoint
    to: Endpoint
    path: str = ""


class SetLink(NamedTuple):
    """Set MTU, MAC or alias of a link; None leaves it alone. ``before`` is (MTU, MAC, alias) as far as it changes."""

    end: Endpoint
    mtu: Optional[int] = None
    mac: Optional[str] = None
    alias: Optional[str] = None
    before: Tuple[Optional[int], Optional[str], Optional[str]] = (None, None, None)
    path: str = ""


class SetUp(NamedTuple):
    end: Endpoint
    up: bool
    path: str = ""


class AddAddress(NamedTuple):
    end: Endpoint
    address: Address
    path: str = ""


class ReplaceAddress(NamedTuple):
    """Change the flags or lifetime of an IPv6 address in place."""

    end: Endpoint
    before: Address
    address: Address
    path: str = ""


class RemoveAddress(NamedTuple):
    end: Endpoint
    address: Address
    path: str = ""


class AddRoute(NamedTuple):
    namespace: str
    route: Route
    path: str = ""


class ReplaceRoute(NamedTuple):
    namespace: str
    before: Route
    route: Route
    path: str = ""


class RemoveRoute(NamedTuple):
    namespace: str
    route: Route
    path: str = ""


class SetSysctl(NamedTuple):
    """Set a sysctl. ``before`` is None where the value cannot be known when planning: in what the plan itself makes."""

    namespace: str
    key: str
    value: str
    before: Optional[str] = None
    path: str = ""


Change = Union[
    AddNamespace,
    RemoveNamespace,
    RestoreNamespace,
    AddVeth,
    RemoveLink,
    MoveLink,
    SetLink,
    SetUp,
    AddAddress,
    ReplaceAddress,
    RemoveAddress,
    AddRoute,
    ReplaceRoute,
    RemoveRoute,
    SetSysctl,
]


class Step(NamedTuple):
    """A change, the changes that take it back, and what has to be remembered of it before it is made."""

    change: Change
    undo: Tuple[Change, ...] = ()
    remember: Optional[Remembered] = None


class Description(NamedTuple):
    """How a change reads. ``before`` and ``after`` are the object as one line each; "" where it is not there."""

    action: str  # add, remove, change, move
    object: str  # namespace, veth, link, address, route, sysctl
    namespace: str
    name: str
    before: str
    after: str

    def __str__(self) -> str:
        if self.action == "add":
            return f"add {self.after}"
        if self.action == "remove":
            return f"remove {self.before}"
        words, same = self.after.split(" "), 0
        for word, other in zip(words, self.before.split(" ")):
            if word != other:
                break
            same += 1
        return f"{self.action} {self.before} -> {' '.join(words[same:])}"

    def as_result(self) -> dict[str, Any]:
        """The change as a module returns it."""
        return self._asdict()


def describe(change: Change) -> Description:
    """Put a change into words."""
    if isinstance(change, (AddNamespace, RestoreNamespace)):
        stale = " (in the place of a stale file)" if isinstance(change, AddNamespace) and change.stale else ""
        return Description("add", "namespace", change.name, change.name, "", f"namespace {change.name}{stale}")
    if isinstance(change, RemoveNamespace):
        what = "stale namespace file" if change.stale else "namespace"
        return Description("remove", "namespace", change.name, change.name, f"{what} {change.name}", "")
    if isinstance(change, AddVeth):
        return Description("add", "veth", *change.ends[0], "", _veth(change))
    if isinstance(change, RemoveLink):
        wired = f" -- {change.peer}" if change.peer else ""
        return Description("remove", change.kind or "link", *change.end, f"{change.kind or 'link'} {change.end}{wired}", "")
    if isinstance(change, MoveLink):
        return Description("move", "link", *change.end, f"link {change.end}", f"link {change.to}")
    if isinstance(change, SetLink):
        before, after = _settings(change.before), _settings((change.mtu, change.mac, change.alias))
        return Description("change", "link", *change.end, f"link {change.end} {before}", f"link {change.end} {after}")
    if isinstance(change, SetUp):
        states = ("down", "up") if change.up else ("up", "down")
        return Description("change", "link", *change.end, *(f"link {change.end} {state}" for state in states))
    if isinstance(change, AddAddress):
        return Description("add", "address", *change.end, "", f"address {change.end} {change.address}")
    if isinstance(change, ReplaceAddress):
        before = f"address {change.end} {change.before}"
        return Description("change", "address", *change.end, before, f"address {change.end} {change.address}")
    if isinstance(change, RemoveAddress):
        return Description("remove", "address", *change.end, f"address {change.end} {change.address}", "")
    if isinstance(change, AddRoute):
        return Description("add", "route", change.namespace, change.route.to, "", _route(change.namespace, change.route))
    if isinstance(change, ReplaceRoute):
        lines = [_route(change.namespace, route) for route in (change.before, change.route)]
        if lines[0] == lines[1]:
            lines[0] += f" proto {change.before.protocol}"
            lines[1] += f" proto {change.route.protocol}"
        return Description("change", "route", change.namespace, change.route.to, *lines)
    if isinstance(change, RemoveRoute):
        return Description(
            "remove", "route", change.namespace, change.route.to, _route(change.namespace, change.route), ""
        )
    name = name_of(change.key)
    start = f"sysctl {change.namespace} {name} ="
    before = "" if change.before is None else f"{start} {change.before}"
    return Description("change" if before else "add", "sysctl", change.namespace, name, before, f"{start} {change.value}")


def _veth(change: AddVeth) -> str:
    ends = []
    for end, mtu, mac in zip(change.ends, change.mtus, change.macs):
        ends.append(" ".join([str(end)] + ([f"mtu {mtu}"] if mtu else []) + ([f"mac {mac}"] if mac else [])))
    return "veth " + " -- ".join(ends)


def _settings(values: Tuple[Optional[int], Optional[str], Optional[str]]) -> str:
    mtu, mac, alias = values
    words = []
    if mtu is not None:
        words.append(f"mtu {mtu}")
    if mac is not None:
        words.append(f"mac {mac}")
    if alias is not None:
        words.append(f"alias {alias!r}")
    return " ".join(words)


def _route(namespace: str, route: Route) -> str:
    return f"route {namespace} {route}"
