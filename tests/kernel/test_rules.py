# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Policy rules: what `ip rule` shows of them, and which way packets take."""

from __future__ import annotations

import re
import socket
import sys
from typing import Any

import pytest
from ansible_collections.nslab.netns.plugins.module_utils import _engine as engine
from ansible_collections.nslab.netns.plugins.module_utils import _options
from ansible_collections.nslab.netns.plugins.module_utils._document import read_topology
from ansible_collections.nslab.netns.plugins.module_utils._facts import gather
from ansible_collections.nslab.netns.tests.unit.topologies import Document
from applying import fail_each_call, host_without_lab_traces, kill_at, module, netns, refused, run
from test_kinds import needs
from test_ownership import on_the_host
from throwaway import differences, ip, snapshot, within, without

pytestmark = pytest.mark.usefixtures("host")

#: Each with what ip shows of it.
RULES: list[tuple[Document, str]] = [
    ({"priority": 10, "from": "10.0.0.0/8", "table": 100}, "10: from 10.0.0.0/8 lookup 100"),
    ({"priority": 20, "to": "192.0.2.1", "table": "main"}, "20: from all to 192.0.2.1 lookup main"),
    ({"priority": 30, "fwmark": "0x1", "table": 70000}, "30: from all fwmark 0x1 lookup 70000"),
    ({"priority": 31, "fwmark": "0/0x3", "table": "local"}, "31: from all fwmark 0/0x3 lookup local"),
    ({"priority": 40, "iif": "lo", "oif": "nic7", "table": 9}, "40: from all iif lo oif nic7 [detached] lookup 9"),
    ({"priority": 50, "from": "10.9.0.0/16", "type": "blackhole"}, "50: from 10.9.0.0/16 blackhole"),
    ({"priority": 51, "from": "10.9.0.0/16", "type": "unreachable"}, "51: from 10.9.0.0/16 unreachable"),
    ({"priority": 52, "from": "10.9.0.0/16", "type": "prohibit"}, "52: from 10.9.0.0/16 prohibit"),
    ({"priority": 60, "not": True, "from": "10.0.0.0/8", "table": 100}, "60: not from 10.0.0.0/8 lookup 100"),
    ({"priority": 70, "tos": "0x10", "table": 5}, "70: from all tos 0x10 lookup 5"),
    (
        {"priority": 80, "ipproto": "tcp", "sport": "1000-2000", "dport": 80, "table": 5},
        "80: from all ipproto tcp sport 1000-2000 dport 80 lookup 5",
    ),
    ({"priority": 90, "uidrange": "1000-1999", "table": 5}, "90: from all uidrange 1000-1999 lookup 5"),
    ({"priority": 91, "uidrange": 0, "table": 5}, "91: from all uidrange 0-0 lookup 5"),
    (
        {"priority": 95, "suppress_prefixlength": 0, "table": "main"},
        "95: from all lookup main suppress_prefixlength 0",
    ),
    ({"priority": 99, "l3mdev": True}, "99: from all lookup [l3mdev-table]"),
    ({"priority": 32766, "to": "198.51.100.0/24"}, "32766: from all to 198.51.100.0/24 lookup main"),
    ({"priority": 4294967295, "to": "198.51.100.0/24"}, "4294967295: from all to 198.51.100.0/24 lookup main"),
]
RULES6: list[tuple[Document, str]] = [
    ({"priority": 10, "from": "2001:db8::/32", "table": 100}, "10: from 2001:db8::/32 lookup 100"),
    ({"priority": 20, "to": "2001:db8::1", "table": 100}, "20: from all to 2001:db8::1 lookup 100"),
    ({"priority": 30, "fwmark": "0x1", "family": "ipv6", "table": 100}, "30: from all fwmark 0x1 lookup 100"),
    ({"priority": 40, "to": "::/0", "type": "prohibit"}, "40: from all prohibit"),
    ({"priority": 50, "family": "ipv6", "tos": "0xfc", "table": 100}, "50: from all tos 0xfc lookup 100"),
    ({"priority": 60, "family": "ipv6", "l3mdev": True}, "60: from all lookup [l3mdev-table]"),
]
ALL = [rule for rule, _text in (*RULES, *RULES6)]

KERNEL = ["0: from all lookup local", "32766: from all lookup main", "32767: from all lookup default"]


def shown(namespace: str | None = "a", family: str = "-4", ours: bool = True) -> list[str]:
    """What `ip rule` shows that has our protocol, or that has not."""
    lines = within(namespace, "ip", family, "-details", "rule", "show").splitlines()
    found = [re.sub(r"\s+", " ", line).strip() for line in lines]
    return [re.sub(r" proto \S+$", "", line) for line in found if line.endswith("proto 110") == ours]


def document(*rules: Document, **more: Any) -> Document:
    return {"name": "lab", "namespaces": {"a": {"rules": list(rules), **more}}}


def rule(state: str = "present", purge: bool = False, namespace: str = "a", **entry: Any) -> list[str]:
    rules = entry.pop("rules", [entry] if entry else [])
    return module(_options.ns_rule, namespace=namespace, rules=rules, purge=purge, state=state)


def test_every_word_is_as_ip_shows_it() -> None:
    before = host_without_lab_traces()
    predicted = run(document(*ALL), check=True)
    assert run(document(*ALL)) == predicted
    assert run(document(*ALL)) == run(document(*ALL), check=True) == []
    assert sorted(shown()) == sorted(text for _rule, text in RULES)
    assert shown(family="-6") == [text for _rule, text in RULES6]
    assert shown(ours=False) == KERNEL
    assert gather(None, [], "lab")["topology"]["namespaces"]["a"].keys() == {"rules"}
    assert run(document()) == run_back(ALL)
    assert shown() == shown(family="-6") == []
    assert shown(ours=False) == KERNEL
    run({"name": "lab"}, absent=True)
    assert not differences(before, host_without_lab_traces())


def run_back(rules: list[Document]) -> list[str]:
    """The texts of the removal of rules, in the order of the kernel: IPv4 before IPv6."""
    wanted = read_topology(document(*rules)).wanted.namespaces["a"].rules
    values = sorted((item.value for item in wanted), key=lambda value: (value.family, value.priority))
    return [f"remove rule a {value}" for value in values]


def test_what_was_captured_is_the_same_document() -> None:
    run(document(*ALL))
    captured = gather(None, [], "lab")["topology"]
    assert run(captured) == []
    run({"name": "lab"}, absent=True)
    run(captured)
    assert run(document(*ALL)) == []


SAME_PRIORITY = [
    {"priority": 100, "from": "10.0.0.0/8", "table": 100},
    {"priority": 100, "from": "10.0.0.0/8", "iif": "lo", "table": 100},
    {"priority": 100, "from": "10.0.0.0/8", "iif": "lo", "table": 100, "not": True},
    {"priority": 100, "table": 100},
    {"priority": 100, "fwmark": 1, "table": 100},
]
SAME_TEXTS = [
    "100: from 10.0.0.0/8 lookup 100",
    "100: from 10.0.0.0/8 iif lo lookup 100",
    "100: not from 10.0.0.0/8 iif lo lookup 100",
    "100: from all lookup 100",
    "100: from all fwmark 0x1 lookup 100",
]


@pytest.mark.once
def test_rules_of_one_priority_are_in_the_order_of_the_document() -> None:
    """And each alone comes and goes, although the kernel takes one that says more for one that says less."""
    orders = [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [1, 0], [3], [1, 4, 3], [2, 1], [1, 2], [], [0, 2, 4], [4, 2]]
    before = None
    for order in orders:
        wanted = document(*(SAME_PRIORITY[i] for i in order))
        predicted = run(wanted, check=True)
        assert run(wanted) == predicted
        assert run(wanted) == []
        assert shown() == [SAME_TEXTS[i] for i in order], f"from {before} to {order}"
        before = order


def test_a_rule_is_replaced_without_a_moment_in_which_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    run(document({"priority": 100, "from": "10.0.0.0/8", "table": 100}))
    seen = []
    request = engine.Machine.session

    def looking(machine: Any, name: str) -> Any:
        session = request(machine, name)
        send = type(session).request

        def and_look(message: int, flags: int, payload: bytes) -> None:
            send(session, message, flags, payload)
            seen.append(len(shown()))

        session.request = and_look
        return session

    monkeypatch.setattr(engine.Machine, "session", looking)
    changed = run(document({"priority": 100, "from": "10.0.0.0/8", "table": 200}))
    assert changed == ["change rule a priority 100 from 10.0.0.0/8 lookup 100 -> 200"]
    assert seen == [2, 1]
    assert shown() == ["100: from 10.0.0.0/8 lookup 200"]


DRIFT = {
    "gone": ("delete priority 20", ["add rule a priority 20 to 192.0.2.1/32 lookup main"]),
    "another table": (
        ["delete priority 10", "add priority 10 from 10.0.0.0/8 table 7"],
        ["change rule a priority 10 from 10.0.0.0/8 lookup 7 -> 100"],
    ),
    "one more": ("add priority 15 from 10.3.0.0/16 table 3", ["remove rule a priority 15 from 10.3.0.0/16 lookup 3"]),
    "one more of the same priority": (
        "add priority 10 from 10.0.0.0/8 iif lo table 100",
        ["remove rule a priority 10 from 10.0.0.0/8 iif lo lookup 100"],
    ),
    "one that no document can say": (
        "add priority 5 goto 32766",
        ["remove rule a priority 5 from all goto attribute 4 fe7f0000"],
    ),
    "the same by another hand": (
        ["delete priority 10", "add priority 10 from 10.0.0.0/8 table 100 protocol static"],
        ["change rule a priority 10 from 10.0.0.0/8 lookup 100 proto 4 -> 110"],
    ),
    "twice": (
        "add priority 10 from 10.0.0.0/8 table 100 protocol boot",
        ["remove rule a priority 10 from 10.0.0.0/8 lookup 100"],
    ),
}


@pytest.mark.parametrize("what", DRIFT)
def test_what_was_done_by_hand_is_repaired(what: str) -> None:
    wanted = document(*ALL)
    run(wanted)
    before = snapshot()
    done, expected = DRIFT[what]
    for command in [done] if isinstance(done, str) else done:
        ip("-n", "a", "rule", *command.split())
    assert run(wanted, check=True) == expected
    assert run(wanted) == expected
    assert run(wanted) == []
    assert not differences(before, snapshot())


def test_those_of_the_kernel_and_of_daemons_stay() -> None:
    netns("a")
    for words in ("priority 7 from 10.7.0.0/16 table 7 protocol zebra", "priority 8 table 8 protocol kernel"):
        ip("-n", "a", "rule", "add", *words.split())
    # Made anew by hand they are still what the kernel has.
    ip("-n", "a", "rule", "delete", "priority", "32766")
    ip("-n", "a", "rule", "add", "priority", "32766", "table", "main")
    before = snapshot()
    assert rule(rules=[], purge=True) == []
    assert rule(state="absent", priority=32766) == rule(state="absent", priority=8) == []
    assert not differences(before, snapshot())
    ip("-n", "a", "rule", "add", "priority", "9", "table", "9")
    assert rule(rules=[], purge=True) == ["remove rule a priority 9 from all lookup 9"]
    assert not differences(before, snapshot())


@pytest.mark.parametrize(
    ("family", "gone"),
    # Of IPv4 that is all that there is, and of IPv6 there is one more here.
    [("-4", ["0"]), ("-4", ["0", "32766", "32767"]), ("-6", ["0"]), ("-6", ["32766"]), ("-6", ["0", "32766"])],
    ids=str,
)
def test_those_of_the_kernel_that_were_deleted_by_hand_come_again(family: str, gone: list[str]) -> None:
    document = {"name": "lab", "namespaces": {"a": {"rules": [{"priority": 10, "family": "ipv6", "table": 100}]}}}
    run(document)
    before = shown(family=family, ours=False)
    for priority in gone:
        ip("-n", "a", family, "rule", "delete", "priority", priority)
    assert len(shown(family=family, ours=False)) == len(before) - len(gone)
    predicted = run(document, check=True)
    assert len(predicted) == len(gone)
    assert run(document) == predicted
    assert shown(family=family, ours=False) == before
    assert run(document) == []


@needs("vrf")
def test_those_of_vrfs_that_were_deleted_by_hand_come_again() -> None:
    document = {"name": "lab", "namespaces": {"a": {"interfaces": {"red": {"vrf": {"table": 10}}}}}}
    run(document)
    before = [shown(family=family, ours=False) for family in ("-4", "-6")]
    assert all("1000: from all lookup [l3mdev-table]" in lines for lines in before)
    ip("-n", "a", "-4", "rule", "delete", "priority", "1000")
    ip("-n", "a", "-6", "rule", "delete", "priority", "1000")
    changes = ["add rule a priority 1000 from all l3mdev", "add rule a priority 1000 family ipv6 from all l3mdev"]
    assert run(document, check=True) == run(document) == changes
    assert [shown(family=family, ours=False) for family in ("-4", "-6")] == before
    # They come with a VRF, also with one that is made anew, though the kernel makes them only with the first.
    ip("-n", "a", "rule", "delete", "priority", "1000")
    document["namespaces"]["a"]["interfaces"]["red"]["vrf"]["table"] = 11
    assert run(document) == ["remove vrf a:red", "add vrf a:red table 11", "change link a:red up"]
    assert [shown(family=family, ours=False) for family in ("-4", "-6")] == before
    assert run(document) == []


def test_one_that_says_the_same_as_the_kernels_is_not_made_again() -> None:
    main = {"priority": 32766, "table": "main"}
    run(document(main, {"priority": 1000, "l3mdev": True}))
    assert shown() == ["1000: from all lookup [l3mdev-table]"]
    assert run(document(main)) == ["remove rule a priority 1000 from all l3mdev"]
    # The kernel's own is missed where it is asked for.
    ip("-n", "a", "rule", "delete", "priority", "32766")
    assert run(document(main)) == ["add rule a priority 32766 from all lookup main"]
    assert run(document(main)) == []
    # It goes, and the kernel's is there again.
    changes = [f"{verb} rule a priority 32766 from all lookup main" for verb in ("remove", "add")]
    assert sorted(run(document()), reverse=True) == changes
    assert shown(ours=False) == KERNEL


def test_the_module_adds_changes_purges_and_removes() -> None:
    netns("a")
    ip("-n", "a", "rule", "add", "priority", "5", "from", "10.5.0.0/16", "table", "5")
    assert rule(priority=5, **{"from": "10.5.0.0/16"}, table="5") == []
    assert rule(priority=10, to="2001:db8::/32", table="5") == ["add rule a priority 10 to 2001:db8::/32 lookup 5"]
    assert rule(priority=10, fwmark="1", type="prohibit") == ["add rule a priority 10 from all fwmark 0x1 prohibit"]
    assert rule(priority=10, fwmark="1", type="prohibit") == []
    rules = [{"priority": 10, "to": "2001:db8::/32", "table": 6}]
    assert rule(rules=rules, purge=True) == [
        "remove rule a priority 5 from 10.5.0.0/16 lookup 5",
        "remove rule a priority 10 from all fwmark 0x1 prohibit",
        "change rule a priority 10 to 2001:db8::/32 lookup 5 -> 6",
    ]
    assert rule(rules=rules, purge=True) == []
    assert rule(priority=10, **{"from": "10.0.0.0/8"}, table="6") != []
    assert rule(state="absent", priority=10, table="7") == []
    assert rule(state="absent", priority=10, to="2001:db8::/32") == [
        "remove rule a priority 10 to 2001:db8::/32 lookup 6"
    ]
    assert rule(state="absent", priority=10) == ["remove rule a priority 10 from 10.0.0.0/8 lookup 6"]
    assert rule(state="absent", priority=10) == []
    # Those of the other family are others.
    ip("-n", "a", "-6", "rule", "add", "priority", "10", "fwmark", "1", "table", "5")
    assert rule(priority=10, fwmark="1", table="5") == ["add rule a priority 10 from all fwmark 0x1 lookup 5"]
    marked = ["priority 10 from all fwmark 0x1 lookup 5", "priority 10 family ipv6 from all fwmark 0x1 lookup 5"]
    assert rule(state="absent", priority=10, fwmark="1") == [f"remove rule a {marked[0]}"]
    assert rule(state="absent", priority=10, family="ipv6") == [f"remove rule a {marked[1]}"]


def test_rules_choose_the_way_of_packets() -> None:
    """Two ways from a to the address of c; the rule sends one source by the second, and one nowhere."""
    wires = [("a:e0", "b:e0", 1), ("a:e1", "c:e0", 2)]
    namespaces: Document = {name: {"interfaces": {}} for name in "abc"}
    for one, other, net in wires:
        for side, end in enumerate((one, other), 1):
            namespace, interface = end.split(":")
            namespaces[namespace]["interfaces"][interface] = {"addresses": [f"10.0.{net}.{side}/24"]}
    for name in "bc":
        namespaces[name]["interfaces"]["lo"] = {"addresses": ["192.0.2.1/32"]}
        namespaces[name]["routes"] = [{"to": "10.0.0.0/16", "via": "10.0.1.1" if name == "b" else "10.0.2.1"}]
    namespaces["a"]["routes"] = [
        {"to": "default", "via": "10.0.1.2"},
        {"to": "default", "via": "10.0.2.2", "table": 100},
    ]
    namespaces["a"]["rules"] = [
        {"priority": 100, "from": "10.0.2.1", "table": 100},
        {"priority": 110, "to": "192.0.2.1", "ipproto": "udp", "type": "prohibit"},
    ]
    lab = {"name": "lab", "namespaces": namespaces, "links": [{"endpoints": [one, two]} for one, two, _net in wires]}
    run(lab)
    for source, far in (("10.0.1.1", "b"), ("10.0.2.1", "c")):
        ping = ["ping", "-n", "-c", "1", "-w", "5", "-I", source, "192.0.2.1"]
        before = {name: _received(name) for name in "bc"}
        within("a", *ping)
        after = {name: _received(name) for name in "bc"}
        assert [name for name in "bc" if after[name] > before[name]] == [far]
    assert "Permission denied" in _connected("a", socket.SOCK_DGRAM)
    assert "Permission denied" not in _connected("a", socket.SOCK_STREAM)


def _received(namespace: str) -> int:
    text = within(namespace, "cat", "/proc/net/snmp")
    names, values = (line.split() for line in text.splitlines() if line.startswith("Icmp:"))
    return int(dict(zip(names, values))["InEchos"])


def _connected(namespace: str, kind: int) -> str:
    """What it says to connect a socket of a kind to the address; empty for nothing."""
    program = f"import socket\ntry: socket.socket(socket.AF_INET, {int(kind)}).connect(('192.0.2.1', 9))\n"
    return within(namespace, sys.executable, "-c", f"{program}except OSError as error: print(error)")


# --- the host ---------------------------------------------------------------------------------------------------------

OURS = {"priority": 100, "from": "192.0.2.0/24", "table": 100}


def test_rules_of_the_host_come_and_go_with_the_lab() -> None:
    ip("rule", "add", "priority", "50", "from", "10.5.0.0/16", "table", "5")
    ip("rule", "add", "priority", "100", "from", "10.5.0.0/16", "table", "5")
    fresh = host_without_lab_traces()
    lab = on_the_host("one", rules=[OURS, {"priority": 50, "from": "10.5.0.0/16", "table": 5}])
    assert run(lab) == ["add rule host priority 100 from 192.0.2.0/24 lookup 100"]
    assert run(lab) == []
    assert gather(None, [], "one")["topology"]["namespaces"]["host"]["rules"] == [
        {"priority": 50, "from": "10.5.0.0/16", "table": 5},
        {"priority": 100, "from": "192.0.2.0/24", "table": 100},
    ]
    assert run(on_the_host("one")) == ["remove rule host priority 100 from 192.0.2.0/24 lookup 100"]
    # What was there already is nobody's of the lab.
    assert not differences(fresh, host_without_lab_traces())


def test_a_rule_of_the_host_that_was_removed_by_hand_comes_again() -> None:
    fresh = host_without_lab_traces()
    lab = on_the_host("one", rules=[OURS])
    run(lab)
    ip("rule", "delete", "priority", "100")
    assert run(lab) == ["add rule host priority 100 from 192.0.2.0/24 lookup 100"]
    ip("rule", "delete", "priority", "100")
    assert run({"name": "one"}, absent=True) == []
    assert not differences(fresh, host_without_lab_traces())


def test_labs_beside_each_other_at_one_priority() -> None:
    fresh = host_without_lab_traces()
    one = on_the_host("one", rules=[OURS, {"priority": 100, "table": 100}])
    two = on_the_host("two", rules=[{"priority": 100, "from": "192.0.2.0/24", "iif": "lo", "table": 100}])
    run(one)
    run(two)
    assert run(one) == run(two) == []
    run({"name": "one"}, absent=True)
    assert shown(None) == ["100: from 192.0.2.0/24 iif lo lookup 100"]
    assert run(two) == []
    run(one)
    run({"name": "two"}, absent=True)
    assert run(one) == []
    assert len(shown(None)) == 2
    run({"name": "one"}, absent=True)
    assert not differences(fresh, host_without_lab_traces())


def test_the_order_of_what_others_need_is_theirs() -> None:
    first, second = ({"priority": 100, "from": f"10.{i}.0.0/16", "table": 100} for i in (1, 2))
    run(on_the_host("one", rules=[first, second]))
    said = refused(on_the_host("two", rules=[second, first]))
    assert said.startswith("namespaces.host.rules[1]: the namespace host has this rule already, before others")
    assert run(on_the_host("two", rules=[first, second])) == []
    run({"name": "two"}, absent=True)
    # One's own may change places.
    assert run(on_the_host("one", rules=[second, first])) == [
        "move rule host priority 100 from 10.1.0.0/16 lookup 100 position 1 -> 2"
    ]


def test_each_call_that_fails_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    both = {
        "name": "lab",
        "namespaces": {"a": {"rules": SAME_PRIORITY}, "host": {"rules": [OURS, *SAME_PRIORITY]}},
    }
    run(both)
    for words in ("priority 100 goto 32766", "priority 100 nop", "priority 7 table 7 suppress_ifgroup 3"):
        ip("-n", "a", "rule", "add", *words.split())
    turned = {
        "name": "lab",
        "namespaces": {"a": {"rules": SAME_PRIORITY[::-1]}, "host": {"rules": [*SAME_PRIORITY[1:3], OURS]}},
    }
    assert fail_each_call(monkeypatch, turned) > 10


@pytest.mark.once
def test_a_run_that_was_killed_is_made_good() -> None:
    fresh = host_without_lab_traces()
    both = {"name": "lab", "namespaces": {"a": {"rules": ALL}, "host": {"rules": [OURS]}}}
    run(both)
    wanted = without(snapshot(), "/run/nslab")
    run({"name": "lab"}, absent=True)
    number = 1
    while kill_at(number, both):
        run(both)
        assert run(both) == []
        assert wanted["host"] == snapshot()["host"]
        run({"name": "lab"}, absent=True)
        assert not differences(fresh, host_without_lab_traces())
        number += 4
    run({"name": "lab"}, absent=True)
