# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role bridged: namespaces that reach each other through a bridge."""

from __future__ import annotations

from typing import Any

import pytest
from controller import Controller, apply_role
from throwaway import ip, ip_json, named_namespaces, ping, snapshot, without

BY_THE_TABLE = (
    ("beijing", "eth0-b", "10.0.0.1", "veth-b"),
    ("shanghai", "eth0-s", "10.0.0.2", "veth-s"),
)
IN_A_NAMESPACE = {
    "bridged_lab": "switched",
    "bridged_bridge": "sw0",
    "bridged_bridge_namespace": "switch",
    "bridged_bridge_addresses": ["2001:db8::ff/64"],
    "bridged_mtu": 1400,
    "bridged_nodes": [
        {"namespace": f"n{i}", "interface": "eth0", "address": f"2001:db8::{i}/64", "port": f"port{i}"}
        for i in (1, 2, 3)
    ],
}


@pytest.mark.once
def test_it_is_what_the_table_says(ansible: Controller) -> None:
    fresh = snapshot()
    predicted = ansible.run([apply_role("bridged")], "--check", "--diff").succeeded()
    assert snapshot() == fresh
    run = ansible.run([apply_role("bridged", "build", diff=True), apply_role("bridged", "again")]).succeeded()
    assert run.play("again").changed == []
    assert sorted(run.play("build").diff) == sorted(predicted.diff)

    (bridge,) = ip_json(None, "-details", "address", "show", "br0")
    assert bridge["linkinfo"]["info_kind"] == "bridge"
    assert [address for address in bridge["addr_info"] if not address["local"].startswith("fe80:")] == []
    for namespace, interface, address, port in BY_THE_TABLE:
        assert {link["ifname"] for link in ip_json(namespace, "link", "show")} == {"lo", interface}
        (link,) = ip_json(namespace, "-4", "address", "show", interface)
        assert [(found["local"], found["prefixlen"]) for found in link["addr_info"]] == [(address, 24)]
        assert ip_json(None, "link", "show", port)[0]["master"] == "br0"
    assert ping("beijing", "10.0.0.2")[0]
    assert ping("shanghai", "10.0.0.1")[0]
    ip("link", "set", "br0", "down")
    assert not ping("beijing", "10.0.0.2", wait_seconds=1)[0]


@pytest.mark.once
@pytest.mark.parametrize("variables", [{}, IN_A_NAMESPACE], ids=["L4", "in a namespace, IPv6"])
def test_drift_is_named_repaired_in_place_and_removed(ansible: Controller, variables: dict[str, Any]) -> None:
    fresh = without(snapshot(), "/run/netns", "/run/nslab")
    ansible.run([apply_role("bridged", variables=variables)]).succeeded()
    built = snapshot()
    where = variables.get("bridged_bridge_namespace", "host")
    bridge, port = ("sw0", "port1") if variables else ("br0", "veth-b")
    inside = ["-n", where] if where != "host" else []
    for command in (f"link set {port} nomaster", f"link set {bridge} down"):
        ip(*inside, *command.split())
    audit = ansible.run([apply_role("bridged", variables=variables)], "--check", "--diff").succeeded()
    wanted = [f"-link {where}:{bridge} down", f"+link {where}:{bridge} up", f"+port {where}:{port} of {bridge}"]
    # A link that goes down loses its IPv6 addresses.
    wanted += [f"+address {where}:{bridge} 2001:db8::ff/64"] if variables else []
    assert sorted(audit.diff) == sorted(wanted)
    repair = ansible.run([apply_role("bridged", variables=variables)], "--diff").succeeded()
    assert repair.diff == audit.diff
    assert snapshot() == built
    source, to = ("n1", "2001:db8::3") if variables else ("beijing", "10.0.0.2")
    assert ping(source, to)[0]

    away = {**variables, "bridged_state": "absent"}
    run = ansible.run([apply_role("bridged", "remove", away), apply_role("bridged", "again", away)]).succeeded()
    assert run.play("again").changed == []
    assert named_namespaces() == []
    assert without(snapshot(), "/run/netns", "/run/nslab") == fresh


def test_the_playbook_builds_it_and_proves_it(ansible: Controller) -> None:
    ansible.run("playbooks/bridged.yml").succeeded()
    assert ansible.run("playbooks/bridged.yml").succeeded().changed == 0
    ansible.run("playbooks/audit.yml", topology_file="playbooks/topologies/bridged.yml").succeeded()


@pytest.mark.once
def test_the_document_is_the_same_lab(ansible: Controller) -> None:
    run = ansible.run("playbooks/lab.yml", topology_file="playbooks/topologies/bridged.yml").succeeded()
    assert "br0             bridge of veth-b, veth-s" in run.stdout
    again = ansible.run([apply_role("bridged")], "--check", "--diff").succeeded()
    assert (again.changed, again.diff) == (0, [])
