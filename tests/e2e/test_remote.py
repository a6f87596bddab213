# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host that is managed over a real ssh connection, which a change may cut."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from controller import Controller
from remote import ADDRESS, CONTROLLERS_ADDRESS, INTERFACE, Remote, managed
from throwaway import differences, eventually, ip, ip_json, snapshot, without

pytestmark = pytest.mark.once


@pytest.fixture
def remote(ansible: Controller, tmp_path: Path) -> Iterator[Remote]:
    with managed(ansible, tmp_path / "ssh") as found:
        yield found


def task(module: str, **options: Any) -> dict[str, Any]:
    return {"name": module, f"nslab.netns.{module}": options}


def document(**host: Any) -> dict[str, Any]:
    return {"name": "edge", "namespaces": {"a": {}, "host": host}, "links": [{"endpoints": ["a:e0", "host:h0"]}]}


CUTTING = {
    "own address": (
        task("ns_link", name=INTERFACE, addresses=["198.18.0.77/24"], purge=True),
        f"remove address host:eth0 {ADDRESS}/24",
        "its own address is on eth0",
    ),
    "link down": (
        task("ns_link", name=INTERFACE, up=False),
        "change link host:eth0 up -> down",
        "its own address is on eth0",
    ),
    "link a port": (
        task("topology", topology=document(bridges={"br0": {"ports": ["eth0"]}})),
        "add port host:eth0 of br0",
        "its own address is on eth0",
    ),
    "longer prefix elsewhere": (
        task("topology", topology=document(interfaces={"h0": {"addresses": ["198.18.0.3/29"]}})),
        "change link host:h0 up",
        "its way back is eth0",
    ),
    "route elsewhere": (
        task("ns_route", routes=[{"to": f"{CONTROLLERS_ADDRESS}/32", "type": "blackhole"}]),
        f"add route host blackhole {CONTROLLERS_ADDRESS}/32",
        "its way back is eth0",
    ),
    "rule that forbids": (
        task("ns_rule", rules=[{"priority": 100, "from": ADDRESS, "type": "prohibit"}]),
        f"add rule host priority 100 from {ADDRESS}/32 prohibit",
        "its way back is eth0",
    ),
    "port published": (
        task("ns_dnat", rules=[{"protocol": "tcp", "ports": ["20-30"], "to_destination": "10.0.0.1"}]),
        "add nat host in nftables: 1 rule",
        "the next one to port 22 would be sent elsewhere",
    ),
}
HARMLESS = {
    "another address": task("ns_link", name=INTERFACE, addresses=["198.18.0.77/24"], mtu=1400),
    "a lab": task("topology", topology=document(interfaces={"h0": {"addresses": ["10.0.0.1/24"]}})),
    "a port published elsewhere": task(
        "ns_dnat",
        rules=[
            {"protocol": "tcp", "port": 22, "to_destination": "10.0.0.1", "destination": "192.0.2.1"},
            {"protocol": "tcp", "port": 22, "to_destination": "10.0.0.1", "not_in_interface": INTERFACE},
            {"protocol": "udp", "port": 22, "to_destination": "10.0.0.1"},
            {"protocol": "tcp", "port": 2222, "to_destination": f"{ADDRESS}:22"},
        ],
    ),
    "another rule": task("ns_rule", rules=[{"priority": 100, "from": ADDRESS, "table": 100}]),
    "another route": task("ns_route", routes=[{"to": "198.18.0.128/25", "type": "blackhole"}]),
}


def test_what_would_cut_the_connection_is_refused(remote: Remote) -> None:
    """In check mode as well, and before anything is touched."""
    remote.run([{"ansible.builtin.raw": "true"}]).succeeded()
    before = without(snapshot(), "/run/nslab")
    tasks = [
        {**task, "check_mode": check, "ignore_errors": True}
        for task, _change, _text in CUTTING.values()
        for check in (True, False)
    ]
    run = remote.run(tasks).succeeded()
    assert run.stdout.count("FAILED!") == len(tasks), str(run)
    ends = f"from {CONTROLLERS_ADDRESS} to {ADDRESS} port 22"
    for _task, change, text in CUTTING.values():
        assert f"{change}: this would cut the SSH session by which Ansible is here, {ends}: {text}" in run.words
    assert run.words.count("code: connection") == len(tasks)
    assert not differences(before, without(snapshot(), "/run/nslab"))


def test_what_does_not_is_done(remote: Remote) -> None:
    remote.run([*HARMLESS.values(), {"ansible.builtin.meta": "reset_connection"}, task("netns_info")]).succeeded()
    assert {link["ifname"] for link in ip_json(None, "link")} >= {"h0", INTERFACE}


def test_a_host_that_cannot_be_reached_any_more_comes_back_by_itself(remote: Remote) -> None:
    change = task("ns_link", name=INTERFACE, addresses=["198.18.99.2/24"], purge=True, revert_after=6)
    run = remote.run([change, {"ansible.builtin.meta": "reset_connection"}, task("confirm")])
    assert run.code != 0, str(run)
    assert "UNREACHABLE" in run.stdout + run.stderr
    eventually(remote.reaches, "the host has taken the change back")
    assert [a["local"] for a in ip_json(None, "-4", "address", "show", INTERFACE)[0]["addr_info"]] == [ADDRESS]
    run = remote.run([task("netns_info", namespaces=["host"]), task("confirm")], "-v")
    assert "was not confirmed until" in run.failed().words


def test_it_waits_although_the_session_by_which_it_came_is_killed(remote: Remote) -> None:
    lab = task("topology", topology=document(), revert_after=60)
    remote.run([lab]).succeeded()
    remote.kill_sessions()
    assert "h0" in {link["ifname"] for link in ip_json(None, "link")}
    run = remote.run([task("confirm", lab="edge"), lab]).succeeded()
    assert run.changed == 1
    ip("link", "show", "h0")
