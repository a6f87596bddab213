# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The three playbooks, as somebody types them who has just found the collection."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from controller import Controller
from throwaway import ip, ip_batch, ip_json, named_namespaces, ping, snapshot, without

LAB, AUDIT, TEARDOWN = "playbooks/lab.yml", "playbooks/audit.yml", "playbooks/teardown.yml"

PROBES = [
    ("server", "1.1.1.1"),
    ("server", "10.0.1.1"),
    ("server", "10.0.2.2"),
    ("server", "2.2.2.2"),
    ("client", "1.1.1.1"),
    ("client", "10.0.1.2"),
]


def test_check_mode_predicts_all_on_a_fresh_host_and_touches_nothing(ansible: Controller) -> None:
    fresh = snapshot()
    predicted = ansible.run(LAB, "--check", "--diff").succeeded()
    assert snapshot() == fresh

    made = ansible.run(LAB, "--diff").succeeded()
    assert predicted.diff == made.diff
    assert sorted(line for line in made.diff if "namespace" in line) == [
        "+namespace client",
        "+namespace router",
        "+namespace server",
    ]
    # A before is something that was there, and there was nothing.
    assert [line for line in made.diff if line.startswith("-")] == []
    assert (predicted.changed, made.changed) == (1, 1)


def test_lab_shows_what_it_has_built(ansible: Controller) -> None:
    first = ansible.run(LAB).succeeded()
    assert named_namespaces() == ["client", "router", "server"]
    for picture in (
        "vethS 10.0.1.2/24 ------ router:veth-srv",
        "vethC 10.0.2.2/24 ------ router:veth-cli",
        "veth-srv 10.0.1.1/24 ------ server:vethS",
        "veth-cli 10.0.2.1/24 ------ client:vethC",
        "lo 1.1.1.1/24",
        "lo 2.2.2.2/24",
        "routes default via 10.0.1.1 dev vethS",
        "net.ipv4.ip_forward = 1",
        "changes were made",
    ):
        assert picture in first.words
    found = re.findall(r"(\w+) -> ([\d.]+) reachable, (\d+\.\d+) ms", first.words)
    assert [(source, to) for source, to, _ms in found] == PROBES
    assert all(0 < float(ms) < 5000 for _source, _to, ms in found)
    assert [(source, to) for source, to in PROBES if not ping(source, to)[0]] == []

    built = snapshot()
    second = ansible.run(LAB, "--diff").succeeded()
    assert second.changed == 0
    assert second.diff == []
    assert "Nothing had to be changed." in second.words
    assert snapshot() == built


def test_audit_judges_and_lab_repairs(ansible: Controller) -> None:
    ansible.run(LAB).succeeded()
    built = snapshot()
    sound = ansible.run(AUDIT).succeeded()
    assert sound.diff == []
    assert "the lab routed is as the document has it" in sound.words
    assert snapshot() == built

    ip("-n", "router", "link", "set", "veth-srv", "mtu", "1400")
    ip("-n", "router", "route", "delete", "2.2.2.0/24")
    drifted = snapshot()
    assert drifted != built
    found = ansible.run(AUDIT).failed()
    assert found.diff == [
        "-link router:veth-srv mtu 1400",
        "+link router:veth-srv mtu 1500",
        "+route router 2.2.2.0/24 via 10.0.2.2 dev veth-cli",
    ]
    assert "has drifted: 2 changes" in found.words
    lines = [line.strip() for line in found.stdout.splitlines()]
    assert "change link router:veth-srv mtu 1400 -> 1500" in lines
    assert snapshot() == drifted

    repaired = ansible.run(LAB, "--diff").succeeded()
    assert repaired.diff == found.diff
    assert snapshot() == built
    ansible.run(AUDIT).succeeded()


@pytest.mark.once
def test_audit_of_a_lab_whose_device_is_gone(ansible: Controller, tmp_path: Path) -> None:
    ip("link", "add", "nic7", "type", "ifb")
    document = tmp_path / "device.yml"
    lab = {"name": "edge", "namespaces": {"router": {"interfaces": {"wan": {"device": {"name": "nic7"}}}}}}
    document.write_text(json.dumps(lab))
    ansible.run(LAB, "-e", f"topology_file={document}").succeeded()
    ip("-n", "router", "link", "delete", "wan")
    found = ansible.run(AUDIT, "-e", f"topology_file={document}").failed()
    text = "namespaces.router.interfaces.wan.device: there is no device 'nic7' on the host"
    assert f"the lab edge has drifted, and something is not there that it needs: {text}" in found.words


def test_audit_of_a_host_without_the_lab_finds_all_of_it_missing(ansible: Controller) -> None:
    fresh = snapshot()
    found = ansible.run(AUDIT).failed()
    assert "+namespace router" in found.diff
    assert snapshot() == fresh


@pytest.mark.parametrize("others", [pytest.param(False, marks=pytest.mark.once), True], ids=["alone", "beside others"])
def test_teardown_leaves_nothing(ansible: Controller, others: bool) -> None:
    if others:
        add_others()
    before = snapshot()
    ansible.run(LAB).succeeded()
    built = snapshot()
    predicted = ansible.run(TEARDOWN, "--check", "--diff").succeeded()
    assert snapshot() == built

    removed = ansible.run(TEARDOWN, "--diff").succeeded()
    assert removed.diff == predicted.diff
    assert sorted(removed.diff) == [
        "-namespace client",
        "-namespace router",
        "-namespace server",
    ]
    # The folders themselves stay, as that of ip netns does.
    folders = ("/run/netns", "/run/nslab")
    assert without(snapshot(), *folders) == without(before, *folders)

    assert ansible.run(TEARDOWN).succeeded().changed == 0


@pytest.mark.once
def test_a_topology_file_of_ones_own(ansible: Controller) -> None:
    document = ansible.home / "pair.yml"
    document.write_text(
        """
name: pair
namespaces:
  left: {interfaces: {eth0: {addresses: [192.0.2.1/24, "2001:db8::1/64"]}}}
  right: {interfaces: {eth0: {addresses: [192.0.2.2/24, "2001:db8::2/64"]}}}
links:
  - endpoints: ["left:eth0", "right:eth0"]
probes:
  - {from: left, to: 192.0.2.2}
  - {from: left, to: "2001:db8::2"}
  - {from: right, to: 198.51.100.1, expect: unreachable}
"""
    )
    built = ansible.run(LAB, topology_file=str(document)).succeeded()
    assert re.search(r"left -> 2001:db8::2 reachable, [\d.]+ ms", built.words)
    assert "right -> 198.51.100.1 unreachable: Network is unreachable" in built.words
    ansible.run(AUDIT, topology_file=str(document)).succeeded()
    ansible.run(TEARDOWN, topology_file=str(document)).succeeded()
    assert named_namespaces() == []


def test_a_probe_that_fails_fails_the_run_and_says_what_came_back(ansible: Controller) -> None:
    document = ansible.home / "alone.yml"
    document.write_text(
        """
name: alone
namespaces:
  alone: {interfaces: {lo: {addresses: [192.0.2.1/32]}}}
probes:
  - {from: alone, to: 192.0.2.1}
  - {from: alone, to: 198.51.100.1, deadline: 1}
"""
    )
    run = ansible.run(LAB, topology_file=str(document)).failed()
    assert "probes[1] (alone -> 198.51.100.1, icmp): expected reachable, got unreachable: Network is unreachable" in (
        run.words
    )


def add_others() -> None:
    """What was there before on a host: a namespace that is wired to it, and a bridge with an address."""
    ip("netns", "add", "bystander")
    ip_batch(
        """
        link add by0 type veth peer name eth0 netns bystander
        address add 192.0.2.1/24 dev by0
        link set by0 up
        link add br-by type bridge
        address add 198.51.100.1/24 dev br-by
        route add blackhole 203.0.113.0/24
        """
    )
    ip_batch("address add 192.0.2.2/24 dev eth0\nlink set eth0 up\nroute add default via 192.0.2.1", "bystander")
    assert ip_json("bystander", "route", "show", "default")
