# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab L5: the network of containers, with a namespace that stands for the internet."""

from __future__ import annotations

from typing import Any

import pytest
from controller import Controller, Play, apply_role, play
from throwaway import (
    differences,
    eventually,
    firewall,
    ip,
    ip_json,
    ping,
    seen,
    served,
    snapshot,
    within,
    without,
    without_bridge_netfilter,
)

IPV6 = {
    "containers_nodes": [
        {"namespace": "netns0", "addresses": ["fd00:18::10/64"], "port": "veth0"},
        {"namespace": "netns1", "addresses": ["fd00:18::20/64"], "port": "veth1"},
    ],
    "containers_bridge_addresses": ["fd00:18::1/64"],
    "containers_masquerade": ["fd00:18::/64"],
    "containers_published": [
        {"protocol": "tcp", "port": 5000, "to_destination": "[fd00:18::10]:5000", "local": True, "hairpin": True}
    ],
}
#: The second container, their gateway, the host's address in the internet, and the internet.
FAMILIES = {
    "IPv4": ({}, "172.18.0.20", "172.18.0.1", "203.0.113.1", "203.0.113.2"),
    "IPv6": (IPV6, "fd00:18::20", "fd00:18::1", "2001:db8::1", "2001:db8::2"),
}
KEPT = ("/run/netns", "/run/nslab", "/run/xtables.lock")


def internet(here: str, there: str) -> None:
    """A machine beyond the host, made by hand, which knows no way back to the containers."""
    length = 64 if ":" in here else 24
    nodad = ["nodad"] if ":" in here else []
    ip("netns", "add", "internet")
    ip("link", "add", "veth-net", "type", "veth", "peer", "name", "eth0", "netns", "internet")
    ip("address", "add", f"{here}/{length}", "dev", "veth-net", *nodad)
    ip("-n", "internet", "address", "add", f"{there}/{length}", "dev", "eth0", *nodad)
    ip("link", "set", "veth-net", "up")
    ip("-n", "internet", "link", "set", "eth0", "up")
    if ":" in here:
        # The kernel takes note of a carrier up to a second late, and makes the route to an own address only then.
        eventually(lambda: here in ip("-6", "route", "show", "table", "local"), "the address is usable")
    without_bridge_netfilter(None)


@pytest.mark.once
@pytest.mark.parametrize(("backend", "family"), [("nftables", "IPv4"), ("iptables", "IPv6")])
def test_the_steps_one_by_one(ansible: Controller, backend: str, family: str) -> None:
    more, second, gateway, here, there = FAMILIES[family]
    internet(here, there)
    fresh = without(snapshot(), *KEPT)
    variables: dict[str, Any] = {**more, "containers_nat_backend": backend}
    bare = {**variables, "containers_masquerade": [], "containers_published": []}
    ansible.run([apply_role("containers", variables=bare)]).succeeded()
    for name in ("netns0", "netns1"):
        assert {link["ifname"] for link in ip_json(name, "link")} == {"lo", "eth0"}
    eventually(lambda: ping("netns0", second)[0], "a container reaches the other one")
    assert ping("netns0", gateway)[0]
    assert ping("netns1", here)[0]
    eventually(lambda: ping(None, there)[0], "the host reaches the internet")
    with served("internet", 80):
        assert seen("netns0", there, 80) == ""

    predicted = ansible.run([apply_role("containers", variables=variables)], "--check", "--diff").succeeded()
    plays = [apply_role("containers", "build", variables, diff=True), apply_role("containers", "again", variables)]
    run = ansible.run(plays).succeeded()
    assert run.play("again").changed == []
    assert run.play("build").diff == predicted.diff
    assert {line.split()[0] for line in predicted.diff} == {"+snat", "+dnat"}
    assert all(f"backend {backend}" in line for line in predicted.diff)
    with served("internet", 80):
        assert seen("netns0", there, 80) == here
        assert seen("netns1", there, 80) == here
    with served("netns0", 5000):
        assert seen("internet", here, 5000) == there
        assert seen(None, here, 5000) == here
        assert seen("netns1", here, 5000) == gateway
        assert seen("internet", here, 5001) == ""

    built = snapshot()
    if backend == "nftables":
        within(None, "nft", "flush", "chain", "inet", "nslab-containers", "prerouting")
    else:
        within(None, f"{'ip6tables' if more else 'iptables'}-legacy", "-t", "nat", "-F", "PREROUTING")
    audit = ansible.run([apply_role("containers", variables=variables)], "--check", "--diff").succeeded()
    assert len(audit.diff) == 1
    assert audit.diff[0].startswith("+dnat host chain prerouting ")
    repair = ansible.run([apply_role("containers", variables=variables)], "--diff").succeeded()
    assert repair.diff == audit.diff
    assert not differences(without(built, *KEPT), without(snapshot(), *KEPT))

    away = {**variables, "containers_state": "absent"}
    run = ansible.run([apply_role("containers", "remove", away), apply_role("containers", "again", away)]).succeeded()
    assert run.play("again").changed == []
    assert firewall(None) == []
    assert not differences(fresh, without(snapshot(), *KEPT))


def test_two_host_ends_with_one_prefix_are_found(ansible: Controller) -> None:
    """The pitfall: the host has two connected routes for one prefix, and only the first works."""
    topology = {
        "name": "pitfall",
        "namespaces": {
            **{f"netns{i}": {"interfaces": {"eth0": {"addresses": [f"172.18.0.{i + 1}0/16"]}}} for i in (0, 1)},
            "host": {"interfaces": {f"veth{i}": {"addresses": [f"172.18.0.{i + 1}1/16"]} for i in (0, 1)}},
        },
        "links": [{"endpoints": [f"netns{i}:eth0", f"host:veth{i}"]} for i in (0, 1)],
    }

    def apply(title: str, **more: Any) -> Play:
        return play(title, tasks=[{"nslab.netns.topology": {"topology": topology, **more}}])

    words = "veth0 and veth1 of the namespace host both have the connected prefix 172.18.0.0/16"
    assert words in ansible.run([apply("strict", strict=True)]).failed().words
    assert words in ansible.run([apply("warned")]).succeeded().words
    eventually(lambda: ping("netns0", "172.18.0.11")[0], "the first works")
    assert not ping("netns1", "172.18.0.21", wait_seconds=1)[0]


def test_the_playbook_and_the_document(ansible: Controller) -> None:
    fresh = without(snapshot(), *KEPT)
    ansible.run("playbooks/containers.yml").succeeded()
    assert ansible.run("playbooks/containers.yml").succeeded().changed == 0
    file = {"topology_file": "playbooks/topologies/containers.yml"}
    ansible.run("playbooks/audit.yml", **file).succeeded()
    run = ansible.run("playbooks/lab.yml", **file).succeeded()
    assert run.changed == 0
    assert "internet -> 203.0.113.1 tcp port 5000 reachable" in run.words
    ansible.run("playbooks/teardown.yml", **file).succeeded()
    assert not differences(fresh, without(snapshot(), *KEPT))
