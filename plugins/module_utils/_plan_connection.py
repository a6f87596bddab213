# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a plan cuts the connection by which it was asked for. Pure, as all of planning.

It is judged by the way that packets take to the other end: the link that has the connection's own address, the rules
that they meet, and the route. A way that is lost within the plan and is the same again in the end is no loss: TCP sends
again.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import NamedTuple

from . import _changes as c
from ._kernel import copy, play
from ._model import CONNECTED_METRIC_V6, Connection, Endpoint, Link, Namespace, State
from ._nat import NatRule
from ._rules import NO_RANGE, TABLES, Rule

_TCP = 6


class Cut(NamedTuple):
    """A change that cuts the connection, and what it does to it."""

    change: c.Change
    text: str


def find_cut(before: State, after: State, steps: Iterable[c.Step], connection: Connection) -> Cut | None:
    """The first of the changes after which the connection's way is lost for good; None if it is not."""
    way = _way(before, connection)

    def loss(state: State) -> str:
        return _loss(way, _way(state, connection)) or _captured(before, state, connection)

    if not loss(after):
        return None
    now = copy(before)
    cut = None
    for step in steps:
        play(now, step.change)
        lost = loss(now)
        cut = (cut or Cut(step.change, lost)) if lost else None
    return cut


class _Way(NamedTuple):
    """How packets get to the other end. Empty words: not known, or not there."""

    #: The link that has the connection's own address, if it is up.
    own: str
    #: By which link packets leave, and through which gateway.
    dev: str
    via: str
    #: What carries these links (ports, what lies beneath), as far as it is up.
    carriers: frozenset[str]
    #: The VRF of the link with its own address: who listens hears of no other one (inet_bound_dev_eq()).
    vrf: str


def _way(state: State, connection: Connection) -> _Way | None:
    """None if the namespace of the connection is not in the state, and so is not touched."""
    namespace = next((ns for ns in state.namespaces.values() if ns.inode == connection.inode), None)
    if namespace is None:
        return None
    taken = {end.interface for end in state.uppers if end.namespace == namespace.name and _is_taken(state, end)}
    working = (link for link in namespace.links.values() if _works(link) and link.name not in taken)
    own = next((link.name for link in working if _has(link, connection.local)), "")
    dev, via = _route(namespace, connection)
    if ipaddress.ip_address(connection.remote).is_link_local:
        dev, via = own, ""
    if dev in namespace.links and _loses_all(namespace.links[dev]):
        dev, via = "", ""
    vrf = namespace.links[own].vrf if own else ""
    return _Way(own, dev, via, frozenset(carriers(namespace, {own, dev} - {""}) - taken), vrf)


def _is_taken(state: State, end: Endpoint) -> bool:
    """Does a macvlan take all that comes in by a link (macvlan_handle_frame())?"""
    kinds = (link.details for link in map(state.link, state.uppers[end]) if link)
    return any(kind is not None and kind.name == "macvlan" and kind.get("mode") == "passthru" for kind in kinds)


def _has(link: Link, address: str) -> bool:
    return any(str(other.ip.ip) == address for other in (*link.addresses, *link.kernel_addresses))


def _works(link: Link) -> bool:
    """Does what comes in by the link reach its address? What comes in by a port goes to the bridge."""
    return link.up and not link.master


def _loses_all(link: Link) -> bool:
    return link.impairment is not None and link.impairment.loses_all


def _route(namespace: Namespace, connection: Connection) -> tuple[str, str]:
    """The link and the gateway by which what is sent to the other end leaves; empty words if it does not."""
    remote = connection.remote
    if any(_has(link, remote) for link in namespace.links.values()):
        return "lo", ""
    family = ipaddress.ip_address(remote).version
    rules = [rule for rule in namespace.rules if rule.family == family]
    if TABLES["main"] not in {rule.table for rule in rules}:
        rules += [Rule(32766, family, table=TABLES[name]) for name in ("main", "default")]
    for rule in sorted(rules, key=lambda rule: rule.priority):
        if rule.l3mdev or rule.unknown or not _may_match(rule, connection):
            continue
        if rule.type in ("blackhole", "unreachable", "prohibit"):
            return "", ""
        found = _best(namespace, rule.table, remote) if rule.type == "lookup" else None
        if found and found.length > rule.suppress_prefixlength:
            return found.dev, found.via
    return "", ""


def _may_match(rule: Rule, connection: Connection) -> bool:
    """May a rule match what the session sends? Its mark is taken to be 0, and its user to be root.

    Not known are the other port and the type of service.
    """
    is_sure = rule.dport == NO_RANGE and not rule.tos
    matches = (
        not rule.source or _within(connection.local, rule.source),
        not rule.destination or _within(connection.remote, rule.destination),
        # What is sent from here comes in by lo for the kernel, and the session's socket is bound to no link.
        rule.iif in ("", "lo") and not rule.oif,
        not rule.mark,
        rule.uidrange == NO_RANGE or rule.uidrange[0] == 0,
        rule.ipproto in (0, _TCP),
        rule.sport == NO_RANGE or rule.sport[0] <= connection.port <= rule.sport[1],
    )
    return all(matches) != rule.inverted or not is_sure


class _Found(NamedTuple):
    length: int
    dev: str
    via: str


def _best(namespace: Namespace, table: int, remote: str) -> _Found | None:
    """What a table has for an address, by the longest prefix and the lowest metric; None for nothing."""
    target = ipaddress.ip_address(remote)
    found = [
        (-own.network.prefixlen, 0 if target.version == 4 else CONNECTED_METRIC_V6, link.name, "")
        for link in namespace.links.values()
        if link.up and not link.vrf and table == TABLES["main"]
        for own in (*link.addresses, *link.kernel_addresses)
        if own.ip.version == target.version and target in own.network and not own.noprefixroute
    ]
    for route in namespace.routes:
        network = ipaddress.ip_network(route.to)
        if route.table == table and network.version == target.version and target in network:
            alive = [hop for hop in route.hops if not hop.dead]
            dev, via = (alive[0].dev, alive[0].via) if alive and route.type == "unicast" else ("", "")
            found.append((-network.prefixlen, route.metric, dev, via))
    # Of equals the first counts, which has been there longer.
    best = min(found, key=lambda way: way[:2], default=None)
    return _Found(-best[0], *best[2:]) if best else None


def carriers(namespace: Namespace, names: set[str]) -> set[str]:
    """The links that work and that these lean on: ports, members of a bond, what a VLAN lies on."""
    found: set[str] = set()
    open_ends = set(names)
    while open_ends:
        name = open_ends.pop()
        below = {link.name for link in namespace.links.values() if name in (link.master, link.controller)}
        if name in namespace.links:
            below.add(namespace.links[name].lower)
        below = {other for other in below if other in namespace.links and namespace.links[other].up}
        below = {other for other in below if not _loses_all(namespace.links[other])}
        open_ends |= below - found
        found |= below
    return found


def _loss(before: _Way | None, after: _Way | None) -> str:
    """What has been lost of the way, in words; empty if nothing has."""
    if before is None or after is None:
        return ""
    if before.own and after.own != before.own:
        return f"its own address is on {before.own}"
    if before.own and after.vrf != before.vrf:
        return f"its own address is on {before.own}, which is in {f'the VRF {before.vrf}' if before.vrf else 'no VRF'}"
    if before.dev and (after.dev, after.via) != (before.dev, before.via):
        through = f" through {before.via}" if before.via else ""
        return f"its way back is {before.dev}{through}"
    missing = sorted(before.carriers - after.carriers)
    return f"it comes in by {missing[0]}" if missing else ""


def _captured(before: State, after: State, connection: Connection) -> str:
    """A new rule that sends such connections elsewhere: this one goes on, the next one does not arrive."""
    for namespace in after.namespaces.values():
        if namespace.inode != connection.inode:
            continue
        old = {rule for rules in before.namespaces[namespace.name].nat.values() for rule in rules}
        for rules in namespace.nat.values():
            if any(rule not in old and _takes(rule, namespace, connection) for rule in rules):
                return f"the next one to port {connection.port} would be sent elsewhere"
    return ""


def _takes(rule: NatRule, namespace: Namespace, connection: Connection) -> bool:
    if rule.unknown or rule.chain != "prerouting" or rule.mark:
        return False
    if rule.family != ipaddress.ip_address(connection.local).version:
        return False
    matches = [
        ("source", not rule.source or _within(connection.remote, rule.source)),
        ("destination", not rule.destination or _within(connection.local, rule.destination)),
        ("in_interface", not rule.in_interface or rule.in_interface == _route(namespace, connection)[0]),
        ("protocol", not rule.protocol or rule.protocol in ("tcp", "6")),
        ("destination_ports", not rule.destination_ports or _among(connection.port, rule.destination_ports)),
    ]
    return all(found != (name in rule.negated) for name, found in matches)


def _within(address: str, network: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(network)


def _among(port: int, ports: str) -> bool:
    ranges = [part.partition("-") for part in ports.split(",")]
    return any(int(first) <= port <= int(last or first) for first, _dash, last in ranges)
