# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Policy rules: what is read and what is refused; and the way from some rules to others, as the kernel goes it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.nslab.netns.plugins.module_utils._capture_rules import rule_words
from ansible_collections.nslab.netns.plugins.module_utils._document import read_topology
from ansible_collections.nslab.netns.plugins.module_utils._document_rules import read_rules
from ansible_collections.nslab.netns.plugins.module_utils._errors import InvalidInput
from ansible_collections.nslab.netns.plugins.module_utils._reader import Reader
from ansible_collections.nslab.netns.plugins.module_utils._rules import Rule, steps
from hypothesis import given, settings
from hypothesis import strategies as st


def read(*rules: Any) -> list[Rule]:
    reader = Reader()
    found = read_rules(reader, list(rules), "rules")
    reader.done()
    return [item.value for item in found]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"from": "10.0.0.0/24", "table": "100"}, "priority 9 from 10.0.0.0/24 lookup 100"),
        ({"from": "10.0.0.1"}, "priority 9 from 10.0.0.1/32 lookup main"),
        ({"from": "all", "table": "default"}, "priority 9 from all lookup default"),
        ({"from": "0.0.0.0/0", "table": 255}, "priority 9 from all lookup local"),
        ({"to": "::/0", "table": 7}, "priority 9 family ipv6 from all lookup 7"),
        ({"to": "2001:DB8:0::1", "table": 7}, "priority 9 to 2001:db8::1/128 lookup 7"),
        (
            {"family": "ipv6", "fwmark": "0X0F/0xff", "table": 7},
            "priority 9 family ipv6 from all fwmark 0xf/0xff lookup 7",
        ),
        ({"fwmark": 7, "type": "prohibit"}, "priority 9 from all fwmark 0x7 prohibit"),
        ({"fwmark": "0/1", "not": True, "table": 7}, "priority 9 not from all fwmark 0x0/0x1 lookup 7"),
        ({"tos": 16, "ipproto": "ICMP", "table": 7}, "priority 9 from all tos 0x10 ipproto 1 lookup 7"),
        ({"sport": 80, "dport": "1-2", "table": 7}, "priority 9 from all sport 80 dport 1-2 lookup 7"),
        ({"uidrange": "0-0", "type": "blackhole"}, "priority 9 from all uidrange 0 blackhole"),
        ({"l3mdev": True}, "priority 9 from all l3mdev"),
        ({"l3mdev": True, "type": "unreachable"}, "priority 9 from all l3mdev unreachable"),
        ({"suppress_prefixlength": 0}, "priority 9 from all lookup main suppress_prefixlength 0"),
        ({"iif": "lo", "oif": "e0", "from": None}, "priority 9 from all iif lo oif e0 lookup main"),
    ],
)
def test_what_is_read(body: dict[str, Any], text: str) -> None:
    found = read({"priority": 9, **body})
    assert list(map(str, found)) == [text]
    # What is made of it for a document says the same.
    assert read(rule_words(found[0])) == found


@pytest.mark.parametrize(
    ("body", "path", "words"),
    [
        ("10.0.0.0/24", "rules[0]", "no rule such as {priority: 100"),
        ({}, "rules[0].priority", "is missing"),
        ({"priority": 0}, "rules[0].priority", "from 1 to 4294967295"),
        ({"priority": 2**32}, "rules[0].priority", "out of range"),
        ({"priority": True}, "rules[0].priority", "no whole number"),
        ({"prio": 5, "priority": 5}, "rules[0].prio", "did you mean 'priority'"),
        ({"priority": 5, "from": "10.0.0.1/24"}, "rules[0].from", "write '10.0.0.0/24'"),
        ({"priority": 5, "from": "somewhere"}, "rules[0].from", "is no prefix such as"),
        ({"priority": 5, "from": 10}, "rules[0].from", "no string"),
        ({"priority": 5, "from": "10.0.0.1", "to": "::1"}, "rules[0].to", "another address family than 'from'"),
        (
            {"priority": 5, "from": "10.0.0.1", "family": "ipv6"},
            "rules[0].family",
            "another one than that of '10.0.0.1'",
        ),
        ({"priority": 5, "family": "inet"}, "rules[0].family", "not one of ipv4 and ipv6"),
        ({"priority": 5, "table": "nowhere"}, "rules[0].table", "no table"),
        ({"priority": 5, "table": 0}, "rules[0].table", "out of range"),
        ({"priority": 5, "table": "1" * 5000}, "rules[0].table", "no whole number"),
        ({"priority": 5, "type": "goto"}, "rules[0].type", "is not one of"),
        ({"priority": 5, "type": "blackhole", "table": 5}, "rules[0].table", "looks up no table"),
        ({"priority": 5, "type": "prohibit", "suppress_prefixlength": 0}, "rules[0].suppress_prefixlength", "no table"),
        ({"priority": 5, "suppress_prefixlength": 33}, "rules[0].suppress_prefixlength", "from 0 to 32"),
        ({"priority": 5, "l3mdev": True, "table": 5}, "rules[0].table", "that of the packet's VRF"),
        ({"priority": 5, "not": True, "table": 5}, "rules[0].not", "needs something that shall not match"),
        ({"priority": 5, "not": True, "from": "all"}, "rules[0].not", "needs something that shall not match"),
        ({"priority": 5, "not": True, "to": "::/0"}, "rules[0].not", "needs something that shall not match"),
        ({"priority": 5, "from": "fe80::1%eth0"}, "rules[0].from", "leave out '%eth0'"),
        ({"priority": 5, "to": "fe80::%eth0/64"}, "rules[0].to", "leave out '%eth0'"),
        ({"priority": 5, "not": "yes"}, "rules[0].not", "neither true nor false"),
        ({"priority": 5, "iif": "a/b"}, "rules[0].iif", "no name for an interface"),
        ({"priority": 5, "fwmark": "red"}, "rules[0].fwmark", "is no mark"),
        ({"priority": 5, "fwmark": True}, "rules[0].fwmark", "is no mark"),
        ({"priority": 5, "fwmark": "0x103/0xff"}, "rules[0].fwmark", "write '0x3/0xff'"),
        ({"priority": 5, "fwmark": "0/0"}, "rules[0].fwmark", "an empty mask"),
        ({"priority": 5, "fwmark": "1/2/3"}, "rules[0].fwmark", "is no mark"),
        ({"priority": 5, "fwmark": 2**32}, "rules[0].fwmark", "is no mark"),
        ({"priority": 5, "fwmark": -1}, "rules[0].fwmark", "is no mark"),
        ({"priority": 5, "tos": "0x01"}, "rules[0].tos", "nothing that rules of IPv4 match"),
        ({"priority": 5, "tos": "0x20"}, "rules[0].tos", "nothing that rules of IPv4 match"),
        ({"priority": 5, "tos": 3, "family": "ipv6"}, "rules[0].tos", "nothing that rules of IPv6 match"),
        ({"priority": 5, "ipproto": "sctpp"}, "rules[0].ipproto", "no protocol"),
        ({"priority": 5, "ipproto": 256}, "rules[0].ipproto", "no protocol"),
        ({"priority": 5, "dport": "90-80"}, "rules[0].dport", "write '80-90'"),
        ({"priority": 5, "dport": 0}, "rules[0].dport", "from 1 to 65535"),
        ({"priority": 5, "sport": "http"}, "rules[0].sport", "is no port"),
        ({"priority": 5, "sport": "9" * 5000}, "rules[0].sport", "is no port"),
        ({"priority": 5, "uidrange": "root"}, "rules[0].uidrange", "is no number of a user"),
        ({"priority": 5, "uidrange": 2**32 - 1}, "rules[0].uidrange", "out of range"),
    ],
)
def test_what_is_refused(body: Any, path: str, words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(body)
    assert caught.value.problems[0].path == path
    assert words in caught.value.problems[0].text


def test_a_rule_stands_once() -> None:
    with pytest.raises(InvalidInput) as caught:
        read({"priority": 5, "from": "10.0.0.1"}, {"priority": 5, "from": "10.0.0.1/32", "table": "main"})
    assert str(caught.value.problems[0]) == "rules[1]: is the same rule as rules[0]; leave one of them out"
    # Others of the same priority may stand beside it.
    assert len(read({"priority": 5, "from": "10.0.0.1"}, {"priority": 5, "to": "10.0.0.1"})) == 2


def test_a_document_has_them_in_each_namespace() -> None:
    document = {"name": "lab", "namespaces": {"a": {"rules": [{"priority": 1}]}, "host": {"rules": [{"priority": 0}]}}}
    with pytest.raises(InvalidInput) as caught:
        read_topology(document)
    assert caught.value.problems[0].path == "namespaces.host.rules[0].priority"


# --- the way from some rules to others --------------------------------------------------------------------------------


def taken(rules: list[Rule], asked: Rule) -> None:
    """Remove what rule_find() of net/core/fib_rules.c finds, in the words of that function."""
    for rule in rules:
        differs = (
            rule.type != asked.type,
            asked.table and rule.table != asked.table,
            rule.priority != asked.priority,
            asked.iif and rule.iif != asked.iif,
            asked.oif and rule.oif != asked.oif,
            asked.mark and rule.mark != asked.mark,
            asked.mark_mask and rule.mark_mask != asked.mark_mask,
            asked.suppress_prefixlength not in {-1, rule.suppress_prefixlength},
            asked.l3mdev and not rule.l3mdev,
            asked.protocol and rule.protocol != asked.protocol,
            asked.ipproto and rule.ipproto != asked.ipproto,
            asked.source and rule.source != asked.source,
            asked.destination and rule.destination != asked.destination,
            asked.tos and rule.tos != asked.tos,
        )
        if not any(differs):
            rules.remove(rule)
            return
    raise AssertionError(f"there is no {asked}")


RULES = st.builds(
    Rule,
    priority=st.just(7),
    table=st.sampled_from((5, 6)),
    source=st.sampled_from(("", "10.0.0.0/8")),
    inverted=st.booleans(),
    iif=st.sampled_from(("", "e0")),
    mark_mask=st.sampled_from((0, 1)),
    suppress_prefixlength=st.sampled_from((-1, 0)),
    protocol=st.sampled_from((0, 110)),
)


@settings(max_examples=500, deadline=None)
@given(there=st.lists(RULES, max_size=6), wanted=st.lists(RULES, max_size=6, unique=True))
def test_the_steps_lead_there(there: list[Rule], wanted: list[Rule]) -> None:
    found = steps(there, wanted)
    rules = [*there, *found.add]
    for rule in found.remove:
        taken(rules, rule)
    assert rules == wanted
    assert steps(wanted, wanted) == ((), ())


def test_what_stays_is_not_touched() -> None:
    one, two, three = (Rule(7, table=5, source=f"10.{i}.0.0/16") for i in range(3))
    assert steps([one, two, three], [one, three]) == ((), (two,))
    assert steps([one], [one, two]) == ((two,), ())
    less = Rule(7, table=5)
    # The kernel would take the first for the one that says less.
    assert steps([one, less], [one]) == ((one,), (one, less))
    assert steps([less, one], [one]) == ((), (less,))
