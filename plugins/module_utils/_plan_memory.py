# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The part of planning that is about what a lab changes on things that are not its own. Pure, as all of planning.

Such a change is remembered, and put back when the lab wants it no more. Two labs may want the same; the last one to go
puts it back.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from . import _changes as c
from ._errors import FOREIGN
from ._kernel import consequence, needs_gateway
from ._model import IPV6_MIN_MTU, Address, Endpoint, Link, Namespace, Remembered, Vlan
from ._renames import device_of, lost_route
from ._sysctl_keys import disable_ipv6_of, interface_of

if TYPE_CHECKING:
    from ._plan import Planner

#: What is put back after all else: what went along with it.
_LATER = ("consequence", "lost address", "lost route")


class Memories:
    """What is remembered of a lab, and of the other labs on the machine."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self._wanted = planner.wanted
        self._entries = planner.before.remembered
        self.keys = {entry[:4] for entry in self._entries}
        #: What other labs have changed, by what it is.
        self._claims: dict[tuple[object, ...], list[tuple[str, Remembered]]] = {}
        for lab, entries in sorted(planner.before.claims.items()):
            for entry in entries if lab not in self._wanted.going else ():
                self._claims.setdefault(entry[:4], []).append((lab, entry))

    # --- remembering -------------------------------------------------------------------------------------------------

    def agree(self, memory: Remembered | None, path: str) -> bool:
        """Come to terms with other labs that have a say in a thing that is not this lab's own. False if it differs."""
        others = self._claims.get(memory[:4], []) if memory else []
        if memory is None or not others:
            return True
        for lab, other in others:
            if other.after != memory.after:
                self._planner.problem(
                    path,
                    f"the lab {lab!r} has set this to {other.after!r}, and needs it so; let both say the same, or "
                    "remove that lab",
                    FOREIGN,
                )
                return False
        if memory.before == memory.after and memory[:4] not in self.keys:
            self._planner.result.shared.append(memory)
        return True

    def spare_others(self, change: c.Change, undo: Iterable[c.Change]) -> None:
        """Refuse a change that takes along what another lab has added and goes on needing."""
        for lost in undo:
            if isinstance(lost, c.AddAddress):
                namespace = self._planner.state.namespaces[lost.end.namespace]
                is_there = lost.address in namespace.links[lost.end.interface].addresses
                what, key = (
                    f"address {lost.end} {lost.address}",
                    ("address", f"{lost.end.interface} {lost.address.address}"),
                )
            elif isinstance(lost, c.AddRoute):
                namespace = self._planner.state.namespaces[lost.namespace]
                is_there = lost.route in namespace.routes
                what, key = f"route {lost.namespace} {lost.route}", ("route", str(lost.route.key))
            else:
                continue
            if is_there:
                continue
            for lab, _entry in self._claims.get((key[0], namespace.name, namespace.inode, key[1]), ()):
                self._planner.problem(
                    change.path,
                    f"{change.describe()}: this takes the {what} along, which the lab {lab!r} needs; leave it out, or "
                    "remove that lab",
                    FOREIGN,
                )

    def of_losses(self, memory: Remembered, undo: Iterable[c.Change]) -> Iterator[Remembered]:
        """What else has to be remembered of a change: what goes with it, and does not come back with its inverse."""
        cause = f"{memory.kind} {memory.object}"
        for change in undo:
            if isinstance(change, c.AddAddress):
                found = f"{change.end.interface} {change.address.address}"
                yield memory._replace(kind="lost address", object=found, before=json.dumps(change.address), after=cause)
            elif isinstance(change, c.AddRoute):
                found = f"{change.route.key} {change.route}"
                yield memory._replace(kind="lost route", object=found, before=json.dumps(change.route), after=cause)
            elif isinstance(change, c.SetSysctl) and memory.kind == "sysctl" and change.key != memory.object:
                yield from self._of_consequence(memory, change)

    def _of_consequence(self, memory: Remembered, change: c.SetSysctl) -> Iterator[Remembered]:
        """A sysctl that changes with another one, if it does not change back with it."""
        same = (other for other in self._entries if other[:4] == ("sysctl", *memory[1:3], change.key))
        before = next((other.before for other in same), change.value)
        if memory.before is None or before != consequence(change.key, memory.object, memory.before):
            yield memory._replace(kind="consequence", object=change.key, before=before, after=change.before)

    # --- putting back ------------------------------------------------------------------------------------------------

    def put_back(self) -> None:
        """Undo what the lab once changed on things that are not its own, where it is wanted no more.

        The last first: a sysctl may have been what it was because of another one that the lab had set before. What
        went along with a change is mended in the end.
        """
        result = self._planner.result
        last_first = self._entries[::-1]
        for entry in sorted(last_first, key=_rank):
            namespace = self._planner.state.namespaces.get(entry.namespace)
            before = self._planner.before.namespaces.get(entry.namespace)
            if namespace is None or namespace.inode != entry.inode:
                is_removed = before is not None and before.inode == entry.inode
                (result.forgotten if is_removed else result.expired).append(entry)
            elif entry.ifindex and before and all(link.index != entry.ifindex for link in before.links.values()):
                # A device has taken along what was done to it. What has its name by now is another one.
                result.expired.append(entry)
            elif self._wanted.prune and not self._still_wanted(entry):
                heir = self._heir(entry)
                if heir:
                    result.handed_over.setdefault(heir, []).append(entry)
                else:
                    self._put_one_back(entry, namespace)
                    result.rebased += self._rebased(entry)
                result.forgotten.append(entry)

    def _rebased(self, gone: Remembered) -> Iterator[Remembered]:
        """Sysctls that the lab still sets, and that were what they were before only because of one that goes back."""
        if gone.kind != "sysctl" or gone.before is None or gone.after is None:
            return
        for entry in self._entries[self._entries.index(gone) + 1 :]:
            if entry[:3] != gone[:3] or not self._still_wanted(entry):
                continue
            implied = consequence(entry.object, gone.object, gone.after)
            if implied is not None and implied == entry.before:
                known = (e.before for e in self._entries if e.kind == "consequence" and e[1:4] == entry[1:4])
                before = next(known, consequence(entry.object, gone.object, gone.before))
                yield entry._replace(
                    before=before, after=self._wanted.namespaces[entry.namespace].sysctls[entry.object].value
                )

    def _heir(self, entry: Remembered) -> str:
        """Another lab that needs what this one has changed; empty if there is none."""
        cause = self._cause(entry)
        if cause:
            return self._heir(cause)
        for lab, _other in self._claims.get(entry[:4], ()):
            return lab
        if entry.kind == "consequence":
            for key, claimants in self._claims.items():
                if key[:3] == ("sysctl", *entry[1:3]) and consequence(entry.object, str(key[3]), "1") is not None:
                    return claimants[0][0]
        return ""

    def _cause(self, entry: Remembered) -> Remembered | None:
        """The change by which an address or a route was lost."""
        if not entry.kind.startswith("lost"):
            return None
        there = (other for other in self._entries if other[1:3] == entry[1:3])
        return next((other for other in there if f"{other.kind} {other.object}" == entry.after), None)

    def _still_wanted(self, entry: Remembered) -> bool:
        cause = self._cause(entry)
        wanted = self._wanted.namespaces.get(entry.namespace)
        if cause:
            return self._still_wanted(cause)
        if wanted is None:
            return False
        if entry.kind == "sysctl":
            return entry.object in wanted.sysctls
        if entry.kind == "consequence":
            return any(consequence(entry.object, key, "1") is not None for key in wanted.sysctls)
        if entry.kind == "route":
            return any(str(item.value.key) == entry.object for item in wanted.routes)
        if entry.kind in ("master", "port"):
            return any(link.bridge and entry.object in link.bridge.ports for link in wanted.links.values())
        link = wanted.links.get(entry.object.split(" ", 1)[0])
        if link is None or entry.kind.startswith("lost"):
            return False
        if entry.kind == "address":
            return any(item.value.address == entry.object.split(" ", 1)[1] for item in link.addresses)
        return getattr(link, entry.kind) is not None

    def _put_one_back(self, entry: Remembered, namespace: Namespace) -> None:
        if entry.kind in ("sysctl", "consequence"):
            self._put_sysctl_back(entry, namespace)
        elif entry.kind in ("route", "lost route"):
            self._put_route_back(entry, namespace)
        else:
            end = Endpoint(namespace.name, entry.object.split(" ", 1)[0])
            link = namespace.links.get(end.interface)
            if link is None:
                return
            if entry.kind in ("address", "lost address"):
                self._put_address_back(entry, namespace, end, link)
            elif entry.kind == "master":
                self._put_master_back(entry, end, link)
            elif entry.kind in ("up", "mtu", "mac"):
                self._put_setting_back(entry, end, link)

    def _put_route_back(self, entry: Remembered, namespace: Namespace) -> None:
        if entry.kind == "lost route":
            self._planner.restore_route(namespace.name, lost_route(entry))
            return
        route = next((route for route in namespace.routes if str(route) == entry.after), None)
        if route:
            self._planner.do(c.RemoveRoute(namespace.name, route))
        elif entry.before is not None:
            self._leave(entry, None)

    def _put_address_back(self, entry: Remembered, namespace: Namespace, end: Endpoint, link: Link) -> None:
        if entry.kind == "lost address":
            lost = Address(*json.loads(entry.before or ""))
            if any(address.ip.ip == lost.ip.ip for address in link.addresses):
                return
            disabled = namespace.sysctls.get(disable_ipv6_of(end.interface)) == "1"
            if lost.family == 6 and (disabled or link.mtu < IPV6_MIN_MTU):
                text = f"the address {end} {lost} has gone and is not added again: {end} takes no IPv6 addresses"
                self._planner.result.warnings.append(text)
            else:
                self._planner.do(c.AddAddress(end, lost))
            return
        ours = _without_label(entry.after or "")
        address = next((address for address in link.addresses if _without_label(str(address)) == ours), None)
        if address is None:
            return
        # The others of its subnet go with a primary one, and come again.
        followers = _secondaries(link, address)
        for other in reversed(followers):
            self._planner.do(c.RemoveAddress(end, other))
        self._planner.do(c.RemoveAddress(end, address))
        for other in followers:
            self._planner.do(c.AddAddress(end, other))

    def _put_master_back(self, entry: Remembered, end: Endpoint, link: Link) -> None:
        if entry.before and entry.before not in self._planner.state.namespaces[end.namespace].links:
            self._planner.result.warnings.append(
                f"{end} was a port of the bridge {entry.before} before the lab, and that is gone; it becomes none again"
            )
            return
        # A bridge of the lab that has gone in this plan has let its ports go.
        found = self._planner.before.link(end)
        now = found.master if found else link.master
        if now == entry.before:
            return
        if now != entry.after:
            self._leave(entry, now)
            return
        self._planner.do(c.SetMaster(end, entry.before or "", link.master))
        key = entry._replace(kind="port")[:4]
        before = next((other.before for other in self._entries if other[:4] == key), None)
        if not before or not link.master:
            return
        port, vlans = json.loads(before)
        settings = tuple((name, value) for name, value in port.items() if link.port.get(name) != value)
        if settings:
            self._planner.do(c.SetPort(end, settings))
        wanted = tuple(Vlan(*vlan) for vlan in vlans)
        if wanted != link.vlans:
            self._planner.do(c.SetVlans(end, wanted, link.vlans))

    def _put_setting_back(self, entry: Remembered, end: Endpoint, link: Link) -> None:
        change: c.Change
        users = self._users(entry) if entry.kind == "up" and entry.before == "down" else []
        if users and link.up:
            text = f"{end} was down before the lab, and stays up: the lab {users[0]!r} has addresses or routes there"
            self._planner.result.warnings.append(text)
            return
        if entry.kind == "up":
            now = "up" if link.up else "down"
            change = c.SetUp(end, entry.before == "up")
        elif entry.kind == "mtu":
            now = str(link.mtu)
            change = c.SetLink(end, mtu=int(entry.before or 0), before=(link.mtu, None, None))
        else:
            now = link.mac
            change = c.SetLink(end, mac=entry.before, before=(None, link.mac, None))
        if now == entry.before or not entry.before:
            return
        if now == entry.after:
            self._planner.do(change)
        else:
            self._leave(entry, now)

    def _users(self, entry: Remembered) -> list[str]:
        """The other labs that have added addresses or routes to the device of an entry."""
        device = (*entry[1:3], device_of(entry))
        claims = [claim for claims in self._claims.values() for claim in claims]
        added = [(lab, other) for lab, other in claims if other.kind in ("address", "route")]
        return sorted({lab for lab, other in added if (*other[1:3], device_of(other)) == device})

    def _put_sysctl_back(self, entry: Remembered, namespace: Namespace) -> None:
        if interface_of(entry.object) and interface_of(entry.object) not in namespace.links:
            return
        before, current = self._before_the_lab(entry), namespace.sysctls.get(entry.object)
        if before is None or current == before:
            return
        # Somebody else's doing is told by what was found, not by what this plan has done meanwhile.
        now = self._planner.before.namespaces[namespace.name].sysctls.get(entry.object)
        if now != before and now not in {other.after for other in self._entries if other[1:4] == entry[1:4]}:
            self._leave(entry, now)
            return
        self._planner.do(c.SetSysctl(namespace.name, entry.object, before, current))

    def _before_the_lab(self, entry: Remembered) -> str | None:
        """What a sysctl was, given those that it follows: some the lab sets now, and some go back, too."""
        if entry.kind == "consequence":
            return entry.before
        wanted = self._wanted.namespaces.get(entry.namespace)
        for item in wanted.sysctls.values() if wanted else ():
            implied = consequence(entry.object, item.key, item.value)
            found = self._planner.before.namespaces[entry.namespace].sysctls.get(item.key)
            if implied is not None and (found != item.value or ("sysctl", *entry[1:3], item.key) in self.keys):
                return implied
        for cause in self._entries:
            if cause.kind == "consequence" and cause[1:4] == entry[1:4] and not self._still_wanted(cause):
                return cause.before
        for cause in self._entries:
            if cause == entry:
                break
            if cause.kind == "sysctl" and cause[1:3] == entry[1:3] and cause.before and not self._still_wanted(cause):
                implied = consequence(entry.object, cause.object, cause.before)
                if implied is not None:
                    return implied
        return entry.before

    def _leave(self, entry: Remembered, now: str | None) -> None:
        self._planner.result.warnings.append(
            f"{entry.kind} {entry.namespace} {entry.object} was changed to {now!r} by somebody else since the lab "
            f"set it to {entry.after!r}; it is left as it is (it was {entry.before!r} before the lab)"
        )


def _rank(entry: Remembered) -> tuple[int, bool]:
    """What leads to the gateways of routes is added before these."""
    place = _LATER.index(entry.kind) + 1 if entry.kind in _LATER else 0
    return place, entry.kind == "lost route" and needs_gateway(lost_route(entry))


def _secondaries(link: Link, address: Address) -> list[Address]:
    """The IPv4 addresses that the kernel removes along with a primary one (__inet_del_ifa())."""
    group = [a for a in link.addresses if a.family == 4 == address.family and a.ip.network == address.ip.network]
    return group[1:] if group[:1] == [address] else []


def _without_label(address: str) -> str:
    """The kernel changes the labels of a device that gets another name."""
    return re.sub(r" label \S+", "", address)
