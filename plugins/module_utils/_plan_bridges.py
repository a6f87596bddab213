# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The part of planning that is about bridges and their ports. Pure, as all of planning.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from . import _changes as c
from ._errors import FOREIGN, article, did_you_mean, few
from ._kernel import default_vlans, mark_of, smallest_mtu
from ._model import (
    BRIDGE_DEFAULTS,
    FORWARD_DELAY,
    HOST,
    MAX_PORTS,
    NO_VLANS,
    PORT_DEFAULTS,
    VETH_PORT_COST,
    Endpoint,
    Link,
    Vlan,
    WantedBridge,
    WantedLink,
    WantedPort,
    mark,
)

#: The spanning tree's settings that depend on each other.
_SPANNING = {"stp", "forward_delay"}

#: Settings that cannot be seen at times, and when.
_HIDDEN = {
    "ageing_time": "its spanning tree minds a change of the topology, which takes less than a minute",
    "forward_delay": "it follows another bridge, which is the root of its spanning tree",
}

if TYPE_CHECKING:
    from ._plan import Planner


class Bridges:
    """Plans the bridges of a demand, step by step as the planner comes to them."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self._wanted = planner.wanted

    def _bridges(self) -> Iterator[tuple[Endpoint, WantedLink, WantedBridge]]:
        for end, wanted in self._planner.wanted_links():
            if wanted.bridge:
                yield end, wanted, wanted.bridge

    # --- removing ----------------------------------------------------------------------------------------------------

    def absent(self) -> Iterator[Endpoint]:
        """The bridges that shall go, are there, and may."""
        for end in self._wanted.absent_bridges:
            link = self._planner.state.link(end)
            if link is None:
                continue
            if link.kind != "bridge":
                kind = article(link.kind or "physical")
                self._planner.problem("name", f"{end} is {kind} device, no bridge; it is not removed")
            elif self._planner.is_of_lab(f"the bridge {end}", mark_of(self._planner.state, end)):
                yield end

    def in_the_way(self) -> Iterator[Endpoint]:
        """What has the name of a bridge that shall be made. What is not the lab's own is refused instead."""
        lab = self._wanted.lab
        for end, wanted, bridge in self._bridges():
            link = self._planner.state.link(end)
            if link is None and bridge.create:
                self._planner.is_second_name(end, wanted.path)
            if link is None or link.kind == "bridge":
                continue
            if bridge.create and lab and link.lab == lab:
                yield end
                continue
            owner = f" (of lab {link.lab!r})" if link.lab else ""
            fact = f"exists already and is {article(link.kind or 'physical')} device, no bridge"
            text = f"{end}{owner} {fact}; remove or rename it, or choose another name"
            self._planner.problem(wanted.path, text, FOREIGN)

    # --- the bridges themselves --------------------------------------------------------------------------------------

    def add(self) -> None:
        """Make the bridges that are missing, all of them down."""
        lab = self._wanted.lab
        for end, wanted, bridge in self._bridges():
            link = self._planner.state.link(end)
            if link is None and bridge.create:
                settings = _differing(bridge.settings, BRIDGE_DEFAULTS)
                self._planner.do(c.AddBridge(end, settings, wanted.mac or "", mark(lab), path=wanted.path))
            elif link and bridge.create:
                links = self._planner.state.namespaces[end.namespace].links.values()
                ports = few([other.name for other in links if other.master == end.interface])
                what = f"the bridge {end}" + (f" (with {ports})" if ports else "")
                self._planner.refuse_foreign(wanted.path, what, mark_of(self._planner.state, end))

    def configure(self) -> None:
        """Settings of the bridges that are there."""
        for end, wanted, bridge in self._bridges():
            link = self._planner.state.namespaces[end.namespace].links[end.interface]
            shall = self._complete(bridge.settings, BRIDGE_DEFAULTS, link.bridge)
            stp = link.bridge.get("stp")
            same_tree = shall.get("stp", stp) == stp and not self._loses_port(end, bridge)
            if link.index and same_tree:
                self._leave_out_hidden(end, bridge, shall, link.bridge)
            settings = _differing(shall, link.bridge)
            self._check(wanted, link, dict(settings))
            if link.index and dict(settings).get("stp") == 0:
                # What the tree changes until the end of this step would stay so for good.
                hidden = {
                    name: shall.get(name, link.bridge.get(name)) for name in _HIDDEN if name not in dict(settings)
                }
                settings += tuple((name, value) for name, value in hidden.items() if value is not None)
            if settings:
                before = tuple((name, link.bridge[name]) for name, _value in settings if name in link.bridge)
                self._planner.do(c.SetBridge(end, settings, before, wanted.path))

    def _loses_port(self, end: Endpoint, bridge: WantedBridge) -> bool:
        before = self._planner.before.namespaces.get(end.namespace)
        there = {link.name for link in before.links.values() if link.master == end.interface} if before else set()
        return bool((there - bridge.ports.keys()) & (there if bridge.purge else set(bridge.absent_ports)))

    def _leave_out_hidden(
        self, end: Endpoint, bridge: WantedBridge, shall: dict[str, int], there: dict[str, int]
    ) -> None:
        """What a spanning tree has changed for the time being, and so nobody can see, is not compared."""
        for name, why in _HIDDEN.items():
            if name not in there and shall.pop(name, None) is not None and name in bridge.settings:
                self._planner.result.warnings.append(
                    f"the {name} of the bridge {end} cannot be seen while {why}; it is not compared"
                )

    def _check(self, wanted: WantedLink, link: Link, settings: dict[str, int]) -> None:
        """What this bridge, or this kernel, does not take."""
        path = f"{wanted.path}." if self._wanted.whole else ""
        after = {**link.bridge, **settings}
        delay = after.get("forward_delay", FORWARD_DELAY[0])
        if after.get("stp") and not FORWARD_DELAY[0] <= delay <= FORWARD_DELAY[1] and settings.keys() & _SPANNING:
            key = "forward_delay" if "forward_delay" in settings else "stp"
            text = f"the bridge would have a forward_delay of {delay / 100:g} (seconds); with 'stp' it is from 2 to 30"
            self._planner.problem(f"{path}{key}", text)
        if link.index and "vlan_default_pvid" not in link.bridge:
            for key in ("vlan_filtering", "vlan_default_pvid"):
                if settings.get(key):
                    self._planner.problem(f"{path}{key}", NO_VLANS)

    def _complete(self, settings: dict[str, int], defaults: dict[str, int], there: dict[str, int]) -> dict[str, int]:
        """In a whole document what is not said is the kernel's default, as far as this kernel has it at all."""
        if not self._wanted.whole:
            return dict(settings)
        known = {name: value for name, value in defaults.items() if name in there or name in _HIDDEN}
        return {**known, **settings}

    # --- ports -------------------------------------------------------------------------------------------------------

    def set_ports(self) -> None:
        """Links leave and join bridges, and take their settings as ports; then bridges get their MTU."""
        wanted_ports = {
            end._replace(interface=name): end.interface for end, _w, bridge in self._bridges() for name in bridge.ports
        }
        own = {end: wanted.path for end, wanted in self._planner.wanted_links() if wanted.kind}
        own |= {end: wire.path for end, wire in self._planner.wires.items()}
        for end, path in {**own, **self._planner.devices.ends()}.items():
            link = self._planner.state.link(end)
            if self._wanted.whole and link and link.master and end not in wanted_ports:
                self._leave(end, link, path)
        for end, wanted, bridge in self._bridges():
            self._set_own_vlans(end, wanted, bridge)
            links = self._planner.state.namespaces[end.namespace].links
            leaving = {name for name in bridge.absent_ports if name in links and links[name].master == end.interface}
            if bridge.purge:
                leaving |= {link.name for link in links.values() if link.master == end.interface} - bridge.ports.keys()
            for name in sorted(leaving):
                self._leave(end._replace(interface=name), links[name], wanted.path)
            for port in bridge.ports.values():
                self._set_port(end, bridge, port)
            count = sum(link.master == end.interface for link in links.values())
            if count > MAX_PORTS:
                text = f"the bridge {end} would have {count} ports; the kernel lets a bridge have {MAX_PORTS}"
                self._planner.problem(wanted.path, text)
        for end, wanted, _bridge in self._bridges():
            self._set_mtu(end, wanted)
            self._set_mac(end, wanted)

    def _leave(self, end: Endpoint, link: Link, path: str) -> None:
        self._planner.do(c.SetMaster(end, "", link.master, path))

    def _set_port(self, bridge_end: Endpoint, bridge: WantedBridge, port: WantedPort) -> None:
        planner, end = self._planner, bridge_end._replace(interface=port.name)
        links = planner.state.namespaces[end.namespace].links
        link = links.get(port.name)
        if link is None:
            hint = did_you_mean(port.name, links)
            text = f"there is no link {port.name!r} in the namespace {end.namespace}{hint}"
            planner.assume(port.path, text, end.namespace)
            links[port.name] = link = Link(port.name, 0, mtu=0)
        if link.kind in ("bridge", "loopback", "vrf", "ipvlan"):
            planner.problem(port.path, f"{end} is {article(link.kind)} device, which can be no port of a bridge")
            return
        if link.master and link.master != bridge_end.interface and not self._may_move(end, bridge):
            planner.problem(
                port.path,
                f"{end} is a port of the bridge {link.master} already; take it out there, or say "
                + ("'adopt: true'" if self._wanted.whole else "'move: true'"),
                FOREIGN,
            )
            return
        joins = link.master != bridge_end.interface
        if joins:
            remember = planner.remember("master", end, link.master, bridge_end.interface)
            settings_there = json.dumps([link.port, link.vlans]) if link.master else None
            more = planner.remember("port", end, settings_there, None) if settings_there else None
            planner.do(c.SetMaster(end, bridge_end.interface, link.master, port.path), remember, more)
        defaults = {**PORT_DEFAULTS, "cost": VETH_PORT_COST} if link.kind == "veth" else PORT_DEFAULTS
        settings = _differing(self._complete(port.settings, defaults, link.port), link.port)
        if settings:
            before = tuple((name, link.port[name]) for name, _value in settings if name in link.port and not joins)
            planner.do(c.SetPort(end, settings, before, port.path))
        vlans = port.vlans
        pvid = links[bridge_end.interface].bridge.get("vlan_default_pvid")
        if vlans is None and self._wanted.whole and pvid is not None:
            vlans = (Vlan(pvid, pvid=True, untagged=True),) if pvid else ()
        if vlans is not None and vlans != tuple(sorted(link.vlans)):
            master = links[bridge_end.interface]
            if master.index and pvid is None:
                planner.problem(f"{port.path}.vlans", NO_VLANS)
            planner.do(c.SetVlans(end, vlans, link.vlans, port.path))

    def _set_own_vlans(self, end: Endpoint, wanted: WantedLink, bridge: WantedBridge) -> None:
        """The VLANs that the bridge itself is in: what lies on it sends and gets their packets."""
        link = self._planner.state.namespaces[end.namespace].links[end.interface]
        lacks_vlans = bool(link.index) and "vlan_default_pvid" not in link.bridge
        vlans = bridge.vlans
        if vlans is None and self._wanted.whole and bridge.create and not lacks_vlans:
            vlans = default_vlans(link)
        if vlans is None or vlans == tuple(sorted(link.vlans)):
            return
        if lacks_vlans:
            self._planner.problem(f"{wanted.path}.vlans" if self._wanted.whole else "vlans", NO_VLANS)
        self._planner.do(c.SetVlans(end, vlans, link.vlans, wanted.path, of_bridge=True))

    def _may_move(self, end: Endpoint, bridge: WantedBridge) -> bool:
        own = bool(self._wanted.lab) and self._planner.is_ours(end)
        return bridge.move or self._wanted.adopt or own

    def _set_mtu(self, end: Endpoint, wanted: WantedLink) -> None:
        """Give a bridge its MTU after its ports, whose smallest it takes until it has been changed by itself.

        What the bridge is found with counts as well: only the kernel knows whether it was changed before.
        """
        planner = self._planner
        link, found = planner.state.namespaces[end.namespace].links[end.interface], planner.before.link(end)
        mtu = wanted.mtu
        if mtu is None and self._wanted.whole:
            mtu = smallest_mtu(planner.state, end)
        if mtu is None or (mtu == link.mtu and not (found and found.mtu != mtu)):
            return
        before = found.mtu if found else link.mtu
        remember = planner.remember("mtu", end, str(before), str(mtu))
        planner.do(c.SetLink(end, mtu=mtu, before=(before, None, None), path=wanted.path), remember)

    def mac_for(self, end: Endpoint) -> str:
        """The MAC for a new port that is to be the only one of which it is known: that of its bridge, if that is there.

        So the bridge keeps its own, be it one that follows the ports or one that was set once.
        """
        for bridge_end, wanted, bridge in self._bridges():
            link = self._planner.state.link(bridge_end)
            if end.namespace != bridge_end.namespace or end.interface not in bridge.ports or not link or not link.index:
                continue
            if not self._has_mac_of_port(bridge_end, wanted):
                return ""
            links = self._planner.state.namespaces[end.namespace].links
            known = any(name in links and links[name].mac for name in bridge.ports)
            is_taken = any(other.mac == link.mac for other in links.values() if other is not link)
            return "" if known or is_taken else link.mac
        return ""

    def _has_mac_of_port(self, end: Endpoint, wanted: WantedLink) -> bool:
        """Whether a bridge is to have the MAC of one of its ports.

        On the host udev may give it one of its own, some time after it was made: that is MACAddressPolicy=persistent,
        which systemd has for all bridges there (systemd.link(5)).
        """
        return self._wanted.whole and wanted.mac is None and end.namespace != HOST

    def _set_mac(self, end: Endpoint, wanted: WantedLink) -> None:
        """Give a bridge the MAC of a port: by itself it takes the lowest, until it has been changed.

        Only the kernel knows whether it was, and nothing but its end takes that back.
        """
        links = self._planner.state.namespaces[end.namespace].links
        link = links[end.interface]
        macs = sorted(port.mac for port in links.values() if port.master == end.interface and port.mac)
        if self._has_mac_of_port(end, wanted) and link.index and macs and link.mac not in macs:
            self._planner.do(c.SetLink(end, mac=macs[0], before=(None, link.mac, None), path=wanted.path))


def _differing(wanted: dict[str, int], there: dict[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple((name, value) for name, value in sorted(wanted.items()) if there.get(name) != value)
