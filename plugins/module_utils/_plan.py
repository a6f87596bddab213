# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From what is and what shall be to the ordered list of changes. Pure: no input, no output.

The order of a plan, and the room that is left in it:

 1. devices of the host go home; what is in the way or has left the lab goes: routes, links, namespaces
 2. namespaces are made or get their names, and what is taken over is marked; what the lab changed on things that are
    not its own, and wants no more, is put back
 3. sysctls of the namespace as a whole, before interfaces take their defaults from them
 4. bridges are made, which stay down; devices of the host are moved in; links are made and moved to where they belong,
    and then those that lie on others (VLANs and the like)
 5. MTU, MAC, mark, settings; sysctls of interfaces; links that shall be down go down
 6. interfaces join and leave VRFs; ports leave and join bridges; addresses
 7. links come up, bridges last of all
 8. routes, those that make gateways reachable first; then policy rules, which go before routes
 9. impairments of links; rules of translation, into the new backend before they leave the old one
10. host names and files
11. services, which end before all else when they go

Private to the collection: no stable interface.
"""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from . import _changes as c
from ._errors import CONNECTION, FOREIGN, MISSING, Problem, Refused, article, did_you_mean, few
from ._findings import Finding, findings
from ._kernel import copy, devices_towards, hindrance, mark_of, needs_gateway, new_namespace, play, table_of
from ._model import (
    CONNECTED_METRIC_V6,
    HOST,
    IPV6_MIN_MTU,
    STATIC_ROUTE_PROTOCOLS,
    Address,
    Attach,
    Attachment,
    Endpoint,
    IPAddress,
    IPNetwork,
    Link,
    Namespace,
    NextHop,
    Remembered,
    Route,
    State,
    Wanted,
    WantedAddress,
    WantedLink,
    WantedNamespace,
    WantedRoute,
    WantedSysctl,
    Wire,
    mark,
)
from ._plan_bridges import Bridges
from ._plan_connection import find_cut
from ._plan_devices import Devices, completed
from ._plan_impairments import Impairments
from ._plan_kinds import Kinds
from ._plan_memory import Memories
from ._plan_nat import Nat
from ._plan_nodes import Nodes
from ._plan_rules import Rules
from ._plan_services import Services
from ._renames import inherited
from ._sysctl_keys import disable_ipv6_of, generic_key, interface_of, name_of, sysctl_rank


@dataclass
class Plan:
    """The ordered changes, what they take for granted, and what the user should know besides."""

    steps: list[c.Step] = field(default_factory=list)
    #: What an earlier task would have made in a real run. A plan with assumptions can be shown, not applied.
    assumptions: list[Problem] = field(default_factory=list)
    #: What has to be said before it can be applied.
    unsaid: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    #: What needs not be remembered any more after this plan.
    forgotten: list[Remembered] = field(default_factory=list)
    #: What another lab has made as this one wants it, so that it has to stay when that one goes.
    shared: list[Remembered] = field(default_factory=list)
    #: What another lab wants to stay, and puts back in the end, by that lab.
    handed_over: dict[str, list[Remembered]] = field(default_factory=dict)
    #: What was remembered by other labs of devices that have come home.
    released: dict[str, list[Remembered]] = field(default_factory=dict)
    #: What goes on being remembered, of something that was as it was before only because of what goes back now.
    rebased: list[Remembered] = field(default_factory=list)
    #: What was remembered of namespaces that are gone. The kernel gives a new one the same inode at times.
    expired: list[Remembered] = field(default_factory=list)
    #: The backend that holds the rules of translation, by namespace, where there are any.
    backends: dict[str, str] = field(default_factory=dict)
    #: When the machine takes the changes back by itself, if they are not confirmed; empty if it does not.
    until: str = ""

    @property
    def changes(self) -> list[c.Change]:
        return [step.change for step in self.steps]


def plan(wanted: Wanted, state: State) -> Plan:
    """The changes that lead from ``state`` to ``wanted``. Raises Refused if the host's facts stand against it."""
    return Planner(wanted, state).plan()


def foresee(state: State, lab: str, earlier: Plan) -> None:
    """Change a state that was observed for ``lab`` as an earlier plan of the same run, of another lab, would."""
    for change in earlier.changes:
        if isinstance(change, c.SetNat):  # Each lab sees its own rules only.
            continue
        with contextlib.suppress(KeyError):  # of what was not observed
            play(state, change)
    state.remembered = inherited(state.remembered, earlier.handed_over.get(lab, ()))
    for other, entries in earlier.handed_over.items():
        if other in state.claims:
            state.claims[other] = inherited(state.claims[other], entries)


class Planner:
    """Plans by playing each change on a copy of the state; bridges have a room of their own (_plan_bridges.py)."""

    def __init__(self, wanted: Wanted, state: State) -> None:
        self.wanted = wanted = completed(wanted, state)
        self.before = state
        self.state = copy(state)
        self.result = Plan()
        self.problems: list[Problem] = []
        self.bridges = Bridges(self)
        self.nat = Nat(self)
        self.nodes = Nodes(self)
        self.devices = Devices(self)
        self.kinds = Kinds(self)
        self.rules = Rules(self)
        self.impairments = Impairments(self)
        self.services = Services(self)
        self.wires: dict[Endpoint, Wire] = {end: wire for wire in wanted.wires for end in wire.ends}
        #: Namespaces that are taken for granted; what is in them is, too.
        self.assumed: set[str] = set()
        self.memories = Memories(self)

    def plan(self) -> Plan:
        self.devices.find()
        self._remove()
        self.nat.remove()
        self._add_namespaces()
        self._refuse()
        self.memories.put_back()
        self._assume_namespaces()
        self._set_sysctls(of_interfaces=False)
        self.bridges.add()
        self.devices.move_in()
        self._add_wires()
        self.kinds.add()
        self._refuse()
        self._set_links()
        self.bridges.configure()
        self._set_sysctls(of_interfaces=True)
        self._set_down()
        self.kinds.set_mtus(of_bridges=False)
        self.kinds.set_vrfs()
        self.bridges.set_ports()
        self.kinds.set_mtus(of_bridges=True)
        self.memories.put_lost_back("address")
        self._set_addresses()
        self.kinds.restore_addresses()
        self._set_up()
        # VLANs have come up with what they lie on.
        self._set_down()
        self.memories.put_lost_back("route")
        self._restore_routes()
        self._set_routes()
        self.rules.set()
        self.impairments.set()
        self.nat.set()
        self.nodes.set()
        self.services.set()
        self.memories.spare_others()
        self._keep_connection()
        self._refuse()
        if self.wanted.whole:
            self.result.findings = findings(self.wanted, self.state)
        if self.wanted.strict:
            self.problems += [Problem(found.path, f"{found.text} [{found.code}]") for found in self.result.findings]
            self._refuse()
        return self.result

    def _keep_connection(self) -> None:
        """Refuse to cut the branch that this run sits on."""
        connection = self.before.connection
        if connection is None or self.wanted.may_cut or self.problems:
            return
        cut = find_cut(self.before, self.state, self.result.steps, connection)
        if cut and not self.devices.is_forced(cut.change):
            self.problem(
                cut.change.path,
                f"{cut.change.describe()}: this would cut the SSH session by which Ansible is here, from "
                f"{connection.remote} to {connection.local} port {connection.port}: {cut.text}; leave it out, or say "
                "'revert_after' if the host shall take it back by itself unless it is confirmed",
                CONNECTION,
            )

    # --- how a change enters the plan --------------------------------------------------------------------------------

    def do(self, change: c.Change, remember: Remembered | None = None, *more: Remembered | None) -> None:
        if isinstance(change, c.MoveLink) and change.end.namespace != change.to.namespace:
            self.kinds.let_go(change.end)
        undo = tuple(play(self.state, change))
        memories: tuple[Remembered, ...] = ()
        if remember or (isinstance(change, c.SetLink) and self.is_ours(change.end)):
            self.memories.spare_settings(change)
        if remember:
            memories = (*self.memories.of_losses(remember, undo), *filter(None, more), remember)
        self.result.steps.append(c.Step(change, undo, memories))

    def do_noted(self, change: c.Change, remember: Remembered | None) -> None:
        """The same with a memory that is whole by itself."""
        undo = tuple(play(self.state, change))
        self.result.steps.append(c.Step(change, undo, (remember,) if remember else ()))

    def _refuse(self) -> None:
        if self.wanted.whole and self.result.assumptions:
            self.problems += self.result.assumptions
            self.result.assumptions = []
        if self.problems:
            raise Refused(self.problems)

    def remember(self, kind: str, end: Endpoint, before: str | None, after: str | None) -> Remembered | None:
        """The memory of a change to a link that is not the lab's own; None if it is, or if there is no lab."""
        if not self.wanted.lab or self.is_ours(end):
            return None
        inode = self.state.namespaces[end.namespace].inode
        return Remembered(kind, end.namespace, inode, end.interface, before, after)

    def is_ours(self, end: Endpoint) -> bool:
        return self._is_made(end) or mark_of(self.state, end) == self.wanted.lab

    def _is_made(self, end: Endpoint) -> bool:
        """Is it a link that the demand makes, where it is missing?"""
        wanted = self._wanted_link(end)
        if wanted is not None and (wanted.kind or (wanted.bridge and wanted.bridge.create)):
            return True
        return end in self.wires

    def owns(self, namespace: Namespace) -> bool:
        return bool(self.wanted.lab) and namespace.lab == self.wanted.lab

    # --- 1. removing -------------------------------------------------------------------------------------------------

    def _remove(self) -> None:
        lab = self.wanted.lab
        namespaces = self._going_namespaces()
        self.kinds.remove(namespaces)
        self.devices.go_home(namespaces)
        links = [end for veth in self.wanted.absent_veths for end in self._absent_end(*veth)]
        if self.wanted.prune and lab:
            moving = {move.end for move in map(self._misplaced, self.wanted.wires) if move}
            links += [
                end
                for end, link in self.state.links()
                if link.lab == lab and end.namespace not in namespaces and not self._is_wanted(end, moving)
            ]
        links += [*self.bridges.absent(), *self.bridges.in_the_way(), *self.devices.in_the_way()]
        links += self.kinds.in_the_way()
        links += [end for wire in self.wanted.wires for end in self._in_the_way(wire)]
        self._refuse_second_names(namespaces)
        self._refuse()
        self.services.remove(namespaces)
        for name in namespaces:
            # A veth between two of them ends with them. One to somewhere else goes now, so that what it leaves behind
            # there is gone when the run ends, and not whenever the kernel gets to it.
            if name in self.state.borrowed:
                # What is somebody else's lives on without this name.
                continue
            links += [
                Endpoint(name, link.name)
                for link in self.state.namespaces[name].links.values()
                if link.kind == "veth" and not (link.peer and link.peer.namespace in namespaces)
            ]
        self.rules.remove()
        for name, namespace in self.wanted.namespaces.items():
            if name in self.state.namespaces:
                self._remove_routes(self.state.namespaces[name], namespace)
        self.nodes.remove(namespaces)
        for end in links:
            self.kinds.remove_link(end)
        for name in dict.fromkeys(namespaces):
            self.do(c.RemoveNamespace(name))
        for name in self.wanted.absent_namespaces:
            if name in self.state.stale:
                self.do(c.RemoveNamespace(name, stale=True))
            elif self._obstacle(name):
                self.problem("name", f"{self._obstacle(name)}; it is not removed", FOREIGN)

    def _going_namespaces(self) -> list[str]:
        namespaces = [name for name in self.wanted.absent_namespaces if self._may_go(name)]
        if self.wanted.prune and self.wanted.lab:
            namespaces += [
                name
                for name, namespace in self.state.namespaces.items()
                if namespace.lab == self.wanted.lab and name not in self.wanted.namespaces
            ]
        return namespaces

    def _refuse_second_names(self, going: list[str]) -> None:
        for second, name in self.state.second_names.items():
            if name in going:
                text = f"the namespace {name} has a second name, {second}; take that away first, with 'ip netns delete'"
                self.problem("name", text, FOREIGN)

    def _obstacle(self, name: str) -> str:
        """What a name stands for that can be no namespace of its own, in words; empty for nothing."""
        other = self.state.second_names.get(name)
        if other:
            whose = "the host's own namespace" if other == HOST else f"the namespace {other}"
            return f"{name!r} is a second name of {whose}, which is {other!r} here"
        return self.state.obstacles.get(name, "")

    def _may_go(self, name: str) -> bool:
        """Is the namespace there, and may it be removed? With a lab, only what carries its mark may."""
        namespace = self.state.namespaces.get(name)
        if namespace is None:
            return False
        # A name that the lab has given to somebody else's namespace is its own, although that has no mark.
        attached = ("attached", name, namespace.inode)
        if any(entry[:3] == attached and entry.before is None for entry in self.before.remembered):
            return True
        return self.is_of_lab(f"the namespace {name}", namespace.lab)

    def is_of_lab(self, what: str, owner: str | None) -> bool:
        if not self.wanted.lab or owner == self.wanted.lab:
            return True
        whose = f"belongs to lab {owner!r}" if owner else "has no mark"
        self.result.warnings.append(f"{what} {whose}, so lab {self.wanted.lab!r} does not remove it; it stays")
        return False

    def _absent_end(self, end: Endpoint, other: Endpoint | None) -> Iterator[Endpoint]:
        """The end by which a veth that shall go is removed: the named one, or the other if it strayed."""
        link = self.state.link(end)
        if link is None:
            stray = self.state.link(other) if other else None
            marked = stray is not None and bool(stray.lab) and stray.lab == self.wanted.lab
            if other and marked and stray and stray.peer and stray.peer.interface == end.interface:
                yield other
            return
        if link.kind != "veth":
            fact = f"{article(link.kind or 'physical')} device, no veth"
        elif link.origins:
            fact = f"the device {link.origins[0].name!r} of the host, which ns_link sends home"
        elif other and link.peer and link.peer != other:
            fact = f"wired to {link.peer}, not to {other}"
        else:
            if self.is_of_lab(f"the veth {end}", mark_of(self.state, end)):
                yield end
            return
        self.problem("name", f"{end} is {fact}; it is not removed")

    def _is_wanted(self, end: Endpoint, moving: set[Endpoint]) -> bool:
        if end in self.wires or end in moving or end.interface == "lo":
            return True
        namespace = self.wanted.namespaces.get(end.namespace)
        return namespace is not None and end.interface in namespace.links

    def _in_the_way(self, wire: Wire) -> Iterator[Endpoint]:
        """The links that have to go before the wire can be laid. What is not the lab's own is refused instead."""
        if self._misplaced(wire):
            return
        for end, other in (wire.ends, wire.ends[::-1]):
            link = self.state.link(end)
            if link is None:
                self.is_second_name(end, wire.path)
                continue
            if link.kind == "veth" and link.peer == other:
                continue
            is_made = link.kind in ("veth", "bridge") or (link.details is not None and not link.origins)
            if self.wanted.lab and link.lab == self.wanted.lab and is_made:
                yield end
                continue
            if link.kind == "veth":
                fact = f"is a veth wired to {link.peer or 'a namespace that has no name'}, not to {other}"
            else:
                fact = f"is {article(link.kind or 'physical')} device, no veth"
            owner = f" (of lab {link.lab!r})" if link.lab else ""
            text = f"{end}{owner} exists already and {fact}; remove or rename it, or choose another name"
            self.problem(wire.path, text, FOREIGN)

    def is_second_name(self, end: Endpoint, path: str, but: Endpoint | None = None) -> bool:
        """Refuse a name that a link cannot get, as another link has it as a second one (altname)."""
        namespace = self.state.namespaces.get(end.namespace)
        for link in namespace.links.values() if namespace else ():
            if end.interface in link.altnames and Endpoint(end.namespace, link.name) != but:
                text = f"{end.interface!r} is a second name (altname) of {end.namespace}:{link.name}"
                self.problem(path, f"{text}; choose another name, or take that away from it", FOREIGN)
                return True
        return False

    def _misplaced(self, wire: Wire) -> c.MoveLink | None:
        """The move that makes the wire right, if one end of it only sits in the wrong namespace."""
        for end, other in (wire.ends, wire.ends[::-1]):
            link = self.state.link(end)
            if link is None or link.kind != "veth" or link.peer is None or self.state.link(other):
                continue
            if link.peer == other or link.peer.interface != other.interface or link.peer in self.wires:
                continue
            # The names alone say little, as every container has an eth0: with a lab both ends have to carry its mark,
            # and without one none may carry any.
            stray = self.state.link(link.peer)
            if stray and stray.origins:
                # A device of the host, and no end of a wire.
                continue
            if stray and link.lab == stray.lab == self.wanted.lab and self.wanted.lab:
                return c.MoveLink(link.peer, other, wire.path)
            if not self.wanted.lab and not mark_of(self.state, end) and not mark_of(self.state, link.peer):
                return c.MoveLink(link.peer, other, wire.path)
        return None

    def _remove_routes(self, namespace: Namespace, wanted: WantedNamespace) -> None:
        keys = {item.value.key for item in wanted.routes}
        extra = [route for route in namespace.routes if route.key in {r.value.key for r in wanted.absent_routes}]
        if wanted.purge_routes or (self.wanted.prune and self.owns(namespace)):
            extra += [r for r in namespace.routes if r.protocol in STATIC_ROUTE_PROTOCOLS and r.key not in keys]
        # In reverse of the order of adding, so that taking it back finds its gateways.
        for route in sorted(dict.fromkeys(extra), key=needs_gateway, reverse=True):
            self.do(c.RemoveRoute(namespace.name, route, wanted.path))

    # --- 2. namespaces -----------------------------------------------------------------------------------------------

    def _add_namespaces(self) -> None:
        lab = self.wanted.lab
        for wanted in self.wanted.namespaces.values():
            namespace = self.state.namespaces.get(wanted.name)
            if wanted.attach:
                self._attach(wanted, wanted.attach, self.state.attachments[wanted.name])
            if not wanted.create:
                continue
            if namespace is None and self._obstacle(wanted.name):
                text = f"{self._obstacle(wanted.name)}; remove it or choose another name"
                self.problem(wanted.path, text, FOREIGN)
            elif namespace is None:
                stale = wanted.name in self.state.stale
                self.do(c.AddNamespace(wanted.name, mark(lab), stale, wanted.path))
            elif lab and namespace.lab != lab:
                what = f"the namespace {wanted.name}{self._users(namespace)}"
                if self.refuse_foreign(wanted.path, what, namespace.lab):
                    continue
                end = Endpoint(wanted.name, "lo")
                before = (None, None, namespace.links["lo"].alias)
                self.do(c.SetLink(end, alias=mark(lab), before=before, path=wanted.path))
                # What was unmanaged so far is the lab's now, and its surplus routes with it.
                self._remove_routes(namespace, wanted)

    def _attach(self, wanted: WantedNamespace, attach: Attach, found: Attachment) -> None:
        """Give the namespace of something else its name, if that is free, or stands for what it was given to before."""
        name = wanted.name
        if found.problem:
            key = "pid" if attach.pid else "path"
            code = MISSING if found.is_missing else ""
            self.problem(f"{wanted.path}.attach.{key}" if self.wanted.whole else key, found.problem, code)
            return
        remember = None
        if self.wanted.lab:
            before = "attached" if found.current == found.inode else None
            remember = Remembered("attached", name, found.inode, name, before, "attached")
        if found.current == found.inode and not (found.kind == "symlink" and attach.replace_symlink):
            self.memories.agree(remember, wanted.path)
            return
        there = ""
        if found.kind in ("symlink", "dangling"):
            there = f"symlink {name} -> {found.target}"
            if not attach.replace_symlink:
                text = f"/run/netns/{name} is a symlink to {found.target} that somebody else has made"
                self.problem(wanted.path, f"{text}; say 'replace_symlink: true', or remove it", FOREIGN)
                return
        elif found.current:
            there = f"namespace {name} of an earlier one"
            if not found.is_known:
                text = f"there is a namespace {name} already that was not attached by this collection"
                self.problem(wanted.path, f"{text}; remove it, or choose another name", FOREIGN)
                return
        elif found.kind == "foreign":
            self.problem(wanted.path, f"{self._obstacle(name)}; remove it or choose another name", FOREIGN)
            return
        change = c.AttachNamespace(name, found.what, found.kind, found.current, there, wanted.path)
        self.do(change, remember and remember._replace(before=None))

    def _users(self, namespace: Namespace) -> str:
        """What is in a namespace and who lives in it, in brackets."""
        links = few([name for name in namespace.links if name != "lo"])
        users = self.before.users.get(namespace.name)
        words = [f"with {links}"] if links else []
        words += [f"the home of {users}"] if users else []
        return f" ({', '.join(words)})" if words else ""

    def _assume_namespaces(self) -> None:
        ends = [(end.namespace, wire.path) for wire in self.wanted.wires for end in wire.ends]
        kinds = [(wanted.kind, wanted.kind_path) for _end, wanted in self.wanted_links() if wanted.kind]
        ends += [(kind.link.namespace, f"{path}.link") for kind, path in kinds if kind.link]
        ends += [(kind.netns, f"{path}.link_netns") for kind, path in kinds if kind.netns]
        for name, path in [(w.name, w.path) for w in self.wanted.namespaces.values()] + ends:
            if name in self.state.namespaces:
                continue
            self.state.namespaces[name] = new_namespace(name)
            if self._obstacle(name):
                self.problem(path, self._obstacle(name), FOREIGN)
            elif self._only_removes(name, path):
                # What is not there has nothing that would have to go.
                continue
            else:
                self.assume(path, f"there is no namespace {name!r}" + did_you_mean(name, self.before.names))
            self.assumed.add(name)

    def _only_removes(self, name: str, path: str) -> bool:
        body = self.wanted.namespaces.get(name)
        if body is None or (body.nat and body.nat.rules):
            return False
        removes = WantedNamespace(name, path, absent_routes=body.absent_routes, nat=body.nat)
        removes.absent_services, removes.absent_rules = body.absent_services, body.absent_rules
        return body == removes

    # --- 3. and 5. sysctls -------------------------------------------------------------------------------------------

    def _set_sysctls(self, of_interfaces: bool) -> None:
        for wanted in self.wanted.namespaces.values():
            namespace = self.state.namespaces[wanted.name]
            for item in sorted(wanted.sysctls.values(), key=lambda item: sysctl_rank(item.key)):
                if bool(interface_of(item.key)) == of_interfaces:
                    self._set_sysctl(namespace, item)

    def _set_sysctl(self, namespace: Namespace, item: WantedSysctl) -> None:
        if self._lacks_interface(namespace, item):
            return
        problem = self._sysctl_problem(namespace, item)
        if problem:
            self.problem(item.path, problem)
            return
        current = namespace.sysctls.get(item.key)
        remember = None
        if self.wanted.lab:
            remember = Remembered("sysctl", namespace.name, namespace.inode, item.key, current, item.value)
        if not self.memories.agree(remember, item.path) or current == item.value:
            return
        self.do(
            c.SetSysctl(namespace.name, item.key, item.value, current, item.path),
            remember and self.memories.without_the_lab(remember),
        )

    def _lacks_interface(self, namespace: Namespace, item: WantedSysctl) -> bool:
        """Is the setting one of an interface that is neither there nor taken for granted?"""
        interface = interface_of(item.key)
        if not interface or interface in namespace.links:
            return False
        text = f"there is no interface {interface!r} in the namespace {namespace.name}"
        if not self.wanted.whole:
            namespace.links[interface] = Link(interface, 0)
            self.assume(item.path, text, namespace.name)
            return False
        text = f"{name_of(item.key)}: {text}{did_you_mean(interface, namespace.links)}"
        self.problem(item.path, text, "" if self.owns(namespace) else MISSING)
        return True

    def _sysctl_problem(self, namespace: Namespace, item: WantedSysctl) -> str:
        name = name_of(item.key)
        interface = interface_of(item.key)
        mtu = namespace.links[interface].mtu if item.key.startswith("net/ipv6/") and interface else 0
        if 0 < mtu < IPV6_MIN_MTU:
            return f"{name}: {interface} has an MTU of {mtu}, and IPv6 needs at least {IPV6_MIN_MTU}"
        before = self.before.namespaces.get(namespace.name)
        known = self.before.new_namespace_sysctls
        if before is not None and not before.glimpsed:
            known = frozenset(key for key, value in before.sysctls.items() if value is not None)
        if generic_key(item.key) not in known and item.key not in known:
            if generic_key(item.key) in self.before.known_sysctls:
                return (
                    f"{name} is not per-namespace: it exists once for the whole machine, and the namespace "
                    f"{namespace.name} has none of its own; set it on the host"
                )
            return f"there is no sysctl {name}" + did_you_mean(name, map(name_of, self.before.known_sysctls))
        if item.key in self.before.fixed_sysctls:
            return (
                f"{name} cannot be set in the namespace {namespace.name}: it is per-machine there, and read-only; "
                "set it on the host"
            )
        return ""

    # --- 4. links ----------------------------------------------------------------------------------------------------

    def _add_wires(self) -> None:
        lab = self.wanted.lab
        for wire in self.wanted.wires:
            if self.state.link(wire.ends[0]) and self.state.link(wire.ends[1]):
                self._own_wire(wire)
                continue
            move = self._misplaced(wire)
            if move:
                self.do(move)
                continue
            settings = [self._wanted_link(end) or WantedLink(end.interface, wire.path) for end in wire.ends]
            self.do(
                c.AddVeth(
                    wire.ends,
                    (settings[0].mtu or 0, settings[1].mtu or 0),
                    (self._mac(settings[0], wire.ends[0]), self._mac(settings[1], wire.ends[1])),
                    (mark(lab), mark(lab)),
                    path=wire.path,
                )
            )

    def _mac(self, link: WantedLink, end: Endpoint) -> str:
        return link.mac or self.bridges.mac_for(end)

    def _own_wire(self, wire: Wire) -> None:
        for end in wire.ends:
            link = self.state.link(end)
            port = f", port of {link.master}" if link and link.master else ""
            wired = f" (wired to {link.peer}{port})" if link else ""
            if self.refuse_foreign(wire.path, f"the veth {end}{wired}", mark_of(self.state, end)):
                return

    def refuse_foreign(self, path: str, what: str, owner: str | None) -> bool:
        """Refuse what is there already and has another mark or none, unless it is taken over. With no lab all goes."""
        if not self.wanted.lab or owner == self.wanted.lab or self.wanted.adopt:
            return False
        whose = f"belongs to lab {owner!r}" if owner else "is not marked as this lab's"
        taking = "take it over with 'adopt: true'" if self.wanted.whole else "leave 'lab' out"
        text = f"{what} exists already and {whose}; remove it, choose another name, or {taking}"
        self.problem(path, text, FOREIGN)
        return True

    def _wanted_link(self, end: Endpoint) -> WantedLink | None:
        namespace = self.wanted.namespaces.get(end.namespace)
        return namespace.links.get(end.interface) if namespace else None

    def wanted_links(self) -> Iterator[tuple[Endpoint, WantedLink]]:
        for namespace in self.wanted.namespaces.values():
            for link in namespace.links.values():
                yield Endpoint(namespace.name, link.name), link

    # --- 5. settings of links ----------------------------------------------------------------------------------------

    def _set_links(self) -> None:
        for end, wanted in self.wanted_links():
            namespace = self.state.namespaces[end.namespace]
            link = namespace.links.get(end.interface)
            if link is None:
                names = did_you_mean(end.interface, namespace.links)
                text = f"there is no link {end.interface!r} in the namespace {end.namespace}{names}"
                self.assume(wanted.path, text, end.namespace)
                namespace.links[end.interface] = link = Link(end.interface, 0, mtu=0)
            self._refuse_what_others_made(end, link, wanted)
            self._set_link(end, link, wanted)

    def _refuse_what_others_made(self, end: Endpoint, link: Link, wanted: WantedLink) -> None:
        """What another lab has made on the host is as that one's document says, and not as this one's, too."""
        if not self.wanted.lab or self._is_made(end) or wanted.device or self.wanted.adopt or end.namespace != HOST:
            return
        if link.lab not in ("", self.wanted.lab):
            text = f"{end} was made by the lab {link.lab!r}, whose document says what it has"
            self.problem(wanted.path, f"{text}; say it there, or remove that lab", FOREIGN)

    def _set_link(self, end: Endpoint, link: Link, wanted: WantedLink) -> None:
        if not (wanted.bridge or wanted.kind) and wanted.mtu is not None:
            self.memories.agree(self.remember("mtu", end, str(link.mtu), str(wanted.mtu)), wanted.path)
        if wanted.mac is not None:
            self.memories.agree(self.remember("mac", end, link.mac, wanted.mac), wanted.path)
        if wanted.up is not None:
            words = ["up" if up else "down" for up in (link.up, wanted.up)]
            self.memories.agree(self.remember("up", end, *words), wanted.path)
        # Those of bridges and of what lies on others follow.
        has_mtu = wanted.mtu is not None and wanted.mtu != link.mtu and not (wanted.bridge or wanted.kind)
        mtu = wanted.mtu if has_mtu else None
        mac = wanted.mac if wanted.mac is not None and wanted.mac != link.mac else None
        alias = None
        if self.wanted.lab and self._is_made(end) and link.alias != mark(self.wanted.lab):
            alias = mark(self.wanted.lab)
        if mtu is None and mac is None and alias is None:
            return
        before = (
            link.mtu if mtu is not None else None,
            link.mac if mac is not None else None,
            link.alias if alias is not None else None,
        )
        remember = None
        if mtu is not None:
            remember = self.remember("mtu", end, str(link.mtu), str(mtu))
        change = c.SetLink(end, mtu=mtu, before=(before[0], None, None), path=wanted.path)
        if remember is None:
            change = c.SetLink(end, mtu, mac, alias, before, wanted.path)
            mac_remember = self.remember("mac", end, link.mac, mac) if mac is not None else None
            self.do(change, mac_remember)
            return
        self.do(change, remember)
        if mac is not None:
            change = c.SetLink(end, mac=mac, before=(None, before[1], None), path=wanted.path)
            self.do(change, self.remember("mac", end, before[1], mac))

    def _set_down(self) -> None:
        for end, wanted in self.wanted_links():
            link = self.state.namespaces[end.namespace].links[end.interface]
            if wanted.up is False and link.up:
                self.do(c.SetUp(end, False, path=wanted.path), self.remember("up", end, "up", "down"))

    def _set_up(self) -> None:
        for end, wanted in sorted(self.wanted_links(), key=lambda item: self.kinds.depth(item[0])):
            link = self.state.namespaces[end.namespace].links[end.interface]
            if wanted.up and not link.up and not self.kinds.is_held_down(end, link, wanted.path):
                is_new = link.index == 0
                self.do(c.SetUp(end, True, is_new, wanted.path), self.remember("up", end, "down", "up"))

    # --- 6. addresses ------------------------------------------------------------------------------------------------

    def _set_addresses(self) -> None:
        for end, wanted in self.wanted_links():
            link = self.state.namespaces[end.namespace].links[end.interface]
            if not self._may_change(end, link, wanted):
                continue
            surplus = self._surplus(link, wanted)
            again = self._out_of_order(link, wanted, surplus)
            # The last first, so that taking it back restores the kernel's order.
            for address in [a for a in reversed(link.addresses) if a in surplus or a in again]:
                self.do(c.RemoveAddress(end, address, wanted.path))
            for item in wanted.addresses:
                self._set_address(end, link, item)
            for address in again:
                if address not in link.addresses:
                    self.do(c.AddAddress(end, address, wanted.path))

    def _may_change(self, end: Endpoint, link: Link, wanted: WantedLink) -> bool:
        """Refuse to make another address of one that is there and is not this lab's."""
        if not self.wanted.lab or self.is_ours(end):
            return True
        found = [(item, other) for item in wanted.addresses for other in link.addresses if _is_same(other, item.value)]
        for item, other in found:
            if item.value not in link.addresses and not self.memories.has_added(end, other, item.value):
                text = f"{end} has this address already, as {other}, and it is not this lab's; say it the same, or"
                self.problem(item.path, f"{text} leave it out", FOREIGN)
        return not self.problems

    def _surplus(self, link: Link, wanted: WantedLink) -> list[Address]:
        """The addresses that have to go."""
        keep = {item.value for item in wanted.addresses}
        hosts = {item.value.ip.ip for item in wanted.addresses if item.value.family == 6}
        surplus = []
        for address in link.addresses:
            if address in keep:
                continue
            # IPv6 has an address once per link: another prefix length is a change. Other differences are set in place.
            other_length = address.ip.ip in hosts and not _same_v6(address, keep)
            same_v4 = address.family == 4 and any(address.address == other.address for other in keep)
            if other_length or same_v4 or (wanted.purge and not _same_v6(address, keep)):
                surplus.append(address)
        return surplus

    def _out_of_order(self, link: Link, wanted: WantedLink, surplus: list[Address]) -> list[Address]:
        """IPv4 addresses that stay but have to be added anew, to come after another one of their subnet.

        The first address of a subnet on a link is its primary one: the source of what the namespace sends, and the
        one whose end is the end of the others (unless promote_secondaries is set).
        """
        groups: dict[IPNetwork, list[Address]] = {}
        for address in link.addresses:
            if address.family == 4:
                groups.setdefault(address.network, []).append(address)
        again: list[Address] = []
        for network, group in groups.items():
            order = [item.value for item in wanted.addresses if item.value.network == network]
            kept = [address for address in group if address not in surplus]
            loses_primary = group[0] in surplus
            wrong_primary = wanted.purge and bool(order) and bool(kept) and kept[0] != order[0]
            if loses_primary or wrong_primary:
                again += kept
        return again

    def _set_address(self, end: Endpoint, link: Link, item: WantedAddress) -> None:
        address = item.value
        remember = self.remember("address", end, None, str(address))
        if remember:
            remember = remember._replace(object=f"{end.interface} {address.address}")
        if any(address.address == kernel.address for kernel in link.kernel_addresses):
            return
        if address in link.addresses:
            self.memories.agree(remember and remember._replace(before=remember.after), item.path)
            return
        if not self.memories.agree(remember, item.path):
            return
        if address.family == 6 and 0 < link.mtu < IPV6_MIN_MTU:
            text = f"{address.address!r} is an IPv6 address, but {end} has an MTU of {link.mtu}: IPv6 needs at least"
            self.problem(item.path, f"{text} {IPV6_MIN_MTU}")
            return
        key, sysctls = disable_ipv6_of(end.interface), self.state.namespaces[end.namespace].sysctls
        if sysctls.get(key) is None:
            # It is made by this plan.
            key = disable_ipv6_of("default")
        if address.family == 6 and sysctls.get(key) == "1":
            text = f"{address.address!r} is an IPv6 address, but {end} takes none: {name_of(key)} is 1 there"
            self.problem(item.path, f"{text}; say 0 of it, or leave the address out")
            return
        same = [other for other in link.addresses if other.family == 6 and other.address == address.address]
        if same:
            self.do(c.ReplaceAddress(end, same[0], address, item.path), remember)
        else:
            self.do(c.AddAddress(end, address, item.path), remember)

    # --- 8. routes ---------------------------------------------------------------------------------------------------

    def _restore_routes(self) -> None:
        """Add the routes again that other people's namespaces have lost: with a replaced address, or by a VRF."""
        with_addresses = (step.undo for step in self.result.steps if isinstance(step.change, c.RemoveAddress))
        undo = itertools.chain(*with_addresses, self.kinds.lost())
        lost = [change for change in undo if isinstance(change, c.AddRoute)]
        for change in sorted(lost, key=lambda change: needs_gateway(change.route)):
            namespace = self.state.namespaces[change.namespace]
            wanted = self.wanted.namespaces.get(change.namespace) or WantedNamespace(change.namespace, "")
            theirs = not wanted.purge_routes and not (self.wanted.prune and self.owns(namespace))
            said = {item.value.key for item in (*wanted.routes, *wanted.absent_routes)}
            if theirs and change.route.key not in said:
                self.restore_route(change.namespace, change.route, wanted.path)

    def restore_route(self, name: str, route: Route, path: str = "") -> Route | None:
        """Add a route again that has gone, or some of its ways, along with something else.

        Warns of it if the kernel would not take it. Returns what has its place, if that is something else.
        """
        namespace = self.state.namespaces[name]
        why = hindrance(namespace, route)
        there = next((other for other in namespace.routes if other.key == route.key), None)
        if there:
            is_part = bool(there.hops) and set(there.hops) < set(route.hops)
            if not is_part or why:
                return there
            self.do(c.ReplaceRoute(name, there, route, path))
        elif why:
            self.result.warnings.append(f"the route {name} {route} has gone and is not added again: {why}")
        else:
            self.do(c.AddRoute(name, route, path))
        return None

    def _set_routes(self) -> None:
        for wanted in self.wanted.namespaces.values():
            namespace = self.state.namespaces[wanted.name]
            for item in sorted(wanted.routes, key=lambda item: needs_gateway(item.value)):
                self._set_route(namespace, item)

    def _set_route(self, namespace: Namespace, item: WantedRoute) -> None:
        route = self._resolve(namespace, item)
        if route is None:
            return
        key = route.key
        there = [other for other in namespace.routes if other.key == key]
        same = next((other for other in there if self._is_same(namespace, other, route)), None)
        keep = same or (there[0] if there else None)
        for other in there:
            # `ip route append` makes several routes of one key; the first one counts, the others only lurk.
            if other is not keep:
                self.do(c.RemoveRoute(namespace.name, other, item.path))
        remember = None
        if self.wanted.lab and not self.owns(namespace):
            memory = ("route", namespace.name, namespace.inode, str(key))
            remember = Remembered(*memory, str(same) if same else None, str(route))
            if not self.memories.agree(remember, item.path):
                return
            if keep and not same and memory not in self.memories.keys:
                self.problem(
                    item.path,
                    f"the namespace {namespace.name} has another route to the same destination already, and it is not "
                    f"this lab's: {keep}; remove it, or give one of the two another metric",
                    FOREIGN,
                )
                return
        if same:
            return
        if keep is None:
            self.do(c.AddRoute(namespace.name, route, item.path), remember)
        elif _is_replaceable(keep, route):
            self.do(c.ReplaceRoute(namespace.name, keep, route, item.path), remember)
        else:
            self.do(c.RemoveRoute(namespace.name, keep, item.path))
            self.do(c.AddRoute(namespace.name, route, item.path), remember)

    def _is_same(self, namespace: Namespace, there: Route, wanted: Route) -> bool:
        # Outside the lab's own namespaces a route that an administrator made is as good as one of ours.
        protocol = wanted.protocol if self.owns(namespace) else there.protocol
        # The order of the ways says nothing, but the kernel wants the one that it has where a route is removed.
        return there._replace(nexthops=tuple(sorted(there.nexthops))) == wanted._replace(protocol=protocol)

    def _resolve(self, namespace: Namespace, item: WantedRoute) -> Route | None:
        """The route with the devices filled in that the kernel would find; None if there is a problem with it."""
        route = item.value
        if route.src and not any(
            route.src == str(a.ip.ip) for link in namespace.links.values() for a in link.all_addresses
        ):
            text = f"{route.src!r} is no address of the namespace {namespace.name}"
            self.assume(f"{item.path}.src", text, namespace.name)
        connected = self._connected(namespace, route)
        if connected:
            self.problem(
                f"{item.path}.to",
                f"the kernel makes a route to {route.to} itself, from the address {connected}; leave it out, "
                "or give this one a metric of its own",
            )
            return None
        if not route.nexthops:
            hop = self._resolve_hop(namespace, route, NextHop(route.via, route.dev, onlink=route.onlink), item.path)
            return route._replace(dev=hop.dev) if hop else None
        hops = [
            self._resolve_hop(namespace, route, hop, f"{item.path}.nexthops[{i}]")
            for i, hop in enumerate(route.nexthops)
        ]
        found = [hop for hop in hops if hop]
        return route._replace(nexthops=tuple(sorted(found))) if len(found) == len(hops) else None

    def _connected(self, namespace: Namespace, route: Route) -> str:
        """The address whose connected route has the same key as this one."""
        if route.metric != (CONNECTED_METRIC_V6 if route.family == 6 else 0):
            return ""
        to = ipaddress.ip_network(route.to)
        for link in namespace.links.values():
            is_there = link.up and table_of(namespace, link) == route.table
            for address in link.all_addresses if is_there else ():
                has_route = to.prefixlen < to.max_prefixlen and not address.noprefixroute
                if has_route and address.network == to and address.scope != "host":
                    return f"{address.address} of {link.name}"
        return ""

    def _resolve_hop(self, namespace: Namespace, route: Route, hop: NextHop, path: str) -> NextHop | None:
        if hop.dev:
            link = namespace.links.get(hop.dev)
            if link is None:
                text = f"there is no link {hop.dev!r} in the namespace {namespace.name}"
                self.assume(f"{path}.dev", text + did_you_mean(hop.dev, namespace.links), namespace.name)
                return hop
            if not link.up:
                text = f"the link {hop.dev} of the namespace {namespace.name} is down"
                self.assume(f"{path}.dev", text, namespace.name)
                return hop
        if not hop.via or hop.onlink:
            return hop
        via = ipaddress.ip_address(hop.via)
        domain = _domain(namespace, route, hop)
        links = [link for link in namespace.links.values() if link.domain == domain]
        if any(via == address.ip.ip for link in links for address in link.all_addresses):
            self.problem(
                f"{path}.via",
                f"{hop.via!r} is an address of the namespace {namespace.name} itself; "
                "a gateway is the neighbour's address on the same link",
            )
            return None
        if any(_is_broadcast(via, address) for link in links for address in link.addresses):
            text = "is the broadcast address of a connected prefix; a gateway is one neighbour's address"
            self.problem(f"{path}.via", f"{hop.via!r} {text}")
            return None
        if hop.dev and via.version == 6 and via.is_link_local:
            return hop
        devices = devices_towards(namespace, hop.via, route.table)
        if hop.dev in devices:
            return hop
        said = self._said(namespace, via)
        devices = [dev for dev in devices if dev in said] if said else devices
        if devices and not hop.dev:
            return hop._replace(dev=devices[0] if said else self._choose(namespace, route, devices))
        on = f" on {hop.dev}" if hop.dev else ""
        connected = sorted({str(a.network) for link in namespace.links.values() if link.up for a in link.addresses})
        self.assume(
            f"{path}.via",
            f"{hop.via!r} is not reachable{on} in the namespace {namespace.name}: no connected prefix "
            f"({', '.join(connected) or 'there is none'}) and no link-scope route covers it; "
            "give the interface an address in the gateway's prefix, add a route to the gateway with only 'dev', "
            "or say 'onlink: true' with 'dev'",
            namespace.name,
        )
        return hop

    def _said(self, namespace: Namespace, via: IPAddress) -> list[str]:
        """The interfaces to which a whole document gives an address in the gateway's prefix: one of them is meant."""
        links = self.wanted.namespaces[namespace.name].links.values() if self.wanted.whole else ()
        return [link.name for link in links if any(via in item.value.network for item in link.addresses)]

    def _choose(self, namespace: Namespace, route: Route, devices: list[str]) -> str:
        """One of several interfaces in the gateway's prefix, of which the demand says nothing.

        A whole document gives the same result wherever it is applied. A route that works is left as it is where others
        have their interfaces, too.
        """
        if self.wanted.whole and self.owns(namespace):
            return devices[0]
        current = {hop.dev for other in namespace.routes if other.key == route.key for hop in other.hops}
        return next((dev for dev in devices if dev in current), devices[0])

    # --- words -------------------------------------------------------------------------------------------------------

    def problem(self, path: str, text: str, code: str = "") -> None:
        found = Problem(path, text, code)
        if found not in self.problems:
            self.problems.append(found)

    def assume(self, path: str, text: str, namespace: str = "", code: str = "") -> None:
        """Take something for granted. What is in a namespace that is itself taken for granted goes without saying."""
        there = self.before.namespaces.get(namespace)
        if there and self.wanted.whole and not self.owns(there):
            # What a whole document needs there, somebody else has to provide.
            code = MISSING
        if namespace not in self.assumed:
            self.result.assumptions.append(Problem(path, text, code))


def _is_replaceable(there: Route, wanted: Route) -> bool:
    """Can NLM_F_REPLACE put ``wanted`` in the place of ``there``?

    fib6_add_rt2node() replaces only like by like: what can be one way of several by what can be, others by others.
    """
    if wanted.family == 4:
        return True
    return bool(there.via or there.nexthops) == bool(wanted.via or wanted.nexthops)


def _same_v6(address: Address, others: Iterable[Address]) -> bool:
    return address.family == 6 and any(address.address == other.address for other in others)


def _is_same(there: Address, wanted: Address) -> bool:
    """Are two addresses one for the kernel? It has an IPv6 address once per link, whatever its prefix length."""
    return there.ip.ip == wanted.ip.ip if there.family == 6 else there.address == wanted.address


def _domain(namespace: Namespace, route: Route, hop: NextHop) -> str:
    """The VRF in which the kernel looks for a gateway; empty outside of all."""
    if hop.dev in namespace.links:
        return namespace.links[hop.dev].domain
    vrfs = (link for link in namespace.links.values() if link.kind == "vrf")
    return next((vrf.name for vrf in vrfs if vrf.details and int(vrf.details.get("table")) == route.table), "")


def _is_broadcast(address: IPAddress, own: Address) -> bool:
    network = own.network
    return network.version == 4 and network.prefixlen < 31 and address == network.broadcast_address
