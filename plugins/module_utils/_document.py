# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From what the user wrote to the model: the topology document, and the options of the modules in the same words.

Everything is checked that can be checked without looking at the host. All problems are collected and told at once,
each with the path of the key that it stands at. What stands under a namespace has readers of its own in
_document_interfaces.py, _document_routes.py, _document_rules.py and _document_nat.py, and so have links in
_document_links.py, probes in _document_probes.py, and hosts in _document_hosts.py.

Private to the collection: no stable interface.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from ._document_hosts import Hosts, Part, read_hosts
from ._document_interfaces import check_devices, read_bridges, read_interface
from ._document_kinds import check_kinds
from ._document_links import check_layer2, complete_ends, read_links, span_of
from ._document_nat import BACKENDS, read_dnat, read_snat
from ._document_nodes import NODE_KEYS, Node, read_attach, read_hostname, read_machine, read_node
from ._document_probes import check_listeners, read_probes
from ._document_routes import read_routes, read_sysctls
from ._document_rules import read_rules
from ._document_services import read_services
from ._errors import InvalidInput, Problem
from ._impairment import NO_IMPAIRMENT
from ._model import HOST, LOOPBACK_MTU, Span, Wanted, WantedImpairment, WantedLink, WantedNamespace, WantedNat
from ._reader import Reader, enumeration, name_problem, suggestion

if TYPE_CHECKING:
    from ._probe import Probe

_TOPOLOGY_KEYS = ("name", "hosts", "underlay", "namespaces", "links", "probes")
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
    """A document that was read, as far as it is for one host: the demand on it, the probes that shall pass from there,
    the namespaces as hosts. ``far``: the addresses that are at its other hosts alone."""

    def __init__(
        self, wanted: Wanted, probes: list[Probe], nodes: dict[str, Node], far: Collection[str] = frozenset()
    ) -> None:
        self.wanted = wanted
        self.probes = probes
        self.nodes = nodes
        self.far = far


def read_topology(document: Any, absent: bool = False, host: str | None = None) -> Topology:
    """Read and check a topology document, and return what it has for a host.

    ``absent``: what carries its name's mark shall go, and nothing but that is read. ``host``: the name of the machine
    in a document that has ``hosts``; one that it does not name has no part in the lab.

    Raises InvalidInput.
    """
    if absent:
        reader = Reader()
        lab = _read_name(reader, document if isinstance(document, Mapping) else reader.mapping(document, "", ()))
        reader.done()
        return Topology(Wanted(lab=lab, prune=True, whole=True), [], {})
    parts = read_parts(document)
    lab = next(iter(parts.values())).wanted.lab
    if "" in parts:
        return parts[""]
    if not host:
        text = f"is missing: which of the document's hosts this machine is, {enumeration(sorted(parts), 'or')}"
        raise InvalidInput([Problem("host", text)])
    if host in parts:
        return parts[host]
    text = f"nothing of the lab {lab} stays on this machine: the document has no host {host!r}{suggestion(host, parts)}"
    span = Span("", tuple(sorted(parts)), found=(("no-part", "host", text),))
    return Topology(Wanted(lab=lab, prune=True, whole=True, span=span), [], {})


def _read_name(reader: Reader, document: Mapping[str, Any]) -> str:
    lab = read_lab_name(reader, document.get("name"), "name")
    if document.get("name") is None:
        reader.problems = [Problem("name", "is missing: a topology has the name of its lab, such as 'name: routed'")]
    return lab


def read_parts(document: Any) -> dict[str, Topology]:
    """Read and check a topology document, and return what it has for each of its hosts, by their names.

    What has no hosts is for the machine that reads it, and has the name "". Raises InvalidInput.
    """
    reader = Reader()
    top = reader.mapping(document, "", _TOPOLOGY_KEYS)
    if not isinstance(document, Mapping):
        reader.done()
    lab = _read_name(reader, top)
    hosts = read_hosts(reader, top.get("hosts"), top.get("underlay"))
    parts = {host: Part(host, lab) for host in hosts.addresses or ("",)}
    bodies, everybody = _read_namespaces(reader, top.get("namespaces"), parts, hosts)
    is_readable = isinstance(top.get("namespaces") or {}, Mapping)
    crossings = read_links(reader, top.get("links"), parts, hosts) if is_readable else []
    for key, namespace in everybody.items():
        # Only now, as a file may have the addresses of all.
        if namespace.name != HOST:
            namespace.node = read_machine(reader, bodies[key], everybody, key)
    complete_ends(reader, parts, crossings, hosts)
    for part in parts.values():
        check_devices(reader, part.wanted)
        if not reader.problems:
            check_kinds(reader, part.wanted)
    probes = read_probes(reader, top.get("probes"), "probes", hosts, everybody if is_readable else None)
    for host, probe in probes:
        if host in parts:
            parts[host].probes.append(probe)
    if not reader.problems:
        check_layer2(reader, parts, crossings)
        check_listeners(reader, parts)
    reader.done()
    for part in parts.values():
        part.nodes.pop(HOST, None)
        if part.host:
            part.wanted.span = span_of(part.host, parts, crossings, hosts)
    addresses = {host: set(part.addresses()) for host, part in parts.items()}
    everywhere = set().union(*addresses.values())
    return {
        host: Topology(part.wanted, part.probes, part.nodes, everywhere - addresses[host])
        for host, part in parts.items()
    }


def _read_namespaces(
    reader: Reader, value: Any, parts: Mapping[str, Part], hosts: Hosts
) -> tuple[dict[str, dict[str, Any]], dict[str, WantedNamespace]]:
    """Put the namespaces into the parts; returns what is written of them, and all of them, by their keys."""
    bodies: dict[str, dict[str, Any]] = {}
    everybody: dict[str, WantedNamespace] = {}
    for key, settings in reader.mapping(value, "namespaces").items():
        path = f"namespaces.{key}"
        placed = hosts.place(reader, key, path)
        if placed is None:
            continue
        host, name = placed
        part = parts[host]
        reader.name_of_namespace(name, path)
        body = reader.mapping(settings, path, _NAMESPACE_KEYS)
        part.wanted.namespaces[name] = everybody[key] = _namespace(reader, name, body, path, part.wanted.lab)
        part.nodes[name] = read_node(reader, name, body, path)
        bodies[key] = body
    return bodies, everybody


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
            link.purge = link.purge_members = True
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
