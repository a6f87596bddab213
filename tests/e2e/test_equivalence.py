# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the single modules of a role make is what a whole document makes, and the other way round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from controller import Controller, Play, apply_role, play
from throwaway import snapshot, throwaway_host

pytestmark = pytest.mark.once


def test_role_and_document_make_the_same(ansible: Controller, tmp_path: Path) -> None:
    """labs.md L1: role, then captured as a document, then applied elsewhere, then the role again."""
    file = tmp_path / "captured.json"
    run = ansible.run(
        [apply_role("routed"), capture("routed", file), apply("compare", file, check_mode=True)], "--diff"
    )
    run.succeeded()
    assert (run.play("compare").changed, run.play("compare").diff) == ([], [])
    built = comparable(snapshot())

    with throwaway_host():
        plays = [apply("document", file), apply_role("routed", "role"), apply("again", file)]
        run = ansible.run(plays, "--diff").succeeded()
        assert (run.play("role").changed, run.play("role").diff) == ([], [])
        assert run.play("again").changed == []
        assert comparable(snapshot()) == built


@pytest.mark.parametrize("role", ["host_link", "bridged", "containers"])
def test_the_other_roles_too(ansible: Controller, tmp_path: Path, role: str) -> None:
    file = tmp_path / "captured.json"
    plays = [apply_role(role), capture(role, file), apply("compare", file, check_mode=True)]
    run = ansible.run(plays, "--diff").succeeded()
    assert (run.play("compare").changed, run.play("compare").diff) == ([], [])

    with throwaway_host():
        plays = [apply("document", file), apply_role(role, "role")]
        run = ansible.run(plays, "--diff").succeeded()
        assert (run.play("role").changed, run.play("role").diff) == ([], [])


def capture(lab: str, file: Path) -> Play:
    return play(
        "capture",
        tasks=[
            {"nslab.netns.netns_info": {"lab": lab}, "register": "facts"},
            {"ansible.builtin.copy": {"content": "{{ facts.topology | to_json }}", "dest": str(file), "mode": "0600"}},
        ],
    )


def apply(title: str, file: Path, **keywords: Any) -> Play:
    document = "{{ lookup('ansible.builtin.file', '" + str(file) + "') | from_json }}"
    return play(title, tasks=[{"nslab.netns.topology": {"topology": document}}], **keywords)


def comparable(found: dict[str, Any]) -> dict[str, Any]:
    """The namespaces of a snapshot without inodes, indexes, MACs and what is made of MACs."""
    return {
        name: {
            **{key: value for key, value in stack.items() if key not in {"inode", "links", "IPv6 routes"}},
            "IPv6 routes": [route for route in stack["IPv6 routes"] if not route["dst"].startswith("fe80:")],
            "links": {interface: _comparable_link(link) for interface, link in stack["links"].items()},
        }
        for name, stack in found.items()
        if name.startswith("namespace ")
    }


def _comparable_link(link: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in link.items() if key not in {"ifindex", "peer", "address"}}
    kept["addresses"] = [address for address in link["addresses"] if not address["local"].startswith("fe80:")]
    return kept
