# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role routed: server, router and client on static routes, and the states on the way there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import pytest
from controller import Controller, apply_role
from throwaway import eventually, ip, ip_json, named_namespaces, ping, snapshot, sysctls, without

REACHES = [
    ("server", "1.1.1.1"),
    ("server", "10.0.1.1"),
    ("server", "10.0.2.2"),
    ("server", "2.2.2.2"),
    ("client", "1.1.1.1"),
    ("client", "10.0.1.2"),
]


# What the lab remembers for its removal. How it does that is its own affair.
RECORD = "/run/nslab/lab-routed.jsonl"


def unreached(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(source, to) for source, to in pairs if not ping(source, to)[0]]


def indexes() -> dict[str, tuple[int, str]]:
    """The index and the MAC of each interface; a new interface has others."""
    return {
        f"{namespace}:{link['ifname']}": (link["ifindex"], link["address"])
        for namespace in named_namespaces()
        for link in ip_json(namespace, "link", "show")
    }


@pytest.mark.once
def test_it_is_what_the_table_says(ansible: Controller) -> None:
    """labs.md, L1; and a second run changes nothing."""
    run = ansible.run([apply_role("routed", "first"), apply_role("routed", "second")], "--diff").succeeded()
    assert (run.play("second").changed, run.play("second").diff) == ([], [])
    assert unreached(REACHES) == []
    assert named_namespaces() == ["client", "router", "server"]
    assert {name: stack(name) for name in named_namespaces()} == {
        "server": {
            "lo": ("1.1.1.1/24", "127.0.0.1/8"),
            "vethS -- router:veth-srv": ("10.0.1.2/24",),
            "routes": ["default via 10.0.1.1 dev vethS"],
        },
        "router": {
            "lo": ("127.0.0.1/8",),
            "veth-srv -- server:vethS": ("10.0.1.1/24",),
            "veth-cli -- client:vethC": ("10.0.2.1/24",),
            "routes": ["1.1.1.0/24 via 10.0.1.2 dev veth-srv", "2.2.2.0/24 via 10.0.2.2 dev veth-cli"],
        },
        "client": {
            "lo": ("127.0.0.1/8", "2.2.2.2/24"),
            "vethC -- router:veth-cli": ("10.0.2.2/24",),
            "routes": ["default via 10.0.2.1 dev vethC"],
        },
    }
    assert sysctls("router", r"^net\.ipv4\.ip_forward$") == {"net.ipv4.ip_forward": "1"}


def stack(namespace: str) -> dict[str, object]:
    """What is up in a namespace with its IPv4 addresses and who is at the other end, and the routes that were set."""
    found: dict[str, object] = {}
    for link in ip_json(namespace, "address", "show", "up"):
        addresses = (address for address in link["addr_info"] if address["family"] == "inet")
        words = sorted(f"{address['local']}/{address['prefixlen']}" for address in addresses)
        found[link["ifname"] + wired_to(namespace, link)] = tuple(words)
    routes = ip_json(namespace, "-4", "route", "show")
    found["routes"] = sorted(f"{r['dst']} via {r['gateway']} dev {r['dev']}" for r in routes if "gateway" in r)
    return found


def wired_to(namespace: str, link: dict[str, Any]) -> str:
    """The other end of a veth. Only the text has the name of the namespace that it is in."""
    there = re.search(r"link-netns (\S+)", ip("-n", namespace, "link", "show", link["ifname"]))
    if there is None:
        return ""
    ends = ip_json(there[1], "link", "show")
    return "".join(f" -- {there[1]}:{end['ifname']}" for end in ends if end["ifindex"] == link["link_index"])


@pytest.mark.once
def test_the_states_on_the_way(ansible: Controller) -> None:
    """Each is reached in place from the one before: no interface is touched, only routes and a sysctl come and go."""
    ansible.run([apply_role("routed")]).succeeded()
    complete, built = snapshot(), indexes()

    state(ansible, routed_default_routes=False)
    assert indexes() == built
    answered, said = ping("server", "10.0.2.2")
    assert not answered
    assert "Network is unreachable" in said
    assert unreached([("server", "1.1.1.1"), ("server", "10.0.1.1"), ("client", "10.0.2.1")]) == []

    state(ansible, routed_static_routes=False)
    assert indexes() == built
    answered, said = ping("server", "2.2.2.2")
    assert not answered
    assert re.search(r"From 10\.0\.1\.1 .*Destination Net Unreachable", said)
    assert unreached([("server", "10.0.2.2"), ("client", "10.0.1.2")]) == []

    state(ansible, routed_ip_forward=False)
    assert indexes() == built
    across = [("server", "10.0.2.2"), ("server", "2.2.2.2"), ("client", "1.1.1.1"), ("client", "10.0.1.2")]
    assert unreached(across) == across
    assert unreached([("server", "10.0.1.1"), ("client", "10.0.2.1")]) == []

    state(ansible)
    assert without(snapshot(), RECORD) == without(complete, RECORD)
    assert unreached(REACHES) == []


def state(ansible: Controller, **variables: bool) -> None:
    """Go to a state of the lab, which is a change."""
    assert ansible.run([apply_role("routed")], **variables).succeeded().changed > 0


@pytest.mark.once
def test_other_names_and_addresses(ansible: Controller) -> None:
    other = {
        "routed_lab": "other",
        "routed_mtu": 1400,
        "routed_server_name": "web",
        "routed_server_interface": "up0",
        "routed_server_address": "192.0.2.2/28",
        "routed_server_loopback_address": "198.51.100.1/32",
        "routed_server_network": "198.51.100.1/32",
        "routed_router_name": "gw.example",
        "routed_router_server_interface": "down0",
        "routed_router_server_address": "192.0.2.1/28",
        "routed_router_client_interface": "down1",
        "routed_router_client_address": "192.0.2.17/28",
        "routed_client_name": "desk",
        "routed_client_interface": "eth0",
        "routed_client_address": "192.0.2.18/28",
        "routed_client_loopback_address": "203.0.113.1/32",
        "routed_client_network": "203.0.113.0/24",
    }
    ansible.run([apply_role("routed")], **other).succeeded()
    assert {name: stack(name) for name in named_namespaces()} == {
        "web": {
            "lo": ("127.0.0.1/8", "198.51.100.1/32"),
            "up0 -- gw.example:down0": ("192.0.2.2/28",),
            "routes": ["default via 192.0.2.1 dev up0"],
        },
        "gw.example": {
            "lo": ("127.0.0.1/8",),
            "down0 -- web:up0": ("192.0.2.1/28",),
            "down1 -- desk:eth0": ("192.0.2.17/28",),
            "routes": ["198.51.100.1 via 192.0.2.2 dev down0", "203.0.113.0/24 via 192.0.2.18 dev down1"],
        },
        "desk": {
            "lo": ("127.0.0.1/8", "203.0.113.1/32"),
            "eth0 -- gw.example:down1": ("192.0.2.18/28",),
            "routes": ["default via 192.0.2.17 dev eth0"],
        },
    }
    assert {link["mtu"] for link in ip_json("gw.example", "link", "show")} == {65536, 1400}
    assert unreached([("web", "203.0.113.1"), ("desk", "198.51.100.1")]) == []
    removed = ansible.run([apply_role("routed")], **other, routed_state="absent").succeeded()
    assert removed.changed == 1
    assert named_namespaces() == []


@pytest.mark.once
def test_all_of_it_with_ipv6(ansible: Controller) -> None:
    ipv6 = {
        "routed_server_address": "fd00:1::2/64",
        "routed_server_loopback_address": "fd01::1/64",
        "routed_server_network": "fd01::/64",
        "routed_router_server_address": "fd00:1::1/64",
        "routed_router_client_address": "fd00:2::1/64",
        "routed_client_address": "fd00:2::2/64",
        "routed_client_loopback_address": "fd02::2/64",
        "routed_client_network": "fd02::/64",
    }
    plays = [apply_role("routed", "first", ipv6), apply_role("routed", "second", ipv6)]
    assert ansible.run(plays).succeeded().play("second").changed == []
    reaches = [
        ("server", "fd01::1"),
        ("server", "fd00:1::1"),
        ("server", "fd00:2::2"),
        ("server", "fd02::2"),
        ("client", "fd01::1"),
        ("client", "fd00:1::2"),
    ]
    eventually(lambda: not unreached(reaches), "each reaches all that it shall")
    assert sysctls("router", r"^net\.ipv6\.conf\.all\.forwarding$") == {"net.ipv6.conf.all.forwarding": "1"}

    ansible.run([apply_role("routed")], **ipv6, routed_static_routes=False).succeeded()
    assert unreached(reaches) == [("server", "fd02::2"), ("client", "fd01::1")]
    answered, said = ping("server", "fd02::2")
    assert not answered
    assert re.search(r"From fd00:1::1 .*No route", said)
    ansible.run([apply_role("routed")], **ipv6, routed_ip_forward=False).succeeded()
    assert not ping("server", "fd00:2::2", wait_seconds=1)[0]
    assert ping("server", "fd00:1::1")[0]

    ip("-n", "server", "-6", "route", "del", "default")
    ip("-n", "client", "address", "del", "fd00:2::2/64", "dev", "vethC")
    assert len(ansible.run([apply_role("routed")], "--diff", **ipv6).succeeded().diff) == 4
    eventually(lambda: not unreached(reaches), "repaired, each reaches all that it shall")
    ansible.run([apply_role("routed")], **ipv6, routed_state="absent").succeeded()
    assert named_namespaces() == []


def test_check_mode_on_a_fresh_host_then_the_run_then_its_removal(ansible: Controller) -> None:
    fresh = snapshot()
    predicted = ansible.run([apply_role("routed")], "--check", "--diff").succeeded()
    assert snapshot() == fresh

    made = ansible.run([apply_role("routed")], "--diff").succeeded()
    # A task that takes an earlier one's work for granted knows neither the device of a gateway nor what a sysctl was.
    assert [line for line in predicted.diff if line.startswith("-")] == []
    assert without_devices(predicted.diff) == without_devices(line for line in made.diff if line.startswith("+"))
    assert predicted.changed == made.changed

    absent = [apply_role("routed", "first"), apply_role("routed", "second")]
    removed = ansible.run(absent, "--diff", routed_state="absent").succeeded()
    assert sorted(removed.play("first").diff) == ["-namespace client", "-namespace router", "-namespace server"]
    assert removed.play("second").changed == []
    assert without(snapshot(), "/run/netns", "/run/nslab") == fresh


def without_devices(lines: Iterable[str]) -> list[str]:
    return [re.sub(" dev .*", "", line) for line in lines]
