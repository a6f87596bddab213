# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From what is to a topology document that, applied again, changes nothing. The inverse of _document.py; pure.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from ._capture_nat import capture_nat
from ._capture_rules import capture_rules
from ._document_routes import ROUTE_TYPES
from ._kernel import default_mtu, mark_of, smallest_mtu
from ._kinds import KINDS
from ._model import (
    BRIDGE_SETTINGS,
    DEFAULT_METRIC_V6,
    DEFAULT_MTU,
    HOST,
    HOSTNAME,
    HOSTS_FILE,
    LOOPBACK_MTU,
    MAIN_TABLE,
    PORT_DEFAULTS,
    PORT_SETTINGS,
    RESOLV_CONF,
    STATIC_ROUTE_PROTOCOLS,
    VETH_PORT_COST,
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
from ._service import RESTARTS, Definition
from ._sysctl_keys import name_of

Document = dict[str, Any]


def capture(state: State, lab: str, also: Collection[str] = ()) -> Document:
    """The document of what belongs to ``lab``, and of the unmarked namespaces in ``also``.

    A sysctl is in it if the lab has set it; a MAC address is not, for the kernel does not tell a chosen one from a
    random one.
    """
    names = [name for name, namespace in state.namespaces.items() if name != HOST and _belongs(namespace, lab, also)]
    wires = _wires(state, lab, names)
    ends = {end for wire in wires for end in wire}
    document: Document = {"name": lab, "namespaces": {}, "links": [{"endpoints": list(map(str, w))} for w in wires]}
    for name in [*names, HOST]:
        body = _namespace(state, state.namespaces[name], ends, lab)
        if body or name != HOST:
            document["namespaces"][name] = body
    return document


def _belongs(namespace: Namespace, lab: str, also: Collection[str]) -> bool:
    return namespace.lab == lab or (namespace.name in also and not namespace.lab)


def _wires(state: State, lab: str, names: list[str]) -> list[tuple[Endpoint, Endpoint]]:
    wires: list[tuple[Endpoint, Endpoint]] = []
    seen: set[Endpoint] = set()
    for name in [*names, HOST]:
        for link in state.namespaces[name].links.values():
            end = Endpoint(name, link.name)
            if link.kind != "veth" or link.peer is None or end in seen:
                continue
            if all(e.namespace in names or mark_of(state, e) == lab for e in (end, link.peer)):
                wires.append((end, link.peer))
                seen |= {end, link.peer}
    return wires


def _namespace(state: State, namespace: Namespace, ends: set[Endpoint], lab: str) -> Document:
    body: Document = {}
    remembered = [entry for entry in state.remembered if entry[1:3] == (namespace.name, namespace.inode)]
    interfaces: Document = {}
    for link in namespace.links.values():
        is_end = Endpoint(namespace.name, link.name) in ends
        if is_end or (link.name == "lo" and namespace.name != HOST):
            settings = _interface(link, DEFAULT_MTU if is_end else LOOPBACK_MTU)
            if settings or is_end:
                interfaces[link.name] = settings
        elif link.origin(lab) and namespace.name != HOST:
            interfaces[link.name] = _device(state, link, lab)
        elif link.details and (link.lab == lab or namespace.name != HOST):
            interfaces[link.name] = _made(state, namespace, link)
    _add_remembered(interfaces, namespace, remembered)
    bridges = {
        link.name: _bridge(state, namespace, link)
        for link in namespace.links.values()
        if link.kind == "bridge" and (link.lab == lab or namespace.name != HOST)
    }
    ours = {entry.after for entry in remembered if entry.kind == "route"}
    # What a document cannot say (other types, several of one key) is left out, and counts as drift of the lab.
    sayable = {route.key: route for route in reversed(namespace.routes) if route.type in ROUTE_TYPES}
    routes = [
        _route(route)
        for route in namespace.routes
        if sayable.get(route.key) is route
        if (namespace.name != HOST and route.protocol in STATIC_ROUTE_PROTOCOLS) or str(route) in ours
    ]
    rules = capture_rules(namespace, {entry.after for entry in remembered if entry.kind == "rule"})
    sysctls = {
        name_of(entry.object): namespace.sysctls[entry.object]
        for entry in remembered
        if entry.kind == "sysctl" and namespace.sysctls.get(entry.object) is not None
    }
    parts = (
        ("interfaces", interfaces),
        ("bridges", bridges),
        ("routes", routes),
        ("rules", rules),
        ("sysctls", sysctls),
    )
    for key, value in parts:
        if value:
            body[key] = value
    # Where both backends have them, a run was killed that moved them from one to the other.
    node = {
        key: setting.value
        for what, key in ((HOSTNAME, "hostname"), (RESOLV_CONF, "resolv_conf"), (HOSTS_FILE, "hosts_file"))
        for setting in [state.nodes.get(namespace.name, {}).get(what)]
        if setting and (what == HOSTNAME or setting.lab == lab)
    }
    services = {
        key.name: _service(service.definition)
        for key, service in sorted(state.services.items())
        if key.namespace == namespace.name and (service.lab == lab or (namespace.name != HOST and not service.lab))
    }
    more = {"services": services} if services else {}
    return {**body, **capture_nat(next(iter(namespace.nat.values()), ())), **node, **more}


def _add_remembered(interfaces: Document, namespace: Namespace, remembered: list[Remembered]) -> None:
    """What the lab has set on interfaces that are not its own."""
    for entry in remembered:
        name, _space, text = entry.object.partition(" ")
        link = namespace.links.get(name)
        if entry.kind == "address":
            found = next((address for address in (link.addresses if link else ()) if address.address == text), None)
            if found:
                interfaces.setdefault(name, {}).setdefault("addresses", []).append(_address(found))
        elif entry.kind == "impairment" and link and link.impairment and link.impairment.is_sayable:
            interfaces.setdefault(name, {})["impairment"] = link.impairment.words
        elif entry.kind in ("mtu", "mac", "up") and link:
            interfaces.setdefault(name, {})[entry.kind] = getattr(link, entry.kind)


def _service(definition: Definition) -> Document:
    """A service. The values of its environment may be secrets, and null leaves them as they are."""
    body: Document = {"command": list(definition.command)}
    body.update({key: value for key, value in zip(("user", "group", "directory"), definition[1:4]) if value})
    if definition.environment:
        body["environment"] = dict.fromkeys(dict(definition.environment))
    if definition.restart != RESTARTS[0]:
        body["restart"] = definition.restart
    return body


def _made(state: State, namespace: Namespace, link: Link) -> Document:
    """A link of a kind (_kinds.py); what is as a new one has it is left out."""
    kind = link.details
    if kind is None:
        return {}
    body: Document = {name: value for name, value in kind.settings if value != KINDS[kind.name][name]}
    if kind.link:
        is_here = kind.link.namespace == namespace.name
        body["link"] = kind.link.interface if is_here else str(kind.link)
    elif kind.netns:
        body["link_netns"] = kind.netns
    members = [other.name for other in namespace.links.values() if other.vrf == link.name]
    if members:
        body["interfaces"] = members
    return {kind.name: body or True, **_interface(link, default_mtu(state, kind))}


def _bridge(state: State, namespace: Namespace, bridge: Link) -> Document:
    """A bridge of the lab with its ports; what is as the kernel makes it is left out."""
    ports = [link for link in namespace.links.values() if link.master == bridge.name]
    body = _interface(bridge, smallest_mtu(state, Endpoint(namespace.name, bridge.name)))
    for name, (kind, default) in BRIDGE_SETTINGS.items():
        value = bridge.bridge.get(name, default)
        if value != default:
            body[name] = bool(value) if kind == "flag" else value / 100 if kind == "time" else value
    default = bridge.bridge.get("vlan_default_pvid", 0)
    if bridge.vlans != ((Vlan(default, pvid=True, untagged=True),) if default else ()):
        body["vlans"] = _vlans(bridge.vlans)
    if ports:
        body["ports"] = {port.name: _port(port, bridge.bridge.get("vlan_default_pvid", 0)) for port in ports}
    return body


def _port(port: Link, default_vlan: int) -> Document:
    body: Document = {}
    defaults = {**PORT_DEFAULTS, "cost": VETH_PORT_COST} if port.kind == "veth" else PORT_DEFAULTS
    for name, value in port.port.items():
        if value != defaults.get(name):
            body[name] = bool(value) if PORT_SETTINGS[name][0] == "flag" else value
    if port.vlans != ((Vlan(default_vlan, pvid=True, untagged=True),) if default_vlan else ()):
        body["vlans"] = _vlans(port.vlans)
    return body


def _vlans(vlans: tuple[Vlan, ...]) -> list[Document]:
    return [
        {"vid": vlan.vid, **({"pvid": True} if vlan.pvid else {}), **({"untagged": True} if vlan.untagged else {})}
        for vlan in vlans
    ]


def _interface(link: Link, default_mtu: int) -> Document:
    body: Document = {}
    if link.addresses:
        body["addresses"] = [_address(address) for address in link.addresses]
    if link.mtu != default_mtu:
        body["mtu"] = link.mtu
    if not link.up:
        body["up"] = False
    if link.impairment and link.impairment.is_sayable and link.kind != "bridge":
        body["impairment"] = link.impairment.words
    return body


def _device(state: State, link: Link, lab: str) -> Document:
    """A device of the host, with its MTU and MAC if they are other ones than at home."""
    origin = link.origin(lab)
    name = origin.name if origin else link.name
    notes = (entry for entry in state.remembered if entry.kind == "device" and entry.object == name)
    home: Document = next((json.loads(entry.before or "{}") for entry in notes), {})
    body: Document = {"device": {"name": name}, **_interface(link, home.get("mtu", DEFAULT_MTU))}
    if home.get("mac", link.mac) != link.mac:
        body["mac"] = link.mac
    return body


def _address(address: Address) -> Any:
    body: Document = {"address": address.address}
    if address.family == 4 and address.scope != ("host" if address.ip.ip.is_loopback else "global"):
        body["scope"] = address.scope
    if address.label:
        body["label"] = address.label
    if address.nodad:
        body["nodad"] = True
    if address.noprefixroute:
        body["noprefixroute"] = True
    if address.preferred_lft == "0":
        body["preferred_lft"] = 0
    return body if len(body) > 1 else address.address


def _route(route: Route) -> Document:
    body: Document = {"to": route.to}
    if route.to in ("0.0.0.0/0", "::/0") and (route.via or route.nexthops or route.family == 4):
        body["to"] = "default"
    if route.type != "unicast":
        body["type"] = route.type
    body.update(_way(route.via, route.dev, route.onlink))
    if route.src:
        body["src"] = route.src
    if route.metric and not (route.family == 6 and route.metric == DEFAULT_METRIC_V6):
        body["metric"] = route.metric
    if route.table != MAIN_TABLE:
        body["table"] = route.table
    if route.scope != route.default_scope:
        body["scope"] = route.scope
    if route.mtu:
        body["mtu"] = route.mtu
    if route.nexthops:
        body["nexthops"] = [_nexthop(hop) for hop in route.nexthops]
    return body


def _nexthop(hop: NextHop) -> Document:
    body = _way(hop.via, hop.dev, hop.onlink)
    if hop.weight != 1:
        body["weight"] = hop.weight
    return body


def _way(via: str | None, dev: str, onlink: bool) -> Document:
    body: Document = {}
    if via:
        body["via"] = via
    if dev:
        body["dev"] = dev
    if onlink:
        body["onlink"] = True
    return body
