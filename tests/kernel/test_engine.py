# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine on the real kernel: what it does to drift, failures, foreign things, kills and competitors."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import throwaway
from ansible_collections.nslab.netns.plugins.module_utils import _apply, _facts, _namespaces, _options, _sysctl
from ansible_collections.nslab.netns.plugins.module_utils import _engine as engine
from ansible_collections.nslab.netns.plugins.module_utils._document import read_topology
from ansible_collections.nslab.netns.plugins.module_utils._errors import (
    Busy,
    InvalidInput,
    NslabError,
    Refused,
    StepFailed,
)
from ansible_collections.nslab.netns.tests.unit.topologies import Document, routed
from applying import (
    fail_each_call,
    host_without_lab_traces,
    kill_at,
    module,
    netns,
    outcome,
    refused,
    run,
    veth,
)
from throwaway import differences, eventually, ip, ip_json, named_namespaces, snapshot

pytestmark = pytest.mark.usefixtures("host")


def ping(namespace: str, address: str) -> bool:
    return throwaway.ping(namespace, address)[0]


def indexes() -> dict[str, int]:
    return {
        f"{name}:{link['ifname']}": link["ifindex"] for name in named_namespaces() for link in ip_json(name, "link")
    }


# --- drift -----------------------------------------------------------------------------------------------------------


DRIFT: dict[str, tuple[list[list[str]], list[str]]] = {
    "address removed": (
        [["-n", "server", "address", "del", "1.1.1.1/24", "dev", "lo"]],
        ["add address server:lo 1.1.1.1/24"],
    ),
    "last address removed, and the routes with it": (
        [["-n", "server", "address", "del", "10.0.1.2/24", "dev", "vethS"]],
        ["add address server:vethS 10.0.1.2/24", "add route server default via 10.0.1.1 dev vethS"],
    ),
    "wrong address added": (
        [["-n", "router", "address", "add", "10.0.1.9/24", "dev", "veth-srv"]],
        ["remove address router:veth-srv 10.0.1.9/24"],
    ),
    "address with another prefix length": (
        [
            ["-n", "client", "address", "del", "2.2.2.2/24", "dev", "lo"],
            ["-n", "client", "address", "add", "2.2.2.2/16", "dev", "lo"],
        ],
        ["remove address client:lo 2.2.2.2/16", "add address client:lo 2.2.2.2/24"],
    ),
    "link down": (
        [["-n", "router", "link", "set", "veth-cli", "down"]],
        ["change link router:veth-cli down -> up", "add route router 2.2.2.0/24 via 10.0.2.2 dev veth-cli"],
    ),
    "MTU changed": (
        [["-n", "server", "link", "set", "vethS", "mtu", "1400"]],
        ["change link server:vethS mtu 1400 -> 1500"],
    ),
    "route deleted": (
        [["-n", "router", "route", "del", "1.1.1.0/24"]],
        ["add route router 1.1.1.0/24 via 10.0.1.2 dev veth-srv"],
    ),
    "route added": (
        [["-n", "router", "route", "add", "9.9.9.0/24", "via", "10.0.1.2"]],
        ["remove route router 9.9.9.0/24 via 10.0.1.2 dev veth-srv"],
    ),
    "wrong gateway": (
        [["-n", "router", "route", "replace", "2.2.2.0/24", "via", "10.0.2.77"]],
        ["change route router 2.2.2.0/24 via 10.0.2.77 dev veth-cli -> 10.0.2.2 dev veth-cli"],
    ),
    "route without our protocol number": (
        [["-n", "router", "route", "replace", "2.2.2.0/24", "via", "10.0.2.2"]],
        ["change route router 2.2.2.0/24 via 10.0.2.2 dev veth-cli proto 3 -> 110"],
    ),
    "lo down": (
        [["-n", "client", "link", "set", "lo", "down"]],
        ["change link client:lo down -> up"],
    ),
    "mark removed": (
        [["-n", "client", "link", "set", "vethC", "alias", ""]],
        ["change link client:vethC alias '' -> 'nslab:routed'"],
    ),
}


@pytest.mark.parametrize("name", DRIFT)
def test_drift_is_named_and_repaired_and_nothing_else_is_touched(name: str) -> None:
    commands, changes = DRIFT[name]
    run(routed())
    right = snapshot()
    for command in commands:
        ip(*command)
    assert run(routed(), check=True) == changes
    assert run(routed()) == changes
    assert run(routed()) == []
    assert not differences(right, snapshot())
    assert ping("server", "2.2.2.2")


def test_a_flipped_sysctl_is_set_again() -> None:
    run(routed())
    subprocess.run(["nsenter", "--net=/run/netns/router", "sysctl", "-qw", "net.ipv4.ip_forward=0"], check=True)
    assert run(routed()) == ["change sysctl router net.ipv4.ip_forward = 0 -> 1"]
    assert ping("server", "2.2.2.2")


def test_a_deleted_veth_is_made_again_and_the_other_one_keeps_its_indexes() -> None:
    run(routed())
    before = indexes()
    ip("-n", "client", "link", "delete", "vethC")
    changes = run(routed())
    assert changes[0] == "add veth client:vethC -- router:veth-cli"
    assert not [change for change in changes if "vethS" in change or "veth-srv" in change]
    after = indexes()
    assert {end: after[end] for end in ("server:vethS", "router:veth-srv")} == {
        end: before[end] for end in ("server:vethS", "router:veth-srv")
    }
    assert ping("server", "2.2.2.2")
    assert run(routed()) == []


def test_a_deleted_namespace_is_made_again() -> None:
    run(routed())
    ip("netns", "delete", "client")
    changes = run(routed())
    assert "add namespace client" in changes
    assert not [change for change in changes if "server" in change and "veth" in change]
    assert ping("server", "2.2.2.2")
    assert run(routed()) == []


def test_what_somebody_removes_first_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    run(routed())
    remove = _apply.encode.remove_link

    def late(session: Any, index: int) -> None:
        ip("-n", "router", "link", "delete", "veth-cli")
        remove(session, index)

    document = routed()
    del document["namespaces"]["client"], document["links"][1], document["namespaces"]["router"]["routes"][1]
    del document["namespaces"]["router"]["interfaces"]["veth-cli"]
    with monkeypatch.context() as patch:
        patch.setattr(_apply.encode, "remove_link", late)
        run(document)
    assert run(document) == []
    assert named_namespaces() == ["router", "server"]


def test_several_at_once() -> None:
    run(routed())
    right = snapshot()
    for commands, _changes in (DRIFT[name] for name in ("address removed", "MTU changed", "route added", "lo down")):
        for command in commands:
            ip(*command)
    assert sorted(run(routed())) == sorted(
        change for name in ("address removed", "MTU changed", "route added", "lo down") for change in DRIFT[name][1]
    )
    assert not differences(right, snapshot())


def test_a_renamed_end_is_replaced_by_its_mark() -> None:
    run(routed())
    ip("-n", "client", "link", "set", "vethC", "down", "name", "renamed")
    run(routed())
    assert "renamed" not in str(ip_json("client", "link"))
    assert ping("server", "2.2.2.2")


def test_routes_of_daemons_stay() -> None:
    run(routed())
    ip("-n", "router", "route", "add", "7.7.7.0/24", "via", "10.0.1.2", "proto", "bird")
    assert run(routed()) == []


# --- nothing before, nothing after ------------------------------------------------------------------------------------


def test_check_mode_on_a_fresh_host_predicts_all_and_touches_nothing() -> None:
    before = snapshot()
    predicted = run(routed(), check=True)
    assert not differences(before, snapshot())
    assert run(routed()) == predicted


def test_absent_leaves_nothing() -> None:
    before = host_without_lab_traces()
    run({**routed(), "namespaces": {**routed()["namespaces"], "host": {"sysctls": {"net.ipv4.ip_forward": 1}}}})
    assert Path("/run/nslab/lab-routed.jsonl").exists()
    run({"name": "routed"}, absent=True)
    assert not differences(before, host_without_lab_traces())
    assert run({"name": "routed"}, absent=True) == []


def test_the_earlier_value_of_a_host_sysctl_comes_back_when_it_leaves_the_document() -> None:
    document = {"name": "x", "namespaces": {"host": {"sysctls": {"net.ipv4.conf.all.rp_filter": 2}}}}
    _sysctl.write("net/ipv4/conf/all/rp_filter", "1")
    run(document)
    assert _sysctl.read("net/ipv4/conf/all/rp_filter") == "2"
    assert run({"name": "x"}) == ["change sysctl host net.ipv4.conf.all.rp_filter = 2 -> 1"]
    assert _sysctl.read("net/ipv4/conf/all/rp_filter") == "1"


def test_what_somebody_changed_since_is_reported_and_left() -> None:
    run({"name": "x", "namespaces": {"host": {"sysctls": {"net.ipv4.conf.all.rp_filter": 2}}}})
    _sysctl.write("net/ipv4/conf/all/rp_filter", "1")
    plan = engine.run(read_topology({"name": "x"}, absent=True).wanted)
    assert not plan.changes
    assert "was changed to '1' by somebody else" in plan.warnings[0]
    assert _sysctl.read("net/ipv4/conf/all/rp_filter") == "1"


def test_stale_file_is_replaced() -> None:
    os.mkdir("/run/netns", 0o755)
    Path("/run/netns/server").touch()
    assert run(routed())[0] == "add namespace server (in the place of a stale file)"
    assert ping("server", "2.2.2.2")
    Path("/run/netns/left-over").touch()
    assert netns("left-over", state="absent") == ["remove stale namespace file left-over"]
    assert not Path("/run/netns/left-over").exists()


# --- failures ---------------------------------------------------------------------------------------------------------


OTHER: Document = {
    "name": "routed",
    "namespaces": {
        "server": {
            "interfaces": {
                "vethS": {"addresses": ["10.0.1.3/24", "fd00::3/64"], "mtu": 1400, "mac": "02:00:00:00:00:07"}
            },
            "routes": [{"to": "default", "via": "10.0.1.1", "mtu": 1300}, {"to": "6.6.6.0/24", "type": "blackhole"}],
        },
        "router": {"sysctls": {"net.ipv4.ip_forward": 0, "net.ipv4.conf.veth-srv.rp_filter": 1}},
        "extra": {"interfaces": {"eth0": {"addresses": ["10.7.0.1/24"]}}},
        "host": {"sysctls": {"net.ipv4.ip_forward": 1}},
    },
    "links": [{"endpoints": ["server:vethS", "router:veth-srv"]}, {"endpoints": ["extra:eth0", "host:veth-x"]}],
}
OTHER["namespaces"]["router"]["interfaces"] = {"veth-srv": {"addresses": ["10.0.1.1/24"]}}


@pytest.mark.once
@pytest.mark.parametrize(
    ("first", "second"),
    [(None, routed()), (routed(), OTHER), (OTHER, routed()), (OTHER, {"name": "routed"})],
    ids=["create", "change", "change back", "remove"],
)
def test_every_failing_call_leaves_the_host_as_it_was(
    monkeypatch: pytest.MonkeyPatch, first: Document | None, second: Document
) -> None:
    """Links that had to be made anew keep index and MAC."""
    if first:
        run(first)
    assert fail_each_call(monkeypatch, second) > 5
    assert run(second) == []


def test_the_message_has_path_object_and_the_kernels_words() -> None:
    """rp_filter takes no words: only the kernel knows."""
    document = routed()
    document["namespaces"]["router"]["sysctls"]["net.ipv4.conf.veth-srv.rp_filter"] = "strict"
    before = host_without_lab_traces()
    with pytest.raises(StepFailed) as caught:
        run(document)
    assert str(caught.value) == (
        "namespaces.router.sysctls['net.ipv4.conf.veth-srv.rp_filter']: change sysctl router "
        "net.ipv4.conf.veth-srv.rp_filter = strict: Invalid argument. Everything that this run had done was taken back."
    )
    assert not differences(before, host_without_lab_traces())


def test_what_the_kernel_does_not_keep_is_an_error() -> None:
    """The kernel takes 7 for this sysctl and stores 1."""
    document = {"name": "x", "namespaces": {"a": {"sysctls": {"net.ipv4.conf.all.rp_filter": "007"}}}}
    with pytest.raises(StepFailed, match=r"the kernel did not keep what was set: .*rp_filter = 7 -> 007"):
        run(document)
    assert named_namespaces() == []


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 18, 21, 24, 27, 30])
def test_kill_at_any_step_then_one_run_converges(count: int) -> None:
    """Absent leaves nothing."""
    before = host_without_lab_traces()
    kill_at(count, routed())
    run(routed())
    assert run(routed()) == []
    assert ping("server", "2.2.2.2")
    run({"name": "routed"}, absent=True)
    assert not differences(before, host_without_lab_traces())


def test_a_signal_takes_effect_between_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    before = host_without_lab_traces()
    make = _apply.Application._add_veth

    def and_signal(self: _apply.Application, change: Any) -> None:
        make(self, change)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(_apply.Application, "_add_veth", and_signal)
    with pytest.raises(StepFailed, match="stopped by SIGTERM"):
        run(routed())
    assert not differences(before, host_without_lab_traces())


def test_a_signal_in_the_last_step_takes_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    before = host_without_lab_traces()

    def and_signal(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return plan(*arguments)

    plan = engine.plan
    # The second plan of a run is that of the verification, after the last step.
    monkeypatch.setattr(engine, "plan", lambda *arguments: setattr(engine, "plan", and_signal) or plan(*arguments))
    with pytest.raises(StepFailed, match="stopped by SIGTERM"):
        run(routed())
    assert not differences(before, host_without_lab_traces())


# --- foreign things ---------------------------------------------------------------------------------------------------


def test_a_foreign_namespace_is_refused_unless_adopted() -> None:
    ip("netns", "add", "router")
    assert "namespaces.router: the namespace router exists already and is not marked" in refused(routed())
    assert "change link router:lo alias '' -> 'nslab:routed'" in run(routed(), adopt=True)
    assert run(routed()) == []


@pytest.mark.parametrize(
    ("make", "fact"),
    [
        (lambda path: path.symlink_to("/proc/0/ns/net"), "is a symlink to /proc/0/ns/net, which is no namespace"),
        (lambda path: path.symlink_to("/etc/passwd"), "is a symlink to /etc/passwd, which is no namespace"),
        (Path.mkdir, "is neither a file nor a symlink, which is no namespace"),
    ],
    ids=["dangling symlink", "symlink", "folder"],
)
def test_what_is_no_namespace_is_neither_replaced_nor_removed(make: Callable[[Path], None], fact: str) -> None:
    ip("netns", "add", "other")
    path = Path("/run/netns/router")
    make(path)
    with pytest.raises(Refused) as caught:
        run(routed())
    assert f"namespaces.router: {path} {fact}; remove it or choose another name" in str(caught.value)
    with pytest.raises(Refused, match="it is not removed"):
        netns("router", state="absent")
    assert os.path.lexists(path)


def test_a_name_that_is_no_longer_stale_is_not_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    ip("netns", "add", "other")
    Path("/run/netns/a").touch()
    remove = _namespaces.remove_name

    def after_another(name: str, inode: int) -> None:
        Path("/run/netns/a").unlink()
        ip("netns", "add", "a")
        remove(name, inode)

    monkeypatch.setattr(_namespaces, "remove_name", after_another)
    with pytest.raises(StepFailed, match="the kernel did not keep what was set: remove namespace a"):
        netns("a", state="absent")
    assert named_namespaces() == ["a", "other"]


def test_a_namespace_of_another_lab_is_refused() -> None:
    run({"name": "other", "namespaces": {"router": {}}})
    assert "belongs to lab 'other'" in refused(routed())


def test_a_foreign_link_of_the_same_name_is_refused_with_the_facts() -> None:
    ip("link", "add", "h0", "type", "ifb")
    document = {"name": "x", "namespaces": {"a": {}}, "links": [{"endpoints": ["host:h0", "a:e0"]}]}
    assert "links[0]: host:h0 exists already and is an ifb device, no veth" in refused(document)


def test_a_veth_with_another_peer_is_refused_with_the_facts() -> None:
    ip("netns", "add", "b")
    ip("link", "add", "h0", "type", "veth", "peer", "name", "e9", "netns", "b")
    document = {"name": "x", "namespaces": {"a": {}}, "links": [{"endpoints": ["host:h0", "a:e0"]}]}
    assert "host:h0 exists already and is a veth wired to b:e9, not to a:e0" in refused(document)


@pytest.mark.parametrize("owner", ["lab", "nobody"])
def test_a_veth_of_somebody_else_is_not_taken_for_a_strayed_end(owner: str) -> None:
    """Every container has an eth0: equal names are no sign that a wire is the lab's own."""
    if owner == "lab":
        run({"name": "one", "namespaces": {"a": {}}, "links": [{"endpoints": ["host:h0", "a:eth0"]}]})
    else:
        netns("a")
        ip("link", "add", "h0", "type", "veth", "peer", "name", "eth0", "netns", "a")
    document = {"name": "two", "namespaces": {"b": {}}, "links": [{"endpoints": ["host:h0", "b:eth0"]}]}
    assert "is a veth wired to a:eth0, not to b:eth0" in refused(document)


def test_a_strayed_end_of_the_lab_comes_back_and_the_other_end_keeps_its_index() -> None:
    run(routed())
    index = ip_json("client", "link", "show", "vethC")[0]["ifindex"]
    ip("-n", "router", "link", "set", "veth-cli", "netns", "server")
    assert run(routed())[0] == "move link server:veth-cli -> router:veth-cli"
    assert ip_json("client", "link", "show", "vethC")[0]["ifindex"] == index
    assert ping("server", "2.2.2.2")


def test_replacing_an_address_keeps_what_others_have_on_the_link() -> None:
    ip("link", "add", "phys0", "up", "type", "ifb")
    for command in ("address add 10.0.0.1/24 dev phys0", "address add 10.0.0.2/24 dev phys0"):
        ip(*command.split())
    ip("route", "add", "9.9.9.0/24", "via", "10.0.0.254")
    addresses = [{"address": "10.0.0.1/24", "label": "phys0:x"}]
    options = {"name": "phys0", "namespace": "host", "addresses": addresses, "purge": False}
    assert "add route host 9.9.9.0/24 via 10.0.0.254 dev phys0" in module(_options.ns_link, **options)
    assert module(_options.ns_link, **options) == []
    found = {address["local"] for address in ip_json(None, "-4", "address", "show", "phys0")[0]["addr_info"]}
    assert found == {"10.0.0.1", "10.0.0.2"}
    assert ip_json(None, "route", "show", "9.9.9.0/24")


def test_rollback_of_forwarding_restores_what_the_kernel_changed_along_with_it() -> None:
    ip("link", "add", "phys0", "type", "ifb")
    _sysctl.write("net/ipv4/conf/phys0/forwarding", "1")
    _sysctl.write("net/ipv4/conf/all/accept_redirects", "0")
    before = host_without_lab_traces()
    settings = {"net.ipv4.ip_forward": 1, "net.ipv4.conf.lo.rp_filter": "strict"}
    assert outcome({"name": "x", "namespaces": {"host": {"sysctls": settings}}})
    assert not differences(before, host_without_lab_traces())


@pytest.mark.parametrize(
    ("route", "words"),
    [
        ({"to": "10.0.0.0/24", "dev": "e0"}, "routes[0].to: the kernel makes a route to 10.0.0.0/24 itself"),
        ({"to": "default", "via": "10.9.9.9"}, "routes[0].via: '10.9.9.9' is not reachable in the namespace a"),
        ({"to": "default", "via": "10.0.0.1"}, "routes[0].via: '10.0.0.1' is an address of the namespace a itself"),
        ({"to": "default", "via": "10.0.0.2", "dev": "lo"}, "is not reachable on lo"),
        ({"to": "default", "via": "10.0.0.2", "dev": "e1"}, "routes[0].dev: there is no link 'e1' in the namespace a"),
        ({"to": "default", "via": "10.0.0.2", "src": "10.0.0.3"}, "routes[0].src: '10.0.0.3' is no address"),
        ({"to": "default", "via": "10.0.0.255"}, "routes[0].via: '10.0.0.255' is the broadcast address"),
        ({"to": "fd00::/64", "dev": "e0", "metric": 256}, "the kernel makes a route to fd00::/64 itself, from the"),
    ],
)
def test_routes_that_the_kernel_would_refuse_are_refused_before(route: Any, words: str) -> None:
    interfaces = {"e0": {"addresses": ["10.0.0.1/24", {"address": "fd00::1/64", "nodad": True}]}}
    document = {
        "name": "x",
        "namespaces": {"a": {"interfaces": interfaces, "routes": [route]}, "b": {}},
        "links": [{"endpoints": ["a:e0", "b:e0"]}],
    }
    assert words in refused(document)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("net.ipv4.ip_forwrad", "there is no sysctl net.ipv4.ip_forwrad; did you mean 'net.ipv4.ip_forward'?"),
        ("net.core.netdev_max_backlog", "net.core.netdev_max_backlog is not per-namespace"),
        ("net.ipv4.conf.eth7.rp_filter", "there is no interface 'eth7' in the namespace a"),
    ],
)
@pytest.mark.parametrize("exists", [False, True])
def test_sysctls_that_are_not_there_are_refused(key: str, words: str, exists: bool) -> None:
    if exists:
        run({"name": "x", "namespaces": {"a": {}}})
    document = {"name": "x", "namespaces": {"a": {"sysctls": {key: 1, "net.ipv4.ip_forward": 1}}}}
    text = refused(document)
    assert f"namespaces.a.sysctls['{key}']: " in text
    assert words in text


def test_a_link_that_the_document_does_not_wire_has_to_be_there() -> None:
    document = {"name": "x", "namespaces": {"host": {"interfaces": {"eth7": {"addresses": ["10.0.0.1/24"]}}}}}
    assert "namespaces.host.interfaces.eth7: there is no link 'eth7' in the namespace host" in refused(document)


def test_an_address_on_a_foreign_link_comes_and_goes_and_the_rest_stays() -> None:
    ip("link", "add", "phys0", "type", "ifb")
    ip("address", "add", "192.0.2.1/24", "dev", "phys0")
    before = host_without_lab_traces()
    run({"name": "x", "namespaces": {"host": {"interfaces": {"phys0": {"addresses": ["10.0.0.1/24"], "mtu": 1400}}}}})
    assert {a["local"] for a in ip_json(None, "address", "show", "phys0")[0]["addr_info"]} == {"192.0.2.1", "10.0.0.1"}
    run({"name": "x"}, absent=True)
    assert not differences(before, host_without_lab_traces())


def test_what_a_sysctl_of_the_host_brings_along_is_restored() -> None:
    """Switching ip_forward changes other sysctls, and switching it back does not restore all of them."""
    ip("link", "add", "phys0", "type", "ifb")
    ip("link", "add", "phys1", "type", "ifb")
    for key, value in (("all/accept_redirects", "0"), ("phys0/forwarding", "1"), ("phys1/forwarding", "1")):
        Path(f"/proc/sys/net/ipv4/conf/{key}").write_text(value)
    before = host_without_lab_traces()
    sysctls = {"net.ipv4.ip_forward": 1, "net.ipv4.conf.phys0.forwarding": 0}
    document = {"name": "x", "namespaces": {"host": {"sysctls": sysctls}}}
    run(document)
    assert run(document) == []
    for key in ("all/accept_redirects", "phys0/forwarding"):
        assert Path(f"/proc/sys/net/ipv4/conf/{key}").read_text() == "0\n"
    run({"name": "x"}, absent=True)
    assert not differences(before, host_without_lab_traces())


def test_sysctls_that_depend_on_each_other_leave_the_document_together() -> None:
    ends = {"a": {"interfaces": {"e0": {}}}, "b": {"interfaces": {"e0": {}}}}
    document = {"name": "x", "namespaces": ends, "links": [{"endpoints": ["a:e0", "b:e0"]}]}
    sysctls = {"net.ipv4.ip_forward": 1, "net.ipv4.conf.e0.forwarding": 0}
    run(document)
    before = host_without_lab_traces()
    run({**document, "namespaces": {**ends, "a": {**ends["a"], "sysctls": sysctls}}})
    assert run(document) == ["change sysctl a net.ipv4.ip_forward = 1 -> 0"]
    assert not differences(before, host_without_lab_traces())


def test_the_ways_of_a_multipath_route_go_where_the_document_says() -> None:
    """Both interfaces have the gateways' prefix, so that only the device tells them apart; another way has only one."""
    ends = {"e0": {"addresses": ["10.0.0.1/24"]}, "e1": {"addresses": ["10.0.0.2/24"]}}
    ways = [{"via": "10.0.0.8", "dev": "e1"}, {"via": "10.0.0.9", "dev": "e0", "weight": 2}, {"dev": "e1", "weight": 5}]
    document = {
        "name": "x",
        "namespaces": {"a": {"interfaces": ends, "routes": [{"to": "192.0.2.0/24", "nexthops": ways}]}, "b": {}},
        "links": [{"endpoints": ["a:e0", "b:e0"]}, {"endpoints": ["a:e1", "b:e1"]}],
    }
    run(document)
    assert run(document) == []
    (route,) = ip_json("a", "route", "show", "192.0.2.0/24")
    found = {(way.get("gateway"), way["dev"], way["weight"]) for way in route["nexthops"]}
    assert found == {("10.0.0.8", "e1", 1), ("10.0.0.9", "e0", 2), (None, "e1", 5)}


@pytest.mark.parametrize("fewer", [[], ["198.18.0.2/24"]], ids=["absent", "one left"])
def test_what_others_have_on_a_link_survives_the_labs_addresses(fewer: list[str]) -> None:
    """With a primary address the kernel removes the others of its subnet, and the routes through them."""
    ip("link", "add", "phys0", "up", "type", "ifb")

    def document(addresses: list[str]) -> Document:
        return {"name": "x", "namespaces": {"host": {"interfaces": {"phys0": {"addresses": addresses}}}}}

    run(document(["198.18.0.1/24", *fewer]))
    ip("address", "add", "198.18.0.77/24", "dev", "phys0")
    ip("route", "add", "203.0.113.0/24", "via", "198.18.0.200")
    if fewer:
        run(document(fewer))
        assert run(document(fewer)) == []
    else:
        run({"name": "x"}, absent=True)
    found = {address["local"] for address in ip_json(None, "-4", "address", "show", "phys0")[0]["addr_info"]}
    assert found == {"198.18.0.77", *(address.split("/")[0] for address in fewer)}
    assert ip_json(None, "route", "show", "203.0.113.0/24")


def test_a_multipath_route_is_removed_whatever_the_order_of_its_ways() -> None:
    run(routed())
    ways = ("nexthop", "via", "10.0.1.9", "nexthop", "via", "10.0.1.10")
    ip("-n", "router", "route", "add", "10.98.0.0/16", *ways)
    assert len(run(routed())) == 1
    assert run(routed()) == []


def test_an_appended_route_comes_back_in_a_rollback(monkeypatch: pytest.MonkeyPatch) -> None:
    run(routed())
    for gateway in ("10.0.1.8", "10.0.1.9"):
        ip("-n", "router", "route", "append", "10.66.0.0/16", "via", gateway)
    assert fail_each_call(monkeypatch, routed()) > 2
    assert run(routed()) == []


@pytest.mark.parametrize(
    ("gateway", "beyond", "last"),
    [
        ("10.9.0.1/32", "10.8.0.0/24", "10.7.0.0/24"),
        ("2001:db8:9::1/128", "2001:db8:8::/64", "2001:db8:7::/64"),
    ],
    ids=["ipv4", "ipv6"],
)
def test_a_route_comes_back_when_the_way_to_its_gateway_is_back(
    monkeypatch: pytest.MonkeyPatch, gateway: str, beyond: str, last: str
) -> None:
    """Both change their device: the way to the gateway first, there and back."""

    def document(device: str, *destinations: str) -> Document:
        via = gateway.partition("/")[0]
        routes = [{"to": gateway, "dev": device}, *({"to": to, "via": via} for to in destinations)]
        return {
            "name": "lab",
            "namespaces": {
                "a": {"interfaces": {"x": {}, "y": {}}, "routes": routes},
                "b": {"interfaces": {"x": {}, "y": {}}},
            },
            "links": [{"endpoints": [f"a:{wire}", f"b:{wire}"]} for wire in ("x", "y")],
        }

    run(document("x", beyond))
    assert fail_each_call(monkeypatch, document("y", beyond, last)) >= 3
    assert run(document("y", beyond, last)) == []


def test_a_deprecated_ipv4_address_is_one() -> None:
    address = {"address": "10.0.0.1/24", "preferred_lft": 0}
    document = {
        "name": "x",
        "namespaces": {"a": {"interfaces": {"e": {"addresses": [address]}}}, "b": {}},
        "links": [{"endpoints": ["a:e", "b:e"]}],
    }
    run(document)
    assert run(document) == []
    assert ip_json("a", "-4", "address", "show", "e")[0]["addr_info"][0]["deprecated"]
    address["preferred_lft"] = "forever"
    assert run(document)
    assert run(document) == []
    assert "deprecated" not in ip_json("a", "-4", "address", "show", "e")[0]["addr_info"][0]


def test_an_ipv6_route_waits_for_its_source_address() -> None:
    """Duplicate address detection takes a second or more, and no route may prefer an address before its end."""
    route = {"to": "2001:db8:4::/48", "via": "2001:db8::9", "src": "2001:db8::1"}
    document = {
        "name": "x",
        "namespaces": {"a": {"interfaces": {"e": {"addresses": ["2001:db8::1/64"]}}, "routes": [route]}, "b": {}},
        "links": [{"endpoints": ["a:e", "b:e"]}],
    }
    run(document)
    assert run(document) == []


# --- the granular modules ---------------------------------------------------------------------------------------------


def test_an_end_in_the_wrong_namespace_is_moved_and_keeps_its_other_end() -> None:
    netns("a", "b", "wrong")
    ip("link", "add", "x", "netns", "a", "type", "veth", "peer", "name", "y", "netns", "wrong")
    index = ip_json("a", "link", "show", "x")[0]["ifindex"]
    assert veth("x", "a", "y", "b")[0] == "move link wrong:y -> b:y"
    assert ip_json("a", "link", "show", "x")[0]["ifindex"] == index
    assert veth("x", "a", "y", "b") == []


def test_a_missing_namespace_is_an_error_when_it_counts() -> None:
    with pytest.raises(Refused, match="namespace: there is no namespace 'nowhere'"):
        veth("x", "nowhere", "y", "host")
    plan = engine.run(
        _options.ns_route(
            {
                "lab": None,
                "namespace": "nowhere",
                "routes": [{"to": "default", "via": "10.0.0.1"}],
                "purge": False,
                "state": "present",
            }
        ),
        check=True,
    )
    assert [str(change.describe()) for change in plan.changes] == ["add route nowhere default via 10.0.0.1"]
    assert plan.assumptions[0].path == "namespace"


def test_veth_absent_by_either_end_and_not_another_kind() -> None:
    netns("a")
    veth("x", "host", "y", "a")
    assert veth("y", "a", "x", "host", state="absent") == ["remove veth a:y -- host:x"]
    assert veth("y", "a", "x", "host", state="absent") == []
    ip("link", "add", "x", "type", "ifb")
    with pytest.raises(Refused, match="host:x is an ifb device, no veth; it is not removed"):
        veth("x", "host", "y", "a", state="absent")


def test_routes_are_added_in_an_order_that_works_and_removed_by_key() -> None:
    netns("a")
    veth("x", "a", "y", "host", addresses=["10.0.0.1/24"])
    routes: list[dict[str, Any]] = [
        {"to": "default", "via": "10.77.0.1"},
        {"to": "10.77.0.1/32", "dev": "x"},
        {"to": "192.0.2.0/24", "via": "10.0.0.2", "metric": 5},
        {"to": "192.0.2.0/24", "via": "10.0.0.3", "metric": 6},
    ]
    options = {"namespace": "a", "purge": False, "state": "present", "routes": routes}
    assert len(module(_options.ns_route, **options)) == 4
    assert module(_options.ns_route, **options) == []
    gone = {**options, "state": "absent", "routes": [{"to": "192.0.2.0/24", "metric": 6}]}
    assert module(_options.ns_route, **gone) == ["remove route a 192.0.2.0/24 via 10.0.0.3 dev x metric 6"]
    assert module(_options.ns_route, **gone) == []


def test_wait_returns_when_the_kernel_has_ended_the_namespace() -> None:
    netns("a")
    ip("link", "add", "x", "type", "veth", "peer", "name", "y", "netns", "a")
    wanted = _options.netns({"name": ["a"], "state": "absent", "lab": None})
    assert [str(change.describe()) for change in engine.run(wanted, terms=engine.Terms(wait_seconds=20)).changes] == [
        "remove veth a:y -- host:x",
        "remove namespace a",
    ]


def test_wait_names_who_keeps_a_namespace_alive() -> None:
    netns("a")
    with subprocess.Popen(["nsenter", "--net=/run/netns/a", "cat"], stdin=subprocess.PIPE) as process:
        inode = os.stat("/run/netns/a").st_ino
        while process.pid not in _namespaces.pids_inside().get(inode, []):
            assert process.poll() is None
        with pytest.raises(NslabError, match=f"is held by processes {process.pid}"):
            engine.run(
                _options.netns({"name": ["a"], "state": "absent", "lab": None}), terms=engine.Terms(wait_seconds=0.2)
            )
        assert process.stdin
        process.stdin.close()


def test_a_second_run_waits_for_the_lock_and_names_its_holder() -> None:
    run(routed())
    with open("/run/nslab/lock", "r+", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("process 4242 (nslab.netns.topology for lab routed)\n")
        file.flush()
        with pytest.raises(Busy, match=r"process 4242 \(nslab.netns.topology for lab routed\)"):
            engine.run(read_topology(routed()).wanted, terms=engine.Terms(lock_seconds=0.2))
        assert run(routed(), check=True) == []


@pytest.mark.parametrize("kind", ["symlink", "others"])
def test_a_planted_run_directory_is_refused(kind: str, tmp_path: Path) -> None:
    if kind == "symlink":
        os.symlink(tmp_path, "/run/nslab")
    else:
        os.mkdir("/run/nslab", 0o777)
        os.chown("/run/nslab", 65534, 65534)
    with pytest.raises(NslabError, match="root's own folder"):
        run(routed())
    assert named_namespaces() == []
    assert list(tmp_path.iterdir()) == []


# --- facts ------------------------------------------------------------------------------------------------------------


def test_the_captured_topology_applied_again_changes_nothing() -> None:
    run(OTHER)
    topology = _facts.gather(None, [], "")["topology"]
    assert topology["name"] == "routed"
    assert run(topology) == []
    json.dumps(topology)
    run({"name": "routed"}, absent=True)
    run(topology)
    again = _facts.gather(None, [], "")["topology"]
    assert again == topology


def test_facts_show_what_is_there() -> None:
    run(routed())
    os.symlink("/proc/self/ns/net", "/run/netns/self")
    Path("/run/netns/left-over").touch()
    os.symlink("/nowhere", "/run/netns/dangling")
    command = ["nsenter", "--net=/run/netns/server", sys.executable, "-c", _LISTENER]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as listener,
        subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE) as nameless,
    ):
        os.symlink(f"/proc/{nameless.pid}/ns/net", "/run/netns/linked")
        assert listener.stdout
        assert listener.stdout.readline() == "ready\n"
        host = os.stat("/proc/self/ns/net").st_ino
        eventually(lambda: os.stat("/run/netns/linked").st_ino != host, "it has a namespace of its own")
        facts = _facts.gather(None, ["net.ipv4.ip_forward", "net.ipv4.nothing"], "")
        listener.kill()
        nameless.kill()
    router, server = facts["namespaces"]["router"], facts["namespaces"]["server"]
    assert router["lab"] == "routed"
    assert router["inode"] == os.stat("/run/netns/router").st_ino
    link = next(link for link in router["links"] if link["name"] == "veth-srv")
    shown = ip_json("router", "link", "show", "veth-srv")[0]
    assert (link["mac"], link["index"], link["mtu"]) == (shown["address"], shown["ifindex"], shown["mtu"])
    assert link["peer"] == {"namespace": "server", "interface": "vethS"}
    assert router["sysctls"] == {"net.ipv4.ip_forward": "1", "net.ipv4.nothing": None}
    assert {"protocol": "tcp", "address": "1.1.1.1", "port": 8080} in server["listening"]
    assert {"protocol": "tcp", "address": "::1", "port": 8081} in server["listening"]
    assert listener.pid in server["pids"]
    assert [route["to"] for route in router["routes"] if route["protocol"] == "110"] == ["1.1.1.0/24", "2.2.2.0/24"]
    assert [rule["priority"] for rule in router["rules"] if rule["family"] == "ipv4"] == [0, 32766, 32767]
    assert {(entry["name"], entry["kind"]) for entry in facts["stale"]} == {
        ("left-over", "stale"),
        ("dangling", "dangling"),
    }
    assert facts["namespaces"]["host"]["second_names"] == ["self"]
    assert facts["namespaces"]["linked"]["symlink"] == f"/proc/{nameless.pid}/ns/net"
    assert facts["namespaces"]["linked"]["pids"] == [nameless.pid]
    assert facts["labs"] == ["routed"]


_LISTENER = """
import socket, sys
one = socket.create_server(("1.1.1.1", 8080))
two = socket.create_server(("::1", 8081), family=socket.AF_INET6)
print("ready", flush=True)
sys.stdin.read()
"""


def test_facts_of_an_unknown_namespace_are_refused_and_a_stale_one_is_told_apart() -> None:
    os.mkdir("/run/netns", 0o755)
    Path("/run/netns/left-over").touch()
    with pytest.raises(Refused, match="'left-over' is a stale entry in /run/netns"):
        _facts.gather(["left-over"], [], "")
    with pytest.raises(Refused, match="there is no namespace 'nowhere'"):
        _facts.gather(["nowhere"], [], "")


def test_no_descriptor_is_left_open() -> None:
    run(routed())
    before = len(os.listdir("/proc/self/fd"))
    run(OTHER)
    run(routed(), check=True)
    run({"name": "routed"}, absent=True)
    _facts.gather(None, [], "")
    with contextlib.suppress(InvalidInput, Refused):
        run({"name": "x", "namespaces": {"host": {"routes": [{"to": "default", "via": "10.1.1.1"}]}}})
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_interfaces_of_200_namespaces_come_up() -> None:
    names = [f"n{number}" for number in range(200)]
    document = {
        "name": "many",
        "namespaces": {
            name: {"interfaces": {"eth0": {"addresses": [f"10.{i // 100}.{i % 100}.1/24"]}}}
            for i, name in enumerate(names)
        },
        "links": [{"endpoints": [f"host:v{i}", f"{name}:eth0"]} for i, name in enumerate(names)],
    }
    run(document)
    assert run(document) == []
    assert named_namespaces() == sorted(names)
    run({"name": "many"}, absent=True)
    assert named_namespaces() == []
    assert [link["ifname"] for link in ip_json(None, "link")] == ["lo"]


def test_names_never_reach_a_shell() -> None:
    with pytest.raises(InvalidInput):
        netns("$(touch /run/owned)")
    assert not Path("/run/owned").exists()


def test_an_own_namespace_is_entered_and_left_even_on_errors() -> None:
    netns("a")
    home = os.stat("/proc/thread-self/ns/net").st_ino
    handle = _namespaces.open_named("a")
    assert handle
    inside = []
    with contextlib.suppress(ZeroDivisionError), _namespaces.entered(handle):
        inside.append(os.stat("/proc/thread-self/ns/net").st_ino)
        raise ZeroDivisionError
    assert inside == [handle.inode]
    handle.close()
    assert os.stat("/proc/thread-self/ns/net").st_ino == home
    assert socket.if_nameindex() == [(1, "lo")]


def test_routes_that_shall_go_need_no_namespace() -> None:
    options = {"namespace": "gone", "routes": [{"to": "default"}], "purge": False, "state": "absent"}
    assert module(_options.ns_route, **options) == []
