# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bridges and their ports on the real kernel, by iproute2's own words and with packets."""

from __future__ import annotations

import copy
import json
import subprocess
from typing import Any

import pytest
from ansible_collections.nslab.netns.plugins.module_utils import _engine as engine
from ansible_collections.nslab.netns.plugins.module_utils import _options
from ansible_collections.nslab.netns.plugins.module_utils._apply import Application
from ansible_collections.nslab.netns.plugins.module_utils._errors import NslabError, Refused
from ansible_collections.nslab.netns.plugins.module_utils._model import BIRTH_GROUP, BRIDGE_SETTINGS
from ansible_collections.nslab.netns.plugins.module_utils._netlink.session import Session
from ansible_collections.nslab.netns.tests.unit.topologies import Document
from applying import fail_each_call, host_without_lab_traces, kill_at, module, refused, run, words
from throwaway import differences, eventually, ip, ip_json, ping, snapshot, within, without

pytestmark = pytest.mark.usefixtures("host")


def bridge_data(name: str) -> dict[str, Any]:
    found: dict[str, Any] = ip_json(None, "-details", "link", "show", name)[0]["linkinfo"]["info_data"]
    return found


def bridged(**settings: Any) -> Document:
    """The lab L4: two namespaces on a bridge of the host."""
    ports = {"veth-b": {"cost": 7, "hairpin": True}, "veth-s": None}
    return {
        "name": "bridged",
        "namespaces": {
            "host": {"bridges": {"br0": {"mac": "02:00:00:00:00:b0", "ports": ports, **settings}}},
            "beijing": {
                "interfaces": {"eth0-b": {"addresses": ["10.0.0.1/24", {"address": "fd00::1/64", "nodad": True}]}}
            },
            "shanghai": {
                "interfaces": {"eth0-s": {"addresses": ["10.0.0.2/24", {"address": "fd00::2/64", "nodad": True}]}}
            },
        },
        "links": [{"endpoints": ["beijing:eth0-b", "host:veth-b"]}, {"endpoints": ["shanghai:eth0-s", "host:veth-s"]}],
    }


def both(number: int) -> list[Any]:
    return [f"10.0.0.{number}/24", {"address": f"fd00::{number}/64", "nodad": True}]


def bridge_links() -> dict[str, dict[str, Any]]:
    shown = subprocess.run(["bridge", "-json", "-details", "link"], capture_output=True, text=True, check=True).stdout
    passing = ("flags", "state")
    links = json.loads(shown or "[]")
    return {link["ifname"]: {key: value for key, value in link.items() if key not in passing} for link in links}


def test_the_namespaces_reach_each_other_through_the_bridge() -> None:
    before = host_without_lab_traces()
    predicted = run(bridged(), check=True)
    assert not differences(before, host_without_lab_traces())
    assert run(bridged()) == predicted
    assert run(bridged()) == []
    assert predicted[-1] == "change link host:br0 up"
    for source, to in (("beijing", "10.0.0.2"), ("shanghai", "10.0.0.1"), ("beijing", "fd00::2")):
        assert ping(source, to)[0]
    shown = subprocess.run(["bridge", "-json", "fdb", "show", "br", "br0"], capture_output=True, text=True, check=True)
    learnt = {(entry["mac"], entry["ifname"]) for entry in json.loads(shown.stdout)}
    for namespace, inner, outer in (("beijing", "eth0-b", "veth-b"), ("shanghai", "eth0-s", "veth-s")):
        links = ip_json(namespace, "link")
        assert {link["ifname"] for link in links} == {"lo", inner}
        assert (next(link["address"] for link in links if link["ifname"] == inner), outer) in learnt
    run({"name": "bridged"}, absent=True)
    assert not differences(before, host_without_lab_traces())


DRIFT = {
    "bridge down": ("link set br0 down", ["change link host:br0 down -> up"]),
    "MAC": (
        "link set br0 address 02:00:00:00:00:01",
        ["change link host:br0 mac 02:00:00:00:00:01 -> 02:00:00:00:00:b0"],
    ),
    "MTU": ("link set br0 mtu 1400", ["change link host:br0 mtu 1400 -> 1500"]),
    "setting": ("link set br0 type bridge ageing_time 100", ["change bridge host:br0 ageing_time 1 -> 300"]),
    "spanning tree": ("link set br0 type bridge stp_state 1", ["change bridge host:br0 stp on -> off"]),
    "address": ("address add 10.0.0.9/24 dev br0", ["remove address host:br0 10.0.0.9/24"]),
    "port out": (
        "link set veth-b nomaster",
        ["add port host:veth-b of br0", "change port host:veth-b cost 7 hairpin on"],
    ),
    "port setting": ("link set veth-b type bridge_slave hairpin off", ["change port host:veth-b hairpin off -> on"]),
    "unsaid port setting": (
        "link set veth-s type bridge_slave learning off",
        ["change port host:veth-s learning off -> on"],
    ),
    "unsaid cost": ("link set veth-s type bridge_slave cost 9", ["change port host:veth-s cost 9 -> 2"]),
}


@pytest.mark.parametrize("name", DRIFT)
def test_drift_is_named_and_repaired_and_nothing_else_is_touched(name: str) -> None:
    command, changes = DRIFT[name]
    run(bridged())
    right = snapshot()
    ip(*command.split())
    assert run(bridged(), check=True) == changes
    assert run(bridged()) == changes
    assert run(bridged()) == []
    assert not differences(right, snapshot())
    assert ping("beijing", "10.0.0.2")[0]


def test_a_port_that_somebody_has_put_on_another_bridge_comes_back() -> None:
    run(bridged())
    ip("link", "add", "br9", "type", "bridge")
    ip("link", "set", "veth-b", "master", "br9")
    assert run(bridged())[0] == "change port host:veth-b of br9 -> br0"
    assert ip_json(None, "link", "show", "br9")
    assert ping("beijing", "10.0.0.2")[0]


def test_a_port_that_somebody_has_added_leaves() -> None:
    run(bridged())
    ip("link", "add", "tap9", "type", "ifb")
    ip("link", "set", "tap9", "master", "br0")
    assert run(bridged()) == ["remove port host:tap9 of br0"]
    assert "master" not in ip_json(None, "link", "show", "tap9")[0]


def test_a_deleted_bridge_is_made_again_and_the_links_keep_their_indexes() -> None:
    run(bridged())
    before = {link["ifname"]: link["ifindex"] for link in ip_json(None, "link") if link["ifname"] != "br0"}
    ip("link", "delete", "br0")
    run(bridged())
    assert {link["ifname"]: link["ifindex"] for link in ip_json(None, "link") if link["ifname"] != "br0"} == before
    assert ping("beijing", "10.0.0.2")[0]
    assert run(bridged()) == []


def test_settings_reach_the_kernel() -> None:
    settings = {
        "stp": True,
        "ageing_time": 1.5,
        "forward_delay": 4,
        "multicast_snooping": False,
        "group_fwd_mask": 16384,
    }
    run(bridged(**settings))
    assert run(bridged(**settings)) == []
    found = bridge_data("br0")
    assert (found["stp_state"], found["ageing_time"], found["forward_delay"]) == (1, 150, 400)
    assert (found["mcast_snooping"], found["group_fwd_mask"]) == (0, "0x4000")
    (change,) = run(bridged())
    assert change == (
        "change bridge host:br0 "
        "ageing_time 1.5 forward_delay 4 group_fwd_mask 16384 multicast_snooping off stp on -> "
        "300 forward_delay 15 group_fwd_mask 0 multicast_snooping on stp off"
    )


def test_every_port_setting_reaches_the_kernel() -> None:
    document = bridged()
    ports = document["namespaces"]["host"]["bridges"]["br0"]["ports"]
    flags = ("hairpin", "guard", "learning", "flood", "isolated", "neigh_suppress", "mcast_flood")
    defaults = bridged()
    run(defaults)
    before = bridge_links()["veth-s"]
    ports["veth-s"] = {"cost": 11, "priority": 5, **{flag: not before[flag] for flag in flags}}
    run(document)
    assert run(document) == []
    after = bridge_links()["veth-s"]
    assert (after["cost"], after["priority"]) == (11, 5)
    assert {flag: after[flag] for flag in flags} == {flag: not before[flag] for flag in flags}
    run(defaults)
    assert bridge_links()["veth-s"] == before


def test_a_bridge_has_the_mtu_that_is_asked_for_whatever_its_ports_have() -> None:
    run(bridged(mtu=1400))
    assert ip_json(None, "link", "show", "br0")[0]["mtu"] == 1400
    document = bridged(mtu=1500)
    document["namespaces"]["beijing"]["interfaces"]["eth0-b"]["mtu"] = 1300
    document["namespaces"]["host"]["interfaces"] = {"veth-b": {"mtu": 1300}}
    run(document)
    assert run(document) == []
    assert ip_json(None, "link", "show", "br0")[0]["mtu"] == 1500
    del document["namespaces"]["host"]["bridges"]["br0"]["mtu"]
    run(document)
    assert ip_json(None, "link", "show", "br0")[0]["mtu"] == 1300


def test_addresses_of_a_bridge_with_its_own_mtu_survive_small_ports_that_leave_last() -> None:
    document = bridged(mtu=1500, addresses=[{"address": "fd00::9/64", "nodad": True}])
    document["namespaces"]["beijing"]["interfaces"]["eth0-b"] = {"mtu": 1200}
    document["namespaces"]["host"]["interfaces"] = {"veth-b": {"mtu": 1200}}
    run(document)
    document["namespaces"]["host"]["bridges"]["br0"] = {"ports": {}}
    predicted = run(document, check=True)
    assert "remove address host:br0 fd00::9/64 nodad" in predicted
    assert run(document) == predicted
    assert run(document) == []


def spanning(**settings: Any) -> Document:
    """Two bridges on one wire; the host's is the root, with a delay of its own."""
    root = {"mac": "02:00:00:00:00:01", "stp": True, "forward_delay": 4, "ports": {"r0": {}}}
    other = {"mac": "02:00:00:00:00:02", "ports": {"e0": {}}, **settings}
    namespaces = {"host": {"bridges": {"br0": root}}, "other": {"bridges": {"br0": other}}}
    return {"name": "tree", "namespaces": namespaces, "links": [{"endpoints": ["host:r0", "other:e0"]}]}


def delay_in_other() -> int:
    found: int = ip_json("other", "-details", "link", "show", "br0")[0]["linkinfo"]["info_data"]["forward_delay"]
    return found


def test_what_a_bridge_has_from_the_root_of_the_spanning_tree_is_no_drift() -> None:
    run(spanning(stp=True, forward_delay=9))
    eventually(lambda: delay_in_other() == 400, "the bridge follows the root")
    assert run(spanning(stp=True, forward_delay=9)) == []
    # What could not be seen is set once the spanning tree goes.
    run(spanning(stp=False, forward_delay=9))
    run({**spanning(forward_delay=9), "links": [], "namespaces": {"other": {"bridges": {"br0": {"ports": {}}}}}})
    assert delay_in_other() == 1500


def test_what_a_spanning_tree_changes_as_it_ends_does_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel shortens ``ageing_time`` when the topology changes, here between the plan and its first step."""

    def has_tree(bridge: dict[str, Any]) -> dict[str, Any]:
        return {"name": "tree", "namespaces": {"host": {"bridges": {"br0": {"ports": {"far": {}}, **bridge}}}}}

    def shown(name: str) -> int:
        found: int = ip_json(None, "-details", "link", "show", "br0")[0]["linkinfo"]["info_data"][name]
        return found

    ip("link", "add", "near", "up", "type", "veth", "peer", "name", "far")
    run(has_tree({"stp": True, "forward_delay": 2}))
    ip("link", "set", "br0", "type", "bridge", "max_age", "600")
    ip("link", "set", "far", "up")
    eventually(lambda: shown("topology_change") == 1, "the port forwards")
    eventually(lambda: shown("topology_change") == 0, "the tree is at rest")
    apply = Application.apply

    def on_a_new_tree(application: Application) -> None:
        ip("link", "set", "near", "down")
        ip("link", "set", "near", "up")
        eventually(lambda: shown("ageing_time") == 400, "the topology changes")
        apply(application)

    monkeypatch.setattr(Application, "apply", on_a_new_tree)
    assert run(has_tree({})) == ["change bridge host:br0 forward_delay 2 stp on -> 15 stp off"]
    assert shown("ageing_time") == 30000


@pytest.mark.once
@pytest.mark.parametrize("way", ["create", "change", "remove"])
def test_every_failing_call_leaves_the_host_as_it_was(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    document = bridged(stp=True, ageing_time=9, addresses=["10.0.0.3/24"])
    if way != "create":
        run(bridged())
    if way == "change":
        document["namespaces"]["host"]["bridges"]["br1"] = {"ports": {"veth-b": {"isolated": True}}}
        document["namespaces"]["host"]["bridges"]["br0"]["ports"] = {"veth-s": {"priority": 3}}
    elif way == "remove":
        document = {"name": "bridged"}
    assert fail_each_call(monkeypatch, document) > 5
    assert run(document) == []


@pytest.mark.parametrize("count", range(1, 25))
def test_kill_at_any_step_then_one_run_converges(count: int) -> None:
    document = bridged()
    before = host_without_lab_traces()
    kill_at(count, document)
    run(document)
    assert run(document) == []
    assert ping("beijing", "10.0.0.2")[0]
    run({"name": "bridged"}, absent=True)
    assert not differences(before, host_without_lab_traces())


def marks() -> set[tuple[str, str, str]]:
    return {(link["ifname"], link.get("ifalias", ""), link["group"]) for link in ip_json(None, "link", "show")}


@pytest.mark.parametrize("count", range(1, 9))
def test_links_that_are_removed_together_go_or_stay_however_the_run_is_killed(count: int) -> None:
    before = host_without_lab_traces()
    run(bridged())
    right = marks()
    kill_at(count, {"name": "bridged"})
    run(bridged())
    assert run(bridged()) == []
    assert marks() == right
    kill_at(count, {"name": "bridged"})
    run({"name": "bridged"}, absent=True)
    assert not differences(before, host_without_lab_traces())


@pytest.mark.parametrize("group", [0, BIRTH_GROUP])
def test_only_the_labs_links_are_removed_together(group: int) -> None:
    run(bridged())
    ip("link", "add", "theirs", "group", str(group), "type", "bridge")
    ip("link", "set", "theirs", "alias", "nslab:other")
    run({"name": "bridged"})
    assert {link["ifname"] for link in ip_json(None, "link", "show")} == {"lo", "theirs"}


def test_a_link_that_goes_while_others_are_removed_together_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    run(bridged())
    request = Session.request
    gone: list[str] = []

    def and_remove(self: Session, kind: int, flags: int, payload: bytes) -> None:
        if not gone:
            gone.append("veth-b")
            ip("link", "delete", "veth-b")
        request(self, kind, flags, payload)

    monkeypatch.setattr(Session, "request", and_remove)
    run({"name": "bridged"})
    assert gone
    assert [link["ifname"] for link in ip_json(None, "link", "show")] == ["lo"]


def test_a_bridge_that_a_killed_run_has_not_come_to_mark_is_the_labs() -> None:
    ip("link", "add", "br0", "group", str(BIRTH_GROUP), "type", "bridge")
    run(bridged())
    link = ip_json(None, "link", "show", "br0")[0]
    assert (link["ifalias"], link["group"]) == ("nslab:bridged", "default")
    assert run(bridged()) == []


# --- what is somebody else's ------------------------------------------------------------------------------------------


def test_a_foreign_bridge_is_refused_unless_adopted() -> None:
    ip("link", "add", "br0", "type", "bridge")
    assert "namespaces.host.bridges.br0: the bridge host:br0 exists already and is not marked as" in refused(bridged())
    run(bridged(), adopt=True)
    assert run(bridged()) == []


def test_another_device_of_the_name_is_refused() -> None:
    ip("link", "add", "br0", "type", "ifb")
    assert "host:br0 exists already and is an ifb device, no bridge" in refused(bridged())


def test_a_port_of_a_foreign_bridge_is_refused_and_a_foreign_link_comes_home() -> None:
    ip("link", "add", "br9", "type", "bridge")
    ip("link", "add", "phys0", "type", "ifb")
    ip("link", "set", "phys0", "master", "br9")
    document = bridged()
    document["namespaces"]["host"]["bridges"]["br0"]["ports"]["phys0"] = None
    text = "namespaces.host.bridges.br0.ports.phys0: host:phys0 is a port of the bridge br9 already"
    assert text in refused(document)
    before = host_without_lab_traces()
    run(document, adopt=True)
    assert run(document) == []
    assert ip_json(None, "link", "show", "phys0")[0]["master"] == "br0"
    run({"name": "bridged"}, absent=True)
    assert not differences(before, host_without_lab_traces())


def test_a_port_that_is_not_there_is_refused() -> None:
    document = bridged()
    document["namespaces"]["host"]["bridges"]["br0"]["ports"]["veth-x"] = None
    text = "namespaces.host.bridges.br0.ports.veth-x: there is no link 'veth-x' in the namespace host; did you mean"
    assert text in refused(document)


# --- the granular modules ---------------------------------------------------------------------------------------------


def bridge(name: str, state: str = "present", **more: Any) -> list[str]:
    unsaid = dict.fromkeys(("addresses", "mtu", "mac", *BRIDGE_SETTINGS, "vlans"))
    return module(
        _options.bridge,
        **{**unsaid, "name": name, "namespace": "host", "state": state, "up": True, "purge": False, **more},
    )


def bridge_port(bridge: str, *ports: Any, **more: Any) -> list[str]:
    options = {"state": "present", "purge": False, "move": False, **more}
    return module(_options.bridge_port, bridge=bridge, namespace="host", ports=list(ports), **options)


def test_ports_of_a_bridge_that_is_not_there_are_predicted_and_refused() -> None:
    """An earlier task of a check run may be about to make it."""
    add_links("x")
    before = snapshot()
    options = {"state": "present", "purge": False, "move": False, "lab": None}
    read = _options.bridge_port({"bridge": "br7", "namespace": "host", "ports": ["x"], **options})
    plan = engine.run(read, check=True)
    assert "add port host:x of br7" in words(plan)
    assert plan.assumptions
    with pytest.raises(Refused, match="br7"):
        bridge_port("br7", "x")
    with pytest.raises(Refused, match="nowhere"):
        module(_options.bridge_port, bridge="br7", ports=["x"], **{**options, "namespace": "nowhere"})
    folder = "/run/nslab"
    assert not differences(without(before, folder), without(snapshot(), folder))


def add_links(*names: str) -> None:
    for name in names:
        ip("link", "add", name, "type", "ifb")


def test_a_bridge_comes_is_set_up_and_goes() -> None:
    assert bridge("br0", ageing_time=60.0, addresses=["10.0.0.1/24"]) == [
        "add bridge host:br0 ageing_time 60",
        "add address host:br0 10.0.0.1/24",
        "change link host:br0 up",
    ]
    assert bridge("br0", ageing_time=60.0, addresses=["10.0.0.1/24"]) == []
    assert bridge("br0", stp=True) == ["change bridge host:br0 stp off -> on"]
    found = bridge_data("br0")
    assert (found["ageing_time"], found["stp_state"]) == (6000, 1)
    assert bridge("br0", addresses=[], purge=True) == ["remove address host:br0 10.0.0.1/24"]
    assert bridge("br0", state="absent") == ["remove bridge host:br0"]
    assert bridge("br0", state="absent") == []


def test_ports_come_and_go_and_what_is_not_said_stays() -> None:
    add_links("p0", "p1", "p2")
    bridge("br0")
    assert bridge_port("br0", "p0", {"name": "p1", "hairpin": True, "cost": 9}) == [
        "add port host:p0 of br0",
        "add port host:p1 of br0",
        "change port host:p1 cost 9 hairpin on",
    ]
    ip("link", "set", "p0", "type", "bridge_slave", "learning", "off")
    assert bridge_port("br0", "p0", "p1") == []
    assert bridge_port("br0", "p2", purge=True) == [
        "remove port host:p0 of br0",
        "remove port host:p1 of br0",
        "add port host:p2 of br0",
    ]
    assert bridge_port("br0", "p1", "p2", state="absent") == ["remove port host:p2 of br0"]
    assert bridge_port("br0", "p1", "p2", state="absent") == []
    assert bridge_links() == {}


def test_a_port_changes_bridges_only_if_asked_to() -> None:
    add_links("p0")
    bridge("br0")
    bridge("br1")
    bridge_port("br0", "p0")
    with pytest.raises(Refused, match=r"ports\[0\]: host:p0 is a port of the bridge br0 already; .*'move: true'"):
        bridge_port("br1", "p0")
    assert bridge_port("br1", "p0", move=True) == ["change port host:p0 of br0 -> br1"]
    assert ip_json(None, "link", "show", "p0")[0]["master"] == "br1"


@pytest.mark.once
@pytest.mark.parametrize("what", ["lo", "br1", "br0"])
def test_what_can_be_no_port_is_refused(what: str) -> None:
    bridge("br0")
    bridge("br1")
    before = snapshot()
    with pytest.raises(NslabError, match="can be no port"):
        bridge_port("br0", what)
    assert not differences(before, snapshot())


def test_absent_removes_no_other_device() -> None:
    add_links("p0")
    with pytest.raises(Refused, match="host:p0 is an ifb device, no bridge; it is not removed"):
        bridge("p0", state="absent")


def test_more_ports_than_a_bridge_takes_are_refused() -> None:
    bridge("br0")
    ip_lines = [f"link add p{number} type ifb" for number in range(3)]
    for line in ip_lines:
        ip(*line.split())
    names = [f"q{number}" for number in range(1022)]
    with pytest.raises(NslabError, match="1024 ports; the kernel lets a bridge have 1023"):
        bridge_port("br0", *names, "p0", "p1")


def test_a_copy_of_a_document_with_a_bridge_in_a_namespace_works() -> None:
    document = copy.deepcopy(bridged())
    namespaces = document["namespaces"]
    namespaces["switch"] = namespaces.pop("host")
    namespaces["switch"]["bridges"]["br0"]["addresses"] = ["10.0.0.3/24"]
    document["links"] = [
        {"endpoints": [end.replace("host", "switch") for end in link["endpoints"]]} for link in document["links"]
    ]
    run(document)
    assert run(document) == []
    assert ping("beijing", "10.0.0.2")[0]
    assert ping("switch", "10.0.0.1")[0]


# --- the MAC of a bridge ----------------------------------------------------------------------------------------------


def without_mac(*ends: str, where: str = "b") -> Document:
    """A bridge without a MAC of its own, with these ports."""
    return {
        "name": "lab",
        "namespaces": {"a": {}, where: {"bridges": {"br0": {"ports": list(ends)}}}},
        "links": [{"endpoints": [f"a:{end}", f"{where}:{end}"]} for end in ends],
    }


def macs() -> tuple[str, set[str]]:
    links = ip_json("b", "link")
    bridge = next(link["address"] for link in links if link["ifname"] == "br0")
    return bridge, {link["address"] for link in links if link.get("master") == "br0"}


def test_a_bridge_whose_mac_was_changed_gets_that_of_a_port() -> None:
    run(without_mac("e0", "e1"))
    index = ip_json("b", "link", "show", "br0")[0]["ifindex"]
    ip("-netns", "b", "link", "set", "br0", "address", "02:00:00:00:00:dd")
    predicted = run(without_mac("e0", "e1"), check=True)
    assert [line.startswith("change link b:br0 mac 02:00:00:00:00:dd -> ") for line in predicted] == [True]
    assert run(without_mac("e0", "e1")) == predicted
    assert run(without_mac("e0", "e1")) == []
    # It does not follow its ports any more, and is right nevertheless.
    for ends in (("e0", "e1", "e2"), ("e2", "e3"), ("e5", "e4"), ("e6",), (), ("e7",)):
        predicted = run(without_mac(*ends), check=True)
        assert run(without_mac(*ends)) == predicted
        assert run(without_mac(*ends)) == []
        bridge, ports = macs()
        assert bridge in ports or not ports
    assert ip_json("b", "link", "show", "br0")[0]["ifindex"] == index


def test_a_mac_that_has_left_the_document_goes() -> None:
    document = without_mac("e0", "e1")
    document["namespaces"]["b"]["bridges"]["br0"]["mac"] = "02:00:00:00:00:b0"
    run(document)
    assert macs()[0] == "02:00:00:00:00:b0"
    assert len(run(without_mac("e0", "e1"))) == 1
    assert run(without_mac("e0", "e1")) == []
    bridge, ports = macs()
    assert bridge in ports


def test_on_the_host_udev_may_choose_the_mac_of_a_bridge() -> None:
    document = without_mac("e0", "e1", where="host")
    run(document)
    # As systemd-udevd does for each new bridge, some time after it was made.
    ip("link", "set", "br0", "address", "02:00:00:00:00:dd")
    assert run(document) == []
    assert [line for line in run(without_mac("e2", where="host")) if " mac " in line] == []
    assert run(without_mac("e2", where="host")) == []
    assert ip_json(None, "link", "show", "br0")[0]["address"] == "02:00:00:00:00:dd"


# --- what the kernel does not take ------------------------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize("delay", [0, 1, 40])
def test_the_spanning_tree_goes_off_before_its_delay_is_what_it_cannot_be(delay: int) -> None:
    run(bridged(stp=True))
    before = snapshot()
    assert run(bridged(forward_delay=delay)) == [f"change bridge host:br0 forward_delay 15 stp on -> {delay} stp off"]
    assert run(bridged(forward_delay=delay)) == []
    run(bridged(stp=True))
    assert not differences(before, snapshot())


def test_a_delay_that_the_bridges_spanning_tree_does_not_take_is_refused() -> None:
    bridge("b", stp=True)
    with pytest.raises(Refused, match=r"^forward_delay: the bridge would have a forward_delay of 40 \(seconds\)"):
        bridge("b", forward_delay=40)
    bridge("b", stp=False, forward_delay=40)
    with pytest.raises(Refused, match=r"^stp: the bridge would have a forward_delay of 40 \(seconds\)"):
        bridge("b", stp=True)


def test_without_vlans_in_the_kernel_they_are_refused_or_fail_in_words() -> None:
    ip("link", "add", "probe", "type", "bridge")
    if "vlan_default_pvid" in bridge_data("probe"):
        pytest.skip("this kernel can filter VLANs on bridges")
    lacking = "the kernel of this host cannot filter VLANs on bridges"
    with pytest.raises(NslabError, match=f"{lacking}.*Everything that this run had done was taken back"):
        bridge("b", vlan_filtering=True)
    bridge("b")
    before = snapshot()
    for settings in ({"vlan_filtering": True}, {"vlan_default_pvid": 5}):
        with pytest.raises(Refused, match=rf"^{next(iter(settings))}: {lacking}"):
            bridge("b", **settings)
    assert not differences(before, snapshot())


# --- a port of somebody else's bridge ---------------------------------------------------------------------------------


def test_a_port_comes_home_with_its_settings() -> None:
    ip("link", "add", "theirs", "type", "bridge")
    ip("link", "add", "p0", "type", "veth", "peer", "name", "p1")
    ip("link", "set", "p0", "master", "theirs")
    within(None, "bridge", "link", "set", "dev", "p0", "cost", "77", "hairpin", "on", "isolated", "on")
    before = host_without_lab_traces()
    document = {"name": "lab", "namespaces": {"host": {"bridges": {"br0": {"ports": ["p0"]}}}}}
    run(document, adopt=True)
    assert run(document) == []
    run(document, absent=True)
    assert not differences(before, host_without_lab_traces())
