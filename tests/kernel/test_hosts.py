# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Labs across two hosts that know nothing of each other but the document, with packets between them."""

from __future__ import annotations

import copy
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.nslab.netns.plugins.module_utils._errors import Refused, StepFailed
from ansible_collections.nslab.netns.tests.unit.topologies import Document, across, routed
from applying import fail_each_call, failing_call, host_without_lab_traces, run
from throwaway import Containers, Machine, differences, eventually, inside, ip, ip_json, kernel_has, ping, within

pytestmark = pytest.mark.skipif(not kernel_has("vxlan"), reason="this kernel has no vxlan")

UNDERLAYS = {4: "192.0.2.{}/24", 6: "2001:db8:ffff::{}/64"}


def hosts(family: int) -> Document:
    template = UNDERLAYS[family].partition("/")[0]
    return {f"vm{number}": {"address": template.format(number)} for number in (1, 2)}


class Two:
    """Two hosts, vm1 and vm2, that are joined by a wire, u0 of each."""

    def __init__(self) -> None:
        self.machines = {"vm1": Machine(), "vm2": Machine()}
        ip("link", "add", "u0", "mtu", "1500", "type", "veth", "peer", "name", "u1", "mtu", "1500")
        for number, machine in enumerate(self.machines.values(), 1):
            machine.wire(f"u{number - 1}")
            with machine.entered():
                ip("link", "set", f"u{number - 1}", "name", "u0")
                ip("link", "set", "u0", "up")
                for template in UNDERLAYS.values():
                    nodad = ["nodad"] if ":" in template else []
                    ip("address", "add", template.format(number), "dev", "u0", *nodad)

    def run(self, document: Document, **more: Any) -> dict[str, list[str]]:
        """Apply the document on each host; returns what was changed there."""
        found = {}
        for name, machine in self.machines.items():
            with machine.entered():
                found[name] = run(document, host=name, **more)
        return found

    def ping(self, source: str, to: str, seconds: int = 5) -> tuple[bool, str]:
        name, _slash, namespace = source.partition("/")
        with self.machines[name].entered():
            return ping(None if namespace == "host" else namespace, to, seconds)

    def looks(self) -> dict[str, Document]:
        found = {}
        for name, machine in self.machines.items():
            with machine.entered():
                found[name] = host_without_lab_traces()
        return found

    def fills(self, source: str, to: str, size: int) -> bool:
        """Whether a packet of that size gets to an address, which nobody may take to pieces."""
        name, _slash, namespace = source.partition("/")
        rest = size - (48 if ":" in to else 28)
        command = f"ping -n -c 1 -W 2 -M do -s {rest} {to} >/dev/null 2>&1 && echo yes || echo no"
        with self.machines[name].entered():
            return within(namespace, "sh", "-c", command).strip() == "yes"

    def on(self, name: str) -> Any:
        return self.machines[name].entered()


@pytest.fixture
def two(host: None) -> Iterator[Two]:
    found = Two()
    yield found
    for machine in found.machines.values():
        machine.close()


def split(family: int = 4, **places: str) -> Document:
    """The routed lab, with its client on vm2."""
    document = across(routed(), places or {"client": "vm2"}, "vm1")
    document["namespaces"]["vm1/router"].pop("snat", None)
    return {**document, "hosts": hosts(family)}


def spanning(family: int = 4) -> Document:
    """A bridge on each host, and one network over both."""
    return {
        "name": "spanning",
        "hosts": hosts(family),
        "namespaces": {
            "vm1/host": {"bridges": {"br0": {"addresses": ["10.9.0.1/24"], "ports": ["to-a", "to-2"]}}},
            "vm1/a": {"interfaces": {"eth0": {"addresses": ["10.9.0.11/24", "fd09::11/64"]}}},
            "vm2/switch": {"bridges": {"br0": {"ports": ["to-b", "to-1"]}}},
            "vm2/b": {"interfaces": {"eth0": {"addresses": ["10.9.0.12/24", "fd09::12/64"]}}},
        },
        "links": [
            {"endpoints": ["vm1/host:to-a", "vm1/a:eth0"]},
            {"endpoints": ["vm2/switch:to-b", "vm2/b:eth0"]},
            {"endpoints": ["vm1/host:to-2", "vm2/switch:to-1"]},
        ],
    }


def test_a_lab_gets_another_name(two: Two) -> None:
    """It is adopted by the new one, and its tunnels, whose numbers come from the name, are made anew."""
    empty = two.looks()
    document = spanning()
    two.run(document)
    renamed = {**document, "name": "renamed"}
    for name in two.machines:
        with two.on(name), pytest.raises(Refused, match="of lab 'spanning'"):
            run(renamed, host=name)
    predicted = two.run(renamed, check=True, adopt=True)
    assert two.run(renamed, adopt=True) == predicted
    assert two.run(renamed) == {"vm1": [], "vm2": []}
    assert two.ping("vm1/a", "10.9.0.12")[0]
    assert two.run({"name": "spanning"}, absent=True) == {"vm1": [], "vm2": []}
    two.run({"name": "renamed"}, absent=True)
    assert two.looks() == empty


@pytest.mark.parametrize("family", UNDERLAYS)
def test_a_routed_lab_with_its_client_on_another_host(two: Two, family: int) -> None:
    document = split(family)
    predicted = two.run(document, check=True)
    assert two.run(document) == predicted
    assert all(predicted.values())
    assert two.run(document) == {"vm1": [], "vm2": []}
    for source, to in (("vm1/server", "2.2.2.2"), ("vm2/client", "1.1.1.1"), ("vm2/client", "10.0.1.1")):
        reached, said = two.ping(source, to)
        assert reached, said
    largest = 1450 if family == 4 else 1430
    assert two.fills("vm2/client", "10.0.2.1", largest)
    assert not two.fills("vm2/client", "10.0.2.1", largest + 1)
    # Whoever is behind the router is told that less gets through there.
    assert two.fills("vm1/server", "10.0.2.1", 1500)
    assert two.fills("vm1/server", "10.0.2.2", largest)


@pytest.mark.parametrize("family", UNDERLAYS)
def test_a_network_that_spans_both_hosts(two: Two, family: int) -> None:
    assert all(two.run(spanning(family)).values())
    assert two.run(spanning(family)) == {"vm1": [], "vm2": []}
    largest = 1450 if family == 4 else 1430
    for source, to in (("vm1/a", "10.9.0.12"), ("vm2/b", "fd09::11"), ("vm2/b", "10.9.0.1")):
        reached, said = two.ping(source, to)
        assert reached, said
        assert two.fills(source, to, largest)
    with two.on("vm1"):
        assert {link["ifname"]: link["mtu"] for link in ip_json(None, "link") if link.get("master") == "br0"} == {
            "to-a": largest,
            "to-2": largest,
        }


def tagged(family: int) -> Document:
    """Untagged nodes on bridges that send to each other with a tag, and a VLAN on each end of a link of its own."""
    document: Document = {"name": "tagged", "hosts": hosts(family), "namespaces": {}, "links": []}
    for number in (1, 2):
        host = f"vm{number}"
        access = {"vlans": [{"vid": 10, "pvid": True, "untagged": True}]}
        bridge = {"vlan_filtering": True, "ports": {"trunk": {"vlans": [10]}, "access": access}}
        document["namespaces"] |= {
            f"{host}/switch": {"bridges": {"br0": bridge}},
            f"{host}/node": {"interfaces": {"eth0": {"addresses": [f"10.9.0.{number}/24"]}}},
            f"{host}/vlan": {
                "interfaces": {"eth0.5": {"vlan": {"link": "eth0", "id": 5}, "addresses": [f"10.8.0.{number}/24"]}}
            },
        }
        document["links"].append({"endpoints": [f"{host}/switch:access", f"{host}/node:eth0"]})
    document["links"] += [
        {"endpoints": ["vm1/switch:trunk", "vm2/switch:trunk"]},
        {"endpoints": ["vm1/vlan:eth0", "vm2/vlan:eth0"]},
    ]
    return document


@pytest.mark.skipif(not kernel_has("vlan"), reason="this kernel has no vlan")
@pytest.mark.parametrize("family", UNDERLAYS)
def test_full_size_packets_with_a_tag(two: Two, family: int) -> None:
    two.run(tagged(family))
    largest = 1446 if family == 4 else 1426
    for source, to in (("vm1/node", "10.9.0.2"), ("vm1/vlan", "10.8.0.2")):
        assert two.ping(source, to)[0]
        assert two.fills(source, to, largest)
        assert not two.fills(source, to, largest + 1)
    # Nothing was taken to pieces between the hosts.
    with two.on("vm1"):
        for key in ("IpFragCreates", "Ip6FragCreates"):
            assert within(None, "nstat", "-asz", key).split()[-2] == "0"


def test_the_underlay_goes_and_comes_back(two: Two) -> None:
    two.run(spanning())
    assert two.ping("vm1/a", "10.9.0.12")[0]
    with two.on("vm2"):
        ip("link", "set", "u0", "down")
    assert not two.ping("vm1/a", "10.9.0.12", 1)[0]
    # The lab is not what has changed.
    assert two.run(spanning()) == {"vm1": [], "vm2": []}
    with two.on("vm2"):
        ip("link", "set", "u0", "up")
        ip("address", "add", "2001:db8:ffff::2/64", "dev", "u0", "nodad")
    assert two.ping("vm1/a", "10.9.0.12")[0]
    # Its addresses go as well, with all that the kernel knows of the way.
    with two.on("vm1"):
        ip("address", "flush", "dev", "u0")
    assert not two.ping("vm2/b", "10.9.0.11", 1)[0]
    with two.on("vm1"):
        run(spanning(), host="vm1")
        ip("address", "add", "192.0.2.1/24", "dev", "u0")
    assert two.ping("vm2/b", "10.9.0.11")[0]
    assert two.run(spanning()) == {"vm1": [], "vm2": []}


def test_drift_on_one_host_is_repaired_there(two: Two) -> None:
    two.run(split())
    with two.on("vm2"):
        ip("-n", "client", "link", "set", "vethC", "mtu", "1300")
        assert run(split(), host="vm2") == ["change link client:vethC mtu 1300 -> 1450"]
        ip("-n", "client", "link", "delete", "vethC")
        again = run(split(), host="vm2")
    assert again[0].startswith("add vxlan client:vethC link_netns host id ")
    assert two.ping("vm1/server", "2.2.2.2")[0]
    assert two.run(split()) == {"vm1": [], "vm2": []}


def test_a_tunnel_that_has_forgotten_its_other_end_is_made_anew(two: Two) -> None:
    two.run(split())
    with two.on("vm2"):
        entry = within("client", "bridge", "fdb", "show", "dev", "vethC").strip()
        assert entry.startswith("00:00:00:00:00:00 dst 192.0.2.1 ")
        within("client", "bridge", "fdb", "delete", "00:00:00:00:00:00", "dev", "vethC", "dst", "192.0.2.1")
    assert not two.ping("vm1/server", "2.2.2.2", 1)[0]
    with two.on("vm2"):
        predicted = run(split(), host="vm2", check=True)
        assert predicted[0] == "remove vxlan client:vethC"
        assert run(split(), host="vm2") == predicted
        assert within("client", "bridge", "fdb", "show", "dev", "vethC").strip() == entry
    assert two.ping("vm1/server", "2.2.2.2")[0]
    assert two.run(split()) == {"vm1": [], "vm2": []}
    # What somebody has added is nobody's business: it may be a daemon that knows more tunnels.
    with two.on("vm2"):
        within("client", "bridge", "fdb", "append", "00:00:00:00:00:00", "dev", "vethC", "dst", "192.0.2.7")
    assert two.run(split()) == {"vm1": [], "vm2": []}


def test_a_namespace_that_takes_a_while_to_end_is_waited_for(two: Two) -> None:
    two.run(split())
    with two.on("vm2"):
        process = subprocess.Popen([*inside("client"), "sleep", "1"])
        eventually(lambda: str(process.pid) in ip("netns", "pids", "client").split(), "it is inside")
        ip("netns", "delete", "client")
        assert run(split(), host="vm2")[0] == "add namespace client"
        process.wait()
    assert two.ping("vm1/server", "2.2.2.2")[0]
    with two.on("vm2"):
        process = subprocess.Popen([*inside("client"), "sleep", "600"])
        eventually(lambda: str(process.pid) in ip("netns", "pids", "client").split(), "it is inside")
        ip("netns", "delete", "client")
        with pytest.raises(StepFailed, match="or end what is still in a namespace that was removed"):
            run(split(), host="vm2")
        process.kill()
        process.wait()
        run(split(), host="vm2")


@pytest.mark.parametrize(
    "change",
    [
        {"underlay": {"mtu": 1400}},
        {"underlay": {"dstport": 4790}},
        {"hosts": hosts(6)},
        {"hosts": hosts(6), "underlay": {"mtu": 1450, "dstport": 4790}},
    ],
    ids=["mtu", "port", "address", "all"],
)
def test_another_underlay(two: Two, monkeypatch: pytest.MonkeyPatch, change: Document) -> None:
    two.run(spanning())
    predicted = two.run({**spanning(), **change}, check=True)
    for name in two.machines:
        with two.on(name):
            before = host_without_lab_traces()
            with failing_call(monkeypatch, 3), pytest.raises(StepFailed):
                run({**spanning(), **change}, host=name)
            assert not differences(before, host_without_lab_traces())
    assert two.run({**spanning(), **change}) == predicted
    assert two.run({**spanning(), **change}) == {"vm1": [], "vm2": []}
    assert two.ping("vm1/a", "10.9.0.12")[0]
    assert all(two.run(spanning()).values())
    assert two.ping("vm1/a", "10.9.0.12")[0]


def test_a_node_moves_from_one_host_to_the_other(two: Two) -> None:
    one, other = split(client="vm1"), split(client="vm2")
    for document in (one, other, one):
        two.run(document)
        assert two.run(document) == {"vm1": [], "vm2": []}
        client = next(key for key in document["namespaces"] if key.endswith("/client"))
        assert two.ping(client, "1.1.1.1")[0]
    with two.on("vm2"):
        assert ip_json(None, "netns") == []


@pytest.mark.parametrize("still", [False, True], ids=["ended", "still-there"])
def test_a_container_that_was_started_anew(two: Two, monkeypatch: pytest.MonkeyPatch, still: bool) -> None:
    """What the name stands for until now has the number of the link as long as it lives."""
    containers = Containers()
    document = split()
    try:
        with two.on("vm2"):
            old, new = containers.start(), containers.start()
        document["namespaces"]["vm2/client"]["attach"] = {"pid": old}
        two.run(document)
        if not still:
            os.kill(old, 9)
            eventually(lambda: not os.path.exists(f"/proc/{old}/ns/net"), "ended")
        document["namespaces"]["vm2/client"]["attach"] = {"pid": new}
        predicted = two.run(document, check=True)
        if still:
            with two.on("vm2"):
                assert fail_each_call(monkeypatch, document, "vm2") > 10
        else:
            assert two.run(document) == predicted
        assert f"change namespace client of an earlier one -> process {new} (cat)" in predicted["vm2"]
        assert two.run(document) == {"vm1": [], "vm2": []}
        assert two.ping("vm2/client", "1.1.1.1")[0]
        with two.on("vm2"):
            run(document, host="vm2", absent=True)
            assert ip_json(None, "link", "show", "type", "vxlan") == []
    finally:
        containers.end()


def test_it_goes_without_a_trace(two: Two) -> None:
    before = {}
    for name in two.machines:
        with two.on(name):
            before[name] = host_without_lab_traces()
    two.run(spanning())
    two.run({"name": "spanning"}, absent=True)
    for name in two.machines:
        with two.on(name):
            assert not differences(before[name], host_without_lab_traces())
    assert two.run({"name": "spanning"}, absent=True) == {"vm1": [], "vm2": []}


def test_a_host_that_has_left_the_document_is_cleared(two: Two) -> None:
    two.run(spanning())
    document = copy.deepcopy(spanning())
    del document["hosts"]["vm2"]
    document["namespaces"] = {key: body for key, body in document["namespaces"].items() if key.startswith("vm1/")}
    document["namespaces"]["vm1/host"]["bridges"]["br0"]["ports"] = ["to-a"]
    document["links"] = document["links"][:1]
    changed = two.run(document)
    assert "remove namespace b" in changed["vm2"]
    with two.on("vm2"):
        assert ip_json(None, "netns") == []
    assert two.run(document) == {"vm1": [], "vm2": []}


def test_a_number_that_somebody_else_has_is_told(two: Two) -> None:
    document = spanning()
    document["links"][2]["vni"] = 7
    with two.on("vm1"):
        ip("link", "add", "vx", "type", "vxlan", "id", "7", "dstport", "4789")
        with pytest.raises(Refused, match=r"links\[2\]: the vxlan host:vx has the number 7 already"):
            run(document, host="vm1", check=True)
        # In whatever namespace it is, as it goes through the host.
        ip("netns", "add", "other")
        ip("link", "set", "vx", "netns", "other", "alias", "nslab:one")
        with pytest.raises(Refused, match=r"links\[2\]: the vxlan other:vx of the lab 'one' has the number 7 already"):
            run(document, host="vm1", check=True)
        # Where nobody can look, the kernel says so.
        containers = Containers()
        try:
            ip("-n", "other", "link", "set", "vx", "netns", str(containers.start()))
            ip("netns", "delete", "other")
            before = host_without_lab_traces()
            with pytest.raises(StepFailed, match=r"to-2.*VXLAN device with the specified VNI already exists"):
                run(document, host="vm1")
            assert not differences(before, host_without_lab_traces())
        finally:
            containers.end()


def test_each_failing_step_leaves_the_host_as_it_was(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    with two.on("vm2"):
        assert fail_each_call(monkeypatch, spanning(), "vm2") > 10
    with two.on("vm1"):
        assert fail_each_call(monkeypatch, spanning(), "vm1") > 10
    assert two.ping("vm1/a", "10.9.0.12")[0]
