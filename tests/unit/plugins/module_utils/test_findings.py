# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel takes but is hardly meant: each kind is found, and its neighbour that is all right is not."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.nslab.netns.plugins.module_utils import _kernel as kernel
from ansible_collections.nslab.netns.plugins.module_utils._document import read_topology
from ansible_collections.nslab.netns.plugins.module_utils._errors import Refused
from ansible_collections.nslab.netns.plugins.module_utils._model import HOST, Address, Link, Namespace, State
from ansible_collections.nslab.netns.plugins.module_utils._plan import plan
from ansible_collections.nslab.netns.tests.unit.topologies import Document, routed


def fresh(**sysctls: str) -> State:
    loopback = kernel.new_namespace(HOST).links["lo"]
    eth0 = Link("eth0", 2, mtu=1500, up=True, addresses=[Address("192.168.0.1/24")])
    keys = frozenset(("net/ipv4/ip_forward", *sysctls))
    host = Namespace(HOST, inode=1, links={"lo": loopback, "eth0": eth0}, sysctls=dict(sysctls))
    return State({HOST: host}, known_sysctls=keys, new_namespace_sysctls=keys)


def found(document: Document, state: State | None = None) -> list[tuple[str, str]]:
    planned = plan(read_topology(document).wanted, state or fresh())
    return [(finding.code, finding.path) for finding in planned.findings]


def containers(*host_addresses: str, bridge: Any = None) -> Document:
    """Two containers and their host ends, as in the pitfall of the lab L5."""
    names = ["netns0", "netns1"]
    host: Document = {"interfaces": {}}
    for i, address in enumerate(host_addresses):
        host["interfaces"][f"veth{i}"] = {"addresses": [address]}
    if bridge is not None:
        host["bridges"] = {"br0": bridge}
    namespaces = {
        name: {
            "interfaces": {"eth0": {"addresses": [f"172.18.0.{10 * (i + 1)}/16"]}},
            "routes": [{"to": "default", "via": "172.18.0.1"}] if bridge is not None else [],
        }
        for i, name in enumerate(names)
    }
    links = [{"endpoints": [f"{name}:eth0", f"host:veth{i}"]} for i, name in enumerate(names)]
    return {"name": "x", "namespaces": {"host": host, **namespaces}, "links": links}


BRIDGE = {"addresses": ["172.18.0.1/16"], "ports": ["veth0", "veth1"]}


def test_sound_labs_have_no_findings() -> None:
    assert found(routed()) == []
    assert found(containers(bridge=BRIDGE)) == []
    assert found(containers("172.18.0.11/16", "172.19.0.11/16")) == []


def test_one_prefix_on_two_interfaces_names_both() -> None:
    document = containers("172.18.0.11/16", "172.18.0.21/16")
    assert found(document) == [("same-prefix", "namespaces.host.interfaces.veth1.addresses[0]")]
    (finding,) = plan(read_topology(document).wanted, fresh()).findings
    assert "veth0 and veth1 of the namespace host both have the connected prefix 172.18.0.0/16" in finding.text


def test_vrfs_know_only_their_own_addresses() -> None:
    """Two customers with the same addresses; the gateway of one is an address of the other's."""
    document: Document = {
        "name": "x",
        "namespaces": {
            "pe": {
                "interfaces": {
                    "red": {"vrf": {"table": 101, "interfaces": ["r0"]}},
                    "blue": {"vrf": {"table": 102, "interfaces": ["b0"]}},
                    "r0": {"addresses": ["10.0.0.1/24"]},
                    "b0": {"addresses": ["10.0.0.2/24"]},
                },
                "routes": [
                    {"to": "default", "via": "10.0.0.2", "table": 101},
                    {"to": "default", "via": "10.0.0.1", "dev": "b0", "table": 102},
                ],
            },
            "ce1": {"interfaces": {"eth0": {"addresses": ["10.0.0.2/24"]}}},
            "ce2": {"interfaces": {"eth0": {"addresses": ["10.0.0.1/24"]}}},
        },
        "links": [{"endpoints": ["pe:r0", "ce1:eth0"]}, {"endpoints": ["pe:b0", "ce2:eth0"]}],
    }
    assert found(document) == []
    document["namespaces"]["pe"]["routes"][0]["via"] = "10.0.0.1"
    with pytest.raises(Refused, match="is an address of the namespace pe itself"):
        found(document)


def test_a_gateway_on_a_macvlan_of_the_segment() -> None:
    document = routed()
    document["namespaces"]["gateway"] = {
        "interfaces": {"up": {"macvlan": {"link": "server:vethS"}, "addresses": ["10.0.1.77/24"]}},
        "sysctls": {"net.ipv4.ip_forward": 1},
    }
    document["namespaces"]["server"]["routes"][0]["via"] = "10.0.1.77"
    assert found(document) == []
    document["namespaces"]["server"]["routes"][0]["via"] = "10.0.1.78"
    assert found(document) == [("unowned-gateway", "namespaces.server.routes[0].via")]
    document["namespaces"]["gateway"]["routes"] = [{"to": "198.51.100.0/24", "via": "10.0.1.79"}]
    assert len(found(document)) == 2


def test_a_prefix_that_somebody_elses_interface_has() -> None:
    document = containers("192.168.0.9/24", "172.19.0.11/16")
    assert found(document) == [("same-prefix", "namespaces.host.interfaces.veth0.addresses[0]")]


def test_an_address_on_a_port() -> None:
    document = containers("10.7.0.1/24", bridge=BRIDGE)
    assert found(document) == [("port-address", "namespaces.host.interfaces.veth0.addresses[0]")]


def test_ends_with_different_mtus() -> None:
    document = routed()
    document["namespaces"]["server"]["interfaces"]["vethS"]["mtu"] = 1400
    assert found(document) == [("mtu-mismatch", "links[0]")]


def test_a_gateway_that_nobody_has() -> None:
    document = routed()
    document["namespaces"]["server"]["routes"][0]["via"] = "10.0.1.77"
    assert found(document) == [("unowned-gateway", "namespaces.server.routes[0].via")]
    behind_a_bridge = containers(bridge={**BRIDGE, "addresses": []})
    assert [code for code, _path in found(behind_a_bridge)] == ["unowned-gateway", "unowned-gateway"]
    # Somebody else's interface is on the bridge: who knows what is behind it?
    assert found(containers(bridge={"addresses": [], "ports": ["veth0", "veth1", "eth0"]})) == []


@pytest.mark.parametrize("sysctls", [{}, {"net.ipv4.ip_forward": 0}])
def test_a_gateway_that_does_not_forward(sysctls: Document) -> None:
    document = routed()
    document["namespaces"]["router"]["sysctls"] = sysctls
    assert found(document) == [("forwarding-off", "namespaces.router.sysctls")]


def test_a_bridge_whose_packets_the_firewall_sees() -> None:
    key = "net/bridge/bridge-nf-call-iptables"
    assert found(containers(bridge=BRIDGE), fresh(**{key: "0"})) == []
    assert found(containers(bridge=BRIDGE), fresh(**{key: "1"})) == [
        ("bridge-netfilter", "namespaces.host.bridges.br0")
    ]


@pytest.mark.parametrize(
    ("to_source", "strange"),
    [
        ("10.0.2.1", ""),
        ("10.0.1.1", ""),
        (":1024-2047", ""),
        ("10.0.2.9", "10.0.2.9"),
        ("10.0.2.9:1024-2047", "10.0.2.9"),
        ("10.0.2.1-10.0.2.3", "10.0.2.3"),
        ("10.0.2.8-10.0.2.9", "10.0.2.8 or 10.0.2.9"),
        ("fd00::1", "fd00::1"),
    ],
)
def test_a_source_that_the_namespace_does_not_have(to_source: str, strange: str) -> None:
    document = routed()
    rules = [{"masquerade": True, "mark": 7}, {"protocol": "tcp", "to_source": to_source}]
    document["namespaces"]["router"]["snat"] = rules
    state = fresh()
    state.nat_backends = frozenset(("nftables",))
    findings = plan(read_topology(document).wanted, state).findings
    assert [(finding.code, finding.path) for finding in findings] == (
        [("unowned-source", "namespaces.router.snat[1].to_source")] if strange else []
    )
    if strange:
        assert f"the namespace router does not have the address {strange}, so that" in findings[0].text
        assert "it has 10.0.1.1, 10.0.2.1" in findings[0].text


def test_strict_refuses() -> None:
    wanted = read_topology(containers("172.18.0.11/16", "172.18.0.21/16")).wanted
    wanted.strict = True
    with pytest.raises(Refused, match=r"addresses\[0\]: veth0 and veth1 .* \[same-prefix\]"):
        plan(wanted, fresh())


def test_findings_change_no_plan() -> None:
    document = containers("172.18.0.11/16", "172.18.0.21/16")
    wanted = read_topology(document).wanted
    before = copy.deepcopy(wanted)
    plan(wanted, fresh())
    assert wanted == before


def ring(*links: tuple[str, str], stp: bool = False) -> Document:
    """A namespace with the bridges b0 to b2, whose ports are named after them, and links between these."""
    ends = sorted({end for link in links for end in link})
    bridges = {
        f"b{number}": {"stp": stp, "ports": [end for end in ends if end.startswith(f"b{number}")]}
        for number in range(3)
    }
    endpoints = [{"endpoints": [f"a:{end}" for end in link]} for link in links]
    return {"name": "x", "namespaces": {"a": {"bridges": bridges}}, "links": endpoints}


@pytest.mark.parametrize(
    ("links", "closing"),
    [
        ([("b0p", "b0q")], 0),
        ([("b0p", "b1p"), ("b0q", "b1q")], 1),
        ([("b0p", "b1p"), ("b1q", "b2q"), ("b2r", "b0r")], 2),
    ],
)
def test_a_ring_of_bridges(links: list[tuple[str, str]], closing: int) -> None:
    assert found(ring(*links)) == [("bridge-loop", f"links[{closing}]")]
    assert found(ring(*links, stp=True)) == []
    assert found(ring(*links[:-1])) == []


def test_two_hairpin_ports_at_one_link() -> None:
    """Of one broadcast the kernel sends packets between them as fast as it can, for ever."""
    document = ring(("b0p", "b1p"))
    bridges = document["namespaces"]["a"]["bridges"]
    bridges["b0"]["ports"] = {"b0p": {"hairpin": True}}
    assert found(document) == []
    bridges["b1"]["ports"] = {"b1p": {"hairpin": True}}
    assert found(document) == [("bridge-loop", "links[0]")]


def with_rules(*rules: Document, **more: Any) -> Document:
    return {"name": "x", "namespaces": {"a": {"rules": list(rules), **more}}}


def test_a_rule_that_leads_to_a_table_without_routes() -> None:
    rule = {"priority": 5, "table": 100}
    assert found(with_rules(rule)) == [("empty-table", "namespaces.a.rules[0].table")]
    full = {"to": "10.0.0.0/8", "type": "blackhole", "table": 100}
    assert found(with_rules(rule, routes=[full])) == []
    assert found(with_rules({**rule, "family": "ipv6"}, routes=[full])) != []
    assert found(with_rules({"priority": 5}, {"priority": 6, "table": "local"}, {"priority": 7, "l3mdev": True})) == []


def test_a_rule_with_an_interface_that_is_not_there() -> None:
    rules = [{"priority": 5, "iif": "lo"}, {"priority": 6, "oif": "e0"}]
    assert found(with_rules(*rules)) == [("detached-rule", "namespaces.a.rules[1].oif")]
