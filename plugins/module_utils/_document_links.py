# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The links of a document: veths, and between two hosts VXLANs; and the network segments that they make.

Private to the collection: no stable interface.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from ._document_hosts import VNIS, Hosts, Part, vni_of
from ._document_impairments import read_impairment
from ._errors import article
from ._findings import Finding, bridge_loops
from ._impairment import NO_IMPAIRMENT
from ._kinds import STACKED, TAG_SIZE, Setting, kind
from ._model import (
    DEFAULT_MTU,
    HOST,
    IPV6_MIN_MTU,
    Endpoint,
    IPAddress,
    Span,
    Wanted,
    WantedImpairment,
    WantedLink,
    WantedNamespace,
    Wire,
)
from ._reader import Reader, suggestion


class Place(NamedTuple):
    """An interface of a document: that of a namespace of a host."""

    host: str
    end: Endpoint

    def __str__(self) -> str:
        return f"{self.host}/{self.end}" if self.host else str(self.end)


class Crossing(NamedTuple):
    """A link between two hosts. ``vni``: 0 if the document says none."""

    ends: tuple[Place, Place]
    path: str
    vni: int


def read_links(reader: Reader, value: Any, parts: Mapping[str, Part], hosts: Hosts) -> list[Crossing]:
    """Put the links into the parts; returns those that cross from one to another."""
    used: dict[Place, str] = {}
    crossings: list[Crossing] = []
    for i, item in enumerate(reader.sequence(value, "links")):
        path = f"links[{i}]"
        body = reader.mapping(item, path, ("endpoints", "impairment", "vni"))
        if not isinstance(item, Mapping):
            continue
        ends = reader.sequence(body.get("endpoints"), f"{path}.endpoints")
        if len(ends) != 2:
            if "endpoints" in body and isinstance(body["endpoints"], (list, tuple)):
                reader.problem(f"{path}.endpoints", f"a link has two ends, not {len(ends)}")
            elif "endpoints" not in body:
                reader.problem(f"{path}.endpoints", 'is missing: the two ends, such as ["a:eth0", "b:eth0"]')
            continue
        read = [_endpoint(reader, end, f"{path}.endpoints[{j}]", parts, hosts, used) for j, end in enumerate(ends)]
        vni = reader.integer(body["vni"], f"{path}.vni", *VNIS) if body.get("vni") is not None else 0
        if not (read[0] and read[1]):
            continue
        if read[0].host == read[1].host:
            parts[read[0].host].wanted.wires.append(Wire((read[0].end, read[1].end), path))
            if vni:
                where = f"both ends of this one are on {read[0].host}" if read[0].host else "this one is on one host"
                reader.problem(f"{path}.vni", f"is the number of a link between two hosts, and {where}; leave it out")
        else:
            crossings.append(Crossing((read[0], read[1]), path, vni))
        _impair(reader, body.get("impairment"), f"{path}.impairment", parts, (read[0], read[1]))
    _make_tunnels(reader, parts, hosts, crossings)
    return crossings


def _link_at(parts: Mapping[str, Part], place: Place) -> WantedLink:
    """What the document says of an interface, to be filled in if that is nothing yet."""
    namespace = parts[place.host].wanted.namespaces[place.end.namespace]
    name = place.end.interface
    return namespace.links.setdefault(name, WantedLink(name, f"{namespace.path}.interfaces.{name}"))


def _impair(reader: Reader, value: Any, path: str, parts: Mapping[str, Part], ends: tuple[Place, Place]) -> None:
    """What both ends of a link do to what they send."""
    impairment = read_impairment(reader, value, path)
    for place in ends if impairment else ():
        link = _link_at(parts, place)
        if link.impairment:
            text = f"is of both ends, and that of {place} is at {link.impairment.path}, too; say it in one place"
            reader.problem(path, text)
        link.impairment = impairment


def _endpoint(
    reader: Reader, value: Any, path: str, parts: Mapping[str, Part], hosts: Hosts, used: dict[Place, str]
) -> Place | None:
    text = reader.string(value, path)
    if not isinstance(value, str):
        return None
    placed = hosts.place(reader, text, path)
    if placed is None:
        return None
    host, rest = placed
    namespace, colon, interface = rest.partition(":")
    if not colon or not namespace or not interface:
        where, example = ("host/", "vm1/server:eth0") if host else ("", "server:eth0")
        reader.problem(path, f"{text!r} is no endpoint: write {where}namespace:interface, such as {example}")
        return None
    before = len(reader.problems)
    reader.name_of_namespace(namespace, path)
    reader.name_of_interface(interface, path)
    if len(reader.problems) > before:
        return None
    wanted = parts[host].wanted
    if namespace == HOST:
        wanted.namespaces.setdefault(
            HOST, WantedNamespace(HOST, f"namespaces.{host}/host" if host else "namespaces.host")
        )
    if namespace not in wanted.namespaces:
        where = f"on {host}" if host else "in the topology"
        reader.problem(path, f"there is no namespace {namespace!r} {where}{suggestion(namespace, wanted.namespaces)}")
        return None
    place = Place(host, Endpoint(namespace, interface))
    problem = _no_end(text, place, wanted.namespaces[namespace].links.get(interface), used)
    if problem:
        reader.problem(path, problem)
        return None
    used[place] = path
    return place


def _no_end(text: str, place: Place, link: WantedLink | None, used: Mapping[Place, str]) -> str:
    """Why an interface can be no end of a link; empty if it can."""
    if place.end.interface == "lo":
        return f"{text!r}: lo is every namespace's own loopback, no end of a link"
    if place in used:
        return f"{text!r} is an end of two links: it is at {used[place]} already"
    if link and link.bridge:
        return f"{text!r} is a bridge, at {link.path}, and no end of a link; links end in its ports"
    if link and link.device:
        return f"{text!r} is a device of the host, at {link.path}.device, and no end of a link, which is made anew"
    if link and link.kind:
        return f"{text!r} is {article(link.kind.name)}, at {link.kind_path}, and no end of a link"
    return ""


def span_of(host: str, parts: Mapping[str, Part], crossings: Sequence[Crossing], hosts: Hosts) -> Span:
    """What a host knows of the others."""
    own = [crossing for crossing in crossings if host in (crossing.ends[0].host, crossing.ends[1].host)]
    found = [
        (finding.code, finding.path, finding.text)
        for finding in far_findings(parts, crossings)
        if any(finding.path == crossing.path for crossing in own)
    ]
    address = hosts.addresses[host] if own else ""
    return Span(host, tuple(sorted(hosts.addresses)), address, hosts.underlay_mtu, tuple(found))


def far_findings(parts: Mapping[str, Part], crossings: Sequence[Crossing]) -> Iterator[Finding]:
    """What the hosts cannot see each by itself: rings of bridges over several, and ends with different MTUs."""
    whole = Wanted()
    for host, part in parts.items():
        for namespace in part.wanted.namespaces.values():
            name = f"{host}/{namespace.name}"
            whole.namespaces[name] = replace(namespace, name=name)
        whole.wires += [
            wire._replace(ends=(_far(host, wire.ends[0]), _far(host, wire.ends[1]))) for wire in part.wanted.wires
        ]
    for crossing in crossings:
        one, other = crossing.ends
        whole.wires.append(Wire((_far(*one), _far(*other)), crossing.path))
        mtus = [_link_at(parts, place).mtu for place in crossing.ends]
        if mtus[0] != mtus[1]:
            text = f"its ends have different MTUs, {mtus[0]} at {one} and {mtus[1]} at {other}; larger packets are lost"
            yield Finding("mtu-mismatch", crossing.path, text)
    yield from bridge_loops(whole)


def _far(host: str, end: Endpoint) -> Endpoint:
    return Endpoint(f"{host}/{end.namespace}", end.interface)


def complete_ends(reader: Reader, parts: Mapping[str, Part], crossings: Sequence[Crossing], hosts: Hosts) -> None:
    """An end of a link is the lab's own: up, with no addresses and the usual MTU, unless the document says more.

    On a network segment that spans hosts, the usual MTU is what gets through to the others: on a bridge nobody would
    tell the sender of a larger packet that it does not.
    """
    crossed = {place for crossing in crossings for place in crossing.ends}
    wired = [Place(host, end) for host, part in parts.items() for wire in part.wanted.wires for end in wire.ends]
    tags = _tags(parts, crossings)
    for place in [*wired, *crossed]:
        link = _link_at(parts, place)
        link.up = True if link.up is None else link.up
        if link.mtu is None:
            link.mtu = hosts.mtu - tags[place] if place in tags else DEFAULT_MTU
        link.impairment = link.impairment or WantedImpairment(NO_IMPAIRMENT, link.path)
        link.purge = True
    for place, size in tags.items():
        # What lies on a link of the host may lie on one of which the document says nothing.
        namespace = parts[place.host].wanted.namespaces.get(place.end.namespace)
        said = namespace.links.get(place.end.interface) if namespace else None
        if said is None:
            continue
        lower = said.kind.link if said.kind and said.kind.name == "vlan" else None
        if said.mtu is None and lower:
            below = _least_mtu(parts[place.host].wanted, lower)
            said.mtu = min(below, hosts.mtu - size) if below else None
        if said.mtu is not None and said.mtu > hosts.mtu - size:
            text = (
                f"{said.mtu} is more than gets through to the other hosts on its network segment, {hosts.mtu - size}: "
                f"VXLAN takes {hosts.headroom} of the MTU {hosts.underlay_mtu} ('underlay.mtu') between them"
            )
            reader.problem(f"{said.path}.mtu", text + (f", and tags {size}" if size else ""))
        if said.mtu is not None and said.mtu < IPV6_MIN_MTU:
            _refuse_ipv6(reader, said, said.mtu, hosts)


def _refuse_ipv6(reader: Reader, link: WantedLink, mtu: int, hosts: Hosts) -> None:
    """On all hosts alike, where the MTU follows from what is between them; what says its MTU was refused already."""
    refused = {problem.path for problem in reader.problems}
    for item in link.addresses:
        if item.value.family == 6 and item.path not in refused:
            text = (
                f"{item.value.address!r} is an IPv6 address, but {mtu} bytes get through to the other hosts: IPv6 "
                f"needs at least {IPV6_MIN_MTU}, and VXLAN takes {hosts.headroom} of the MTU {hosts.underlay_mtu} "
                "('underlay.mtu')"
            )
            reader.problem(item.path, text)


def _least_mtu(wanted: Wanted, end: Endpoint) -> int:
    """The MTU that an interface will have by the document, or a bridge of its ports; 0 if the host knows better."""
    links = wanted.namespaces[end.namespace].links if end.namespace in wanted.namespaces else {}
    link = links.get(end.interface)
    if link and link.bridge and link.mtu is None:
        return min((_least_mtu(wanted, end._replace(interface=port)) for port in link.bridge.ports), default=0)
    return (link and link.mtu) or 0


def _tags(parts: Mapping[str, Part], crossings: Sequence[Crossing]) -> dict[Place, int]:
    """The interfaces whose packets go to other hosts, and what the tags of VLANs take of these there.

    A packet is as large without its tag as an interface says, and the tunnel has to hold it with that.
    """
    beside: dict[Place, list[Place]] = {}
    for segment in _segments(parts, crossings):
        beside.update(dict.fromkeys(segment, segment))
    lying: dict[Place, list[tuple[Place, int]]] = {}
    for host, part in parts.items():
        for upper, lower, is_vlan in _stacked(part.wanted):
            lying.setdefault(Place(host, lower), []).append((Place(host, upper), is_vlan))
            lying.setdefault(Place(host, upper), []).append((Place(host, lower), 0))
    trunks = {Place(host, end) for host, part in parts.items() for end in _trunks(part.wanted)}
    found: dict[Place, int] = {}
    for crossing in crossings:
        # How many tags there are by the VLANs that lie there, and at least: a bridge may give one.
        at_least = 1 if any(place in trunks for place in beside[crossing.ends[0]]) else 0
        reached = [(place, 0) for place in crossing.ends]
        for place, depth in reached:  # It grows meanwhile.
            if place in found:
                continue
            for other in beside.get(place, [place]):
                found[other] = TAG_SIZE * max(depth, at_least)
                reached += [(upper, depth + more) for upper, more in lying.get(other, ()) if upper not in found]
    return found


# --- between hosts ---------------------------------------------------------------------------------------------------


def _make_tunnels(reader: Reader, parts: Mapping[str, Part], hosts: Hosts, crossings: Sequence[Crossing]) -> None:
    """Make the ends of links between hosts VXLANs of one number, each of which sends to the other's host."""
    places: dict[int, str] = {}
    for crossing in crossings:
        if crossing.vni in places:
            reader.problem(f"{crossing.path}.vni", f"{crossing.vni} is at {places[crossing.vni]}.vni, too")
        if crossing.vni:
            places[crossing.vni] = crossing.path
    # Those that the document gives to VXLANs of its own are not chosen either.
    taken = {*places, *_own_numbers(parts)}
    # In an order that does not follow that of the document.
    for crossing in sorted(crossings, key=lambda crossing: sorted(map(str, crossing.ends))):
        vni = crossing.vni
        if not vni:
            one, other = crossing.ends
            vni = vni_of(parts[one.host].wanted.lab, (str(one), str(other)), taken)
            taken.add(vni)
        for near, far in (crossing.ends, crossing.ends[::-1]):
            said: dict[str, Setting] = {
                "id": vni,
                "local": hosts.addresses[near.host],
                "remote": hosts.addresses[far.host],
                "dstport": hosts.dstport,
                # There is one host to send to; nobody shall be able to name another one.
                "learning": False,
            }
            link = _link_at(parts, near)
            # Its packets go by the host's network, whatever namespace it is in.
            link.kind = kind("vxlan", said, None, "" if near.end.namespace == HOST else HOST)
            link.kind_path = crossing.path


def _own_numbers(parts: Mapping[str, Part]) -> Iterator[int]:
    for part in parts.values():
        for namespace in part.wanted.namespaces.values():
            for link in namespace.links.values():
                if link.kind and link.kind.name == "vxlan":
                    yield int(link.kind.get("id"))


# --- network segments ------------------------------------------------------------------------------------------------


def check_layer2(reader: Reader, parts: Mapping[str, Part], crossings: Sequence[Crossing] = ()) -> None:
    """No two interfaces that share a network segment, by links and bridges, have the same address."""
    for segment in _segments(parts, crossings, apart=True):
        first: dict[IPAddress, str] = {}
        for place in segment:
            link = parts[place.host].wanted.namespaces[place.end.namespace].links.get(place.end.interface)
            for item in link.addresses if link else ():
                if first.setdefault(item.value.ip.ip, item.path) != item.path:
                    reader.problem(
                        item.path,
                        f"{item.value.ip.ip} is at {first[item.value.ip.ip]} too, on the same network segment; "
                        "an address is there once per network segment",
                    )


def _segments(parts: Mapping[str, Part], crossings: Sequence[Crossing], apart: bool = False) -> Iterator[list[Place]]:
    """The interfaces that share a network segment, in the document's order.

    ``apart``: bridges that keep VLANs apart join none, as who hears whom there is nothing to be sure of.
    """
    joined: dict[Place, list[Place]] = {}
    pairs: list[tuple[Place, Place]] = []
    for host, part in parts.items():
        pairs += [(Place(host, wire.ends[0]), Place(host, wire.ends[1])) for wire in part.wanted.wires]
        pairs += [(Place(host, one), Place(host, other)) for one, other in _bridged(part.wanted, apart)]
    pairs += [crossing.ends for crossing in crossings]
    for one, other in pairs:
        joined.setdefault(one, []).append(other)
        joined.setdefault(other, []).append(one)
    seen: set[Place] = set()
    for start in joined:
        segment = [] if start in seen else [start]
        seen.add(start)
        for place in segment:  # It grows meanwhile.
            segment += [other for other in dict.fromkeys(joined[place]) if other not in seen]
            seen.update(joined[place])
        if segment:
            yield segment


def _stacked(wanted: Wanted) -> Iterator[tuple[Endpoint, Endpoint, int]]:
    """What lies on a link, that, and how many tags it gives."""
    for namespace in wanted.namespaces.values():
        for link in namespace.links.values():
            if link.kind and link.kind.link and link.kind.name in STACKED:
                yield Endpoint(namespace.name, link.name), link.kind.link, int(link.kind.name == "vlan")


def _trunks(wanted: Wanted) -> Iterator[Endpoint]:
    """The ports of bridges by which packets go with a tag."""
    for namespace in wanted.namespaces.values():
        for link in namespace.links.values():
            if link.bridge and link.bridge.settings.get("vlan_filtering"):
                for port in link.bridge.ports.values():
                    if any(not vlan.untagged for vlan in port.vlans or ()):
                        yield Endpoint(namespace.name, port.name)


def _bridged(wanted: Wanted, apart: bool) -> Iterator[tuple[Endpoint, Endpoint]]:
    for namespace in wanted.namespaces.values():
        for link in namespace.links.values():
            bridge = Endpoint(namespace.name, link.name)
            joins = link.bridge and not (apart and link.bridge.settings.get("vlan_filtering"))
            for port in link.bridge.ports if link.bridge and joins else ():
                yield bridge, bridge._replace(interface=port)
