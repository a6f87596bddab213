# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documents that the documentation shows can be built as they stand, and go without a trace."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from applying import host_without_lab_traces, run
from throwaway import KINDS, NO_NETEM, Containers, differences, ip, kernel_has

yaml = pytest.importorskip("yaml", reason="PyYAML comes with Ansible")

pytestmark = pytest.mark.once

DOCS = Path(__file__).resolve().parents[2] / "docs"


def documents() -> Iterator[Any]:
    for page in sorted(DOCS.glob("*.md")):
        for block in re.finditer(r"^```yaml\n(.*?)^```", text := page.read_text(), re.MULTILINE | re.DOTALL):
            document = yaml.safe_load(block[1])
            if isinstance(document, dict) and "namespaces" in document:
                line = text.count("\n", 0, block.start()) + 1
                yield pytest.param(document, marks=needs(block[1]), id=f"{page.name}:{line}")


def needs(block: str) -> pytest.MarkDecorator:
    missing = [kind for kind in KINDS if f"{{{kind}: " in block and not kernel_has(kind)]
    missing += ["netem"] if "impairment: " in block and NO_NETEM else []
    missing += ["vxlan"] if "hosts:\n" in block and not kernel_has("vxlan") else []
    return pytest.mark.skipif(bool(missing), reason=f"this kernel has no {' and no '.join(missing)}")


@pytest.fixture(autouse=True)
def machine(host: None) -> None:
    """What the documents take for granted: a NIC, and links of somebody else."""
    ip("link", "add", "eth1", "type", "veth", "peer", "name", "switch")
    ip("link", "add", "veth0", "type", "veth", "peer", "name", "veth1")


@pytest.fixture
def containers() -> Iterator[Containers]:
    yield (started := Containers())
    started.end()


@pytest.mark.parametrize("document", list(documents()))
def test_one_of_the_documentation(document: Any, containers: Containers) -> None:
    document.setdefault("name", "lab")
    for namespace in document["namespaces"].values():
        if namespace and "attach" in namespace:
            namespace["attach"] = {"pid": containers.start()}
    for name in document.get("hosts", [None]):
        before = host_without_lab_traces()
        predicted = run(document, check=True, host=name)
        assert run(document, host=name) == predicted != []
        assert run(document, host=name) == []
        assert run(document, absent=True, host=name) != []
        assert not differences(before, host_without_lab_traces())
