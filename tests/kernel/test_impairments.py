# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Impairments of links: what `tc` shows of them, and what becomes of packets. They need a kernel with netem."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest
from ansible_collections.nslab.netns.plugins.module_utils import _options
from ansible_collections.nslab.netns.plugins.module_utils._facts import gather
from ansible_collections.nslab.netns.tests.unit.topologies import Document
from applying import fail_each_call, failing_call, host_without_lab_traces, kill_at, module, outcome, refused, run
from throwaway import NO_NETEM, differences, inside, ip, within

pytestmark = pytest.mark.usefixtures("host")


needs_netem = pytest.mark.skipif(bool(NO_NETEM), reason=f"this kernel has no netem (CONFIG_NET_SCH_NETEM): {NO_NETEM}")

ALL = {
    "delay": "10ms",
    "jitter": "2ms",
    "loss": "1%",
    "duplicate": "0.5%",
    "reorder": "25%",
    "corrupt": "0.1%",
    "rate": "10mbit",
    "limit": 2000,
}
SHOWN = (
    "qdisc netem 6e73: root limit 2000 delay 10ms 2ms loss 1% duplicate 0.5% reorder 25% corrupt 0.1% rate 10Mbit gap 1"
)


def document(a: Document | None = None, b: Document | None = None, **link: Any) -> Document:
    """Two namespaces and the link between them. ``a`` and ``b``: what their ends do."""
    namespaces = {}
    for number, (name, impairment) in enumerate((("a", a), ("b", b)), 1):
        body: Document = {"addresses": [f"10.0.0.{number}/24", {"address": f"fd00::{number}/64", "nodad": True}]}
        namespaces[name] = {"interfaces": {"e0": {**body, **({"impairment": impairment} if impairment else {})}}}
    return {"name": "lab", "namespaces": namespaces, "links": [{"endpoints": ["a:e0", "b:e0"], **link}]}


def shown(namespace: str | None = "a", dev: str = "e0") -> str:
    """The root queueing discipline of an interface in the words of tc, without how often it is referred to."""
    text = within(namespace, "tc", "qdisc", "show", "dev", dev)
    return re.sub(r" +", " ", re.sub(r" refcnt \d+| seed \d+", "", text)).strip()


def sent(namespace: str = "a") -> int:
    return int(json.loads(within(namespace, "tc", "-s", "-j", "qdisc", "show", "dev", "e0"))[0]["packets"])


def tc(namespace: str | None, *words: str) -> None:
    within(namespace, "tc", "qdisc", *words)


@needs_netem
def test_every_word_is_as_tc_shows_it() -> None:
    empty = host_without_lab_traces()
    lab = document(ALL)
    predicted = run(lab, check=True)
    assert run(lab) == predicted
    assert run(lab, check=True) == run(lab) == []
    assert shown() == SHOWN
    assert shown("b") == "qdisc noqueue 0: root"
    facts = gather(["a"], [], "lab")
    assert [link["impairment"] for link in facts["namespaces"]["a"]["links"] if link["name"] == "e0"] == [ALL]
    assert run(facts["topology"]) == []
    assert run(document()) == [f"remove impairment a:e0 {' '.join(f'{key} {value}' for key, value in ALL.items())}"]
    assert run(document()) == []
    assert shown() == "qdisc noqueue 0: root"
    run({"name": "lab"}, absent=True)
    assert not differences(empty, host_without_lab_traces())


@needs_netem
def test_each_word_comes_and_goes_in_place() -> None:
    """What is not said any more is gone, and the counters go on: it is the same queue."""
    run(document(ALL))
    within("a", "ping", "-n", "-c", "3", "-i", "0.2", "10.0.0.2")
    before = sent()
    assert before
    for word in ("limit", "rate", "corrupt", "reorder", "duplicate", "loss", "jitter"):
        less = {key: value for key, value in ALL.items() if key != word}
        for wanted in (less, ALL):
            # Without a delay there is nothing that could be overtaken.
            changed = run(document(wanted))
            assert len(changed) == 1
            assert changed[0].startswith("change impairment a:e0 ")
            assert run(document(wanted)) == []
            assert (f" {word} " in shown() or word in ("limit", "jitter")) == (
                word in wanted or word in ("limit", "jitter")
            )
            assert sent() >= before
    assert run(document({"loss": "1%"})) != []
    assert shown() == "qdisc netem 6e73: root limit 1000 loss 1%"
    assert sent() >= before


@needs_netem
def test_of_a_link_for_both_directions() -> None:
    run(document(impairment={"delay": "1ms"}))
    assert shown("a") == shown("b") == "qdisc netem 6e73: root limit 1000 delay 1ms"
    run(document(impairment={"delay": "1.5ms", "rate": "1gbit"}))
    assert shown("a") == shown("b") == "qdisc netem 6e73: root limit 1000 delay 1.5ms rate 1Gbit"
    run(document())
    assert shown("a") == shown("b") == "qdisc noqueue 0: root"


DRIFT = {
    "gone": (("delete", "root"), "add impairment a:e0 delay 5ms"),
    "another delay": (
        ("change", "root", "handle", "6e73:", "netem", "delay", "9ms"),
        "change impairment a:e0 delay 9ms -> 5ms",
    ),
    "more of it": (
        ("change", "root", "handle", "6e73:", "netem", "delay", "5ms", "1ms", "20%"),
        "change impairment a:e0 delay 5ms jitter 1ms correlations 20%/0%/0%/0%/0% -> impairment a:e0 delay 5ms",
    ),
    "a model of loss": (
        ("change", "root", "handle", "6e73:", "netem", "delay", "5ms", "loss", "gemodel", "1%", "10%", "70%", "0.1%"),
        "change impairment a:e0 delay 5ms attribute 5 ",
    ),
    "loss in a row, marked": (
        ("change", "root", "handle", "6e73:", "netem", "delay", "5ms", "loss", "1%", "ecn"),
        "change impairment a:e0 delay 5ms loss 1% attribute 7 01000000 -> impairment a:e0 delay 5ms",
    ),
    "slots": (
        ("change", "root", "handle", "6e73:", "netem", "delay", "5ms", "slot", "1ms", "2ms"),
        "change impairment a:e0 delay 5ms attribute 12 ",
    ),
    "what each packet costs besides": (
        ("change", "root", "handle", "6e73:", "netem", "delay", "5ms", "rate", "1mbit", "20"),
        "change impairment a:e0 delay 5ms rate 1mbit attribute 6 48e801001400000000000000",
    ),
    "another one in its place": (
        ("replace", "root", "handle", "9:", "netem", "rate", "1mbit"),
        "change impairment a:e0 rate 1mbit -> delay 5ms",
    ),
    "the same by another handle": (
        ("replace", "root", "handle", "9:", "netem", "delay", "5ms"),
        "change impairment a:e0 delay 5ms handle 9: -> 6e73:",
    ),
}


@needs_netem
@pytest.mark.parametrize("what", DRIFT)
def test_what_was_done_by_hand_is_repaired(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = document({"delay": "5ms"})
    run(lab)
    right = shown()
    words, expected = DRIFT[what]
    tc("a", words[0], "dev", "e0", *words[1:])
    wrong = shown()
    assert wrong != right
    (said,) = run(lab, check=True)
    assert said.startswith(expected)
    fail_each_call(monkeypatch, {**document({"delay": "5ms"}, {"loss": "1%"})})
    run(document({"delay": "5ms"}))
    assert shown() == right
    assert run(lab) == []


@needs_netem
def test_what_somebody_has_put_into_it_is_refused() -> None:
    run(document({"delay": "5ms"}))
    tc(
        "a",
        "add",
        "dev",
        "e0",
        "parent",
        "6e73:1",
        "handle",
        "7:",
        "tbf",
        "rate",
        "1mbit",
        "burst",
        "5kb",
        "limit",
        "9kb",
    )
    assert refused(document({"delay": "5ms"})).endswith(
        ".impairment: the impairment of a:e0 has a queueing discipline of somebody else's in it, tbf 7:; "
        "remove that with 'tc -n a qdisc delete dev e0 parent 6e73:1'"
    )
    tc("a", "delete", "dev", "e0", "parent", "6e73:1")
    assert run(document({"delay": "5ms"})) == []


@needs_netem
@pytest.mark.once
def test_each_call_that_fails_leaves_it_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the link is made anew, which takes it along."""
    run(document(ALL, {"loss": "1%"}))
    found = shown("a"), shown("b")
    other = document({"delay": "1ms"})
    other["links"] = [{"endpoints": ["a:e0", "c:e0"], "impairment": {"loss": "3%"}}]
    other["namespaces"]["c"] = other["namespaces"].pop("b")
    del other["namespaces"]["a"]["interfaces"]["e0"]["impairment"]
    for number in range(1, 40):
        with failing_call(monkeypatch, number):
            failed = outcome(other)
        if failed is None:
            break
        assert not failed.remains
        assert (shown("a"), shown("b")) == found, f"call {number}"
    assert shown("a") == shown("c") == "qdisc netem 6e73: root limit 1000 loss 3%"


@needs_netem
@pytest.mark.once
def test_a_run_that_was_killed_is_made_good() -> None:
    empty = host_without_lab_traces()
    lab = document({"delay": "1ms"}, {"loss": "1%"})
    number = 1
    while kill_at(number, lab):
        run(lab)
        assert run(lab) == []
        assert (shown("a"), shown("b")) == (
            "qdisc netem 6e73: root limit 1000 delay 1ms",
            "qdisc netem 6e73: root limit 1000 loss 1%",
        )
        run({"name": "lab"}, absent=True)
        assert not differences(empty, host_without_lab_traces())
        number += 3


# --- on what is not the lab's ----------------------------------------------------------------------------------------


def on_host(name: str = "one", **impairment: Any) -> Document:
    return {"name": name, "namespaces": {"host": {"interfaces": {"eth0": {"impairment": impairment}}}}}


@pytest.fixture
def eth0(host: None) -> None:
    """An interface of the machine, which no lab owns."""
    ip("link", "add", "eth0", "type", "veth", "peer", "name", "far")


@needs_netem
@pytest.mark.usefixtures("eth0")
def test_of_the_host_it_goes_with_the_last_lab_that_needs_it() -> None:
    empty = host_without_lab_traces()
    assert run(on_host(delay="5ms")) == ["add impairment host:eth0 delay 5ms"]
    assert run(on_host("two", delay="5ms")) == []
    assert "the lab 'one' has set this to 'delay 5ms'" in refused(on_host("three", delay="6ms"))
    captured = gather(None, [], "one")["topology"]
    assert captured["namespaces"]["host"]["interfaces"] == {"eth0": {"impairment": {"delay": "5ms"}}}
    assert run({"name": "one"}, absent=True) == []
    assert shown(None, "eth0") == "qdisc netem 6e73: root limit 1000 delay 5ms"
    assert run(on_host("two", delay="6ms")) == ["change impairment host:eth0 delay 5ms -> 6ms"]
    assert run({"name": "two"}, absent=True) == ["remove impairment host:eth0 delay 6ms"]
    assert not differences(empty, host_without_lab_traces())
    # It is down: the kernel chooses none before it comes up.
    assert shown(None, "eth0") == ""


@needs_netem
@pytest.mark.usefixtures("eth0")
def test_what_somebody_else_has_set_is_refused_or_adopted() -> None:
    tc(None, "add", "dev", "eth0", "root", "netem", "delay", "7ms")
    said = refused(on_host(delay="5ms"))
    assert said.startswith("namespaces.host.interfaces.eth0.impairment: host:eth0 is impaired by somebody else, with")
    assert run(on_host(delay="5ms"), adopt=True) == ["change impairment host:eth0 delay 7ms -> 5ms"]
    assert run(on_host(delay="5ms")) == []


@pytest.mark.usefixtures("eth0")
def test_another_discipline_is_refused_always() -> None:
    """This needs no netem: nothing is sent."""
    tc(None, "add", "dev", "eth0", "root", "handle", "7:", "tbf", "rate", "1mbit", "burst", "10k", "latency", "9ms")
    said = refused(on_host(delay="5ms"))
    assert said == (
        "namespaces.host.interfaces.eth0.impairment: host:eth0 has a queueing discipline of somebody else's, tbf 7:; "
        "remove that with 'tc qdisc delete dev eth0 root'"
    )
    assert run({"name": "one"}, absent=True) == []


@pytest.mark.skipif(not NO_NETEM, reason="this kernel has netem")
def test_a_kernel_without_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    before = host_without_lab_traces()
    failed = outcome(document({"delay": "5ms"}))
    assert "the kernel of this host has no netem" in str(failed)
    assert not differences(before, host_without_lab_traces())


@needs_netem
@pytest.mark.usefixtures("eth0")
def test_the_modules() -> None:
    ends = {"name": "x0", "namespace": None, "up": True, "mtu": None, "mac": None, "addresses": None}
    options = {**ends, "peer": {**ends, "name": "x1", "impairment": {"loss": "2%"}}, "state": "present", "purge": False}
    assert module(_options.veth, **options)[-1] == "add impairment host:x1 loss 2%"
    assert module(_options.veth, **options) == []
    link = {"name": "x1", "namespace": "host", "addresses": None, "purge": False}
    assert module(_options.ns_link, **link) == []
    assert module(_options.ns_link, **link, impairment={"delay": "1ms"}) == [
        "change impairment host:x1 loss 2% -> delay 1ms"
    ]
    assert module(_options.ns_link, **link, impairment={}) == ["remove impairment host:x1 delay 1ms"]
    assert module(_options.ns_link, **link, impairment={}) == []


# --- packets ---------------------------------------------------------------------------------------------------------


def ping(count: int, to: str = "10.0.0.2", interval: str = "0.01") -> str:
    command = [*inside("a"), "ping", "-n", "-c", str(count), "-i", interval, "-W", "2", to]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def settle() -> None:
    """Have the ends know each other again: what was lost may have been who they are."""
    within("a", "ping", "-n", "-c", "1", "-i", "0.2", "-w", "9", "10.0.0.2")


def received(said: str) -> int:
    found = re.search(r" (\d+) received", said)
    assert found, said
    return int(found[1])


@needs_netem
@pytest.mark.once
def test_packets_are_delayed() -> None:
    run(document({"delay": "60ms"}, {"delay": "40ms"}))
    for to in ("10.0.0.2", "fd00::2"):
        times = [float(text) for text in re.findall(r"time=([\d.]+) ms", ping(5, to, "0.2"))]
        # No packet is faster than both delays together.
        assert times
        assert min(times) >= 100
    run(document())
    assert received(ping(5))


@needs_netem
@pytest.mark.once
@pytest.mark.parametrize("end", ["a", "b"])
def test_packets_are_lost(end: str) -> None:
    """A half of them in one direction, give or take eight standard deviations."""
    run(document())
    settle()
    run(document(**{end: {"loss": "50%"}}))
    number = 400
    assert abs(received(ping(number)) - number / 2) < 8 * (number / 4) ** 0.5
    run(document(**{end: {"loss": "100%"}}))
    assert received(ping(20)) == 0
    run(document())
    settle()
    assert received(ping(20)) == 20


@needs_netem
@pytest.mark.once
def test_packets_are_duplicated_corrupted_and_reordered() -> None:
    run(document())
    settle()
    run(document({"duplicate": "100%"}))
    assert ping(10).count("(DUP!)") >= 9
    run(document({"corrupt": "100%"}))
    assert _numbers(50) != list(range(50))
    run(document())
    settle()
    assert _numbers(50) == list(range(50))
    run(document({"delay": "20ms", "reorder": "50%"}))
    found = _numbers(200)
    assert sorted(found) == list(range(200))
    assert found != sorted(found)


def _numbers(count: int) -> list[int]:
    """The numbers that arrive at b of datagrams that a sends one after the other."""
    receiver = (
        "import socket, sys\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.bind(('10.0.0.2', 9))\n"
        f"s.settimeout(3)\nprint('ready', flush=True)\ntry:\n    for i in range({count}):\n"
        "        print(s.recv(99).decode('ascii', 'replace'))\n"
        "except OSError: pass\n"
    )
    sender = (
        "import socket, time\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        f"for i in range({count}):\n    s.sendto(str(i).encode(), ('10.0.0.2', 9))\n    time.sleep(0.002)\n"
    )
    with subprocess.Popen([*inside("b"), sys.executable, "-c", receiver], stdout=subprocess.PIPE, text=True) as there:
        assert there.stdout is not None
        assert there.stdout.readline() == "ready\n"
        within("a", sys.executable, "-c", sender)
        lines = there.stdout.read().splitlines()
    return [int(line) for line in lines if line.isdigit()]


@needs_netem
@pytest.mark.once
def test_packets_are_held_to_a_rate() -> None:
    """So many bytes cannot have come through in less time than they take."""
    size = 200_000
    for rate, bits in (("1mbit", 1_000_000), ("8mbit", 8_000_000)):
        run(document({"rate": rate}))
        # What waits in buffers may still be on its way when the last byte was read from them, so little of it.
        assert _transfer(size) >= size * 8 / bits * 0.9


def _transfer(size: int) -> float:
    """How long b waits for so many bytes from a, from the first of them on."""
    receiver = (
        "import socket, time\ns = socket.create_server(('10.0.0.2', 9))\n"
        "print('ready', flush=True)\nc, _ = s.accept()\n"
        f"got, start = len(c.recv(1)), time.monotonic()\nwhile got < {size}: got += len(c.recv(65536))\n"
        "print(time.monotonic() - start)\n"
    )
    sender = f"import socket\nwith socket.create_connection(('10.0.0.2', 9)) as c: c.sendall(bytes({size}))\n"
    with subprocess.Popen([*inside("b"), sys.executable, "-c", receiver], stdout=subprocess.PIPE, text=True) as there:
        assert there.stdout is not None
        assert there.stdout.readline() == "ready\n"
        within("a", sys.executable, "-c", sender)
        return float(there.stdout.read())
