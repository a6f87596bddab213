# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Legacy iptables through python-iptables, by what iptables-legacy-save and ip6tables-legacy-save say."""

from __future__ import annotations

import functools
import importlib.util
import ipaddress
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.nslab.netns.plugins.module_utils import _iptables as iptables
from ansible_collections.nslab.netns.plugins.module_utils import _namespaces as namespaces
from ansible_collections.nslab.netns.plugins.module_utils._errors import Busy, Missing, NslabError
from ansible_collections.nslab.netns.plugins.module_utils._nat import NatRule
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from throwaway import eventually, ip, ping, throwaway_host

#: pytest-xdist has a thread of its own; a module has none.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

EXAMPLES = int(os.environ.get("NSLAB_EXAMPLES", "40"))

PREROUTING, OUTPUT, POSTROUTING = "prerouting", "output", "postrouting"


@functools.cache
def missing() -> str:
    """Why this kernel has no legacy iptables; empty if it has."""
    with throwaway_host():
        for command in ("iptables-legacy", "ip6tables-legacy"):
            done = subprocess.run([command, "-t", "nat", "-S"], capture_output=True, text=True, check=False)
            if done.returncode:
                return f"{command} -t nat -S: {done.stderr.strip()}"
    return ""


@pytest.fixture(autouse=True)
def _legacy_iptables() -> None:
    if why := missing():
        pytest.skip(f"this kernel has no legacy iptables: {why}")


def run(*command: str, text: str = "") -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: exit status {done.returncode}: {done.stderr.strip()}"
    return done.stdout


def saved(family: int = 4, *options: str) -> list[str]:
    """The rules of the table nat as iptables-legacy-save has them."""
    lines = run(f"{'ip6' if family == 6 else 'ip'}tables-legacy-save", "-t", "nat", *options).splitlines()
    return [
        line for line in lines if line.startswith(("-A", "[")) or (line[0] == ":" and not line.startswith(BUILT_IN))
    ]


BUILT_IN = (":PREROUTING", ":INPUT", ":OUTPUT", ":POSTROUTING")


def nat(*arguments: str, family: int = 4) -> None:
    run(f"{'ip6' if family == 6 else 'ip'}tables-legacy", "-w", "-t", "nat", *arguments)


def tables() -> list[str]:
    """The tables of legacy iptables that this namespace has, of both families."""
    found = []
    for name in ("ip_tables_names", "ip6_tables_names"):
        found += Path(f"/proc/thread-self/net/{name}").read_text().split()
    return found


def in_order(rules: Sequence[NatRule]) -> list[NatRule]:
    chains = (PREROUTING, OUTPUT, POSTROUTING)
    return sorted(rules, key=lambda rule: (chains.index(rule.chain), rule.family))


def address(text: str) -> str:
    """As Python writes it, which is different words for ::ffff:10.0.0.1 in different versions."""
    return str(ipaddress.ip_address(text))


# Every kind of rule, with what iptables-legacy-save has to say of it between the chain and the comment, and after it.

SAVED: list[tuple[NatRule, str, str]] = [
    (
        NatRule(POSTROUTING, "snat", source="10.0.1.0/24", out_interface="veth-cli", to_address="10.0.2.1"),
        "-s 10.0.1.0/24 -o veth-cli",
        "-j SNAT --to-source 10.0.2.1",
    ),
    (
        NatRule(
            POSTROUTING, "masquerade", source="10.0.0.0/8", destination="10.0.0.0/8", negated=("destination",)
        ),
        "-s 10.0.0.0/8 ! -d 10.0.0.0/8",
        "-j MASQUERADE",
    ),
    (
        NatRule(
            PREROUTING, "dnat", in_interface="eth0", protocol="tcp", destination_ports="8080", local=True,
            to_address="10.0.0.1", to_ports="80",
        ),
        "-i eth0 -p tcp -m addrtype --dst-type LOCAL -m tcp --dport 8080",
        "-j DNAT --to-destination 10.0.0.1:80",
    ),
    (
        NatRule(
            OUTPUT, "dnat", destination="192.0.2.1/32", protocol="udp", source_ports="1000-2000",
            destination_ports="53", negated=("destination_ports",), to_address="10.0.0.1-10.0.0.9", persistent=True,
        ),
        "-d 192.0.2.1/32 -p udp -m udp --sport 1000:2000 ! --dport 53",
        "-j DNAT --to-destination 10.0.0.1-10.0.0.9 --persistent",
    ),
    (
        NatRule(
            POSTROUTING, "snat", protocol="tcp", source_ports="1,3-5", destination_ports="80,443,8000-8100",
            negated=("source_ports",), to_address="10.0.0.1-10.0.0.9", to_ports="1024-2048",
            random_fully=True, persistent=True,
        ),
        "-p tcp -m multiport ! --sports 1,3:5 -m multiport --dports 80,443,8000:8100",
        "-j SNAT --to-source 10.0.0.1-10.0.0.9:1024-2048 --random-fully --persistent",
    ),
    (
        NatRule(
            POSTROUTING, "masquerade", protocol="udp", mark="0x1/0xff", negated=("mark",), to_ports="1024-2048",
            random_fully=True,
        ),
        "-p udp -m mark ! --mark 0x1/0xff",
        "-j MASQUERADE --to-ports 1024-2048 --random-fully",
    ),
    (
        NatRule(POSTROUTING, "masquerade", out_interface="lo", protocol="icmp", negated=("out_interface", "protocol")),
        "! -o lo ! -p icmp",
        "-j MASQUERADE",
    ),
    (
        NatRule(PREROUTING, "dnat", 6, protocol="tcp", destination_ports="80", to_address="fd00::1", to_ports="8080"),
        "-p tcp -m tcp --dport 80",
        "-j DNAT --to-destination [fd00::1]:8080",
    ),
    (
        NatRule(OUTPUT, "dnat", 6, destination="2001:db8::1/128", to_address="fd00::1"),
        "-d 2001:db8::1/128",
        "-j DNAT --to-destination fd00::1",
    ),
    (
        NatRule(
            POSTROUTING, "snat", 6, source="fd00::/64", protocol="udp", negated=("source",),
            to_address="2001:db8::1-2001:db8::9", to_ports="1024-2048",
        ),
        "! -s fd00::/64 -p udp",
        "-j SNAT --to-source [2001:db8::1-2001:db8::9]:1024-2048",
    ),
    (
        NatRule(POSTROUTING, "masquerade", 6, protocol="icmpv6", mark="0xffffffff", negated=("protocol",)),
        "! -p ipv6-icmp -m mark --mark 0xffffffff",
        "-j MASQUERADE",
    ),
    (
        NatRule(PREROUTING, "dnat", 6, local=True, protocol="sctp", destination_ports="80,81", to_ports="8080"),
        "-p sctp -m addrtype --dst-type LOCAL -m multiport --dports 80,81",
        "-j DNAT --to-destination :8080",
    ),
]  # fmt: skip

dnat, output = (functools.partial(NatRule, chain, "dnat") for chain in (PREROUTING, OUTPUT))
dnat6, output6 = (functools.partial(NatRule, chain, "dnat", 6) for chain in (PREROUTING, OUTPUT))
snat, snat6 = functools.partial(NatRule, POSTROUTING, "snat", 4), functools.partial(NatRule, POSTROUTING, "snat", 6)

ALL = [
    *(rule for rule, _before, _after in SAVED),
    dnat(protocol="tcp", destination_ports="0-65535", to_ports="0"),
    dnat(protocol="udp", destination_ports="0-65535", negated=("destination_ports",), to_address="1.1.1.1"),
    dnat(protocol="tcp", destination_ports="0", to_address="1.1.1.1", to_ports="65535"),
    dnat(protocol="tcp", source_ports="0-80", destination_ports="1-65535", to_address="1.1.1.1"),
    dnat(protocol="tcp", source_ports="7", destination_ports="80,81", to_address="1.1.1.1"),
    dnat(protocol="tcp", destination_ports=",".join(map(str, range(1, 16))), to_address="1.1.1.1"),
    dnat(protocol="tcp", destination_ports="1-2,3-4,5-6,7-8,9-10,11-12,13-14,15", to_address="1.1.1.1"),
    dnat(protocol="dccp", destination_ports="5", to_ports="1-2"),
    dnat(protocol="udplite", source_ports="5-6", to_address="1.1.1.1"),
    dnat(source="128.0.0.0/1", in_interface="a-name-of-15-by", protocol="47", to_address="1.1.1.1"),
    dnat(in_interface="ünïcode", protocol="255", negated=("in_interface",), to_address="1.1.1.1"),
    dnat(mark="0x0", comment="two  spaces and a # and a % and -j DROP", to_address="1.1.1.1"),
    dnat(comment="it's \"quoted\" with a \\ and ünïcode", to_address="1.1.1.1"),
    dnat(comment="! not", to_address="1.1.1.1"),
    dnat(comment=" ", to_address="1.1.1.1"),
    dnat(comment="x" * (255 - len("nslab:lab ")), to_address="1.1.1.1"),
    output(local=True, out_interface="lo", protocol="tcp", destination_ports="1", to_ports="2", persistent=True),
    NatRule(POSTROUTING, "masquerade"),
    NatRule(POSTROUTING, "masquerade"),
    NatRule(POSTROUTING, "masquerade", local=True, protocol="tcp", to_ports="5"),
    snat(protocol="sctp", source_ports="5", to_address="0.0.0.1", to_ports="9", persistent=True),
    snat(protocol="tcp", to_ports="1-65535", random_fully=True),
    snat(mark="0x101/0xff", to_address="255.255.255.254"),
    dnat6(in_interface="eth0", protocol="icmp", to_address="::1"),
    dnat6(destination=f"{address('::ffff:1.1.1.1')}/128", to_address=address("::ffff:1.2.3.4")),
    output6(protocol="tcp", destination_ports="80", to_address=address("::ffff:1.2.3.4"), to_ports="1-2"),
    output6(source="8000::/1", out_interface="lo", protocol="tcp", to_ports="80"),
    snat6(source="fd00::/127", destination="fd00::2/128", to_address="fd00::80", comment="x"),
    snat6(protocol="udp", to_ports="80"),
    snat6(to_address="::1-::2", random_fully=True, persistent=True),
    NatRule(POSTROUTING, "masquerade", 6, protocol="tcp", source_ports="1,2", to_ports="80-90", random_fully=True),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "before", "after"), SAVED, ids=[after for _rule, _before, after in SAVED])
def test_iptables_says_the_same(host: None, rule: NatRule, before: str, after: str) -> None:
    iptables.replace("lab", [rule])
    words = [f"-A {rule.chain.upper()}", before, '-m comment --comment "nslab:lab"', after]
    assert saved(rule.family) == [" ".join(filter(None, words))]
    assert iptables.read("lab") == [rule]


def test_all_rules_at_once(host: None) -> None:
    iptables.replace("lab", ALL)
    assert iptables.read("lab") == in_order(ALL)
    assert len(saved(4)) + len(saved(6)) == len(ALL)


@pytest.mark.parametrize("lab", ["", "a", "A-lab.with_everything-in-its-name." + "x" * 30])
def test_the_comment_is_the_mark(host: None, lab: str) -> None:
    rules = [NatRule(POSTROUTING, "masquerade"), NatRule(POSTROUTING, "masquerade", comment="for you")]
    iptables.replace(lab, rules)
    assert saved() == [
        f'-A POSTROUTING -m comment --comment "nslab:{lab}" -j MASQUERADE',
        f'-A POSTROUTING -m comment --comment "nslab:{lab} for you" -j MASQUERADE',
    ]
    assert iptables.read(lab) == rules


# Any rules


def prefixes(family: int) -> st.SearchStrategy[str]:
    size, of = (32, ipaddress.IPv4Network) if family == 4 else (128, ipaddress.IPv6Network)
    pairs = st.tuples(st.integers(0, 2**size - 1), st.integers(1, size))
    return pairs.map(lambda pair: str(of(pair, strict=False)))


def addresses(family: int) -> st.SearchStrategy[str]:
    numbers = st.integers(1, 2**32 - 2) if family == 4 else st.integers(2**126, 2**128 - 1)
    of = ipaddress.IPv4Address if family == 4 else ipaddress.IPv6Address
    ranges = st.lists(numbers, min_size=1, max_size=2, unique=True)
    return ranges.map(lambda ends: "-".join(str(of(end)) for end in sorted(ends)))


@st.composite
def ports(draw: st.DrawFn) -> str:
    """Ports and ranges in ascending order that take at most 15 places."""
    ends = sorted(draw(st.lists(st.integers(0, 65535), min_size=1, max_size=15, unique=True)))
    parts = []
    while ends:
        if len(ends) > 1 and draw(st.booleans()):
            parts.append(f"{ends.pop(0)}-{ends.pop(0)}")
        else:
            parts.append(str(ends.pop(0)))
    return ",".join(parts)


TO_PORTS = st.lists(st.integers(1, 65535), min_size=1, max_size=2, unique=True).map(
    lambda ends: "-".join(map(str, sorted(ends)))
)
NAMES = st.text("abcXYZ0189_-.@ü", min_size=1, max_size=15).filter(lambda name: len(name.encode()) < 16)
MARKS = st.one_of(
    st.integers(0, 0xFFFFFFFF).map("{:#x}".format),
    st.tuples(st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFE)).map(lambda pair: "{:#x}/{:#x}".format(*pair)),
)
COMMENTS = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Z")) | st.sampled_from(" '\"\\#!-"), max_size=60
)
OTHER_PROTOCOLS = st.integers(1, 255).filter(lambda number: number not in {1, 6, 17, 33, 58, 132, 136}).map(str)
NEGATABLE = (
    "source", "destination", "in_interface", "out_interface", "protocol", "source_ports", "destination_ports", "mark",
)  # fmt: skip


def maybe(draw: st.DrawFn, strategy: st.SearchStrategy[str]) -> str:
    return draw(strategy) if draw(st.booleans()) else ""


@st.composite
def rules(draw: st.DrawFn) -> NatRule:
    family = draw(st.sampled_from((4, 6)))
    action, chain = draw(
        st.sampled_from((("dnat", PREROUTING), ("dnat", OUTPUT), ("snat", POSTROUTING), ("masquerade", POSTROUTING)))
    )
    named = st.sampled_from(("tcp", "udp", "dccp", "sctp", "udplite", "icmp", "icmpv6"))
    protocol = maybe(draw, named | OTHER_PROTOCOLS)
    with_ports = protocol in {"tcp", "udp", "dccp", "sctp", "udplite"}
    to_address = "" if action == "masquerade" else draw(addresses(family))
    to_ports = maybe(draw, TO_PORTS) if with_ports and protocol != "udplite" else ""
    rule = NatRule(
        chain=chain,
        action=action,
        family=family,
        source=maybe(draw, prefixes(family)),
        destination=maybe(draw, prefixes(family)),
        in_interface=maybe(draw, NAMES) if chain == PREROUTING else "",
        out_interface=maybe(draw, NAMES) if chain != PREROUTING else "",
        protocol=protocol,
        source_ports=maybe(draw, ports()) if with_ports else "",
        destination_ports=maybe(draw, ports()) if with_ports else "",
        mark=maybe(draw, MARKS),
        local=draw(st.booleans()),
        to_address="" if to_ports and draw(st.booleans()) else to_address,
        to_ports=to_ports,
        random_fully=action != "dnat" and draw(st.booleans()),
        persistent=action != "masquerade" and draw(st.booleans()),
        comment=draw(COMMENTS),
    )
    needs_protocol = rule.source_ports or rule.destination_ports or rule.to_ports
    possible = [field for field in NEGATABLE if getattr(rule, field) and not (field == "protocol" and needs_protocol)]
    return rule._replace(negated=tuple(field for field in possible if draw(st.booleans())))


@pytest.mark.once
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(first=st.lists(rules(), max_size=12), second=st.lists(rules(), max_size=12))
def test_any_rules_are_read_as_they_were_written(first: list[NatRule], second: list[NatRule]) -> None:
    """From any rules to any others; and what iptables itself makes of what it has saved is the same to us."""
    with throwaway_host():
        iptables.replace("lab", second)
        fresh = {family: saved(family) for family in (4, 6)}
    with throwaway_host():
        for wanted in (first, second):
            iptables.replace("lab", wanted)
            assert iptables.read("lab") == (in_order(wanted) or None)
        for family, name in ((4, "iptables"), (6, "ip6tables")):
            assert saved(family) == fresh[family]
            run(f"{name}-legacy-restore", text=run(f"{name}-legacy-save", "-t", "nat"))
            assert saved(family) == fresh[family]
        assert iptables.read("lab") == (in_order(second) or None)


# What others made

LABS_RULE = NatRule(POSTROUTING, "snat", source="127.0.0.1/32", to_address="127.0.0.1")


def test_rules_of_others_stay_with_their_counters(host: None) -> None:
    nat("-N", "THEIRS")
    nat("-A", "THEIRS", "-c", "11", "110", "-s", "1.2.3.4", "-j", "RETURN")
    nat("-A", "POSTROUTING", "-c", "1", "10", "-s", "10.9.0.0/16", "-j", "THEIRS")
    iptables.replace("lab", [LABS_RULE, NatRule(POSTROUTING, "masquerade", mark="0x1")])
    nat("-I", "POSTROUTING", "2", "-c", "2", "20", "-m", "conntrack", "--ctstate", "NEW", "-g", "THEIRS")
    nat("-A", "POSTROUTING", "-c", "3", "30", "-m", "limit", "-j", "MASQUERADE")
    nat("-A", "POSTROUTING", "-c", "4", "40", "-m", "comment", "--comment", "nslab:laboratory", "-j", "ACCEPT")

    def theirs() -> list[str]:
        return [line for line in saved(4, "-c") if '"nslab:lab"' not in line]

    before = theirs()
    assert len(before) == 6
    assert len(saved()) == 8
    masquerade = NatRule(POSTROUTING, "masquerade")
    for wanted in (
        [masquerade, LABS_RULE, NatRule(PREROUTING, "dnat", to_address="1.1.1.1")],
        [masquerade, masquerade, LABS_RULE],
        [],
        [masquerade],
    ):
        iptables.replace("lab", wanted)
        assert theirs() == before
        assert iptables.read("lab") == (in_order(wanted) or None)


def test_new_rules_stand_where_those_of_the_lab_are(host: None) -> None:
    def marked(number: int) -> NatRule:
        return NatRule(POSTROUTING, "masquerade", mark=f"{number:#x}")

    def order() -> list[str]:
        return [line.split()[5] if "--mark" in line else "theirs" for line in saved()]

    nat("-A", "POSTROUTING", "-j", "ACCEPT")
    iptables.replace("lab", [marked(1), marked(2)])
    nat("-A", "POSTROUTING", "-j", "ACCEPT")
    assert order() == ["theirs", "0x1", "0x2", "theirs"]
    iptables.replace("lab", [marked(1), marked(3), marked(2), marked(4)])
    assert order() == ["theirs", "0x1", "0x3", "0x2", "0x4", "theirs"]
    nat("-I", "POSTROUTING", "3", "-j", "ACCEPT")
    iptables.replace("lab", [marked(1), marked(5), marked(4)])
    assert order() == ["theirs", "0x1", "theirs", "0x5", "0x4", "theirs"]


def test_two_labs_do_not_touch_each_other(host: None) -> None:
    one = [LABS_RULE, NatRule(PREROUTING, "dnat", 6, to_address="::1")]
    other = [NatRule(POSTROUTING, "masquerade", comment="nslab:a"), NatRule(OUTPUT, "dnat", to_address="1.1.1.1")]
    unnamed = [NatRule(POSTROUTING, "masquerade", comment="lab")]
    iptables.replace("a", one)
    iptables.replace("a.b", other)
    iptables.replace("", unnamed)
    assert [iptables.read(lab) for lab in ("a", "a.b", "", "b")] == [in_order(one), in_order(other), unnamed, None]
    iptables.replace("a", [])
    assert [iptables.read(lab) for lab in ("a", "a.b", "")] == [None, in_order(other), unnamed]
    iptables.replace("", [])
    assert [iptables.read(lab) for lab in ("a.b", "")] == [in_order(other), None]


def test_nothing_is_left_when_the_last_rule_goes(host: None) -> None:
    iptables.replace("lab", ALL)
    iptables.replace("lab", [])
    assert (saved(4), saved(6)) == ([], [])
    assert iptables.read("lab") is None


# Counters of ours


def test_the_same_again_changes_nothing(host: None) -> None:
    wanted = [LABS_RULE, NatRule(POSTROUTING, "masquerade", comment="for the others")]
    iptables.replace("lab", wanted)
    assert ping(None, "127.0.0.1")[0]
    counted = saved(4, "-c")
    assert counted[0].startswith("[1:84] -A POSTROUTING -s 127.0.0.1/32")
    iptables.replace("lab", wanted)
    assert saved(4, "-c") == counted
    # Nor do the rules that stay when others come and go.
    iptables.replace("lab", [*wanted, NatRule(POSTROUTING, "masquerade", mark="0x1")])
    assert saved(4, "-c")[:2] == counted


def test_packets_are_translated(host: None) -> None:
    ip("address", "add", "10.1.1.1/32", "dev", "lo")
    iptables.replace("lab", [NatRule(OUTPUT, "dnat", destination="192.0.2.1/32", to_address="10.1.1.1")])
    ip("route", "add", "192.0.2.1/32", "dev", "lo")
    assert ping(None, "192.0.2.1")[0]
    assert saved(4, "-c")[0].startswith("[1:84] -A OUTPUT -d 192.0.2.1/32")


# No table comes to be by looking


def test_looking_creates_no_table(host: None) -> None:
    assert tables() == []
    assert not iptables.in_use()
    assert iptables.read("lab") is None
    iptables.replace("lab", [])
    iptables.flavour_note()
    assert tables() == []


@pytest.mark.parametrize("family", [4, 6])
def test_only_the_table_that_is_needed_is_created(host: None, family: int) -> None:
    iptables.replace("lab", [NatRule(POSTROUTING, "masquerade", family)])
    assert tables() == ["nat"]
    assert iptables.in_use()
    # A target that no extension has makes python-iptables look for a chain of that name in all tables.
    nat("-N", "X", family=family)
    nat("-A", "POSTROUTING", "-m", "comment", "--comment", "nslab:lab", "-j", "X", family=family)
    assert len(iptables.read("lab") or []) == 2
    iptables.replace("lab", [])
    assert tables() == ["nat"]
    iptables.replace("lab", [])
    assert Path(f"/proc/thread-self/net/ip{'6' if family == 4 else ''}_tables_names").read_text() == ""


def test_a_table_of_somebody_else_is_in_use(host: None) -> None:
    run("iptables-legacy", "-t", "mangle", "-S")
    assert not iptables.in_use()
    run("ip6tables-legacy", "-t", "nat", "-S")
    assert iptables.in_use()
    assert iptables.read("lab") is None


# Tampering

BASE = [
    LABS_RULE,
    NatRule(POSTROUTING, "masquerade", protocol="tcp", destination_ports="80", comment="it's"),
    NatRule(POSTROUTING, "masquerade", mark="0x1"),
    NatRule(PREROUTING, "dnat", to_address="1.1.1.1"),
    NatRule(POSTROUTING, "masquerade", 6),
]
MARK = ("-m", "comment", "--comment", "nslab:lab")
SNAT = ("-j", "SNAT", "--to-source", "127.0.0.1")


@pytest.mark.parametrize(
    "commands",
    [
        [("-D", "POSTROUTING", "1")],
        [("-D", "POSTROUTING", "1"), ("-A", "POSTROUTING", "-s", "127.0.0.1", *MARK, *SNAT)],
        [("-A", "POSTROUTING", "-s", "127.0.0.1", *MARK, *SNAT)],
        [("-F", "POSTROUTING")],
        [("-F",), ("-X",)],
        [("-R", "POSTROUTING", "1", "-s", "127.0.0.2", *MARK, *SNAT)],
        [("-R", "POSTROUTING", "1", "-s", "127.0.0.1", *MARK, "-j", "SNAT", "--to-source", "127.0.0.2")],
        [("-R", "POSTROUTING", "1", "-s", "127.0.0.1", *MARK, *SNAT, "--random")],
        [("-R", "POSTROUTING", "1", "-s", "127.0.0.1", *MARK, "-j", "ACCEPT")],
        [("-R", "POSTROUTING", "1", "-s", "127.0.0.1", *MARK, "-j", "RETURN")],
        [("-R", "POSTROUTING", "1", "-s", "127.0.0.1", *MARK)],
        [("-R", "POSTROUTING", "1", "-s", "127.0.0.1", "-m", "comment", "--comment", "mine", *SNAT)],
        [("-R", "POSTROUTING", "1", "-s", "127.0.0.1", "-m", "comment", "--comment", "nslab:lab ", *SNAT)],
        [("-R", "POSTROUTING", "1", "-s", "127.0.0.1/255.0.0.255", *MARK, *SNAT)],
        [("-R", "POSTROUTING", "1", "-f", "-s", "127.0.0.1", *MARK, *SNAT)],
        [("-R", "POSTROUTING", "1", "-s", "127.0.0.1", "-o", "lo+", *MARK, *SNAT)],
        [("-R", "POSTROUTING", "1", "-s", "127.0.0.1", "-m", "conntrack", "--ctstate", "NEW", *MARK, *SNAT)],
        [("-R", "POSTROUTING", "1", "-s", "127.0.0.1", *MARK, "-m", "mark", "--mark", "1", *SNAT)],
        [("-R", "POSTROUTING", "1", "-p", "tcp", "-m", "multiport", "--dports", "80", *MARK, *SNAT)],
        [("-R", "POSTROUTING", "1", "-p", "tcp", "--syn", *MARK, *SNAT)],
        [("-R", "POSTROUTING", "1", "-m", "addrtype", "!", "--dst-type", "LOCAL", *MARK, *SNAT)],
        [("-R", "POSTROUTING", "1", "-m", "addrtype", "--src-type", "LOCAL", *MARK, *SNAT)],
        [("-N", "THEIRS"), ("-A", "THEIRS", *MARK, "-j", "RETURN")],
        [("-N", "THEIRS"), ("-R", "POSTROUTING", "1", "-s", "127.0.0.1", *MARK, "-g", "THEIRS")],
        [("-A", "INPUT", *MARK, *SNAT)],
    ],
    ids=lambda commands: " ".join(word for command in commands for word in command if word not in MARK),
)
def test_tampering_is_seen_and_put_right(host: None, commands: list[tuple[str, ...]]) -> None:
    nat("-A", "PREROUTING", "-j", "ACCEPT")
    iptables.replace("lab", BASE)
    right = run("iptables-legacy-save", "-t", "nat").splitlines()
    for command in commands:
        nat(*command)
    tampered = saved()
    found = iptables.read("lab")
    assert found is not None
    assert found != in_order(BASE)
    assert all(bool(rule.unknown) == (not rule.action) for rule in found)
    before = iptables.replace("lab", BASE)
    assert iptables.read("lab") == in_order(BASE)
    iptables.restore("lab", before)
    assert saved() == tampered
    iptables.replace("lab", BASE)

    def ours(lines: list[str]) -> list[str]:
        return [line for line in lines if "nslab:lab" in line]

    assert ours(saved()) == ours(right)


def test_a_chain_that_is_gone_is_said(host: None) -> None:
    nat("-N", "THEIRS")
    nat("-A", "THEIRS", *MARK, "-j", "RETURN")
    before = iptables.replace("lab", [LABS_RULE])
    nat("-X", "THEIRS")
    with pytest.raises(NslabError, match="the table nat of IPv4 has no chain THEIRS"):
        iptables.restore("lab", before)
    assert iptables.read("lab") == [LABS_RULE]


def test_the_prefix_of_ipv6_has_no_holes(host: None) -> None:
    """python-iptables takes the mask ffff::ffff for a prefix of 16."""
    iptables.replace("lab", [NatRule(POSTROUTING, "masquerade", 6, source="fd00::/16")])
    nat("-R", "POSTROUTING", "1", "-s", "fd00::/ffff::ffff", *MARK, "-j", "MASQUERADE", family=6)
    (found,) = iptables.read("lab") or []
    assert found == NatRule(
        POSTROUTING, "", 6, unknown="-s fd00::/ffff::ffff -m comment --comment nslab:lab -j MASQUERADE"
    )


def test_what_is_unknown_is_shown(host: None) -> None:
    nat("-A", "POSTROUTING", "-p", "tcp", "-m", "multiport", "--dports", "80", *MARK, "-j", "MASQUERADE", "--random")
    (found,) = iptables.read("lab") or []
    assert found == NatRule(
        POSTROUTING,
        "",
        unknown="-p tcp -m multiport --dports 80 -m comment --comment nslab:lab -j MASQUERADE --random",
    )


# Failures

REFUSED = NatRule(PREROUTING, "snat", to_address="1.1.1.1")


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        (REFUSED, "snat is not possible in prerouting"),
        (NatRule(POSTROUTING, "reject"), "there is no action 'reject'"),
        (NatRule(POSTROUTING, "", unknown="-j ACCEPT"), "it is not known (-j ACCEPT)"),
        (NatRule(POSTROUTING, "masquerade", source="10.0.0.1/24"), "10.0.0.1/24 has host bits set"),
        (NatRule(POSTROUTING, "masquerade", source="10.0.0.1"), "10.0.0.1 is not a prefix of IPv4"),
        (NatRule(POSTROUTING, "masquerade", source="0.0.0.0/0"), "0.0.0.0/0 is not a prefix of IPv4"),
        (NatRule(POSTROUTING, "masquerade", 6, source="10.0.0.0/24"), "10.0.0.0/24 is not a prefix of IPv6"),
        (NatRule(POSTROUTING, "masquerade", negated=("source",)), "source is negated and empty"),
        (NatRule(POSTROUTING, "masquerade", in_interface="lo"), "nothing has come in by an interface in postrouting"),
        (NatRule(POSTROUTING, "masquerade", out_interface="eth+"), "iptables takes eth+ for a pattern"),
        (NatRule(POSTROUTING, "masquerade", out_interface="x" * 16), "is too long"),
        (NatRule(POSTROUTING, "masquerade", protocol="6"), "the protocol 6 is called tcp"),
        (NatRule(POSTROUTING, "masquerade", protocol="gre"), "the protocol gre is neither a number"),
        (NatRule(POSTROUTING, "masquerade", source_ports="80"), "the ports 80 need one of the protocols"),
        (NatRule(POSTROUTING, "masquerade", protocol="tcp", source_ports="80,79"), "not ports and ranges in ascending"),
        (NatRule(POSTROUTING, "masquerade", protocol="tcp", source_ports="80-80"), "not ports and ranges in ascending"),
        (NatRule(POSTROUTING, "masquerade", protocol="tcp", source_ports="65536"), "not ports and ranges in ascending"),
        (
            NatRule(POSTROUTING, "masquerade", protocol="tcp", source_ports=",".join(map(str, range(16)))),
            "takes 16 places",
        ),
        (NatRule(POSTROUTING, "masquerade", mark="1"), "1 is not a mark"),
        (NatRule(POSTROUTING, "masquerade", mark="0x1/0xffffffff"), "0x1/0xffffffff is not a mark"),
        (NatRule(POSTROUTING, "masquerade", to_address="1.1.1.1"), "masquerade chooses the address itself"),
        (NatRule(POSTROUTING, "masquerade", to_ports="80"), "the new ports 80 need one of the protocols"),
        (NatRule(POSTROUTING, "snat"), "snat has to say what to put in"),
        (NatRule(POSTROUTING, "snat", to_address="1.1.1.2-1.1.1.1"), "does not end after it begins"),
        (NatRule(POSTROUTING, "snat", to_address="fd00::1"), "fd00::1 is not of IPv4"),
        (NatRule(PREROUTING, "dnat", to_address="1.1.1.1", random_fully=True), "dnat of iptables knows no random"),
        (NatRule(POSTROUTING, "masquerade", comment="x" * 246), "its comment has 256 bytes"),
        (NatRule(POSTROUTING, "masquerade", comment="a\nb"), "characters that cannot be printed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_iptables_has_no_rule_for(host: None, rule: NatRule, why: str) -> None:
    with pytest.raises(NslabError, match=r"^rule 2, .* cannot be one of iptables: ") as caught:
        iptables.replace("lab", [NatRule(POSTROUTING, "masquerade"), rule])
    assert why in str(caught.value)
    assert tables() == []


@pytest.mark.parametrize("family", [4, 6])
def test_what_the_kernel_refuses_changes_nothing(host: None, monkeypatch: pytest.MonkeyPatch, family: int) -> None:
    nat("-A", "POSTROUTING", "-c", "1", "10", "-j", "ACCEPT")
    iptables.replace("lab", BASE)
    nat("-A", "PREROUTING", "-c", "2", "20", *MARK, "-j", "RETURN")
    before = saved(4, "-c"), saved(6, "-c")
    monkeypatch.setitem(iptables._CHAINS, "snat", (PREROUTING,))
    refused = REFUSED if family == 4 else REFUSED._replace(family=6, to_address="::1")
    with pytest.raises(NslabError, match=f"^the kernel refused the rules of IPv{family}: Invalid argument$"):
        iptables.replace("lab", [NatRule(POSTROUTING, "masquerade"), refused])
    assert (saved(4, "-c"), saved(6, "-c")) == before


def test_what_libxtables_refuses_changes_nothing(host: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """python-iptables jumps out of libxtables over Python's own frames then, which Python may not survive."""
    iptables.replace("lab", BASE)
    before = saved()
    monkeypatch.setattr(iptables, "_objections", lambda lab, rule: iter(()))
    with pytest.raises(NslabError, match=r"^(libxtables does not take|the process for iptables) "):
        iptables.replace("lab", [LABS_RULE, NatRule(POSTROUTING, "masquerade", to_ports="80")])
    assert saved() == before


def test_a_killed_child_changes_nothing(host: None, monkeypatch: pytest.MonkeyPatch) -> None:
    iptables.replace("lab", BASE)
    before = saved()
    monkeypatch.setattr(iptables._Table, "commit", lambda self: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(NslabError, match=r"the process for iptables \(python-iptables, IPv4\) was killed by SIGKILL"):
        iptables.replace("lab", [])
    assert saved() == before
    monkeypatch.undo()
    iptables.replace("lab", [])
    assert saved() == []


def test_a_child_that_hangs_is_ended(host: None, monkeypatch: pytest.MonkeyPatch) -> None:
    iptables.replace("lab", BASE)
    before = saved()
    monkeypatch.setattr(iptables._Table, "commit", lambda self: time.sleep(600))
    monkeypatch.setattr(iptables, "LOCK_SECONDS", 0)
    monkeypatch.setattr(iptables, "CHILD_SECONDS", 1)
    with pytest.raises(NslabError, match="the process for iptables had not ended after 1 s"):
        iptables.replace("lab", [])
    assert saved() == before


def test_what_a_child_stumbles_over_is_said(host: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def commit(self: Any) -> None:
        raise RuntimeError("of its own")

    monkeypatch.setattr(iptables._Table, "commit", commit)
    with pytest.raises(NslabError, match="python-iptables failed: RuntimeError: of its own"):
        iptables.replace("lab", BASE)
    assert saved() == []


def test_a_library_that_is_missing_is_said(host: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "iptc.py").write_text("raise ImportError('no libip4tc here')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "iptc")
    with pytest.raises(Missing, match="python-iptables cannot be used on this host: no libip4tc here"):
        iptables.replace("lab", BASE)


def test_python_iptables_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "iptc")
    assert iptables.available()
    iptables.require()
    assert "iptc" not in sys.modules
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not iptables.available()
    with pytest.raises(Missing, match="Debian, Ubuntu: python3-iptables"):
        iptables.require()


# The lock of the iptables commands


@pytest.fixture
def lock_holder() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        ["flock", "--no-fork", "/run/xtables.lock", "cat"], stdin=subprocess.PIPE, text=True
    ) as holder:

        def held() -> bool:
            done = subprocess.run(["flock", "--nonblock", "/run/xtables.lock", "true"], check=False)
            return done.returncode != 0

        eventually(held, "flock holds the lock")
        yield holder


def test_the_lock_is_waited_for(
    host: None, lock_holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(iptables, "LOCK_SECONDS", 0.3)
    holder = rf"process {lock_holder.pid} \(cat\) has been holding /run/xtables.lock"
    with pytest.raises(Busy, match=holder):
        iptables.replace("lab", BASE)
    assert saved() == []
    assert iptables.read("lab") is None
    monkeypatch.setattr(iptables, "LOCK_SECONDS", 30)
    lock_holder.communicate()
    iptables.replace("lab", BASE)
    assert iptables.read("lab") == in_order(BASE)


def test_the_lock_is_held_while_changing(host: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def commit(self: Any) -> None:
        done = subprocess.run(["iptables-legacy", "-w", "1", "-S"], capture_output=True, text=True, check=False)
        (tmp_path / "said").write_text(done.stderr)
        raise RuntimeError

    monkeypatch.setattr(iptables._Table, "commit", commit)
    with pytest.raises(NslabError):
        iptables.replace("lab", BASE)
    assert "Another app is currently holding the xtables lock" in (tmp_path / "said").read_text()


# One process, many namespaces


def test_namespaces_one_after_the_other(host: None) -> None:
    wanted = {}
    for number, name in enumerate(("one", "two")):
        ip("netns", "add", name)
        handle = namespaces.open_named(name)
        assert handle is not None
        with namespaces.entered(handle):
            wanted[name] = [
                NatRule(POSTROUTING, "masquerade", mark=f"{number:#x}"),
                NatRule(POSTROUTING, "masquerade", 6, mark=f"{number:#x}"),
            ]
            iptables.replace("lab", wanted[name])
            assert iptables.read("lab") == wanted[name]
        handle.close()
    assert tables() == []
    for number, name in enumerate(("one", "two")):
        for family in ("ip", "ip6"):
            lines = run("nsenter", f"--net=/run/netns/{name}", f"{family}tables-legacy-save", "-t", "nat").splitlines()
            assert [line for line in lines if line.startswith("-A")] == [
                f'-A POSTROUTING -m mark --mark {number:#x} -m comment --comment "nslab:lab" -j MASQUERADE'
            ]


def test_nothing_grows(host: None) -> None:
    def mine() -> tuple[list[str], str]:
        children = Path("/proc/thread-self/children").read_text()
        return sorted(os.listdir("/proc/self/fd")), children

    iptables.replace("lab", [LABS_RULE])
    before = mine()
    for _time in range(100):
        iptables.replace("lab", [LABS_RULE])
        iptables.read("lab")
    assert mine() == before


def test_the_child_leaves_out_what_the_parent_does_at_its_end(host: None) -> None:
    script = """
        import atexit, sys
        from ansible_collections.nslab.netns.plugins.module_utils import _iptables
        from ansible_collections.nslab.netns.plugins.module_utils._nat import NatRule
        atexit.register(print, "at exit")
        sys.stdout.write("in the buffer\\n")
        try:
            _iptables.replace("lab", [NatRule("postrouting", "masquerade")])
            print(len(_iptables.read("lab")), "iptc" in sys.modules)
        finally:
            print("finally")
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False, env=environment
    )
    assert (done.stdout, done.stderr) == ("in the buffer\n1 False\nfinally\nat exit\n", "")


# Which iptables the administrator has


@pytest.mark.parametrize(
    ("program", "noted"), [("xtables-nft-multi", True), ("xtables-legacy-multi", False), ("", False)]
)
def test_the_flavour_of_the_administrators_iptables(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str, noted: bool
) -> None:
    if program:
        (tmp_path / program).touch(0o755)
        (tmp_path / "iptables").symlink_to(program)
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        monkeypatch.setattr(iptables.shutil, "which", lambda *_arguments, **_options: None)
    assert ("iptables-legacy-save" in iptables.flavour_note()) == noted


@pytest.mark.usefixtures("host")
def test_the_rules_of_others_are_told_from_those_of_a_lab() -> None:
    assert not iptables.others_translate("one")
    assert tables() == []
    iptables.replace("one", [NatRule(POSTROUTING, "masquerade"), NatRule(POSTROUTING, "masquerade", 6)])
    assert iptables.labs() == {"one"}
    assert not iptables.others_translate("one")
    iptables.replace("", [NatRule(POSTROUTING, "masquerade")])
    assert iptables.labs() == {"one", ""}
    assert iptables.others_translate("one")
    iptables.replace("", [])
    for family in (4, 6):
        nat("-A", "POSTROUTING", "-m", "comment", "--comment", "not nslab:one", "-j", "MASQUERADE", family=family)
        assert iptables.others_translate("one")
        assert iptables.labs() == {"one"}
        nat("-F", family=family)
    assert not iptables.others_translate("one")


@pytest.mark.usefixtures("host")
def test_what_was_there_comes_back_to_where_it_stood_among_others() -> None:
    iptables.replace("lab", [NatRule(POSTROUTING, "masquerade", source=f"10.7.{n}.0/24") for n in (1, 2, 3)])
    for number, position in ((1, 1), (2, 3), (3, 6)):
        nat("-I", "POSTROUTING", str(position), "-s", f"10.8.{number}.0/24", "-j", "MASQUERADE")
    before = saved()
    assert ["10.8." in line for line in before] == [True, False, True, False, False, True]
    for rules in ([], [NatRule(POSTROUTING, "masquerade", source="10.7.9.0/24")]):
        found = iptables.replace("lab", rules)
        assert saved() != before
        iptables.restore("lab", found)
        assert saved() == before
