# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check mode is exact, and the way does not matter: for every pair of documents."""

from __future__ import annotations

import os
from typing import Any

import pytest
from ansible_collections.nslab.netns.plugins.module_utils import _engine as engine
from ansible_collections.nslab.netns.plugins.module_utils._document import read_topology
from ansible_collections.nslab.netns.tests.unit.topologies import Document, documents
from applying import visible
from counting import count
from generating import generated, telling
from hypothesis import given
from hypothesis import strategies as st
from oracle import look, without_identity
from throwaway import NO_NETEM, differences, kinds_here, throwaway_host

#: How many pairs there are, in parts that go to several processes.
PAIRS = int(os.environ.get("NSLAB_PAIRS", "2000"))
PARTS = 16

HERE: dict[str, Any] = {"impairments": not NO_NETEM, "kinds": kinds_here()}

#: One of four has up to twelve namespaces.
DOCUMENTS = st.integers(0, 3).flatmap(lambda number: documents(many=number == 3, **HERE))

#: After so many pairs the lab goes, and the next pair starts from nothing.
_UNTIL_NOTHING = 10

#: What is wanted of a lab stands in the kernel; a second lab, and what is nobody's, stand beside it.
BYSTANDER: Document = {
    "name": "other",
    "namespaces": {
        "bystander": {"interfaces": {"eth0": {"addresses": ["10.250.0.1/24"]}}, "snat": [{"masquerade": True}]},
        "host": {"snat": [{"source": "10.250.0.0/24", "masquerade": True}], "nat_backend": "nftables"},
    },
    "links": [{"endpoints": ["bystander:eth0", "host:by0"]}],
}


def apply(document: Document, check: bool = False, absent: bool = False, after: Document | None = None) -> list[str]:
    """The changes; ``after`` is the document that stands: its spanning trees may start to hide something meanwhile."""
    return visible(engine.run(read_topology(document, absent=absent).wanted, check=check), after)


class _Chain:
    """One document after the other on one host: the state that one leads to is where the next one starts."""

    def __init__(self) -> None:
        apply(BYSTANDER)
        self._alone = self._state = look()
        self._first: Document = {}
        self._pairs = 0
        self._broken: Exception | None = None

    def go_on(self, second: Document) -> None:
        if self._broken:
            # hypothesis tries again what has failed.
            raise self._broken
        first, self._first = self._first, second
        try:
            with telling(first, second):
                self._go_on(first, second)
        except Exception as error:
            self._broken = error
            raise

    def _go_on(self, first: Document, second: Document) -> None:
        predicted = apply(second, check=True, after=first)
        assert not differences(self._state, look()), "check mode has touched something"
        assert apply(second, after=first) == predicted
        assert apply(second) == []
        self._state = look()
        with throwaway_host():
            apply(BYSTANDER)
            apply(second)
            fresh = without_identity(look())
        # Marks aside, there is nothing left of the first, and the second is all that has come.
        assert not differences(without_identity(self._state), fresh), "the way there has left traces"
        count("pairs of documents: check = apply, the second run empty, the result as from nothing")
        self._pairs += 1
        if self._pairs % _UNTIL_NOTHING == 0:
            apply(second, absent=True)
            self._state = look()
            assert not differences(self._alone, self._state), "something was left behind"
            self._first = {}
            count("removals that left nothing behind")


@pytest.mark.parametrize("part", range(PARTS))
def test_check_is_apply_and_any_document_leads_to_any_other(part: int) -> None:
    with throwaway_host():
        chain = _Chain()

        # Neither shrinking nor trying again: what came before is part of an example.
        @generated(part, -(-PAIRS // PARTS))
        @given(second=DOCUMENTS)
        def holds(second: Document) -> None:
            chain.go_on(second)

        holds()
