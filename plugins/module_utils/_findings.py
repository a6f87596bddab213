# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the kernel takes, but is hardly meant: found when planning, told as warnings, or as errors on request. Pure.

Each kind has a code, by which docs/topology.md explains it.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import NamedTuple

from ._kernel import lying_on
from ._kinds import SHARING
from ._model import HOST, MAIN_TABLE, Endpoint, IPNetwork, State, Wanted, WantedNamespace
from ._rules import TABLES

#: Present where the kernel shows bridged packets to the firewall of the bridge's namespace.
BRIDGE_NETFILTER = ("net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables")

_FORWARDING = {
    4: ("net/ipv4/ip_forward", "net/ipv4/conf/all/forwarding"),
    6: ("net/ipv6/conf/all/forwarding",),
}


class Finding(NamedTuple):
    """One thing that is hardly meant: its kind, where it stands, and what it is and would be right."""

    code: str
    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text} [{self.code}]"


def findings(wanted: Wanted, state: State) -> list[Finding]:
    """What is to be said of a whole demand. ``state`` is the one that the plan leads to."""
    segments = Segments(wanted, state)
    return [
        *_same_prefix(wanted, state),
        *_port_address(wanted),
        *bridge_loops(wanted),
        *_mtu_mismatch(wanted, state),
        *_unowned_gateway(wanted, state, segments),
        *_forwarding_off(wanted, state, segments),
        *_bridge_netfilter(wanted, state),
        *_unowned_source(wanted, state),
        *_rules(wanted, state),
        *_underlay(wanted, state),
    ]


def _same_prefix(wanted: Wanted, state: State) -> Iterator[Finding]:
    """Two interfaces of one namespace with one connected prefix: the kernel sends to it through the first alone."""
    for namespace in wanted.namespaces.values():
        links = state.namespaces[namespace.name].links
        seen: dict[tuple[str, IPNetwork], str] = {}
        ours = {(link.name, item.value): item.path for link in namespace.links.values() for item in link.addresses}
        for link in sorted(links.values(), key=lambda link: (link.name in namespace.links, link.index == 0)):
            for address in link.addresses:
                network = address.network
                if network.prefixlen == network.max_prefixlen or address.noprefixroute:
                    continue
                first = seen.setdefault((link.domain, network), link.name)
                if first != link.name and (link.name, address) in ours:
                    yield Finding(
                        "same-prefix",
                        ours[link.name, address],
                        f"{first} and {link.name} of the namespace {namespace.name} both have the connected prefix "
                        f"{network}, and only one of them is used to send there; give one of them another prefix, or "
                        "make both ports of a bridge that has the address",
                    )


def _port_address(wanted: Wanted) -> Iterator[Finding]:
    """A port gives all that comes in to its bridge, so that an address on it is hardly ever reached."""
    for namespace in wanted.namespaces.values():
        for bridge in namespace.links.values():
            for name in bridge.bridge.ports if bridge.bridge else ():
                port = namespace.links.get(name)
                for item in port.addresses if port else ():
                    yield Finding(
                        "port-address",
                        item.path,
                        f"{item.value.address} is on {name}, a port of the bridge {bridge.name}; what comes in there "
                        "goes to the bridge: give the address to the bridge",
                    )


def bridge_loops(wanted: Wanted) -> Iterator[Finding]:
    """Bridges that are wired in a ring, where none minds: a broadcast goes round in it for ever. Or to and fro."""
    hairpins = {
        Endpoint(namespace.name, port.name)
        for namespace in wanted.namespaces.values()
        for bridge in namespace.links.values()
        for port in (bridge.bridge.ports.values() if bridge.bridge else ())
        if port.settings.get("hairpin")
    }
    bridge_of = {
        Endpoint(namespace.name, port): Endpoint(namespace.name, bridge.name)
        for namespace in wanted.namespaces.values()
        for bridge in namespace.links.values()
        for port in (bridge.bridge.ports if bridge.bridge else ())
    }
    minding = {
        Endpoint(namespace.name, bridge.name)
        for namespace in wanted.namespaces.values()
        for bridge in namespace.links.values()
        if bridge.bridge and bridge.bridge.settings.get("stp")
    }
    ring: dict[Endpoint, Endpoint] = {}

    def root(bridge: Endpoint) -> Endpoint:
        while bridge in ring:
            bridge = ring[bridge]
        return bridge

    for wire in wanted.wires:
        if hairpins.issuperset(wire.ends):
            text = "both its ends are ports with 'hairpin', between which a broadcast goes to and fro for ever"
            yield Finding("bridge-loop", wire.path, f"{text}; say it at one of them at most")
        bridges = [bridge_of.get(end) for end in wire.ends]
        ends = [root(bridge) for bridge in bridges if bridge is not None and bridge not in minding]
        if len(ends) == 2 and ends[0] == ends[1]:
            names = " and ".join(dict.fromkeys(str(bridge) for bridge in bridges))
            yield Finding(
                "bridge-loop",
                wire.path,
                f"it closes a ring of bridges, at {names}, in which a broadcast goes round for ever; leave it out, or "
                "say 'stp: true' at the bridges",
            )
        elif len(ends) == 2:
            ring[ends[0]] = ends[1]


def _mtu_mismatch(wanted: Wanted, state: State) -> Iterator[Finding]:
    """What one end may send and the other does not take is lost without a word."""
    for wire in wanted.wires:
        links = [state.link(end) for end in wire.ends]
        if links[0] and links[1] and links[0].mtu != links[1].mtu:
            sizes = " and ".join(f"{link.mtu} at {end}" for link, end in zip(links, wire.ends) if link)
            yield Finding("mtu-mismatch", wire.path, f"its ends have different MTUs, {sizes}; larger packets are lost")


def _unowned_gateway(wanted: Wanted, state: State, segments: Segments) -> Iterator[Finding]:
    """A gateway on a segment that the document knows whole, and where nobody has the address."""
    for namespace, path, _to, via, dev in _gateways(wanted, state):
        owners = segments.owners(Endpoint(namespace.name, dev))
        if owners is not None and via not in owners:
            there = ", ".join(sorted(owners)) or "none"
            yield Finding(
                "unowned-gateway",
                path,
                f"nobody on the segment of {namespace.name}:{dev} has the address {via}; there are {there}",
            )


def _forwarding_off(wanted: Wanted, state: State, segments: Segments) -> Iterator[Finding]:
    """Somebody's gateway that does not forward what is not for itself."""
    told = set()
    for namespace, _path, to, via, dev in _gateways(wanted, state):
        family = 6 if ":" in via else 4
        owners = segments.owners(Endpoint(namespace.name, dev)) or {}
        for router in sorted({end.namespace for end in owners.get(via, ())} - {namespace.name}):
            body = wanted.namespaces.get(router)
            if body is None or (router, family) in told or _forwards(body, state, family):
                continue
            if _has_address_in(state, router, to):
                continue
            told.add((router, family))
            yield Finding(
                "forwarding-off",
                f"{body.path}.sysctls",
                f"{router} is a gateway ({via}, of {namespace.name}) and does not forward; "
                f"set {_FORWARDING[family][0].replace('/', '.')} to 1",
            )


def _forwards(body: WantedNamespace, state: State, family: int) -> bool:
    values = [body.sysctls[key].value for key in _FORWARDING[family] if key in body.sysctls]
    if not values and body.name == HOST:
        # What is not said of the host stays as it is, and that was not looked at unless somebody asked.
        values = [state.namespaces[HOST].sysctls.get(key) or "1" for key in _FORWARDING[family][:1]]
    return any(value != "0" for value in values)


def _has_address_in(state: State, namespace: str, to: str) -> bool:
    """Is the route's destination the gateway's own? For a default route only what is on its ``lo`` tells."""
    network = ipaddress.ip_network(to)
    links = state.namespaces[namespace].links.values()
    addresses = (a.ip.ip for link in links if network.prefixlen or link.name == "lo" for a in link.addresses)
    return any(ip.version == network.version and ip in network for ip in addresses)


def _bridge_netfilter(wanted: Wanted, state: State) -> Iterator[Finding]:
    """Firewall rules for routed packets catch bridged ones as well."""
    for namespace in wanted.namespaces.values():
        sysctls = state.namespaces[namespace.name].sysctls
        on = [key for key in BRIDGE_NETFILTER if sysctls.get(key) == "1"]
        for link in namespace.links.values():
            if link.bridge and on:
                yield Finding(
                    "bridge-netfilter",
                    link.path,
                    f"br_netfilter shows what crosses the bridge {link.name} to the firewall of the namespace "
                    f"{namespace.name} as if it were routed; if that is not meant, set "
                    f"{' and '.join(key.replace('/', '.') for key in on)} to 0",
                )


def _unowned_source(wanted: Wanted, state: State) -> Iterator[Finding]:
    """Answers to an address that the namespace does not have come back to it only if somebody routes them there."""
    for namespace in wanted.namespaces.values():
        if not (namespace.nat and namespace.nat.rules):
            continue
        links = state.namespaces[namespace.name].links.values()
        own = {str(address.ip.ip) for link in links for address in (*link.addresses, *link.kernel_addresses)}
        for item in namespace.nat.rules:
            ends = item.value.to_address.split("-") if item.value.action == "snat" and item.value.to_address else []
            strange = [end for end in ends if end not in own]
            if strange:
                yield Finding(
                    "unowned-source",
                    f"{item.path}.to_source",
                    f"the namespace {namespace.name} does not have the address {' or '.join(strange)}, so that answers "
                    f"find their way back only if there is a route; it has {', '.join(sorted(own)) or 'none'}",
                )


def _rules(wanted: Wanted, state: State) -> Iterator[Finding]:
    """Rules that lead to a table without routes, or that match nothing."""
    for namespace in wanted.namespaces.values():
        there = state.namespaces[namespace.name]
        filled = {(route.family, route.table) for route in there.routes}
        # What the kernel puts into the table of a VRF is not looked at.
        has_vrf = any(link.kind == "vrf" for link in there.links.values())
        for item in namespace.rules:
            rule = item.value
            if (
                rule.table
                and rule.table not in TABLES.values()
                and not has_vrf
                and (rule.family, rule.table) not in filled
            ):
                text = (
                    f"no route of IPv{rule.family} is in the table {rule.table} of the namespace {namespace.name}: the"
                )
                yield Finding("empty-table", f"{item.path}.table", f"{text} rule does nothing")
            for key, name in (("iif", rule.iif), ("oif", rule.oif)):
                if name and name not in there.links:
                    text = f"there is no interface {name!r} in the namespace {namespace.name}: the rule matches nothing"
                    yield Finding("detached-rule", f"{item.path}.{key}", f"{text} until there is one")


def _underlay(wanted: Wanted, state: State) -> Iterator[Finding]:
    """What other hosts send goes to an address that this one does not have, or does not fit through its interface."""
    span = wanted.span
    if span is None:
        return
    yield from (Finding(*item) for item in span.found)
    if not span.address:
        return
    links = state.namespaces[HOST].links.values()
    there = {str(a.ip.ip): link for link in links for a in (*link.addresses, *link.kernel_addresses)}
    link = there.get(span.address)
    if link is None:
        text = f"this host does not have the address {span.address}, to which the others send; it has"
        addresses = ", ".join(sorted(address for address in there if not ipaddress.ip_address(address).is_loopback))
        yield Finding("no-underlay", f"hosts.{span.host}.address", f"{text} {addresses or 'none'}")
    elif link.mtu < span.mtu:
        text = f"{link.name}, which has the address {span.address}, has the MTU {link.mtu}, and the network between the"
        yield Finding("underlay-mtu", "underlay.mtu", f"{text} hosts shall have {span.mtu}: say what gets through")


def _gateways(wanted: Wanted, state: State) -> Iterator[tuple[WantedNamespace, str, str, str, str]]:
    """The wanted routes' gateways: the namespace, the path, the destination, the gateway, and the interface there."""
    for namespace in wanted.namespaces.values():
        there = {route.key: route for route in state.namespaces[namespace.name].routes}
        for item in namespace.routes:
            route = there.get(item.value.key)
            for hop in route.hops if route and route.table == MAIN_TABLE else ():
                if hop.via and hop.dev and not hop.onlink and not ipaddress.ip_address(hop.via).is_link_local:
                    yield namespace, f"{item.path}.via", item.value.to, hop.via, hop.dev


def _addresses(state: State, end: Endpoint) -> list[str]:
    link = state.link(end)
    return [str(address.ip.ip) for address in link.addresses] if link else []


class Segments:
    """Which interfaces share a layer 2 segment: joined by veths, bridges, and as a macvlan is with what it lies on."""

    def __init__(self, wanted: Wanted, state: State) -> None:
        self._state = state
        self._wires = {end: other for wire in wanted.wires for end, other in (wire.ends, wire.ends[::-1])}
        #: The interfaces of each bridge: its ports, and itself.
        self._bridged: dict[Endpoint, list[Endpoint]] = {}
        for end, link in state.links():
            if link.kind == "bridge" or link.master:
                bridge = end if link.kind == "bridge" else end._replace(interface=link.master)
                self._bridged.setdefault(bridge, []).append(end)
        self._found: dict[Endpoint, dict[str, list[Endpoint]] | None] = {}

    def owners(self, end: Endpoint) -> dict[str, list[Endpoint]] | None:
        """Who has which address on a segment; None if something is on it of which the document says nothing."""
        if end not in self._found:
            ends, is_closed = self._joined(end)
            owners: dict[str, list[Endpoint]] = {}
            for other in ends:
                for address in _addresses(self._state, other):
                    owners.setdefault(address, []).append(other)
            self._found.update(dict.fromkeys({end, *ends}, owners if is_closed else None))
        return self._found[end]

    def _joined(self, start: Endpoint) -> tuple[set[Endpoint], bool]:
        found: set[Endpoint] = set()
        bridges: set[Endpoint] = set()
        is_closed = True
        waiting = [start]
        while waiting:
            here = waiting.pop()
            link = self._state.link(here)
            if here in found or link is None:
                continue
            found.add(here)
            lower = link.details.link if link.details and link.kind in SHARING else None
            if here not in self._wires and link.kind != "bridge" and not lower:
                is_closed = False
            waiting += [self._wires[here]] if here in self._wires else []
            waiting += [lower] if lower else []
            waiting += lying_on(self._state, here, SHARING)
            bridge = here if link.kind == "bridge" else here._replace(interface=link.master)
            if bridge not in bridges:
                bridges.add(bridge)
                waiting += self._bridged.get(bridge, [])
        return found, is_closed and bool(found)
