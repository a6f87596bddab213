# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit of several labs on several hosts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from controller import Controller
from throwaway import differences, ip, snapshot, without

pytestmark = pytest.mark.once

AUDIT = "playbooks/audit.yml"
FILES = [f"playbooks/topologies/{name}.yml" for name in ("routed", "bridged", "containers")]


def test_of_several_labs_on_several_hosts(ansible: Controller, tmp_path: Path) -> None:
    ansible.run("playbooks/lab.yml").succeeded()
    ip("-n", "router", "link", "set", "veth-srv", "mtu", "1400")
    ip("netns", "add", "beijing")
    inventory = tmp_path / "hosts"
    inventory.write_text(
        f"alpha ansible_connection=local ansible_python_interpreter={sys.executable}\n"
        "beta ansible_host=127.0.0.1 ansible_port=1\n"
    )
    report = tmp_path / "report.json"
    before = snapshot()
    # It can write nothing where the collection writes, and does not miss it.
    subprocess.run(["mount", "-o", "remount,ro", "/run"], check=True)
    options = ("--inventory", str(inventory))
    run = ansible.run(AUDIT, *options, target="all", topology_files=FILES, report_file=str(report)).failed()
    subprocess.run(["mount", "-o", "remount,rw", "/run"], check=True)
    assert not differences(before, without(snapshot(), "/run/mount", "/run/mount/utab"))  # mount's own
    found = json.loads(report.read_text())
    assert not found["sound"]
    assert {host: {lab["lab"]: lab["verdict"] for lab in labs} for host, labs in found["hosts"].items()} == {
        "alpha": {"routed": "drifted", "bridged": "foreign", "containers": "missing"},
        "beta": {"routed": "unreachable", "bridged": "unreachable", "containers": "unreachable"},
    }
    (drift,) = found["hosts"]["alpha"][0]["changes"]
    assert drift["text"] == "change link router:veth-srv mtu 1400 -> 1500"
    assert found["hosts"]["alpha"][1]["problems"][0]["path"] == "namespaces.beijing"
    for line in (
        "alpha: the lab routed has drifted: 1 change would repair it change link router:veth-srv mtu 1400 -> 1500",
        "alpha: the lab bridged has somebody else's things in its place: namespaces.beijing: the namespace beijing",
        "alpha: the lab containers is missing: 28 changes would make it",
        "beta: the lab routed cannot be looked at, the host is unreachable",
        "6 labs on 2 hosts: 1 drifted, 1 foreign, 1 missing, 3 unreachable",
    ):
        assert line in run.words

    ansible.run("playbooks/lab.yml").succeeded()
    run = ansible.run(AUDIT, *options, "--check", target="alpha", report_file=str(report)).succeeded()
    assert json.loads(report.read_text())["sound"]
    assert "1 lab on 1 host: 1 sound" in run.words


def test_what_cannot_be_judged_fails_and_says_why(ansible: Controller, tmp_path: Path) -> None:
    """Each by itself: the others are judged, and the report is written."""
    texts = {
        "wrong": "name: wrong\nnamespaces: {a: {interface: {}}}\n",
        "broken": "name: broken\nnamespaces: {a: [}\n",
        "empty": "",
        "list": "[1, 2]\n",
        "right": "name: right\nnamespaces: {a: {}}\n",
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.yml").write_text(text)
    files = [str(tmp_path / f"{name}.yml") for name in (*texts, "nowhere")]
    report = tmp_path / "report.json"
    run = ansible.run(AUDIT, topology_files=files, report_file=str(report)).failed()
    assert "the lab wrong cannot be looked at: namespaces.a.interface: there is no such key here" in run.words
    assert "the lab right is missing" in run.words
    assert "6 labs on 1 host: 5 failed, 1 missing" in run.words
    labs = {lab["source"]: lab for lab in json.loads(report.read_text())["hosts"]["localhost"]}
    assert list(labs) == files
    for name, words in (
        ("broken", "line 2"),
        ("empty", "it is empty, and a topology document is a dictionary with 'name'"),
        ("list", "it is a list, and"),
        ("nowhere", "nowhere.yml"),
    ):
        lab = labs[str(tmp_path / f"{name}.yml")]
        assert lab["verdict"] == "failed"
        assert f"the lab of {tmp_path}/{name}.yml cannot be looked at: " in lab["text"]
        assert words in lab["text"]


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"target": "nobody"}, "the target nobody matches no host of the inventory"),
        ({"topology_files": []}, "There is nothing to audit"),
        ({"topologies": ["a text"]}, "the lab of topologies[0] cannot be looked at: it is a text"),
        ({"topology_files": FILES[0]}, "the lab routed is missing"),
    ],
    ids=["no host", "no document", "no dictionary", "a single one"],
)
def test_an_audit_of_nothing_is_no_success(ansible: Controller, variables: dict[str, Any], words: str) -> None:
    assert words in ansible.run(AUDIT, **variables).failed().words


def test_a_lab_of_links_and_bridges_of_the_host_can_be_missing_as_well(ansible: Controller, tmp_path: Path) -> None:
    file = tmp_path / "host.yml"
    file.write_text(
        "name: host-only\n"
        "namespaces: {host: {bridges: {br9: {}}, sysctls: {net.ipv4.ip_forward: 1}}}\n"
        "links: [{endpoints: ['host:v0', 'host:v1']}]\n"
    )
    assert "the lab host-only is missing" in ansible.run(AUDIT, topology_file=str(file)).failed().words
    ansible.run("playbooks/lab.yml", topology_file=str(file)).succeeded()
    assert "the lab host-only is as the document has it" in ansible.run(AUDIT, topology_file=str(file)).words
    ip("link", "del", "br9")
    assert (
        "the lab host-only has drifted: 2 changes would" in ansible.run(AUDIT, topology_file=str(file)).failed().words
    )


def test_a_lab_that_only_adds_to_the_host_can_be_missing_as_well(ansible: Controller, tmp_path: Path) -> None:
    file = tmp_path / "host.yml"
    host = {"interfaces": {"lo": {"addresses": ["192.0.2.1/32"]}}, "routes": [{"to": "198.51.100.0/24", "dev": "lo"}]}
    file.write_text(json.dumps({"name": "additions", "namespaces": {"host": host}}))
    assert "the lab additions is missing: 2 changes" in ansible.run(AUDIT, topology_file=str(file)).failed().words
    ansible.run("playbooks/lab.yml", topology_file=str(file)).succeeded()
    ip("route", "del", "198.51.100.0/24")
    assert "the lab additions has drifted: 1 change" in ansible.run(AUDIT, topology_file=str(file)).failed().words
