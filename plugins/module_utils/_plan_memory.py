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
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from . import _changes as c
from ._errors import FOREIGN
from ._kernel import consequence, copy, hindrance, needs_gateway, play, unfollowed
from ._model import IPV6_MIN_MTU, Address, Endpoint, Link, Namespace, Remembered, State, Vlan
from ._renames import device_of, lost_route
from ._sysctl_keys import disable_ipv6_of, interface_of, name_of, sysctl_rank

if TYPE_CHECKING:
    from ._plan import Planner

#: What is put back after all else: what went along with it.
_LATER = ("consequence", "lost address", "lost route", "conf", "attached")


class Memories:
    """What is remembered of a lab, and of the other labs on the machine."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self._wanted = planner.wanted
        before = planner.before
        planner.result.expired += [entry for entry in before.remembered if self._has_ended(entry)]
        self._entries = [entry for entry in before.remembered if not self._has_ended(entry)]
        self.keys = {entry[:4] for entry in self._entries}
        #: What other labs have changed, by what it is.
        self._claims: dict[tuple[object, ...], list[tuple[str, Remembered]]] = {}
        for lab, entries in sorted(before.claims.items()):
            for entry in entries if lab not in self._wanted.gone else ():
                if entry.namespace not in before.namespaces or not self._has_ended(entry):
                    self._claims.setdefault(entry[:4], []).append((lab, entry))

    def _has_ended(self, entry: Remembered) -> bool:
        """Is the namespace or the device gone that an entry is about? What has its name by now is another one."""
        namespace = self._planner.before.namespaces.get(entry.namespace)
        if namespace is None or namespace.inode != entry.inode:
            return True
        if entry.kind == "device":
            # Whether it is gone is not for its name to tell, nor for its index (_plan_devices.py).
            return False
        return bool(entry.ifindex) and all(link.index != entry.ifindex for link in namespace.links.values())

    # --- remembering -------------------------------------------------------------------------------------------------

    def agree(self, memory: Remembered | None, path: str) -> bool:
        """Come to terms with other labs that have a say in a thing that is not this lab's own. False if it differs."""
        if memory is None:
            return True
        others = self._claims.get(memory[:4], [])
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
            # Of what it has found so already, too: other labs have to know that it needs it.
            self._planner.result.shared.append(self.without_the_lab(memory))
        return True

    def is_alone(self, memory: Remembered) -> bool:
        """Has this lab made the thing, and does no other one need it?"""
        made = (entry for entry in self._entries if entry[:4] == memory[:4])
        return any(entry.before is None for entry in made) and not self._claims.get(memory[:4])

    def without_the_lab(self, memory: Remembered) -> Remembered:
        """With what a sysctl would be without the lab, which may have set one already that it follows."""
        noted = (entry for step in self._planner.result.steps for entry in step.remember)
        return unfollowed(memory, (*self._entries, *noted))

    def has_added(self, end: Endpoint, there: Address, wanted: Address) -> bool:
        """Has this lab added the address, or has another one as this one wants it?"""
        namespace = self._planner.state.namespaces[end.namespace]
        key = ("address", namespace.name, namespace.inode, f"{end.interface} {there.address}")
        return key in self.keys or any(other.after == str(wanted) for _lab, other in self._claims.get(key, ()))

    def spare_others(self) -> None:
        """Refuse a plan that takes along what another lab goes on needing, where the plan does not bring it back."""
        before = self._planner.before
        for lab, entry in (claim for claims in self._claims.values() for claim in claims):
            is_lost = _is_there(before, entry) and not _is_there(self._planner.state, entry)
            namespace = self._planner.state.namespaces.get(entry.namespace)
            if not is_lost or lab in self._wanted.going or namespace is None or namespace.lab == self._wanted.lab:
                continue
            where = f"{entry.namespace}:{device_of(entry)}" if entry.kind == "address" else entry.namespace
            thing = name_of(entry.object) if entry.kind == "sysctl" else f"{entry.kind} {where} {entry.after}"
            is_here = entry.kind == "route" and any(str(route) == entry.after for route in namespace.routes)
            what = f"takes {'the gateway of ' if is_here else ''}the {thing} along, which the lab {lab!r} needs"
            self._refuse(self._taker(entry), what)

    def _taker(self, entry: Remembered) -> c.Change:
        """The change of the plan that takes along what an entry is about."""
        state = copy(self._planner.before)
        changes = self._planner.result.changes
        for change in changes:
            play(state, change)
            if not _is_there(state, entry):
                return change
        return changes[-1]

    def _refuse(self, change: c.Change, what: str) -> None:
        text = f"{change.describe()}: this {what}; leave it out, or remove that lab before"
        self._planner.problem(change.path or "name", text, FOREIGN)

    def spare_settings(self, change: c.Change) -> None:
        """Refuse a change that sets what another lab has set, too."""
        if isinstance(change, c.SetSysctl):
            self._spare_sysctls(change)
        if isinstance(change, c.SetLink) and change.mtu is not None and change.mtu < IPV6_MIN_MTU:
            self._spare_ipv6(change)

    def _spare_ipv6(self, change: c.SetLink) -> None:
        """A device has no sysctls of IPv6 below its MTU."""
        inode = self._planner.state.namespaces[change.end.namespace].inode
        about = Remembered("sysctl", change.end.namespace, inode, "", None, None)
        for lab, other in self._others("sysctl", about):
            if other.object.startswith("net/ipv6/") and device_of(other) == change.end.interface:
                self._refuse(change, f"takes {name_of(other.object)} along, which the lab {lab!r} needs")

    def _spare_sysctls(self, change: c.SetSysctl) -> None:
        inode = self._planner.state.namespaces[change.namespace].inode
        for lab, other in self._others("sysctl", Remembered("sysctl", change.namespace, inode, change.key, None, None)):
            implied = consequence(other.object, change.key, change.value)
            if other.object != change.key and implied not in (None, other.after):
                text = (
                    f"sets {name_of(other.object)} to {implied}, too, and the lab {lab!r} needs it to be {other.after}"
                )
                self._refuse(change, text)

    def of_losses(self, memory: Remembered, undo: Iterable[c.Change]) -> Iterator[Remembered]:
        """What else has to be remembered of a change: what goes with it, and does not come back with its inverse."""
        cause = f"{memory.kind} {memory.object}"
        for change in undo:
            if self._is_back_or_ours(change):
                continue
            if isinstance(change, c.AddAddress):
                found = f"{change.end.interface} {change.address.address}"
                yield memory._replace(kind="lost address", object=found, before=json.dumps(change.address), after=cause)
            elif isinstance(change, c.AddRoute) or (isinstance(change, c.ReplaceRoute) and memory.kind != "route"):
                hops = tuple(hop._replace(dead=False) for hop in change.route.nexthops)
                route = change.route._replace(nexthops=hops)
                found = f"{route.key} {route}"
                yield memory._replace(kind="lost route", object=found, before=json.dumps(route), after=cause)
            elif isinstance(change, c.SetSysctl) and memory.kind == "sysctl" and change.key != memory.object:
                yield from self._of_consequence(memory, change)

    def _is_back_or_ours(self, change: c.Change) -> bool:
        """Is what an inverse adds still there, or something that the lab has added itself?"""
        if isinstance(change, c.AddAddress):
            namespace = self._planner.state.namespaces[change.end.namespace]
            link = namespace.links.get(change.end.interface)
            if link and change.address in link.addresses:
                return True
            key = ("address", namespace.name, namespace.inode, f"{change.end.interface} {change.address.address}")
        elif isinstance(change, (c.AddRoute, c.ReplaceRoute)):
            namespace = self._planner.state.namespaces[change.namespace]
            key = ("route", namespace.name, namespace.inode, str(change.route.key))
        else:
            return False
        return any(entry[:4] == key and entry.before != entry.after for entry in self._entries)

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
        self._put_back([entry for entry in self._entries[::-1] if not entry.kind.startswith("lost")])

    def put_lost_back(self, kind: str) -> None:
        """Add the addresses or routes that went along with changes that are wanted no more.

        The links have to be as they shall be, and what the lab itself adds comes later.
        """
        self._put_back([entry for entry in self._entries[::-1] if entry.kind == f"lost {kind}"])

    def _put_back(self, entries: Iterable[Remembered]) -> None:
        result = self._planner.result
        for entry in sorted(entries, key=_rank):
            if entry.kind == "device":
                continue
            namespace = self._planner.state.namespaces.get(entry.namespace)
            if namespace is None or namespace.inode != entry.inode:
                # It goes with this plan.
                result.forgotten.append(entry)
            elif self._wanted.prune and not self._still_wanted(entry):
                self._give_up(entry, namespace)

    def _give_up(self, entry: Remembered, namespace: Namespace) -> None:
        """Put back what the lab wants no more, unless there is somebody who still needs it."""
        result = self._planner.result
        result.forgotten.append(entry)
        was_so = entry.before == entry.after and entry.kind != "consequence"
        if was_so and entry.kind != "sysctl":
            return
        # What is lost goes over to the one that keeps it away, which is seen when it is added.
        heir = None if was_so or entry.kind.startswith("lost") else self._heir(entry)
        if entry.kind == "conf":
            self._give_up_conf(entry, namespace)
        elif heir:
            self._hand_over(entry, *heir)
        elif entry.kind != "consequence" or not self._sets(entry):
            self._put_one_back(entry, namespace)

    def _hand_over(self, entry: Remembered, lab: str, cause: Remembered) -> None:
        """Have another lab put back in the end what it goes on needing because of a change of its own."""
        if entry.kind.startswith("lost"):
            entry = entry._replace(after=f"{cause.kind} {cause.object}")
        elif entry.kind == "sysctl" and entry.object != cause.object:
            entry = entry._replace(kind="consequence")
        elif entry.kind == "consequence" and entry.object == cause.object:
            if entry.before != cause.after:
                self._rebase(lab, cause, entry.before)
            return
        self._planner.result.handed_over.setdefault(lab, []).append(entry)

    def _rebase(self, lab: str, other: Remembered, before: str | None) -> None:
        """Have another lab put back something else in the end than what it has found."""
        given = self._planner.result.handed_over.setdefault(lab, [])
        known = next((entry.before for entry in reversed(given) if entry.key == other.key), other.before)
        given.append(other._replace(before=before, after=known))

    def _give_up_conf(self, entry: Remembered, namespace: Namespace) -> None:
        """Sysctls come back with IPv6, which is when the MTU allows it."""
        end = Endpoint(namespace.name, entry.object)
        link, found = self._planner.state.link(end), self._planner.before.link(end)
        if link and link.mtu < IPV6_MIN_MTU:
            self._keep(entry)
        elif found and found.mtu >= IPV6_MIN_MTU:
            # Somebody, or a run that was killed, has brought back IPv6 alone.
            self._planner.do(c.RestoreConf(end, (), lost=True))

    def _sets(self, entry: Remembered) -> bool:
        wanted = self._wanted.namespaces.get(entry.namespace)
        return wanted is not None and entry.object in wanted.sysctls

    def _heir(self, entry: Remembered) -> tuple[str, Remembered] | None:
        """Another lab that needs what this one has changed, and what of it does."""
        kinds = ("consequence", "sysctl") if entry.kind == "consequence" else (entry.kind,)
        for claim in (claim for kind in kinds for claim in self._claims.get((kind, *entry[1:4]), ())):
            return claim
        if entry.kind in ("sysctl", "consequence"):
            for lab, other in self._others("sysctl", entry):
                implied = consequence(entry.object, other.object, other.after or "")
                if implied is not None and (entry.kind == "consequence" or implied == entry.after):
                    return lab, other
        return None

    def _others(self, kind: str, entry: Remembered) -> Iterator[tuple[str, Remembered]]:
        """What other labs have changed of a kind where an entry is about."""
        for claims in self._claims.values():
            for lab, other in claims:
                if other[:3] == (kind, *entry[1:3]):
                    yield lab, other

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
            hinders = cause.kind not in ("up", "mtu", "sysctl") or bool(self._own_hindrance(entry))
            return hinders and self._still_wanted(cause)
        if wanted is None:
            return False
        if entry.kind == "attached":
            return wanted.attach is not None
        if entry.kind == "sysctl":
            return entry.object in wanted.sysctls
        if entry.kind == "consequence":
            return any(consequence(entry.object, key, "1") is not None for key in wanted.sysctls)
        if entry.kind in ("route", "rule"):
            routes = {str(item.value.key) for item in wanted.routes}
            return entry.object in (routes if entry.kind == "route" else {str(item.value) for item in wanted.rules})
        if entry.kind in ("master", "port"):
            return any(link.bridge and entry.object in link.bridge.ports for link in wanted.links.values())
        if entry.kind == "up" and entry.before == "down" != entry.after and self._uses(entry):
            return True
        link = wanted.links.get(entry.object.split(" ", 1)[0])
        if link is None or entry.kind.startswith("lost"):
            return False
        if entry.kind == "conf":
            return link.mtu is not None and link.mtu < IPV6_MIN_MTU
        if entry.kind == "address":
            return any(item.value.address == entry.object.split(" ", 1)[1] for item in link.addresses)
        return getattr(link, entry.kind) is not None

    def _uses(self, entry: Remembered) -> bool:
        """Does the lab go on having addresses or routes on the device of an entry?"""
        others = (other for other in self._entries if other.kind in ("address", "route") and other[1:3] == entry[1:3])
        return any(device_of(other) == device_of(entry) and self._still_wanted(other) for other in others)

    def _put_one_back(self, entry: Remembered, namespace: Namespace) -> None:
        if entry.kind == "attached":
            if entry.before is None:
                self._planner.do(c.RemoveNamespace(namespace.name))
        elif entry.kind in ("sysctl", "consequence"):
            self._put_sysctl_back(entry, namespace)
        elif entry.kind in ("route", "lost route"):
            self._put_route_back(entry, namespace)
        elif entry.kind == "rule":
            self._planner.rules.put_back(entry, namespace)
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
            elif entry.kind == "impairment":
                self._planner.impairments.put_back(entry, end, link)

    def _put_route_back(self, entry: Remembered, namespace: Namespace) -> None:
        if entry.kind == "lost route":
            lost = lost_route(entry)
            if not (hindrance(namespace, lost) and self._keep(entry)):
                self._planner.restore_route(namespace.name, lost)
            return
        route = next((route for route in namespace.routes if str(route) == entry.after), None)
        if route:
            self._planner.do(c.RemoveRoute(namespace.name, route))
        elif entry.before is not None:
            self.leave(entry, None)

    def _keep(self, entry: Remembered) -> bool:
        """Go on remembering what was lost while another change, of this lab or of another one, stands in its way."""
        devices, family = _needs(entry)
        own = self._own_hindrance(entry)
        if own:
            self._planner.result.rebased.append(entry._replace(after=own) if entry.kind.startswith("lost") else entry)
            return True
        # A device has its sysctls although it is down, and although these disable IPv6.
        for kind in ("mtu",) if entry.kind == "conf" else ("up", "mtu", "sysctl"):
            for lab, other in self._others(kind, entry):
                if _hinders(other, devices, family):
                    self._hand_over(entry, lab, other)
                    return True
        return False

    def _own_hindrance(self, entry: Remembered) -> str:
        """What this lab wants that keeps devices from having addresses or routes, as the cause of a loss."""
        devices, family = _needs(entry)
        wanted = self._wanted.namespaces.get(entry.namespace)
        if wanted is None:
            return ""
        for link in filter(None, map(wanted.links.get, devices)):
            if link.up is False and entry.kind != "conf":
                return f"up {link.name}"
            if family == 6 and link.mtu is not None and link.mtu < IPV6_MIN_MTU:
                return f"mtu {link.name}"
        for key in map(disable_ipv6_of, (*devices, "all")):
            if entry.kind != "conf" and family == 6 and key in wanted.sysctls and wanted.sysctls[key].value == "1":
                return f"sysctl {key}"
        return ""

    def _put_address_back(self, entry: Remembered, namespace: Namespace, end: Endpoint, link: Link) -> None:
        if entry.kind == "lost address":
            lost = Address(*json.loads(entry.before or ""))
            if any(address.ip.ip == lost.ip.ip for address in link.addresses):
                self._return_address(entry, lost)
                return
            # A device that gets IPv6 takes it from what is set for all.
            found = namespace.sysctls.get(disable_ipv6_of(end.interface))
            disabled = (namespace.sysctls.get(disable_ipv6_of("all")) if found is None else found) == "1"
            if lost.family == 6 and self._keep(entry):
                return
            if lost.family == 6 and (disabled or link.mtu < IPV6_MIN_MTU):
                text = f"the address {end} {lost} has gone and is not added again: {end} takes no IPv6 addresses"
                self._planner.result.warnings.append(text)
            else:
                self._planner.do(c.AddAddress(end, lost))
            return
        _name, _space, ours = entry.object.partition(" ")
        address = next((address for address in link.addresses if address.address == ours), None)
        if address is None:
            return
        if _without_label(str(address)) != _without_label(entry.after or ""):
            self.leave(entry, str(address))
            return
        # The others of its subnet go with a primary one, and come again.
        followers = _secondaries(link, address)
        for other in reversed(followers):
            self._planner.do(c.RemoveAddress(end, other))
        self._planner.do(c.RemoveAddress(end, address))
        for other in followers:
            self._planner.do(c.AddAddress(end, other))

    def _return_address(self, entry: Remembered, lost: Address) -> None:
        """The lab has added an address again that it had taken away before: it is not its own."""
        for own in self._entries:
            is_same = own.kind == "address" and own[1:3] == entry[1:3] and own.object == entry.object
            if is_same and own.before is None and own.after == str(lost):
                self._planner.result.rebased.append(own._replace(before=own.after))

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
            self.leave(entry, now)
            return
        if link.master == (entry.before or ""):
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
        user = self._user(entry) if entry.kind == "up" and entry.before == "down" else ""
        if user and link.up:
            self._hand_over(entry, user, entry)
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
            self.leave(entry, now)

    def _user(self, entry: Remembered) -> str:
        """Another lab that has added addresses or routes to the device of an entry; empty if there is none."""
        added = [*self._others("address", entry), *self._others("route", entry)]
        return min((lab for lab, other in added if device_of(other) == device_of(entry)), default="")

    def _put_sysctl_back(self, entry: Remembered, namespace: Namespace) -> None:
        link = namespace.links.get(interface_of(entry.object))
        if interface_of(entry.object) and link is None:
            return
        before, current = self._before_the_lab(entry), namespace.sysctls.get(entry.object)
        if before is None or current == before:
            return
        if current is None and link and link.mtu < IPV6_MIN_MTU:
            # It is not there without IPv6.
            self._keep(entry)
            return
        # Somebody else's doing is told by what was found, not by what this plan has done meanwhile.
        now = self._planner.before.namespaces[namespace.name].sysctls.get(entry.object)
        if now not in (before, None) and now not in {
            other.after for other in self._entries if other[1:4] == entry[1:4]
        }:
            if entry.before != entry.after or entry.kind == "consequence":
                self.leave(entry, now)
            return
        change = c.SetSysctl(namespace.name, entry.object, before, current)
        self._planner.do(change)
        self._set_those_of_others_again(entry, change, namespace)

    def _set_those_of_others_again(self, entry: Remembered, cause: c.SetSysctl, namespace: Namespace) -> None:
        """What other labs have set, and the kernel has changed along with what goes back now."""
        for lab, other in self._others("sysctl", entry):
            implied = consequence(other.object, cause.key, cause.value) if other.object != cause.key else None
            if implied is None or other.after is None:
                continue
            if implied != other.after and namespace.sysctls.get(other.object) != other.after:
                self._planner.do(c.SetSysctl(namespace.name, other.object, other.after, implied))
            if other.before == consequence(other.object, cause.key, entry.after or ""):
                self._rebase(lab, other, implied)

    def _before_the_lab(self, entry: Remembered) -> str | None:
        """What a sysctl is without the lab's own value, given those that it follows and that the lab still sets."""
        if entry.kind == "consequence":
            return entry.before
        wanted = self._wanted.namespaces.get(entry.namespace)
        there = (other for other in self._entries if other.kind == "sysctl" and other[1:3] == entry[1:3])
        changed = {other.object for other in there if other.before != other.after}
        for item in wanted.sysctls.values() if wanted else ():
            implied = consequence(entry.object, item.key, item.value)
            found = self._planner.before.namespaces[entry.namespace].sysctls.get(item.key)
            if implied is not None and found != item.value:
                # It has its consequences when it is set.
                return self._planner.state.namespaces[entry.namespace].sysctls.get(entry.object)
            if implied is not None and item.key in changed:
                return implied
        return entry.before

    def leave(self, entry: Remembered, now: str | None) -> None:
        values = (now, entry.after, entry.before)
        found, meant, before = ("nothing" if value is None else repr(value) for value in values)
        self._planner.result.warnings.append(
            f"{entry.kind} {entry.namespace} {entry.object} was changed to {found} by somebody else since the lab "
            f"set it to {meant}; it is left as it is (it was {before} before the lab)"
        )


def _rank(entry: Remembered) -> tuple[int, int]:
    """What leads to the gateways of routes is added before these. A device has no sysctls of IPv6 below its MTU.

    Sysctls go back after those that they follow. Routes go before the addresses and the gateways that they need, and
    rules before the routes to which they lead.
    """
    if entry.kind == "rule":
        return -3, 0
    if entry.kind == "route":
        return -2, " via " not in (entry.after or "")
    if entry.kind == "mtu":
        return -1, 0
    place = _LATER.index(entry.kind) + 1 if entry.kind in _LATER else 0
    if entry.kind == "sysctl":
        return place, sysctl_rank(entry.object)
    return place, entry.kind == "lost route" and needs_gateway(lost_route(entry))


def _needs(entry: Remembered) -> tuple[list[str], int]:
    """The devices and the family without which something cannot be there."""
    if entry.kind == "lost route":
        lost = lost_route(entry)
        return [hop.dev for hop in lost.hops], lost.family
    return [device_of(entry)], 6


def _hinders(entry: Remembered, devices: Sequence[str], family: int) -> bool:
    """Does a change keep devices from having IPv6 addresses, or routes?"""
    if entry.kind == "up":
        return entry.object in devices and entry.after == "down"
    if entry.kind == "mtu":
        return entry.object in devices and family == 6 and int(entry.after or 0) < IPV6_MIN_MTU
    keys = map(disable_ipv6_of, (*devices, "all"))
    return entry.kind == "sysctl" and family == 6 and entry.object in keys and entry.after == "1"


def _secondaries(link: Link, address: Address) -> list[Address]:
    """The IPv4 addresses that the kernel removes along with a primary one (__inet_del_ifa())."""
    group = [a for a in link.addresses if a.family == 4 == address.family and a.network == address.network]
    return group[1:] if group[:1] == [address] else []


def _is_there(state: State, entry: Remembered) -> bool:
    """Is it there what an entry is about: an address, a route with all that it needs, or the link of a sysctl?"""
    namespace = state.namespaces.get(entry.namespace)
    if namespace is None:
        return False
    if entry.kind == "route":
        return any(str(route) == entry.after and not hindrance(namespace, route) for route in namespace.routes)
    if entry.kind == "rule":
        return any(str(rule) == entry.after for rule in namespace.rules)
    link = namespace.links.get(device_of(entry))
    if link is None:
        return False
    if entry.kind == "sysctl":
        return link.index == entry.ifindex
    return entry.kind == "address" and _is_one_of(entry.after or "", link.addresses)


def _is_one_of(address: str, addresses: Iterable[Address]) -> bool:
    return any(_without_label(str(other)) == _without_label(address) for other in addresses)


def _without_label(address: str) -> str:
    """The kernel changes the labels of a device that gets another name."""
    return re.sub(r" label \S+", "", address)
