# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From the options of each module to the model, through the readers of the topology document.

Private to the collection: no stable interface.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Callable

from ._document import Topology, read_lab_name, read_topology
from ._document_hosts import AnyHosts, Hosts, Part
from ._document_interfaces import check_devices, read_bridge, read_interface, read_ports
from ._document_kinds import check_kinds
from ._document_links import check_layer2
from ._document_nat import read_dnat, read_snat
from ._document_nodes import read_attach
from ._document_probes import read_probes
from ._document_routes import read_routes, read_sysctls
from ._document_rules import read_rules
from ._document_services import read_service_names, read_services
from ._errors import InvalidInput, Problem
from ._kinds import KINDS as _KINDS
from ._model import (
    BRIDGE_SETTINGS,
    HOST,
    Attach,
    Endpoint,
    Wanted,
    WantedBridge,
    WantedLink,
    WantedNamespace,
    WantedNat,
    WantedNatRule,
    Wire,
)
from ._reader import Reader

Options = dict[str, Any]

#: The option of the modules that impair links (the documentation fragment ``impairment``).
IMPAIRMENT: Options = {
    "type": "dict",
    "options": {
        **{word: {"type": "str"} for word in ("delay", "jitter", "loss", "duplicate", "reorder", "corrupt", "rate")},
        "limit": {"type": "int"},
    },
}


_LINK = {"type": "str", "required": True}

#: The options that say what kind of link one is, as ns_link takes them.
KINDS: dict[str, Any] = {
    "dummy": {"type": "bool"},
    "vlan": {
        "type": "dict",
        "options": {
            "link": _LINK,
            "id": {"type": "int", "required": True},
            "protocol": {"type": "str", "choices": ["802.1Q", "802.1ad"]},
            "reorder_hdr": {"type": "bool"},
            "gvrp": {"type": "bool"},
            "mvrp": {"type": "bool"},
            "loose_binding": {"type": "bool"},
            "bridge_binding": {"type": "bool"},
        },
    },
    "macvlan": {
        "type": "dict",
        "options": {"link": _LINK, "mode": {"type": "str", "choices": ["bridge", "private", "vepa", "passthru"]}},
    },
    "ipvlan": {
        "type": "dict",
        "options": {
            "link": _LINK,
            "mode": {"type": "str", "choices": ["l2", "l3", "l3s"]},
            "flag": {"type": "str", "choices": ["bridge", "private", "vepa"]},
        },
    },
    "vxlan": {
        "type": "dict",
        "options": {
            "id": {"type": "int", "required": True},
            "remote": {"type": "str"},
            "group": {"type": "str"},
            "local": {"type": "str"},
            "link": {"type": "str"},
            "link_netns": {"type": "str"},
            "dstport": {"type": "int"},
            "learning": {"type": "bool"},
            "ageing": {"type": "int"},
            "ttl": {"type": "int"},
            "tos": {"type": "int"},
            "df": {"type": "str", "choices": ["unset", "set", "inherit"]},
        },
    },
    "vrf": {
        "type": "dict",
        "options": {
            "table": {"type": "int", "required": True},
            "interfaces": {"type": "list", "elements": "str"},
        },
    },
}


def netns(options: Options) -> Wanted:
    reader = Reader()
    wanted = _wanted(reader, options)
    attach = _attach(reader, options)
    for i, name in enumerate(options["name"]):
        path = f"name[{i}]"
        reader.name_of_namespace(name, path)
        if name == HOST:
            reader.problem(path, "'host' is the machine's own namespace; it can be neither made nor removed")
        elif options["state"] == "absent":
            wanted.absent_namespaces.append(name)
        elif attach:
            wanted.namespaces[name] = WantedNamespace(name, path, attach=attach)
        else:
            links = {"lo": WantedLink("lo", path, up=True)}
            wanted.namespaces[name] = WantedNamespace(name, path, create=True, links=links)
    if options.get("wait") and options.get("revert_after") is not None:
        reader.problem("wait", "a namespace that may come back does not end; leave 'wait' or 'revert_after' out")
    reader.done()
    return wanted


def _attach(reader: Reader, options: Options) -> Attach | None:
    if options.get("pid") is None and options.get("path") is None:
        if options.get("replace_symlink"):
            reader.problem("replace_symlink", "goes with 'pid' or 'path' only")
        return None
    if options["state"] == "absent" or len(options["name"]) != 1:
        reader.problem("pid" if options.get("path") is None else "path", "goes with one 'name' that shall be present")
    return read_attach(reader, {key: options.get(key) for key in ("pid", "path", "replace_symlink")}, "")


def veth(options: Options) -> Wanted:
    reader = Reader()
    wanted = _wanted(reader, options)
    peer = options["peer"] or {}
    end = _end(reader, options, "")
    other = _end(reader, peer, "peer.") if peer else None
    if options["state"] == "absent":
        reader.done()
        wanted.absent_veths = [(end, other)]
        return wanted
    if other is None:
        raise InvalidInput([Problem("peer", "is missing: a veth has two ends")])
    if end == other:
        reader.problem("peer.name", f"{end} cannot be both ends of one veth")
    for one, body, prefix in ((end, options, ""), (other, peer, "peer.")):
        if one.interface == "lo":
            reader.problem(f"{prefix}name", "lo is every namespace's own loopback, no end of a veth")
        link = _link(reader, body, prefix, one.interface)
        link.purge = options["purge"] and body.get("addresses") is not None
        path = f"{prefix}namespace" if body.get("namespace") else prefix.rstrip(".")
        wanted.namespaces.setdefault(one.namespace, WantedNamespace(one.namespace, path)).links[one.interface] = link
    wanted.wires.append(Wire((end, other), "name"))
    part = Part("", wanted.lab)
    part.wanted = wanted
    check_layer2(reader, {"": part})
    reader.done()
    return wanted


def bridge(options: Options) -> Wanted:
    reader = Reader()
    wanted = _wanted(reader, options)
    end = _end(reader, options, "")
    if options["state"] == "absent":
        reader.done()
        wanted.absent_bridges = [end]
        return wanted
    body = {key: options[key] for key in ("addresses", "mtu", "mac", "up", *BRIDGE_SETTINGS, "vlans")}
    link = read_bridge(reader, end.interface, body, "")
    link.path = "name"
    link.purge = options["purge"] and options["addresses"] is not None
    wanted.namespaces[end.namespace] = WantedNamespace(end.namespace, "namespace", links={end.interface: link})
    reader.done()
    return wanted


def bridge_port(options: Options) -> Wanted:
    reader = Reader()
    wanted = _wanted(reader, options)
    end = _end(reader, {"name": options["bridge"], "namespace": options["namespace"]}, "", name_key="bridge")
    ports = read_ports(reader, options["ports"], "ports", end.interface)
    bridge = WantedBridge(create=False, move=options["move"])
    if options["state"] == "absent":
        bridge.absent_ports = list(ports)
        if options["purge"]:
            reader.problem("purge", "goes with 'state: present': it takes out what 'ports' does not name")
    else:
        bridge.ports, bridge.purge = ports, options["purge"]
    link = WantedLink(end.interface, "bridge", bridge=bridge)
    wanted.namespaces[end.namespace] = WantedNamespace(end.namespace, "namespace", links={end.interface: link})
    reader.done()
    return wanted


def ns_link(options: Options) -> Wanted:
    reader = Reader()
    wanted = _wanted(reader, options)
    end = _end(reader, options, "")
    if options.get("state") == "absent":
        wanted.absent_devices = [end]
        reader.done()
        return wanted
    settings = {key: options.get(key) for key in ("device", "addresses", "mtu", "mac", "up", "impairment", *_KINDS)}
    link = read_interface(reader, end.interface, settings, "", end.namespace)
    link.purge = options["purge"] and options["addresses"] is not None
    link.purge_members = options["purge"] and link.members is not None
    if options["purge"] and not (link.purge or link.purge_members):
        or_members = ", or 'vrf.interfaces'" if options.get("vrf") is not None else ""
        text = f"is missing{or_members}: 'purge' removes what is not in it; write '[]' to remove all"
        reader.problem("addresses", text)
    wanted.namespaces[end.namespace] = WantedNamespace(end.namespace, "namespace", links={end.interface: link})
    if link.device:
        check_devices(reader, wanted)
    if link.kind:
        check_kinds(reader, wanted)
    link.path = "name"
    reader.done()
    return wanted


def ns_route(options: Options) -> Wanted:
    reader = Reader()
    wanted = _wanted(reader, options)
    namespace = _one_namespace(reader, options, wanted)
    absent = options["state"] == "absent"
    routes = read_routes(reader, options["routes"], "routes", only_keys=absent)
    if absent:
        namespace.absent_routes = routes
        if options["purge"]:
            reader.problem("purge", "goes with 'state: present': it removes what 'routes' does not name")
    else:
        namespace.routes = routes
        namespace.purge_routes = options["purge"]
    reader.done()
    return wanted


def ns_rule(options: Options) -> Wanted:
    reader = Reader()
    wanted = _wanted(reader, options)
    namespace = _one_namespace(reader, options, wanted)
    absent = options["state"] == "absent"
    rules = read_rules(reader, options["rules"], "rules", only_matches=absent)
    if absent:
        namespace.absent_rules = rules
        if options["purge"]:
            reader.problem("purge", "goes with 'state: present': it removes what 'rules' does not name")
    else:
        namespace.rules, namespace.purge_rules = rules, options["purge"]
    reader.done()
    return wanted


def ns_snat(options: Options) -> Wanted:
    return _nat(options, "snat", read_snat)


def ns_dnat(options: Options) -> Wanted:
    return _nat(options, "dnat", read_dnat)


def _nat(options: Options, kind: str, read: Callable[[Reader, Any, str, str], list[WantedNatRule]]) -> Wanted:
    reader = Reader()
    wanted = _wanted(reader, options)
    namespace = _one_namespace(reader, options, wanted)
    rules = read(reader, options["rules"], "rules", wanted.lab)
    namespace.nat = WantedNat("backend", (kind,), backend=options["backend"])
    if options["state"] == "absent":
        namespace.nat.absent_rules = rules
        if options["purge"]:
            reader.problem("purge", "goes with 'state: present': it removes what 'rules' does not name")
    else:
        namespace.nat.rules, namespace.nat.purge = rules, options["purge"]
    reader.done()
    return wanted


def ns_sysctl(options: Options) -> Wanted:
    reader = Reader()
    wanted = _wanted(reader, options)
    namespace = _one_namespace(reader, options, wanted)
    namespace.sysctls = read_sysctls(reader, options["settings"], "settings")
    reader.done()
    return wanted


def ns_service(options: Options) -> Wanted:
    reader = Reader()
    wanted = _wanted(reader, options)
    namespace = _one_namespace(reader, options, wanted)
    if options["state"] == "absent":
        names = read_service_names(reader, options["services"], "services")
        namespace.absent_services = {name: f"services.{name}" for name in names}
        if options["purge"]:
            reader.problem("purge", "goes with 'state: present': it removes what 'services' does not name")
    else:
        namespace.services = read_services(reader, options["services"], "services", namespace.name, wanted.lab)
        namespace.purge_services = options["purge"]
    reader.done()
    return wanted


def topology(options: Options) -> Wanted:
    if options.get("gc") is not None:
        reader = Reader()
        for i, name in enumerate(options["gc"]):
            read_lab_name(reader, name, f"gc[{i}]")
        for name, usual in _IDLE_BESIDE_GC.items():
            if options.get(name, usual) != usual:
                reader.problem(name, "does nothing beside 'gc', which removes labs; leave it out")
        reader.done()
        return Wanted(whole=True, valid_labs=frozenset(options["gc"]))
    topology = dict(options["topology"] or {})
    lab = options["lab"]
    if lab is not None and topology.get("name") is None:
        topology["name"] = lab
    if lab is not None and topology["name"] != lab:
        text = f"{lab!r} is not the name that the document gives its lab, {topology['name']!r}; leave one of them out"
        raise InvalidInput([Problem("lab", text)])
    absent = options["state"] == "absent"
    document = read_topology(topology, absent=absent, host=options.get("host"))
    wanted = document.wanted
    wanted.adopt, wanted.strict = options["adopt"], options["strict"]
    if options.get("commit") == "probes" and not absent:
        if not topology.get("probes"):
            raise InvalidInput([Problem("commit", "'probes' needs a document that has some under 'probes'")])
        _check_alone(document)
        wanted.probes = document.probes
    return wanted


def _check_alone(document: Topology) -> None:
    """Raise InvalidInput for probes to other hosts, which may not have what they lead to until all of them are done."""
    text = "is at another host, which may not have it yet when this one commits: say 'commit: changes'"
    problems = [
        Problem(f"{probe.path}.to", f"{probe.to} {text}") for probe in document.probes if probe.to in document.far
    ]
    if problems:
        raise InvalidInput(problems)


#: The options of topology that say nothing about removing other labs, and what they are if nobody says them.
_IDLE_BESIDE_GC = {"state": "present", "adopt": False, "strict": False, "commit": "changes", "host": None}


def _wanted(reader: Reader, options: Options) -> Wanted:
    return Wanted(lab=read_lab_name(reader, options["lab"], "lab"))


def _one_namespace(reader: Reader, options: Options, wanted: Wanted) -> WantedNamespace:
    name = reader.name_of_namespace(options["namespace"], "namespace")
    wanted.namespaces[name] = WantedNamespace(name, "namespace")
    return wanted.namespaces[name]


def _end(reader: Reader, options: Options, prefix: str, name_key: str = "name") -> Endpoint:
    said = options.get("namespace")
    namespace = reader.name_of_namespace(HOST if said is None else said, f"{prefix}namespace")
    return Endpoint(namespace, reader.name_of_interface(options["name"], prefix + name_key))


def _link(reader: Reader, options: Options, prefix: str, name: str) -> WantedLink:
    settings = {key: options.get(key) for key in ("addresses", "mtu", "mac", "up", "impairment")}
    return read_interface(reader, name, settings, prefix.rstrip("."))


def probes(options: Options) -> tuple[list[Any], dict[str, int]]:
    """The probes that are sent from this host, and how many are left to others, by their names."""
    reader = Reader()
    own = options.get("host")
    why = "and the option 'host' does not say which one this machine is"
    if own == "":
        reader.problem("host", "is empty; say the name of this machine, or leave it out")
    hosts = AnyHosts(own, options.get("hosts") or ()) if own is not None else Hosts({}, why_none=why)
    found = read_probes(reader, options["probes"], "probes", hosts)
    reader.done()
    left = Counter(host for host, _probe in found if host != (own or ""))
    return [probe for host, probe in found if host == (own or "")], dict(sorted(left.items()))
