# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role host_link: the host and one namespace, and nothing beyond."""

from __future__ import annotations

import pytest
from controller import Controller, apply_role
from throwaway import eventually, ip, ip_batch, ip_json, named_namespaces, ping, snapshot, without

NETNS0 = {
    "host_link_lab": "first-container",
    "host_link_namespace": "netns0",
    "host_link_interface": "ceth0",
    "host_link_address": "172.18.0.10/16",
    "host_link_host_interface": "veth0",
    "host_link_host_address": "172.18.0.11/16",
}


@pytest.mark.parametrize(
    ("variables", "namespace", "inside", "outside"),
    [
        ({}, "nstest", ("veth-b", "10.0.0.2", 24), ("veth-a", "10.0.0.1", 24)),
        pytest.param(
            NETNS0, "netns0", ("ceth0", "172.18.0.10", 16), ("veth0", "172.18.0.11", 16), marks=pytest.mark.once
        ),
    ],
    ids=["L3a", "L3b"],
)
def test_both_reach_each_other_and_nothing_else(
    ansible: Controller,
    variables: dict[str, str],
    namespace: str,
    inside: tuple[str, str, int],
    outside: tuple[str, str, int],
) -> None:
    give_the_host_another_interface()
    before = snapshot()
    predicted = ansible.run([apply_role("host_link")], "--check", "--diff", **variables).succeeded()
    assert snapshot() == before

    plays = [apply_role("host_link", "first"), apply_role("host_link", "second")]
    run = ansible.run(plays, "--diff", **variables).succeeded()
    assert run.play("first").diff == predicted.diff
    assert run.play("second").changed == []
    assert named_namespaces() == [namespace]
    assert addresses(namespace) == {"lo": ["127.0.0.1/8"], inside[0]: [f"{inside[1]}/{inside[2]}"]}
    assert addresses(None)[outside[0]] == [f"{outside[1]}/{outside[2]}"]

    assert ping(namespace, outside[1])[0]
    assert ping(None, inside[1])[0]
    assert ping(namespace, inside[1])[0]  # through lo
    for beyond in ("192.0.2.1", "8.8.8.8"):
        answered, said = ping(namespace, beyond)
        assert not answered
        assert "Network is unreachable" in said

    plays = [apply_role("host_link", "first"), apply_role("host_link", "second")]
    run = ansible.run(plays, **variables, host_link_state="absent").succeeded()
    assert run.play("second").changed == []
    folders = ("/run/netns", "/run/nslab")
    # The host's end goes with the namespace, in the background.
    eventually(lambda: without(snapshot(), *folders) == without(before, *folders), "nothing of the lab is left", 10)


@pytest.mark.once
def test_drift_on_the_host_is_repaired_in_place(ansible: Controller) -> None:
    ansible.run([apply_role("host_link")]).succeeded()
    built = snapshot()
    ip("address", "delete", "10.0.0.1/24", "dev", "veth-a")
    ip("address", "add", "10.0.0.9/24", "dev", "veth-a")
    ip("-n", "nstest", "link", "set", "veth-b", "down", "mtu", "1280")
    plays = [apply_role("host_link", "audit", check_mode=True), apply_role("host_link", "repair")]
    run = ansible.run([*plays, apply_role("host_link", "again")], "--diff").succeeded()
    assert sorted(run.play("audit").diff) == sorted(
        [
            "+address host:veth-a 10.0.0.1/24",
            "-address host:veth-a 10.0.0.9/24",
            "-link nstest:veth-b mtu 1280",
            "+link nstest:veth-b mtu 1500",
            "-link nstest:veth-b down",
            "+link nstest:veth-b up",
        ]
    )
    assert run.play("repair").diff == run.play("audit").diff
    assert run.play("again").changed == []
    assert snapshot() == built


def give_the_host_another_interface() -> None:
    ip_batch(
        """
        link add other0 type veth peer name other1
        address add 192.0.2.1/24 dev other0
        link set other0 up
        link set other1 up
        """
    )


def addresses(namespace: str | None) -> dict[str, list[str]]:
    """The IPv4 addresses of all links that are up."""
    return {
        link["ifname"]: [f"{a['local']}/{a['prefixlen']}" for a in link["addr_info"] if a["family"] == "inet"]
        for link in ip_json(namespace, "address", "show", "up")
    }
