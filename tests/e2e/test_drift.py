# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was changed by hand is named exactly, and repaired by one run that touches nothing else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from controller import ROOT, Controller, Play, apply_role, play
from throwaway import eventually, ip, ip_json, named_namespaces, ping, snapshot, without

# What the lab remembers for its removal. How it does that is its own affair.
RECORD = "/run/nslab/lab-routed.jsonl"

REACHES = [("server", "1.1.1.1"), ("server", "10.0.1.1"), ("server", "2.2.2.2"), ("client", "1.1.1.1")]


@dataclass(frozen=True)
class Drift:
    """Commands of ip (or sysctl) by hand, and what a diff says of them."""

    by_hand: tuple[str, ...]
    diff: tuple[str, ...]
    # Interfaces that have to be made again; all others keep their index.
    made_again: tuple[str, ...] = ()

    def happen(self) -> None:
        for command in self.by_hand:
            ip(*command.split())
        for name in self.made_again:
            namespace, _colon, interface = name.partition(":")
            # The other end of a veth goes with a namespace, but in the background.
            eventually(partial(is_gone, namespace, interface), f"{name} is gone")


WIRE = (
    "+veth client:vethC -- router:veth-cli",
    "+address client:vethC 10.0.2.2/24",
    "+address router:veth-cli 10.0.2.1/24",
    "+link client:vethC up",
    "+link router:veth-cli up",
    "+route client default via 10.0.2.1 dev vethC",
    "+route router 2.2.2.0/24 via 10.0.2.2 dev veth-cli",
)

DRIFTS = {
    "address removed": Drift(("-n server address delete 1.1.1.1/24 dev lo",), ("+address server:lo 1.1.1.1/24",)),
    # With the last address of an interface the kernel takes its routes.
    "last address removed": Drift(
        ("-n server address delete 10.0.1.2/24 dev vethS",),
        ("+address server:vethS 10.0.1.2/24", "+route server default via 10.0.1.1 dev vethS"),
    ),
    "wrong address added": Drift(
        ("-n client address add 10.0.2.77/24 dev vethC",), ("-address client:vethC 10.0.2.77/24",)
    ),
    "link down": Drift(
        ("-n server link set vethS down",),
        ("-link server:vethS down", "+link server:vethS up", "+route server default via 10.0.1.1 dev vethS"),
    ),
    "MTU changed": Drift(
        ("-n router link set veth-srv mtu 1400",),
        ("-link router:veth-srv mtu 1400", "+link router:veth-srv mtu 1500"),
    ),
    "route deleted": Drift(
        ("-n router route delete 1.1.1.0/24",), ("+route router 1.1.1.0/24 via 10.0.1.2 dev veth-srv",)
    ),
    "route changed": Drift(
        ("-n router route change 2.2.2.0/24 via 10.0.2.2 proto 110 mtu 1300",),
        (
            "-route router 2.2.2.0/24 via 10.0.2.2 dev veth-cli mtu 1300",
            "+route router 2.2.2.0/24 via 10.0.2.2 dev veth-cli",
        ),
    ),
    "wrong gateway": Drift(
        ("-n client route change default via 10.0.2.77",),
        ("-route client default via 10.0.2.77 dev vethC", "+route client default via 10.0.2.1 dev vethC"),
    ),
    "sysctl flipped": Drift(
        ("netns exec router sysctl -q -w net.ipv4.ip_forward=0",),
        ("-sysctl router net.ipv4.ip_forward = 0", "+sysctl router net.ipv4.ip_forward = 1"),
    ),
    "lo down": Drift(("-n client link set lo down",), ("-link client:lo down", "+link client:lo up")),
    "veth deleted": Drift(("-n client link delete vethC",), WIRE, ("client:vethC", "router:veth-cli")),
    "namespace deleted": Drift(
        ("netns delete client",),
        ("+namespace client", "+address client:lo 2.2.2.2/24", *WIRE),
        ("client:lo", "client:vethC", "router:veth-cli"),
    ),
}

# Those that do not get into each other's way, at once.
COMBINATIONS = {
    "settings": (
        "address removed", "wrong address added", "MTU changed", "link down", "route deleted", "route changed",
        "wrong gateway", "sysctl flipped", "lo down",
    ),
    "a namespace and all on the other side": (
        "namespace deleted", "last address removed", "route deleted", "MTU changed", "sysctl flipped",
    ),
}  # fmt: skip


DOCUMENT = str(ROOT / "playbooks/topologies/routed.yml")


def apply_document(title: str, **keywords: Any) -> Play:
    document = "{{ lookup('ansible.builtin.file', '" + DOCUMENT + "') | from_yaml }}"
    return play(title, tasks=[{"nslab.netns.topology": {"topology": document}}], **keywords)


@pytest.mark.once
@pytest.mark.parametrize("drift", DRIFTS.values(), ids=DRIFTS)
def test_the_document_names_and_repairs_one(ansible: Controller, drift: Drift) -> None:
    ansible.run([apply_document("build")]).succeeded()
    built, interfaces = snapshot(), indexes()
    drift.happen()
    plays = [
        apply_document("audit", check_mode=True, diff=True),
        apply_document("repair", diff=True),
        apply_document("again", diff=True),
    ]
    run = ansible.run(plays).succeeded()
    assert sorted(run.play("audit").diff) == sorted(drift.diff)
    assert run.play("repair").diff == run.play("audit").diff
    assert run.play("again").changed == []
    judge([drift], built, interfaces)


def test_an_audit_of_drift_touches_nothing(ansible: Controller) -> None:
    ansible.run([apply_document("build")]).succeeded()
    everything = [drift for name, drift in DRIFTS.items() if name not in {"veth deleted", "last address removed"}]
    for drift in everything:
        drift.happen()
    drifted = snapshot()
    ansible.run([apply_document("audit")], "--check", "--diff").succeeded()
    assert snapshot() == drifted


@pytest.mark.once
@pytest.mark.parametrize("names", COMBINATIONS.values(), ids=COMBINATIONS)
def test_the_role_names_and_repairs_several_at_once(ansible: Controller, names: tuple[str, ...]) -> None:
    ansible.run([apply_role("routed")]).succeeded()
    built, interfaces = snapshot(), indexes()
    drifts = [DRIFTS[name] for name in names]
    for drift in drifts:
        drift.happen()
    drifted = snapshot()
    audit = ansible.run([apply_role("routed")], "--check", "--diff").succeeded()
    assert snapshot() == drifted
    assert sorted(map(plain, audit.diff)) == sorted({plain(line) for drift in drifts for line in drift.diff})

    run = ansible.run([apply_role("routed", "repair", diff=True), apply_role("routed", "again")]).succeeded()
    assert list(map(plain, run.play("repair").diff)) == list(map(plain, audit.diff))
    assert run.play("again").changed == []
    judge(drifts, built, interfaces)


def plain(line: str) -> str:
    """A line of a diff without what the role says and the document leaves out, and what only the kernel can tell."""
    if line.startswith("+veth "):
        return re.sub(r" mtu \d+", "", line)
    if line.startswith("+route "):
        return re.sub(r" dev \S+", "", line)
    return line


def judge(drifts: list[Drift], built: dict[str, Any], interfaces: dict[str, tuple[int, str]]) -> None:
    """All is as it was; what had to be made again, and only that, is another one."""
    made_again = {name for drift in drifts for name in drift.made_again}
    if not made_again:
        assert without(snapshot(), RECORD) == without(built, RECORD)
    now = indexes()
    assert now.keys() == interfaces.keys()
    untouched = interfaces.keys() - made_again
    assert {name: now[name] for name in untouched} == {name: interfaces[name] for name in untouched}
    assert [(source, to) for source, to in REACHES if not ping(source, to)[0]] == []


def indexes() -> dict[str, tuple[int, str]]:
    """The index and the MAC of each interface; a new interface has others."""
    return {
        f"{namespace}:{link['ifname']}": (link["ifindex"], link["address"])
        for namespace in named_namespaces()
        for link in ip_json(namespace, "link", "show")
    }


def is_gone(namespace: str, interface: str) -> bool:
    if namespace not in named_namespaces():
        return True
    return all(link["ifname"] != interface for link in ip_json(namespace, "link", "show"))
