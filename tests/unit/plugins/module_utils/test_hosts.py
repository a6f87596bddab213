# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Labs across hosts: what each host finds of its part in the document, and what is refused."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
from ansible_collections.nslab.netns.plugins.module_utils import _options
from ansible_collections.nslab.netns.plugins.module_utils._document import read_parts, read_topology
from ansible_collections.nslab.netns.plugins.module_utils._errors import InvalidInput, Refused
from ansible_collections.nslab.netns.plugins.module_utils._findings import findings
from ansible_collections.nslab.netns.plugins.module_utils._kinds import Kind
from ansible_collections.nslab.netns.plugins.module_utils._model import (
    HOST,
    HOSTS_FILE,
    Address,
    Link,
    Namespace,
    State,
)
from ansible_collections.nslab.netns.plugins.module_utils._plan import plan
from ansible_collections.nslab.netns.tests.unit.topologies import Document, across, documents, routed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

OPTIONS = {"lab": None, "state": "present", "adopt": False, "strict": False}


def two_hosts(**more: Any) -> Document:
    """The routed lab with its client on another host."""
    probes = [{"from": "server", "to": "2.2.2.2"}, {"from": "client", "to": "1.1.1.1"}]
    return {
        **across({**routed(), "probes": probes}, {"client": "vm2"}, "vm1"),
        "hosts": {"vm1": {"address": "198.51.100.1"}, "vm2": {"address": "198.51.100.2"}},
        **more,
    }


def bridged(port: Document, **more: Any) -> Document:
    """A bridge on vm1, with one node beside it and one on vm2."""
    return {
        "name": "bridged",
        "hosts": {"vm1": {"address": "198.51.100.1"}, "vm2": {"address": "198.51.100.2"}},
        "namespaces": {
            "vm1/host": {"bridges": {"br0": {"addresses": ["10.0.0.1/24"], "ports": ["to-a", "to-b"]}}},
            "vm1/a": {"interfaces": {"eth0": {"addresses": ["10.0.0.2/24"], **port}}},
            "vm2/b": {"interfaces": {"eth0": {"addresses": ["10.0.0.3/24"]}}},
        },
        "links": [
            {"endpoints": ["vm1/host:to-a", "vm1/a:eth0"]},
            {"endpoints": ["vm2/b:eth0", "vm1/host:to-b"]},
        ],
        **more,
    }


def kind_of(document: Document, host: str, namespace: str, interface: str) -> Kind:
    found = read_topology(document, host=host).wanted.namespaces[namespace].links[interface].kind
    assert found
    return found


def problems(document: Document, host: str | None = "vm1") -> dict[str, str]:
    with pytest.raises(InvalidInput) as caught:
        read_topology(document, host=host)
    return {problem.path: problem.text for problem in caught.value.problems}


def test_each_host_has_its_own_part() -> None:
    one, two = (read_topology(two_hosts(), host=host) for host in ("vm1", "vm2"))
    assert {*one.wanted.namespaces} == {"server", "router"}
    assert {*two.wanted.namespaces} == {"client"}
    assert [wire.path for wire in one.wanted.wires] == ["links[0]"]
    assert two.wanted.wires == []
    assert [probe.path for probe in one.probes] == ["probes[0]"]
    assert [probe.path for probe in two.probes] == ["probes[1]"]
    assert one.probes[0].source == "server"


def test_a_link_between_hosts_is_one_vxlan_with_two_ends() -> None:
    near, far = kind_of(two_hosts(), "vm1", "router", "veth-cli"), kind_of(two_hosts(), "vm2", "client", "vethC")
    assert near.name == far.name == "vxlan"
    assert near.get("id") == far.get("id")
    assert (near.get("local"), near.get("remote")) == ("198.51.100.1", "198.51.100.2")
    assert (far.get("local"), far.get("remote")) == ("198.51.100.2", "198.51.100.1")
    assert near.netns == far.netns == HOST
    assert near.get("dstport") == 4789
    link = read_topology(two_hosts(), host="vm2").wanted.namespaces["client"].links["vethC"]
    assert (link.mtu, link.up, link.purge, link.kind_path) == (1450, True, True, "links[1]")


def test_what_leaves_from_the_host_itself_goes_by_its_own_network() -> None:
    assert kind_of(bridged({}), "vm1", HOST, "to-b").netns == ""
    assert kind_of(bridged({}), "vm2", "b", "eth0").netns == HOST


@pytest.mark.parametrize(
    ("underlay", "address", "mtu"),
    [
        (None, "198.51.100.{}", 1450),
        ({"mtu": 9000}, "198.51.100.{}", 8950),
        (None, "2001:db8::{}", 1430),
        ({"mtu": 1400}, "2001:db8::{}", 1330),
    ],
)
def test_the_mtu_is_what_gets_through(underlay: Any, address: str, mtu: int) -> None:
    hosts = {f"vm{number}": {"address": address.format(number)} for number in (1, 2)}
    document = bridged({}, hosts=hosts, underlay=underlay)
    one, two = (read_topology(document, host=host).wanted.namespaces for host in ("vm1", "vm2"))
    # On the whole segment, as a bridge drops what is too large for one of its ports.
    assert {one[HOST].links[name].mtu for name in ("to-a", "to-b")} == {mtu}
    assert one["a"].links["eth0"].mtu == two["b"].links["eth0"].mtu == mtu
    # A router tells who sends too much.
    routed_part = read_topology(two_hosts(hosts=hosts, underlay=underlay), host="vm1").wanted.namespaces
    assert routed_part["router"].links["veth-srv"].mtu == 1500
    assert routed_part["router"].links["veth-cli"].mtu == mtu


def test_more_than_gets_through_is_refused_on_the_whole_segment() -> None:
    document = bridged({"mtu": 1451})
    assert problems(document) == {
        "namespaces.vm1/a.interfaces.eth0.mtu": "1451 is more than gets through to the other hosts on its network "
        "segment, 1450: VXLAN takes 50 of the MTU 1500 ('underlay.mtu') between them"
    }
    assert read_topology(bridged({"mtu": 1451}, underlay={"mtu": 1501}), host="vm1")
    # All hosts refuse what one of them could not have.
    assert problems(bridged({"addresses": ["fd00::2/64"]}, underlay={"mtu": 1300})) == {
        "namespaces.vm1/a.interfaces.eth0.addresses[0]": "'fd00::2/64' is an IPv6 address, but 1250 bytes get through "
        "to the other hosts: IPv6 needs at least 1280, and VXLAN takes 50 of the MTU 1300 ('underlay.mtu')"
    }
    assert list(problems(bridged({"addresses": ["fd00::2/64"], "mtu": 1200}, underlay={"mtu": 1300}))) == [
        "namespaces.vm1/a.interfaces.eth0.addresses[0]"
    ]


def test_numbers_follow_from_the_ends_alone() -> None:
    document = bridged({})
    number = kind_of(document, "vm2", "b", "eth0").get("id")
    document["links"] = [{"endpoints": link["endpoints"][::-1]} for link in document["links"][::-1]]
    assert kind_of(document, "vm1", HOST, "to-b").get("id") == number
    document["links"].append({"endpoints": ["vm1/a:eth1", "vm2/b:eth1"]})
    assert kind_of(document, "vm1", HOST, "to-b").get("id") == number
    assert kind_of(document, "vm1", "a", "eth1").get("id") != number
    document["name"] = "another"
    assert kind_of(document, "vm1", HOST, "to-b").get("id") != number


def test_a_number_that_is_taken_is_not_used_again() -> None:
    document = bridged({})
    number = kind_of(document, "vm2", "b", "eth0").get("id")
    document["links"].append({"endpoints": ["vm1/a:eth1", "vm2/b:eth1"], "vni": number})
    for host, namespace in (("vm1", "a"), ("vm2", "b")):
        assert kind_of(document, host, namespace, "eth1").get("id") == number
    assert kind_of(document, "vm2", "b", "eth0").get("id") == number + 1
    assert kind_of(document, "vm1", HOST, "to-b").get("id") == number + 1


def test_impairments_are_at_both_ends() -> None:
    document = two_hosts()
    document["links"][1]["impairment"] = {"delay": "10ms"}
    for host, namespace, name in (("vm1", "router", "veth-cli"), ("vm2", "client", "vethC")):
        link = read_topology(document, host=host).wanted.namespaces[namespace].links[name]
        assert link.impairment
        assert link.impairment.value.delay == 10_000_000
    document["namespaces"]["vm2/client"]["interfaces"]["vethC"]["impairment"] = {"loss": "1%"}
    assert list(problems(document)) == ["links[1].impairment"]


def test_files_of_hosts_name_the_nodes_of_all_hosts() -> None:
    document = two_hosts()
    document["namespaces"]["vm1/server"]["hosts_file"] = True
    wanted = read_topology(document, host="vm1").wanted.namespaces["server"]
    text, path = wanted.node[HOSTS_FILE]
    assert path == "namespaces.vm1/server.hosts_file"
    assert text.splitlines()[2:] == ["10.0.1.1 router", "10.0.2.2 client"]


def test_one_address_is_once_on_a_segment_across_hosts() -> None:
    document = bridged({})
    document["namespaces"]["vm2/b"]["interfaces"]["eth0"]["addresses"] = ["10.0.0.2/24"]
    assert list(problems(document)) == ["namespaces.vm2/b.interfaces.eth0.addresses[0]"]


def test_a_host_that_is_not_in_the_document_has_nothing_of_the_lab() -> None:
    topology = read_topology(two_hosts(), host="vm3")
    assert topology.wanted.prune
    assert topology.wanted.namespaces == {}
    planned = plan(topology.wanted, State(namespaces={HOST: Namespace(HOST)}))
    assert planned.steps == []
    text = "nothing of the lab routed stays on this machine: the document has no host 'vm3'; did you mean 'vm2'?"
    assert [str(finding) for finding in planned.findings] == [f"host: {text} [no-part]"]
    topology.wanted.strict = True
    with pytest.raises(Refused, match="no-part"):
        plan(topology.wanted, State(namespaces={HOST: Namespace(HOST)}))


def test_the_host_has_to_be_said() -> None:
    for nobody in (None, ""):
        assert problems(two_hosts(), host=nobody) == {
            "host": "is missing: which of the document's hosts this machine is, vm1 or vm2"
        }
    # What removes a lab asks for its name alone.
    assert read_topology(two_hosts(), absent=True).wanted.lab == "routed"
    # What is for one machine is for any.
    assert read_topology(routed(), host="vm1").wanted.namespaces.keys() == routed()["namespaces"].keys()


def change(path: str, value: Any) -> Document:
    """The document of two hosts with another value at a place."""
    document = copy.deepcopy(two_hosts())
    *keys, last = path.split("|")
    there: Any = document
    for key in keys:
        there = there[int(key) if isinstance(there, list) else key]
    there[int(last) if isinstance(there, list) else last] = value
    return document


@pytest.mark.parametrize(
    ("place", "value", "path", "words"),
    [
        ("hosts", [], "hosts", "no dictionary"),
        ("hosts", {}, "hosts", "has no host"),
        ("hosts|vm1", "198.51.100.1", "hosts.vm1", "is no dictionary such as {address: 192.0.2.1}"),
        ("hosts|vm1", {}, "hosts.vm1.address", "is missing"),
        ("hosts|vm1", {"address": "x"}, "hosts.vm1.address", "'x' is no IPv4 or IPv6 address"),
        ("hosts|vm1", {"address": "127.0.0.1"}, "hosts.vm1.address", "another host could reach"),
        ("hosts|vm1", {"address": "255.255.255.255"}, "hosts.vm1.address", "another host could reach"),
        ("hosts|vm1", {"address": "0.0.0.5"}, "hosts.vm1.address", "another host could reach"),
        ("hosts|a\0", {"address": "198.51.100.9"}, "hosts.a\0", "is no name for a host"),
        ("hosts|\udcff", {"address": "198.51.100.9"}, "hosts.\udcff", "is no name for a host"),
        ("hosts|", {"address": "198.51.100.9"}, "hosts", "is no name for a host"),
        ("hosts|vm1", {"address": "fe80::1"}, "hosts.vm1.address", "another host could reach"),
        ("hosts|vm1", {"adress": "198.51.100.1"}, "hosts.vm1.adress", "did you mean 'address'"),
        ("hosts|vm2", {"address": "198.51.100.1"}, "hosts.vm2.address", "is the address of vm1, too"),
        ("hosts|vm2", {"address": "2001:db8::2"}, "hosts", "has IPv4 and IPv6 addresses"),
        ("hosts|a b", {"address": "198.51.100.9"}, "hosts.a b", "is no name for a host"),
        ("underlay", {"mtu": 100}, "underlay.mtu", "it has to be from 576 to 65535"),
        ("underlay", {"dstport": 0}, "underlay.dstport", "it has to be from 1 to 65535"),
        ("underlay", {"port": 4789}, "underlay.port", "there is no such key here"),
        ("namespaces|x", {}, "namespaces.x", "says no host, in a lab of several; write HOST/x, such as vm1/x"),
        ("namespaces|vm3/x", {}, "namespaces.vm3/x", "there is no host 'vm3' under 'hosts'"),
        ("namespaces|vm1/x/y", {}, "namespaces.vm1/x/y", "'x/y' is no name for a namespace"),
        ("namespaces|vm1/", {}, "namespaces.vm1/", "is no name for a namespace"),
        ("namespaces|vm1/router|mtu", 1, "namespaces.vm1/router.mtu", "there is no such key here"),
        (
            "namespaces|vm1/router|routes",
            [{"to": "default", "via": "x"}],
            "namespaces.vm1/router.routes[0].via",
            "no IPv4 or IPv6",
        ),
        ("links|0|endpoints|0", "server:x", "links[0].endpoints[0]", "says no host"),
        ("links|0|endpoints|0", "vm1/server", "links[0].endpoints[0]", "write host/namespace:interface"),
        ("links|0|endpoints|0", "vm1/client:x", "links[0].endpoints[0]", "there is no namespace 'client' on vm1"),
        ("links|0|endpoints|0", "vm9/server:x", "links[0].endpoints[0]", "there is no host 'vm9'"),
        ("links|0|vni", 7, "links[0].vni", "both ends of this one are on vm1"),
        ("links|1|vni", 0, "links[1].vni", "it has to be from 1 to 16777215"),
        ("links|1|mtu", 0, "links[1].mtu", "there is no such key here"),
        ("probes|0|from", "server", "probes[0].from", "says no host"),
        ("probes|0|from", "vm2/server", "probes[0].from", "there is no namespace 'vm2/server'"),
        (
            "probes|0|listen",
            {"namespace": "vm2/client"},
            "probes[0].listen",
            "echo requests are answered by the kernel",
        ),
        (
            "probes|0",
            {
                "from": "vm1/server",
                "to": "2.2.2.2",
                "protocol": "tcp",
                "port": 1,
                "listen": {"namespace": "vm2/client"},
            },
            "probes[0].listen.namespace",
            "'vm2/client' is on another host than 'from'",
        ),
        (
            "probes|0",
            {"from": "vm1/server", "to": "2.2.2.2", "source_seen": "10.0.1.2"},
            "probes[0].source_seen",
            "2.2.2.2 is on another host than 'from', at vm2/client",
        ),
        (
            "probes|0",
            {"from": "vm1/server", "to": "2.2.2.2", "protocol": "udp", "port": 1, "listen": True},
            "probes[0].listen",
            "have a service answer there",
        ),
    ],
)
def test_what_cannot_be_is_refused(place: str, value: Any, path: str, words: str) -> None:
    for host in ("vm1", "vm2"):
        found = problems(change(place, value), host)
        assert path in found, found
        assert words in found[path]
        if not place.startswith("probes|0|listen"):
            assert list(found) == [path]


def test_two_links_of_one_number_are_refused() -> None:
    document = bridged({})
    document["links"][1]["vni"] = 7
    document["links"].append({"endpoints": ["vm1/a:eth1", "vm2/b:eth1"], "vni": 7})
    assert problems(document) == {"links[2].vni": "7 is at links[1].vni, too"}
    document["links"][2].pop("vni")
    number = kind_of(document, "vm1", "a", "eth1").get("id")
    document["namespaces"]["vm1/a"]["interfaces"]["vx"] = {"vxlan": {"id": number, "link_netns": "host"}}
    for host, namespace in (("vm1", "a"), ("vm2", "b")):
        assert kind_of(document, host, namespace, "eth1").get("id") == number + 1
    document["namespaces"]["vm1/a"]["interfaces"]["vx"] = {"vxlan": {"id": 7, "link_netns": "host"}}
    assert [words for words in problems(document).values() if "the kernel has such a one once" in words]


def test_a_bridge_across_hosts_may_have_a_port_on_what_the_document_does_not_name() -> None:
    document = bridged({})
    document["namespaces"]["vm2/switch"] = {
        "bridges": {"br0": {"ports": ["to-1", "mv"]}},
        "interfaces": {"mv": {"macvlan": {"link": "host:eth1", "mode": "passthru"}}},
    }
    document["namespaces"]["vm1/host"]["bridges"]["br0"]["ports"].append("to-2")
    document["links"].append({"endpoints": ["vm1/host:to-2", "vm2/switch:to-1"]})
    assert str(kind_of(document, "vm2", "switch", "mv").link) == "host:eth1"
    document["namespaces"]["vm2/switch"]["interfaces"]["mv"]["macvlan"]["link"] = "typo:eth1"
    assert problems(document) == {
        "namespaces.vm2/switch.interfaces.mv.macvlan.link": (
            "there is no namespace 'typo' in the topology; there are b and switch"
        )
    }


@pytest.mark.parametrize(
    ("vxlan", "path", "words"),
    [
        ({}, "id", "is missing: the number of the VXLAN, from 0 to 16777215"),
        ({"id": None}, "id", "is missing: the number of the VXLAN, from 0 to 16777215"),
        (
            {"id": 1, "remote": "192.0.2.9", "group": "ff02::1", "link": "eth0"},
            "group",
            "packets go to one 'remote' or to a 'group', not to both",
        ),
        ({"id": 1, "ageing": 0}, "ageing", "0 is out of range: it has to be from 1 to 4294967295"),
        (
            {"id": 1, "link": "vm1/a:eth0"},
            "link",
            "'vm1/a:eth0' names a host, and what a link lies on is on its own one; leave out 'vm1/'",
        ),
    ],
)
def test_a_vxlan_that_says_too_little_or_too_much(vxlan: Document, path: str, words: str) -> None:
    document = bridged({})
    document["namespaces"]["vm1/a"]["interfaces"]["vx"] = {"vxlan": vxlan}
    assert problems(document) == {f"namespaces.vm1/a.interfaces.vx.vxlan.{path}": words}


def test_a_macvlan_that_passes_all_through_has_the_mac_of_its_link() -> None:
    document = bridged({})
    macvlan = {"link": "eth0", "mode": "passthru"}
    document["namespaces"]["vm1/a"]["interfaces"]["mv"] = {"macvlan": macvlan, "mac": "02:00:00:00:00:01"}
    assert problems(document) == {
        "namespaces.vm1/a.interfaces.mv.mac": "a 'passthru' has the MAC of the link that it lies on; leave this out"
    }


@pytest.mark.parametrize("key", ["hosts", "namespaces", "links", "probes"])
def test_without_hosts_nothing_is_of_a_host(key: str) -> None:
    document = {
        "name": "lab",
        "namespaces": {"a": {}},
        "links": [{"endpoints": ["a:x", "host:y"]}],
        "probes": [{"from": "a", "to": "192.0.2.1"}],
    }
    if key == "hosts":
        assert problems({**document, "underlay": {}}) == {
            "underlay": "is the network between hosts, and the document has no 'hosts'"
        }
        return
    other = {
        "namespaces": {"a": {}, "vm1/b": {}},
        "links": [{"endpoints": ["a:x", "vm1/host:y"]}],
        "probes": [{"from": "vm1/a", "to": "192.0.2.1"}],
    }
    (text,) = problems({**document, key: other[key]}).values()
    assert "names a host, and the document has no 'hosts'" in text


def test_a_commit_is_not_proved_by_other_hosts() -> None:
    document = two_hosts()
    with pytest.raises(InvalidInput, match=r"probes\[0\].to: 2.2.2.2 is at another host"):
        _options.topology({**OPTIONS, "topology": document, "host": "vm1", "commit": "probes"})
    document["probes"] = [{"from": "vm1/server", "to": "10.0.1.1"}]
    for host, number in (("vm1", 1), ("vm2", 0)):
        wanted = _options.topology({**OPTIONS, "topology": document, "host": host, "commit": "probes"})
        assert len(wanted.probes) == number


def test_probes_of_other_hosts_are_left_to_them() -> None:
    probes = two_hosts()["probes"]
    for host, path in (("vm1", "probes[0]"), ("vm2", "probes[1]")):
        own, left_to = _options.probes({"probes": probes, "host": host})
        assert [probe.path for probe in own] == [path]
        assert left_to == {"vm2" if host == "vm1" else "vm1": 1}
    for wrong in ("/a", "vm1/a/b", "vm1/"):
        with pytest.raises(InvalidInput, match=r"probes\[0\].from"):
            _options.probes({"probes": [{"from": wrong, "to": "192.0.2.1"}], "host": "vm1"})
    mixed = {"from": "vm1/a", "to": "192.0.2.1", "protocol": "tcp", "port": 1, "listen": {"namespace": "b"}}
    assert len(_options.probes({"probes": [mixed], "host": "vm1"})[0]) == 1
    local = [{"from": "server", "to": "192.0.2.1"}]
    assert len(_options.probes({"probes": local, "host": "vm1"})[0]) == 1
    misspelt = {"probes": [{"from": "vm11/a", "to": "192.0.2.1"}], "host": "vm1", "hosts": ["vm1", "vm2"]}
    with pytest.raises(
        InvalidInput, match=r"probes\[0\].from: there is no host 'vm11' under 'hosts'; did you mean 'vm1'"
    ):
        _options.probes(misspelt)
    assert _options.probes({**misspelt, "hosts": None}) == ([], {"vm11": 1})
    with pytest.raises(InvalidInput, match="does not say which one this machine is"):
        _options.probes({"probes": probes, "host": None})


def test_an_underlay_that_is_not_there_is_told() -> None:
    wanted = read_topology(two_hosts(), host="vm1").wanted
    there = {name: Namespace(name) for name in wanted.namespaces}
    state = State(namespaces={**there, HOST: Namespace(HOST, links={"eth0": Link("eth0", 2)})})
    (found,) = findings(wanted, state)
    assert (found.code, found.path) == ("no-underlay", "hosts.vm1.address")
    assert "does not have the address 198.51.100.1" in found.text
    address = Address("198.51.100.1/24")
    for link, code in (
        (Link("eth0", 2, kernel_addresses=frozenset([address])), None),
        (Link("eth0", 2, mtu=1420, addresses=[address]), "underlay-mtu"),
        (Link("eth0", 2, mtu=9000, addresses=[address]), None),
    ):
        state.namespaces[HOST] = Namespace(HOST, links={"eth0": link})
        assert [found.code for found in findings(wanted, state)] == ([code] if code else [])
    document = {**two_hosts(), "links": []}
    document["namespaces"]["vm1/router"].pop("routes", None)
    assert "no-underlay" not in {found.code for found in findings(read_topology(document, host="vm1").wanted, state)}


def test_what_no_host_sees_by_itself_is_found_in_the_document() -> None:
    document = bridged({})
    document["namespaces"]["vm2/host"] = {"bridges": {"br0": {"ports": ["one", "two"]}}}
    document["namespaces"]["vm1/host"]["bridges"]["br0"]["ports"] += ["one", "two"]
    document["links"] += [{"endpoints": [f"vm1/host:{name}", f"vm2/host:{name}"]} for name in ("one", "two")]
    document["namespaces"]["vm2/b"]["interfaces"]["eth0"]["mtu"] = 1300
    for host in ("vm1", "vm2"):
        span = read_topology(document, host=host).wanted.span
        assert span
        assert {(code, path) for code, path, _text in span.found} == {
            ("mtu-mismatch", "links[1]"),
            ("bridge-loop", "links[3]"),
        }
    document["namespaces"]["vm1/host"]["bridges"]["br0"]["stp"] = True
    span = read_topology(document, host="vm1").wanted.span
    assert span
    assert "bridge-loop" not in {code for code, _path, _text in span.found}


def mtus(document: Document, host: str = "vm1") -> dict[str, int | None]:
    namespaces = read_topology(document, host=host).wanted.namespaces
    return {
        f"{name}:{link.name}": link.mtu for name, namespace in namespaces.items() for link in namespace.links.values()
    }


def on_a_tunnel(**interfaces: Document) -> Document:
    """vm1/c, with a link to vm2, what lies on that, and a bridge from the VLAN v to vm1/d."""
    document = bridged({})
    document["namespaces"]["vm1/c"] = {
        "interfaces": {"v": {"vlan": {"link": "eth0", "id": 5}}, **interfaces},
        "bridges": {"br1": {"ports": ["v", "in"]}},
    }
    document["namespaces"]["vm1/d"] = {}
    document["links"] += [{"endpoints": ["vm1/c:eth0", "vm2/b:eth1"]}, {"endpoints": ["vm1/c:in", "vm1/d:eth0"]}]
    return document


def test_what_lies_on_a_tunnel_is_of_its_segment_and_its_tag_has_room() -> None:
    found = mtus(on_a_tunnel(m={"macvlan": {"link": "eth0"}}, q={"vlan": {"link": "v", "id": 6}}))
    assert found["c:eth0"] == 1450
    assert found["c:v"] == found["c:in"] == found["d:eth0"] == 1446
    assert found["c:q"] == 1442
    # As that on which it lies.
    assert found["c:m"] is None
    found = mtus(on_a_tunnel(eth0={"mtu": 1300}))
    assert found["c:v"] == 1300
    # On one of which the document says nothing.
    found = mtus(on_a_tunnel(v={"vlan": {"link": "host:eth9", "id": 5}}))
    assert (found["c:v"], found["d:eth0"]) == (None, 1500)


def test_what_is_too_large_with_its_tag_is_refused() -> None:
    document = on_a_tunnel(v={"vlan": {"link": "eth0", "id": 5}, "mtu": 1450})
    assert problems(document) == {
        "namespaces.vm1/c.interfaces.v.mtu": (
            "1450 is more than gets through to the other hosts on its network segment, 1446: VXLAN takes 50 of the MTU "
            "1500 ('underlay.mtu') between them, and tags 4"
        )
    }


@pytest.mark.parametrize(("vlans", "largest"), [([10], 1446), ([{"vid": 10, "pvid": True, "untagged": True}], 1450)])
def test_a_trunk_between_hosts_has_room_for_a_tag(vlans: list[Any], largest: int) -> None:
    document = bridged({})
    bridge = document["namespaces"]["vm1/host"]["bridges"]["br0"]
    bridge.update(
        vlan_filtering=True, ports={"to-a": {"vlans": [{"vid": 10, "untagged": True}]}, "to-b": {"vlans": vlans}}
    )
    document["namespaces"]["vm2/b"]["interfaces"]["tagged"] = {"vlan": {"link": "eth0", "id": 10}}
    assert mtus(document)["a:eth0"] == mtus(document, "vm2")["b:eth0"] == largest
    assert mtus(document, "vm2")["b:tagged"] == 1446


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(documents(many=True), st.data())
def test_the_parts_are_the_whole(document: Document, data: st.DataObject) -> None:
    """However a lab is split, each host gets what the document has of it, and the ends of each link fit together."""
    names = [name for name in document["namespaces"] if name != HOST]
    hosts = {name: data.draw(st.sampled_from(["vm1", "vm2", "vm3"])) for name in names}
    split = across(document, hosts, "vm1")
    split["hosts"] = {f"vm{number}": {"address": f"2001:db8::{number}"} for number in (1, 2, 3)}
    split["underlay"] = {"mtu": 65535}
    whole, parts = read_topology(document).wanted, read_parts(split)
    assert sorted(name for part in parts.values() for name in part.wanted.namespaces) == sorted(whole.namespaces)
    ends: dict[Any, list[tuple[str, Any, Any]]] = {}
    for host, part in parts.items():
        for namespace in part.wanted.namespaces.values():
            assert namespace.links.keys() == whole.namespaces[namespace.name].links.keys()
            for link in namespace.links.values():
                alone = whole.namespaces[namespace.name].links[link.name]
                assert [item.value for item in link.addresses] == [item.value for item in alone.addresses]
                if link.kind:
                    ends.setdefault(link.kind_path, []).append((host, link.kind.get("local"), link.kind.get("remote")))
    wires = [wire.path for part in parts.values() for wire in part.wanted.wires]
    assert sorted([*wires, *ends]) == sorted(wire.path for wire in whole.wires)
    for (one, local, remote), (other, far_local, far_remote) in ends.values():
        assert one != other
        assert (local, remote) == (far_remote, far_local)
    numbers = [
        link.kind.get("id")
        for link in itertools.chain.from_iterable(
            namespace.links.values() for part in parts.values() for namespace in part.wanted.namespaces.values()
        )
        if link.kind
    ]
    assert len({*numbers}) == len(ends)
