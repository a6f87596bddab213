# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which changes cut the SSH session that asked for them, and which do not. The session itself is in tests/e2e."""

from __future__ import annotations

import pytest
from ansible_collections.nslab.netns.plugins.module_utils import _changes as c
from ansible_collections.nslab.netns.plugins.module_utils._impairment import WHOLE, Impairment
from ansible_collections.nslab.netns.plugins.module_utils._kernel import copy, play
from ansible_collections.nslab.netns.plugins.module_utils._kinds import kind
from ansible_collections.nslab.netns.plugins.module_utils._model import (
    Address,
    Connection,
    Endpoint,
    Link,
    Namespace,
    NextHop,
    Route,
    State,
)
from ansible_collections.nslab.netns.plugins.module_utils._nat import NatRule
from ansible_collections.nslab.netns.plugins.module_utils._plan_connection import find_cut
from ansible_collections.nslab.netns.plugins.module_utils._rules import Rule

NEAR = Connection(1, "192.0.2.10", 22, "192.0.2.99")
FAR = Connection(1, "192.0.2.10", 22, "203.0.113.5")

OWN = Address("192.0.2.10/24")
OTHER = Address("198.51.100.1/24")
DEFAULT = Route("0.0.0.0/0", nexthops=(NextHop("192.0.2.1", "eth0"),))
MORE_SPECIFIC = Route("203.0.113.0/24", nexthops=(NextHop("198.51.100.7", "eth1"),))
TAKES_SSH = NatRule("prerouting", "dnat", protocol="tcp", destination_ports="22", to_address="10.0.0.2")


def plain() -> State:
    """One NIC with the session's address, another one beside it."""
    return host(
        Link("eth0", 2, up=True, addresses=[OWN]),
        Link("eth1", 3, up=True, addresses=[OTHER]),
        routes=[DEFAULT],
    )


def bridged() -> State:
    return host(
        Link("br0", 4, "bridge", up=True, addresses=[OWN]),
        Link("eth0", 2, up=True, master="br0"),
        Link("eth1", 3, up=True),
    )


def vlan_on_bond() -> State:
    """The address is on a VLAN, which lies on a bond, which consists of two NICs."""
    return host(
        Link("bond0.7", 5, "vlan", up=True, addresses=[OWN], lower="bond0"),
        Link("bond0", 4, "bond", up=True),
        Link("eth0", 2, up=True, controller="bond0"),
        Link("eth1", 3, up=True, controller="bond0"),
    )


def host(*links: Link, routes: list[Route] | None = None) -> State:
    found = {"lo": Link("lo", 1, up=True), **{link.name: link for link in links}}
    return State(namespaces={"host": Namespace("host", 1, found, routes or [])})


def lying_on(lower: str, mode: str) -> c.AddLink:
    return c.AddLink(end("m"), kind("macvlan", {"mode": mode}, end(lower)))


def end(name: str) -> Endpoint:
    return Endpoint("host", name)


def cut(state: State, connection: Connection, *changes: c.Change) -> str:
    """What is cut, in words; empty if nothing is."""
    after = copy(state)
    steps = [c.Step(change, tuple(play(after, change))) for change in changes]
    found = find_cut(state, after, steps, connection)
    if found is None:
        return ""
    assert found.change in changes
    return found.text


@pytest.mark.parametrize(
    ("state", "connection", "change", "text"),
    [
        (plain(), NEAR, c.RemoveAddress(end("eth0"), OWN), "its own address is on eth0"),
        (plain(), NEAR, c.SetUp(end("eth0"), up=False), "its own address is on eth0"),
        (plain(), NEAR, c.RemoveLink(end("eth0")), "its own address is on eth0"),
        (plain(), NEAR, c.SetVrf(end("eth0"), "red", ""), "its own address is on eth0, which is in no VRF"),
        (plain(), NEAR, c.SetVrf(end("eth1"), "red", ""), ""),
        (plain(), NEAR, lying_on("eth0", "passthru"), "its own address is on eth0"),
        (plain(), NEAR, lying_on("eth0", "bridge"), ""),
        (bridged(), NEAR, lying_on("eth0", "passthru"), "it comes in by eth0"),
        (plain(), FAR, c.RemoveRoute("host", DEFAULT), "its way back is eth0 through 192.0.2.1"),
        (plain(), FAR, c.AddRoute("host", MORE_SPECIFIC), "its way back is eth0 through 192.0.2.1"),
        (plain(), NEAR, c.SetNat("host", "nftables", (TAKES_SSH,)), "the next one to port 22 would be sent elsewhere"),
        (bridged(), NEAR, c.SetMaster(end("eth0"), "", "br0"), "it comes in by eth0"),
        (bridged(), NEAR, c.SetUp(end("eth0"), up=False), "it comes in by eth0"),
        (bridged(), NEAR, c.SetUp(end("br0"), up=False), "its own address is on br0"),
        (vlan_on_bond(), NEAR, c.SetUp(end("bond0"), up=False), "it comes in by bond0"),
        (vlan_on_bond(), NEAR, c.SetUp(end("eth1"), up=False), "it comes in by eth1"),
    ],
)
def test_what_cuts_it_is_found(state: State, connection: Connection, change: c.Change, text: str) -> None:
    assert cut(state, connection, change) == text


@pytest.mark.parametrize(
    ("state", "connection", "change"),
    [
        (plain(), NEAR, c.SetUp(end("eth1"), up=False)),
        (plain(), NEAR, c.RemoveAddress(end("eth1"), OTHER)),
        # It does not leave by a gateway.
        (plain(), NEAR, c.RemoveRoute("host", DEFAULT)),
        (plain(), NEAR, c.AddRoute("host", MORE_SPECIFIC)),
        (plain(), NEAR, c.SetNat("host", "nftables", (TAKES_SSH._replace(destination_ports="80,8000-8100"),))),
        (plain(), NEAR, c.SetNat("host", "nftables", (TAKES_SSH._replace(protocol="udp"),))),
        (plain(), NEAR, c.SetNat("host", "nftables", (TAKES_SSH._replace(in_interface="eth1"),))),
        (plain(), NEAR, c.SetNat("host", "nftables", (TAKES_SSH._replace(family=6, to_address="fd00::2"),))),
        (bridged(), NEAR, c.SetUp(end("eth1"), up=False)),
        # It is in another namespace than the one that changes.
        (plain(), NEAR._replace(inode=7), c.RemoveLink(end("eth0"))),
    ],
)
def test_what_does_not_cut_it_is_let_pass(state: State, connection: Connection, change: c.Change) -> None:
    assert not cut(state, connection, change)


def test_what_is_lost_and_comes_again_is_not_cut() -> None:
    again = [c.RemoveAddress(end("eth0"), OWN), c.AddAddress(end("eth0"), OWN), c.AddRoute("host", DEFAULT)]
    assert not cut(plain(), FAR, *again)
    assert cut(plain(), FAR, *again[:2])
    moved = [c.RemoveAddress(end("eth0"), OWN), c.AddAddress(end("eth1"), OWN)]
    assert cut(plain(), NEAR, *moved) == "its own address is on eth0"


def test_the_change_that_is_named_is_the_one_after_which_it_stays_lost() -> None:
    state, after = plain(), plain()
    changes = [c.RemoveAddress(end("eth1"), OTHER), c.SetUp(end("eth0"), up=False), c.SetUp(end("eth1"), up=False)]
    steps = [c.Step(change, tuple(play(after, change))) for change in changes]
    found = find_cut(state, after, steps, NEAR)
    assert found is not None
    assert found.change == changes[1]


# --- policy rules ----------------------------------------------------------------------------------------------------

KERNEL = [Rule(0, table=255), Rule(32766, table=254), Rule(32767, table=253)]
OTHER_WAY = Route("0.0.0.0/0", via="198.51.100.7", dev="eth1", table=100)
SAME_WAY = Route("0.0.0.0/0", nexthops=(NextHop("192.0.2.1", "eth0"),), table=100)

RULES = {
    "another way": (OTHER_WAY, Rule(10, table=100), True),
    "the same way": (SAME_WAY, Rule(10, table=100), False),
    "an empty table": (None, Rule(10, table=100), False),
    "after main": (OTHER_WAY, Rule(40000, table=100), False),
    "from its own address": (OTHER_WAY, Rule(10, table=100, source="192.0.2.10/32"), True),
    "from another address": (OTHER_WAY, Rule(10, table=100, source="192.0.2.11/32"), False),
    "to the other end": (OTHER_WAY, Rule(10, table=100, destination="203.0.113.0/24"), True),
    "not to elsewhere": (OTHER_WAY, Rule(10, table=100, destination="10.0.0.0/8", inverted=True), True),
    "not to the other end": (OTHER_WAY, Rule(10, table=100, destination="203.0.113.5/32", inverted=True), False),
    "blackhole": (None, Rule(10, type="blackhole"), True),
    "prohibit for others": (None, Rule(10, type="prohibit", source="10.0.0.0/8"), False),
    "of IPv6": (None, Rule(10, 6, type="blackhole"), False),
    "a mark": (OTHER_WAY, Rule(10, table=100, mark=1, mark_mask=1), False),
    "no mark": (OTHER_WAY, Rule(10, table=100, mark=0, mark_mask=1), True),
    "what comes in": (OTHER_WAY, Rule(10, table=100, iif="eth0"), False),
    "what goes out from here": (OTHER_WAY, Rule(10, table=100, iif="lo"), True),
    "a bound socket": (OTHER_WAY, Rule(10, table=100, oif="eth1"), False),
    "its port": (OTHER_WAY, Rule(10, table=100, ipproto=6, sport=(20, 30)), True),
    "another port": (OTHER_WAY, Rule(10, table=100, ipproto=6, sport=(80, 80)), False),
    "a port that may be its": (OTHER_WAY, Rule(10, table=100, dport=(50000, 50001)), True),
    "a port that may not be its": (OTHER_WAY, Rule(10, table=100, dport=(1, 2), inverted=True), True),
    "udp": (OTHER_WAY, Rule(10, table=100, ipproto=17), False),
    "its user": (OTHER_WAY, Rule(10, table=100, uidrange=(0, 10)), True),
    "another user": (OTHER_WAY, Rule(10, table=100, uidrange=(1000, 1000)), False),
    "no default route": (OTHER_WAY, Rule(10, table=100, suppress_prefixlength=0), False),
    "vrf": (OTHER_WAY, Rule(10, l3mdev=True), False),
}


@pytest.mark.parametrize("what", RULES)
@pytest.mark.parametrize("told", [True, False])
def test_a_rule_that_leads_the_session_elsewhere(what: str, told: bool) -> None:
    """With the kernel's own rules told, or without, as of a kernel that has none."""
    route, rule, cuts = RULES[what]
    state = plain()
    state.namespaces["host"].routes += [route] if route else []
    state.namespaces["host"].rules = list(KERNEL) if told else []
    assert bool(cut(state, FAR, c.SetRules("host", (rule,)))) == cuts


def test_a_route_in_a_table_to_which_a_rule_leads() -> None:
    state = plain()
    state.namespaces["host"].rules = [*KERNEL, Rule(10, table=100)]
    assert cut(state, FAR, c.AddRoute("host", OTHER_WAY)) == "its way back is eth0 through 192.0.2.1"
    assert cut(state, FAR, c.AddRoute("host", SAME_WAY)) == ""
    assert cut(state, NEAR, c.AddRoute("host", OTHER_WAY)) != ""


def test_a_rule_that_the_session_needs_goes() -> None:
    state = plain()
    state.namespaces["host"].routes = [SAME_WAY]
    state.namespaces["host"].rules = [*KERNEL, Rule(10, table=100, source="192.0.2.10/32")]
    gone = c.SetRules("host", (), (Rule(10, table=100, source="192.0.2.10/32"),))
    assert cut(state, FAR, gone) == "its way back is eth0 through 192.0.2.1"
    assert cut(state, NEAR, gone) != ""


# --- impairments -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lossy", [Impairment(loss=WHOLE), Impairment(delay=5, corrupt=WHOLE)])
def test_a_link_that_lets_nothing_through_any_more(lossy: Impairment) -> None:
    assert cut(plain(), FAR, c.SetImpairment(end("eth0"), lossy)) == "its way back is eth0 through 192.0.2.1"
    assert cut(plain(), FAR, c.SetImpairment(end("eth1"), lossy)) == ""
    assert cut(vlan_on_bond(), NEAR, c.SetImpairment(end("eth0"), lossy)) != ""
    assert cut(plain(), FAR, c.SetImpairment(end("eth0"), Impairment(delay=5, loss=WHOLE // 2))) == ""
