# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every call that changes anything fails once, is interrupted once by an exception, and is the last one once."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.nslab.netns.plugins.module_utils._errors import KernelError, StepFailed
from ansible_collections.nslab.netns.tests.unit.topologies import Document, documents
from applying import MUTATING, failing_call, kill_at, run
from counting import count
from generating import generated, telling
from hypothesis import given
from oracle import look, without_identity
from throwaway import NO_NETEM, differences, kinds_here, throwaway_host

#: How many generated documents there are, in parts that go to several processes. The trials of each take a time that
#: grows with the square of its size.
DOCUMENTS = int(os.environ.get("NSLAB_FAULT_DOCUMENTS", "50"))
PARTS = min(DOCUMENTS, 50)

#: Documents with more letters than that, as JSON, are not tried: the trials of a long one take minutes.
LETTERS = int(os.environ.get("NSLAB_FAULT_LETTERS", "2000"))

GENERATED = documents(most=2, impairments=not NO_NETEM, kinds=kinds_here())
SHORT = GENERATED.filter(lambda document: len(json.dumps(document)) <= LETTERS)

_TOPOLOGIES = Path(__file__).parent.parent.parent / "playbooks/topologies"


def _host_link(prefix: str, here: str, there: str) -> Document:
    return {
        "name": "host-link",
        "namespaces": {
            "host": {"interfaces": {here: {"addresses": [f"{prefix}.1/24"]}}},
            "nstest": {"interfaces": {there: {"addresses": [f"{prefix}.2/24"]}}},
        },
        "links": [{"endpoints": [f"host:{here}", f"nstest:{there}"]}],
    }


def _labs() -> dict[str, Document]:
    found: dict[str, Document] = {"L3": _host_link("10.0.0", "veth-a", "veth-b")}
    for name in ("routed", "snat", "bridged", "containers"):
        document = yaml.safe_load((_TOPOLOGIES / f"{name}.yml").read_text())
        found[name] = document
        if name in ("snat", "containers"):
            legacy = copy.deepcopy(document)
            for body in legacy["namespaces"].values():
                if body and (body.get("snat") or body.get("dnat")):
                    body["nat_backend"] = "iptables"
            found[f"{name}, legacy"] = legacy
    return found


LABS = _labs()

FAILED = "calls that failed, with the host as before"
KILLED = "kills, after which one run converged and its removal left nothing"


class _Surprise(Exception):
    """What nobody expects."""


def fails_everywhere(
    monkeypatch: pytest.MonkeyPatch, document: Document, first: Document | None = None, absent: bool = False
) -> int:
    """Each call fails once, in the way of the kernel and by an exception; return how many trials that were."""
    trials = 0
    for error, raised in ((None, StepFailed), (_Surprise("injected"), _Surprise)):
        with throwaway_host():
            if first:
                run(first)
            before = look()
            number = 0
            while True:
                number += 1
                with failing_call(monkeypatch, number, error) as calls:
                    failed = _outcome(document, raised, absent)
                if failed is None:
                    break
                trials += 1
                assert "injected" in str(failed)
                assert not getattr(failed, "remains", ()), failed
                assert calls[0] >= number
                assert not differences(before, look()), f"after call {number} had failed with {error!r}"
    return trials


def _outcome(document: Document, raised: type[Exception], absent: bool) -> Exception | None:
    try:
        run(document, absent=absent)
    except raised as error:
        return error
    return None


def is_killed_everywhere(document: Document) -> int:
    """After each call it is killed once, then one run converges, and its removal leaves nothing."""
    empty = look()
    with throwaway_host():
        run(document)
        wanted = without_identity(look())
    number = 0
    while True:
        number += 1
        if not kill_at(number, document):
            break
        run(document)
        assert not differences(wanted, without_identity(look())), f"after it was killed after call {number}"
        run({"name": document["name"]}, absent=True)
        assert not differences(empty, look()), f"removed after it was killed after call {number}"
    run({"name": document["name"]}, absent=True)
    return number - 1


@pytest.mark.parametrize("lab", LABS)
def test_every_call_of_a_lab_fails(monkeypatch: pytest.MonkeyPatch, lab: str) -> None:
    document = LABS[lab]
    count(FAILED, fails_everywhere(monkeypatch, document))
    count(FAILED, fails_everywhere(monkeypatch, {"name": document["name"]}, first=document, absent=True))


@pytest.mark.parametrize("lab", LABS)
def test_a_lab_is_killed_after_every_call(lab: str) -> None:
    with throwaway_host():
        count(KILLED, is_killed_everywhere(LABS[lab]))


@pytest.mark.parametrize("part", range(PARTS))
def test_every_call_of_generated_documents_fails_or_is_the_last(monkeypatch: pytest.MonkeyPatch, part: int) -> None:
    """From nothing where it is killed, from another document where it fails."""

    @generated(part, -(-DOCUMENTS // PARTS))
    @given(first=GENERATED, document=SHORT)
    def holds(first: Document, document: Document) -> None:
        with telling(first, document):
            count(FAILED, fails_everywhere(monkeypatch, document, first))
            with throwaway_host():
                count(KILLED, is_killed_everywhere(document))

    holds()


# --- the rollback of the rollback -------------------------------------------------------------------------------------


class _Failing:
    """Lets two calls fail: one on the way there, and one on the way back."""

    def __init__(self, there: int, back: int) -> None:
        self._fail = {there, there + back}
        self.calls = 0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            self.calls += 1
            if self.calls in self._fail:
                raise KernelError(5, "injected")
            return function(*arguments, **more)

        return call


@pytest.mark.parametrize("lab", ["routed", "containers"])
def test_what_cannot_be_taken_back_is_told_and_the_rest_is(monkeypatch: pytest.MonkeyPatch, lab: str) -> None:
    """Each step back fails once; what remains is what the error says, and one run after it converges."""
    document = LABS[lab]
    name = {"name": document["name"]}
    with throwaway_host():
        empty = look()
        total = _calls(monkeypatch, document)
        run(name, absent=True)
        there = total - 4
        told = 0
        for back in range(1, there + 1):
            failing = _Failing(there, back)
            with monkeypatch.context() as patch:
                for owner, function in MUTATING:
                    patch.setattr(owner, function, failing.around(getattr(owner, function)))
                with pytest.raises(StepFailed) as caught:
                    run(document)
            left = differences(empty, look())
            if failing.calls < there + back:
                assert not left
                break
            # What is made by several calls and goes with one may fail to lose its half and go with the whole.
            if left:
                assert caught.value.remains, left
                assert "Not everything could be taken back; this remains: " in str(caught.value)
                assert all("Input/output error (injected)" in what for what in caught.value.remains)
                told += 1
            run(document)
            assert run(document) == []
            run(name, absent=True)
            assert not differences(empty, look()), f"after step {back} of the way back had failed"
            count("failing steps of a rollback")
        assert told


def _calls(monkeypatch: pytest.MonkeyPatch, document: Document) -> int:
    with failing_call(monkeypatch, 0) as calls:
        run(document)
    return calls[0]
