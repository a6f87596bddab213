# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lab across two machines, with the playbooks and the inventory of a lab on one.

The machines are throw-away hosts with a wire between them, and Ansible gets to each by a Python that enters it.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from controller import ROOT, Controller, Run
from throwaway import Machine, ip, ip_json, kernel_has, named_namespaces, ping, snapshot, without

pytestmark = [pytest.mark.once, pytest.mark.skipif(not kernel_has("vxlan"), reason="this kernel has no vxlan")]

LAB, AUDIT, TEARDOWN = "playbooks/lab.yml", "playbooks/audit.yml", "playbooks/teardown.yml"

#: The routed lab, with its client on another machine.
DOCUMENT: dict[str, Any] = {
    "name": "routed",
    "hosts": {"vm1": {"address": "192.0.2.1"}, "vm2": {"address": "192.0.2.2"}},
    "namespaces": {
        "vm1/server": {
            "interfaces": {"lo": {"addresses": ["1.1.1.1/24"]}, "vethS": {"addresses": ["10.0.1.2/24"]}},
            "routes": [{"to": "default", "via": "10.0.1.1"}],
        },
        "vm1/router": {
            "sysctls": {"net.ipv4.ip_forward": 1},
            "interfaces": {"veth-srv": {"addresses": ["10.0.1.1/24"]}, "veth-cli": {"addresses": ["10.0.2.1/24"]}},
            "routes": [{"to": "1.1.1.0/24", "via": "10.0.1.2"}, {"to": "2.2.2.0/24", "via": "10.0.2.2"}],
        },
        "vm2/client": {
            "interfaces": {"lo": {"addresses": ["2.2.2.2/24"]}, "vethC": {"addresses": ["10.0.2.2/24"]}},
            "routes": [{"to": "default", "via": "10.0.2.1"}],
        },
    },
    "links": [
        {"endpoints": ["vm1/server:vethS", "vm1/router:veth-srv"]},
        {"endpoints": ["vm1/router:veth-cli", "vm2/client:vethC"]},
    ],
    # The other machine may take its time.
    "probes": [
        {"from": "vm1/server", "to": "2.2.2.2", "deadline": 60},
        {"from": "vm2/client", "to": "1.1.1.1", "deadline": 60},
    ],
}


class Machines:
    """Two machines and the document on the controller."""

    def __init__(self, ansible: Controller, folder: Path) -> None:
        self._ansible = ansible
        self.machines = {"vm1": Machine(), "vm2": Machine()}
        ip("link", "add", "u0", "type", "veth", "peer", "name", "u1")
        interpreter = os.environ.get("NSLAB_TARGET_PYTHON") or sys.executable
        hosts = {}
        for number, (name, machine) in enumerate(self.machines.items()):
            machine.wire(f"u{number}")
            with machine.entered():
                ip("address", "add", f"192.0.2.{number + 1}/24", "dev", f"u{number}")
                ip("link", "set", f"u{number}", "up")
            python = folder / f"python-{name}"
            python.write_text(f'#!/bin/sh\nexec {" ".join(machine.command())} {interpreter} "$@"\n')
            python.chmod(0o755)
            hosts[name] = {"ansible_connection": "local", "ansible_own_python": str(python)}
        self.inventory = folder / "hosts.yml"
        self.inventory.write_text(json.dumps({"all": {"hosts": hosts}}))
        self.document = folder / "lab.yml"
        self.document.write_text(json.dumps(DOCUMENT))
        self.namespaces = folder / "lab.netns.yml"
        options = {"topologies": [str(self.document)], "machines": ["vm1", "vm2"]}
        self.namespaces.write_text(json.dumps({"plugin": "nslab.netns.namespaces", **options}))

    def run(self, playbook: Any, *options: str, target: str = "vm1:vm2", **variables: Any) -> Any:
        usual = {"topology_file": str(self.document), "ansible_python_interpreter": "{{ ansible_own_python }}"}
        options = ("--inventory", str(self.inventory), *options)
        return self._ansible.run(playbook, *options, target=target, **{**usual, **variables})


def tasks(run: Run) -> dict[str, int]:
    """How many tasks each host has had, with those that it was spared."""
    found = re.findall(r"^(\S+) +: ok=(\d+) .* skipped=(\d+) ", run.stdout, re.MULTILINE)
    return {host: int(ok) + int(skipped) for host, ok, skipped in found}


@pytest.fixture
def machines(ansible: Controller, tmp_path: Path) -> Iterator[Machines]:
    found = Machines(ansible, tmp_path)
    yield found
    for machine in found.machines.values():
        machine.close()


def test_a_lab_across_machines_is_built_audited_repaired_and_removed(machines: Machines) -> None:
    before = {}
    for name, machine in machines.machines.items():
        with machine.entered():
            before[name] = without(snapshot(), "/run/netns", "/run/nslab")

    words = machines.run(AUDIT).failed().words
    for name in machines.machines:
        assert f"{name}: the lab routed is missing" in words

    predicted = machines.run(LAB, "--check", "--diff").succeeded()
    made = machines.run(LAB, "--diff").succeeded()
    assert sorted(predicted.diff) == sorted(made.diff)
    assert made.changed == 2
    assert "server -> 2.2.2.2 reachable" in made.words
    assert "client -> 1.1.1.1 reachable" in made.words
    with machines.machines["vm1"].entered():
        assert named_namespaces() == ["router", "server"]
        assert ping("server", "2.2.2.2")[0]
    with machines.machines["vm2"].entered():
        assert named_namespaces() == ["client"]
        (link,) = ip_json("client", "-details", "link", "show", "dev", "vethC")
        assert link["linkinfo"]["info_kind"] == "vxlan"

    again = machines.run(LAB).succeeded()
    assert again.changed == 0
    machines.run(AUDIT).succeeded()

    with machines.machines["vm2"].entered():
        ip("-n", "client", "address", "delete", "10.0.2.2/24", "dev", "vethC")
    words = machines.run(AUDIT).failed().words
    assert "drift" in words
    assert machines.run(LAB, "--diff").succeeded().changed == 1
    machines.run(AUDIT).succeeded()

    # As many tasks as a lab on one machine takes.
    alone = machines.run(
        LAB, "--limit", "vm1", topology_file=str(ROOT / "playbooks/topologies/routed.yml"), lab_adopt=True
    )
    assert set(tasks(again).values()) == {tasks(alone.succeeded())["vm1"]}
    machines.run(LAB).succeeded()

    assert machines.run(TEARDOWN).succeeded().changed == 2
    for name, machine in machines.machines.items():
        with machine.entered():
            assert without(snapshot(), "/run/netns", "/run/nslab") == before[name]
    assert machines.run(TEARDOWN).succeeded().changed == 0


def test_a_machine_that_is_none_of_the_document_is_told_so(machines: Machines) -> None:
    run = machines.run(LAB, "--limit", "vm1", lab_host="vm3").succeeded()
    assert run.changed == 0
    assert "nothing of the lab routed stays on this machine: the document has no host 'vm3'" in run.words
    run = machines.run(LAB, "--limit", "vm1", lab_host="vm3", lab_strict=True).failed()
    assert "[no-part]" in run.words
    audit = machines.run(AUDIT, "--limit", "vm1", lab_host="vm3").succeeded()
    assert "vm1: the lab routed has nothing for this host, and nothing of it is here" in audit.words
    task = {"nslab.netns.topology": {"topology": DOCUMENT}}
    run = machines.run([{"hosts": "vm1", "gather_facts": False, "tasks": [task]}]).failed()
    assert "host: is missing: which of the document's hosts this machine is, vm1 or vm2" in run.words


def test_its_namespaces_are_hosts_on_their_machines(ansible: Controller, machines: Machines) -> None:
    listed = ansible.inventory(str(machines.inventory), str(machines.namespaces)).succeeded()
    hosts = json.loads(listed.stdout)["_meta"]["hostvars"]
    places = {name: hosts[name]["netns_machine"] for name in ("server", "router", "client")}
    assert places == {"server": "vm1", "router": "vm1", "client": "vm2"}
    assert str(machines.inventory.parent / "python-vm2") in hosts["client"]["ansible_own_python"]
    assert "10.0.2.2/24" in str(hosts["client"]["netns_interfaces"]["vethC"])


def test_a_machine_may_have_another_name_than_the_document_gives_it(ansible: Controller, machines: Machines) -> None:
    known = {"one": {"lab_host": "vm1"}, "two": {"number": 2, "lab_host": "vm{{ number }}"}, "three": {}}
    machines.inventory.write_text(json.dumps({"all": {"hosts": known}}))
    options = {"topologies": [str(machines.document)], "machines": ["one", "two", "three"]}
    machines.namespaces.write_text(json.dumps({"plugin": "nslab.netns.namespaces", **options}))
    listed = ansible.inventory(str(machines.inventory), str(machines.namespaces)).succeeded()
    hosts = json.loads(listed.stdout)["_meta"]["hostvars"]
    places = {name: hosts[name]["netns_machine"] for name in ("server", "router", "client")}
    assert places == {"server": "one", "router": "one", "client": "two"}
    known["two"]["lab_host"] = "{{ nothing }}"
    machines.inventory.write_text(json.dumps({"all": {"hosts": known}}))
    listed = ansible.inventory(str(machines.inventory), str(machines.namespaces))
    assert "machines: the lab_host of two cannot be told" in listed.words
