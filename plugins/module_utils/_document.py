# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From what the user wrote to the model: the topology document, and the options of the modules in the same words.

Everything is checked that can be checked without looking at the host. All problems are collected and told at once,
each with the path of the key that it stands at. What stands under a namespace has readers of its own in
_document_interfaces.py, _document_routes.py, _document_rules.py and _document_nat.py, and so have probes in
_document_probes.py.

Private to the collection: no stable interface.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ._document_impairments import read_impairment
from ._document_interfaces import check_devices, read_bridges, read_interface
from ._document_kinds import check_kinds
from ._document_nat import BACKENDS, read_dnat, read_snat
from ._document_nodes import NODE_KEYS, Node, read_attach, read_hostname, read_machine, read_node
from ._document_probes import read_probes
from ._document_routes import read_routes, read_sysctls
from ._document_rules import read_rules
from ._document_services import read_services
from ._errors import Problem, article
from ._impairment import NO_IMPAIRMENT
from ._model import (
    DEFAULT_MTU,
    HOST,
    LOOPBACK_MTU,
    Endpoint,
    IPAddress,
    Wanted,
    WantedImpairment,
    WantedLink,
    WantedNamespace,
    WantedNat,
    Wire,
)
from ._reader import Reader, name_problem, suggestion

if TYPE_CHECKING:
    from ._probe import Probe

_TOPOLOGY_KEYS = ("name", "namespaces", "links", "probes")
_NAMESPACE_KEYS = (
    "attach",
    "interfaces",
    "bridges",
    "routes",
    "rules",
    "snat",
    "dnat",
    "nat_backend",
    "sysctls",
    "services",
    *NODE_KEYS,
)


class Topology:
    """A document that was read: the demand on the host, the probes that shall pass there, the namespaces as hosts."""

    def __init__(self, wanted: Wanted, probes: list[Probe], nodes: dict[str, Node]) -> None:
        self.wanted = wanted
        self.probes = probes
        self.nodes = nodes


def read_topology(document: Any, absent: bool = False) -> Topology:
    """Read and check a topology document. ``absent``: what carries its name's mark shall go, and nothing else.

    Raises InvalidInput.
    """
    reader = Reader()
    top = reader.mapping(document, "", _TOPOLOGY_KEYS)
    if not isinstance(document, Mapping):
        reader.done()
    wanted = Wanted(prune=True, whole=True)
    wanted.lab = read_lab_name(reader, top.get("name"), "name")
    if top.get("name") is None:
        reader.problems = [Problem("name", "is missing: a topology has the name of its lab, such as 'name: routed'")]
    nodes: dict[str, Node] = {}
    bodies: dict[str, dict[str, Any]] = {}
    for name, value in reader.mapping(top.get("namespaces"), "namespaces").items():
        path = f"namespaces.{name}"
        reader.name_of_namespace(name, path)
        body = reader.mapping(value, path, _NAMESPACE_KEYS)
        wanted.namespaces[name] = _namespace(reader, name, body, path, wanted.lab)
        nodes[name] = read_node(reader, name, body, path)
        bodies[name] = body
    readable = isinstance(top.get("namespaces") or {}, Mapping)
    if readable:
        _wires(reader, top.get("links"), wanted)
    for name, body in bodies.items():
        # Only now, as a file may have the addresses of all.
        if name != HOST:
            namespace = wanted.namespaces[name]
            namespace.node = read_machine(reader, body, namespace.path, wanted.namespaces, name)
    for end in (end for wire in wanted.wires for end in wire.ends):
        _complete_end(wanted, end)
    check_devices(reader, wanted)
    if not reader.problems:
        check_kinds(reader, wanted)
    probes = read_probes(reader, top.get("probes"), "probes", wanted.namespaces if readable else None)
    if not reader.problems:
        check_layer2(reader, wanted)
    reader.done()
    if absent:
        wanted = Wanted(lab=wanted.lab, prune=True, whole=True)
    nodes.pop(HOST, None)
    return Topology(wanted, probes, nodes)


def read_lab_name(reader: Reader, value: Any, path: str) -> str:
    """The name of a lab, as it goes into the marks; empty for none."""
    if value is None:
        return ""
    name = reader.string(value, path)
    if isinstance(value, str) and (name_problem(name) or len(name) > 64):
        reader.problem(
            path,
            f"{name!r} is no name for a lab: 1 to 64 letters, digits, '_', '.' and '-', the first no '.' or '-'",
        )
    return name


def _namespace(reader: Reader, name: str, body: Mapping[str, Any], path: str, lab: str) -> WantedNamespace:
    attach = read_attach(reader, body.get("attach"), f"{path}.attach")
    if attach and name == HOST:
        reader.problem(f"{path}.attach", "'host' is the machine's own namespace, and has its name")
    if attach and body.get("hostname") is not None:
        reader.problem(f"{path}.hostname", "what is attached has the host name that its maker gave it; leave this out")
    wanted = WantedNamespace(name, path, create=name != HOST and attach is None, attach=attach)
    for interface, settings in reader.mapping(body.get("interfaces"), f"{path}.interfaces").items():
        reader.name_of_interface(interface, f"{path}.interfaces.{interface}")
        link = read_interface(reader, interface, settings, f"{path}.interfaces.{interface}", name)
        if link.device or link.kind:
            # As long as it is there it is the lab's own: up, with nothing on it that the document does not name.
            link.up = True if link.up is None else link.up
            link.impairment = link.impairment or WantedImpairment(NO_IMPAIRMENT, link.path)
            link.purge = True
        wanted.links[interface] = link
    read_bridges(reader, body.get("bridges"), wanted)
    if wanted.create:
        # A namespace of the lab has its lo, up, with nothing on it that the document does not name.
        loopback = wanted.links.setdefault("lo", WantedLink("lo", path))
        loopback.up = True if loopback.up is None else loopback.up
        loopback.mtu = LOOPBACK_MTU if loopback.mtu is None else loopback.mtu
        loopback.impairment = loopback.impairment or WantedImpairment(NO_IMPAIRMENT, loopback.path)
        loopback.purge = True
    wanted.routes = read_routes(reader, body.get("routes"), f"{path}.routes")
    wanted.rules = read_rules(reader, body.get("rules"), f"{path}.rules")
    wanted.sysctls = read_sysctls(reader, body.get("sysctls"), f"{path}.sysctls")
    wanted.services = read_services(reader, body.get("services"), f"{path}.services", name, lab)
    wanted.node = read_hostname(reader, body.get("hostname"), f"{path}.hostname") if wanted.create else {}
    wanted.nat = WantedNat(f"{path}.nat_backend", ("snat", "dnat"), purge=True)
    wanted.nat.rules = read_snat(reader, body.get("snat"), f"{path}.snat", lab)
    wanted.nat.rules += read_dnat(reader, body.get("dnat"), f"{path}.dnat", lab)
    if body.get("nat_backend") is not None:
        wanted.nat.backend = reader.choice(body["nat_backend"], wanted.nat.path, BACKENDS)
    _check_ipv6(reader, wanted)
    return wanted


def _check_ipv6(reader: Reader, namespace: WantedNamespace) -> None:
    """No IPv6 address goes where a sysctl of the same namespace takes IPv6 away."""
    for link in namespace.links.values():
        # lo is there before the default is set, and does not take it.
        names = ("all", link.name) if link.name == "lo" else ("all", "default", link.name)
        keys = [f"net/ipv6/conf/{name}/disable_ipv6" for name in names]
        off = next((namespace.sysctls[key] for key in keys if key in namespace.sysctls), None)
        for item in link.addresses:
            if off and off.value != "0" and item.value.family == 6:
                text = f"{item.value.address!r} is an IPv6 address, but {off.path} takes IPv6 away from {link.name}"
                reader.problem(item.path, text)


# --- links -----------------------------------------------------------------------------------------------------------


def _wires(reader: Reader, value: Any, wanted: Wanted) -> None:
    used: dict[Endpoint, str] = {}
    for i, item in enumerate(reader.sequence(value, "links")):
        path = f"links[{i}]"
        body = reader.mapping(item, path, ("endpoints", "impairment"))
        if not isinstance(item, Mapping):
            continue
        ends = reader.sequence(body.get("endpoints"), f"{path}.endpoints")
        if len(ends) != 2:
            if "endpoints" in body and isinstance(body["endpoints"], (list, tuple)):
                reader.problem(f"{path}.endpoints", f"a link has two ends, not {len(ends)}")
            elif "endpoints" not in body:
                reader.problem(f"{path}.endpoints", 'is missing: the two ends, such as ["a:eth0", "b:eth0"]')
            continue
        read = [_endpoint(reader, end, f"{path}.endpoints[{j}]", wanted, used) for j, end in enumerate(ends)]
        if read[0] and read[1]:
            wanted.wires.append(Wire((read[0], read[1]), path))
            _impair(reader, body.get("impairment"), f"{path}.impairment", wanted, wanted.wires[-1])


def _impair(reader: Reader, value: Any, path: str, wanted: Wanted, wire: Wire) -> None:
    """What both ends of a link do to what they send."""
    impairment = read_impairment(reader, value, path)
    for end in wire.ends if impairment else ():
        links = wanted.namespaces[end.namespace].links
        link = links.setdefault(end.interface, WantedLink(end.interface, _path_of(wanted, end)))
        if link.impairment:
            text = f"is of both ends, and that of {end} is at {link.impairment.path}, too; say it in one place"
            reader.problem(path, text)
        link.impairment = impairment


def _path_of(wanted: Wanted, end: Endpoint) -> str:
    return f"{wanted.namespaces[end.namespace].path}.interfaces.{end.interface}"


def _endpoint(reader: Reader, value: Any, path: str, wanted: Wanted, used: dict[Endpoint, str]) -> Endpoint | None:
    text = reader.string(value, path)
    if not isinstance(value, str):
        return None
    namespace, colon, interface = text.partition(":")
    if not colon or not namespace or not interface:
        reader.problem(path, f"{text!r} is no endpoint: write namespace:interface, such as server:eth0")
        return None
    before = len(reader.problems)
    reader.name_of_namespace(namespace, path)
    reader.name_of_interface(interface, path)
    if len(reader.problems) > before:
        return None
    if interface == "lo":
        reader.problem(path, f"{text!r}: lo is every namespace's own loopback, no end of a link")
        return None
    if namespace == HOST:
        wanted.namespaces.setdefault(HOST, WantedNamespace(HOST, "namespaces.host"))
    if namespace not in wanted.namespaces:
        reader.problem(
            path, f"there is no namespace {namespace!r} in the topology{suggestion(namespace, wanted.namespaces)}"
        )
        return None
    end = Endpoint(namespace, interface)
    if end in used:
        reader.problem(path, f"{text!r} is an end of two links: it is at {used[end]} already")
        return None
    link = wanted.namespaces[namespace].links.get(interface)
    if link and link.bridge:
        reader.problem(path, f"{text!r} is a bridge, at {link.path}, and no end of a link; links end in its ports")
        return None
    if link and link.device:
        text = f"{text!r} is a device of the host, at {link.path}.device, and no end of a link, which is made anew"
        reader.problem(path, text)
        return None
    if link and link.kind:
        reader.problem(path, f"{text!r} is {article(link.kind.name)}, at {link.kind_path}, and no end of a link")
        return None
    used[end] = path
    return end


def _complete_end(wanted: Wanted, end: Endpoint) -> None:
    """An end of a link is the lab's own: up, with the kernel's MTU and no addresses, unless the document says more."""
    links = wanted.namespaces[end.namespace].links
    link = links.setdefault(end.interface, WantedLink(end.interface, _path_of(wanted, end)))
    link.up = True if link.up is None else link.up
    link.mtu = DEFAULT_MTU if link.mtu is None else link.mtu
    link.impairment = link.impairment or WantedImpairment(NO_IMPAIRMENT, link.path)
    link.purge = True


def check_layer2(reader: Reader, wanted: Wanted) -> None:
    """No two interfaces that share a network segment, by links and bridges, have the same address."""
    for segment in _segments(wanted):
        first: dict[IPAddress, str] = {}
        for end in segment:
            link = wanted.namespaces[end.namespace].links.get(end.interface)
            for item in link.addresses if link else ():
                if first.setdefault(item.value.ip.ip, item.path) != item.path:
                    reader.problem(
                        item.path,
                        f"{item.value.ip.ip} is at {first[item.value.ip.ip]} too, on the same network segment; "
                        "an address is there once per network segment",
                    )


def _segments(wanted: Wanted) -> Iterator[list[Endpoint]]:
    """The interfaces that share a network segment, in the document's order."""
    joined: dict[Endpoint, list[Endpoint]] = {}
    pairs = [wire.ends for wire in wanted.wires]
    for namespace in wanted.namespaces.values():
        for link in namespace.links.values():
            bridge = Endpoint(namespace.name, link.name)
            pairs += [(bridge, bridge._replace(interface=port)) for port in (link.bridge.ports if link.bridge else ())]
    for one, other in pairs:
        joined.setdefault(one, []).append(other)
        joined.setdefault(other, []).append(one)
    seen: set[Endpoint] = set()
    for start in joined:
        segment = [] if start in seen else [start]
        seen.add(start)
        for end in segment:  # It grows meanwhile.
            segment += [other for other in dict.fromkeys(joined[end]) if other not in seen]
            seen.update(joined[end])
        if segment:
            yield segment
