# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The labs, each in the words of every contestant: all are made from one topology document."""

from __future__ import annotations

import ipaddress
import json
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).resolve().parent.parent
HOST = "host"

Document = dict[str, Any]
#: A namespace (HOST: none), and what is called in it.
Calls = Iterable[tuple[str, str]]


class Lab(NamedTuple):
    document: Document
    #: A shell command that succeeds only if the lab stands.
    proof: str


def _ping(namespace: str, address: str) -> str:
    return f"nsenter --net=/run/netns/{namespace} ping -n -c 1 -i 0.2 -w 5 {address}"


def routed() -> Lab:
    """The lab that `make lab` builds."""
    text = (ROOT / "playbooks/topologies/routed.yml").read_text(encoding="utf-8")
    return Lab(yaml.safe_load(text), _ping("server", "2.2.2.2"))


def fan(size: int) -> Lab:
    """Many namespaces, each with one veth to the host, an address, and a default route."""
    host: dict[str, Any] = {}
    namespaces: dict[str, Any] = {HOST: {"interfaces": host}}
    links = []
    networks = ipaddress.IPv4Network("10.128.0.0/9").subnets(new_prefix=30)
    for number, network in zip(range(1, size + 1), networks):
        gateway, address = network.hosts()
        host[f"v{number}"] = {"addresses": [f"{gateway}/30"]}
        namespaces[f"n{number}"] = {
            "interfaces": {"eth0": {"addresses": [f"{address}/30"]}},
            "routes": [{"to": "default", "via": str(gateway)}],
        }
        links.append({"endpoints": [f"{HOST}:v{number}", f"n{number}:eth0"]})
    # The host's end of the first veth, seen from the last namespace: there is no way but the default route.
    proof = _ping(f"n{size}", host["v1"]["addresses"][0].split("/")[0])
    return Lab({"name": "fan", "namespaces": namespaces, "links": links}, proof)


def hub(size: int) -> Lab:
    """Many namespaces on one bridge of the host, each with an address and a default route."""
    ports = [f"p{number}" for number in range(1, size + 1)]
    bridge = {"br0": {"addresses": ["10.128.0.1/16"], "ports": ports}}
    namespaces: dict[str, Any] = {HOST: {"interfaces": {}, "bridges": bridge}}
    addresses = ipaddress.IPv4Network("10.128.0.0/16").hosts()
    next(addresses)
    for number, address in zip(range(1, size + 1), addresses):
        namespaces[f"n{number}"] = {
            "interfaces": {"eth0": {"addresses": [f"{address}/16"]}},
            "routes": [{"to": "default", "via": "10.128.0.1"}],
        }
    links = [{"endpoints": [f"{HOST}:{port}", f"n{number}:eth0"]} for number, port in enumerate(ports, 1)]
    last = namespaces[f"n{size}"]["interfaces"]["eth0"]["addresses"][0].split("/")[0]
    return Lab({"name": "hub", "namespaces": namespaces, "links": links}, _ping("n1", last))


def rules(size: int, backend: str) -> Lab:
    """One namespace with many rules of source address translation."""
    sources = ipaddress.IPv4Network("10.128.0.0/9").subnets(new_prefix=29)
    snat = [
        {"source": str(source), "out_interface": "eth0", "to_source": f"192.0.2.{1 + number % 250}"}
        for number, source in zip(range(size), sources)
    ]
    listing = "nft list ruleset | grep -c 'snat ip to'"
    if backend == "iptables":
        listing = "iptables-legacy-save -t nat | grep -c 'j SNAT'"
    proof = f"test $(nsenter --net=/run/netns/r sh -c {shlex.quote(listing)}) = {size}"
    return Lab({"name": "rules", "namespaces": {"r": {"snat": snat, "nat_backend": backend}}, "links": []}, proof)


def nft(document: Document) -> str:
    """The rules as nft takes them from a file, in a table that is replaced as a whole."""
    lines = ["table inet bench", "delete table inet bench", "table inet bench {", "chain postrouting {"]
    lines.append("type nat hook postrouting priority srcnat;")
    for rule in document["namespaces"]["r"]["snat"]:
        match = f'ip saddr {rule["source"]} oifname "{rule["out_interface"]}"'
        lines.append(f'{match} snat ip to {rule["to_source"]} comment "bench"')
    return "\n".join([*lines, "}", "}", ""])


def iptables(document: Document) -> str:
    """The rules as iptables-legacy-restore takes them, which replaces the table as a whole."""
    lines = ["*nat"]
    for rule in document["namespaces"]["r"]["snat"]:
        match = f"-s {rule['source']} -o {rule['out_interface']} -m comment --comment bench"
        lines.append(f"-A POSTROUTING {match} -j SNAT --to-source {rule['to_source']}")
    return "\n".join([*lines, "COMMIT", ""])


# The lab as calls of ip: without `ip`, and without the option for the namespace.


def calls(document: Document) -> Iterator[tuple[str, str]]:
    for name in _named(document):
        yield HOST, f"netns add {name}"
    for link in document["links"]:
        (here, name), (there, peer) = (end.split(":") for end in link["endpoints"])
        outer = "" if here == HOST else f"netns {here} "
        yield HOST, f"link add {name} {outer}type veth peer name {peer} netns {there}"
    for namespace, body in document["namespaces"].items():
        if namespace != HOST:
            yield namespace, "link set lo up"
        yield from _bridges(namespace, body.get("bridges", {}))
        for name, interface in body["interfaces"].items():
            for address in interface["addresses"]:
                yield namespace, f"address add {address} dev {name}"
            if name != "lo":
                yield namespace, f"link set {name} up"
    for namespace, body in document["namespaces"].items():
        for route in body.get("routes", ()):
            yield namespace, f"route add {route['to']} via {route['via']}"


def _bridges(namespace: str, bridges: Document) -> Iterator[tuple[str, str]]:
    for name, bridge in bridges.items():
        yield namespace, f"link add {name} type bridge"
        for address in bridge["addresses"]:
            yield namespace, f"address add {address} dev {name}"
        for port in bridge["ports"]:
            yield namespace, f"link set {port} master {name} up"


def last_calls(document: Document) -> Iterator[tuple[str, str]]:
    """What is best done when all else is: a bridge that is up tells all its ports of each that comes up."""
    for namespace, body in document["namespaces"].items():
        for name in body.get("bridges", {}):
            yield namespace, f"link set {name} up"


def removals(document: Document) -> Iterator[tuple[str, str]]:
    for name in _named(document):
        yield HOST, f"netns del {name}"
    for name in document["namespaces"].get(HOST, {}).get("bridges", {}):
        yield HOST, f"link del {name}"


def dumps(document: Document) -> Iterator[tuple[str, str]]:
    """All that a second run has to look at."""
    for namespace in document["namespaces"]:
        for what in ("link show", "address show", "route show table all"):
            yield namespace, what


def sysctls(document: Document, write: bool) -> Iterator[tuple[str, str]]:
    """What ip cannot do: a namespace, and the command to run in it."""
    for namespace, body in document["namespaces"].items():
        for key, value in body.get("sysctls", {}).items():
            yield namespace, f"sysctl -qw {key}={value}" if write else f"sysctl -n {key}"


def ip_batch(lines: Calls, inside: Calls = (), options: str = "", last: Calls = ()) -> str:
    """A script with one process of ip for each namespace, which is as few as ip can do with.

    `inside`: commands to run in namespaces, without the mounts that `ip netns exec` makes for each.
    """
    by_namespace: dict[str, list[str]] = {HOST: []}
    for namespace, arguments in lines:
        by_namespace.setdefault(namespace, []).append(arguments)
    script = ["set -e\n"]
    for namespace, batch in by_namespace.items():
        if batch:
            text = "\n".join(batch)
            script.append(f"{_ip(namespace)} {options} -batch - <<END\n{text}\nEND\n")
    script += [f"nsenter --net=/run/netns/{namespace} {command}\n" for namespace, command in inside]
    script += [f"{_ip(namespace)} {arguments}\n" for namespace, arguments in last]
    return "".join(script)


def ip_commands(lines: Calls, inside: Calls = ()) -> list[str]:
    """The same as people write it: one process for each thing."""
    return [
        *(f"{_ip(namespace)} {arguments}" for namespace, arguments in lines),
        *(f"ip netns exec {namespace} {command}" for namespace, command in inside),
    ]


def ifstate(document: Document) -> str:
    """The lab as ifstate's configuration.

    It removes addresses that it is not told of, lo's own too, and has no key for net.ipv4.ip_forward;
    net.ipv4.conf.all.forwarding is the same switch.
    """
    peers: dict[str, list[str]] = {}
    for link in document["links"]:
        here, there = link["endpoints"]
        peers[here], peers[there] = there.split(":"), here.split(":")
    namespaces: Document = {}
    for namespace in _named(document):
        body = document["namespaces"][namespace]
        interfaces: Document = {"lo": {"addresses": ["127.0.0.1/8", "::1/128"], "link": {"kind": "physical"}}}
        for name, interface in body["interfaces"].items():
            if name == "lo":
                interfaces["lo"]["addresses"] += interface["addresses"]
                continue
            peer_namespace, peer = peers[f"{namespace}:{name}"]
            link = {"kind": "veth", "peer": peer, "peer_netns": peer_namespace}
            interfaces[name] = {"addresses": interface["addresses"], "link": link}
        for interface in interfaces.values():
            interface["link"]["state"] = "up"
        routes = [{**route, "to": route["to"].replace("default", "0.0.0.0/0")} for route in body.get("routes", ())]
        namespaces[namespace] = {"interfaces": interfaces, "routing": {"routes": routes}}
        if body.get("sysctls") == {"net.ipv4.ip_forward": 1}:
            namespaces[namespace]["sysctl"] = {"all": {"ipv4": {"forwarding": 1}}}
    return json.dumps({"interfaces": {}, "namespaces": namespaces})


IFSTATE_NOTHING = json.dumps({"interfaces": {}, "namespaces": {}})


def _named(document: Document) -> list[str]:
    return [name for name in document["namespaces"] if name != HOST]


def _ip(namespace: str) -> str:
    return "ip" if namespace == HOST else f"ip -n {namespace}"
