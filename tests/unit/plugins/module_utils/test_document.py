# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is refused before anything is touched, where, and in which words."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import pytest
from ansible_collections.nslab.netns.plugins.module_utils import _options
from ansible_collections.nslab.netns.plugins.module_utils._document import read_topology
from ansible_collections.nslab.netns.plugins.module_utils._errors import InvalidInput
from ansible_collections.nslab.netns.plugins.module_utils._model import LOOPBACK_MTU, Endpoint
from ansible_collections.nslab.netns.plugins.module_utils._probe import Listen
from ansible_collections.nslab.netns.tests.unit.topologies import routed

ROUTED: dict[str, Any] = {**routed(), "probes": [{"from": "server", "to": "2.2.2.2"}]}


class _Missing:
    """A key that is taken out."""


MISSING = _Missing()


def document(*places: Any) -> Any:
    """The routed lab with something put at a place: ``document("links", 0, "endpoints", [])``."""
    result = copy.deepcopy(ROUTED)
    *path, value = places
    if not path:
        return value
    at: Any = result
    for key in path[:-1]:
        at = at[key]
    if value is MISSING:
        del at[path[-1]]
    elif isinstance(at, list) and path[-1] == len(at):
        at.append(value)
    else:
        at[path[-1]] = value
    return result


NS = ("namespaces", "router")
SERVER = ("namespaces", "server", "interfaces", "vethS")
ROUTE = ("namespaces", "router", "routes", 0)
WAN = ("namespaces", "router", "interfaces", "wan")
DEVICE = "namespaces.router.interfaces.wan.device"
#: What the router has, and a device of the host.
WANS: dict[str, Any] = {**ROUTED["namespaces"]["router"]["interfaces"], "wan": {"device": {"name": "eth1"}}}


def probe(*more: dict[str, Any], **keys: Any) -> Any:
    """A place and a value for ``document``: the lab's only probe with other keys."""
    return "probes", 0, dict(ROUTED["probes"][0], **{key: value for one in (*more, keys) for key, value in one.items()})


TCP = {"protocol": "tcp", "port": 80}
UDP = {"protocol": "udp", "port": 53}
HTTP = {"protocol": "http"}

#: What is written, the path of the problem, and words that have to be in its text.
BAD = [
    # the document
    (("nonsense",), "", "is no dictionary of name, hosts, underlay, namespaces, links and probes"),
    ((["list"],), "", "is no dictionary"),
    (("name", MISSING), "name", "is missing"),
    (("name", None), "name", "is missing"),
    (("name", 7), "name", "7 is no string; put it in quotes"),
    (("name", "my lab"), "name", "'my lab' is no name for a lab"),
    (("name", "x" * 65), "name", "1 to 64"),
    (("namspaces", {}), "namspaces", "did you mean 'namespaces'?"),
    (("xyzzy", {}), "xyzzy", "there is no such key here; there are"),
    (("namespaces", ["server"]), "namespaces", "['server'] is no dictionary"),
    # namespaces
    (("namespaces", "a/b", {}), "namespaces.a/b", "'a/b' names a host, and the document has no 'hosts'"),
    (("namespaces", "-x", {}), "namespaces.-x", "the first no '.' or '-'"),
    (("namespaces", "..", {}), "namespaces...", "is no name for a namespace"),
    (("namespaces", "a b", {}), "namespaces.a b", "is no name for a namespace"),
    (("namespaces", 5, {}), "namespaces", "the key 5 is no string"),
    (("namespaces", "n" * 256, {}), "namespaces." + "n" * 256, "at most 255"),
    ((*NS, "string"), "namespaces.router", "'string' is no dictionary"),
    ((*NS, "route", []), "namespaces.router.route", "did you mean 'routes'?"),
    # machines
    ((*NS, "hostname", "-x"), "namespaces.router.hostname", "'-x' is no host name"),
    ((*NS, "hostname", "a" * 65), "namespaces.router.hostname", "1 to 64"),
    ((*NS, "hostname", 7), "namespaces.router.hostname", "7 is no string"),
    (("namespaces", "host", {"hostname": "x"}), "namespaces.host.hostname", "is the machine itself"),
    ((*NS, "resolv_conf", ["x"]), "namespaces.router.resolv_conf", "is no dictionary of nameservers"),
    ((*NS, "resolv_conf", {"nameservers": ["x"]}), "namespaces.router.resolv_conf.nameservers[0]", "'x' is no IPv4"),
    ((*NS, "resolv_conf", {"search": ["a b"]}), "namespaces.router.resolv_conf.search[0]", "is no single word"),
    ((*NS, "hosts_file", {"nodes": "yes"}), "namespaces.router.hosts_file.nodes", "is neither true nor false"),
    ((*NS, "hosts_file", {"entries": {"db": ["x"]}}), "namespaces.router.hosts_file.entries.db", "'db' is no IPv4"),
    # hosts of an inventory
    ((*NS, "groups", "gateways"), "namespaces.router.groups", "'gateways' is no list"),
    ((*NS, "groups", ["a", "b-c"]), "namespaces.router.groups[1]", "'b-c' is no name for a group"),
    ((*NS, "labels", {"role": 7}), "namespaces.router.labels.role", "7 is no string; put it in quotes"),
    ((*NS, "labels", {"1": "x"}), "namespaces.router.labels", "'1' is no name for a label"),
    ((*NS, "vars", {"a b": 1}), "namespaces.router.vars", "'a b' is no name for a variable"),
    (("namespaces", "host", {"groups": ["a"]}), "namespaces.host.groups", "is a host of some inventory already"),
    # interfaces
    ((*NS, "interfaces", "a-very-long-name", {}), "namespaces.router.interfaces.a-very-long-name", "16 bytes long"),
    ((*NS, "interfaces", "a%d", {}), "namespaces.router.interfaces.a%d", "must not hold '/', ':', '%' or white space"),
    ((*NS, "interfaces", "a b", {}), "namespaces.router.interfaces.a b", "white space"),
    ((*NS, "interfaces", "é" * 8, {}), "namespaces.router.interfaces." + "é" * 8, "16 bytes long"),
    ((*NS, "interfaces", "all", {}), "namespaces.router.interfaces.all", "sysctls use it"),
    ((*SERVER, 7), "namespaces.server.interfaces.vethS", "7 is no dictionary"),
    ((*SERVER, "adresses", []), "namespaces.server.interfaces.vethS.adresses", "did you mean 'addresses'?"),
    ((*SERVER, "mtu", "big"), "namespaces.server.interfaces.vethS.mtu", "'big' is no whole number"),
    ((*SERVER, "mtu", 67), "namespaces.server.interfaces.vethS.mtu", "from 68 to 65535"),
    ((*SERVER, "mtu", 70000), "namespaces.server.interfaces.vethS.mtu", "from 68 to 65535"),
    ((*SERVER, "mtu", True), "namespaces.server.interfaces.vethS.mtu", "true is no whole number"),
    ((*SERVER, "up", "yes"), "namespaces.server.interfaces.vethS.up", "'yes' is neither true nor false"),
    ((*SERVER, "mac", "02:00"), "namespaces.server.interfaces.vethS.mac", "no MAC address such as"),
    ((*SERVER, "mac", "01:00:5e:00:00:01"), "namespaces.server.interfaces.vethS.mac", "multicast"),
    ((*SERVER, "mac", "00:00:00:00:00:00"), "namespaces.server.interfaces.vethS.mac", "no interface's address"),
    # addresses
    ((*SERVER, "addresses", "10.0.1.2/24"), "namespaces.server.interfaces.vethS.addresses", "is no list"),
    ((*SERVER, "addresses", ["10.0.1.2"]), "namespaces.server.interfaces.vethS.addresses[0]", "write '10.0.1.2/24'"),
    ((*SERVER, "addresses", ["10.0.1.2/33"]), "namespaces.server.interfaces.vethS.addresses[0]", "is no IPv4 or IPv6"),
    ((*SERVER, "addresses", ["10.0.1.0/24"]), "namespaces.server.interfaces.vethS.addresses[0]", "network address"),
    ((*SERVER, "addresses", ["10.0.1.255/24"]), "namespaces.server.interfaces.vethS.addresses[0]", "broadcast"),
    ((*SERVER, "addresses", ["224.0.0.1/4"]), "namespaces.server.interfaces.vethS.addresses[0]", "can have"),
    ((*SERVER, "addresses", ["::ffff:1.2.3.4/96"]), "namespaces.server.interfaces.vethS.addresses[0]", "can have"),
    ((*SERVER, "addresses", ["::/64"]), "namespaces.server.interfaces.vethS.addresses[0]", "can have"),
    (
        (*SERVER, "addresses", ["10.0.1.2/255.255.255.0"]),
        "namespaces.server.interfaces.vethS.addresses[0]",
        "write the prefix length as a number, '10.0.1.2/24'",
    ),
    ((*SERVER, "addresses", [167772418]), "namespaces.server.interfaces.vethS.addresses[0]", "is no address such as"),
    ((*SERVER, "addresses", [{"nodad": True}]), "namespaces.server.interfaces.vethS.addresses[0]", "'address' is"),
    (
        (*SERVER, "addresses", ["10.0.1.2/24", "10.0.1.2/24"]),
        "namespaces.server.interfaces.vethS.addresses[1]",
        "stands here twice",
    ),
    (
        (*SERVER, "addresses", ["2001:db8::1/64", "2001:db8:0::1/48"]),
        "namespaces.server.interfaces.vethS.addresses[1]",
        "stands here twice",
    ),
    (
        (*SERVER, "addresses", [{"address": "10.0.1.2/24", "nodad": True}]),
        "namespaces.server.interfaces.vethS.addresses[0].nodad",
        "IPv4 has no duplicate address detection",
    ),
    (
        (*SERVER, "addresses", [{"address": "10.0.1.2/24", "label": "other:1"}]),
        "namespaces.server.interfaces.vethS.addresses[0].label",
        "has to begin with the interface's name, 'vethS'",
    ),
    (
        (*SERVER, "addresses", [{"address": "2001:db8::1/64", "label": "vethS:1"}]),
        "namespaces.server.interfaces.vethS.addresses[0].label",
        "IPv6 addresses have no label",
    ),
    (
        (*SERVER, "addresses", [{"address": "10.0.1.2/24", "scope": "galaxy"}]),
        "namespaces.server.interfaces.vethS.addresses[0].scope",
        "not one of global, site, link and host",
    ),
    (
        (*SERVER, "addresses", [{"address": "2001:db8::1/64", "scope": "link"}]),
        "namespaces.server.interfaces.vethS.addresses[0].scope",
        "the kernel gives 2001:db8::1 the scope 'global'",
    ),
    (
        (*SERVER, "addresses", [{"address": "10.0.1.2/24", "preferred_lft": 60}]),
        "namespaces.server.interfaces.vethS.addresses[0].preferred_lft",
        "neither 0 (deprecated) nor 'forever'",
    ),
    (
        (*SERVER, {"mtu": 1000, "addresses": ["2001:db8::1/64"]}),
        "namespaces.server.interfaces.vethS.addresses[0]",
        "IPv6 needs at least 1280",
    ),
    # routes
    ((*NS, "routes", {}), "namespaces.router.routes", "{} is no list"),
    ((*ROUTE, "default via 10.0.1.2"), "namespaces.router.routes[0]", "is no route such as"),
    ((*ROUTE, "to", MISSING), "namespaces.router.routes[0].to", "is missing"),
    ((*ROUTE, "to", "1.1.1.1/24"), "namespaces.router.routes[0].to", "has host bits set; write '1.1.1.0/24'"),
    ((*ROUTE, "to", "everywhere"), "namespaces.router.routes[0].to", "is no destination"),
    ((*ROUTE, "via", "10.0.1.2/24"), "namespaces.router.routes[0].via", "leave out '/24'"),
    ((*ROUTE, "via", "fe80::1%veth-srv"), "namespaces.router.routes[0].via", "leave out '%veth-srv'"),
    ((*ROUTE, "via", "router"), "namespaces.router.routes[0].via", "is no IPv4 or IPv6 address"),
    ((*ROUTE, "via", "2001:db8::1"), "namespaces.router.routes[0].via", "another address family"),
    ((*ROUTE, "src", "2001:db8::1"), "namespaces.router.routes[0].src", "another address family"),
    ((*ROUTE, {"to": "1.1.1.0/24"}), "namespaces.router.routes[0]", "says no way"),
    ((*ROUTE, "gateway", "10.0.1.2"), "namespaces.router.routes[0].gateway", "there is no such key"),
    ((*ROUTE, "metric", -1), "namespaces.router.routes[0].metric", "from 0 to 4294967295"),
    ((*ROUTE, "table", "local"), "namespaces.router.routes[0].table", "kernel's own"),
    ((*ROUTE, "table", "mine"), "namespaces.router.routes[0].table", "is no whole number"),
    ((*ROUTE, "onlink", True), "namespaces.router.routes[0].onlink", "needs 'via' and 'dev'"),
    ((*ROUTE, "type", "blackhole"), "namespaces.router.routes[0].via", "leads nowhere"),
    ((*ROUTE, "type", "multicast"), "namespaces.router.routes[0].type", "is not one of unicast"),
    ((*ROUTE, "scope", "link"), "namespaces.router.routes[0].scope", "through a gateway has the scope global"),
    ((*ROUTE, "mtu", 10), "namespaces.router.routes[0].mtu", "from 68"),
    ((*ROUTE, {"to": "::/0", "via": "fe80::1"}), "namespaces.router.routes[0].dev", "is on every link; say which one"),
    ((*ROUTE, {"to": "::/0", "dev": "veth-srv", "scope": "link"}), "namespaces.router.routes[0].scope", "no scope"),
    ((*NS, "routes", 2, {"to": "1.1.1.0/24", "via": "10.0.2.2"}), "namespaces.router.routes[2].to", "same destination"),
    (
        (*ROUTE, {"to": "1.1.1.0/24", "nexthops": [{"via": "10.0.1.2"}]}),
        "namespaces.router.routes[0].nexthops",
        "two ways or more",
    ),
    (
        (*ROUTE, {"to": "1.1.1.0/24", "nexthops": [{"via": "10.0.1.2"}, {"weight": 2}]}),
        "namespaces.router.routes[0].nexthops[1]",
        "says no way",
    ),
    (
        (*ROUTE, {"to": "1.1.1.0/24", "nexthops": [{"via": "10.0.1.2"}, {"via": "10.0.1.2"}]}),
        "namespaces.router.routes[0].nexthops[1]",
        "stands here twice",
    ),
    (
        (*ROUTE, {"to": "1.1.1.0/24", "nexthops": [{"via": "10.0.1.2", "weight": 300}, {"via": "10.0.2.2"}]}),
        "namespaces.router.routes[0].nexthops[0].weight",
        "from 1 to 256",
    ),
    ((*ROUTE, "mtu", 65521), "namespaces.router.routes[0].mtu", "from 68 to 65520"),
    (
        (*ROUTE, {"to": "::ffff:1.1.1.0/120", "dev": "veth-srv"}),
        "namespaces.router.routes[0].to",
        "an IPv6 spelling of IPv4 addresses",
    ),
    (
        (*ROUTE, {"to": "default", "via": "::10.0.1.2"}),
        "namespaces.router.routes[0].via",
        "an IPv6 spelling of an IPv4 address",
    ),
    # bridges
    (
        (
            *NS,
            {
                "bridges": {"br0": {"addresses": ["10.0.2.2/24"], "ports": ["veth-srv", "veth-cli"]}},
                "interfaces": {},
            },
        ),
        "namespaces.client.interfaces.vethC.addresses[0]",
        "10.0.2.2 is at namespaces.router.bridges.br0.addresses[0] too, on the same network segment",
    ),
    ((*ROUTE, {"to": "", "via": "10.0.1.2"}), "namespaces.router.routes[0].to", "'' is no destination"),
    *(
        ((*NS, "bridges", {"br0": body}), f"namespaces.router.bridges.br0{path}", words)
        for body, path, words in (
            ("x", "", "'x' is no dictionary"),
            ({"port": []}, ".port", "did you mean 'ports'?"),
            ({"stp": 1}, ".stp", "1 is neither true nor false"),
            ({"ageing_time": "long"}, ".ageing_time", "'long' is no number"),
            ({"ageing_time": -1}, ".ageing_time", "is none of 0, 0.01"),
            ({"ageing_time": 0.015}, ".ageing_time", "is none of 0, 0.01"),
            ({"ageing_time": True}, ".ageing_time", "is no number"),
            ({"stp": True, "forward_delay": 31}, ".forward_delay", "from 2 to 30"),
            ({"stp": True, "forward_delay": 1}, ".forward_delay", "from 2 to 30 (seconds) with 'stp'"),
            ({"group_fwd_mask": 1}, ".group_fwd_mask", "bits 0 to 2"),
            ({"group_fwd_mask": 65536}, ".group_fwd_mask", "from 0 to 65535"),
            ({"vlan_default_pvid": 4095}, ".vlan_default_pvid", "from 0 to 4094"),
            ({"mtu": 1000, "addresses": ["fd00::1/64"]}, ".addresses[0]", "IPv6 needs at least 1280"),
            ({"ports": "veth-srv"}, ".ports", "is no list"),
            ({"ports": [7]}, ".ports[0]", "7 is no string"),
            ({"ports": [{"cost": 7}]}, ".ports[0]", "the key 'name' is missing"),
            ({"ports": ["lo"]}, ".ports[0]", "'lo' can be no port"),
            ({"ports": ["br0"]}, ".ports[0]", "'br0' can be no port"),
            ({"ports": ["veth-srv", "veth-srv"]}, ".ports[1]", "stands here twice"),
            ({"ports": {"veth-srv": {"costs": 7}}}, ".ports.veth-srv.costs", "did you mean 'cost'?"),
            ({"ports": {"veth-srv": {"cost": 0}}}, ".ports.veth-srv.cost", "from 1 to 65535"),
            ({"ports": {"veth-srv": {"priority": 64}}}, ".ports.veth-srv.priority", "from 0 to 63"),
            ({"ports": {"veth-srv": {"hairpin": "on"}}}, ".ports.veth-srv.hairpin", "neither true nor false"),
            ({"ports": {"veth-srv": {"vlans": [0]}}}, ".ports.veth-srv.vlans[0].vid", "from 1 to 4094"),
            ({"ports": {"veth-srv": {"vlans": [{"pvid": True}]}}}, ".ports.veth-srv.vlans[0].vid", "is missing"),
            ({"ports": {"veth-srv": {"vlans": [7, 7]}}}, ".ports.veth-srv.vlans[1]", "stands here twice"),
            (
                {"ports": {"veth-srv": {"vlans": [{"vid": 1, "pvid": True}, {"vid": 2, "pvid": True}]}}},
                ".ports.veth-srv.vlans[1].pvid",
                "a port has one PVID",
            ),
            ({"ports": [f"p{number}" for number in range(1024)]}, ".ports", "lets a bridge have 1023"),
        )
    ),
    ((*NS, "bridges", {"veth-srv": {}}), "namespaces.router.bridges.veth-srv", "a bridge stands here only"),
    ((*NS, "bridges", {"lo": {}}), "namespaces.router.bridges.lo", "no bridge"),
    ((*NS, "bridges", {"a/b": {}}), "namespaces.router.bridges.a/b", "must not hold"),
    (
        (*NS, "bridges", {"br0": {"ports": ["veth-srv"]}, "br1": {"ports": ["veth-srv"]}}),
        "namespaces.router.bridges.br1.ports[0]",
        "a port of two bridges",
    ),
    # sysctls
    (
        (*NS, "sysctls", {"net.ipv4.ip_forward": 1, "net.ipv4.conf.all.forwarding": 0}),
        "namespaces.router.sysctls['net.ipv4.conf.all.forwarding']",
        "'0' contradicts namespaces.router.sysctls['net.ipv4.ip_forward']",
    ),
    *(
        (
            (*NS, {"sysctls": {key: 1}, "interfaces": {"veth-srv": {"addresses": ["2001:db8::1/64"]}}}),
            "namespaces.router.interfaces.veth-srv.addresses[0]",
            "takes IPv6 away from veth-srv",
        )
        for key in (
            "net.ipv6.conf.all.disable_ipv6",
            "net.ipv6.conf.default.disable_ipv6",
            "net.ipv6.conf.veth-srv.disable_ipv6",
        )
    ),
    ((*NS, "sysctls", {"kernel.hostname": "x"}), "namespaces.router.sysctls['kernel.hostname']", "no sysctl of the"),
    ((*NS, "sysctls", {"net.ipv4.ip_forward": None}), "namespaces.router.sysctls['net.ipv4.ip_forward']", "no value"),
    (
        (*NS, "sysctls", {"net/../kernel/x": 1}),
        "namespaces.router.sysctls['net/../kernel/x']",
        "no sysctl of the network",
    ),
    (
        (*NS, "sysctls", {"net.ipv4.ip_forward": 1, "net/ipv4/ip_forward": 0}),
        "namespaces.router.sysctls.net/ipv4/ip_forward",
        "another spelling",
    ),
    # links
    (("links", {}), "links", "{} is no list"),
    (("links", 0, "server:vethS"), "links[0]", "is no dictionary of endpoints"),
    (("links", 0, "mtu", 1500), "links[0].mtu", "no such key"),
    (("links", 0, {}), "links[0].endpoints", "is missing"),
    (("links", 0, "endpoints", ["server:vethS"]), "links[0].endpoints", "has two ends, not 1"),
    (("links", 0, "endpoints", 1, "router"), "links[0].endpoints[1]", "write namespace:interface"),
    (("links", 0, "endpoints", 1, "rooter:veth-srv"), "links[0].endpoints[1]", "did you mean 'router'?"),
    (("links", 0, "endpoints", 1, "router:lo"), "links[0].endpoints[1]", "no end of a link"),
    (("links", 0, "endpoints", 1, "router:a-very-long-name"), "links[0].endpoints[1]", "16 bytes long"),
    (("links", 0, "endpoints", 1, 4), "links[0].endpoints[1]", "4 is no string"),
    (("links", 1, "endpoints", 1, "router:veth-srv"), "links[1].endpoints[1]", "an end of two links"),
    (
        ("namespaces", "router", "interfaces", "veth-srv", "addresses", ["10.0.1.2/24"]),
        "namespaces.router.interfaces.veth-srv.addresses[0]",
        "too, on the same network segment",
    ),
    # probes
    (("probes", 0, "server"), "probes[0]", "is no probe such as"),
    (("probes", 0, {"from": "server"}), "probes[0].to", "is missing"),
    (("probes", 0, "from", "sever"), "probes[0].from", "did you mean 'server'?"),
    (("probes", 0, "to", "client"), "probes[0].to", "is no IPv4 or IPv6 address"),
    (("probes", 0, "protocol", "sctp"), "probes[0].protocol", "not one of icmp, tcp, udp and http"),
    (("probes", 0, "protocol", "tcp"), "probes[0].port", "is missing"),
    (("probes", 0, "protocol", "udp"), "probes[0].port", "is missing: a udp probe needs one"),
    (("probes", 0, "port", 80), "probes[0].port", "ICMP has no ports"),
    (("probes", 0, "expect", "refused"), "probes[0].expect", "an answer of a port"),
    (("probes", 0, "expect", "maybe"), "probes[0].expect", "not one of reachable"),
    (("probes", 0, "count", 0), "probes[0].count", "from 1 to 1000"),
    (("probes", 0, "deadline", 0), "probes[0].deadline", "above 0"),
    # what HTTP probes have
    (probe(TCP, path="/"), "probes[0].path", "a probe of protocol tcp has none; say 'protocol: http'"),
    (probe(status=200), "probes[0].status", "a probe of protocol icmp has none"),
    (probe(UDP, body="hello"), "probes[0].body", "a probe of protocol udp has none"),
    (probe(HTTP, port=0), "probes[0].port", "from 1 to 65535"),
    (probe(HTTP, path="index.html"), "probes[0].path", "is no path of a URL: it begins with '/'"),
    (probe(HTTP, path="/a b"), "probes[0].path", "is no path of a URL"),
    (probe(HTTP, path="/\r\nHost: x"), "probes[0].path", "is no path of a URL"),
    (probe(HTTP, path="/\n"), "probes[0].path", "is no path of a URL"),
    (probe(HTTP, path="/é"), "probes[0].path", "others as %XX"),
    (probe(HTTP, path="/" * 2049), "probes[0].path", "at most 2048"),
    (probe(HTTP, path=7), "probes[0].path", "7 is no string"),
    (probe(HTTP, status=99), "probes[0].status", "from 100 to 599"),
    (probe(HTTP, status=600), "probes[0].status", "from 100 to 599"),
    (probe(HTTP, status="ok"), "probes[0].status", "is no whole number"),
    (probe(HTTP, status=404, listen=True), "probes[0].status", "always says 200"),
    (probe(HTTP, body=""), "probes[0].body", "is empty"),
    (probe(HTTP, body=["hello"]), "probes[0].body", "is no string"),
    # the source that is seen
    (probe(source_seen="router"), "probes[0].source_seen", "is no IPv4 or IPv6 address"),
    (probe(source_seen="10.0.2.1/24"), "probes[0].source_seen", "leave out '/24'"),
    (probe(source_seen="fd00::1"), "probes[0].source_seen", "fd00::1 is of another family than 2.2.2.2"),
    (probe(to="fd00::9", source_seen="10.0.2.1"), "probes[0].source_seen", "of another family than fd00::9"),
    (probe(to="fd00::9", source_seen="fe80::1%eth0"), "probes[0].source_seen", "leave out '%eth0'"),
    (probe(HTTP, source_seen="10.0.2.1"), "probes[0].source_seen", "say 'protocol: tcp'"),
    (
        probe(TCP, source_seen="10.0.2.1", expect="unreachable"),
        "probes[0].source_seen",
        "say 'protocol: icmp' or 'udp'",
    ),
    (probe(TCP, source_seen="10.0.2.1", expect="refused"), "probes[0].source_seen", "who refuses has seen nothing"),
    (probe(UDP, port=53, source_seen="10.0.2.1", expect="refused"), "probes[0].source_seen", "who refuses"),
    (probe(source_seen=True), "probes[0].source_seen", "true is no string"),
    # devices of the host
    (
        (*SERVER, {"device": {"name": "eth1"}}),
        "links[0].endpoints[0]",
        "is a device of the host, at namespaces.server.",
    ),
    ((*WAN, {"device": {}}), "namespaces.router.interfaces.wan.device", "lacks what it is: 'name', 'mac' or 'path'"),
    ((*WAN, {"device": {"name": "a", "mac": "02:00:00:00:00:01"}}), f"{DEVICE}.mac", "say one of 'name', 'mac' and"),
    ((*WAN, {"device": "eth1"}), DEVICE, "'eth1' is no dictionary of name, mac, path and force"),
    ((*WAN, {"device": {"nam": "eth1"}}), f"{DEVICE}.nam", "did you mean 'name'?"),
    ((*WAN, {"device": {"name": "a/b"}}), f"{DEVICE}.name", "no name for an interface"),
    ((*WAN, {"device": {"name": "lo"}}), f"{DEVICE}.name", "the kernel does not let it move"),
    ((*WAN, {"device": {"mac": "02:00"}}), f"{DEVICE}.mac", "no MAC address"),
    ((*WAN, {"device": {"path": "/sys/class/net/eth1"}}), f"{DEVICE}.path", "such as '0000:00:03.0', 'virtio0' or"),
    ((*WAN, {"device": {"name": "eth1", "force": "yes"}}), f"{DEVICE}.force", "neither true nor false"),
    (
        ("namespaces", "router", "interfaces", "lo", {"device": {"name": "eth1"}}),
        "namespaces.router.interfaces.lo.device",
        "no device that can be moved",
    ),
    (
        ("namespaces", "host", {"interfaces": {"wan": {"device": {"name": "eth1"}}}}),
        "namespaces.host.interfaces.wan.device",
        "the device is on the host already",
    ),
    (
        ("namespaces", "router", "interfaces", {**WANS, "two": {"device": {"name": "eth1", "force": True}}}),
        "namespaces.router.interfaces.two.device",
        "the device 'eth1' is at namespaces.router.interfaces.wan.device already",
    ),
    (
        ("namespaces", {**ROUTED["namespaces"], "x": {"interfaces": WANS}, "host": {"interfaces": {"eth1": {}}}}),
        "namespaces.x.interfaces.wan.device.name",
        "'eth1' cannot be in x and on the host: it is at namespaces.host.interfaces.eth1, too",
    ),
    (
        (
            "namespaces",
            {**ROUTED["namespaces"], "x": {"interfaces": WANS}, "host": {"bridges": {"b": {"ports": ["eth1"]}}}},
        ),
        "namespaces.x.interfaces.wan.device.name",
        "it is at namespaces.host.bridges.b.ports[0], too",
    ),
    (
        ("namespaces", "router", {"interfaces": WANS, "bridges": {"wan": {}}}),
        "namespaces.router.bridges.wan",
        "stands at namespaces.router.interfaces.wan too",
    ),
    # the listeners of probes
    (probe(listen=True), "probes[0].listen", "with ICMP only 'source_seen' needs a listener"),
    (probe(listen={"namespace": "client"}), "probes[0].listen", "with ICMP only 'source_seen'"),
    (probe(TCP, listen=False, source_seen="10.0.2.1"), "probes[0].listen", "'source_seen' needs a listener"),
    (probe(TCP, listen="yes"), "probes[0].listen", "neither true nor a dictionary of namespace, address and port"),
    (probe(TCP, listen={"in": "client"}), "probes[0].listen.in", "there is no such key here"),
    (probe(TCP, listen={"namespace": "cleint"}), "probes[0].listen.namespace", "did you mean 'client'?"),
    (probe(TCP, listen={"namespace": 7}), "probes[0].listen.namespace", "7 is no string"),
    (probe(TCP, listen={"port": 70000}), "probes[0].listen.port", "from 1 to 65535"),
    (probe(TCP, listen={"address": "client"}), "probes[0].listen.address", "is no IPv4 or IPv6 address"),
    (probe(TCP, listen={"address": "fd00::1"}), "probes[0].listen.address", "of another family than 2.2.2.2"),
    (probe(TCP, to="fd00::9", listen={"address": "fe80::1"}), "probes[0].listen.address", "name the 'namespace' alone"),
    (probe(source_seen="10.0.2.1", listen={"port": 7}), "probes[0].listen.port", "ICMP has no ports"),
    (probe(source_seen="10.0.2.1", listen={"address": "2.2.2.2"}), "probes[0].listen.address", "leave it out"),
]


@pytest.mark.parametrize(("places", "path", "words"), BAD, ids=[f"{i}-{case[1]}"[:70] for i, case in enumerate(BAD)])
def test_bad_document_is_refused_with_path_value_and_what_is_right(places: Any, path: str, words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_topology(document(*places))
    problems = caught.value.problems
    assert [problem.path for problem in problems] == [path], [str(problem) for problem in problems]
    assert words in problems[0].text


def test_all_problems_are_told_at_once() -> None:
    bad = document("namespaces", "router", "routes", 0, "via", "nowhere")
    bad["links"][0]["endpoints"][0] = "sever:vethS"
    with pytest.raises(InvalidInput) as caught:
        read_topology(bad)
    assert [problem.path for problem in caught.value.problems] == [
        "namespaces.router.routes[0].via",
        "links[0].endpoints[0]",
    ]


PROBE_KEYS = (
    "from", "to", "protocol", "port", "path", "status", "body", "expect", "source_seen", "listen", "count", "deadline",
)  # fmt: skip


@pytest.mark.parametrize("value", [None, 0, 1.5, "x", [], [1], {}, {"a": 1}, True, b"x", {1: 2}, [[]], [{}]])
@pytest.mark.parametrize(
    "place",
    [
        (),
        ("name",),
        ("namespaces",),
        ("links",),
        ("probes",),
        NS,
        (*NS, "interfaces"),
        (*NS, "routes"),
        (*NS, "sysctls"),
        SERVER,
        *((*SERVER, key) for key in ("addresses", "mtu", "mac", "up")),
        ROUTE,
        *((*ROUTE, key) for key in ("to", "via", "dev", "src", "metric", "table", "onlink", "mtu", "type", "nexthops")),
        ("links", 0),
        ("links", 0, "endpoints"),
        ("links", 0, "endpoints", 0),
        ("probes", 0),
        *(("probes", 0, key) for key in PROBE_KEYS),
    ],
    ids=lambda place: ".".join(map(str, place)) or "document",
)
def test_any_value_anywhere_is_read_or_refused(place: Any, value: Any) -> None:
    """Whatever stands wherever: it is understood, or refused as input. There is no third way."""
    with contextlib.suppress(InvalidInput):
        read_topology(document(*place, value))


@pytest.mark.parametrize(
    "value", [None, 0, 1.5, "x", [], [1], {}, {"a": 1}, True, False, b"x", {1: 2}, [[]], "fe80::1"]
)
@pytest.mark.parametrize("protocol", ["icmp", "tcp", "udp", "http"])
def test_any_value_in_any_probe_is_read_or_refused(protocol: str, value: Any) -> None:
    whole = {"port": 80, "source_seen": "10.0.0.1", "listen": {"namespace": "client"}, "protocol": protocol}
    for key in PROBE_KEYS:
        with contextlib.suppress(InvalidInput):
            read_topology(document(*probe(whole, {key: value})))
    for key in ("namespace", "address", "port"):
        with contextlib.suppress(InvalidInput):
            read_topology(document(*probe(whole, {"listen": {key: value}})))


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        ({**TCP, "listen": True}, {"listen": Listen()}),
        ({**TCP, "listen": False}, {"listen": None}),
        ({**UDP, "listen": {"namespace": "client", "port": "5000"}}, {"listen": Listen("client", "", 5000)}),
        ({**UDP, "listen": {"address": "2.2.2.2"}}, {"listen": Listen("", "2.2.2.2", 0)}),
        ({**UDP, "expect": "refused"}, {"port": 53, "expect": "refused", "listen": None}),
        ({"source_seen": "10.0.2.1"}, {"source_seen": "10.0.2.1", "listen": Listen()}),
        ({"source_seen": "10.0.2.1", "listen": {"namespace": "host"}}, {"listen": Listen("host")}),
        ({"to": "FD00::09", "source_seen": "fd00:0::1"}, {"to": "fd00::9", "source_seen": "fd00::1"}),
        ({"source_seen": "10.0.1.2", "expect": "unreachable"}, {"expect": "unreachable", "listen": Listen()}),
        (HTTP, {"port": 80, "url_path": "/", "status": 200, "body": "", "listen": None}),
        (
            {**HTTP, "port": 8080, "path": "/a?b=%20", "status": "404", "body": "no such"},
            {"port": 8080, "url_path": "/a?b=%20", "status": 404, "body": "no such"},
        ),
    ],
)
def test_what_a_probe_means(keys: dict[str, Any], wanted: dict[str, Any]) -> None:
    (found,) = read_topology(document(*probe(**keys))).probes
    assert {key: getattr(found, key) for key in wanted} == wanted


def test_an_endpoint_without_interface_entry_is_up_and_has_no_address() -> None:
    topology = read_topology(
        {"name": "x", "namespaces": {"a": None, "b": {}}, "links": [{"endpoints": ["a:eth0", "b:eth0"]}]}
    )
    link = topology.wanted.namespaces["a"].links["eth0"]
    assert (link.up, link.addresses, link.mtu, link.purge) == (True, [], 1500, True)
    assert topology.wanted.namespaces["b"].links["lo"].up is True
    assert topology.wanted.namespaces["b"].links["lo"].mtu == LOOPBACK_MTU


def test_what_a_namespace_is_in_an_inventory_is_read_and_changes_nothing() -> None:
    document = routed()
    plain = read_topology(document)
    document["namespaces"]["router"].update(groups=["gateways"], labels={"role": "router"}, vars={"a": [1, None]})
    read = read_topology(document)
    assert read.wanted == plain.wanted
    node = read.nodes["router"]
    assert (node.groups, node.labels, node.variables) == (["gateways"], {"role": "router"}, {"a": [1, None]})
    assert list(read.nodes) == list(plain.nodes) == ["server", "router", "client"]


def test_host_is_not_made_and_may_be_named_by_an_endpoint_alone() -> None:
    topology = read_topology(
        {"name": "x", "namespaces": {"a": {}}, "links": [{"endpoints": ["host:veth-a", "a:veth-b"]}]}
    )
    assert topology.wanted.namespaces["host"].create is False
    assert "lo" not in topology.wanted.namespaces["host"].links
    assert topology.wanted.wires[0].ends == (Endpoint("host", "veth-a"), Endpoint("a", "veth-b"))


@pytest.mark.parametrize(
    ("spelling", "key"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
        ("net.ipv4.conf.eth0.rp_filter", "net/ipv4/conf/eth0/rp_filter"),
        ("net.ipv4.conf.eth0.100.rp_filter", "net/ipv4/conf/eth0.100/rp_filter"),
        ("net.ipv4.conf.eth0/100.rp_filter", "net/ipv4/conf/eth0.100/rp_filter"),
        ("net/ipv4/conf/eth0.100/rp_filter", "net/ipv4/conf/eth0.100/rp_filter"),
        ("net.ipv6.neigh.a.b.c.base_reachable_time_ms", "net/ipv6/neigh/a.b.c/base_reachable_time_ms"),
    ],
)
def test_sysctl_spellings(spelling: str, key: str) -> None:
    topology = read_topology({"name": "x", "namespaces": {"a": {"sysctls": {spelling: 1}}}})
    assert list(topology.wanted.namespaces["a"].sysctls) == [key]


def test_default_takes_its_family_from_the_gateway() -> None:
    routes = [{"to": "default", "via": "fe80::1", "dev": "e"}, {"to": "default", "dev": "e"}]
    topology = read_topology({"name": "x", "namespaces": {"a": {"routes": routes}}})
    assert [item.value.to for item in topology.wanted.namespaces["a"].routes] == ["::/0", "0.0.0.0/0"]
    assert [item.value.metric for item in topology.wanted.namespaces["a"].routes] == [1024, 0]


VETH: dict[str, Any] = {
    "lab": None,
    "name": "a",
    "namespace": "one",
    "mtu": None,
    "mac": None,
    "addresses": None,
    "up": True,
    "purge": False,
    "state": "present",
    "peer": {"name": "b", "namespace": "two", "addresses": None, "mtu": None, "mac": None, "up": True},
}

LINK: dict[str, Any] = {"lab": None, "name": "a", "namespace": "x", "addresses": None, "purge": False}

#: The module, its options, the path of the problem, and words that have to be in its text.
BAD_OPTIONS = [
    (_options.veth, {**VETH, "namespace": ""}, "namespace", "'' is no name for a namespace"),
    (_options.veth, {**VETH, "peer": {**VETH["peer"], "namespace": ""}}, "peer.namespace", "no name for a namespace"),
    (
        _options.netns,
        {"name": ["a"], "state": "absent", "lab": None, "wait": True, "revert_after": 5.0},
        "wait",
        "leave 'wait' or 'revert_after' out",
    ),
    (_options.topology, {"gc": ["fine", "a lab"]}, "gc[1]", "is no name for a lab"),
    (_options.topology, {"gc": ["fine"], "state": "absent"}, "state", "does nothing beside 'gc'"),
    (_options.topology, {"gc": ["fine"], "adopt": True}, "adopt", "does nothing beside 'gc'"),
    (_options.topology, {"gc": ["fine"], "commit": "probes"}, "commit", "does nothing beside 'gc'"),
    (
        _options.topology,
        {**dict.fromkeys(("lab", "adopt", "strict")), "topology": routed(), "state": "present", "commit": "probes"},
        "commit",
        "needs a document that has some under 'probes'",
    ),
    (_options.netns, {"name": ["ok", "a/b"], "state": "present", "lab": None}, "name[1]", "no name for a namespace"),
    (_options.netns, {"name": ["host"], "state": "absent", "lab": None}, "name[0]", "neither made nor removed"),
    (_options.netns, {"name": ["a"], "state": "present", "lab": "a lab"}, "lab", "is no name for a lab"),
    (_options.veth, {**VETH, "name": "x:y"}, "name", "no name for an interface"),
    (_options.veth, {**VETH, "name": "lo"}, "name", "no end of a veth"),
    (_options.veth, {**VETH, "peer": None}, "peer", "has two ends"),
    (_options.veth, {**VETH, "addresses": ["10.0.0.1"]}, "addresses[0]", "lacks its prefix length"),
    (_options.veth, {**VETH, "peer": {**VETH["peer"], "mtu": 1}}, "peer.mtu", "from 68"),
    (_options.veth, {**VETH, "peer": {**VETH["peer"], "name": "a", "namespace": "one"}}, "peer.name", "both ends"),
    (
        _options.veth,
        {**VETH, "addresses": ["10.0.0.1/24"], "peer": {**VETH["peer"], "addresses": ["10.0.0.1/16"]}},
        "peer.addresses[0]",
        "too, on the same network segment",
    ),
    (
        _options.ns_link,
        {"lab": None, "name": "a", "namespace": "x", "addresses": None, "purge": True},
        "addresses",
        "write '[]' to remove all",
    ),
    (_options.ns_link, {**LINK, "namespace": None, "device": {"name": "eth1"}}, "device", "on the host already"),
    (_options.ns_link, {**LINK, "name": "lo", "device": {"name": "eth1"}}, "device", "no device that can be moved"),
    (_options.ns_link, {**LINK, "device": {"name": None, "mac": None}}, "device", "lacks what it is"),
    (
        _options.ns_link,
        {**LINK, "vlan": {"link": "e0", "id": 5}, "dummy": True},
        "vlan",
        "is one thing: leave out all but one of dummy and vlan",
    ),
    (
        _options.ns_route,
        {"lab": None, "namespace": "x", "routes": [], "purge": True, "state": "absent"},
        "purge",
        "goes with 'state: present'",
    ),
    (
        _options.ns_route,
        {"lab": None, "namespace": "x y", "routes": [], "purge": False, "state": "present"},
        "namespace",
        "no name for a namespace",
    ),
    (_options.ns_sysctl, {"lab": None, "namespace": "x", "settings": {"vm.swappiness": 1}}, "settings['vm.", "network"),
    (
        _options.topology,
        {"lab": "one", "topology": {"name": "two"}, "state": "present", "adopt": False},
        "lab",
        "'one' is not the name that the document gives its lab, 'two'",
    ),
]


@pytest.mark.parametrize(("read", "options", "path", "words"), BAD_OPTIONS, ids=[case[2] for case in BAD_OPTIONS])
def test_bad_options_are_refused(read: Any, options: Any, path: str, words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(options)
    assert caught.value.problems[0].path.startswith(path)
    assert words in caught.value.problems[0].text


def test_a_bridge_that_keeps_vlans_apart_joins_no_segment() -> None:
    ends = {name: {"interfaces": {"eth0": {"addresses": ["10.0.0.2/24"]}}} for name in ("red", "blue")}
    bridge: dict[str, Any] = {"vlan_filtering": True, "ports": ["r", "b"]}
    document = {
        "name": "x",
        "namespaces": {**ends, "switch": {"interfaces": {"r": {}, "b": {}}, "bridges": {"br0": bridge}}},
        "links": [{"endpoints": ["switch:r", "red:eth0"]}, {"endpoints": ["switch:b", "blue:eth0"]}],
    }
    assert read_topology(document).wanted.lab == "x"
    bridge["vlan_filtering"] = False
    with pytest.raises(InvalidInput, match="too, on the same network segment"):
        read_topology(document)
