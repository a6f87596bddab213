# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose is what: labs beside each other, and beside what others have made."""

from __future__ import annotations

import itertools
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.nslab.netns.plugins.module_utils import _engine as engine
from ansible_collections.nslab.netns.plugins.module_utils import _namespaces, _options
from ansible_collections.nslab.netns.plugins.module_utils._errors import Refused, StepFailed
from ansible_collections.nslab.netns.plugins.module_utils._facts import gather
from ansible_collections.nslab.netns.plugins.module_utils._model import BIRTH_GROUP
from ansible_collections.nslab.netns.tests.unit.topologies import Document, routed
from applying import host_without_lab_traces, refused, run, words
from throwaway import differences, eventually, inside, ip, ip_json, named_namespaces, snapshot, sysctls, within, without

pytestmark = pytest.mark.usefixtures("host")

FORWARD = "net.ipv4.ip_forward"


def on_the_host(name: str, **body: Any) -> Document:
    return {"name": name, "namespaces": {"host": body}}


def files() -> list[str]:
    return [path for path in snapshot()["files"] if path.startswith("/run/nslab/")]


# --- what two labs want of a thing that is neither's -----------------------------------------------------------------

SHARED = {
    "sysctl": {"sysctls": {FORWARD: 1}},
    "address": {"interfaces": {"eth0": {"addresses": ["192.0.2.9/24", "2001:db8::9/64"]}}},
    "mtu": {"interfaces": {"eth0": {"mtu": 1400}}},
    "mac": {"interfaces": {"eth0": {"mac": "02:00:00:00:00:09"}}},
    "small mtu": {"interfaces": {"eth0": {"mtu": 1000}}},
    "down": {"interfaces": {"eth0": {"up": False}}},
    "no IPv6": {"sysctls": {"net.ipv6.conf.eth0.disable_ipv6": 1}},
    "route": {"routes": [{"to": "198.51.100.0/24", "via": "192.0.2.1"}]},
    "rule": {"rules": [{"priority": 100, "from": "192.0.2.0/24", "iif": "eth0", "table": 100}]},
}


@pytest.fixture
def eth0(host: None) -> None:
    """An interface of the machine, which no lab owns."""
    ip("link", "add", "eth0", "address", "02:00:00:00:00:01", "type", "veth", "peer", "name", "far")
    ip("link", "set", "far", "up")
    ip("link", "set", "eth0", "up")
    ip("address", "add", "192.0.2.2/24", "dev", "eth0")
    ip("address", "add", "2001:db8:2::2/64", "dev", "eth0", "nodad")
    ip("route", "add", "203.0.113.0/24", "via", "192.0.2.1")
    ip("-6", "route", "add", "2001:db8:3::/48", "via", "2001:db8:2::1")


@pytest.mark.once
@pytest.mark.usefixtures("eth0")
@pytest.mark.parametrize("first_to_go", ["one", "two"])
@pytest.mark.parametrize("kind", SHARED)
def test_what_two_labs_need_goes_with_the_last_of_them(kind: str, first_to_go: str) -> None:
    fresh = host_without_lab_traces()
    labs = {name: on_the_host(name, **SHARED[kind]) for name in ("one", "two")}
    assert run(labs["one"]) != []
    # It is there already: nothing changes, and neither will the run that says so again.
    assert run(labs["two"]) == []
    both = without(snapshot(), *files())
    assert run(labs["two"], check=True) == run(labs["two"]) == run(labs["one"]) == []

    last = "two" if first_to_go == "one" else "one"
    assert run(labs[first_to_go], absent=True, check=True) == []
    assert run(labs[first_to_go], absent=True) == []
    assert not differences(both, without(snapshot(), *files()))
    assert run(labs[last]) == []
    predicted = run(labs[last], absent=True, check=True)
    assert run(labs[last], absent=True) == predicted != []
    assert not differences(fresh, host_without_lab_traces())
    assert [path for path in files() if "lab-" in path] == []


@pytest.mark.usefixtures("eth0")
def test_it_may_pass_through_many_hands() -> None:
    fresh = host_without_lab_traces()
    names = ["c", "a", "b", "d"]
    for name in names:
        run(on_the_host(name, **SHARED["sysctl"]))
    for name in ["a", "c", "d"]:
        assert run(on_the_host(name), absent=True) == []
        assert sysctls(None, f"^{FORWARD}$") == {FORWARD: "1"}
    # One that needs it no more lets go of it while it stays itself.
    assert run(on_the_host("b", sysctls={"net.ipv4.icmp_echo_ignore_all": 1})) != []
    assert sysctls(None, f"^{FORWARD}$") == {FORWARD: "0"}
    run(on_the_host("b"), absent=True)
    assert not differences(fresh, host_without_lab_traces())


@pytest.mark.once
@pytest.mark.usefixtures("eth0")
@pytest.mark.parametrize(
    ("kind", "other", "path"),
    [
        ("sysctl", {"sysctls": {FORWARD: 0}}, f"namespaces.host.sysctls['{FORWARD}']"),
        ("mtu", {"interfaces": {"eth0": {"mtu": 1300}}}, "namespaces.host.interfaces.eth0"),
        ("down", {"interfaces": {"eth0": {"up": True}}}, "namespaces.host.interfaces.eth0"),
        ("route", {"routes": [{"to": "198.51.100.0/24", "via": "192.0.2.5"}]}, "namespaces.host.routes[0]"),
    ],
)
def test_what_two_labs_need_differently_is_refused(kind: str, other: Document, path: str) -> None:
    run(on_the_host("one", **SHARED[kind]))
    said = refused(on_the_host("two", **other))
    assert said.startswith(f"{path}: the lab 'one' has set this to ")
    assert "let both say the same, or remove that lab" in said


def a_wire(address: str) -> Document:
    return {
        "name": "one",
        "namespaces": {
            "one-a": {"interfaces": {"e0": {"addresses": ["10.77.0.2/24"]}}},
            "host": {"interfaces": {"h-one": {"addresses": [address]}}},
        },
        "links": [{"endpoints": ["host:h-one", "one-a:e0"]}],
    }


@pytest.mark.parametrize("how", ["absent", "gc", "another address", "no wire"])
def test_what_another_lab_needs_of_a_lab_is_spared(how: str) -> None:
    fresh = host_without_lab_traces()
    run(a_wire("10.77.0.1/24"))
    route = {"to": "10.78.0.0/16", "via": "10.77.0.2"}
    two = on_the_host("two", routes=[route])
    run(two)
    needed = "this takes the route host 10.78.0.0/16 via 10.77.0.2 dev h-one along, which the lab 'two' needs"
    before = snapshot()
    if how == "absent":
        with pytest.raises(Refused) as refusal:
            run({"name": "one"}, absent=True)
        said = str(refusal.value)
    elif how == "gc":
        with pytest.raises(Refused) as refusal:
            collect("two")
        said = str(refusal.value)
    else:
        said = refused(
            a_wire("10.79.0.1/24") if how == "another address" else {"name": "one", "namespaces": {"one-a": {}}}
        )
    assert needed in said
    assert "remove that lab before" in said
    assert not differences(before, snapshot())
    # What leads to the gateway as before is no loss.
    run(a_wire("10.77.0.9/24"))
    assert run(two) == []
    assert collect() != []
    assert not differences(fresh, host_without_lab_traces())


def test_a_gateway_that_another_lab_needs_is_spared() -> None:
    document = a_wire("10.77.0.1/24")
    document["namespaces"]["host"]["interfaces"]["h-one"]["addresses"].append("10.88.0.1/24")
    run(document)
    run(on_the_host("two", routes=[{"to": "10.78.0.0/16", "via": "10.77.0.2"}]))
    # The kernel would keep the route, as the link has another address, and would not take it again.
    said = "this takes the gateway of the route host 10.78.0.0/16 via 10.77.0.2 dev h-one along"
    assert said in refused(a_wire("10.88.0.1/24"))


@pytest.mark.parametrize("change", [{"mtu": 1000}, None])
def test_sysctls_of_another_lab_on_a_labs_own_link_are_spared(change: Document | None) -> None:
    document = a_wire("10.77.0.1/24")
    run(document)
    two = on_the_host("two", sysctls={"net.ipv6.conf.h-one.accept_ra": 0})
    run(two)
    if change:
        document["namespaces"]["host"]["interfaces"]["h-one"].update(change)
    else:
        document = {"name": "one", "namespaces": {"one-a": {}}}
    said = refused(document)
    assert "takes" in said
    assert "net.ipv6.conf.h-one.accept_ra along, which the lab 'two' needs" in said
    assert run(two) == []


def test_a_handing_over_that_fails_is_taken_back() -> None:
    both = {"net.ipv4.conf.lo.rp_filter": 1, "net.ipv4.conf.all.accept_local": 1}
    run(on_the_host("one", sysctls=both))
    run(on_the_host("two", sysctls={"net.ipv4.conf.lo.rp_filter": 1}))
    before = snapshot()
    os.mkdir("/run/nslab/.lab-two.jsonl.new")
    with pytest.raises(StepFailed, match="what other labs remember"):
        run({"name": "one"}, absent=True)
    os.rmdir("/run/nslab/.lab-two.jsonl.new")
    assert not differences(before, snapshot())
    assert run({"name": "one"}, absent=True) == ["change sysctl host net.ipv4.conf.all.accept_local = 1 -> 0"]


@pytest.mark.usefixtures("eth0")
@pytest.mark.parametrize("where", ["default", "all"])
def test_a_link_that_will_take_no_ipv6_is_refused_its_address(where: str) -> None:
    within(None, "sysctl", "-w", f"net.ipv6.conf.{where}.disable_ipv6=1")
    document = a_wire("2001:db8:7::1/64")
    said = refused(document)
    assert "'2001:db8:7::1/64' is an IPv6 address, but host:h-one takes none" in said
    document["namespaces"]["host"]["sysctls"] = {"net.ipv6.conf.h-one.disable_ipv6": 0}
    assert run(document) != []
    assert run(document) == []


@pytest.mark.usefixtures("eth0")
def test_somebody_elses_change_is_told_and_not_overwritten() -> None:
    document = on_the_host("one", **SHARED["sysctl"], interfaces={"eth0": {"mtu": 1400, "addresses": ["192.0.2.9/24"]}})
    run(document)
    ip("link", "set", "eth0", "mtu", "1350")
    ip("address", "del", "192.0.2.9/24", "dev", "eth0")
    run(document, absent=True, warned=["mtu host eth0 was changed to '1350' by somebody else since the lab set it"])
    assert ip_json(None, "link", "show", "eth0")[0]["mtu"] == 1350
    assert sysctls(None, f"^{FORWARD}$") == {FORWARD: "0"}


# --- what others have made --------------------------------------------------------------------------------------------


def test_a_refusal_says_what_it_is_and_who_uses_it() -> None:
    ip("netns", "add", "router")
    ip("link", "add", "h0", "type", "veth", "peer", "name", "up0", "netns", "router")
    with subprocess.Popen([*inside("router"), "sleep", "1000"]) as sleeper:
        try:
            said = refused(routed())
        finally:
            sleeper.kill()
    assert (
        "namespaces.router: the namespace router (with up0, the home of process "
        f"{sleeper.pid} (sleep)) exists already and is not marked as this lab's"
    ) in said


def test_a_refused_veth_and_bridge_say_what_hangs_on_them() -> None:
    ip("link", "add", "br0", "type", "bridge")
    ip("link", "add", "h0", "type", "veth", "peer", "name", "h1")
    ip("link", "set", "h1", "master", "br0")
    document = {
        "name": "lab",
        "namespaces": {"host": {"bridges": {"br0": {}}}},
        "links": [{"endpoints": ["host:h0", "host:h1"]}],
    }
    said = refused(document)
    assert "namespaces.host.bridges.br0: the bridge host:br0 (with h1) exists already and is not marked" in said
    assert "links[0]: the veth host:h0 (wired to host:h1) exists already and is not marked" in said


# --- what is left over ------------------------------------------------------------------------------------------------


def test_what_another_lab_has_made_on_the_host_is_its_own() -> None:
    """Both documents would be exact there, and each run would undo the other."""
    maker = {
        "name": "maker",
        "namespaces": {"a": {}, "host": {"interfaces": {"h": {"addresses": ["10.8.0.1/24"]}}}},
        "links": [{"endpoints": ["a:e", "host:h"]}],
    }
    run(maker)
    said = refused(on_the_host("two", interfaces={"h": {"addresses": ["10.9.0.1/24"]}}))
    assert said.startswith("namespaces.host.interfaces.h: host:h was made by the lab 'maker'")
    assert run(maker) == []


def small(name: str) -> Document:
    """A lab of its own with something of each kind that marks it."""
    return {
        "name": name,
        "namespaces": {
            f"{name}-a": {"snat": [{"source": "10.0.0.0/24", "masquerade": True}], "nat_backend": "iptables"},
            "host": {
                "bridges": {f"br-{name}": {"ports": [f"h-{name}"]}},
                "sysctls": {FORWARD: 1},
                "snat": [{"source": "10.0.0.0/24", "masquerade": True}],
                "nat_backend": "nftables",
            },
        },
        "links": [{"endpoints": [f"{name}-a:e0", f"host:h-{name}"]}],
    }


def collect(*valid: str, check: bool = False) -> list[str]:
    return words(engine.run(_options.topology({"gc": list(valid)}), check=check))


def test_gc_removes_all_labs_but_the_valid_ones() -> None:
    fresh = host_without_lab_traces()
    for name in ("one", "two", "three"):
        run(small(name))
    ip("netns", "add", "foreign")
    predicted = collect("two", "four", check=True)
    assert collect("two", "four") == predicted
    assert collect("two", "four") == []
    assert named_namespaces() == ["foreign", "two-a"]
    assert sysctls(None, f"^{FORWARD}$") == {FORWARD: "1"}
    assert run(small("two")) == []
    predicted = collect(check=True)
    assert collect() == predicted != []
    assert collect() == []
    ip("netns", "del", "foreign")
    assert not differences(fresh, without(host_without_lab_traces(), "/run/xtables.lock"))


@pytest.mark.parametrize("what", ["rules", "legacy rules", "memory", "link"])
def test_gc_finds_a_lab_by_the_least_that_is_left_of_it(what: str) -> None:
    fresh = host_without_lab_traces()
    bodies: dict[str, Document] = {
        "rules": {"snat": [{"source": "10.0.0.0/24", "masquerade": True}], "nat_backend": "nftables"},
        "legacy rules": {"snat": [{"source": "10.0.0.0/24", "masquerade": True}], "nat_backend": "iptables"},
        "memory": {"sysctls": {FORWARD: 1}},
        "link": {"bridges": {"br0": {}}},
    }
    run(on_the_host("x", **bodies[what]))
    assert gather(["host"], [], "")["labs"] == ["x"]
    assert len(collect("y")) == 1
    assert collect("y") == []
    assert not differences(fresh, without(host_without_lab_traces(), "/run/xtables.lock"))


def test_gc_is_one_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        run(small(name))
    before = snapshot()
    monkeypatch.setattr(engine.Application, "commit", lambda _self: pytest.fail("it was kept"))
    remove = _namespaces.remove_name

    def failing(name: str, inode: int) -> None:
        if name == "two-a":
            raise OSError(5, "Input/output error")
        remove(name, inode)

    monkeypatch.setattr(_namespaces, "remove_name", failing)
    with pytest.raises(StepFailed, match="Everything that this run had done was taken back"):
        collect()
    assert not differences(before, snapshot())


def kinds() -> list[tuple[str, str, str]]:
    found = gather(["host"], [], "")["orphans"]
    return sorted((orphan["kind"], orphan["namespace"] or "", orphan["name"]) for orphan in found)


def test_orphans_are_told_and_those_of_ours_collected() -> None:
    run(routed())
    assert kinds() == []
    Path("/run/netns/left-over").touch()
    Path("/run/netns/dangling").symlink_to("/proc/0/ns/net")
    Path("/run/netns/folder").mkdir()
    # The other end of a veth in a namespace that has lost its name, but lives.
    with subprocess.Popen([*inside("client"), "sleep", "1000"]) as sleeper:
        try:
            there = os.stat("/run/netns/client").st_ino
            eventually(lambda: os.stat(f"/proc/{sleeper.pid}/ns/net").st_ino == there, "it is inside")
            ip("netns", "del", "client")
            ip("-n", "server", "link", "set", "vethS", "alias", "")
            # As a killed run leaves what it has made and not marked yet.
            ip("link", "add", "h0", "type", "veth", "peer", "name", "h1")
            for end in ("h0", "h1"):
                ip("link", "set", end, "group", str(BIRTH_GROUP))
            assert kinds() == [
                ("dangling", "", "dangling"),
                ("foreign", "", "folder"),
                ("half", "router", "router"),
                ("stale", "", "left-over"),
                ("unfinished", "host", "h0"),
                ("unfinished", "host", "h1"),
                ("unpaired", "router", "veth-cli"),
                ("unpaired", "router", "veth-srv"),
            ]
            assert any("h0" in line for line in collect("routed"))
            assert {kind for kind, _where, _name in kinds()} == {"dangling", "foreign", "stale", "unpaired", "half"}
            collect()
            assert [kind for kind, _where, _name in kinds()] == ["dangling", "foreign", "stale"]
        finally:
            sleeper.kill()


def test_the_memory_of_a_namespace_that_is_gone_is_an_orphan() -> None:
    run({"name": "x", "namespaces": {"a": {"sysctls": {FORWARD: 1}}}})
    ip("netns", "del", "a")
    assert kinds() == [("memory", "a", "a")]
    collect()
    assert kinds() == []
    assert gather(["host"], [], "")["labs"] == []


def test_a_route_of_the_host_that_was_another_one_goes_without_a_trace() -> None:
    """One that cannot be replaced goes and comes; what went is no loss to be mended."""
    ways: list[Document] = [
        {"type": "blackhole"},
        {"nexthops": [{"via": "2001:db8:7::77"}, {"via": "2001:db8:7::79"}]},
        {"type": "unreachable"},
    ]
    before = host_without_lab_traces()
    for way in (*ways, *ways):
        run(_with_route({"to": "2001:db8:8::/48", **way}))
        assert run(_with_route({"to": "2001:db8:8::/48", **way})) == []
    run({"name": "ways"}, absent=True)
    assert not differences(before, host_without_lab_traces())


def _with_route(route: Document) -> Document:
    near = {"address": "2001:db8:7::1/64", "nodad": True}
    return {
        "name": "ways",
        "namespaces": {
            "far": {"interfaces": {"eth0": {"addresses": ["2001:db8:7::2/64"]}}},
            "host": {"interfaces": {"h0": {"addresses": [near]}}, "routes": [route]},
        },
        "links": [{"endpoints": ["host:h0", "far:eth0"]}],
    }


def _passing_on(ip_forward: int | None, lo: int | None) -> Document:
    """Both sysctls, or one, or none: the kernel sets the second one with the first."""
    both = {"net.ipv4.ip_forward": ip_forward, "net.ipv4.conf.lo.forwarding": lo}
    sysctls = {key: value for key, value in both.items() if value is not None}
    return {"name": "lab", "namespaces": {"a": {"interfaces": {"lo": {}}, "sysctls": sysctls}}}


def test_a_sysctl_forgets_what_it_was_because_of_another_one_that_is_gone() -> None:
    run(_passing_on(1, 0))
    run(_passing_on(None, 0))
    assert run(_passing_on(None, None)) == []
    assert within("a", "sysctl", "-n", "net.ipv4.conf.lo.forwarding").strip() == "0"


@pytest.mark.once
def test_what_sysctls_were_is_known_whatever_the_order_in_which_they_come_and_go() -> None:
    """From nothing through any two states that a lab may want, there and back."""

    def forwarding() -> list[str]:
        every = [f"net.ipv4.conf.{name}.forwarding" for name in ("lo", "all", "default")]
        return within("a", "sysctl", "-n", "net.ipv4.ip_forward", *every).split()

    states = [(ip_forward, lo) for ip_forward in (None, 0, 1) for lo in (None, 0, 1)]
    fresh = {}
    for state in states:
        run(_passing_on(*state))
        fresh[state] = forwarding()
        run({"name": "lab"}, absent=True)
    for way in itertools.product(states, repeat=3):
        if way[0] != way[1] != way[2]:
            for state in way:
                run(_passing_on(*state))
            assert forwarding() == fresh[way[-1]], way
            run({"name": "lab"}, absent=True)
