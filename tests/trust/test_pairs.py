# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check mode is exact, and the way does not matter: for every pair of documents."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from ansible_collections.nslab.netns.plugins.module_utils import _engine as engine
from ansible_collections.nslab.netns.plugins.module_utils._document import read_topology
from ansible_collections.nslab.netns.tests.unit.topologies import Document, documents
from applying import words
from counting import count
from hypothesis import HealthCheck, Phase, given, settings
from oracle import look
from throwaway import differences, throwaway_host

#: How many pairs there are, in parts that go to several processes.
PAIRS = int(os.environ.get("NSLAB_PAIRS", "160"))
PARTS = 16

#: What is wanted of a lab stands in the kernel; a second lab, and what is nobody's, stand beside it.
BYSTANDER: Document = {
    "name": "other",
    "namespaces": {
        "bystander": {"interfaces": {"eth0": {"addresses": ["10.250.0.1/24"]}}, "snat": [{"masquerade": True}]},
        "host": {"snat": [{"source": "10.250.0.0/24", "masquerade": True}], "nat_backend": "nftables"},
    },
    "links": [{"endpoints": ["bystander:eth0", "host:by0"]}],
}


def apply(document: Document, check: bool = False, absent: bool = False) -> list[str]:
    return words(engine.run(read_topology(document, absent=absent).wanted, check=check))


@pytest.fixture(autouse=True)
def _at_home() -> Iterator[None]:
    with throwaway_host():
        yield


@pytest.mark.parametrize("part", range(PARTS))
def test_check_is_apply_and_any_document_leads_to_any_other(part: int) -> None:
    @settings(
        max_examples=-(-PAIRS // PARTS),
        deadline=None,
        # Shrinking an example of real kernel work would take longer than reading it.
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
        database=None,
    )
    @given(first=documents(many=True), second=documents(many=True))
    def holds(first: Document, second: Document) -> None:
        with throwaway_host():
            apply(BYSTANDER)
            alone = look()
            apply(first)
            between = look()
            predicted = apply(second, check=True)
            assert not differences(between, look()), "check mode has touched something"
            assert apply(second) == predicted
            assert apply(second) == []
            reached = look(identity=False)
            # Marks aside, there is nothing left of the first, and the second is all that has come.
            if part % 4 == 0:
                apply(second, absent=True)
                assert not differences(alone, look()), "something was left behind"
                count("removals that left nothing behind")
        with throwaway_host():
            apply(BYSTANDER)
            apply(second)
            assert not differences(reached, look(identity=False)), "the way there has left traces"
        count("pairs of documents: check = apply, the second run empty, the result as from nothing")

    holds()
