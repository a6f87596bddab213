# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the kernel makes of a change, side effects included: pure, on the model.

The planner plays each change that it plans on a copy of the observed state. So it sees that a route was lost with the
last address of its link before it compares routes, and the plan is whole in one pass. ``play`` returns, with what was
lost, the changes that take it all back.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Collection, Iterable
from typing import Callable

from . import _changes as c
from ._kinds import STACKED, VRF_MTU, VXLAN_HEADROOM, Kind
from ._model import (
    BRIDGE_DEFAULTS,
    DEFAULT_MTU,
    HOST,
    IPV6_MIN_MTU,
    LOOPBACK_MTU,
    MAIN_TABLE,
    MIN_MTU,
    NO_MAC,
    PORT_DEFAULTS,
    Address,
    Endpoint,
    Link,
    Namespace,
    NextHop,
    Remembered,
    Route,
    State,
    Vlan,
)
from ._rules import NEW_RULES, VRF_RULES, lacking
from ._service import ServiceKey
from ._sysctl_keys import PASSED_ON, interface_of, ipv6_conf


def copy(state: State) -> State:
    """A state that can be played on without touching ``state``."""
    return dataclasses.replace(
        state,
        namespaces={
            name: dataclasses.replace(
                namespace,
                links={
                    link.name: dataclasses.replace(
                        link, addresses=list(link.addresses), bridge=dict(link.bridge), port=dict(link.port)
                    )
                    for link in namespace.links.values()
                },
                routes=list(namespace.routes),
                rules=list(namespace.rules),
                sysctls=dict(namespace.sysctls),
                nat=dict(namespace.nat),
            )
            for name, namespace in state.namespaces.items()
        },
        uppers=dict(state.uppers),
        nodes={name: dict(settings) for name, settings in state.nodes.items()},
        services=dict(state.services),
    )


def play(state: State, change: c.Change) -> list[c.Change]:
    """Change ``state`` as the kernel would, and return the changes that take it back, in the order to make them."""
    return _EFFECTS[type(change)](state, change)


def _add_namespace(state: State, change: c.AddNamespace) -> list[c.Change]:
    state.namespaces[change.name] = new_namespace(change.name, change.alias)
    state.stale -= {change.name}
    return [c.RemoveNamespace(change.name)]


def new_namespace(name: str, alias: str = "") -> Namespace:
    """A namespace as it is made: with ``lo`` up, which has the addresses that the kernel gives it."""
    loopback = Link("lo", 1, "loopback", LOOPBACK_MTU, NO_MAC, up=True, alias=alias)
    loopback.kernel_addresses = (Address("127.0.0.1/8", scope="host"), Address("::1/128", scope="host"))
    return Namespace(name, links={"lo": loopback}, rules=list(NEW_RULES))


def _remove_namespace(state: State, change: c.RemoveNamespace) -> list[c.Change]:
    # Its links stay in it: it lives until its handle is closed, which is after all that can fail.
    state.namespaces.pop(change.name, None)
    state.stale -= {change.name}
    return [] if change.stale else [c.RestoreNamespace(change.name)]


def _attach_namespace(_state: State, change: c.AttachNamespace) -> list[c.Change]:
    # What shall have the name was observed by that.
    return [c.DetachNamespace(change.name)]


def _add_veth(state: State, change: c.AddVeth) -> list[c.Change]:
    for i, end in enumerate(change.ends):
        link = Link(
            end.interface,
            change.indexes[i],
            "veth",
            change.mtus[i] or DEFAULT_MTU,
            change.macs[i],
            alias=change.aliases[i],
            peer=change.ends[1 - i],
        )
        state.namespaces[end.namespace].links[end.interface] = link
    return [c.RemoveLink(change.ends[0], "veth", change.ends[1])]


def _add_bridge(state: State, change: c.AddBridge) -> list[c.Change]:
    state.namespaces[change.end.namespace].links[change.end.interface] = Link(
        change.end.interface,
        change.ifindex,
        "bridge",
        mac=change.mac,
        alias=change.alias,
        bridge={**BRIDGE_DEFAULTS, **dict(change.settings)},
    )
    bridge = state.namespaces[change.end.namespace].links[change.end.interface]
    bridge.vlans = default_vlans(bridge)
    return [c.RemoveLink(change.end, "bridge")]


def _add_link(state: State, change: c.AddLink) -> list[c.Change]:
    link = Link(
        change.end.interface,
        change.ifindex,
        change.kind.name,
        change.mtu or default_mtu(state, change.kind),
        change.mac,
        alias=change.alias,
        details=change.kind,
    )
    lower = change.kind.link
    if lower:
        link.lower = lower.interface if lower.namespace == change.end.namespace else ""
        state.uppers[lower] = (*state.uppers.get(lower, ()), change.end)
    namespace = state.namespaces[change.end.namespace]
    namespace.links[link.name] = link
    if link.kind == "vrf":
        # They stay when it goes.
        namespace.rules += lacking(namespace.rules, VRF_RULES, namespace.rule_families)
    return [c.RemoveLink(change.end, link.kind)]


def default_mtu(state: State, kind: Kind) -> int:
    """The MTU of a new link: that of what it lies on, less what a VXLAN adds (vxlan_config_apply())."""
    lower = state.link(kind.link) if kind.link else None
    mtu = lower.mtu if lower else DEFAULT_MTU
    if kind.name == "vxlan":
        return max(mtu - VXLAN_HEADROOM[kind.family], MIN_MTU) if lower else DEFAULT_MTU
    return VRF_MTU if kind.name == "vrf" else mtu


def lying_on(state: State, end: Endpoint, kinds: Collection[str] = (*STACKED, "vxlan")) -> list[Endpoint]:
    """What lies on a link, wherever it is."""
    found = [(upper, state.link(upper)) for upper in state.uppers.get(end, ())]
    return [upper for upper, link in found if link and link.kind in kinds]


def _set_vrf(state: State, change: c.SetVrf) -> list[c.Change]:
    link = state.namespaces[change.end.namespace].links[change.end.interface]
    undo: list[c.Change] = [c.SetVrf(change.end, link.vrf, change.vrf)]
    link.vrf = change.vrf
    if link.up:
        # cycle_netdev() sets it down and up again.
        for end in [change.end, *_vlans_up(state, change.end)]:
            undo += _lose_routes(state, end, 4) + _lose_ipv6(state, end)
    return undo


def _set_bridge(state: State, change: c.SetBridge) -> list[c.Change]:
    link = state.namespaces[change.end.namespace].links[change.end.interface]
    before = tuple((name, link.bridge[name]) for name, _value in change.settings if name in link.bridge)
    pvid = link.bridge.get("vlan_default_pvid")
    link.bridge.update(change.settings)
    undo: list[c.Change] = [c.SetBridge(change.end, before, change.settings)] if before else []
    if pvid is None or link.bridge["vlan_default_pvid"] == pvid:
        return undo
    ports = [port for port in state.namespaces[change.end.namespace].links.values() if port.master == link.name]
    for one in (link, *ports):
        old, one.vlans = one.vlans, _with_pvid(one.vlans, pvid, link.bridge["vlan_default_pvid"])
        back = _with_pvid(one.vlans, link.bridge["vlan_default_pvid"], pvid)
        if back != old:
            end = change.end._replace(interface=one.name)
            undo.append(c.SetVlans(end, old, back, of_bridge=one is link))
    return undo


def _with_pvid(vlans: tuple[Vlan, ...], old: int, new: int) -> tuple[Vlan, ...]:
    """The VLANs of a port, or of a bridge, after its default one has changed (__br_vlan_set_default_pvid())."""
    is_default = Vlan(old, pvid=True, untagged=True) in vlans
    if not new:
        return tuple(vlan for vlan in vlans if not (is_default and vlan.vid == old))
    if (old and not is_default) or any(vlan.vid == new for vlan in vlans):
        return vlans
    others = [vlan._replace(pvid=False) for vlan in vlans if not (old and vlan.vid == old)]
    return tuple(sorted([*others, Vlan(new, pvid=True, untagged=True)]))


def _set_master(state: State, change: c.SetMaster) -> list[c.Change]:
    namespace = state.namespaces[change.end.namespace]
    link = namespace.links[change.end.interface]
    undo: list[c.Change] = [c.SetMaster(change.end, link.master, change.master)]
    if link.master:
        undo += _port_again(change.end, link, namespace.links.get(link.master))
    bridges = [change.end._replace(interface=name) for name in (link.master, change.master)]
    own = [step for end in bridges for step in _own_mtu(state, end)]
    link.master = change.master
    # br_add_if() gives a port its settings, and the bridge's default VLAN.
    link.port = dict(PORT_DEFAULTS) if link.master else {}
    link.vlans = default_vlans(namespace.links.get(link.master))
    return undo + own + [step for end in bridges for step in _adjust_mtu(state, end)]


def _port_again(end: Endpoint, link: Link, bridge: Link | None) -> list[c.Change]:
    """What makes a link that has joined its bridge again the port that it was."""
    undo: list[c.Change] = [c.SetPort(end, tuple(link.port.items()))] if link.port else []
    joined = default_vlans(bridge)
    return undo + ([c.SetVlans(end, link.vlans, joined)] if link.vlans and link.vlans != joined else [])


def default_vlans(bridge: Link | None) -> tuple[Vlan, ...]:
    """The VLANs that a bridge gives a new port (br_vlan_init())."""
    pvid = bridge.bridge.get("vlan_default_pvid", 0) if bridge else 0
    return (Vlan(pvid, pvid=True, untagged=True),) if pvid else ()


def _own_mtu(state: State, end: Endpoint) -> list[c.Change]:
    """What gives a bridge its MTU back after its ports are as they were; nothing if it is that of its ports.

    On the way there it may have had theirs, which may have been too small for IPv6: a bridge that is made again on the
    way back does not know yet that it has its own.
    """
    bridge = state.link(end) if end.interface else None
    if not bridge or bridge.mtu == smallest_mtu(state, end):
        return []
    bridge.own_mtu = True
    again = [address for address in bridge.addresses if address.family == 6]
    return [c.SetLink(end, mtu=bridge.mtu), *(c.AddAddress(end, address) for address in again)]


def _adjust_mtu(state: State, end: Endpoint) -> list[c.Change]:
    """A bridge takes the smallest MTU of its ports (br_mtu_auto_adjust()), until somebody has changed its own."""
    bridge = state.link(end) if end.interface else None
    if not bridge or bridge.own_mtu:
        return []
    before, bridge.mtu = bridge.mtu, smallest_mtu(state, end)
    undo = _lose_ipv6(state, end) if bridge.mtu < IPV6_MIN_MTU <= before else []
    return undo + _adjust_upper_mtus(state, end)


def _adjust_upper_mtus(state: State, end: Endpoint) -> list[c.Change]:
    """What lies on a link has no larger MTU than it (vlan_device_event() and the like); an ipvlan has the same."""
    lower = state.link(end)
    undo: list[c.Change] = []
    for upper in lying_on(state, end, STACKED) if lower else ():
        link = state.namespaces[upper.namespace].links[upper.interface]
        if lower and (link.mtu > lower.mtu or (link.kind == "ipvlan" and link.mtu != lower.mtu)):
            undo += _set_link(state, c.SetLink(upper, mtu=lower.mtu))
    return undo


def smallest_mtu(state: State, end: Endpoint) -> int:
    """The MTU of a bridge that never got one of its own."""
    links = state.namespaces[end.namespace].links.values()
    return min((link.mtu for link in links if link.master == end.interface), default=DEFAULT_MTU)


def _set_port(state: State, change: c.SetPort) -> list[c.Change]:
    link = state.namespaces[change.end.namespace].links[change.end.interface]
    before = tuple((name, link.port[name]) for name, _value in change.settings if name in link.port)
    link.port.update(change.settings)
    return [c.SetPort(change.end, before, change.settings)] if before else []


def _set_vlans(state: State, change: c.SetVlans) -> list[c.Change]:
    link = state.namespaces[change.end.namespace].links[change.end.interface]
    before, link.vlans = link.vlans, change.vlans
    return [c.SetVlans(change.end, before, change.vlans, of_bridge=change.of_bridge)]


def _remove_link(state: State, change: c.RemoveLink) -> list[c.Change]:
    namespace = state.namespaces[change.end.namespace]
    link = namespace.links[change.end.interface]
    members = _members(namespace, link) if link.kind == "vrf" else []
    ends = [change.end, link.peer] if link.peer and state.link(link.peer) else [change.end]
    freed = _free_ports(state, change.end, link) if link.kind == "bridge" else []
    bridges = [end._replace(interface=state.namespaces[end.namespace].links[end.interface].master) for end in ends]
    own = [step for end in dict.fromkeys(bridges) for step in _own_mtu(state, end)]
    gone = [_cut(state, end) for end in ends]
    links = [link for link, _routes in gone]
    undo: list[c.Change] = []
    if link.kind == "bridge":
        # A kernel that lacks a setting (VLANs) takes not even its default.
        settings = tuple((name, value) for name, value in link.bridge.items() if value != BRIDGE_DEFAULTS[name])
        # A bridge that has lost its last port has none, and none can be given to one.
        mac = "" if link.mac == NO_MAC else link.mac
        undo.append(c.AddBridge(change.end, settings, mac, link.alias, link.index))
        if tuple(sorted(link.vlans)) != default_vlans(link):
            undo.append(c.SetVlans(change.end, link.vlans, default_vlans(link), of_bridge=True))
        undo += freed
    if link.details:
        # What follows the link that it lies on is not said.
        follows = link.kind == "ipvlan" or (link.kind == "vlan" and link.mac == _lower_mac(state, link.details))
        mac = "" if follows else link.mac
        undo.append(c.AddLink(change.end, link.details, link.mtu, mac, link.alias, link.index))
        # The members of a VRF stay, as members of none.
        undo += [step for end in members for step in _set_vrf(state, c.SetVrf(end, "", link.name))]
    if len(links) == 2:
        undo.append(
            c.AddVeth(
                (ends[0], ends[1]),
                (links[0].mtu, links[1].mtu),
                (links[0].mac, links[1].mac),
                (links[0].alias, links[1].alias),
                (links[0].index, links[1].index),
            )
        )
    for end, (link, _routes) in zip(ends, gone):
        if link.master:
            master = state.namespaces[end.namespace].links.get(link.master)
            undo += [c.SetMaster(end, link.master), *_port_again(end, link, master)]
        if link.vrf:
            undo.append(c.SetVrf(end, link.vrf))
        undo += [c.AddAddress(end, address) for address in link.addresses]
        if link.up:
            undo.append(c.SetUp(end, True))
        undo += _impaired_again(end, link)
    undo += own + [step for end in dict.fromkeys(bridges) for step in _adjust_mtu(state, end)]
    for end, (_link, routes) in zip(ends, gone):
        undo += [c.AddRoute(end.namespace, route) for route in _in_adding_order(routes)]
    return undo


def _free_ports(state: State, end: Endpoint, bridge: Link) -> list[c.Change]:
    """The ports of a bridge that goes stay, as ports of none."""
    undo: list[c.Change] = []
    own = [c.SetLink(end, mtu=bridge.mtu)] if bridge.mtu != smallest_mtu(state, end) else []
    for port in state.namespaces[end.namespace].links.values():
        if port.master == bridge.name:
            port_end = end._replace(interface=port.name)
            undo += [c.SetMaster(port_end, bridge.name), *_port_again(port_end, port, bridge)]
            port.master, port.port, port.vlans = "", {}, ()
    return undo + own


def _lift(state: State, end: Endpoint, link: Link, to: Endpoint | None = None) -> None:
    """A link is where it was no more, but at ``to``: what lies on it does so there, as it does on what it lies on."""
    lower = link.details.link if link.details else None
    if lower:
        beside = [upper for upper in state.uppers.get(lower, ()) if upper != end]
        state.uppers[lower] = tuple(beside + ([to] if to else []))
    uppers = state.uppers.pop(end, ())
    if to and uppers:
        state.uppers[to] = uppers
    for upper in uppers if to else ():
        other = state.link(upper)
        if to and other and other.details:
            other.details = other.details._replace(link=to)
            other.lower = to.interface if to.namespace == upper.namespace else ""


def _lower_mac(state: State, kind: Kind) -> str:
    lower = state.link(kind.link) if kind.link else None
    return lower.mac if lower else ""


def _members(namespace: Namespace, vrf: Link) -> list[Endpoint]:
    return [Endpoint(namespace.name, link.name) for link in namespace.links.values() if link.vrf == vrf.name]


def _cut(state: State, end: Endpoint) -> tuple[Link, list[Route]]:
    """Take a link out of a namespace, with the routes that go with it."""
    namespace = state.namespaces[end.namespace]
    link = namespace.links.pop(end.interface)
    _lift(state, end, link)
    namespace.sysctls = {key: value for key, value in namespace.sysctls.items() if interface_of(key) != link.name}
    # Unregistering a device flushes every route that has a way through it (fib_sync_down_dev(), rt6_disable_ip()).
    kept: list[Route] = []
    lost: list[Route] = []
    for route in namespace.routes:
        (lost if any(hop.dev == link.name for hop in route.hops) else kept).append(route)
    for address in link.addresses:
        kept, more = _without_source(kept, address)
        lost += more
    namespace.routes = kept
    return link, lost


def _move_link(state: State, change: c.MoveLink) -> list[c.Change]:
    if change.end.namespace == change.to.namespace:
        return _rename(state, change)
    # dev_change_net_namespace() closes the device and takes its addresses; alias, altnames, MTU and MAC go along.
    bridge = change.end._replace(interface=state.namespaces[change.end.namespace].links[change.end.interface].master)
    own = _own_mtu(state, bridge)
    _lift(state, change.end, state.namespaces[change.end.namespace].links[change.end.interface], change.to)
    link, lost = _cut(state, change.end)
    undo: list[c.Change] = [c.MoveLink(change.to, change.end)]
    if link.master:
        master = state.namespaces[change.end.namespace].links.get(link.master)
        undo += [c.SetMaster(change.end, link.master), *_port_again(change.end, link, master), *own]
        undo += _adjust_mtu(state, bridge)
        link.master, link.port, link.vlans = "", {}, ()
    if link.vrf:
        undo.append(c.SetVrf(change.end, link.vrf))
        link.vrf = ""
    undo += [c.AddAddress(change.end, address) for address in link.addresses]
    if link.up:
        undo.append(c.SetUp(change.end, True))
    undo += [c.AddRoute(change.end.namespace, route) for route in _in_adding_order(lost)]
    # Queueing disciplines end with the move (dev_shutdown()).
    undo += _impaired_again(change.end, link)
    link.impairment, link.other_qdisc = None, ""
    link.name = change.to.interface
    link.addresses = []
    link.kernel_addresses = ()
    link.up = False
    # What it lies on has another name there, or none; and it is a part of nothing.
    link.lower = link.controller = ""
    if link.details and link.details.link and link.details.link.namespace == change.to.namespace:
        link.lower = link.details.link.interface
    if link.details and link.kind == "vxlan" and not link.details.link:
        underlay = link.details.netns or change.end.namespace
        link.details = link.details._replace(netns="" if underlay == change.to.namespace else underlay)
    state.namespaces[change.to.namespace].links[link.name] = link
    peer = state.link(link.peer) if link.peer else None
    if peer:
        peer.peer = change.to
    return undo


def _rename(state: State, change: c.MoveLink) -> list[c.Change]:
    """Another name for a link that is down, has no routes, and at most one IPv4 address, without a label.

    inetdev_changename() gives all others labels of its own.
    """
    namespace = state.namespaces[change.end.namespace]
    link = namespace.links.pop(change.end.interface)
    old, link.name = link.name, change.to.interface
    namespace.links[link.name] = link
    namespace.sysctls = {key: value for key, value in namespace.sysctls.items() if interface_of(key) != old}
    for other in namespace.links.values():
        other.lower = link.name if other.lower == old else other.lower
        other.vrf = link.name if other.vrf == old and link.kind == "vrf" else other.vrf
    _lift(state, change.end, link, change.to)
    peer = state.link(link.peer) if link.peer else None
    if peer:
        peer.peer = change.to
    return [c.MoveLink(change.to, change.end)]


def _set_altname(state: State, change: c.SetAltname) -> list[c.Change]:
    link = state.namespaces[change.end.namespace].links[change.end.interface]
    others = tuple(altname for altname in link.altnames if altname != change.altname)
    link.altnames = (*others, change.altname) if change.is_added else others
    return [c.SetAltname(change.end, change.altname, not change.is_added)]


def _restore_conf(_state: State, change: c.RestoreConf) -> list[c.Change]:
    return [] if change.is_a_way_back else [c.RestoreConf(change.end, ())]


def _set_link(state: State, change: c.SetLink) -> list[c.Change]:
    link = state.namespaces[change.end.namespace].links[change.end.interface]
    # A bridge that was given an MTU keeps it when its ports go: on the way back it gets the one that it had at first.
    mtu = change.before[0] if link.kind == "bridge" and change.before[0] else link.mtu
    before = (
        None if change.mtu is None else mtu,
        None if change.mac is None else link.mac,
        None if change.alias is None else link.alias,
    )
    undo: list[c.Change] = [c.SetLink(change.end, *before)]
    if change.mtu is not None:
        bridge = change.end._replace(interface=link.master)
        undo += _own_mtu(state, bridge)
        if change.mtu < IPV6_MIN_MTU <= link.mtu:
            undo += _lose_ipv6(state, change.end)
        link.mtu = change.mtu
        link.own_mtu = link.kind == "bridge"
        undo += _adjust_upper_mtus(state, change.end)
        undo += _adjust_mtu(state, bridge)
    if change.mac is not None:
        link.mac = change.mac
    if change.alias is not None:
        link.alias = change.alias
    return undo


def _set_impairment(state: State, change: c.SetImpairment) -> list[c.Change]:
    link = state.namespaces[change.end.namespace].links[change.end.interface]
    before, link.impairment = link.impairment, change.impairment
    return [c.SetImpairment(change.end, before, change.impairment)]


def _impaired_again(end: Endpoint, link: Link) -> list[c.Change]:
    return [c.SetImpairment(end, link.impairment)] if link.impairment else []


def _set_up(state: State, change: c.SetUp) -> list[c.Change]:
    link = state.namespaces[change.end.namespace].links[change.end.interface]
    link.up = change.up
    undo: list[c.Change] = [c.SetUp(change.end, not change.up)]
    if change.up:
        for end in [change.end, *_vlans(state, change.end)]:
            namespace = state.namespaces[end.namespace]
            link = namespace.links[end.interface]
            link.up = True
            namespace.routes = [_revived(route, link.name) for route in namespace.routes]
            # Going down again takes the IPv6 addresses along that the link had when it was down before.
            undo += [c.AddAddress(end, address) for address in link.addresses if address.family == 6]
        return undo
    # Coming up again takes all VLANs along, whether or not they were up.
    undo += [c.SetUp(end, False) for end in _vlans(state, change.end) if not _is_up(state, end)]
    for end in [change.end, *_vlans_up(state, change.end)]:
        state.namespaces[end.namespace].links[end.interface].up = False
        undo += _lose_routes(state, end, 4)
        # addrconf_ifdown(); net.ipv6.conf.*.keep_addr_on_down is 0 unless somebody set it.
        undo += _lose_ipv6(state, end)
    return undo


def _vlans(state: State, end: Endpoint) -> list[Endpoint]:
    """The VLANs on a link, and those on them, that go up and down with it (vlan_device_event())."""
    links = [(upper, state.link(upper)) for upper in lying_on(state, end, ("vlan",))]
    here = [upper for upper, link in links if link and link.details and link.details.is_bound]
    return [vlan for found in here for vlan in (found, *_vlans(state, found))]


def _vlans_up(state: State, end: Endpoint) -> list[Endpoint]:
    return [vlan for vlan in _vlans(state, end) if _is_up(state, vlan)]


def _is_up(state: State, end: Endpoint) -> bool:
    link = state.link(end)
    return link is not None and link.up


def _revived(route: Route, dev: str) -> Route:
    hops = tuple(hop._replace(dead=False) if hop.dev == dev else hop for hop in route.nexthops)
    return route._replace(nexthops=hops) if hops != route.nexthops else route


def _lose_ipv6(state: State, end: Endpoint) -> list[c.Change]:
    """The IPv6 addresses of a link and its IPv6 routes go, as when the link goes down."""
    link = state.namespaces[end.namespace].links[end.interface]
    lost = [address for address in link.addresses if address.family == 6]
    link.addresses = [address for address in link.addresses if address.family == 4]
    link.kernel_addresses = tuple(address for address in link.kernel_addresses if address.family == 4)
    return [c.AddAddress(end, address) for address in lost] + _lose_routes(state, end, 6)


def _lose_routes(state: State, end: Endpoint, family: int) -> list[c.Change]:
    """The routes of a family through a link go; a multipath route with other ways left only loses this one."""
    namespace = state.namespaces[end.namespace]
    kept: list[Route] = []
    undo: list[c.Change] = []
    for route in namespace.routes:
        if route.family != family or all(hop.dev != end.interface for hop in route.hops):
            kept.append(route)
            continue
        alive = tuple(hop for hop in route.hops if hop.dev != end.interface and not hop.dead)
        if not alive:
            undo.append(c.AddRoute(end.namespace, route))
        elif family == 4:
            kept.append(route._replace(nexthops=tuple(_killed(hop, end.interface) for hop in route.nexthops)))
        else:
            # IPv6 takes the way out of the route for good (fib6_ifdown()).
            left = route._replace(nexthops=alive)
            if len(alive) == 1:
                left = left._replace(nexthops=(), via=alive[0].via, dev=alive[0].dev, onlink=alive[0].onlink)
            kept.append(left)
            undo.append(c.ReplaceRoute(end.namespace, left, route))
    namespace.routes = kept
    return undo


def _killed(hop: NextHop, dev: str) -> NextHop:
    return hop._replace(dead=True) if hop.dev == dev else hop


def _add_address(state: State, change: c.AddAddress) -> list[c.Change]:
    link = state.namespaces[change.end.namespace].links[change.end.interface]
    if change.address not in link.addresses:
        link.addresses.append(change.address)
    return [c.RemoveAddress(change.end, change.address)]


def _replace_address(state: State, change: c.ReplaceAddress) -> list[c.Change]:
    addresses = state.namespaces[change.end.namespace].links[change.end.interface].addresses
    addresses[addresses.index(change.before)] = change.address
    return [c.ReplaceAddress(change.end, change.address, change.before)]


def _remove_address(state: State, change: c.RemoveAddress) -> list[c.Change]:
    namespace = state.namespaces[change.end.namespace]
    link = namespace.links[change.end.interface]
    link.addresses.remove(change.address)
    undo: list[c.Change] = [c.AddAddress(change.end, change.address)]
    if change.address.family == 4 and not any(a.family == 4 for a in (*link.addresses, *link.kernel_addresses)):
        # The last IPv4 address takes all IPv4 routes of the link with it (fib_inetaddr_event()).
        undo += _lose_routes(state, change.end, 4)
    namespace.routes, lost = _without_source(namespace.routes, change.address)
    return undo + [c.AddRoute(change.end.namespace, route) for route in _in_adding_order(lost)]


def _without_source(routes: list[Route], address: Address) -> tuple[list[Route], list[Route]]:
    """IPv4 routes that prefer an address as source go with it (fib_sync_down_addr()); IPv6 ones forget it."""
    source = str(address.ip.ip)
    kept, lost = [], []
    for route in routes:
        if route.src != source:
            kept.append(route)
        elif route.family == 4:
            lost.append(route)
        else:
            kept.append(route._replace(src=""))
    return kept, lost


def _add_route(state: State, change: c.AddRoute) -> list[c.Change]:
    state.namespaces[change.namespace].routes.append(change.route)
    return [c.RemoveRoute(change.namespace, change.route)]


def _replace_route(state: State, change: c.ReplaceRoute) -> list[c.Change]:
    routes = state.namespaces[change.namespace].routes
    routes[routes.index(change.before)] = change.route
    return [c.ReplaceRoute(change.namespace, change.route, change.before)]


def _remove_route(state: State, change: c.RemoveRoute) -> list[c.Change]:
    routes = state.namespaces[change.namespace].routes
    routes.remove(change.route)
    return [c.AddRoute(change.namespace, change.route, append=any(r.key == change.route.key for r in routes))]


def _set_rules(state: State, change: c.SetRules) -> list[c.Change]:
    # Rules know interfaces by name, and stay whatever comes of these.
    namespace = state.namespaces[change.namespace]
    places = {rule.place for rule in (*change.before, *change.rules)}
    namespace.rules = [rule for rule in namespace.rules if rule.place not in places] + list(change.rules)
    return [c.SetRules(change.namespace, change.before, change.rules)]


def _set_nat(state: State, change: c.SetNat) -> list[c.Change]:
    nat = state.namespaces[change.namespace].nat
    if change.rules:
        nat[change.backend] = change.rules
    else:
        nat.pop(change.backend, None)
    if change.is_undone_by_words:
        return [c.SetNat(change.namespace, change.backend, change.before, change.rules)]
    return [c.RestoreNat(change.namespace, change.backend)]


def _set_node(state: State, change: c.SetNode) -> list[c.Change]:
    settings = state.nodes.setdefault(change.namespace, {})
    before = settings.pop(change.what, None)
    if change.setting:
        settings[change.what] = change.setting
    return [c.SetNode(change.namespace, change.what, before, change.setting)]


def _set_service(state: State, change: c.SetService) -> list[c.Change]:
    key = ServiceKey(change.namespace, change.name)
    before = state.services.pop(key, None)
    if change.service:
        state.services[key] = change.service
    return [c.SetService(*key, before, change.service)]


def _set_sysctl(state: State, change: c.SetSysctl) -> list[c.Change]:
    namespace = state.namespaces[change.namespace]
    before = namespace.sysctls.get(change.key)
    undo: list[c.Change] = []
    if before is not None:
        undo.append(c.SetSysctl(change.namespace, change.key, before, change.value))
    namespace.sysctls[change.key] = change.value
    if before == change.value:
        return undo
    for key, value in list(namespace.sysctls.items()):
        after = consequence(key, change.key, change.value)
        if key == change.key or value is None or after is None:
            continue
        # Setting the cause back has its consequences, too: what they do not restore is restored by name.
        if before is not None and value != consequence(key, change.key, before):
            undo.append(c.SetSysctl(change.namespace, key, value, after))
        namespace.sysctls[key] = after
    return undo + _disabled_ipv6(state, namespace, change)


def consequence(key: str, cause: str, value: str) -> str | None:
    """What the kernel itself sets ``key`` to when ``cause`` changes to ``value``; None if it leaves it alone.

    inet_forward_change(), addrconf_fixup_forwarding() and addrconf_disable_ipv6() pass a value on to all interfaces.
    """
    if key == "net/ipv4/conf/all/accept_redirects" and cause in _IPV4_FORWARDING:
        return "1" if value == "0" else "0"
    return value if _follows(key, cause) else None


def unfollowed(memory: Remembered, entries: Iterable[Remembered]) -> Remembered:
    """What a lab remembers of a sysctl, with what that would be without those of the lab's ``entries`` it follows."""
    for entry in entries if memory.kind == "sysctl" else ():
        if entry[1:3] != memory[1:3] or entry.before is None:
            continue
        if entry.kind == "consequence" and entry.object == memory.object:
            return memory._replace(before=entry.before)
        if entry.kind != "sysctl" or entry.before == entry.after:
            continue
        implied = consequence(memory.object, entry.object, entry.after or "")
        # A device that gets IPv6 anew follows, too.
        if implied is not None and memory.before in (implied, None):
            return memory._replace(before=consequence(memory.object, entry.object, entry.before))
    return memory


_IPV4_FORWARDING = ("net/ipv4/ip_forward", "net/ipv4/conf/all/forwarding")


def _follows(key: str, cause: str) -> bool:
    if cause in _IPV4_FORWARDING:
        return key == "net/ipv4/ip_forward" or _is_conf(key, "ipv4", "forwarding")
    return any(cause == ipv6_conf("all", name) and _is_conf(key, "ipv6", name) for name in PASSED_ON)


def _is_conf(key: str, family: str, last: str) -> bool:
    parts = key.split("/")
    return len(parts) == 5 and parts[:3] == ["net", family, "conf"] and parts[4] == last


def _disabled_ipv6(state: State, namespace: Namespace, change: c.SetSysctl) -> list[c.Change]:
    if change.value == "0" or not _is_conf(change.key, "ipv6", "disable_ipv6"):
        return []
    interface = change.key.split("/")[3]
    undo: list[c.Change] = []
    for name in list(namespace.links):
        if interface in ("all", name):
            undo += _lose_ipv6(state, Endpoint(namespace.name, name))
    return undo


def _restore(_state: State, _change: c.RestoreNamespace | c.DetachNamespace | c.RestoreNat) -> list[c.Change]:
    raise AssertionError("this is done by a rollback only, which is not planned")


def _in_adding_order(routes: list[Route]) -> list[Route]:
    return sorted(routes, key=needs_gateway)


def needs_gateway(route: Route) -> bool:
    """True for a route that can be added only once its gateway is reachable."""
    return any(hop.via for hop in route.hops)


def devices_towards(namespace: Namespace, via: str, table: int) -> list[str]:
    """The links on which a gateway is directly reachable, the best match first."""
    address = ipaddress.ip_address(via)
    found: list[tuple[int, str]] = []
    for link in namespace.links.values():
        if not link.up or (link.vrf and table_of(namespace, link) != table):
            continue
        for own in link.all_addresses:
            network = own.network
            if network.version == address.version and address in network and not own.noprefixroute:
                found.append((network.prefixlen, link.name))
    for route in namespace.routes:
        if route.type == "unicast" and route.table in (table, MAIN_TABLE) and not route.via and not route.nexthops:
            network = ipaddress.ip_network(route.to)
            if network.version == address.version and address in network:
                found.append((network.prefixlen, route.dev))
    return [dev for _length, dev in sorted(found, key=lambda item: (-item[0], item[1]))]


def table_of(namespace: Namespace, link: Link) -> int:
    """The table to which the kernel adds the routes of a link's own addresses."""
    vrf = namespace.links.get(link.vrf) if link.vrf else None
    return int(vrf.details.get("table")) if vrf and vrf.details else MAIN_TABLE


def hindrance(namespace: Namespace, route: Route) -> str:
    """What keeps the kernel from taking a route, in words; empty if nothing does."""
    addresses = {str(address.ip.ip) for link in namespace.links.values() for address in link.all_addresses}
    if route.src and route.src not in addresses:
        return f"{route.src} is no address of the namespace {namespace.name}"
    for hop in route.hops:
        link = namespace.links.get(hop.dev)
        if link is None:
            return f"there is no link {hop.dev} in the namespace {namespace.name}"
        if not link.up:
            return f"{hop.dev} is down"
        is_known = not hop.via or hop.onlink or (":" in hop.via and ipaddress.ip_address(hop.via).is_link_local)
        if not is_known and hop.dev not in devices_towards(namespace, hop.via, route.table):
            return f"nothing leads to {hop.via} on {hop.dev}"
    return ""


_EFFECTS: dict[type, Callable[..., list[c.Change]]] = {
    c.AddNamespace: _add_namespace,
    c.RemoveNamespace: _remove_namespace,
    c.RestoreNamespace: _restore,
    c.AttachNamespace: _attach_namespace,
    c.DetachNamespace: _restore,
    c.AddVeth: _add_veth,
    c.AddBridge: _add_bridge,
    c.AddLink: _add_link,
    c.SetVrf: _set_vrf,
    c.SetBridge: _set_bridge,
    c.SetMaster: _set_master,
    c.SetPort: _set_port,
    c.SetVlans: _set_vlans,
    c.RemoveLink: _remove_link,
    c.MoveLink: _move_link,
    c.SetAltname: _set_altname,
    c.RestoreConf: _restore_conf,
    c.SetLink: _set_link,
    c.SetUp: _set_up,
    c.SetImpairment: _set_impairment,
    c.AddAddress: _add_address,
    c.ReplaceAddress: _replace_address,
    c.RemoveAddress: _remove_address,
    c.AddRoute: _add_route,
    c.ReplaceRoute: _replace_route,
    c.RemoveRoute: _remove_route,
    c.SetRules: _set_rules,
    c.SetNat: _set_nat,
    c.RestoreNat: _restore,
    c.SetSysctl: _set_sysctl,
    c.SetNode: _set_node,
    c.SetService: _set_service,
}


def mark_of(state: State, end: Endpoint) -> str | None:
    """The lab that a link belongs to: by its own mark, its namespace's, or that of the veth's other end.

    The mark of a device that was moved is one of its second names.

    A run that was killed between making a link and marking it leaves one that only its surroundings know.
    """
    link = state.link(end)
    if link is None:
        return None
    if link.lab:
        return link.lab
    # Of a device that two labs have marked, the first one has it.
    origin = next((origin for origin in link.origins if origin.lab), None)
    if origin:
        return origin.lab
    if end.namespace != HOST and state.namespaces[end.namespace].lab:
        return state.namespaces[end.namespace].lab
    peer = state.link(link.peer) if link.peer else None
    # A device of the host that is the end of a veth has left its other end to whom that was.
    if peer and link.peer and not peer.origins:
        return peer.lab or state.namespaces[link.peer.namespace].lab
    return ""
