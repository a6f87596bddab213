# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which changes cut the SSH session that asked for them, and which do not. The session itself is in tests/e2e."""

from __future__ import annotations

import pytest
from ansible_collections.nslab.netns.plugins.module_utils import _changes as c
from ansible_collections.nslab.netns.plugins.module_utils._kernel import copy, play
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
