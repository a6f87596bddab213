# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The part of planning that is about dummies, VLANs, macvlans, ipvlans, VXLANs and VRFs. Pure, as all of planning.

What lies on a link is made after it and removed before it. Nothing of what a link is can be changed: it is made anew.

Private to the collection: no stable interface.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from . import _changes as c
from ._errors import FOREIGN, MISSING, article, did_you_mean
from ._kernel import default_mtu, lying_on, mark_of
from ._kinds import NUMBERED, Kind, conflict
from ._model import Endpoint, Link, WantedLink, mark

if TYPE_CHECKING:
    from ._plan import Planner


class Kinds:
    """Plans the links of a demand that are of these kinds, step by step as the planner comes to them."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self._wanted = planner.wanted

    def _kinds(self) -> Iterator[tuple[Endpoint, WantedLink, Kind]]:
        """Those that are wanted, each after what it lies on."""
        found = {end: (wanted, wanted.kind) for end, wanted in self._planner.wanted_links() if wanted.kind}
        done: set[Endpoint] = set()
        for start in found:
            stack = []
            end: Endpoint | None = start
            while end in found and end not in done:
                stack.append(end)
                done.add(end)
                end = found[end][1].link
            for end in reversed(stack):
                yield (end, *found[end])

    # --- removing ----------------------------------------------------------------------------------------------------

    def remove(self, namespaces: Collection[str]) -> None:
        """Remove what lies on others and goes, before these go themselves or are sent home."""
        planner, lab = self._planner, self._wanted.lab
        going = []
        for end, link in planner.state.links():
            if link.origins:
                continue
            if end.namespace in namespaces:
                going += [upper for upper in lying_on(planner.state, end) if upper.namespace not in namespaces]
                # In what is somebody else's all stays as it is.
                is_going = end.namespace not in planner.state.borrowed
            else:
                is_going = self._wanted.prune and bool(lab) and link.lab == lab and not self._stays(end, link)
            if is_going and link.details and (link.details.link or link.details.netns):
                going.append(end)
        for end in going:
            self.remove_link(end)
        for end in self._wanted.absent_devices:
            self._remove_absent(end)

    def _stays(self, end: Endpoint, link: Link) -> bool:
        body = self._wanted.namespaces.get(end.namespace)
        wanted = body.links.get(end.interface) if body else None
        if end in self._planner.wires or wanted is None:
            return False
        return wanted.kind == link.details if wanted.kind else wanted.bridge is None

    def _remove_absent(self, end: Endpoint) -> None:
        link = self._planner.state.link(end)
        if link is None or link.origins or link.details is None:
            return
        if self._planner.is_of_lab(f"the {link.kind} {end}", mark_of(self._planner.state, end)):
            self.remove_link(end)

    def remove_link(self, end: Endpoint) -> None:
        """Remove a link, if it is there, and before it what lies on it, or on the other end of a veth."""
        planner = self._planner
        link = planner.state.link(end)
        if link is None:
            return
        ends = [one for one in (end, link.peer) if one]
        for lower, upper in [(one, upper) for one in ends for upper in lying_on(planner.state, one)]:
            other = planner.state.link(upper)
            whose = mark_of(planner.state, upper)
            if other and whose != planner.wanted.lab:
                owner = f" of the lab {whose!r}" if whose else ""
                planner.result.warnings.append(f"the {other.kind} {upper}{owner} lies on {lower}, and goes with it")
            self.remove_link(upper)
        planner.do(c.RemoveLink(end, link.kind, link.peer))

    def let_go(self, end: Endpoint) -> None:
        """Before a link goes to another namespace: a VXLAN that lies on it would be lost (vxlan_netdevice_event())."""
        for upper in lying_on(self._planner.state, end, ("vxlan",)):
            self.remove_link(upper)

    def in_the_way(self) -> Iterator[Endpoint]:
        """What has the name of a link that shall be made. What is not the lab's own is refused instead."""
        lab = self._wanted.lab
        for end, wanted, kind in self._kinds():
            link = self._planner.state.link(end)
            if link is None:
                self._planner.is_second_name(end, wanted.path)
                continue
            if link.details == kind:
                continue
            is_made = link.details is not None or link.kind in ("veth", "bridge")
            # What was another lab's is made anew as its own would be: the number of a tunnel comes from the lab's name.
            is_taken = self._wanted.adopt and bool(link.lab) and link.kind == kind.name
            if lab and (link.lab == lab or is_taken) and is_made and not link.origins:
                yield end
                continue
            owner = f" (of lab {link.lab!r})" if link.lab else ""
            fact = f"exists already and is {self._words(end, link)}, not {self._words(end, None, kind)}"
            text = f"{end}{owner} {fact}; remove or rename it, or choose another name"
            self._planner.problem(wanted.path, text, FOREIGN)

    def _words(self, end: Endpoint, link: Link | None, kind: Kind | None = None) -> str:
        kind = link.details if link else kind
        if kind is None:
            return f"{article((link.kind if link else '') or 'physical')} device"
        text = kind.text(end.namespace)
        return f"{article(kind.name)} ({text})" if text else article(kind.name)

    # --- making ------------------------------------------------------------------------------------------------------

    def add(self) -> None:
        """Make the links that are missing, all of them down."""
        planner, lab = self._planner, self._wanted.lab
        for end, wanted, kind in self._kinds():
            if planner.state.link(end):
                planner.refuse_foreign(wanted.path, f"the {kind.name} {end}", mark_of(planner.state, end))
                continue
            if kind.link:
                self._find_lower(kind.link, wanted.kind_path)
                self._free_lower(kind, kind.link, wanted.kind_path)
                self._fit(kind, kind.link, wanted.kind_path)
            self._refuse_taken(end, kind, wanted.kind_path or wanted.path)
            planner.do(c.AddLink(end, kind, 0, wanted.mac or "", mark(lab), path=wanted.kind_path or wanted.path))

    def _find_lower(self, lower: Endpoint, path: str) -> None:
        planner = self._planner
        links = planner.state.namespaces[lower.namespace].links
        if lower.interface in links:
            return
        text = f"there is no link {lower.interface!r} in the namespace {lower.namespace}"
        planner.assume(f"{path}.link", text + did_you_mean(lower.interface, links), lower.namespace, MISSING)
        links[lower.interface] = Link(lower.interface, 0, mtu=0)

    def _free_lower(self, kind: Kind, lower: Endpoint, path: str) -> None:
        """A port of a bridge, by which nothing else comes in, leaves that if it is to carry a macvlan or an ipvlan."""
        link = self._planner.state.link(lower)
        if link is None or not link.master or kind.name not in ("macvlan", "ipvlan"):
            return
        if self._planner.is_ours(lower):
            self._planner.do(c.SetMaster(lower, "", link.master, path))
        else:
            text = f"{lower} is a port of the bridge {link.master}, which takes all that comes in by it; lie on that"
            self._planner.problem(f"{path}.link", text, FOREIGN)

    def _fit(self, kind: Kind, lower: Endpoint, path: str) -> None:
        """Refuse what the kernel would, or what would change others that lie on the same link."""
        planner = self._planner
        link = planner.state.link(lower)
        if link and (link.kind == "vrf" or (link.kind == "ipvlan" and kind.name in ("vlan", "macvlan"))):
            text = f"{lower} is {article(link.kind)} device, on which no {kind.name} can lie"
            planner.problem(f"{path}.link", text)
        if link and link.details and link.kind == kind.name and kind.name in ("macvlan", "ipvlan"):
            text = f"{lower} is {article(link.kind)} itself; say what that lies on, {link.details.link}"
            planner.problem(f"{path}.link", text)
        if link and link.kind != "bridge" and kind.name == "vlan" and kind.get("bridge_binding"):
            planner.problem(f"{path}.bridge_binding", f"is for what lies on a bridge; {lower} is none")
        for upper in lying_on(planner.state, lower):
            other = planner.state.link(upper)
            why = conflict(kind, other.details) if other and other.details else ""
            if other and why:
                planner.problem(path, f"the {other.kind} {upper} lies on {lower} already, and {why}", FOREIGN)

    def _refuse_taken(self, end: Endpoint, kind: Kind, path: str) -> None:
        """Refuse a number that another tunnel through the same namespace has, or another VLAN on the same link."""
        if kind.name not in NUMBERED:
            return
        for other, link in self._planner.state.links():
            if link.details and link.details.identity(other.namespace) == kind.identity(end.namespace):
                lab = mark_of(self._planner.state, other)
                owner = f" of the lab {lab!r}" if lab else ""
                where = f" on {kind.link}" if kind.name == "vlan" else ""
                text = f"the {kind.name} {other}{owner} has the number {kind.get('id')}{where} already"
                remedy = "choose another one ('id', or 'vni' of a link between hosts)"
                self._planner.problem(path, f"{text}; {remedy if kind.name == 'vxlan' else 'remove it'}", FOREIGN)

    # --- settings ----------------------------------------------------------------------------------------------------

    def set_mtus(self, of_bridges: bool) -> None:
        """The MTU of each: without a word that of what it lies on. A bridge has its own only once it has its ports."""
        planner = self._planner
        for end, wanted, kind in self._kinds():
            if self._leans_on_bridge(kind) != of_bridges:
                continue
            link = planner.state.namespaces[end.namespace].links[end.interface]
            mtu = wanted.mtu
            if mtu is None and self._wanted.whole:
                mtu = default_mtu(planner.state, kind)
            lower = planner.state.link(kind.link) if kind.link else None
            if lower and lower.mtu and wanted.mtu is not None and wanted.mtu > default_mtu(planner.state, kind):
                text = f"{wanted.mtu} is too much: at most {default_mtu(planner.state, kind)} bytes fit into the MTU of"
                path = f"{wanted.path}.mtu" if self._wanted.whole else "mtu"
                planner.problem(path, f"{text} {kind.link}, {lower.mtu}")
            elif mtu is not None and mtu != link.mtu:
                planner.do(c.SetLink(end, mtu=mtu, before=(link.mtu, None, None), path=wanted.path))

    def _leans_on_bridge(self, kind: Kind) -> bool:
        state, seen = self._planner.state, set()
        while kind.link and kind.link not in seen:
            seen.add(kind.link)
            lower = state.link(kind.link)
            if lower is None or lower.details is None:
                return lower is not None and lower.kind == "bridge"
            kind = lower.details
        return False

    def set_vrfs(self) -> None:
        """Links become members of VRFs, and cease to be."""
        planner = self._planner
        wanted_members = {
            end._replace(interface=name): end.interface
            for end, wanted, _kind in self._kinds()
            for name in wanted.members or ()
        }
        for end, wanted, kind in self._kinds():
            if kind.name != "vrf" or (wanted.members is None and not self._wanted.whole):
                continue
            links = planner.state.namespaces[end.namespace].links
            for name, link in list(links.items()):
                member = end._replace(interface=name)
                if link.vrf == end.interface and wanted.purge_members and member not in wanted_members:
                    planner.do(c.SetVrf(member, "", link.vrf, wanted.path))
            for name, path in (wanted.members or {}).items():
                self._join(end._replace(interface=name), end.interface, path)
        for end, wanted in planner.wanted_links():
            found = planner.state.link(end)
            if self._wanted.whole and found and found.vrf and end not in wanted_members and planner.is_ours(end):
                planner.do(c.SetVrf(end, "", found.vrf, wanted.path))

    def _join(self, end: Endpoint, vrf: str, path: str) -> None:
        planner = self._planner
        links = planner.state.namespaces[end.namespace].links
        link = links.get(end.interface)
        if link is None:
            text = f"there is no link {end.interface!r} in the namespace {end.namespace}"
            planner.assume(path, text + did_you_mean(end.interface, links), end.namespace)
            links[end.interface] = link = Link(end.interface, 0, mtu=0)
        if link.kind in ("vrf", "loopback"):
            planner.problem(path, f"{end} is {article(link.kind)} device, which can be no part of a VRF")
        elif self._wanted.lab and link.index and not planner.is_ours(end):
            text = f"{end} is not this lab's, and stays what it is; move it into a namespace of the lab as a 'device'"
            planner.problem(path, text, FOREIGN)
        elif link.vrf != vrf:
            if link.master:
                planner.do(c.SetMaster(end, "", link.master, path))
            planner.do(c.SetVrf(end, vrf, link.vrf, path))

    def lost(self) -> Iterator[c.Change]:
        """What brings back what members of VRFs have lost: the kernel sets them down and up again (cycle_netdev())."""
        for step in self._planner.result.steps:
            if isinstance(step.change, c.SetVrf) or (
                isinstance(step.change, c.RemoveLink) and step.change.kind == "vrf"
            ):
                yield from step.undo

    def restore_addresses(self) -> None:
        """Add the addresses again that members have lost, but for those that the demand removes."""
        planner = self._planner
        wanted_links = dict(planner.wanted_links())
        for change in list(self.lost()):
            if not isinstance(change, c.AddAddress):
                continue
            link, wanted = planner.state.link(change.end), wanted_links.get(change.end)
            there = {address.ip for address in link.addresses} if link else set()
            if link and not (wanted and wanted.purge) and change.address.ip not in there:
                planner.do(c.AddAddress(change.end, change.address, wanted.path if wanted else ""))

    # --- order -------------------------------------------------------------------------------------------------------

    def depth(self, end: Endpoint, _seen: frozenset[Endpoint] = frozenset()) -> int:
        """How much has to come up before a link: what it lies on, and of a bridge its ports."""
        link = self._planner.state.link(end)
        if link is None or end in _seen:
            return 0
        below = [link.details.link] if link.details and link.details.link else []
        if link.kind == "bridge":
            # IPv6 sends to all ports of a bridge that is up at each port that comes up: bridges do last.
            links = self._planner.state.namespaces[end.namespace].links.values()
            below += [end._replace(interface=port.name) for port in links if port.master == end.interface]
            return 1 + max((self.depth(other, _seen | {end}) for other in below), default=0)
        return max((1 + self.depth(other, _seen | {end}) for other in below), default=0)

    def is_held_down(self, end: Endpoint, link: Link, path: str) -> bool:
        """Refuse to set a VLAN up on what is down (vlan_dev_open())."""
        lower = self._planner.state.link(link.details.link) if link.details and link.details.link else None
        # Of one that is taken for granted nothing is known.
        if not (link.details and link.details.is_bound) or lower is None or lower.up or not lower.mtu:
            return False
        text = f"{end} cannot be up, as {link.details.link} is down, on which it lies"
        self._planner.problem(path, f"{text}; set that up, or say 'up: false' here")
        return True
