# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What labs remember of things that are not theirs outlives other names, other labs, and what is lost on the way."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest
from ansible_collections.nslab.netns.plugins.module_utils import _engine as engine
from ansible_collections.nslab.netns.plugins.module_utils import _options
from ansible_collections.nslab.netns.plugins.module_utils import _probing as probing
from ansible_collections.nslab.netns.plugins.module_utils._facts import gather
from ansible_collections.nslab.netns.tests.unit.topologies import Document
from applying import host_without_lab_traces, kill_at, refused, run, words
from test_by_hand import rename, small
from test_ownership import collect, files, on_the_host
from throwaway import differences, eventually, ip, ip_json, snapshot, sysctls, within

pytestmark = pytest.mark.usefixtures("host")

FORWARDING = "net.ipv4.conf.d1.forwarding"
ADDRESSES = ("192.0.2.2/24", "2001:db8::2/64")


@pytest.fixture(autouse=True)
def devices(host: None) -> None:
    """Two interfaces of the machine; the first has addresses and routes of both families."""
    for name in ("d0", "d1"):
        device(name)
    for address in ADDRESSES:
        ip("address", "add", address, "dev", "d0", "nodad")
    # The kernel takes note of a carrier up to a second late, and makes the route to an own address only then.
    eventually(lambda: "2001:db8::2" in ip("-6", "route", "show", "table", "local"), "the address is usable")
    ip("route", "add", "203.0.113.0/24", "via", "192.0.2.1")
    ip("-6", "route", "add", "2001:db8:9::/64", "via", "2001:db8::1")


def device(name: str) -> None:
    ip("link", "add", name, "type", "veth", "peer", "name", f"{name}p")
    for end in (name, f"{name}p"):
        ip("link", "set", end, "up", "addrgenmode", "none")


def of_d0(name: str, **body: Any) -> Document:
    return on_the_host(name, interfaces={"d0": body})


def gone(*labs: str, warned: list[str] | None = None) -> None:
    for lab in labs:
        run({"name": lab}, absent=True, warned=warned or [])


def is_as(before: dict[str, Any]) -> None:
    assert [path for path in files() if "lab-" in path] == []
    assert not differences(before, host_without_lab_traces())


# --- what a change takes along ---------------------------------------------------------------------------------------

TAKING = {
    "down": {"interfaces": {"d0": {"up": False}}},
    "mtu": {"interfaces": {"d0": {"mtu": 1000}}},
    "no IPv6": {"sysctls": {"net.ipv6.conf.d0.disable_ipv6": 1}},
    "no IPv6 at all": {"sysctls": {"net.ipv6.conf.all.disable_ipv6": 1}},
}


@pytest.mark.once
@pytest.mark.parametrize("second", TAKING)
@pytest.mark.parametrize("first", TAKING)
def test_what_is_lost_again_comes_back_in_the_end(first: str, second: str) -> None:
    before = host_without_lab_traces()
    run(on_the_host("one", **TAKING[first]))
    run(on_the_host("one", **TAKING[second]))
    assert run(on_the_host("one", **TAKING[second])) == []
    gone("one")
    is_as(before)


@pytest.mark.once
@pytest.mark.parametrize("second", TAKING)
@pytest.mark.parametrize("first", TAKING)
def test_what_another_lab_keeps_away_comes_back_with_the_last_one(first: str, second: str) -> None:
    before = host_without_lab_traces()
    run(on_the_host("one", **TAKING[first]))
    if (first, second) == ("mtu", "no IPv6"):
        said = "net.ipv6.conf.d0.disable_ipv6: d0 has an MTU of 1000, and IPv6 needs at least 1280"
        assert said in refused(on_the_host("two", **TAKING[second]))
        return
    if (first, second) == ("no IPv6", "mtu"):
        said = "this takes net.ipv6.conf.d0.disable_ipv6 along, which the lab 'one' needs"
        assert said in refused(on_the_host("two", **TAKING[second]))
        return
    run(on_the_host("two", **TAKING[second]))
    predicted = run({"name": "one"}, absent=True, check=True)
    assert run({"name": "one"}, absent=True, warned=[]) == predicted
    assert run(on_the_host("two", **TAKING[second])) == []
    gone("two")
    is_as(before)


@pytest.mark.parametrize("second", TAKING)
def test_collecting_two_labs_gives_all_of_it_back(second: str) -> None:
    before = host_without_lab_traces()
    run(on_the_host("one", **TAKING["down"]))
    run(on_the_host("two", **TAKING[second]))
    wanted = _options.topology({"gc": []})
    predicted = engine.run(wanted, check=True)
    assert predicted.warnings == []
    assert collect() == words(predicted)
    is_as(before)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_kill_on_the_way_back_to_ipv6_loses_no_sysctl(count: int) -> None:
    within(None, "sysctl", "-w", "net.ipv6.conf.d0.accept_redirects=0")
    before = host_without_lab_traces()
    run(of_d0("one", mtu=1000))
    assert kill_at(count, {"name": "one"})
    gone("one")
    is_as(before)


def test_an_address_that_was_there_before_a_lab_took_it_away_is_not_the_labs() -> None:
    """It goes as the interface goes down, and the lab itself says that it shall be there."""
    before = host_without_lab_traces()
    addresses = [{"address": "2001:db8::2/64", "nodad": True}]
    run(of_d0("one", up=False, addresses=addresses))
    run(of_d0("one", addresses=addresses))
    gone("one")
    is_as(before)


@pytest.mark.parametrize("first", ["address", "route"])
def test_a_route_goes_with_the_address_that_it_needs(first: str) -> None:
    fresh = host_without_lab_traces()
    address = {"interfaces": {"d0": {"addresses": ["198.51.100.1/24"]}}}
    route = {"routes": [{"to": "100.64.0.0/16", "via": "198.51.100.9"}]}
    if first == "route":
        ip("address", "add", "198.51.100.1/24", "dev", "d0")
        run(on_the_host("one", **route))
        ip("address", "delete", "198.51.100.1/24", "dev", "d0")
    run(on_the_host("one", **address, **route))
    told = ["remove route host 100.64.0.0/16 via 198.51.100.9 dev d0", "remove address host:d0 198.51.100.1/24"]
    assert run(on_the_host("one"), check=True) == run(on_the_host("one")) == told
    run(on_the_host("one"), absent=True)
    assert not differences(fresh, host_without_lab_traces())


def test_a_way_of_a_route_comes_back() -> None:
    ip("address", "add", "2001:db8:77::2/64", "dev", "d1", "nodad")
    ip("address", "add", "192.0.77.2/24", "dev", "d1")
    ways = ["nexthop", "via", "2001:db8::1", "nexthop", "via", "2001:db8:77::1"]
    ip("-6", "route", "add", "2001:db8:78::/64", *ways)
    ip("route", "add", "198.51.100.0/24", "nexthop", "via", "192.0.2.1", "nexthop", "via", "192.0.77.1")
    before = host_without_lab_traces()
    for cause in ("down", "mtu"):
        run(on_the_host("one", **TAKING[cause]))
        gone("one")
        is_as(before)


def test_what_another_part_of_the_lab_keeps_away_comes_back_with_the_last_one() -> None:
    before = host_without_lab_traces()
    run(of_d0("one", up=False, mtu=1000))
    run(of_d0("one", up=False))
    run(of_d0("one", mtu=1000))
    gone("one")
    is_as(before)


def test_sysctls_of_ipv4_that_were_set_since_do_not_come_back_with_those_of_ipv6() -> None:
    ip("link", "set", "d0", "addrgenmode", "eui64")
    before = host_without_lab_traces()
    run(of_d0("one", mtu=1000))
    run(on_the_host("two", sysctls={"net.ipv4.conf.d0.rp_filter": 2}))
    gone("one")
    assert sysctls(None, r"^net\.ipv4\.conf\.d0\.rp_filter$") == {"net.ipv4.conf.d0.rp_filter": "2"}
    gone("two")
    is_as(before)


def test_a_setting_that_has_followed_another_one_is_the_documents_now() -> None:
    ip("link", "set", "d1", "up")
    before = host_without_lab_traces()
    with open("/proc/sys/net/ipv4/conf/d1/forwarding", "w", encoding="ascii") as file:
        file.write("1")
    changed = host_without_lab_traces()
    assert differences(before, changed)
    run(on_the_host("one", sysctls={"net.ipv4.ip_forward": 1}))
    run(on_the_host("one", sysctls={FORWARDING: 0}))
    assert run(on_the_host("one", sysctls={FORWARDING: 0})) == []
    assert sysctls(None, f"^{FORWARDING}$") == {FORWARDING: "0"}
    gone("one")
    is_as(changed)


# --- other names -----------------------------------------------------------------------------------------------------

SHARED: Document = {
    "interfaces": {"d0": {"mtu": 1400, "addresses": ["192.0.2.9/24", "2001:db8::9/64"], "mac": "02:00:00:00:00:09"}},
    "routes": [{"to": "198.51.100.0/24", "via": "192.0.2.1"}],
    "sysctls": {"net.ipv4.conf.d0.forwarding": 1},
}


@pytest.mark.parametrize("order", [("one", "two"), ("two", "one")])
def test_two_labs_share_a_device_that_gets_another_name(order: tuple[str, str]) -> None:
    before = host_without_lab_traces()
    for lab in ("one", "two"):
        run(on_the_host(lab, **SHARED))
    rename("d0", "d9")
    gone(*order)
    rename("d9", "d0")
    is_as(before)


def test_what_is_remembered_of_a_device_that_is_gone_says_nothing_of_another_one() -> None:
    run(of_d0("two", mtu=1400, addresses=["192.0.2.9/24"]))
    ip("link", "del", "d0")
    device("d0")
    before = snapshot()["host"]
    run(of_d0("one", mtu=1300, addresses=["192.0.2.9/24"]))
    gone("one", "two")
    assert [path for path in files() if "lab-" in path] == []
    assert not differences(before, snapshot()["host"])


def test_the_notes_of_two_devices_that_had_one_name_stay_apart() -> None:
    ip("link", "set", "d1", "mtu", "1450")
    run(on_the_host("one", interfaces={"d0": {"mtu": 1400}, "d1": {"mtu": 1400}}))
    ip("link", "del", "d1")
    rename("d0", "d1")
    gone("one")
    assert ip_json(None, "link", "show", "d1")[0]["mtu"] == 1500
    assert [path for path in files() if "lab-" in path] == []


@pytest.mark.parametrize("old", ["d0", "d1"])
def test_every_way_of_a_route_follows(old: str) -> None:
    ip("address", "add", "192.0.77.2/24", "dev", "d1")
    ways = [{"via": "192.0.2.1"}, {"via": "192.0.77.1"}]
    before = host_without_lab_traces()
    run(on_the_host("one", routes=[{"to": "198.51.100.0/24", "nexthops": ways}]))
    rename(old, "uplink")
    gone("one")
    rename("uplink", old)
    is_as(before)


def test_a_port_comes_home_to_a_bridge_that_has_another_name() -> None:
    ip("link", "add", "old", "type", "bridge")
    ip("link", "set", "d1", "master", "old")
    run(on_the_host("one", bridges={"br0": {"ports": ["d1"]}}), adopt=True)
    rename("old", "new")
    gone("one")
    assert ip_json(None, "link", "show", "d1")[0]["master"] == "new"


def test_a_port_that_becomes_free_with_its_bridge_is_no_change_of_its_own() -> None:
    run(on_the_host("one", bridges={"br0": {"ports": ["d1"]}}), adopt=True)
    assert run({"name": "one"}, absent=True) == ["remove bridge host:br0"]


@pytest.mark.parametrize("name", ["net", "ipv4", "conf", "forwarding"])
def test_a_device_may_be_called_like_a_part_of_a_sysctl(name: str) -> None:
    before = host_without_lab_traces()
    run(on_the_host("one", sysctls={FORWARDING: 1}))
    rename("d1", name)
    gone("one")
    rename(name, "d1")
    is_as(before)


# --- second names ----------------------------------------------------------------------------------------------------


def second_name(name: str, of: str) -> None:
    """Another name for a namespace, which sorts before it."""
    open(f"/run/netns/{name}", "wb").close()
    ip_mount(f"/run/netns/{of}", f"/run/netns/{name}")


def ip_mount(source: str, target: str) -> None:
    subprocess.run(["mount", "--bind", source, target], check=True)


def test_a_second_name_takes_no_notes_away() -> None:
    forwarding = "net.ipv4.conf.all.forwarding"
    run({"name": "one", "namespaces": {"x": {"sysctls": {forwarding: 1}}}})
    second_name("a", "x")
    run(of_d0("two", mtu=1400))
    run({"name": "one", "namespaces": {"x": {}}})
    assert sysctls("x", f"^{forwarding}$") == {forwarding: "0"}


def test_of_two_names_the_older_one_is_the_name() -> None:
    run(small("one", "x", "y"))
    second_name("a", "x")
    second_name("z", "x")
    found = gather(None, (), "")["namespaces"]
    assert list(found) == ["host", "x", "y"]
    assert found["x"]["second_names"] == ["a", "z"]
    assert list(gather(["a"], (), "")["namespaces"]) == ["a"]
    with pytest.raises(Exception, match="the namespace x has a second name, a; take that away first"):
        collect()
    for name in ("a", "z"):
        ip("netns", "del", name)
    assert collect() != []


def test_a_namespace_called_host_is_nobodys() -> None:
    ip("netns", "add", "host")
    second_name("a", "host")
    assert run(of_d0("one", mtu=1400)) == ["change link host:d0 mtu 1500 -> 1400"]
    assert list(gather(None, (), "")["namespaces"]) == ["host", "a"]
    gone("one")
    assert ip_json(None, "link", "show", "d0")[0]["mtu"] == 1500


def test_a_probe_listens_in_a_namespace_by_any_of_its_names() -> None:
    run(small("one", "x", "y"))
    for name in ("a", "z"):
        second_name(name, "x")
    for name in ("x", "a", "z"):
        found = probing.probe(
            _options.probes(
                {
                    "probes": [
                        {"from": "x", "to": "127.0.0.1", "protocol": "tcp", "port": 80, "listen": {"namespace": name}}
                    ]
                }
            )[0]
        )
        assert [result["passed"] for result in found] == [True]


# --- addresses that are there already --------------------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize(
    "address",
    [
        {"address": "192.0.2.2/24", "label": "d0:lab"},
        {"address": "192.0.2.2/24", "noprefixroute": True},
        {"address": "2001:db8::2/64", "preferred_lft": 0},
        {"address": "2001:db8::2/80"},
        {"address": "192.0.77.2/32"},
    ],
    ids=str,
)
@pytest.mark.parametrize("owner", ["administrator", "two"])
def test_an_address_that_is_there_otherwise_is_refused(address: dict[str, Any], owner: str) -> None:
    ip("address", "add", "192.0.77.2", "peer", "192.0.77.1", "dev", "d0")
    if owner == "two":
        for own in ADDRESSES:
            ip("address", "del", own, "dev", "d0")
        run(of_d0("two", addresses=list(ADDRESSES)))
    os.makedirs("/run/nslab", mode=0o700, exist_ok=True)
    before = snapshot()
    said = refused(of_d0("one", addresses=[address]))
    assert "namespaces.host.interfaces.d0.addresses[0]" in said
    assert "host:d0 has this address already, as " in said
    assert not differences(before, snapshot())


@pytest.mark.parametrize("address", ["192.0.2.9/24", "2001:db8::9/64"])
def test_a_lab_may_say_its_address_otherwise(address: str) -> None:
    before = host_without_lab_traces()
    run(of_d0("one", addresses=[address]))
    new = {"address": address, "preferred_lft": 0}
    run(of_d0("one", addresses=[new]))
    assert run(of_d0("one", addresses=[new])) == []
    gone("one")
    is_as(before)


def test_the_other_end_of_a_line_leads_to_gateways() -> None:
    ip("address", "add", "192.0.77.2", "peer", "192.0.77.1", "dev", "d1")
    ip("address", "add", "2001:db8:77::2", "peer", "2001:db8:77::1", "dev", "d1", "nodad")
    ip("route", "add", "198.51.100.0/24", "via", "192.0.77.1")
    ip("-6", "route", "add", "2001:db8:78::/64", "via", "2001:db8:77::1")
    before = host_without_lab_traces()
    run(on_the_host("one", interfaces={"d1": {"up": False}}))
    gone("one")
    is_as(before)


def test_the_note_of_a_lab_names_what_it_speaks_of() -> None:
    run(of_d0("one", mtu=1400))
    with open("/run/nslab/lab-one.jsonl", encoding="ascii") as file:
        lines = [json.loads(line) for line in file if line.strip()]
    index = ip_json(None, "link", "show", "d0")[0]["ifindex"]
    inode = os.stat("/proc/self/ns/net").st_ino
    assert lines == [["mtu", "host", inode, "d0", "1500", "1400", [["d0", index]]]]
