# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Impairments: what is read, what is refused, and what becomes of them with their links. The kernel's are elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.nslab.netns.plugins.module_utils import _changes as c
from ansible_collections.nslab.netns.plugins.module_utils import _kernel as kernel
from ansible_collections.nslab.netns.plugins.module_utils import _options
from ansible_collections.nslab.netns.plugins.module_utils._document import read_topology
from ansible_collections.nslab.netns.plugins.module_utils._document_impairments import read_impairment
from ansible_collections.nslab.netns.plugins.module_utils._errors import InvalidInput, Refused
from ansible_collections.nslab.netns.plugins.module_utils._impairment import (
    NO_IMPAIRMENT,
    RATE_UNITS,
    TIME_UNITS,
    WHOLE,
    Impairment,
    rate_text,
    share_text,
    time_text,
)
from ansible_collections.nslab.netns.plugins.module_utils._model import HOST, Endpoint, Link, Namespace, State
from ansible_collections.nslab.netns.plugins.module_utils._netlink import qdiscs
from ansible_collections.nslab.netns.plugins.module_utils._plan import Plan, plan
from ansible_collections.nslab.netns.plugins.module_utils._reader import Reader
from ansible_collections.nslab.netns.tests.unit.topologies import Document
from hypothesis import given
from hypothesis import strategies as st


def read(body: Any) -> Impairment | None:
    reader = Reader()
    found = read_impairment(reader, body, "impairment")
    reader.done()
    return found.value if found else None


@pytest.mark.parametrize(
    ("body", "impairment", "text"),
    [
        (None, None, "None"),
        ({}, NO_IMPAIRMENT, "nothing"),
        ({"delay": "10ms"}, Impairment(delay=10_000_000), "delay 10ms"),
        ({"delay": "1.5 S", "jitter": "500us"}, Impairment(1_500_000_000, 500_000), "delay 1.5s jitter 500us"),
        ({"delay": "0ms", "loss": None}, NO_IMPAIRMENT, "nothing"),
        ({"loss": "1%"}, Impairment(loss=42949673), "loss 1%"),
        ({"loss": "100%"}, Impairment(loss=WHOLE), "loss 100%"),
        ({"duplicate": "0.001%", "corrupt": "33.3%"}, Impairment(duplicate=42950, corrupt=1430224109), "duplicate"),
        ({"delay": "1ms", "reorder": "25%"}, Impairment(1_000_000, reorder=1073741824, gap=1), "delay 1ms reorder 25%"),
        ({"rate": "1mbit"}, Impairment(rate=125_000), "rate 1mbit"),
        ({"rate": "2.5Gbit", "limit": 5000}, Impairment(rate=312_500_000, limit=5000), "rate 2.5gbit limit 5000"),
        ({"rate": "1tbit"}, Impairment(rate=125_000_000_000), "rate 1tbit"),
    ],
)
def test_what_is_read(body: Any, impairment: Impairment | None, text: str) -> None:
    assert read(body) == impairment
    assert str(impairment).startswith(text)
    if impairment:
        assert impairment.is_sayable
        assert read(impairment.words) == impairment


@pytest.mark.parametrize(
    ("body", "path", "words"),
    [
        ("10ms", "impairment", "no impairment such as {delay: 10ms, loss: 1%}"),
        ({"latency": "10ms"}, "impairment.latency", "there is no such key"),
        ({"delay": 10}, "impairment.delay", "10 is no time such as 10ms; the units are s, ms, us, ns"),
        ({"delay": "10"}, "impairment.delay", "is no time"),
        ({"delay": "10m"}, "impairment.delay", "is no time"),
        ({"delay": "-1ms"}, "impairment.delay", "is no time"),
        ({"delay": "1e3ms"}, "impairment.delay", "is no time"),
        ({"delay": "201s"}, "impairment.delay", "at most 200s"),
        ({"delay": "1" * 5000 + "ms"}, "impairment.delay", "is no time"),
        ({"delay": "1s", "jitter": "3s"}, "impairment.jitter", "at most 2.14748s"),
        ({"jitter": "3ms"}, "impairment.jitter", "needs a 'delay'"),
        ({"delay": "0ms", "jitter": "3ms"}, "impairment.jitter", "needs a 'delay'"),
        ({"reorder": "3%"}, "impairment.reorder", "needs a 'delay'"),
        ({"loss": 0.1}, "impairment.loss", "0.1 is no share such as 1% or 0.5%"),
        ({"loss": "0.1"}, "impairment.loss", "is no share"),
        ({"loss": "101%"}, "impairment.loss", "from 0% to 100%"),
        ({"rate": "1mbps"}, "impairment.rate", "the units are tbit, gbit, mbit, kbit, bit"),
        ({"rate": 1000}, "impairment.rate", "is no rate such as 1mbit"),
        ({"rate": "7bit"}, "impairment.rate", "at least 8bit"),
        ({"rate": "2tbit"}, "impairment.rate", "at most 1tbit"),
        ({"delay": "1ms", "limit": 0}, "impairment.limit", "from 1 to"),
        ({"limit": 10}, "impairment.limit", "impairs nothing by itself"),
    ],
)
def test_what_is_refused(body: Any, path: str, words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(body)
    assert caught.value.problems[0].path == path
    assert words in caught.value.problems[0].text


@given(st.integers(1, WHOLE))
def test_a_share_in_words_leads_back_to_it(share: int) -> None:
    text = share_text(share)
    assert read({"loss": text}) == Impairment(loss=share)


@given(st.integers(1, 200 * TIME_UNITS["s"]), st.integers(1, RATE_UNITS["tbit"] // 8))
def test_times_and_rates_in_words_lead_back_to_them(time: int, rate: int) -> None:
    assert read({"delay": time_text(time), "rate": rate_text(rate)}) == Impairment(delay=time, rate=rate)


IMPAIRMENTS = st.builds(
    Impairment,
    *(st.integers(0, 2**36), st.integers(0, 2**31 - 1)),
    *(st.integers(0, WHOLE) for _share in range(4)),
    rate=st.integers(0, 2**37),
    limit=st.integers(1, WHOLE),
    gap=st.integers(0, 5),
    correlations=st.tuples(*(st.integers(0, WHOLE) for _share in range(5))),
    # A model of loss, and packets that are marked instead of lost.
    unknown=st.lists(st.sampled_from([(5, bytes(20)), (7, b"\1\0\0\0")]), unique=True).map(sorted).map(tuple),
    inner=st.just(""),
)


@given(IMPAIRMENTS)
def test_what_is_sent_is_what_is_read(impairment: Impairment) -> None:
    """The kernel returns the options in the form in which it takes them."""
    assert qdiscs._impairment(qdiscs._options(impairment), impairment.handle) == impairment


# --- documents -------------------------------------------------------------------------------------------------------


def document(interfaces: Document | None = None, **link: Any) -> Document:
    return {
        "name": "lab",
        "namespaces": {"a": {"interfaces": interfaces or {}}, "b": {}},
        "links": [{"endpoints": ["a:e0", "b:e0"], **link}],
    }


def fresh() -> State:
    host = Namespace(HOST, inode=1, links={"lo": kernel.new_namespace(HOST).links["lo"]})
    host.links["eth0"] = Link("eth0", 2, up=True)
    return State({HOST: host})


def planned(body: Document, state: State) -> tuple[Plan, State]:
    found = plan(read_topology(body).wanted, state)
    after = kernel.copy(state)
    for step in found.steps:
        kernel.play(after, step.change)
    return found, after


def impaired(state: State) -> dict[str, str]:
    return {str(end): str(link.impairment) for end, link in state.links() if link.impairment}


def test_of_a_link_for_both_directions_or_of_an_interface_for_one() -> None:
    _plan, state = planned(document(impairment={"delay": "10ms"}), fresh())
    assert impaired(state) == {"a:e0": "delay 10ms", "b:e0": "delay 10ms"}
    assert plan(read_topology(document(impairment={"delay": "10ms"})).wanted, state).steps == []
    one_way = document({"e0": {"impairment": {"loss": "1%"}}, "lo": {"impairment": {"rate": "1mbit"}}})
    changes, state = planned(one_way, state)
    assert [str(step.change.describe()) for step in changes.steps] == [
        "change impairment a:e0 delay 10ms -> loss 1%",
        "add impairment a:lo rate 1mbit",
        "remove impairment b:e0 delay 10ms",
    ]
    assert changes.steps[0].change.path == "namespaces.a.interfaces.e0.impairment"
    assert impaired(state) == {"a:e0": "loss 1%", "a:lo": "rate 1mbit"}
    _plan, state = planned(document(), state)
    assert impaired(state) == {}


def test_each_direction_stands_in_one_place() -> None:
    with pytest.raises(InvalidInput) as caught:
        read_topology(document({"e0": {"impairment": {}}}, impairment={"delay": "1ms"}))
    assert str(caught.value.problems[0]) == (
        "links[0].impairment: is of both ends, and that of a:e0 is at namespaces.a.interfaces.e0.impairment, too; "
        "say it in one place"
    )
    with pytest.raises(InvalidInput) as caught:
        read_topology(document(impairment={"delay": 1}))
    assert caught.value.problems[0].path == "links[0].impairment.delay"


def test_a_link_that_is_made_again_or_moved_has_none() -> None:
    body = document(impairment={"delay": "10ms"})
    _plan, state = planned(body, fresh())
    end, link = Endpoint("a", "e0"), state.namespaces["a"].links["e0"]
    for change in (c.RemoveLink(end, "veth", link.peer), c.MoveLink(end, Endpoint("b", "e7"))):
        after = kernel.copy(state)
        undo = kernel.play(after, change)
        assert "a:e0" not in impaired(after)
        assert "b:e7" not in impaired(after)
        assert c.SetImpairment(end, link.impairment) in undo
        for back in undo:
            kernel.play(after, back)
        assert impaired(after) == impaired(state)
        assert plan(read_topology(body).wanted, after).steps == []
    renamed = kernel.copy(state)
    kernel.play(renamed, c.MoveLink(end, Endpoint("a", "e7")))
    assert "a:e7" in impaired(renamed)


# --- on what is not the lab's ----------------------------------------------------------------------------------------

ON_HOST = {"name": "lab", "namespaces": {"host": {"interfaces": {"eth0": {"impairment": {"delay": "10ms"}}}}}}


def test_of_the_host_it_is_remembered_and_goes_with_the_lab() -> None:
    found, state = planned(ON_HOST, fresh())
    memory = found.steps[0].remember[0]
    assert (memory.kind, memory.object, memory.before, memory.after) == ("impairment", "eth0", None, "delay 10ms")
    state.remembered = tuple(entry for step in found.steps for entry in step.remember)
    found, state = planned({"name": "lab"}, state)
    assert [str(step.change.describe()) for step in found.steps] == ["remove impairment host:eth0 delay 10ms"]
    assert found.forgotten


def test_what_somebody_else_has_changed_since_is_left() -> None:
    found, state = planned(ON_HOST, fresh())
    state.remembered = tuple(entry for step in found.steps for entry in step.remember)
    state.namespaces[HOST].links["eth0"].impairment = Impairment(delay=5)
    found, state = planned({"name": "lab"}, state)
    assert not found.steps
    assert "was changed to 'delay 5ns' by somebody else" in found.warnings[0]


@pytest.mark.parametrize("adopt", [False, True])
@pytest.mark.parametrize("other", [False, True])
def test_what_is_there_already(other: bool, adopt: bool) -> None:
    state = fresh()
    link = state.namespaces[HOST].links["eth0"]
    if other:
        link.other_qdisc = "tbf 8001:"
    else:
        link.impairment = Impairment(delay=7, handle=0x80010000)
    wanted = read_topology(ON_HOST).wanted
    wanted.adopt = adopt
    if adopt and not other:
        assert len(plan(wanted, state).steps) == 1
        return
    with pytest.raises(Refused) as caught:
        plan(wanted, state)
    problem = caught.value.problems[0]
    assert (problem.path, problem.code) == ("namespaces.host.interfaces.eth0.impairment", "foreign")
    assert "tc qdisc delete dev eth0 root" in problem.text
    # What is not asked for is nobody's business.
    assert plan(read_topology({"name": "lab"}).wanted, state).steps == []


def test_what_was_set_by_hand_on_the_labs_own_is_drift() -> None:
    _plan, state = planned(document(), fresh())
    state.namespaces["a"].links["e0"].impairment = Impairment(delay=7, handle=0x80010000)
    found, _state = planned(document(), state)
    assert [str(step.change.describe()) for step in found.steps] == ["remove impairment a:e0 delay 7ns"]
    state.namespaces["a"].links["e0"].impairment = Impairment(loss=WHOLE, handle=0x80010000)
    found, _state = planned(document(impairment={"loss": "100%"}), state)
    assert str(found.steps[0].change.describe()) == "change impairment a:e0 loss 100% handle 8001: -> 6e73:"


def test_the_modules_say_it_or_leave_it() -> None:
    options = {"lab": None, "name": "eth0", "namespace": "host", "addresses": None, "purge": False}
    state = fresh()
    state.namespaces[HOST].links["eth0"].impairment = Impairment(delay=7)
    assert plan(_options.ns_link(options), state).steps == []
    found = plan(_options.ns_link({**options, "impairment": {"delay": None}}), state)
    assert [str(step.change.describe()) for step in found.steps] == ["remove impairment host:eth0 delay 7ns"]
    assert found.steps[0].change.path == "impairment"
