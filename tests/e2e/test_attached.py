# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab L6: containers that are there already. A process in a network namespace of its own stands for one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from controller import Controller, apply_role
from throwaway import (
    Containers,
    differences,
    eventually,
    inode_of,
    ip,
    ip_json,
    named_namespaces,
    ping,
    seen,
    served,
    snapshot,
    without,
)

PLAYBOOK = "playbooks/attached.yml"
KEPT = ("/run/netns", "/run/nslab")

NODE = {"namespace": "container", "addresses": ["10.0.0.2/24"], "port": "veth-c"}

Start = Callable[[], int]


@pytest.fixture
def start(host: None) -> Iterator[Start]:
    """Start a container of sorts; its process."""
    containers = Containers()
    yield containers.start
    containers.end()


def stop(pid: int) -> None:
    os.kill(pid, 9)
    os.waitpid(pid, 0)


def inside(pid: int) -> dict[str, Any]:
    """What is in the namespace of a process, by a name that it has only for this look."""
    ip("netns", "attach", "look", str(pid))
    try:
        found: dict[str, Any] = snapshot()["namespace look"]
        return found
    finally:
        ip("netns", "delete", "look")


def links(namespace: str | None) -> list[str]:
    return sorted(link["ifname"] for link in ip_json(namespace, "link"))


def test_a_container_is_wired_and_left_as_it_was(ansible: Controller, start: Start) -> None:
    pid = start()
    before, container = without(snapshot(), *KEPT), inside(pid)
    predicted = ansible.run([apply_role("attached")], "--check", "--diff", attached_pid=pid).succeeded()
    assert not differences(before, without(snapshot(), *KEPT))
    assert not differences(container, inside(pid))

    run = ansible.run([apply_role("attached", "first"), apply_role("attached", "second")], "--diff", attached_pid=pid)
    assert run.succeeded().play("first").diff == predicted.diff
    assert run.play("second").changed == []
    assert os.stat("/run/netns/container").st_ino == inode_of(pid)
    assert links("container") == ["eth0", "lo"]
    eventually(lambda: ping("container", "10.0.0.1")[0], "the host is reached")
    assert ping(None, "10.0.0.2")[0]
    with served("container", 80):
        assert seen(None, "10.0.0.2", 80) == "10.0.0.1"
    assert [route["gateway"] for route in ip_json("container", "route", "show", "default")] == ["10.0.0.1"]

    built = snapshot()
    ip("-n", "container", "address", "delete", "10.0.0.2/24", "dev", "eth0")
    ip("link", "set", "veth-c", "nomaster")
    plays = [apply_role("attached", "audit", check_mode=True), apply_role("attached", "repair")]
    run = ansible.run(plays, "--diff", attached_pid=pid).succeeded()
    assert run.play("audit").diff == [
        "+address container:eth0 10.0.0.2/24",
        "+port host:veth-c of br0",
        "+route container default via 10.0.0.1 dev eth0",
    ]
    assert run.play("repair").diff == run.play("audit").diff
    assert not differences(built, snapshot())

    plays = [apply_role("attached", "first"), apply_role("attached", "second")]
    run = ansible.run(plays, attached_state="absent").succeeded()
    assert run.play("second").changed == []
    eventually(lambda: not differences(before, without(snapshot(), *KEPT)), "nothing of the lab is left", 10)
    assert not differences(container, inside(pid))


@pytest.mark.once
@pytest.mark.parametrize("ended", [True, False], ids=["ended", "still there"])
def test_a_container_that_was_started_anew(ansible: Controller, start: Start, ended: bool) -> None:
    before = without(snapshot(), *KEPT)
    old = start()
    ansible.run([apply_role("attached")], attached_pid=old).succeeded()
    if ended:
        stop(old)
    new = start()
    container = inside(new)
    built = snapshot()
    predicted = ansible.run([apply_role("attached")], "--check", "--diff", attached_pid=new).succeeded()
    assert not differences(built, snapshot())
    run = ansible.run([apply_role("attached", "first"), apply_role("attached", "second")], "--diff", attached_pid=new)
    # Beyond the name, a prediction sees what has it now.
    diff = run.succeeded().play("first").diff
    assert predicted.diff == diff[:2]
    assert "+veth container:eth0 -- host:veth-c" in diff
    assert run.play("second").changed == []
    assert os.stat("/run/netns/container").st_ino == inode_of(new)
    eventually(lambda: ping("container", "10.0.0.1")[0], "the host is reached")
    assert named_namespaces() == ["container"]

    ansible.run([apply_role("attached")], attached_state="absent").succeeded()
    eventually(lambda: not differences(before, without(snapshot(), *KEPT)), "nothing of the lab is left", 10)
    assert not differences(container, inside(new))


@pytest.mark.once
def test_beside_what_the_container_has_itself(ansible: Controller, start: Start) -> None:
    """A container with a network of its own gets a second interface, in both families, straight to the host."""
    first, second = start(), start()
    ip("link", "add", "engine0", "type", "veth", "peer", "name", "eth0", "netns", str(first))
    ip("netns", "attach", "look", str(first))
    for words in ("address add 198.51.100.2/24 dev eth0", "link set eth0 up", "route add default via 198.51.100.1"):
        ip("-n", "look", *words.split())
    ip("netns", "delete", "look")
    ip("address", "add", "198.51.100.1/24", "dev", "engine0")
    ip("link", "set", "engine0", "up")
    eventually(lambda: "LOWER_UP" in ip_json(None, "link", "show", "engine0")[0]["flags"], "there is a carrier")
    before, containers = without(snapshot(), *KEPT), [inside(first), inside(second)]
    variables: dict[str, Any] = {
        "attached_interface": "eth1",
        "attached_bridge": "",
        "attached_default_routes": False,
        "attached_nodes": [
            {
                "namespace": name,
                "port": f"veth-{name}",
                "addresses": [f"10.0.{i}.2/24", f"fd00:{i}::2/64"],
                "port_addresses": [f"10.0.{i}.1/24", f"fd00:{i}::1/64"],
                **how,
            }
            for i, (name, how) in enumerate({"a": {"pid": first}, "b": {"path": f"/proc/{second}/ns/net"}}.items())
        ],
    }
    ansible.run(PLAYBOOK, **variables).succeeded()
    assert ansible.run(PLAYBOOK, **variables).succeeded().changed == 0
    assert links("a") == ["eth0", "eth1", "lo"]
    assert [route["gateway"] for route in ip_json("a", "route", "show", "default")] == ["198.51.100.1"]
    assert ping("a", "198.51.100.1")[0]
    assert ping("b", "fd00:1::1")[0]
    refused = ansible.run([apply_role("attached", variables={**variables, "attached_interface": "eth0"})]).failed()
    assert "a:eth0 exists already and is a veth wired to host:engine0" in refused.words, str(refused)

    ansible.run(PLAYBOOK, **variables, attached_state="absent").succeeded()
    eventually(lambda: not differences(before, without(snapshot(), *KEPT)), "nothing of the lab is left", 10)
    assert not differences(containers, [inside(first), inside(second)])


@pytest.mark.once
def test_the_playbook_and_the_document(ansible: Controller, start: Start, tmp_path: Path) -> None:
    """The peer is a namespace of the lab's; the same as a document changes nothing."""
    pid = start()
    variables = {"attached_peer_namespace": "router", "attached_pid": str(pid)}
    ansible.run(PLAYBOOK, **variables).succeeded()
    assert ansible.run(PLAYBOOK, **variables).succeeded().changed == 0
    assert links("router") == ["br0", "lo", "veth-c"]
    document = tmp_path / "attached.yml"
    document.write_text(
        f"""
name: attached
namespaces:
  container:
    attach: {{pid: {pid}}}
    interfaces:
      eth0: {{addresses: [10.0.0.2/24]}}
    routes:
      - {{to: default, via: 10.0.0.1}}
  router:
    bridges:
      br0: {{addresses: [10.0.0.1/24], ports: [veth-c]}}
links:
  - endpoints: ["container:eth0", "router:veth-c"]
probes:
  - {{from: container, to: 10.0.0.1}}
"""
    )
    ansible.run("playbooks/audit.yml", topology_file=str(document)).succeeded()
    run = ansible.run("playbooks/lab.yml", topology_file=str(document)).succeeded()
    assert run.changed == 0
    assert "container -> 10.0.0.1 reachable" in run.words
    ansible.run(PLAYBOOK, attached_state="absent").succeeded()
    assert named_namespaces() == []
    assert os.path.exists(f"/proc/{pid}/ns/net")


@pytest.mark.once
@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, "namespaces.container.attach.pid: 0"),
        ({"attached_pid": 4000000}, "there is no process 4000000"),
        ({"attached_nodes": [{**NODE, "path": "/proc/self/ns/net"}]}, "is in the host's own namespace"),
    ],
    ids=["none", "gone", "the host's"],
)
def test_what_cannot_be_attached(ansible: Controller, variables: dict[str, Any], words: str) -> None:
    before = snapshot()
    assert words in ansible.run([apply_role("attached")], **variables).failed().words
    assert not differences(before, snapshot())
