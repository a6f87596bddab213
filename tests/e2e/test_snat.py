# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab L2: the routed lab whose server is hidden behind its router."""

from __future__ import annotations

from typing import Any

import pytest
from controller import Controller, apply_role
from throwaway import differences, eventually, firewall, ip, ip_json, ping, seen, served, snapshot, within, without

SNAT = {"routed_snat": True}
IPV6 = {
    "routed_server_address": "fd00:1::2/64",
    "routed_server_loopback_address": "fd01::1/64",
    "routed_server_network": "fd01::/64",
    "routed_router_server_address": "fd00:1::1/64",
    "routed_router_client_address": "fd00:2::1/64",
    "routed_client_address": "fd00:2::2/64",
    "routed_client_loopback_address": "fd02::2/64",
    "routed_client_network": "fd02::/64",
    "routed_snat_source": "fd00:1::/64",
}
#: By which addresses the client knows the server and the router, and where it is reached itself.
FAMILIES = {
    "IPv4": ({}, "10.0.1.2", "10.0.2.1", "2.2.2.2"),
    "IPv6": (IPV6, "fd00:1::2", "fd00:2::1", "fd02::2"),
}


def indexes() -> dict[str, int]:
    names = ("server", "router", "client")
    return {f"{name}:{link['ifname']}": link["ifindex"] for name in names for link in ip_json(name, "link")}


@pytest.mark.once
@pytest.mark.parametrize(("backend", "family"), [("nftables", "IPv6"), ("iptables", "IPv4")])
def test_the_four_cases_and_the_way_back(ansible: Controller, backend: str, family: str) -> None:
    more, server, router, client = FAMILIES[family]
    variables: dict[str, Any] = {**more, "routed_nat_backend": backend}
    hidden = {**variables, **SNAT}
    fresh = without(snapshot(), "/run/netns", "/run/nslab", "/run/xtables.lock")
    predicted = ansible.run([apply_role("routed", variables=hidden)], "--check", "--diff").succeeded()
    plays = [apply_role("routed", "build", hidden, diff=True), apply_role("routed", "again", hidden)]
    run = ansible.run(plays).succeeded()
    assert run.play("again").changed == []
    rules = [line for line in run.play("build").diff if line.startswith("+snat ")]
    assert rules == [line for line in predicted.diff if line.startswith("+snat ")]
    assert len(rules) == 1
    assert len(firewall("router")) == (6 if backend == "nftables" else 1)
    eventually(lambda: ping("server", client)[0], "the server reaches the client")
    with served("client", 80):
        assert seen("server", client, 80) == router
        # The rule taken away by hand, and the client's way back.
        if backend == "nftables":
            within("router", "nft", "flush", "chain", "inet", "nslab-routed", "postrouting")
        else:
            within("router", f"{'ip6tables' if more else 'iptables'}-legacy", "-t", "nat", "-F", "POSTROUTING")
        assert seen("server", client, 80) == server
        ip("-n", "client", *(["-6"] if more else []), "route", "del", "default")
        assert seen("server", client, 80) == ""
        audit = ansible.run([apply_role("routed", variables=hidden)], "--check", "--diff").succeeded()
        assert len(audit.diff) == 2
        hidden["routed_client_default_route"] = False
        repair = ansible.run([apply_role("routed", variables=hidden)], "--diff").succeeded()
        assert repair.diff == [line for line in audit.diff if "snat router" in line]
        assert seen("server", client, 80) == router
    away = {**variables, "routed_state": "absent"}
    run = ansible.run([apply_role("routed", "remove", away), apply_role("routed", "again", away)]).succeeded()
    assert run.play("again").changed == []
    assert not differences(fresh, without(snapshot(), "/run/netns", "/run/nslab", "/run/xtables.lock"))


@pytest.mark.once
def test_going_there_and_back_changes_only_routes_and_the_rule(ansible: Controller) -> None:
    ansible.run([apply_role("routed")]).succeeded()
    before, routed = indexes(), snapshot()
    plays = [apply_role("routed", "there", SNAT, diff=True), apply_role("routed", "back", diff=True)]
    run = ansible.run(plays).succeeded()
    for name in ("there", "back"):
        kinds = {line[1:].split()[0] for line in run.play(name).diff}
        assert kinds == {"route", "snat"}
        assert len(run.play(name).diff) == 4
    assert indexes() == before
    assert not differences(routed, snapshot())


def test_the_playbook_and_the_document_are_the_same_lab(ansible: Controller) -> None:
    ansible.run("playbooks/snat.yml").succeeded()
    assert ansible.run("playbooks/snat.yml").succeeded().changed == 0
    file = {"topology_file": "playbooks/topologies/snat.yml"}
    ansible.run("playbooks/audit.yml", **file).succeeded()
    run = ansible.run("playbooks/lab.yml", **file).succeeded()
    assert "server -> 2.2.2.2 reachable, seen from 10.0.2.1" in run.words
    assert run.changed == 0
