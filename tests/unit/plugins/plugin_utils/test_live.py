# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read of the answers of machines."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.nslab.netns.plugins.plugin_utils._live import problem_of, standing


def link(name: str, *addresses: str, kernels: tuple[str, ...] = (), lab: str | None = None) -> dict[str, Any]:
    found = [{"address": address, "kernel": address in kernels} for address in (*addresses, *kernels)]
    return {"name": name, "lab": lab, "addresses": found}


def facts(*links: dict[str, Any], lab: str | None = None, **more: Any) -> dict[str, Any]:
    return {"lab": lab, "hostname": None, "attached": False, "links": list(links), **more}


def test_what_stands() -> None:
    result = {
        "namespaces": {
            "host": facts(link("eth0", "192.0.2.9/24")),
            "server": facts(link("lo", kernels=("127.0.0.1/8", "::1/128")), lab="routed", hostname="server.example"),
            "bare": facts(link("eth0", "192.0.2.1/24", "2001:db8::1/64", kernels=("fe80::1/64",)), link("lo")),
            "no name": facts(lab="routed"),
            "-x": facts(),
        }
    }
    assert standing(result) == {
        "server": {"lab": "routed", "hostname": "server.example", "interfaces": {"lo": []}},
        "bare": {"lab": "", "hostname": "", "interfaces": {"eth0": ["192.0.2.1/24", "2001:db8::1/64"], "lo": []}},
    }


@pytest.mark.parametrize(
    ("labs", "attached", "lab"),
    [
        ([None, None], True, ""),
        (["edge", None], True, "edge"),
        (["edge", "edge"], True, "edge"),
        (["edge", "core"], True, ""),
        (["edge", None], False, ""),
    ],
)
def test_the_lab_of_what_something_else_has_made_is_the_one_that_has_wired_it(
    labs: list[str | None], attached: bool, lab: str
) -> None:
    links = [link(f"eth{i}", lab=lab) for i, lab in enumerate(labs)]
    assert standing({"namespaces": {"web": facts(*links, attached=attached)}})["web"]["lab"] == lab


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ({"namespaces": {}}, ""),
        ({"failed": True, "msg": "this needs\nroot"}, "one has not told: this needs root"),
        ({"failed": True}, "one has not told: no reason was given"),
        ({"unreachable": True, "msg": "no route", "failed": False}, "one cannot be reached: no route"),
        (None, "one is no host of the inventories that were read before this one"),
    ],
)
def test_why_nothing_is_known(result: dict[str, Any] | None, words: str) -> None:
    assert problem_of("one", {"two": {"failed": True}} if result is None else {"one": result}) == words
