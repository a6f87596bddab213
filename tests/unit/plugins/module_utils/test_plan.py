# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The planner alone, on the model: what holds for any pair of topologies."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.nslab.netns.plugins.module_utils import _changes as c
from ansible_collections.nslab.netns.plugins.module_utils import _kernel as kernel
from ansible_collections.nslab.netns.plugins.module_utils._document import read_topology
from ansible_collections.nslab.netns.plugins.module_utils._model import (
    HOST,
    VETH_PORT_COST,
    Address,
    Endpoint,
    Link,
    Namespace,
    NextHop,
    Remembered,
    Route,
    State,
    Wanted,
)
from ansible_collections.nslab.netns.plugins.module_utils._plan import Plan, plan
from ansible_collections.nslab.netns.plugins.module_utils._rules import VRF_RULES, groups
from ansible_collections.nslab.netns.plugins.module_utils._sysctl_keys import generic_key, interface_of
from ansible_collections.nslab.netns.tests.unit.topologies import Document, documents, routed
from hypothesis import HealthCheck, given, settings

_SETTINGS = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


#: Devices of the host that a document may take.
KINDS = ("dummy", "vlan", "macvlan", "ipvlan", "vxlan", "vrf")
DEVICES = ("nic0", "nic1")
_DOCUMENTS = documents(devices=DEVICES, kinds=KINDS, impairments=True)


def wanted(document: Document, absent: bool = False) -> Wanted:
    return read_topology(document, absent=absent).wanted


def fresh(*demands: Wanted) -> State:
    """A host with nothing but its lo, which knows every sysctl that is asked for."""
    keys = {key for demand in demands for namespace in demand.namespaces.values() for key in namespace.sysctls}
    keys |= {generic_key(key) for key in keys}
    loopback = kernel.new_namespace(HOST).links["lo"]
    host = Namespace(HOST, inode=1, links={"lo": loopback}, sysctls=dict.fromkeys(keys, "0"))
    for number, name in enumerate(DEVICES):
        link = Link(name, 1000 + number, mac=f"02:00:00:00:0d:0{number}", mtu=1450, up=number == 0)
        link.addresses = [Address(f"10.66.{number}.2/24"), Address(f"10.66.{number}.3/24")]
        host.links[name] = link
    host.routes = [
        Route("10.99.0.0/16", via="10.66.0.1", dev=DEVICES[0]),
        Route("10.98.0.0/16", dev=DEVICES[0], metric=9),
    ]
    known = frozenset(keys)
    backends = frozenset(("nftables", "iptables"))
    return State({HOST: host}, known_sysctls=known, new_namespace_sysctls=known, nat_backends=backends)


def applied(state: State, planned: Plan) -> State:
    """The state after a plan, as the kernel's model has it, and with what the run would remember."""
    after = kernel.copy(state)
    forgotten = {entry[:4] for entry in (*planned.forgotten, *planned.rebased)}
    kept = [entry for entry in state.remembered if entry[:4] not in forgotten]
    remembered: dict[Any, Remembered] = {entry[:4]: entry for entry in (*kept, *planned.rebased)}
    for step in planned.steps:
        for entry in step.remember:
            before = entry.before
            if entry.kind == "sysctl" and before is None:
                before = after.namespaces[entry.namespace].sysctls.get(entry.object) or "0"
            known = remembered.get(entry[:4])
            remembered[entry[:4]] = entry._replace(before=known.before if known else before)
        kernel.play(after, step.change)
    for namespace in after.namespaces.values():
        for key in after.known_sysctls:
            if not interface_of(key) or interface_of(key) in namespace.links:
                namespace.sysctls.setdefault(key, "0")
        for link in namespace.links.values():
            if link.master:
                link.port.setdefault("cost", VETH_PORT_COST)
    after.remembered = tuple(remembered.values())
    return after


def shape(state: State) -> dict[str, Any]:
    """What matters of a state: the kernel's order of IPv4 addresses does where it makes one of them primary."""
    return {
        name: {
            "links": {
                link.name: (
                    link.kind,
                    link.mtu,
                    link.up,
                    link.alias,
                    link.altnames,
                    link.mac if link.name in DEVICES else "",
                    link.peer,
                    link.details,
                    link.vrf,
                    sorted(link.addresses),
                    _primaries(link),
                    link.bridge,
                    link.master,
                    link.impairment,
                    {"cost": VETH_PORT_COST, **link.port} if link.master else {},
                )
                for link in namespace.links.values()
            },
            "routes": sorted(map(str, namespace.routes)),
            # Those stay when the last VRF has gone.
            "rules": groups(rule for rule in namespace.rules if rule not in VRF_RULES),
            "nat": namespace.nat,
        }
        for name, namespace in state.namespaces.items()
    }


def _primaries(link: Any) -> dict[Any, Address]:
    primaries: dict[Any, Address] = {}
    for address in link.addresses:
        if address.family == 4:
            primaries.setdefault(address.ip.network, address)
    return primaries


@_SETTINGS
@given(first=_DOCUMENTS, second=_DOCUMENTS)
def test_a_plan_leads_to_where_no_plan_is_needed(first: Document, second: Document) -> None:
    start = fresh(wanted(first), wanted(second))
    between = applied(start, plan(wanted(first), start))
    assert not plan(wanted(first), between).steps
    reached = applied(between, plan(wanted(second), between))
    assert not plan(wanted(second), reached).steps
    assert shape(reached) == shape(applied(start, plan(wanted(second), start)))
    empty = applied(reached, plan(wanted(second, absent=True), reached))
    assert shape(empty) == shape(start)
    assert not empty.remembered
    assert empty.namespaces[HOST].sysctls == start.namespaces[HOST].sysctls


@_SETTINGS
@given(first=_DOCUMENTS, second=_DOCUMENTS)
def test_undoing_the_steps_of_a_plan_in_reverse_leads_back(first: Document, second: Document) -> None:
    start = fresh(wanted(first), wanted(second))
    between = applied(start, plan(wanted(first), start))
    state = kernel.copy(between)
    steps = plan(wanted(second), between).steps
    removed: dict[str, Namespace] = {}
    rules: dict[tuple[str, str], Any] = {}
    for step in steps:
        if isinstance(step.change, c.RemoveNamespace):
            removed[step.change.name] = state.namespaces[step.change.name]
        if isinstance(step.change, c.SetNat):
            nat = state.namespaces[step.change.namespace].nat
            rules[step.change.namespace, step.change.backend] = nat.get(step.change.backend)
        kernel.play(state, step.change)
    for step in reversed(steps):
        for change in step.undo:
            if isinstance(change, c.RestoreNamespace):
                state.namespaces[change.name] = removed[change.name]
            elif isinstance(change, c.RestoreNat):
                nat = state.namespaces[change.namespace].nat
                nat[change.backend] = rules[change.namespace, change.backend]
                if nat[change.backend] is None:
                    del nat[change.backend]
            else:
                kernel.play(state, change)
    assert shape(state) == shape(between)


@_SETTINGS
@given(first=_DOCUMENTS, second=_DOCUMENTS)
def test_planning_changes_no_input(first: Document, second: Document) -> None:
    start = fresh(wanted(first), wanted(second))
    between = applied(start, plan(wanted(first), start))
    before, links = shape(between), {end: link.index for end, link in between.links()}
    plan(wanted(second), between)
    assert shape(between) == before
    assert {end: link.index for end, link in between.links()} == links


@_SETTINGS
@given(document=documents())
def test_the_order_of_the_document_does_not_matter_to_routes(document: Document) -> None:
    start = fresh(wanted(document))
    turned = {**document, "namespaces": {}}
    for name, body in document["namespaces"].items():
        turned["namespaces"][name] = {**body, "routes": list(reversed(body.get("routes", [])))}
    one, other = (applied(start, plan(wanted(each), start)) for each in (document, turned))
    assert shape(one) == shape(other)


def test_switching_routes_touches_no_link() -> None:
    """From static routes to a default route and back is a matter of routes alone."""
    other = routed()
    other["namespaces"]["router"]["routes"] = [{"to": "default", "via": "10.0.2.2"}]
    start = fresh(wanted(routed()))
    between = applied(start, plan(wanted(routed()), start))
    there = plan(wanted(other), between)
    back = plan(wanted(routed()), applied(between, there))
    assert {type(change) for change in (*there.changes, *back.changes)} == {c.AddRoute, c.RemoveRoute}


def test_the_loss_of_a_way_of_a_multipath_route_is_seen() -> None:
    hops = (NextHop("10.0.0.2", "x"), NextHop("10.1.0.2", "y"))
    namespace = kernel.new_namespace("a")
    for name in ("x", "y"):
        namespace.links[name] = kernel.Link(name, 7, "veth", up=True)
    namespace.routes = [Route("192.0.2.0/24", nexthops=hops), Route("2001:db8::/32", nexthops=hops)]
    state = State({"a": namespace})
    undo = kernel.play(state, c.SetUp(Endpoint("a", "x"), False))
    assert state.namespaces["a"].routes == [
        Route("192.0.2.0/24", nexthops=(hops[0]._replace(dead=True), hops[1])),
        Route("2001:db8::/32", via="10.1.0.2", dev="y"),
    ]
    for change in undo:
        kernel.play(state, change)
    assert {str(route) for route in state.namespaces["a"].routes} == {
        str(Route("192.0.2.0/24", nexthops=hops)),
        str(Route("2001:db8::/32", nexthops=hops)),
    }


@pytest.mark.parametrize("is_told_there", [True, False])
def test_a_device_is_found_by_what_it_is_called_on_its_bus(is_told_there: bool) -> None:
    document: Document = {
        "name": "lab",
        "namespaces": {"a": {"interfaces": {"wan": {"device": {"path": "0000:00:03.0"}}}}},
    }
    start = fresh()
    start.namespaces[HOST].links["nic1"].paths = frozenset(("virtio2", "0000:00:03.0"))
    planned = plan(wanted(document), start)
    assert (
        c.MoveLink(Endpoint(HOST, "nic1"), Endpoint("a", "wan"), "namespaces.a.interfaces.wan.device")
        in planned.changes
    )
    there = applied(start, planned)
    if not is_told_there:
        # A kernel before 5.14 says it of links of the host only, by /sys.
        there.namespaces["a"].links["wan"].paths = frozenset()
    assert plan(wanted(document), there).changes == []
