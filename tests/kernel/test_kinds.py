# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dummies, VLANs, macvlans, ipvlans, VXLANs and VRFs, on a real kernel, as far as it has them."""

from __future__ import annotations

import copy
import json
import os
import socket
from typing import Any

import pytest
from ansible_collections.nslab.netns.plugins.module_utils import _engine as engine
from ansible_collections.nslab.netns.plugins.module_utils import _facts, _options
from ansible_collections.nslab.netns.plugins.module_utils._errors import InvalidInput, Refused, StepFailed
from ansible_collections.nslab.netns.tests.unit.topologies import Document
from applying import fail_each_call, failing_call, host_without_lab_traces, module, refused, run, words
from throwaway import differences, ip, ip_json, kernel_has, within


def needs(*kinds: str) -> pytest.MarkDecorator:
    missing = [kind for kind in kinds if not kernel_has(kind)]
    return pytest.mark.skipif(bool(missing), reason=f"this kernel has no {' and no '.join(missing)}")


def lab(**interfaces: Any) -> Document:
    """Two namespaces, a and b, with a wire between them; ``interfaces`` are of a."""
    return {
        "name": "lab",
        "namespaces": {
            "a": {"interfaces": {"eth0": {"addresses": ["10.0.0.1/24"]}, **interfaces}},
            "b": {"interfaces": {"eth0": {"addresses": ["10.0.0.2/24"]}}},
        },
        "links": [{"endpoints": ["a:eth0", "b:eth0"]}],
    }


def details(namespace: str, name: str) -> Any:
    (link,) = ip_json(namespace or None, "-details", "link", "show", "dev", name)
    return link


#: What an interface is, how iproute2 tells it, and what it becomes.
_KINDS = [
    pytest.param({"dummy": True}, {}, None, marks=needs("dummy"), id="dummy"),
    pytest.param(
        {"vlan": {"link": "eth0", "id": 10}},
        {"id": 10, "protocol": "802.1Q"},
        {"vlan": {"link": "eth0", "id": 11, "protocol": "802.1ad"}},
        marks=needs("vlan"),
        id="vlan",
    ),
    pytest.param(
        {"macvlan": {"link": "eth0"}},
        {"mode": "bridge"},
        {"macvlan": {"link": "b:eth0", "mode": "vepa"}},
        marks=needs("macvlan"),
        id="macvlan",
    ),
    pytest.param(
        {"ipvlan": {"link": "eth0", "mode": "l3"}},
        {"mode": "l3"},
        {"ipvlan": {"link": "eth0", "flag": "private"}},
        marks=needs("ipvlan"),
        id="ipvlan",
    ),
    pytest.param(
        {"vxlan": {"id": 77, "remote": "10.0.0.2", "local": "10.0.0.1"}},
        {"id": 77, "remote": "10.0.0.2", "local": "10.0.0.1", "port": 4789, "learning": True},
        {"vxlan": {"id": 77, "group": "239.0.0.1", "link": "eth0", "learning": False, "dstport": 8472}},
        marks=needs("vxlan"),
        id="vxlan",
    ),
    pytest.param(
        {"vrf": {"table": 10, "interfaces": ["eth0"]}},
        {"table": 10},
        {"vrf": {"table": 11}},
        marks=needs("vrf"),
        id="vrf",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("body", "told", "other"), _KINDS)
def test_its_whole_life(host: None, body: Document, told: Any, other: Document | None) -> None:
    before = host_without_lab_traces()
    (kind,) = body
    document = lab(x={**body, "addresses": ["10.9.0.1/24"]})
    predicted = run(document, check=True)
    assert host_without_lab_traces() == before
    assert run(document) == predicted
    assert any(line.startswith(f"add {kind} a:x") for line in predicted)
    assert run(document) == []
    link = details("a", "x")
    data = link["linkinfo"].get("info_data", {})
    assert link["linkinfo"]["info_kind"] == kind
    assert {key: data.get(key) for key in told} == told
    assert link["ifalias"] == "nslab:lab"
    assert "UP" in link["flags"]

    # As somebody else's hands leave it.
    ip("-n", "a", "link", "delete", "x")
    assert any(line.startswith(f"add {kind} a:x") for line in run(document))
    assert run(document) == []

    captured = _facts.gather(None, [], "lab")["topology"]
    assert captured["namespaces"]["a"]["interfaces"]["x"] == document["namespaces"]["a"]["interfaces"]["x"]
    if other:
        assert f"remove {kind} a:x" in run({**document, "namespaces": {**document["namespaces"], **_a(other)}})
        changed = lab(x=other)
        assert run(changed) == []
    # Without it in the document, it goes; and so does all of it in the end.
    assert f"remove {kind} a:x" in run(lab())
    assert run(lab()) == []
    run(document)
    run({"name": "lab"}, absent=True)
    assert run({"name": "lab"}, absent=True) == []
    assert not differences(before, host_without_lab_traces())


def _a(body: Document) -> Document:
    return {"a": lab(x=body)["namespaces"]["a"]}


@pytest.mark.skipif(not kernel_has("vxlan"), reason="this kernel has no vxlan")
def test_what_could_not_be_taken_back_at_first_may_be_gone_later(host: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The MTU of a VXLAN, larger than that of the bridge which it lies on has by then; and its namespace goes."""
    vxlan = {"id": 5, "remote": "10.0.0.99", "link": "host:br0", "dstport": 8472}
    document = {
        "name": "lab",
        "namespaces": {
            "a": {"interfaces": {"e0": {"addresses": ["10.6.0.2/24"], "mtu": 1200}, "k1": {"vxlan": vxlan}}},
            "host": {
                "interfaces": {"h1": {"mtu": 1200}},
                "bridges": {"br0": {"ports": ["h1"], "mtu": 1300}},
            },
        },
        "links": [{"endpoints": ["host:h1", "a:e0"]}],
    }
    assert fail_each_call(monkeypatch, document) > 10


@pytest.mark.parametrize(("body", "told", "other"), _KINDS)
def test_whatever_fails_is_taken_back(
    host: None, monkeypatch: pytest.MonkeyPatch, body: Document, told: Any, other: Document | None
) -> None:
    run(lab())
    before = host_without_lab_traces()
    document = lab(x={**body, "addresses": ["10.9.0.1/24"]})
    number = 0
    while True:
        number += 1
        with failing_call(monkeypatch, number) as calls:
            try:
                run(document)
            except StepFailed:
                assert not differences(before, host_without_lab_traces())
                continue
            assert calls[0] < number
        break
    between = host_without_lab_traces()
    for number in range(1, 60):
        with failing_call(monkeypatch, number) as calls:
            try:
                run(lab(x=other) if other else lab())
            except StepFailed:
                assert not differences(between, host_without_lab_traces())
                continue
            assert calls[0] < number
        break
    assert run(lab(x=other) if other else lab()) == []


@needs("macvlan")
def test_packets_pass_a_macvlan_in_another_namespace(host: None) -> None:
    document = lab()
    document["namespaces"]["c"] = {"interfaces": {"x": {"macvlan": {"link": "a:eth0"}, "addresses": ["10.0.0.3/24"]}}}
    run(document)
    within("c", "ping", "-c1", "-W2", "10.0.0.2")
    assert run(document) == []


@needs("vlan")
def test_packets_are_tagged(host: None) -> None:
    document = lab()
    for number, name in enumerate("ab", 1):
        vlan = {"vlan": {"link": "eth0", "id": 10}, "addresses": [f"10.9.0.{number}/24"]}
        document["namespaces"][name]["interfaces"]["eth0.10"] = vlan
    run(document)
    within("a", "ping", "-c1", "-W2", "10.9.0.2")
    document["namespaces"]["b"]["interfaces"]["eth0.10"]["vlan"]["id"] = 11
    run(document)
    with pytest.raises(AssertionError):
        within("a", "ping", "-c1", "-W1", "10.9.0.2")


@needs("vlan")
def test_a_vlan_follows_what_it_lies_on(host: None) -> None:
    document = lab(
        **{
            "eth0.10": {"vlan": {"link": "eth0", "id": 10}, "addresses": ["10.9.0.1/24", "fd00:9::1/64"]},
            "eth0.20": {"vlan": {"link": "eth0", "id": 20}, "up": False},
        }
    )
    document["namespaces"]["a"]["interfaces"]["eth0"]["mtu"] = 9000
    document["namespaces"]["a"]["routes"] = [{"to": "10.99.0.0/16", "via": "10.9.0.2"}]
    run(document)
    assert run(document) == []
    assert details("a", "eth0.10")["mtu"] == 9000
    assert "UP" not in details("a", "eth0.20")["flags"]
    ip("-n", "a", "link", "set", "eth0", "down")
    run(document)
    assert run(document) == []
    assert "UP" in details("a", "eth0.10")["flags"]
    assert "UP" not in details("a", "eth0.20")["flags"]
    small = copy.deepcopy(document)
    small["namespaces"]["a"]["interfaces"]["eth0"]["mtu"] = 1400
    run(small)
    assert run(small) == []
    assert details("a", "eth0.10")["mtu"] == 1400
    down = copy.deepcopy(small)
    down["namespaces"]["a"]["interfaces"]["eth0"]["up"] = False
    del down["namespaces"]["a"]["routes"]
    assert "a:eth0.10 cannot be up, as a:eth0 is down, on which it lies" in refused(down)
    # But for one that is not bound to it.
    down["namespaces"]["a"]["interfaces"]["eth0.10"]["vlan"]["loose_binding"] = True
    run(down)
    assert run(down) == []
    assert "UP" in details("a", "eth0.10")["flags"]


@needs("vlan")
def test_the_flags_of_a_vlan_are_set_and_minded(host: None) -> None:
    vlan = {"link": "eth0", "id": 10, "reorder_hdr": False, "gvrp": True, "mvrp": True}
    flags = ["GVRP", "LOOSE_BINDING", "MVRP", "REORDER_HDR"]
    for said, shown in ((vlan, ["GVRP", "MVRP"]), ({"link": "eth0", "id": 10}, ["REORDER_HDR"])):
        document = lab(vlan={"vlan": said})
        run(document)
        assert run(document) == []
        assert details("a", "vlan")["linkinfo"]["info_data"]["flags"] == shown
        ip("-n", "a", "link", "set", "vlan", "type", "vlan", "loose_binding", "on")
        assert run(document, check=True) == run(document) != []
        assert sorted(set(details("a", "vlan")["linkinfo"]["info_data"]["flags"]) & set(flags)) == shown
    bound = lab(vlan={"vlan": {"link": "eth0", "id": 10, "bridge_binding": True}})
    assert "interfaces.vlan.vlan.bridge_binding: is for what lies on a bridge; a:eth0 is none" in refused(bound)


@needs("vxlan")
def test_what_somebody_has_changed_of_a_vxlan_is_seen(host: None) -> None:
    vxlan: Document = {"id": 7, "remote": "10.0.0.2"}
    for said in ({}, {"ttl": 5, "tos": 1, "ageing": 60, "df": "set"}):
        document = lab(x={"vxlan": {**vxlan, **said}})
        run(document)
        right = details("a", "x")["linkinfo"]["info_data"]
        assert {key: right.get(key) for key in ("ttl", "ageing")} == {
            "ttl": said.get("ttl", 0),
            "ageing": said.get("ageing", 300),
        }
        for change in (("ttl", "9"), ("tos", "4"), ("df", "inherit"), ("ageing", "77"), ("nolearning",)):
            assert run(document) == []
            ip("-n", "a", "link", "set", "x", "type", "vxlan", "id", "7", *change)
            assert run(document, check=True) == run(document) != [], change
            assert details("a", "x")["linkinfo"]["info_data"] == right


@needs("macvlan")
def test_macvlans_of_one_mac_are_told_apart(host: None) -> None:
    macvlan = {"macvlan": {"link": "eth0"}, "mac": "02:00:00:00:00:01"}
    with pytest.raises(StepFailed, match="another macvlan there, has its MAC address; choose another 'mac'"):
        run(lab(m1=macvlan, m2=macvlan))


@needs("vxlan")
def test_a_number_that_is_taken_is_foreseen(host: None) -> None:
    far = {"vxlan": {"id": 7, "remote": "192.0.2.7", "link_netns": "host"}}
    run({"name": "lab", "namespaces": {"host": {"interfaces": {"x": {"vxlan": {"id": 7, "remote": "192.0.2.8"}}}}}})
    other = {"name": "other", "namespaces": {"c": {"interfaces": {"y": far}}}}
    refused_as = "the vxlan host:x of the lab 'lab' has the number 7 already; choose another one"
    assert refused_as in refused(other)
    # Over IPv6 it is another one.
    far6 = {"vxlan": {"id": 7, "remote": "2001:db8::7", "link_netns": "host"}}
    run({"name": "other", "namespaces": {"c": {"interfaces": {"y": far6}}}})
    # Also where it is in a namespace of which the document says nothing.
    third = {"name": "third", "namespaces": {"d": {"interfaces": {"z": far6}}}}
    assert "the vxlan c:y of the lab 'other' has the number 7 already" in refused(third)
    # Through a namespace of its own it is nobody else's.
    run({"name": "third", "namespaces": {"d": {"interfaces": {"z": {"vxlan": {"id": 7, "remote": "2001:db8::7"}}}}}})


@needs("vlan")
def test_a_vlan_that_is_taken_is_foreseen(host: None) -> None:
    ip("link", "add", "v0", "up", "type", "veth", "peer", "name", "v1")

    def tagged(name: str, number: int) -> Document:
        vlan = {"vlan": {"link": "host:v0", "id": number}}
        return {"name": name, "namespaces": {f"of-{name}": {"interfaces": {"x": vlan}}}}

    run(tagged("one", 10))
    assert run(tagged("one", 10)) == []
    assert "the vlan of-one:x of the lab 'one' has the number 10 on host:v0 already; remove it" in refused(
        tagged("two", 10)
    )
    run(tagged("two", 11))


@needs("vxlan", "macvlan")
def test_they_leave_a_bridge_that_does_not_name_them(host: None) -> None:
    far = {"vxlan": {"id": 7, "remote": "192.0.2.7"}}
    document = lab(x=far, mv={"macvlan": {"link": "eth0"}})
    run(document)
    ip("-n", "a", "link", "add", "bb", "type", "bridge")
    ip("-n", "a", "link", "set", "x", "master", "bb")
    ip("-n", "a", "link", "set", "mv", "master", "bb")
    changes = ["remove port a:x of bb", "remove port a:mv of bb"]
    assert run(document, check=True) == run(document) == changes
    assert run(document) == []


@needs("vxlan")
def test_a_port_that_something_else_has_is_named(host: None) -> None:
    document = lab(x={"vxlan": {"id": 7, "remote": "10.0.0.2", "link_netns": "host", "dstport": 4790}})
    before = host_without_lab_traces()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("", 4790))
        with pytest.raises(StepFailed, match="something else has its UDP port; choose another 'dstport'"):
            run(document)
        assert not differences(before, host_without_lab_traces())
    run(document)
    assert run(document) == []


@needs("vrf")
def test_a_vrf_keeps_its_members_apart(host: None) -> None:
    """Two customers with the same addresses on one router."""
    document: Document = {
        "name": "lab",
        "namespaces": {
            "router": {
                "sysctls": {"net.ipv4.ip_forward": 1},
                "interfaces": {
                    "red": {"vrf": {"table": 10, "interfaces": ["r1", "r2"]}},
                    "blue": {"vrf": {"table": 20, "interfaces": ["b1"]}},
                    "r1": {"addresses": ["10.0.1.1/24"]},
                    "r2": {"addresses": ["10.0.2.1/24", "fd00:2::1/64"]},
                    "b1": {"addresses": ["10.0.1.1/24"]},
                },
                "routes": [{"to": "10.7.0.0/16", "via": "10.0.2.2", "table": 10}],
            },
            **{
                name: {
                    "interfaces": {"eth0": {"addresses": [f"{net}.2/24"]}, "lo": {"addresses": more}},
                    "routes": [{"to": "default", "via": f"{net}.1"}],
                }
                for name, net, more in (
                    ("x", "10.0.1", []), ("y", "10.0.2", ["10.7.0.1/32"]), ("z", "10.0.1", []),
                )
            },
        },
        "links": [
            {"endpoints": ["router:r1", "x:eth0"]},
            {"endpoints": ["router:r2", "y:eth0"]},
            {"endpoints": ["router:b1", "z:eth0"]},
        ],
    }  # fmt: skip
    run(document)
    assert run(document) == []
    within("x", "ping", "-c1", "-W2", "10.0.2.2")
    within("x", "ping", "-c1", "-W2", "10.7.0.1")
    with pytest.raises(AssertionError):
        within("z", "ping", "-c1", "-W1", "10.0.2.2")
    # A member changes over, and what it has comes along.
    members = document["namespaces"]["router"]["interfaces"]
    members["red"]["vrf"]["interfaces"] = ["r1"]
    members["blue"]["vrf"]["interfaces"] = ["b1", "r2"]
    document["namespaces"]["router"]["routes"][0]["table"] = 20
    assert "change link router:r2 vrf red -> blue" in run(document)
    assert run(document) == []
    within("z", "ping", "-c1", "-W2", "10.0.2.2")


def test_somebody_elses_is_refused(host: None) -> None:
    run(lab())
    ip("-n", "a", "link", "add", "x", "type", "bridge")
    assert "a:x exists already and is a bridge device, not a macvlan (link eth0)" in refused(
        lab(x={"macvlan": {"link": "eth0"}})
    )
    ip("-n", "a", "link", "delete", "x")
    ip("-n", "a", "link", "add", "x", "link", "eth0", "type", "macvlan", "mode", "vepa")
    assert "is a macvlan (link eth0 mode vepa), not a macvlan (link eth0)" in refused(
        lab(x={"macvlan": {"link": "eth0"}})
    )
    run(lab(x={"macvlan": {"link": "eth0", "mode": "vepa"}}), adopt=True)
    assert details("a", "x")["ifalias"] == "nslab:lab"


def test_the_module_makes_one_and_removes_it(host: None) -> None:
    ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
    options = {"name": "x", "namespace": None, "addresses": None, "purge": False, "macvlan": {"link": "v0"}}
    assert module(_options.ns_link, **options) == ["add macvlan host:x link v0"]
    assert module(_options.ns_link, **options) == []
    on_it = {**options, "name": "y", "macvlan": {"link": "x"}}
    with pytest.raises(Refused, match=r"macvlan.link: host:x is a macvlan itself; say what that lies on, host:v0"):
        module(_options.ns_link, **on_it)
    gone = {"name": "x", "namespace": None, "state": "absent"}
    assert module(_options.ns_link, **gone) == ["remove macvlan host:x"]
    assert module(_options.ns_link, **gone) == []


def test_what_lies_on_what_goes_is_told(host: None) -> None:
    run(lab())
    ip("-n", "a", "link", "add", "x", "link", "eth0", "type", "macvlan")
    changed = lab()
    changed["links"], changed["namespaces"]["a"]["interfaces"], changed["namespaces"]["b"]["interfaces"] = [], {}, {}
    # In a namespace of the lab all is its own.
    assert "remove macvlan a:x" in run(changed, warned=[])
    run(lab())
    ip("-n", "a", "link", "add", "x", "link", "eth0", "netns", str(os.getpid()), "type", "macvlan")
    assert "remove macvlan host:x" in run(changed, warned=["the macvlan host:x lies on a:eth0, and goes with it"])


@pytest.mark.parametrize("goes", ["out of the document", "with the lab", "by a module"])
def test_what_others_have_on_what_goes_is_told_wherever_it_is(host: None, goes: str) -> None:
    document = lab()
    document["namespaces"]["host"] = {"interfaces": {"up0": {}}}
    document["namespaces"]["a"]["interfaces"]["eth1"] = {}
    document["links"].append({"endpoints": ["host:up0", "a:eth1"]})
    run(document)
    run({"name": "two", "namespaces": {"c": {}}})
    ip("link", "add", "x", "link", "up0", "netns", "c", "type", "macvlan")
    told = ["the macvlan c:x of the lab 'two' lies on host:up0, and goes with it"]
    if goes == "out of the document":
        changed = run(lab(), warned=told)
    elif goes == "with the lab":
        changed = run({"name": "lab"}, absent=True, warned=told)
    else:
        options = {"name": "up0", "namespace": None, "peer": None, "lab": "lab", "state": "absent"}
        changed = module(_options.veth, **options)
    assert "remove macvlan c:x" in changed
    assert not [link for link in ip_json("c", "link") if link["ifname"] == "x"]


def vlans(namespace: str, name: str) -> list[tuple[int, list[str]]]:
    """As ``bridge vlan`` tells them."""
    (found,) = json.loads(within(namespace, "bridge", "-json", "vlan", "show", "dev", name)) or [{"vlans": []}]
    return [(vlan["vlan"], vlan.get("flags", [])) for vlan in found["vlans"]]


@needs("vlan")
def test_a_bridge_minds_vlans_of_tagged_and_untagged_hosts(host: None) -> None:
    """A trunk to a host that tags, two access ports, and the bridge itself as the router of one VLAN."""
    document: Document = {
        "name": "lab",
        "namespaces": {
            "switch": {
                "bridges": {
                    "br0": {
                        "vlan_filtering": True,
                        "vlans": [10],
                        "ports": {
                            "trunk": {"vlans": [10, 20]},
                            "red": {"vlans": [{"vid": 10, "pvid": True, "untagged": True}]},
                            "blue": {"vlans": [{"vid": 20, "pvid": True, "untagged": True}]},
                        },
                    }
                },
                "interfaces": {"br0.10": {"vlan": {"link": "br0", "id": 10}, "addresses": ["10.0.10.254/24"]}},
            },
            "tagging": {
                "interfaces": {
                    "eth0.10": {"vlan": {"link": "eth0", "id": 10}, "addresses": ["10.0.10.1/24"]},
                    "eth0.20": {"vlan": {"link": "eth0", "id": 20}, "addresses": ["10.0.20.1/24"]},
                }
            },
            "red": {"interfaces": {"eth0": {"addresses": ["10.0.10.2/24"]}}},
            "blue": {"interfaces": {"eth0": {"addresses": ["10.0.10.3/24", "10.0.20.3/24"]}}},
        },
        "links": [
            {"endpoints": ["switch:trunk", "tagging:eth0"]},
            {"endpoints": ["switch:red", "red:eth0"]},
            {"endpoints": ["switch:blue", "blue:eth0"]},
        ],
    }
    before = host_without_lab_traces()
    predicted = run(document, check=True)
    assert run(document) == predicted
    assert run(document) == []
    assert vlans("switch", "br0") == [(10, [])]
    assert vlans("switch", "red") == [(10, ["PVID", "Egress Untagged"])]
    within("tagging", "ping", "-c1", "-W2", "10.0.10.2")
    within("tagging", "ping", "-c1", "-W2", "10.0.20.3")
    within("red", "ping", "-c1", "-W2", "10.0.10.254")
    with pytest.raises(AssertionError):
        within("red", "ping", "-c1", "-W1", "10.0.10.3")
    # By hand, and repaired.
    within("switch", "bridge", "vlan", "add", "dev", "br0", "vid", "30", "self")
    within("switch", "bridge", "vlan", "delete", "dev", "trunk", "vid", "20")
    assert run(document) == [
        "change bridge switch:br0 vlans 10, 30 -> 10",
        "change port switch:trunk vlans 10 -> 10, 20",
    ]
    captured = _facts.gather(None, [], "lab")["topology"]
    assert run(captured) == []
    run({"name": "lab"}, absent=True)
    assert not differences(before, host_without_lab_traces())


@needs("vlan")
@pytest.mark.parametrize("new", [0, 5])
def test_ports_follow_the_default_vlan(host: None, monkeypatch: pytest.MonkeyPatch, new: int) -> None:
    document = lab()
    document["namespaces"]["a"]["bridges"] = {"br0": {"ports": {"eth0": {}}}}
    document["namespaces"]["a"]["interfaces"] = {}
    run(document)
    before = host_without_lab_traces()
    changed = copy.deepcopy(document)
    changed["namespaces"]["a"]["bridges"]["br0"]["vlan_default_pvid"] = new
    with failing_call(monkeypatch, 2), pytest.raises(StepFailed):
        run({**changed, "namespaces": {**changed["namespaces"], "c": {}}})
    assert not differences(before, host_without_lab_traces())
    assert vlans("a", "eth0") == [(1, ["PVID", "Egress Untagged"])]
    run(changed)
    assert run(changed) == []
    assert vlans("a", "eth0") == vlans("a", "br0") == ([(5, ["PVID", "Egress Untagged"])] if new else [])
    run(document)
    assert run(document) == []
    assert vlans("a", "eth0") == vlans("a", "br0") == [(1, ["PVID", "Egress Untagged"])]


@needs("vrf")
def test_members_of_a_vrf_keep_what_somebody_else_gave_them(host: None) -> None:
    ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
    for name in ("v0", "v1"):
        ip("link", "set", name, "up")
    ip("address", "add", "10.1.0.1/24", "dev", "v0")
    ip("address", "add", "fd01::1/64", "dev", "v0", "nodad")
    ip("route", "add", "fd02::/64", "dev", "v0", "table", "77")
    ip("route", "add", "10.2.0.0/16", "via", "10.1.0.2")

    def addresses() -> set[str]:
        (found,) = ip_json(None, "address", "show", "dev", "v0")
        return {address["local"] for address in found["addr_info"] if address["scope"] == "global"}

    wanted = {"lab": None, "name": "red", "namespace": None, "addresses": None, "purge": False, "up": True}
    wanted["vrf"] = {"table": 10, "interfaces": ["v0"]}
    predicted = engine.run(_options.ns_link(wanted), check=True)
    done = engine.run(_options.ns_link(wanted))
    assert words(done) == words(predicted)
    assert done.warnings == predicted.warnings
    assert "the route host 10.2.0.0/16 via 10.1.0.2 dev v0 has gone and is not added again" in " ".join(done.warnings)
    assert addresses() == {"10.1.0.1", "fd01::1"}
    assert ip_json(None, "-6", "route", "show", "table", "77")
    assert module(_options.ns_link, **wanted) == []
    # To purge its members says nothing of its addresses.
    ip("address", "add", "192.0.2.1/32", "dev", "red")
    with pytest.raises(InvalidInput, match=r"addresses: is missing, or 'vrf\.interfaces'"):
        module(_options.ns_link, **{**wanted, "vrf": {"table": 10}, "purge": True})
    assert module(_options.ns_link, **{**wanted, "purge": True}) == []
    empty = {**wanted, "vrf": {"table": 10, "interfaces": []}, "purge": True}
    assert module(_options.ns_link, **empty)[0] == "change link host:v0 vrf red -> none"
    assert addresses() == {"10.1.0.1", "fd01::1"}
    assert "192.0.2.1" in ip("address", "show", "dev", "red")
    module(_options.ns_link, **wanted)
    module(_options.ns_link, name="red", namespace=None, state="absent")
    assert addresses() == {"10.1.0.1", "fd01::1"}
    assert ip_json(None, "-6", "route", "show", "table", "77")


@needs("ipvlan")
def test_an_ipvlan_does_not_change_the_mode_of_others(host: None) -> None:
    ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
    ip("link", "add", "theirs", "link", "v0", "type", "ipvlan", "mode", "l3")
    document: Document = {"name": "lab", "namespaces": {"a": {"interfaces": {"x": {"ipvlan": {"link": "host:v0"}}}}}}
    assert (
        "namespaces.a.interfaces.x.ipvlan: the ipvlan host:theirs lies on host:v0 already, and all on one link are of "
        "one mode and flag; its are 'mode: l3' and 'flag: bridge'"
    ) in refused(document)
    document["namespaces"]["a"]["interfaces"]["x"]["ipvlan"]["mode"] = "l3"
    run(document)
    # Its own ones change together.
    ip("link", "delete", "theirs")
    document["namespaces"]["a"]["interfaces"] |= {"y": {"ipvlan": {"link": "host:v0", "mode": "l3"}}}
    run(document)
    for name in ("x", "y"):
        document["namespaces"]["a"]["interfaces"][name]["ipvlan"]["mode"] = "l2"
    assert run(document)
    assert run(document) == []


@pytest.mark.parametrize(
    ("theirs", "ours", "why"),
    [
        pytest.param(
            "macvlan mode passthru",
            {"macvlan": {"link": "host:v0"}},
            "the macvlan host:theirs lies on host:v0 already, and a 'passthru' is alone on its link",
            id="passthru",
        ),
        pytest.param(
            "ipvlan",
            {"macvlan": {"link": "host:v0"}},
            "the ipvlan host:theirs lies on host:v0 already, and shares the link with no macvlan",
            marks=needs("ipvlan"),
            id="ipvlan",
        ),
        pytest.param(
            "vlan id 7",
            {"vlan": {"link": "host:v0", "id": 7}},
            "the vlan host:theirs lies on host:v0 already, and has the same number",
            marks=needs("vlan"),
            id="vlan",
        ),
    ],
)
def test_what_has_no_place_beside_others_is_refused(host: None, theirs: str, ours: Document, why: str) -> None:
    ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
    ip("link", "add", "theirs", "link", "v0", "type", *theirs.split())
    assert why in refused({"name": "lab", "namespaces": {"a": {"interfaces": {"x": ours}}}})


@needs("vrf", "vlan", "ipvlan")
def test_what_cannot_lie_on_a_link_or_be_a_port_is_refused(host: None) -> None:
    for ours, on, why in (
        ({"vlan": {"link": "on", "id": 2}}, {"vrf": {"table": 10}}, "a:on is a vrf device, on which no vlan can lie"),
        ({"macvlan": {"link": "on"}}, {"vrf": {"table": 10}}, "a:on is a vrf device, on which no macvlan can lie"),
        ({"vlan": {"link": "on", "id": 2}}, {"ipvlan": {"link": "eth0"}}, "an ipvlan device, on which no vlan can lie"),
    ):
        assert why in refused(lab(x=ours, on=on))
    for on in ({"vrf": {"table": 10}}, {"ipvlan": {"link": "eth0"}}):
        document = lab(on=on)
        document["namespaces"]["a"]["bridges"] = {"br0": {"ports": ["on"]}}
        assert "which can be no port of a bridge" in refused(document)
    # The link is new, and not up either.
    down = lab(x={"vlan": {"link": "eth0", "id": 2}}, eth0={"up": False})
    assert "a:x cannot be up, as a:eth0 is down, on which it lies" in refused(down)


def test_the_module_makes_one_thing_of_an_interface() -> None:
    options = {"lab": None, "name": "x", "namespace": "a", "addresses": None, "purge": False}
    with pytest.raises(InvalidInput, match=r"^macvlan: an interface is one thing: leave out all but one of"):
        _options.ns_link({**options, "macvlan": {"link": "host:v0"}, "device": {"name": "v0"}})


def late_failure(document: Document) -> Document:
    """With something that this host refuses only when it is done: a service whose program is not there."""
    document["namespaces"]["a"]["services"] = {"no": {"command": "/nowhere/to-be-found"}}
    return document


def test_what_has_its_index_meanwhile_does_not_hinder_the_way_back(host: None) -> None:
    document: Document = {
        "name": "lab",
        "namespaces": {"a": {"interfaces": {"k0": {"macvlan": {"link": "e2"}}}}},
        "links": [{"endpoints": ["a:e2", "a:e0"]}],
    }
    run(document)
    other: Document = {"name": "lab", "namespaces": {"a": {}}, "links": [{"endpoints": ["host:e2", "a:e0"]}]}
    with pytest.raises(StepFailed) as failed:
        run(late_failure(other))
    assert not failed.value.remains
    assert run(document, check=True) == []


def test_a_bridge_that_has_lost_its_last_port_comes_back(host: None) -> None:
    run(
        {
            "name": "lab",
            "namespaces": {"a": {}, "host": {"bridges": {"br0": {"ports": ["e0"]}}}},
            "links": [{"endpoints": ["host:e0", "a:e0"]}],
        }
    )
    ip("link", "delete", "e0")
    with pytest.raises(StepFailed) as failed:
        run(late_failure({"name": "lab", "namespaces": {"a": {}}}))
    assert not failed.value.remains
    assert details("", "br0")
