# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Topology documents for tests: the labs, and generated ones.

The generated ones are drawn from a small pool of names, wires and addresses, so that any two of them have much in
common and the way from one to the other is full of changes in place.
"""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

Document = dict[str, Any]

_ROUTED: Document = {
    "name": "routed",
    "namespaces": {
        "server": {
            "interfaces": {"lo": {"addresses": ["1.1.1.1/24"]}, "vethS": {"addresses": ["10.0.1.2/24"]}},
            "routes": [{"to": "default", "via": "10.0.1.1"}],
        },
        "router": {
            "sysctls": {"net.ipv4.ip_forward": 1},
            "interfaces": {"veth-srv": {"addresses": ["10.0.1.1/24"]}, "veth-cli": {"addresses": ["10.0.2.1/24"]}},
            "routes": [{"to": "1.1.1.0/24", "via": "10.0.1.2"}, {"to": "2.2.2.0/24", "via": "10.0.2.2"}],
        },
        "client": {
            "interfaces": {"vethC": {"addresses": ["10.0.2.2/24"]}, "lo": {"addresses": ["2.2.2.2/24"]}},
            "routes": [{"to": "default", "via": "10.0.2.1"}],
        },
    },
    "links": [{"endpoints": ["server:vethS", "router:veth-srv"]}, {"endpoints": ["client:vethC", "router:veth-cli"]}],
}


def routed() -> Document:
    """The routed lab, to be changed at will."""
    return copy.deepcopy(_ROUTED)


_NAMESPACES = ("a", "b", "c", "d")

#: Wires that may be laid. Some share an end, so that a document has at most one of them.
_WIRES = (
    ("a:e0", "b:e0"),
    ("b:e1", "c:e0"),
    ("c:e1", "a:e1"),
    ("host:h0", "a:e2"),
    ("b:e2", "b:e3"),
    ("a:e0", "c:e2"),
    ("host:h1", "d:e0"),
    ("host:h0", "c:e3"),
)


#: The same for larger documents: twelve namespaces, a ring of wires with chords, and some to the host.
_MANY_NAMESPACES = tuple("abcdefghijkl")
_MANY_WIRES = (
    *_WIRES,
    *((f"{one}:e4", f"{other}:e5") for one, other in zip("cdefghijkl", "defghijkla")),
    *((f"{one}:e6", f"{other}:e6") for one, other in zip("abcdef", "ghijkl")),
    ("host:h2", "g:e0"),
    ("host:h3", "h:e0"),
    ("e:e0", "k:e0"),
)


def across(document: Document, hosts: dict[str, str], usual: str) -> Document:
    """A document with its namespaces on hosts, ``usual`` for those that ``hosts`` does not name. It lacks ``hosts``."""

    def placed(text: str) -> str:
        return f"{hosts.get(text.partition(':')[0], usual)}/{text}"

    links = [{**link, "endpoints": [placed(end) for end in link["endpoints"]]} for link in document.get("links", ())]
    return {
        **document,
        "namespaces": {placed(name): body for name, body in document["namespaces"].items()},
        "links": links,
        "probes": [{**probe, "from": placed(probe["from"])} for probe in document.get("probes", ())],
    }


@st.composite
def documents(
    draw: st.DrawFn,
    name: str = "lab",
    many: bool = False,
    most: int | None = None,
    devices: tuple[str, ...] = (),
    kinds: tuple[str, ...] = (),
    impairments: bool = False,
) -> Document:
    """A valid topology document that the kernel takes.

    It is of up to four namespaces, or ``most``. ``many``: of up to twelve, with more wires between them. ``devices``:
    those of the host that some of the namespaces may get. ``kinds``: those of links besides veths and bridges.
    ``impairments``: the kernel has netem.
    """
    all_names, all_wires = (_MANY_NAMESPACES, _MANY_WIRES) if many else (_NAMESPACES, _WIRES)
    names = draw(st.lists(st.sampled_from(all_names), unique=True, max_size=most or len(all_names)))
    wires = []
    used: set[str] = set()
    for number in draw(st.permutations(range(len(all_wires)))):
        ends = all_wires[number]
        known = all(end.split(":")[0] in (*names, "host") for end in ends)
        if known and not used & set(ends) and draw(st.booleans()):
            used |= set(ends)
            wires.append((number, ends))
    namespaces: dict[str, Any] = {name: {"interfaces": {}, "routes": [], "sysctls": {}} for name in (*names, "host")}
    for number, ends in wires:
        v6 = draw(st.booleans())
        mtu = draw(st.sampled_from((None, 1400, 9000) if v6 else (None, 1400, 1200)))
        for side, end in enumerate(ends):
            namespace, interface = end.split(":")
            namespaces[namespace]["interfaces"][interface] = draw(_interfaces(number, side, v6, mtu))
    for namespace in names:
        namespaces[namespace]["interfaces"]["lo"] = {"addresses": draw(_subset(["192.0.2.1/32", "192.0.2.9/24"]))}
        namespaces[namespace]["sysctls"] = draw(_sysctls(used, namespace))
        namespaces[namespace].update(draw(st.sampled_from(({}, {}, {"hostname": "one"}, {"hostname": "two.example"}))))
    _add_devices(draw, namespaces, names, devices)
    _add_vrfs(draw, namespaces, used, kinds)
    for number, ends in wires:
        for side, end in enumerate(ends):
            _add_routes(draw, namespaces, number, side, end)
    for where, body in namespaces.items():
        subnet = (*_MANY_NAMESPACES, "host").index(where)
        ports = [end.partition(":")[2] for end in sorted(used) if end.startswith(f"{where}:")]
        members = [name for link in body["interfaces"].values() for name in link.get("vrf", {}).get("interfaces", ())]
        body["bridges"] = draw(_bridges(subnet, body["interfaces"], [port for port in ports if port not in members]))
    _open_rings(namespaces, [ends for _number, ends in wires])
    _add_kinds(draw, namespaces, kinds)
    for namespace in names:
        draw_more = [{"to": "198.51.100.0/24", "type": "blackhole"}, {"to": "2001:db8:f::/48", "type": "unreachable"}]
        draw_more.append({"to": "203.0.113.0/24", "type": "prohibit", "metric": 7, "table": 77})
        namespaces[namespace]["routes"] += draw(_subset(draw_more))
    links: list[Document] = [{"endpoints": list(ends)} for _number, ends in wires]
    _add_impairments(draw, namespaces, links if impairments else [])
    for body in namespaces.values():
        _add_rules(draw, body)
        _add_nat(draw, body)
        body["routes"] = _without_twins(draw(st.permutations(body["routes"])))
    if not any(namespaces["host"].values()):
        del namespaces["host"]
    return {"name": name, "namespaces": namespaces, "links": links}


#: Without loss, which would keep IPv6 from seeing whose addresses are.
_IMPAIRMENTS: list[Document] = [
    {"delay": "1ms"},
    {"delay": "1ms", "jitter": "200us", "duplicate": "0.1%"},
    {"delay": "2ms", "reorder": "10%", "limit": 2000},
    {"rate": "10gbit"},
    {"corrupt": "0.001%"},
]


def _add_impairments(draw: st.DrawFn, namespaces: dict[str, Any], links: list[Document]) -> None:
    for link in links:
        how = draw(st.integers(0, 3))
        if how == 0:
            link["impairment"] = draw(st.sampled_from(_IMPAIRMENTS))
        elif how == 1:
            namespace, interface = draw(st.sampled_from(link["endpoints"])).split(":")
            namespaces[namespace]["interfaces"][interface]["impairment"] = draw(st.sampled_from(_IMPAIRMENTS))


def _add_devices(draw: st.DrawFn, namespaces: dict[str, Any], names: list[str], devices: tuple[str, ...]) -> None:
    for number, device in enumerate(devices if names else ()):
        if draw(st.booleans()):
            interfaces = namespaces[draw(st.sampled_from(names))]["interfaces"]
            addresses = draw(_subset([f"10.77.{number}.1/24", f"10.77.{number}.9/24"]))
            optional = {"mtu": st.sampled_from((1400, 1450)), "up": st.booleans()}
            more = draw(st.fixed_dictionaries({}, optional=optional))
            inner = draw(st.sampled_from([f"w{number}", f"x{number}", "e7"]))
            interfaces.setdefault(inner, {"device": {"name": device}, "addresses": addresses, **more})


def _add_vrfs(draw: st.DrawFn, namespaces: dict[str, Any], used: set[str], kinds: tuple[str, ...]) -> None:
    """VRFs with some of the ends of wires, which have their routes in the VRF's table then."""
    for number, (where, body) in enumerate(namespaces.items()):
        if "vrf" not in kinds or draw(st.integers(0, 2)):
            continue
        ends = [end.partition(":")[2] for end in sorted(used) if end.startswith(f"{where}:")]
        members = draw(_subset(ends))
        table = draw(st.sampled_from((1001, 1002)))
        body["interfaces"][f"red{number % 2}"] = {
            "vrf": {"table": table, "interfaces": members},
            "addresses": draw(_subset([f"10.67.{number}.1/32"])),
        }


def _add_kinds(draw: st.DrawFn, namespaces: dict[str, Any], kinds: tuple[str, ...]) -> None:
    """Links that lie on others, or on none."""
    free = [kind for kind in kinds if kind != "vrf"]
    taken: set[Any] = set()
    modes = {kind: draw(st.sampled_from(("bridge", "private") if kind == "macvlan" else ("l2", "l3"))) for kind in free}
    for number in range(draw(st.integers(0, 4)) if free else 0):
        kind = draw(st.sampled_from(free))
        where = draw(st.sampled_from(list(namespaces)))
        lower = draw(st.sampled_from(_lowers(namespaces, where, kind) or [None]))
        name = f"k{draw(st.integers(0, 2))}"
        if name in namespaces[where]["interfaces"] or (lower is None and kind not in ("dummy", "vxlan")):
            continue
        full = lower if lower is None or ":" in lower else f"{where}:{lower}"
        settings: Any = True
        if kind == "vlan":
            settings = {"link": lower, "id": draw(st.sampled_from((10, 20)))}
        elif kind in ("macvlan", "ipvlan"):
            settings = {"link": lower, "mode": modes[kind]}
        elif kind == "vxlan":
            settings = {"id": draw(st.integers(5, 7)), "remote": f"10.{number}.0.99"}
            settings |= {"link": lower} if lower and draw(st.booleans()) else {}
            full = full if "link" in settings else None
            settings |= draw(st.sampled_from(({}, {"dstport": 8472}, {"learning": False})))
        # What the kernel has once, and what does not share a link.
        underlay = full.partition(":")[0] if full else where
        identity = {"vlan": (full, settings is not True and settings.get("id")), "vxlan": (underlay,)}.get(kind)
        others = {"macvlan": ("ipvlan", full), "ipvlan": ("macvlan", full)}.get(kind)
        if (identity and (kind, identity) in taken) or others in taken:
            continue
        taken |= {(kind, full), (kind, identity) if identity else None}
        body: Document = {kind: settings, "addresses": draw(_subset([f"10.68.{number}.1/24", f"10.68.{number}.2/24"]))}
        if draw(st.integers(0, 5)) == 0 or (full and _is_down(namespaces, full)):
            body["up"] = False
        if kind in ("dummy", "vxlan") and full is None and draw(st.booleans()):
            body["mtu"] = draw(st.sampled_from((1300, 1400)))
        namespaces[where]["interfaces"][name] = body


def _lowers(namespaces: dict[str, Any], where: str, kind: str) -> list[str]:
    """What a link of a kind may lie on: in its own namespace, or elsewhere."""
    found = []
    for name, body in namespaces.items():
        ports = {port for bridge in body["bridges"].values() for port in bridge["ports"]}
        for interface, link in {**body["interfaces"], **body["bridges"]}.items():
            is_stacked = any(other in link for other in ("vlan", "macvlan", "ipvlan", "vxlan", "vrf"))
            if interface == "lo" or is_stacked or (kind in ("macvlan", "ipvlan") and interface in ports):
                continue
            found.append(interface if name == where else f"{name}:{interface}")
    return found


def _is_down(namespaces: dict[str, Any], end: str) -> bool:
    where, _colon, name = end.partition(":")
    body = namespaces[where]
    return {**body["interfaces"], **body["bridges"]}[name].get("up") is False


def _subset(items: list[Any]) -> st.SearchStrategy[list[Any]]:
    if not items:
        return st.just([])
    return st.lists(st.sampled_from(range(len(items))), unique=True).map(lambda picks: [items[i] for i in picks])


@st.composite
def _interfaces(draw: st.DrawFn, number: int, side: int, v6: bool, mtu: int | None) -> Document:
    pool: list[Any] = [f"10.{number}.0.{1 + side}/24", f"10.{number}.0.{11 + side}/24", f"10.{number}.9.{1 + side}/30"]
    addresses: list[Any] = draw(_subset(pool)) or pool[:1]
    if draw(st.integers(0, 9)) == 0:
        addresses = [{"address": f"10.{number}.0.{1 + side}/16", "noprefixroute": draw(st.booleans())}]
    if v6:
        one = f"fd00:{number}::{1 + side}"
        addresses.append({"address": f"{one}/{draw(st.sampled_from((64, 48)))}", "nodad": True})
        if draw(st.booleans()):
            more = {"address": f"fd00:{number}:1::{1 + side}/64", "nodad": True}
            addresses.append(draw(st.sampled_from([more, {**more, "preferred_lft": 0}])))
    body: Document = {"addresses": addresses}
    if mtu:
        body["mtu"] = mtu
    if draw(st.integers(0, 9)) == 0:
        body["up"] = False
    return body


@st.composite
def _bridges(draw: st.DrawFn, subnet: int, interfaces: Document, ends: list[str]) -> Document:
    return {"br0": draw(_bridge(subnet, interfaces, ends))} if draw(st.integers(0, 2)) == 0 else {}


def _open_rings(namespaces: dict[str, Any], wires: list[tuple[str, ...]]) -> None:
    """Leave no ring of bridges: what goes round in one for ever leaves no time for anything else."""
    sea = {name: name for name in namespaces}
    for wire in wires:
        one, other = (end.split(":") for end in wire)
        ports = [body["ports"] for name, _end in (one, other) for body in namespaces[name]["bridges"].values()]
        if len(ports) < 2 or one[1] not in ports[0] or other[1] not in ports[1]:
            continue
        if ports[0][one[1]].get("hairpin"):
            # Two such send each other back what they get, for ever.
            ports[1][other[1]].pop("hairpin", None)
        if sea[one[0]] == sea[other[0]]:
            del ports[0][one[1]]
        else:
            joined = sea[one[0]]
            sea = {name: sea[other[0]] if home == joined else home for name, home in sea.items()}


@st.composite
def _bridge(draw: st.DrawFn, subnet: int, interfaces: Document, ends: list[str]) -> Document:
    ports = {}
    for end in draw(_subset(ends)):
        ports[end] = draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "cost": st.sampled_from((2, 7, 100)),
                    "priority": st.sampled_from((0, 32, 63)),
                    "hairpin": st.booleans(),
                    "learning": st.booleans(),
                    "isolated": st.booleans(),
                    "mcast_flood": st.booleans(),
                },
            )
        )
    body = draw(
        st.fixed_dictionaries(
            {"ports": st.just(ports)},
            optional={
                "stp": st.booleans(),
                "ageing_time": st.sampled_from((0, 1.5, 300)),
                "forward_delay": st.sampled_from((2, 15)),
                "multicast_snooping": st.booleans(),
                "group_fwd_mask": st.sampled_from((0, 16384)),
                "mac": st.just(f"02:00:00:00:00:b{subnet:x}"),
                "mtu": st.sampled_from((1300, 1500)),
                "up": st.booleans(),
            },
        )
    )
    if body.get("stp"):
        # A spanning tree hides them at times, so that a moment decides whether another value is seen and changed.
        body |= {"ageing_time": 300, "forward_delay": 2}
    small = [1500] if "mtu" in body else [interfaces[name].get("mtu", 1500) for name in ports]
    pool: list[Any] = [f"10.200.{subnet}.1/24", f"10.200.{subnet}.2/24"]
    if min(small, default=1500) >= 1280:
        pool.append({"address": f"fd00:200:{subnet}::1/64", "nodad": True})
    return {**body, "addresses": draw(_subset(pool))}


@st.composite
def _sysctls(draw: st.DrawFn, used: set[str], namespace: str) -> Document:
    found: Document = {}
    for key, values in (
        ("net.ipv4.ip_forward", (0, 1)),
        ("net.ipv6.conf.all.forwarding", (0, 1)),
        ("net.ipv4.conf.all.rp_filter", (0, 2)),
        ("net.ipv4.icmp_echo_ignore_all", (0, 1)),
    ):
        if draw(st.booleans()):
            found[key] = draw(st.sampled_from(values))
    for end in sorted(used):
        name, interface = end.split(":")
        if name == namespace and draw(st.integers(0, 3)) == 0:
            found[f"net.ipv4.conf.{interface}.forwarding"] = draw(st.sampled_from((0, 1)))
    return found


def _texts(body: Document, family: str) -> list[str]:
    texts = [item["address"] if isinstance(item, dict) else item for item in body["addresses"]]
    plain = [
        text
        for text, item in zip(texts, body["addresses"])
        if not dict(item if isinstance(item, dict) else {}).get("noprefixroute")
    ]
    return [text for text in plain if (":" in text) == (family == "6")]


def _add_routes(draw: st.DrawFn, namespaces: dict[str, Any], number: int, side: int, end: str) -> None:
    """Routes through one end of a wire, such as the kernel takes: the link is up, its gateway connected."""
    namespace, interface = end.split(":")
    body = namespaces[namespace]["interfaces"][interface]
    others = namespaces[namespace]["interfaces"].values()
    if body.get("up") is False or any(interface in link.get("vrf", {}).get("interfaces", ()) for link in others):
        return
    routes = namespaces[namespace]["routes"]
    v4 = [text for text in _texts(body, "4") if text.startswith(f"10.{number}.0.")]
    metric = draw(st.sampled_from((None, 50)))
    more = {"metric": 100 + number if metric is None or namespace == "host" else metric + number}
    pool: list[Document] = []
    if v4:
        own = v4[0].split("/")[0]
        pool.append({"to": f"172.16.{number}.0/24", "via": f"10.{number}.0.77"})
        pool.append({"to": f"172.16.{number}.0/24", "via": f"10.{number}.0.78", "dev": interface, "mtu": 1300})
        pool.append({"to": f"172.17.{number}.0/24", "via": f"10.{number}.0.77", "src": own, **more})
        pool.append({"to": f"172.18.{number}.0/24", "dev": interface, "table": 100 + number})
        hops = [{"via": f"10.{number}.0.{host}", "weight": weight} for host, weight in ((77, 1), (78, 3))]
        pool.append({"to": f"172.16.{number}.0/24", "nexthops": hops})
        if namespace != "host":
            pool.append({"to": "default", "via": f"10.{number}.0.77", **more})
    pool.append({"to": f"172.19.{number}.0/24", "via": "10.99.9.9", "dev": interface, "onlink": True})
    pool.append({"to": f"10.88.{number}.1/32", "dev": interface})
    pool.append({"to": f"172.20.{number}.0/24", "via": f"10.88.{number}.1"})
    if _texts(body, "6"):
        gateway = f"fd00:{number}::77"
        pool.append({"to": f"2001:db8:{number}::/48", "via": gateway})
        pool.append({"to": f"2001:db8:{number}::/48", "via": f"fd00:{number}::78", "dev": interface})
        pool.append({"to": f"2001:db8:{number}::/48", "dev": interface, "metric": 9})
        pool.append({"to": f"2001:db8:{number}:1::/64", "nexthops": [{"via": gateway}, {"via": f"fd00:{number}::79"}]})
        pool.append({"to": f"2001:db8:{number}:1::/64", "type": "blackhole"})
        if namespace != "host":
            pool.append({"to": "default", "via": "fe80::1", "dev": interface, **more})
    chosen = draw(_subset(pool))
    if {"to": f"172.20.{number}.0/24", "via": f"10.88.{number}.1"} in chosen:
        chosen.append({"to": f"10.88.{number}.1/32", "dev": interface})
    routes += chosen


#: Policy rules, some of which have one priority, where their order counts. Some say less than others: by what they say
#: the kernel takes others for them.
_RULES: list[Document] = [
    {"priority": 100, "from": "10.0.0.0/8", "table": 100},
    {"priority": 100, "from": "10.0.0.0/8", "iif": "e0", "table": 100},
    {"priority": 100, "from": "10.0.0.0/8", "iif": "e0", "table": 100, "not": True},
    {"priority": 100, "table": 100},
    {"priority": 100, "to": "172.16.0.0/12", "table": "default"},
    {"priority": 100, "to": "2001:db8::/32", "table": 300},
    {"priority": 110, "fwmark": "0x1/0xff", "type": "prohibit"},
    {"priority": 110, "fwmark": 7, "oif": "e1", "family": "ipv6", "type": "blackhole"},
    {"priority": 120, "table": "main", "suppress_prefixlength": 0},
    {"priority": 120, "table": "main"},
    {"priority": 120, "ipproto": "tcp", "dport": "80-89", "sport": 1024, "table": 70000},
    {"priority": 130, "tos": "0x10", "uidrange": "1000-1999", "type": "unreachable"},
    {"priority": 40000, "l3mdev": True},
]


def _add_rules(draw: st.DrawFn, body: Document) -> None:
    if draw(st.integers(0, 2)) == 0:
        body["rules"] = draw(_subset(_RULES))


def _add_nat(draw: st.DrawFn, body: Document) -> None:
    """Rules of translation. The backend is said, for what ``auto`` chooses depends on what was there before."""
    if draw(st.integers(0, 2)):
        return
    snat: list[Document] = [
        {"source": "10.9.0.0/16", "to_source": "192.0.2.77"},
        {"source": "10.9.0.0/16", "not_destination": "10.0.0.0/8", "masquerade": True},
        {"not_out_interface": "lo", "masquerade": True, "comment": "both families"},
        {"protocol": "tcp", "destination_ports": [80, "8000-8100"], "to_source": "192.0.2.1-192.0.2.5:1024-2047"},
        {"source": "fd00:9::/64", "out_interface": "e0", "to_source": "fd00:8::1"},
        {"mark": "0x1/0xff", "family": "ipv4", "masquerade": True},
    ]
    dnat: list[Document] = [
        {"protocol": "tcp", "port": 5000, "to_destination": "172.18.0.10:80", "local": True},
        {"protocol": "udp", "ports": [53, "60-70"], "destination": "192.0.2.1", "to_destination": "172.18.0.10"},
        {"protocol": "tcp", "port": 5000, "in_interface": "e1", "to_destination": "[fd00:7::1]:80"},
    ]
    ends = [end for name, end in body["interfaces"].items() if name[0] in "eh"]
    subnets = dict.fromkeys(text.rpartition(".")[0] for end in ends for text in _texts(end, "4"))
    published = {"protocol": "tcp", "port": 8080, "hairpin": True}
    dnat += [{**published, "to_destination": f"{subnet}.2:80"} for subnet in subnets]
    body["snat"] = draw(_subset(snat))
    body["dnat"] = draw(_subset(dnat))
    body["nat_backend"] = draw(st.sampled_from(("nftables", "nftables", "nftables", "iptables")))


def _without_twins(routes: list[Document]) -> list[Document]:
    """Of routes with one destination, table and metric only the first."""
    found: dict[Any, Document] = {}
    for route in routes:
        via = route.get("via", "")
        key = (route["to"], ":" in via or ":" in route["to"], route.get("table"), route.get("metric"))
        found.setdefault(key, route)
    return list(found.values())
