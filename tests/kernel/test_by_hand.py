# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What people do by hand to what labs have changed, and to names: it wedges no lab, and nothing is forgotten."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator

import pytest
from ansible_collections.nslab.netns.plugins.module_utils import _engine as engine
from ansible_collections.nslab.netns.plugins.module_utils import _options
from ansible_collections.nslab.netns.plugins.module_utils._errors import Refused
from ansible_collections.nslab.netns.plugins.module_utils._facts import gather
from ansible_collections.nslab.netns.tests.unit.topologies import Document
from applying import host_without_lab_traces, module, netns, refused, run
from test_ownership import collect, files, on_the_host
from throwaway import differences, eventually, inside, ip, ip_json, snapshot

pytestmark = pytest.mark.usefixtures("host")

TO_TWO = "198.51.100.0/24"


@pytest.fixture
def eth0(host: None) -> None:
    """An interface of the machine, with a route that an administrator has made."""
    ip("link", "add", "eth0", "address", "02:00:00:00:00:01", "type", "veth", "peer", "name", "far")
    ip("link", "set", "far", "up")
    ip("link", "set", "eth0", "up")
    ip("address", "add", "192.0.2.2/24", "dev", "eth0")
    ip("route", "add", "203.0.113.0/24", "via", "192.0.2.1")


def routes() -> list[str]:
    return [route["dst"] for route in ip_json(None, "route") if "gateway" in route]


# --- what was lost and cannot come back ------------------------------------------------------------------------------


@pytest.mark.usefixtures("eth0")
def test_a_route_that_cannot_come_back_is_told_and_wedges_nothing() -> None:
    down = on_the_host("three", interfaces={"eth0": {"up": False}})
    run(down)
    assert routes() == []
    ip("address", "del", "192.0.2.2/24", "dev", "eth0")
    gone = "the route host 203.0.113.0/24 via 192.0.2.1 dev eth0 has gone and is not added again: nothing leads to"
    predicted = run(down, absent=True, check=True, warned=[gone])
    assert run(down, absent=True, warned=[gone]) == predicted == ["change link host:eth0 down -> up"]
    assert run(down, absent=True, warned=[]) == []
    assert [path for path in files() if "lab-" in path] == []


@pytest.mark.usefixtures("eth0")
def test_routes_come_back_after_what_leads_to_their_gateways() -> None:
    ip("route", "add", "192.0.77.1/32", "dev", "eth0")
    ip("route", "add", "10.0.0.0/8", "via", "192.0.77.1")
    before = host_without_lab_traces()
    down = on_the_host("three", interfaces={"eth0": {"up": False}})
    run(down)
    predicted = run(down, absent=True, check=True, warned=[])
    assert run(down, absent=True, warned=[]) == predicted
    assert not differences(before, host_without_lab_traces())


@pytest.mark.usefixtures("eth0")
@pytest.mark.parametrize(
    "others",
    [
        {"routes": [{"to": TO_TWO, "via": "192.0.2.1"}]},
        {"interfaces": {"eth0": {"addresses": ["2001:db8::9/64"]}}},
    ],
    ids=["route", "address"],
)
def test_nobody_takes_along_what_another_lab_has_added(others: Document) -> None:
    run(on_the_host("two", **others))
    said = refused(on_the_host("three", interfaces={"eth0": {"up": False}}))
    assert "change link host:eth0 up -> down: this takes the " in said
    assert "along, which the lab 'two' needs; leave it out, or remove that lab" in said


@pytest.mark.usefixtures("eth0")
def test_a_device_stays_up_for_another_lab() -> None:
    ip("link", "set", "eth0", "down")
    one = on_the_host("one", interfaces={"eth0": {"up": True}})
    two = on_the_host("two", routes=[{"to": TO_TWO, "via": "192.0.2.1"}])
    run(one)
    run(two)
    assert run(one, absent=True, warned=[]) == []
    assert run(two) == []
    assert run(two, absent=True, warned=[])[-1] == "change link host:eth0 up -> down"
    assert [path for path in files() if "lab-" in path] == []


@pytest.mark.usefixtures("eth0")
def test_a_route_whose_way_is_purged_goes_with_it() -> None:
    options = {"name": "eth0", "namespace": "host", "addresses": [], "purge": True}
    wanted = _options.ns_link({"lab": None, **options})
    predicted = engine.run(wanted, check=True)
    assert [warning.partition(":")[0] for warning in predicted.warnings] == [
        "the route host 203.0.113.0/24 via 192.0.2.1 dev eth0 has gone and is not added again"
    ]
    assert module(_options.ns_link, **options) == ["remove address host:eth0 192.0.2.2/24"]
    assert routes() == []


# --- devices that get another name, or end ---------------------------------------------------------------------------

CHANGES: dict[str, Document] = {
    "address": {"interfaces": {"eth0": {"addresses": ["192.0.2.9/24", "2001:db8::9/64"]}}},
    "mtu": {"interfaces": {"eth0": {"mtu": 1400}}},
    "mac": {"interfaces": {"eth0": {"mac": "02:00:00:00:00:09"}}},
    "down": {"interfaces": {"eth0": {"up": False}}},
    "route": {"routes": [{"to": TO_TWO, "via": "192.0.2.1"}]},
    "sysctl": {"sysctls": {"net.ipv4.conf.eth0.rp_filter": 2}},
    "port": {"bridges": {"br0": {"ports": ["eth0"]}}},
}


@pytest.mark.once
@pytest.mark.usefixtures("eth0")
@pytest.mark.parametrize("kind", CHANGES)
def test_what_was_changed_on_a_device_is_undone_when_that_has_another_name(kind: str) -> None:
    before = host_without_lab_traces()
    lab = on_the_host("one", **CHANGES[kind])
    assert run(lab) != []
    rename("eth0", "uplink")
    predicted = run(lab, absent=True, check=True)
    assert run(lab, absent=True) == predicted != []
    assert [path for path in files() if "lab-" in path] == []
    rename("uplink", "eth0")
    assert not differences(before, host_without_lab_traces())


@pytest.mark.once
@pytest.mark.usefixtures("eth0")
@pytest.mark.parametrize("kind", CHANGES)
def test_a_document_may_follow_a_device_to_its_new_name(kind: str) -> None:
    before = host_without_lab_traces()
    run(on_the_host("one", **CHANGES[kind]))
    rename("eth0", "uplink")
    lab = json.loads(json.dumps(on_the_host("one", **CHANGES[kind])).replace("eth0", "uplink"))
    # The kernel gives the second IPv4 address of a renamed device a label.
    assert bool(run(lab)) == (kind == "address")
    assert run(lab) == []
    run(lab, absent=True)
    rename("uplink", "eth0")
    assert not differences(before, host_without_lab_traces())


def rename(old: str, new: str) -> None:
    """An interface that is up can have another name since Linux 6.2; before, it was not to be done by hand either."""
    ip("link", "set", old, "name", new)


@pytest.mark.usefixtures("eth0")
@pytest.mark.parametrize("kind", [kind for kind in CHANGES if kind != "port"])
def test_what_has_the_name_of_a_device_that_is_gone_is_left_alone(kind: str) -> None:
    lab = on_the_host("one", **CHANGES[kind])
    run(lab)
    ip("link", "del", "eth0")
    ip("link", "add", "eth0", "mtu", "1400", "address", "02:00:00:00:00:09", "type", "veth", "peer", "name", "far")
    ip("address", "add", "192.0.2.9/24", "dev", "eth0")
    before = snapshot()["host"]
    assert run(lab, absent=True, warned=[]) == []
    assert [path for path in files() if "lab-" in path] == []
    assert not differences(before, snapshot()["host"])


@pytest.mark.usefixtures("eth0")
def test_that_the_bridge_of_an_adopted_port_is_gone_is_told() -> None:
    ip("link", "add", "old", "type", "bridge")
    ip("link", "set", "eth0", "master", "old")
    lab = on_the_host("one", bridges={"br0": {"ports": ["eth0"]}})
    run(lab, adopt=True)
    ip("link", "del", "old")
    told = "host:eth0 was a port of the bridge old before the lab, and that is gone; it becomes none again"
    assert run(lab, absent=True, warned=[told]) == ["remove bridge host:br0"]
    assert "master" not in ip_json(None, "link", "show", "eth0")[0]


# --- names -----------------------------------------------------------------------------------------------------------


def small(name: str, *namespaces: str) -> Document:
    return {
        "name": name,
        "namespaces": {namespace: {} for namespace in namespaces},
        "links": [{"endpoints": [f"{namespaces[0]}:e", f"{namespaces[1]}:f"]}],
    }


def attach(name: str, pid: int | str) -> None:
    ip("netns", "attach", name, str(pid))


@pytest.fixture
def lodger(host: None) -> Iterator[int]:
    """A process in the namespace ``a``."""
    netns("a")
    with subprocess.Popen([*inside("a"), "cat"], stdin=subprocess.PIPE) as process:
        eventually(lambda: os.stat(f"/proc/{process.pid}/ns/net").st_ino == os.stat("/run/netns/a").st_ino, "inside")
        yield process.pid
        process.kill()


def test_the_hosts_own_namespace_is_the_host_by_whatever_name() -> None:
    ip("link", "add", "eth0", "type", "veth", "peer", "name", "far")
    attach("default", os.getpid())
    before = host_without_lab_traces()
    for adopt in (False, True):
        with pytest.raises(Refused, match="'default' is a second name of the host's own namespace, which is 'host'"):
            run(small("one", "default", "b"), adopt=adopt)
    for task in (
        lambda: netns("default", state="absent"),
        lambda: netns("default"),
        lambda: module(_options.ns_sysctl, namespace="default", settings={"net.ipv4.ip_forward": 1}),
        lambda: gather(["default"], (), ""),
    ):
        with pytest.raises(Refused, match="'default' is a second name of the host's own namespace"):
            task()
    run(small("one", "a", "b"))
    run(small("one", "a", "b"), absent=True)
    assert not differences(before, host_without_lab_traces())
    assert list(gather(None, (), "")["namespaces"]) == ["host"]


def test_a_second_name_of_a_namespace_is_no_other_namespace(lodger: int) -> None:
    run(small("one", "a", "b"), adopt=True)
    attach("a2", lodger)
    assert run(small("one", "a", "b")) == []
    assert "'a2' is a second name of the namespace a" in refused(small("one", "a", "b", "a2"))
    for remove in (lambda: run(small("one", "a", "b"), absent=True), collect, lambda: netns("a2", state="absent")):
        with pytest.raises(Refused, match=r"has a second name, a2?; take that away first"):
            remove()
    ip("netns", "del", "a2")
    run(small("one", "a", "b"), absent=True)
    assert gather(None, (), "")["labs"] == []


def test_nothing_waits_for_what_is_no_namespace() -> None:
    netns("a")
    os.mkfifo("/run/netns/pipe")
    with pytest.raises(Refused, match="/run/netns/pipe is neither a file nor a symlink, which is no namespace"):
        run(small("one", "pipe", "b"))
    with pytest.raises(Refused, match="pipe"):
        netns("pipe", state="absent")
    assert [orphan["kind"] for orphan in gather(None, (), "")["orphans"]] == ["foreign"]


@pytest.mark.parametrize("how", ["document", "gc"])
def test_what_a_lab_has_left_in_a_namespace_that_another_one_took_over_goes_with_it(how: str) -> None:
    run(small("one", "x", "y"))
    two = {"name": "two", "namespaces": {"x": {}}}
    run(two, adopt=True)
    assert run(two) == []
    if how == "gc":
        collect("two")
    else:
        run(small("one", "x", "y"), absent=True)
    assert [link["ifname"] for link in ip_json("x", "link")] == ["lo"]
    assert gather(None, (), "")["labs"] == ["two"]
    run(two, absent=True)
    assert gather(None, (), "")["labs"] == []
