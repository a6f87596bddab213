# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Devices of the host are moved into namespaces and come home as they were, whatever happens on the way."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.nslab.netns.plugins.module_utils import _devices, _observe, _options
from ansible_collections.nslab.netns.plugins.module_utils import _engine as engine
from ansible_collections.nslab.netns.plugins.module_utils._errors import Refused, StepFailed
from ansible_collections.nslab.netns.plugins.module_utils._facts import gather
from ansible_collections.nslab.netns.plugins.module_utils._model import Connection
from ansible_collections.nslab.netns.plugins.module_utils._plan import Planner
from ansible_collections.nslab.netns.tests.unit.topologies import Document
from applying import fail_each_call, host_without_lab_traces, kill_at, module, netns, refused, run, veth, words
from test_attach import Start, start
from test_ownership import collect, files
from throwaway import differences, eventually, ip, ip_json, ping, sysctls, within

__all__ = ["start"]

pytestmark = pytest.mark.usefixtures("host")

MAC = "02:00:00:00:00:d0"


@pytest.fixture(autouse=True)
def devices(host: None) -> None:
    """Four interfaces of the machine, each of another kind: the end of a veth, a macvlan, a tap, an ifb.

    The first has all that a device can have: addresses and routes of both families, sysctls, an alias, a second name.
    """
    ip("link", "add", "eth1", "address", MAC, "type", "veth", "peer", "name", "far")
    for name in ("eth1", "far"):
        ip("link", "set", name, "up", "addrgenmode", "none")
    ip("link", "set", "eth1", "mtu", "1450", "alias", "to the rack", "txqueuelen", "77", "group", "7")
    ip("link", "property", "add", "dev", "eth1", "altname", "enp0s9")
    for line in ("net.ipv4.conf.eth1.rp_filter=2", "net.ipv6.conf.eth1.accept_ra=0"):
        within(None, "sysctl", "-w", line)
    for address in ("192.0.2.2/24", "192.0.2.3/24", "192.0.77.2/30"):
        ip("address", "add", address, "dev", "eth1")
    ip("address", "add", "192.0.2.9/24", "dev", "eth1", "label", "eth1:web")
    ip("address", "add", "2001:db8::2/64", "dev", "eth1", "nodad")
    ip("route", "add", "203.0.113.0/24", "via", "192.0.2.1", "src", "192.0.2.2", "metric", "7", "proto", "static")
    ip("-6", "route", "add", "2001:db8:9::/64", "via", "2001:db8::1")
    eventually(lambda: "2001:db8::2" in ip("-6", "route", "show", "table", "local"), "the address is usable")
    ip("link", "add", "mv1", "link", "far", "type", "macvlan")
    ip("tuntap", "add", "tap1", "mode", "tap")
    ip("link", "add", "ifb7", "type", "ifb")


def a_lab(name: str = "edge", device: Any = None, inner: str = "wan", **body: Any) -> Document:
    device = {"name": "eth1"} if device is None else device
    interface = {"device": device, "addresses": ["198.51.100.2/24"], **body}
    return {"name": name, "namespaces": {"router": {"interfaces": {inner: interface}}}}


def gone(name: str = "edge", warned: list[str] | None = None) -> list[str]:
    return run({"name": name}, absent=True, warned=warned or [])


def is_as(before: dict[str, Any]) -> None:
    assert [path for path in files() if "lab-" in path] == []
    assert not differences(before, host_without_lab_traces())


def link(namespace: str | None, name: str) -> dict[str, Any]:
    found = [entry for entry in ip_json(namespace, "-details", "address") if entry["ifname"] == name]
    assert found, f"there is no link {name} in {namespace}"
    return found[0]


def names(namespace: str | None) -> list[str]:
    return [entry["ifname"] for entry in ip_json(namespace, "link")]


def moved(name: str = "wan", namespace: str = "router", device: Any = None, **options: Any) -> list[str]:
    """What the module does without a lab."""
    device = {"name": "eth1"} if device is None else device
    options = {"addresses": None, "purge": False, **options}
    return module(_options.ns_link, name=name, namespace=namespace, device=device, **options)


def sent_home(name: str = "wan", namespace: str = "router", **options: Any) -> list[str]:
    return module(_options.ns_link, name=name, namespace=namespace, state="absent", **options)


# --- there and back --------------------------------------------------------------------------------------------------


def test_a_device_goes_and_comes_home_as_it_was() -> None:
    before = host_without_lab_traces()
    predicted = run(a_lab(), check=True)
    assert not differences(before, host_without_lab_traces())
    assert run(a_lab(), warned=[]) == predicted
    assert predicted == [
        "add namespace router",
        "add altname host:eth1 nslab:edge:eth1",
        "move link host:eth1 -> router:wan",
        "add address router:wan 198.51.100.2/24",
        "change link router:wan down -> up",
    ]
    there = link("router", "wan")
    assert [address["local"] for address in there["addr_info"] if address["scope"] == "global"] == ["198.51.100.2"]
    assert (there["address"], there["mtu"], there["ifalias"]) == (MAC, 1450, "to the rack")
    assert there["altnames"] == ["enp0s9", "nslab:edge:eth1"]
    assert "eth1" not in names(None)
    assert run(a_lab()) == []
    predicted = run({"name": "edge"}, absent=True, check=True)
    assert gone() == predicted
    is_as(before)
    assert gone() == []


@pytest.mark.parametrize("device", ["mv1", "tap1", "ifb7", "eth1"])
def test_all_kinds_of_devices_go_and_come_home(device: str) -> None:
    before = host_without_lab_traces()
    # ifb takes no other MAC.
    document = a_lab(device={"name": device}, mtu=1400, **({} if device == "ifb7" else {"mac": "02:00:00:00:00:77"}))
    run(document)
    assert link("router", "wan")["mtu"] == 1400
    assert device == "ifb7" or link("router", "wan")["address"] == "02:00:00:00:00:77"
    assert run(document) == []
    gone()
    is_as(before)


def test_packets_go_through_it() -> None:
    run(a_lab(addresses=["192.0.2.2/24"]))
    ip("address", "add", "192.0.2.1/24", "dev", "far")
    answered, said = ping("router", "192.0.2.1")
    assert answered, said


def test_what_is_said_no_more_is_as_at_home() -> None:
    run(a_lab(mtu=1400, mac="02:00:00:00:00:77", up=False))
    assert (
        run(a_lab())
        == [
            "change link router:wan mtu 1400 -> 1450",
            f"change link router:wan mac 02:00:00:00:00:77 -> {MAC}",
        ]
        or link("router", "wan")["address"] == MAC
    )
    assert (link("router", "wan")["mtu"], link("router", "wan")["address"]) == (1450, MAC)
    assert run(a_lab()) == []


def test_an_mtu_too_small_for_ipv6_takes_nothing_away_for_good() -> None:
    before = host_without_lab_traces()
    run(a_lab(mtu=1000))
    gone()
    is_as(before)


def test_a_mac_goes_back_to_a_device_that_is_up() -> None:
    before = host_without_lab_traces()
    run(a_lab(device={"name": "tap1"}, mac="02:00:00:00:00:77"))
    by_hand("home")
    ip("link", "set", "wan", "up")
    gone()
    is_as(before)


@pytest.mark.parametrize("how", ["left", "renamed inside", "another namespace", "another device", "two swap"])
def test_the_document_changes(how: str) -> None:
    before = host_without_lab_traces()
    first = a_lab()
    first["namespaces"]["other"] = {"interfaces": {"lan": {"device": {"name": "tap1"}}}}
    run(first)
    second: Document = {"name": "edge", "namespaces": {"router": {}, "other": first["namespaces"]["other"]}}
    wan = first["namespaces"]["router"]["interfaces"]["wan"]
    if how == "renamed inside":
        second["namespaces"]["router"] = {"interfaces": {"uplink": wan}}
    elif how == "another namespace":
        second["namespaces"]["other"] = {"interfaces": {**second["namespaces"]["other"]["interfaces"], "wan": wan}}
    elif how == "another device":
        second["namespaces"]["router"] = {"interfaces": {"wan": {"device": {"name": "ifb7"}}}}
    elif how == "two swap":
        second["namespaces"]["router"] = {"interfaces": {"wan": {"device": {"name": "tap1"}}}}
        second["namespaces"]["other"] = {"interfaces": {"lan": wan}}
    predicted = run(second, check=True)
    assert run(second) == predicted != []
    assert run(second) == []
    gone()
    is_as(before)


def test_a_wire_takes_its_place_and_the_other_way_round() -> None:
    before = host_without_lab_traces()
    wire: Document = {
        "name": "edge",
        "namespaces": {"router": {}, "x": {}},
        "links": [{"endpoints": ["router:wan", "x:e"]}],
    }
    for _round in range(2):
        run(a_lab())
        run(wire)
        assert run(wire) == []
    run(a_lab())
    assert run(a_lab()) == []
    gone()
    is_as(before)


@pytest.mark.parametrize("device", [{"mac": MAC}, {"mac": MAC.upper()}])
def test_a_device_is_found_by_its_mac(device: Document) -> None:
    before = host_without_lab_traces()
    for body in ({}, {"mac": "02:00:00:00:00:77"}):
        run(a_lab(device=device, **body))
        assert run(a_lab(device=device, **body)) == []
    gone()
    is_as(before)


@pytest.mark.parametrize("name", ["enp0s9", "a-name-that-is-too-long-for-a-first-one"])
def test_a_device_is_found_by_a_second_name(name: str) -> None:
    if name != "enp0s9":
        ip("link", "property", "add", "dev", "eth1", "altname", name)
    before = host_without_lab_traces()
    lab = a_lab(device={"name": name})
    assert run(lab, check=True) == run(lab) != []
    assert run(lab) == []
    assert link("router", "wan")["mtu"] == 1450
    by_hand("home")
    assert run(lab) != []
    assert run(lab) == []
    gone()
    is_as(before)


def test_a_second_name_may_become_the_first_one() -> None:
    before = host_without_lab_traces()
    lab = a_lab(inner="enp0s9")
    assert run(lab, check=True) == run(lab) != []
    assert run(lab) == []
    assert link("router", "enp0s9")["altnames"] == ["nslab:edge:eth1"]
    gone()
    is_as(before)


@pytest.mark.parametrize("is_second", [False, True])
def test_a_second_name_that_another_link_has_by_now_is_left_to_it(is_second: bool) -> None:
    run(a_lab())
    if is_second:
        ip("link", "property", "add", "dev", "tap1", "altname", "enp0s9")
    else:
        ip("link", "add", "enp0s9", "type", "ifb")
    told = "host:eth1 was called 'enp0s9', too, which is the name of another link by now"
    predicted = run({"name": "edge"}, absent=True, check=True)
    assert gone(warned=[told]) == predicted
    assert "altnames" not in link(None, "eth1")


def test_a_name_that_another_link_has_as_a_second_one_is_refused() -> None:
    before = host_without_lab_traces()
    netns("router")
    ip("-n", "router", "link", "property", "add", "dev", "lo", "altname", "wan")
    said = "'wan' is a second name (altname) of router:lo; choose another name, or take that away from it"
    with pytest.raises(Refused, match=re.escape(said)):
        run(a_lab(), adopt=True)
    with pytest.raises(Refused, match="'enp0s9' is a second name"):
        veth("enp0s9", "host", "b", "router")
    ip("netns", "delete", "router")
    is_as(before)


def test_a_move_that_the_kernel_does_by_half_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """It moves a link before it gives it its other name, and leaves it there if that is not possible."""
    netns("router")
    before = host_without_lab_traces()
    ip("-n", "router", "link", "property", "add", "dev", "lo", "altname", "wan")
    monkeypatch.setattr(Planner, "is_second_name", lambda *_arguments, **_more: False)
    with pytest.raises(StepFailed, match="Everything that this run had done was taken back"):
        moved(lab="edge")
    ip("-n", "router", "link", "property", "del", "dev", "lo", "altname", "wan")
    is_as(before)


@pytest.mark.parametrize("where", ["default", "all"])
def test_a_device_comes_home_to_a_host_without_ipv6(where: str) -> None:
    run(a_lab())
    within(None, "sysctl", "-w", f"net.ipv6.conf.{where}.disable_ipv6=1")
    warned = ["host:eth1 had the address 2001:db8::2/64 nodad, and takes no IPv6 addresses now; it is not added again"]
    predicted = run({"name": "edge"}, absent=True, check=True)
    if where == "all":
        warned.append("the route host 2001:db8:9::/64 via 2001:db8::1 dev eth1 has gone and is not added again")
    # What is set for new links is nothing to one that was there before.
    assert gone(warned=warned if where == "all" else []) == predicted
    assert gone() == []
    ipv6 = [address["local"] for address in link(None, "eth1")["addr_info"] if address["family"] == "inet6"]
    assert ipv6 == ([] if where == "all" else ["2001:db8::2"])


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_sysctls_come_home_in_spite_of_a_kill(count: int) -> None:
    run(a_lab())
    for name in ("accept_ra_defrtr", "accept_redirects"):
        within(None, "sysctl", "-w", f"net.ipv6.conf.default.{name}=0")
    if count == 0:
        by_hand("home and renamed")
    else:
        assert kill_at(count, {"name": "edge"})
    gone()
    found = sysctls(None, r"^net\.ipv6\.conf\.eth1\.(accept_redirects|accept_ra_defrtr|accept_ra)$")
    assert sorted(found.values()) == ["0", "1", "1"]


def test_of_several_with_one_mac_the_user_says_which() -> None:
    ip("link", "set", "tap1", "address", MAC)
    said = refused(a_lab(device={"mac": MAC}))
    assert "namespaces.router.interfaces.wan.device: there are several devices with the MAC address" in said
    assert "eth1 and tap1" in said or "tap1 and eth1" in said


def test_a_device_is_a_port_in_its_namespace() -> None:
    before = host_without_lab_traces()
    document = a_lab(addresses=[])
    document["namespaces"]["router"]["bridges"] = {"br0": {"ports": ["wan"]}}
    run(document)
    assert link("router", "wan")["master"] == "br0"
    assert run(document) == []
    del document["namespaces"]["router"]["bridges"]["br0"]["ports"]
    run(document)
    assert "master" not in link("router", "wan")
    gone()
    is_as(before)


def test_a_port_of_the_hosts_bridge_goes_only_by_force_and_comes_back() -> None:
    ip("link", "add", "br9", "type", "bridge")
    ip("link", "set", "tap1", "master", "br9")
    ip("link", "set", "tap1", "type", "bridge_slave", "hairpin", "on", "cost", "42")
    ip("link", "set", "br9", "up")
    before = host_without_lab_traces()
    said = refused(a_lab(device={"name": "tap1"}))
    assert "host:tap1 is needed on the host: it is a port of the bridge br9; say 'force: true'" in said
    run(a_lab(device={"name": "tap1", "force": True}))
    ip("link", "set", "br9", "name", "br8")
    gone()
    ip("link", "set", "br8", "name", "br9")
    is_as(before)
    run(a_lab(device={"name": "tap1", "force": True}))
    ip("link", "delete", "br9")
    gone(warned=["host:tap1 was a port of the bridge br9, and that is gone; it becomes none again"])
    assert "master" not in link(None, "tap1")


def test_a_way_of_a_route_comes_back() -> None:
    ip("link", "set", "tap1", "up")
    ip("address", "add", "192.0.78.2/24", "dev", "tap1")
    ip("address", "add", "2001:db8:78::2/64", "dev", "tap1", "nodad")
    ip("route", "add", "100.64.0.0/10", "nexthop", "via", "192.0.2.1", "nexthop", "via", "192.0.78.1")
    ways = ["nexthop", "via", "2001:db8::1", "nexthop", "via", "2001:db8:78::1"]
    ip("-6", "route", "add", "2001:db8:64::/48", *ways)
    before = host_without_lab_traces()
    run(a_lab())
    gone()
    is_as(before)


# --- what goes wrong on the way --------------------------------------------------------------------------------------


@pytest.mark.once
def test_each_call_that_fails_leaves_all_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fail_each_call(monkeypatch, a_lab(mtu=1400, mac="02:00:00:00:00:77")) > 6
    # The same on the way home.
    assert fail_each_call(monkeypatch, {"name": "edge", "namespaces": {"router": {}}}) > 10
    run(a_lab())
    assert fail_each_call(monkeypatch, {"name": "edge"}) > 10


def killed_at_each_call(document: Document, then: str, prepare: Callable[[], object] = lambda: None) -> int:
    """Kill runs of a document after each call, and have the next run lead on from there; how many calls there were."""
    before = host_without_lab_traces()
    count = 0
    while True:
        count += 1
        prepare()
        if not kill_at(count, document):
            break
        if then == "present":
            run(a_lab(mtu=1400))
            assert run(a_lab(mtu=1400)) == []
        gone()
        is_as(before)
    gone()
    is_as(before)
    return count


@pytest.mark.once
@pytest.mark.parametrize("then", ["present", "absent"])
def test_a_run_that_is_killed_is_made_good_by_the_next(then: str) -> None:
    assert killed_at_each_call(a_lab(mtu=1400), then) > 6


@pytest.mark.once
@pytest.mark.parametrize("then", ["present", "absent"])
def test_a_run_that_is_killed_on_the_way_home_is_made_good_by_the_next(then: str) -> None:
    home = {"name": "edge", "namespaces": {"router": {}}}
    assert killed_at_each_call(home, then, lambda: run(a_lab(mtu=1400))) > 10


def test_a_name_that_is_taken_by_now_is_no_obstacle() -> None:
    run(a_lab())
    ip("link", "add", "eth1", "type", "bridge")
    says = "the device router:wan cannot be called 'eth1' again, as another link of the host has that name by now"
    predicted = run({"name": "edge"}, absent=True, check=True, warned=[says])
    assert gone(warned=[says]) == predicted
    there = link(None, "wan")
    assert (there["address"], there["altnames"]) == (MAC, ["enp0s9"])
    labels = {address["local"]: address.get("label") for address in there["addr_info"]}
    assert labels["192.0.2.9"] == "wan:web"
    assert [route["dev"] for route in ip_json(None, "route", "show", "203.0.113.0/24")] == ["wan"]
    assert [path for path in files() if "lab-" in path] == []


def test_if_both_names_are_taken_it_gets_another_one() -> None:
    run(a_lab())
    ip("link", "add", "wan", "type", "bridge")
    ip("link", "property", "add", "dev", "wan", "altname", "eth1")
    gone(warned=["the device router:wan cannot be called 'eth1' again"])
    assert link(None, "dev0")["address"] == MAC


def test_an_address_that_another_link_has_by_now_is_left_to_it() -> None:
    run(a_lab())
    ip("address", "add", "192.0.77.2/30", "dev", "tap1")
    gone(warned=["host:eth1 had the address 192.0.77.2/30, which tap1 has by now; it is not added again"])
    assert "192.0.77.2" not in [address["local"] for address in link(None, "eth1")["addr_info"]]


# --- by hand ---------------------------------------------------------------------------------------------------------


def _host_by_a_name() -> str:
    """A name by which `ip link set ... netns` finds the host that the test is on."""
    return str(os.getpid())


def by_hand(what: str) -> None:
    if what == "renamed":
        ip("-n", "router", "link", "set", "wan", "name", "other")
    elif what == "renamed with several addresses":
        ip("-n", "router", "address", "add", "198.51.100.3/24", "dev", "wan", "label", "wan:x")
        ip("-n", "router", "link", "set", "wan", "name", "other")
    elif what == "home":
        ip("-n", "router", "link", "set", "wan", "netns", _host_by_a_name())
    elif what == "home and renamed":
        ip("-n", "router", "link", "set", "wan", "netns", _host_by_a_name(), "name", "eth1")
    elif what == "elsewhere":
        ip("netns", "add", "elsewhere")
        ip("-n", "router", "link", "set", "wan", "netns", "/run/netns/elsewhere")
    elif what == "unmarked":
        ip("-n", "router", "link", "property", "del", "dev", "wan", "altname", "nslab:edge:eth1")
    elif what == "unmarked and home":
        by_hand("unmarked")
        by_hand("home and renamed")
    elif what == "set up otherwise":
        ip("-n", "router", "link", "set", "wan", "mtu", "1300", "down")
        ip("-n", "router", "address", "flush", "dev", "wan")
    elif what == "namespace deleted":
        # What is virtual ends with its namespace, as the kernel has it; so it goes home first, as a NIC does.
        by_hand("home")
        ip("netns", "delete", "router")


BY_HAND = (
    "renamed", "renamed with several addresses", "home", "home and renamed", "elsewhere", "unmarked",
    "unmarked and home", "set up otherwise", "namespace deleted",
)  # fmt: skip


@pytest.mark.parametrize("what", BY_HAND)
def test_drift_is_repaired(what: str) -> None:
    before = host_without_lab_traces()
    run(a_lab())
    by_hand(what)
    predicted = run(a_lab(), check=True)
    assert run(a_lab()) == predicted != []
    assert run(a_lab()) == []
    assert link("router", "wan")["address"] == MAC
    gone()
    if what == "elsewhere":
        ip("netns", "delete", "elsewhere")
    if what != "unmarked and home":
        is_as(before)


@pytest.mark.parametrize("what", [what for what in BY_HAND if what != "unmarked and home"])
def test_it_comes_home_from_wherever_it_was_put(what: str) -> None:
    before = host_without_lab_traces()
    run(a_lab())
    by_hand(what)
    predicted = run({"name": "edge"}, absent=True, check=True)
    assert gone() == predicted
    if what == "elsewhere":
        ip("netns", "delete", "elsewhere")
    is_as(before)


def test_without_a_note_the_mark_alone_gives_the_old_name() -> None:
    run(a_lab())
    os.unlink("/run/nslab/lab-edge.jsonl")
    assert run(a_lab()) == []
    gone()
    assert (link(None, "eth1")["address"], link(None, "eth1")["altnames"]) == (MAC, ["enp0s9"])


def test_a_device_without_a_mark_and_a_note_is_another_one() -> None:
    run(a_lab())
    os.unlink("/run/nslab/lab-edge.jsonl")
    by_hand("unmarked")
    said = refused(a_lab())
    assert "router:wan exists already, and nothing says that it is the device 'eth1' of the host" in said
    # By its MAC it is known, but not what it was called.
    assert run(a_lab(device={"mac": MAC})) == ["add altname router:wan nslab:edge:wan"]
    gone()
    assert link(None, "wan")["address"] == MAC


def test_a_device_that_is_gone_for_good() -> None:
    run(a_lab(device={"name": "mv1"}))
    ip("-n", "router", "link", "delete", "wan")
    said = refused(a_lab(device={"name": "mv1"}))
    assert said == "namespaces.router.interfaces.wan.device: there is no device 'mv1' on the host"
    lost = "the device mv1, which was moved to router:wan, is gone, or in a namespace without a name"
    assert gone(warned=[lost]) == ["remove namespace router"]
    # It may be found again.
    assert gone(warned=[lost]) == []
    assert (lost.partition(",")[0].replace("mv1", "'mv1'")) in orphans()[0]["text"]
    ip("link", "add", "mv1", "link", "eth1", "type", "macvlan")
    assert orphans() == gone() == []
    assert [path for path in files() if "lab-" in path] == []


def orphans() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = gather(None, (), "")["orphans"]
    return found


def test_a_device_in_a_namespace_without_a_name_is_not_forgotten(start: Start) -> None:
    pid = start()
    before = host_without_lab_traces()
    run(a_lab())
    ip("-n", "router", "link", "set", "wan", "netns", str(pid))
    gone(warned=["the device eth1, which was moved to router:wan, is gone, or in a namespace without a name"])
    assert [(orphan["kind"], orphan["name"], orphan["lab"]) for orphan in orphans()] == [("device", "eth1", "edge")]
    move_back = ("ip", "link", "set", "wan", "netns", _host_by_a_name())
    subprocess.run(["nsenter", f"--net=/proc/{pid}/ns/net", *move_back], check=True)
    assert [(orphan["kind"], orphan["name"], orphan["lab"]) for orphan in orphans()] == [("device", "wan", "edge")]
    gone()
    is_as(before)


def test_sysctls_come_home_whatever_is_the_default_by_then() -> None:
    def read_sysctl(key: str) -> str:
        return within(None, "sysctl", "-n", key).strip()

    def write_sysctl(key: str, value: str) -> None:
        within(None, "sysctl", "-w", f"{key}={value}")

    keys = ("net.ipv6.conf.%s.accept_redirects", "net.ipv4.conf.%s.send_redirects", "net.ipv6.conf.%s.dad_transmits")
    defaults = {key: read_sysctl(key % "default") for key in keys}
    try:
        run(a_lab())
        for key in keys:
            write_sysctl(key % "default", "0" if defaults[key] != "0" else "1")
        gone()
        # Those of IPv4 follow the default, as those of a device that has not left do.
        now = [read_sysctl(key % "eth1") for key in keys]
        stays = [read_sysctl(key % "tap1") for key in keys]
        assert now == stays == [defaults[keys[0]], read_sysctl(keys[1] % "default"), defaults[keys[2]]]
    finally:
        for key, value in defaults.items():
            write_sysctl(key % "default", value)


def test_a_route_that_something_else_has_taken_the_place_of_is_told_of() -> None:
    ip("link", "set", "tap1", "up")
    ip("address", "add", "198.18.4.5/24", "dev", "tap1")
    ip("route", "add", "198.18.5.0/24", "via", "198.18.4.1")
    run(a_lab(device={"name": "tap1"}))
    ip("route", "add", "blackhole", "198.18.5.0/24")
    gone(warned=["the route host 198.18.5.0/24 via 198.18.4.1 dev tap1 is not added again: there is blackhole 198.18"])


def test_another_device_that_has_the_name_by_now_is_not_made_what_the_old_one_was() -> None:
    run(a_lab(device={"name": "tap1"}, mtu=1400))
    ip("-n", "router", "link", "delete", "wan")
    ip("tuntap", "add", "tap1", "mode", "tap")
    ip("link", "set", "tap1", "mtu", "1350")
    before = host_without_lab_traces()
    run(a_lab(device={"name": "tap1"}, mtu=1400))
    gone()
    del before["namespace router"]
    assert link(None, "tap1")["mtu"] == 1350
    assert not differences(before["host"]["links"], host_without_lab_traces()["host"]["links"])


# --- who may have it -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("carrier", ["itself", "a bridge", "IPv6"])
def test_the_device_of_the_default_route_goes_only_by_force(carrier: str) -> None:
    device = "eth1"
    if carrier == "a bridge":
        device = "tap1"
        ip("link", "add", "br9", "type", "bridge")
        ip("link", "set", "tap1", "up", "master", "br9")
        ip("link", "set", "br9", "up")
        ip("route", "add", "default", "dev", "br9")
    elif carrier == "IPv6":
        ip("-6", "route", "add", "default", "via", "2001:db8::1", "metric", "5")
    else:
        ip("route", "add", "default", "via", "192.0.2.1")
    before = host_without_lab_traces()
    said = refused(a_lab(device={"name": device}))
    assert f"host:{device} is needed on the host: the host's default route goes by it; say 'force: true'" in said
    run(a_lab(device={"name": device, "force": True}))
    gone()
    is_as(before)


def test_the_device_of_the_ssh_session_goes_only_by_force(monkeypatch: pytest.MonkeyPatch) -> None:
    inode = os.stat("/proc/thread-self/ns/net").st_ino
    session = Connection(inode, "192.0.2.2", 22, "192.0.2.1")
    monkeypatch.setattr(_observe, "connection", lambda: session)
    before = host_without_lab_traces()
    said = refused(a_lab())
    assert "move link host:eth1 -> router:wan: this would cut the SSH session" in said
    run(a_lab(device={"name": "eth1", "force": True}))
    gone()
    is_as(before)


def test_what_something_lies_on_goes_only_by_force() -> None:
    assert "mv1 lies on it" in refused(a_lab(device={"name": "far"}))


@pytest.mark.parametrize("of_a_module", [False, True])
def test_what_a_container_has_on_it_is_seen_wherever_it_is(of_a_module: bool) -> None:
    ip("netns", "add", "container")
    ip("link", "add", "inner", "link", "eth1", "netns", "container", "type", "macvlan", "mode", "bridge")
    ip("-n", "container", "link", "set", "inner", "up")
    if of_a_module:
        ip("netns", "add", "router")
        options = {"name": "wan", "namespace": "router", "device": {"name": "eth1"}, "addresses": None, "purge": False}
        with pytest.raises(Refused, match="container:inner lies on it"):
            module(_options.ns_link, **options)
        return
    assert "container:inner lies on it" in refused(a_lab())
    run(a_lab(device={"name": "eth1", "force": True}))
    assert ip_json("container", "link", "show", "inner")[0]["operstate"] == "UP"
    gone()
    assert ip_json("container", "link", "show", "inner")[0]["operstate"] == "UP"


@pytest.mark.parametrize("name", ["br9", "nothing"])
def test_what_cannot_be_moved_is_refused(name: str) -> None:
    ip("link", "add", "br9", "type", "bridge")
    said = refused(a_lab(device={"name": name, "force": True}))
    assert ("is a bridge device, which the kernel does not let out" if name == "br9" else "there is no device") in said


def test_two_labs_want_one_device() -> None:
    run(a_lab())
    two = {"name": "two", "namespaces": {"second": {"interfaces": {"lan": {"device": {"name": "eth1"}}}}}}
    said = refused(two)
    assert "namespaces.second.interfaces.lan.device: the device is router:wan: the lab 'edge' has taken it" in said
    two = {"name": "two", "namespaces": {"second": {"interfaces": {"lan": {"device": {"mac": MAC}}}}}}
    assert "the lab 'edge' has taken it" in refused(two)


def test_what_another_lab_has_made_or_changed_is_refused() -> None:
    run({"name": "two", "namespaces": {"x": {}}, "links": [{"endpoints": ["host:h0", "x:e"]}]})
    assert "host:h0 was made by the lab 'two'" in refused(a_lab(device={"name": "h0"}))
    run({"name": "three", "namespaces": {"host": {"interfaces": {"eth1": {"mtu": 1400}}}}})
    assert "the lab 'three' has changed something on host:eth1" in refused(a_lab())
    run({"name": "four", "namespaces": {"host": {"routes": [{"to": "100.64.0.0/10", "via": "192.0.2.1"}]}}})
    run({"name": "three"}, absent=True)
    assert "the lab 'four' has changed something on host:eth1" in refused(a_lab())
    run({"name": "four"}, absent=True)
    ip("link", "set", "tap1", "up")
    ip("address", "add", "192.0.78.2/24", "dev", "tap1")
    ways = [{"via": "192.0.78.1"}, {"via": "192.0.2.1"}]
    run({"name": "five", "namespaces": {"host": {"routes": [{"to": "100.64.0.0/10", "nexthops": ways}]}}})
    assert "which the lab 'five' needs" in refused(a_lab()) + refused(a_lab(device={"name": "tap1"}))
    run({"name": "five"}, absent=True)
    run(a_lab())


def test_one_device_by_two_words_is_refused() -> None:
    document = a_lab()
    document["namespaces"]["other"] = {"interfaces": {"lan": {"device": {"mac": MAC}}}}
    assert "it can be in one place only" in refused(document)


def test_a_lab_gives_back_what_it_changed_before_it_takes_the_device() -> None:
    before = host_without_lab_traces()
    on_host = {"name": "edge", "namespaces": {"host": {"interfaces": {"eth1": {"mtu": 1400}}}}}
    run(on_host)
    run(a_lab())
    assert link("router", "wan")["mtu"] == 1450
    run(on_host)
    assert link(None, "eth1")["mtu"] == 1400
    assert run(on_host) == []
    gone()
    is_as(before)


def test_a_device_of_nobodys_lab_is_taken_over() -> None:
    before = host_without_lab_traces()
    netns("router")
    moved()
    said = refused(a_lab())
    assert "router" in said
    assert "adopt" in said
    run(a_lab(), adopt=True)
    assert link("router", "wan")["altnames"] == ["enp0s9", "nslab:edge:eth1"]
    assert run(a_lab()) == []
    gone()
    is_as(before)


# --- namespaces that go ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("taken_by", [None, "other"])
def test_a_namespace_that_goes_sends_the_devices_of_others_home_too(taken_by: str | None) -> None:
    before = host_without_lab_traces()
    run({"name": "edge", "namespaces": {"router": {}}})
    moved(lab=taken_by, mtu=1400)
    gone()
    is_as(before)
    assert not os.path.exists("/run/nslab/lab-.jsonl")


def test_no_veth_module_takes_a_device_for_its_own_end() -> None:
    netns("router", "other")
    moved()
    with pytest.raises(Refused, match="host:far exists already and is a veth wired to router:wan"):
        veth("far", "host", "wan", "other")


def test_gc_sends_devices_home() -> None:
    before = host_without_lab_traces()
    run(a_lab())
    predicted = engine.run(_options.topology({"gc": []}), check=True)
    assert collect() == words(predicted)
    is_as(before)


@pytest.mark.parametrize("what", ["home", "home and renamed", "namespace deleted"])
def test_gc_finds_what_is_half_there(what: str) -> None:
    before = host_without_lab_traces()
    run(a_lab())
    by_hand(what)
    found = [orphan for orphan in gather(None, (), "")["orphans"] if orphan["kind"] == "device"]
    assert [(orphan["namespace"], orphan["lab"]) for orphan in found] == [("host", "edge")]
    assert gather(None, (), "")["labs"] == ["edge"]
    collect()
    is_as(before)


def test_a_namespace_that_is_not_the_labs_keeps_its_own_and_gives_the_device_back() -> None:
    before = host_without_lab_traces()
    netns("router")
    module(
        _options.ns_link,
        name="wan",
        namespace="router",
        device={"name": "eth1"},
        lab="edge",
        addresses=None,
        purge=False,
    )
    assert gone() == [*gone_home("wan", "edge")]
    netns("router", state="absent")
    is_as(before)


def gone_home(inner: str, lab: str) -> list[str]:
    """The changes by which eth1 comes home."""
    return [
        f"move link router:{inner} -> host:eth1",
        "change sysctls host:eth1 rp_filter = 2, accept_ra = 0, addr_gen_mode = 1",
        "change link host:eth1 down -> up",
        "add address host:eth1 192.0.2.2/24",
        "add address host:eth1 192.0.77.2/30",
        "add address host:eth1 192.0.2.3/24",
        "add address host:eth1 192.0.2.9/24 label eth1:web",
        "add address host:eth1 2001:db8::2/64 nodad",
        "add route host 203.0.113.0/24 via 192.0.2.1 dev eth1 src 192.0.2.2 metric 7",
        "add route host 2001:db8:9::/64 via 2001:db8::1 dev eth1",
        f"remove altname host:eth1 nslab:{lab}:eth1",
    ]


# --- the module ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lab", [None, "edge"])
def test_the_module_moves_and_sends_home(lab: str | None) -> None:
    netns("router")
    before = host_without_lab_traces()
    assert moved(lab=lab, up=True, addresses=["198.51.100.2/24"]) == [
        f"add altname host:eth1 nslab:{lab or ''}:eth1",
        "move link host:eth1 -> router:wan",
        "add address router:wan 198.51.100.2/24",
        "change link router:wan down -> up",
    ]
    assert moved(lab=lab, up=True) == []
    assert gather(["router"], (), "")["namespaces"]["router"]["links"][1]["device"] == {"from": "host", "name": "eth1"}
    assert sent_home(lab=lab) == gone_home("wan", lab or "")
    assert sent_home(lab=lab) == []
    assert not differences(before, host_without_lab_traces())


def test_the_module_finds_it_wherever_it_is() -> None:
    netns("router")
    before = host_without_lab_traces()
    moved()
    ip("netns", "add", "elsewhere")
    ip("-n", "router", "link", "set", "wan", "netns", "/run/netns/elsewhere")
    assert moved() == ["move link elsewhere:wan -> router:wan"]
    ip("netns", "delete", "elsewhere")
    ip("-n", "router", "link", "set", "wan", "netns", _host_by_a_name())
    assert sent_home() != []
    assert not differences(before, host_without_lab_traces())


def test_removing_a_namespace_sends_its_devices_home() -> None:
    before = host_without_lab_traces()
    netns("router")
    moved()
    moved(name="lan", device={"name": "tap1"})
    assert netns("router", state="absent")[-1] == "remove namespace router"
    assert not differences(before, host_without_lab_traces())


def test_the_module_refuses_what_is_no_device_of_the_host() -> None:
    netns("router")
    ip("link", "add", "h0", "type", "veth", "peer", "name", "wan", "netns", "/run/netns/router")
    with pytest.raises(Refused, match="router:wan is a veth device that was not moved there from the host"):
        sent_home()
    assert sent_home(name="nothing") == []
    assert sent_home(namespace="nowhere") == []
    ip("link", "delete", "h0")
    moved()
    with pytest.raises(Refused, match="router:wan is the device 'eth1' of the host, which ns_link sends home"):
        module(_options.veth, name="wan", namespace="router", peer=None, state="absent")


def test_in_check_mode_of_a_play_what_comes_before_is_taken_for_granted() -> None:
    wanted = _options.ns_link(
        {"lab": None, "name": "wan", "namespace": "none", "device": {"name": "late"}, "addresses": None, "purge": False}
    )
    assumed = [str(problem) for problem in engine.run(wanted, check=True).assumptions]
    assert assumed == ["device: there is no device 'late' on the host", "namespace: there is no namespace 'none'"]


# --- reading ---------------------------------------------------------------------------------------------------------


def test_a_live_lab_reads_as_a_document() -> None:
    before = host_without_lab_traces()
    document = a_lab(mtu=1400, mac="02:00:00:00:00:77")
    run(document)
    captured = gather(None, (), "edge")["topology"]
    assert (
        captured["namespaces"]["router"]["interfaces"]["wan"] == document["namespaces"]["router"]["interfaces"]["wan"]
    )
    assert run(captured) == []
    assert gather(None, (), "")["orphans"] == []
    gone()
    is_as(before)


# --- no carrier, and containers --------------------------------------------------------------------------------------


def test_it_comes_home_without_a_carrier() -> None:
    before = host_without_lab_traces()
    run(a_lab())
    ip("link", "set", "far", "down")
    gone()
    ip("link", "set", "far", "up")
    is_as(before)


def test_gateways_need_no_carrier() -> None:
    ip("link", "set", "far", "down")
    document = a_lab(addresses=["192.0.2.2/24", {"address": "2001:db8:5::2/64", "nodad": True}])
    gateways = [{"to": "default", "via": "2001:db8:5::1"}, {"to": "default", "via": "192.0.2.1"}]
    document["namespaces"]["router"]["routes"] = gateways
    run(document)
    assert run(document) == []


def test_a_container_gets_a_device(start: Start) -> None:
    before = host_without_lab_traces()
    pid = start()
    document = a_lab()
    document["namespaces"]["router"]["attach"] = {"pid": pid}
    run(document)
    assert run(document) == []
    assert "wan" in names("router")
    gone()
    assert os.path.exists(f"/proc/{pid}")
    ip("link", "delete", "veth1")
    is_as(before)


# --- hardware --------------------------------------------------------------------------------------------------------


def test_hardware_has_the_names_of_its_bus_and_of_udev() -> None:
    found = [(bus, name) for bus in ("virtio", "pci") for name in sorted(_in(f"/sys/bus/{bus}/devices"))]
    if not found:
        pytest.skip("this machine has neither a PCI nor a virtio bus")
    for bus, name in found:
        names_there = _devices.names(bus, name)
        assert name in names_there
        carrier = os.path.basename(os.path.dirname(os.path.realpath(f"/sys/bus/{bus}/devices/{name}")))
        if bus == "pci":
            assert names_there == {name, f"pci-{name}"}
        elif carrier in _in("/sys/bus/pci/devices"):
            assert names_there == {name, carrier, f"pci-{carrier}"}
    assert _devices.names("virtio", "virtio999") == _devices.names("", "") == frozenset()
    assert _devices.names_by_link("eth1", link(None, "eth1")["ifindex"]) == frozenset()


def _in(folder: str) -> list[str]:
    return os.listdir(folder) if os.path.isdir(folder) else []
