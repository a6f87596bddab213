# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules of address translation: what is refused and in which words, what is meant, and how they are planned."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from ansible_collections.nslab.netns.plugins.module_utils import _changes as c
from ansible_collections.nslab.netns.plugins.module_utils import _iptables as iptables
from ansible_collections.nslab.netns.plugins.module_utils import _kernel as kernel
from ansible_collections.nslab.netns.plugins.module_utils import _nftables as nftables
from ansible_collections.nslab.netns.plugins.module_utils import _options
from ansible_collections.nslab.netns.plugins.module_utils._capture_nat import capture_nat
from ansible_collections.nslab.netns.plugins.module_utils._document import read_topology
from ansible_collections.nslab.netns.plugins.module_utils._document_nat import read_dnat, read_snat
from ansible_collections.nslab.netns.plugins.module_utils._errors import InvalidInput, NslabError, Problem, Refused
from ansible_collections.nslab.netns.plugins.module_utils._model import HOST, Address, Link, Namespace, State, Wanted
from ansible_collections.nslab.netns.plugins.module_utils._nat import NatRule, in_order, limits
from ansible_collections.nslab.netns.plugins.module_utils._plan import Plan, plan
from ansible_collections.nslab.netns.plugins.module_utils._reader import Reader
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

READERS = {"snat": read_snat, "dnat": read_dnat}


def read(kind: str, entries: Any, lab: str = "lab") -> tuple[list[NatRule], list[Problem]]:
    reader = Reader()
    found = READERS[kind](reader, entries, kind, lab)
    return [item.value for item in found], reader.problems


# --- what is refused -------------------------------------------------------------------------------------------------

MASQUERADE = {"masquerade": True}
WEB = {"protocol": "tcp", "port": 80, "to_destination": "10.0.0.2:80"}

#: Entries of ``snat``: what is written, the path of the problem within the entry, and words that are in its text.
BAD_SNAT: list[tuple[Any, str, str]] = [
    # no rule at all
    ("masquerade", "", "'masquerade' is no rule such as {source: 10.0.0.0/24"),
    (None, "", "null is no rule such as"),
    ([MASQUERADE], "", "is no rule such as"),
    ({}, ".to_source", "is missing: the new source address; or say 'masquerade: true'"),
    ({"source": "10.0.0.0/24"}, ".to_source", "is missing"),
    ({"masquerade": False}, ".to_source", "is missing"),
    ({"masquerade": None, "to_source": None}, ".to_source", "is missing"),
    # keys
    ({**MASQUERADE, "sorce": "10.0.0.0/24"}, ".sorce", "did you mean 'source'?"),
    ({**MASQUERADE, "not_family": "ipv4"}, ".not_family", "there is no such key here"),
    ({**MASQUERADE, "in_interface": "eth0"}, ".in_interface", "there is no such key here"),
    ({**MASQUERADE, "port": 80}, ".port", "there is no such key here"),
    ({**MASQUERADE, 7: 8}, "", "the key 7 is no string"),
    # both, where one is possible
    ({**MASQUERADE, "to_source": "10.0.0.1"}, ".masquerade", "stands beside 'to_source'"),
    ({**MASQUERADE, "source": "10.0.0.0/24", "not_source": "10.1.0.0/24"}, ".not_source", "stands beside 'source'"),
    ({**MASQUERADE, "mark": 1, "not_mark": 2}, ".not_mark", "stands beside 'mark'; say one of them"),
    ({**MASQUERADE, "protocol": "tcp", "not_protocol": "udp"}, ".not_protocol", "stands beside 'protocol'"),
    # types
    ({"masquerade": "yes"}, ".masquerade", "'yes' is neither true nor false"),
    ({"masquerade": 1}, ".masquerade", "1 is neither true nor false"),
    ({"to_source": 167772161}, ".to_source", "167772161 is no string"),
    ({"to_source": ["10.0.0.1"]}, ".to_source", "is no string"),
    ({**MASQUERADE, "source": 10}, ".source", "10 is no string"),
    ({**MASQUERADE, "source": ["10.0.0.0/24"]}, ".source", "is no string"),
    ({**MASQUERADE, "out_interface": 7}, ".out_interface", "7 is no string"),
    ({**MASQUERADE, "random_fully": "no"}, ".random_fully", "'no' is neither true nor false"),
    ({**MASQUERADE, "persistent": 0}, ".persistent", "0 is neither true nor false"),
    ({**MASQUERADE, "comment": ["x"]}, ".comment", "is no string"),
    ({**MASQUERADE, "family": []}, ".family", "[] is not one of ipv4 and ipv6"),
    ({**MASQUERADE, "family": {"ipv4": 1}}, ".family", "is not one of ipv4 and ipv6"),
    ({**MASQUERADE, "family": 4}, ".family", "4 is not one of ipv4 and ipv6"),
    ({**MASQUERADE, "family": "ipv5"}, ".family", "'ipv5' is not one of ipv4 and ipv6; did you mean"),
    # addresses
    ({**MASQUERADE, "source": "10.0.0.1/24"}, ".source", "has host bits set; write '10.0.0.0/24'"),
    ({**MASQUERADE, "not_destination": "fd00::1/64"}, ".not_destination", "has host bits set; write 'fd00::/64'"),
    ({**MASQUERADE, "source": "10.0.0.0/33"}, ".source", "is no prefix such as 10.0.0.0/24, and no address"),
    ({**MASQUERADE, "source": "fe80::1%lo"}, ".source", "'fe80::1%lo' names an interface; leave out '%lo'"),
    ({**MASQUERADE, "source": "server"}, ".source", "'server' is no prefix"),
    ({**MASQUERADE, "source": ""}, ".source", "'' is no prefix"),
    ({**MASQUERADE, "source": "10.0.0.0-10.0.0.9"}, ".source", "is no prefix"),
    ({**MASQUERADE, "source": "\u0661\u0660.0.0.0/8"}, ".source", "is no prefix"),
    ({**MASQUERADE, "source": "::ffff:10.0.0.0/120"}, ".source", "an IPv6 spelling of IPv4 addresses"),
    ({**MASQUERADE, "destination": "::10.0.0.1"}, ".destination", "an IPv6 spelling of IPv4 addresses"),
    ({**MASQUERADE, "not_source": "0.0.0.0/0"}, ".not_source", "is every address, so that nothing is left to match"),
    ({"to_source": "10.0.0.0/24"}, ".to_source", "leave out '/24'"),
    ({"to_source": ""}, ".to_source", "'' is none of: an address, a range of two with '-'"),
    ({"to_source": "::"}, ".to_source", "is no address that a machine can have"),
    ({"to_source": "224.0.0.1"}, ".to_source", "is no address that a machine can have"),
    ({"to_source": "255.255.255.255"}, ".to_source", "is no address that a machine can have"),
    ({"to_source": "ff02::1"}, ".to_source", "is no address that a machine can have"),
    ({"to_source": "::ffff:10.0.0.1"}, ".to_source", "an IPv6 spelling of an IPv4 address"),
    ({"to_source": "10.0.0.9-10.0.0.1"}, ".to_source", "is backwards; write '10.0.0.1-10.0.0.9'"),
    ({"to_source": "fd00::9-fd00::1"}, ".to_source", "is backwards; write 'fd00::1-fd00::9'"),
    ({"to_source": "10.0.0.1-fd00::1"}, ".to_source", "from one address family to the other"),
    ({"to_source": "10.0.0.1-"}, ".to_source", "'' is no IPv4 or IPv6 address"),
    ({"to_source": "10.0.0.1,10.0.0.2"}, ".to_source", "is no IPv4 or IPv6 address"),
    ({"to_source": "fe80::1%eth0"}, ".to_source", "leave out '%eth0'"),
    ({"to_source": "[10.0.0.1]:80", "protocol": "tcp"}, ".to_source", "'10.0.0.1' in brackets is no IPv6 address"),
    ({"to_source": "[fd00::1"}, ".to_source", "is none of: an address"),
    # families
    ({"source": "fd00::/64", "to_source": "10.0.0.1"}, ".to_source", "'10.0.0.1' is of IPv4, but 'source' is of IPv6"),
    ({"source": "10.0.0.0/8", "to_source": "[fd00::1]:1", "protocol": "tcp"}, ".to_source", "is of IPv6, but 'source'"),
    ({**MASQUERADE, "source": "10.0.0.0/8", "destination": "fd00::/8"}, ".destination", "is of IPv6, but 'source'"),
    ({**MASQUERADE, "family": "ipv6", "not_source": "10.0.0.0/8"}, ".not_source", "but 'family' is of IPv6"),
    ({**MASQUERADE, "family": "ipv6", "protocol": "icmp"}, ".protocol", "'icmp' is of IPv4, but 'family' is of IPv6"),
    ({**MASQUERADE, "family": "ipv6", "protocol": 1}, ".protocol", "1 is of IPv4, but 'family' is of IPv6"),
    ({**MASQUERADE, "source": "10.0.0.0/8", "protocol": "58"}, ".protocol", "'58' is of IPv6, but 'source' is of IPv4"),
    ({"source": "fd00::/64", "to_source": "nowhere"}, ".to_source", "'nowhere' is no IPv4 or IPv6 address"),
    ({"source": "nowhere", "to_source": "fd00::1"}, ".source", "'nowhere' is no prefix"),
    # interfaces
    ({**MASQUERADE, "out_interface": "a-very-long-name"}, ".out_interface", "16 bytes long"),
    ({**MASQUERADE, "out_interface": ""}, ".out_interface", "0 bytes long"),
    ({**MASQUERADE, "not_out_interface": "\u00e9" * 8}, ".not_out_interface", "16 bytes long"),
    ({**MASQUERADE, "out_interface": "eth 0"}, ".out_interface", "white space"),
    ({**MASQUERADE, "out_interface": "a/b"}, ".out_interface", "must not hold '/'"),
    ({**MASQUERADE, "out_interface": "a\0b"}, ".out_interface", "must not hold"),
    ({**MASQUERADE, "out_interface": "a\ud800"}, ".out_interface", "is no text"),
    # protocols and ports
    ({**MASQUERADE, "protocol": "http"}, ".protocol", "'http' is no protocol: icmp, tcp"),
    ({**MASQUERADE, "protocol": "TCP"}, ".protocol", "'TCP' is no protocol"),
    ({**MASQUERADE, "protocol": 0}, ".protocol", "0 is no protocol"),
    ({**MASQUERADE, "protocol": 256}, ".protocol", "a number from 1 to 255"),
    ({**MASQUERADE, "protocol": True}, ".protocol", "true is no protocol"),
    ({**MASQUERADE, "protocol": ["tcp"]}, ".protocol", "['tcp'] is no protocol"),
    ({**MASQUERADE, "protocol": "\u0666"}, ".protocol", "is no protocol"),
    ({**MASQUERADE, "protocol": "9" * 5000}, ".protocol", "is no protocol"),
    ({**MASQUERADE, "source_ports": [80]}, ".source_ports", "the ports 80 need a 'protocol' that has ports"),
    ({**MASQUERADE, "protocol": "icmp", "destination_ports": [1]}, ".destination_ports", "and 'icmp' is none"),
    ({**MASQUERADE, "not_source_ports": [1]}, ".not_source_ports", "need a 'protocol' that has ports"),
    (
        {**MASQUERADE, "not_protocol": "tcp", "destination_ports": [1]},
        ".destination_ports",
        "and 'not_protocol tcp' is none",
    ),
    ({**MASQUERADE, "protocol": "tcp", "source_ports": []}, ".source_ports", "is empty; leave it out for all ports"),
    ({**MASQUERADE, "protocol": "tcp", "source_ports": [0]}, ".source_ports[0]", "a port is from 1 to 65535"),
    ({**MASQUERADE, "protocol": "tcp", "source_ports": [1, 65536]}, ".source_ports[1]", "a port is from 1 to 65535"),
    ({**MASQUERADE, "protocol": "tcp", "source_ports": ["90-80"]}, ".source_ports[0]", "is backwards; write '80-90'"),
    ({**MASQUERADE, "protocol": "tcp", "source_ports": "90-80"}, ".source_ports", "is backwards; write '80-90'"),
    ({**MASQUERADE, "protocol": "tcp", "source_ports": ["http"]}, ".source_ports[0]", "'http' is no port such as 80"),
    ({**MASQUERADE, "protocol": "tcp", "source_ports": [True]}, ".source_ports[0]", "true is no port such as 80"),
    ({**MASQUERADE, "protocol": "tcp", "source_ports": [[80]]}, ".source_ports[0]", "[80] is no port"),
    ({**MASQUERADE, "protocol": "tcp", "source_ports": {"80": 1}}, ".source_ports", "is no port"),
    ({**MASQUERADE, "protocol": "tcp", "source_ports": "9" * 5000}, ".source_ports", "is no port such as 80"),
    ({"to_source": "10.0.0.1:80"}, ".to_source", "the new ports 80 need a 'protocol' that has ports"),
    ({"to_source": ":1-2", "protocol": "icmp"}, ".to_source", "the new ports 1-2 need a 'protocol'"),
    ({"to_source": "10.0.0.1:0", "protocol": "tcp"}, ".to_source", "a port is from 1 to 65535"),
    ({"to_source": "10.0.0.1:90-80", "protocol": "tcp"}, ".to_source", "is backwards; write '80-90'"),
    ({"to_source": "10.0.0.1:", "protocol": "tcp"}, ".to_source", "'' is no port"),
    ({"to_source": "[fd00::1]:http", "protocol": "tcp"}, ".to_source", "'http' is no port"),
    # marks
    ({**MASQUERADE, "mark": "0x100/0xff"}, ".mark", "has bits outside of its mask, so that nothing would match"),
    ({**MASQUERADE, "mark": "one"}, ".mark", "'one' is no mark: a number such as 0x1"),
    ({**MASQUERADE, "mark": -1}, ".mark", "-1 is no mark"),
    ({**MASQUERADE, "mark": 2**32}, ".mark", "is no mark"),
    ({**MASQUERADE, "mark": True}, ".mark", "true is no mark"),
    ({**MASQUERADE, "mark": "1/2/3"}, ".mark", "is no mark"),
    ({**MASQUERADE, "not_mark": [1]}, ".not_mark", "[1] is no mark"),
    # comments
    ({**MASQUERADE, "comment": 'say "x"'}, ".comment", "double quotes, line breaks and white space around it"),
    ({**MASQUERADE, "comment": "two\nlines"}, ".comment", "line breaks"),
    ({**MASQUERADE, "comment": " x"}, ".comment", "white space around it"),
    ({**MASQUERADE, "comment": "\ud800"}, ".comment", "is no text"),
    ({**MASQUERADE, "comment": "x" * 111}, ".comment", "is 111 bytes long; there is room for 110"),
    ({**MASQUERADE, "comment": "\u00fc" * 56}, ".comment", "is 112 bytes long; there is room for 110"),
    ({**MASQUERADE, "comment": "hairpin"}, ".comment", "'hairpin' at the beginning is for the rules of published"),
    ({**MASQUERADE, "comment": "hairpin of mine"}, ".comment", "is for the rules of published ports"),
]

#: Entries of ``dnat``.
BAD_DNAT: list[tuple[Any, str, str]] = [
    ("10.0.0.2:80", "", "'10.0.0.2:80' is no rule such as {protocol: tcp, port: 80"),
    ({}, ".to_destination", "is missing: the new destination, such as 10.0.0.2:80"),
    ({"protocol": "tcp", "port": 80}, ".to_destination", "is missing"),
    ({**WEB, "to_destination": None}, ".to_destination", "is missing"),
    ({"to_destination": "10.0.0.2"}, "", "it would catch all that comes in: 'protocol' and 'port', 'destination'"),
    ({"to_destination": "10.0.0.2", "source": "0.0.0.0/0"}, "", "it would catch all that comes in"),
    ({"to_destination": "10.0.0.2", "local": True}, "", "it would catch all that comes in"),
    ({**WEB, "masquerade": True}, ".masquerade", "there is no such key here"),
    ({**WEB, "to_destinaton": "10.0.0.3"}, ".to_destinaton", "did you mean 'to_destination'?"),
    ({**WEB, "out_interface": "eth0"}, ".out_interface", "there is no such key here"),
    ({**WEB, "not_port": 80}, ".not_port", "there is no such key here"),
    ({**WEB, "not_protocol": "tcp"}, ".not_protocol", "there is no such key here"),
    ({**WEB, "ports": [81]}, ".ports", "stands beside 'port'; say one of them"),
    ({**WEB, "in_interface": "a", "not_in_interface": "b"}, ".not_in_interface", "stands beside 'in_interface'"),
    ({"port": 80, "to_destination": "10.0.0.2"}, ".port", "the ports 80 need a 'protocol' that has ports"),
    ({"protocol": "icmp", "port": 8, "to_destination": "10.0.0.2"}, ".port", "and 'icmp' is none"),
    ({"protocol": 47, "ports": [8, 9], "to_destination": "10.0.0.2"}, ".ports", "the ports 8-9 need a 'protocol'"),
    ({"in_interface": "e", "to_destination": "10.0.0.2:80"}, ".to_destination", "the new ports 80 need a 'protocol'"),
    ({**WEB, "port": True}, ".port", "true is no port such as 80"),
    ({**WEB, "port": ""}, ".port", "'' is no port such as 80"),
    ({**WEB, "port": 80.5}, ".port", "80.5 is no port such as 80"),
    ({**WEB, "port": "8100-8000"}, ".port", "is backwards; write '8000-8100'"),
    ({**WEB, "port": "80-90-100"}, ".port", "is no port such as 80, and no range"),
    ({**WEB, "port": None, "ports": []}, ".ports", "is empty"),
    ({**WEB, "to_destination": "10.0.0.2:0"}, ".to_destination", "a port is from 1 to 65535"),
    ({**WEB, "to_destination": "10.0.0.2:80:90"}, ".to_destination", "is no IPv4 or IPv6 address"),
    ({**WEB, "to_destination": "fd00::2:80:x"}, ".to_destination", "is no IPv4 or IPv6 address"),
    ({**WEB, "to_destination": "server:80"}, ".to_destination", "'server' is no IPv4 or IPv6 address"),
    ({**WEB, "to_destination": {"address": "10.0.0.2"}}, ".to_destination", "is no string"),
    ({**WEB, "destination": "fd00::/64"}, ".to_destination", "is of IPv4, but 'destination' is of IPv6"),
    ({**WEB, "family": "ipv6"}, ".to_destination", "'10.0.0.2:80' is of IPv4, but 'family' is of IPv6"),
    ({**WEB, "destination": "192.0.2.1/24"}, ".destination", "has host bits set; write '192.0.2.0/24'"),
    ({**WEB, "hairpin": True, "to_destination": "10.0.0.2-10.0.0.9:80"}, ".hairpin", "needs one address"),
    ({**WEB, "hairpin": True, "to_destination": ":80"}, ".hairpin", "needs one address in 'to_destination'"),
    ({**WEB, "hairpin": "yes"}, ".hairpin", "'yes' is neither true nor false"),
    ({**WEB, "local": "on"}, ".local", "'on' is neither true nor false"),
    ({**WEB, "local": True, "not_destination": "10.0.0.1"}, ".not_destination", "stands beside 'local'"),
    ({**WEB, "in_interface": "a-very-long-name"}, ".in_interface", "16 bytes long"),
]

#: What stands in the place of the list.
BAD_LISTS: list[tuple[str, Any, str, str]] = [
    ("snat", {}, "snat", "{} is no list"),
    ("snat", "masquerade", "snat", "'masquerade' is no list"),
    ("dnat", True, "dnat", "true is no list"),
    ("snat", [MASQUERADE, {"masquerade": True, "source": None}], "snat[1]", "says the same as snat[0]"),
    ("snat", [MASQUERADE, {**MASQUERADE, "family": "ipv6"}], "snat[1]", "says the same as snat[0]"),
    (
        "snat",
        [
            {**MASQUERADE, "source": "10.0.0.1"},
            {**MASQUERADE, "mark": 1, "family": "ipv4"},
            {**MASQUERADE, "source": "10.0.0.1/32"},
        ],
        "snat[2]",
        "says the same as snat[0]; leave one of them out",
    ),
    ("dnat", [WEB, {**WEB, "ports": ["80"], "port": None}], "dnat[1]", "says the same as dnat[0]"),
    ("dnat", [WEB, {**WEB, "local": True, "hairpin": True}], "dnat[1]", "says the same as dnat[0]"),
]

BAD_SNAT += [
    ({"masquerade": True, "mark": "0/0"}, ".mark", "has an empty mask"),
    ({"masquerade": True, "not_mark": "0x0/0x0"}, ".not_mark", "has an empty mask"),
    (
        {"masquerade": True, "protocol": "tcp", "not_destination_ports": "1-65535"},
        ".not_destination_ports",
        "is every port, so that nothing is left to match",
    ),
    ({"source": "fe80::/64", "to_source": "[fe80::1%eth0]:80", "protocol": "tcp"}, ".to_source", "leave out '%eth0'"),
    ({"masquerade": True, "out_interface": "."}, ".out_interface", "'.' is no name for an interface"),
]
BAD_DNAT += [({"protocol": "grr", "to_destination": "10.0.2.2"}, ".protocol", "'grr' is no protocol")]

BAD = [
    *(("snat", [entry], f"snat[0]{path}", words) for entry, path, words in BAD_SNAT),
    *(("dnat", [entry], f"dnat[0]{path}", words) for entry, path, words in BAD_DNAT),
    *BAD_LISTS,
]


@pytest.mark.parametrize(
    ("kind", "entries", "path", "words"), BAD, ids=[f"{number}-{case[2]}" for number, case in enumerate(BAD)]
)
def test_a_bad_rule_is_refused_with_its_path_and_what_is_right(kind: str, entries: Any, path: str, words: str) -> None:
    found, problems = read(kind, entries)
    assert [problem.path for problem in problems] == [path], [str(problem) for problem in problems]
    assert words in problems[0].text
    assert len(found) <= 2


def test_the_path_leads_to_the_rule_in_the_document_and_in_the_options() -> None:
    document = {"name": "x", "namespaces": {"a": {"snat": [MASQUERADE, {"to_source": "nowhere"}]}}}
    with pytest.raises(InvalidInput) as caught:
        read_topology(document)
    assert [problem.path for problem in caught.value.problems] == ["namespaces.a.snat[1].to_source"]
    with pytest.raises(InvalidInput) as caught:
        _options.ns_snat(options("a", [MASQUERADE, {"to_source": "nowhere"}]))
    assert [problem.path for problem in caught.value.problems] == ["rules[1].to_source"]
    with pytest.raises(InvalidInput) as caught:
        _options.ns_dnat(options("a b", [WEB], purge=True, state="absent"))
    assert [problem.path for problem in caught.value.problems] == ["namespace", "purge"]


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(InvalidInput, match="'nftable' is not one of auto, nftables and iptables; did you mean"):
        read_topology({"name": "x", "namespaces": {"a": {"nat_backend": "nftable"}}})


def test_a_longer_name_of_the_lab_leaves_less_room_for_a_comment() -> None:
    for lab, room in (("", 113), ("lab", 110), ("x" * 64, 49)):
        assert not read("snat", [{**MASQUERADE, "comment": "c" * room}], lab)[1]
        (problem,) = read("snat", [{**MASQUERADE, "comment": "c" * (room + 1)}], lab)[1]
        assert f"there is room for {room}" in problem.text


@pytest.mark.parametrize(
    "value", [None, 0, 1.5, "x", [], [1], {}, {"a": 1}, True, False, b"x", {1: 2}, [[]], "\0", "\ud800", "9" * 5000]
)
@pytest.mark.parametrize("kind", ["snat", "dnat"])
def test_any_value_anywhere_is_read_or_refused(kind: str, value: Any) -> None:
    """Whatever stands wherever: it is understood, or refused as input. There is no third way."""
    keys = ("source", "destination", "protocol", "mark", "family", "comment", "persistent", "random_fully")
    keys += {
        "snat": ("out_interface", "source_ports", "destination_ports", "to_source", "masquerade"),
        "dnat": ("in_interface", "port", "ports", "to_destination", "local", "hairpin"),
    }[kind]
    whole = MASQUERADE if kind == "snat" else WEB
    for entries in (value, [value], *([{**whole, key: value}] for key in keys)):
        read(kind, entries)
    for key in keys:
        read(kind, [{**whole, f"not_{key}": value}])


# --- what is meant ---------------------------------------------------------------------------------------------------

POST, PRE, OUT = "postrouting", "prerouting", "output"

MEANT: list[tuple[str, dict[str, Any], list[NatRule]]] = [
    ("snat", MASQUERADE, [NatRule(POST, "masquerade"), NatRule(POST, "masquerade", 6)]),
    ("snat", {**MASQUERADE, "family": "ipv6"}, [NatRule(POST, "masquerade", 6)]),
    ("snat", {**MASQUERADE, "source": "0.0.0.0/0"}, [NatRule(POST, "masquerade")]),
    ("snat", {**MASQUERADE, "destination": "::/0"}, [NatRule(POST, "masquerade", 6)]),
    ("snat", {**MASQUERADE, "protocol": "icmp"}, [NatRule(POST, "masquerade", protocol="icmp")]),
    ("snat", {**MASQUERADE, "protocol": 1}, [NatRule(POST, "masquerade", protocol="icmp")]),
    ("snat", {**MASQUERADE, "protocol": "ipv6-icmp"}, [NatRule(POST, "masquerade", 6, protocol="icmpv6")]),
    ("snat", {**MASQUERADE, "protocol": "58"}, [NatRule(POST, "masquerade", 6, protocol="icmpv6")]),
    (
        "snat",
        {**MASQUERADE, "not_protocol": "icmp"},
        [NatRule(POST, "masquerade", family, protocol="icmp", negated=("protocol",)) for family in (4, 6)],
    ),
    (
        "snat",
        {"source": "10.0.0.1", "to_source": "10.0.0.2"},
        [NatRule(POST, "snat", 4, "10.0.0.1/32", to_address="10.0.0.2")],
    ),
    (
        "snat",
        {"to_source": "[FD00:0::1-fd00::0009]:1024-2047", "protocol": "6", "source_ports": "90,80,81,85-89"},
        [
            NatRule(
                POST,
                "snat",
                6,
                protocol="tcp",
                source_ports="80-81,85-90",
                to_address="fd00::1-fd00::9",
                to_ports="1024-2047",
            )
        ],
    ),
    (
        "snat",
        {"to_source": "10.0.0.1-10.0.0.1:80-80", "protocol": "udp", "mark": "0X10/0xFFFFFFFF", "persistent": True},
        [NatRule(POST, "snat", protocol="udp", mark="0x10", to_address="10.0.0.1", to_ports="80", persistent=True)],
    ),
    (
        "snat",
        {
            **MASQUERADE,
            "family": "ipv4",
            "mark": 255,
            "not_out_interface": "br0",
            "random_fully": True,
            "comment": "\u00fc \\ '",
        },
        [
            NatRule(
                POST,
                "masquerade",
                out_interface="br0",
                mark="0xff",
                negated=("out_interface",),
                random_fully=True,
                comment="\u00fc \\ '",
            )
        ],
    ),
    (
        "snat",
        {"to_source": ":1024-2047", "protocol": "tcp", "family": "ipv4"},
        [NatRule(POST, "snat", protocol="tcp", to_ports="1024-2047")],
    ),
    (
        "dnat",
        WEB,
        [
            NatRule(
                PRE, "dnat", protocol="tcp", destination_ports="80", local=True, to_address="10.0.0.2", to_ports="80"
            )
        ],
    ),
    (
        "dnat",
        {"protocol": "tcp", "ports": ["443", 80, "8000:8100"], "to_destination": ":81", "family": "ipv6"},
        [NatRule(PRE, "dnat", 6, protocol="tcp", destination_ports="80,443,8000-8100", local=True, to_ports="81")],
    ),
    (
        "dnat",
        {"destination": "192.0.2.1", "to_destination": "10.0.0.2", "local": True, "in_interface": "eth0"},
        [
            NatRule(PRE, "dnat", 4, "", "192.0.2.1/32", "eth0", to_address="10.0.0.2"),
            NatRule(OUT, "dnat", 4, "", "192.0.2.1/32", to_address="10.0.0.2"),
        ],
    ),
    (
        "dnat",
        {**WEB, "local": True, "hairpin": True, "comment": "web", "not_in_interface": "eth9"},
        [
            NatRule(
                PRE,
                "dnat",
                in_interface="eth9",
                protocol="tcp",
                destination_ports="80",
                negated=("in_interface",),
                local=True,
                to_address="10.0.0.2",
                to_ports="80",
                comment="web",
            ),
            NatRule(
                OUT,
                "dnat",
                destination="127.0.0.0/8",
                protocol="tcp",
                destination_ports="80",
                negated=("destination",),
                local=True,
                to_address="10.0.0.2",
                to_ports="80",
                comment="web",
            ),
            NatRule(
                POST,
                "masquerade",
                destination="10.0.0.2/32",
                protocol="tcp",
                destination_ports="80",
                comment="hairpin web",
            ),
        ],
    ),
]


@pytest.mark.parametrize(("kind", "entry", "rules"), MEANT, ids=range(len(MEANT)))
def test_what_a_rule_means(kind: str, entry: dict[str, Any], rules: list[NatRule]) -> None:
    assert read(kind, [entry]) == (rules, [])


def test_rules_that_differ_in_the_interface_alone_share_what_the_namespace_sends_itself() -> None:
    entries = [{**WEB, "in_interface": name, "local": True, "hairpin": True} for name in ("eth0", "eth1")]
    found, problems = read("dnat", entries)
    assert not problems
    assert [(rule.chain, rule.in_interface) for rule in found] == [
        ("prerouting", "eth0"),
        ("output", ""),
        ("postrouting", ""),
        ("prerouting", "eth1"),
    ]


# --- rules of any kind -----------------------------------------------------------------------------------------------

_SETTINGS = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)

PREFIXES = {
    4: ("10.0.0.0/8", "10.0.0.1", "192.0.2.128/25", "0.0.0.0/0", "128.0.0.0/1"),
    6: ("fd00::/8", "fd00::1", "2001:db8:0:8000::/49", "::/0", "8000::/1", "::1"),
}
ADDRESSES = {4: ("10.0.0.2", "10.0.0.9", "192.0.2.1", "0.0.0.1"), 6: ("fd00::2", "fd00::9", "2001:DB8::a", "::1")}
PORTS = st.one_of(
    st.integers(1, 65535),
    st.tuples(st.integers(1, 65535), st.integers(1, 65535)).map(lambda ends: "-".join(map(str, sorted(ends)))),
)
INTERFACES = st.text("ab0*+-._@\\$~\u00fc'#\"!", min_size=1, max_size=7).filter(lambda name: name not in {".", ".."})
PROTOCOLS = ("tcp", "udp", "sctp", "dccp", "udplite", "icmp", "icmpv6", "ipv6-icmp", 1, 6, "47", 255)
COMMENTS = st.text("ab0 \u00fc\u0416\u8a9e'\\#;{}$@", min_size=1, max_size=12).map(str.strip)


@st.composite
def _matches(draw: st.DrawFn, family: int, interface: str, negatable: bool = True) -> dict[str, Any]:
    pool: dict[str, st.SearchStrategy[Any]] = {
        "source": st.sampled_from(PREFIXES[family]),
        "destination": st.sampled_from(PREFIXES[family]),
        interface: INTERFACES,
        "mark": st.integers(0, 2**32 - 1) | st.sampled_from(["0x1/0xff", "0/0", "0x80000000/0x80000000", "7"]),
    }
    entry = {}
    for key, values in pool.items():
        if draw(st.booleans()):
            entry[draw(st.sampled_from((key, f"not_{key}")))] = draw(values)
    for key, values in (("comment", COMMENTS), ("random_fully", st.booleans()), ("persistent", st.booleans())):
        if draw(st.booleans()):
            entry[key] = draw(values)
    if draw(st.booleans()):
        entry["family"] = f"ipv{family}"
    return entry


@st.composite
def _target(draw: st.DrawFn, family: int, with_ports: bool) -> str:
    ends = draw(st.lists(st.sampled_from(ADDRESSES[family]), min_size=1, max_size=2))
    address = "-".join(ends)
    if not with_ports or draw(st.booleans()):
        return address
    ports = draw(PORTS)
    if draw(st.booleans()):
        return f":{ports}"
    return f"[{address}]:{ports}" if family == 6 else f"{address}:{ports}"


@st.composite
def snat_entries(draw: st.DrawFn) -> dict[str, Any]:
    family = draw(st.sampled_from((4, 6)))
    entry = draw(_matches(family, "out_interface"))
    if draw(st.booleans()):
        entry[draw(st.sampled_from(("protocol", "protocol", "not_protocol")))] = draw(st.sampled_from(PROTOCOLS))
    with_ports = entry.get("protocol") in ("tcp", "udp", "sctp", "dccp", "udplite", 6)
    for key in ("source_ports", "destination_ports") if with_ports else ():
        if draw(st.booleans()):
            entry[draw(st.sampled_from((key, f"not_{key}")))] = draw(st.lists(PORTS, min_size=1, max_size=18))
    if draw(st.booleans()):
        entry["masquerade"] = True
    else:
        entry["to_source"] = draw(_target(family, with_ports))
    return entry


@st.composite
def dnat_entries(draw: st.DrawFn) -> dict[str, Any]:
    family = draw(st.sampled_from((4, 6)))
    entry = draw(_matches(family, "in_interface"))
    if draw(st.integers(0, 3)):
        entry["protocol"] = draw(st.sampled_from(PROTOCOLS))
    with_ports = entry.get("protocol") in ("tcp", "udp", "sctp", "dccp", "udplite", 6)
    if with_ports and draw(st.integers(0, 3)):
        key = draw(st.sampled_from(("port", "ports")))
        entry[key] = draw(PORTS if key == "port" else st.lists(PORTS, min_size=1, max_size=18))
    entry["to_destination"] = draw(_target(family, with_ports))
    for key in ("local", "hairpin"):
        if draw(st.booleans()):
            entry[key] = True
    return entry


ENTRIES = {"snat": snat_entries(), "dnat": dnat_entries()}


def understood(kind: str, entries: list[dict[str, Any]]) -> list[NatRule]:
    """The rules of those entries that mean something, and something else than those before."""
    good: list[dict[str, Any]] = []
    for entry in entries:
        if not read(kind, [*good, entry])[1]:
            good.append(entry)
    return read(kind, good)[0]


@pytest.mark.parametrize("kind", ["snat", "dnat"])
def test_the_generated_rules_are_mostly_good_ones(kind: str) -> None:
    """Else the properties below would say little."""
    counts = [0, 0]

    @settings(max_examples=200, deadline=None, database=None, derandomize=True)
    @given(entry=ENTRIES[kind])
    def count(entry: dict[str, Any]) -> None:
        counts[not read(kind, [entry])[1]] += 1

    count()
    assert counts[1] > 50, counts


@pytest.mark.parametrize("kind", ["snat", "dnat"])
def test_what_is_accepted_can_be_written_or_the_limits_name_it(kind: str) -> None:
    """Each backend takes what the reader takes, or says before anything is touched what it has no word for."""

    @_SETTINGS
    @given(entries=st.lists(ENTRIES[kind], max_size=5))
    def check(entries: list[dict[str, Any]]) -> None:
        for rule in understood(kind, entries):
            if not list(limits("nftables", rule)):
                assert nftables._comment("lab", rule)
                assert nftables._is_writable(rule._replace(comment="")), rule
            if not list(limits("iptables", rule)):
                arguments = iptables._arguments("lab", rule)
                assert iptables._rule("lab", rule.family, rule.chain.upper(), arguments) == rule

    check()


@_SETTINGS
@given(snat=st.lists(snat_entries(), max_size=5), dnat=st.lists(dnat_entries(), max_size=5))
def test_captured_rules_read_again_are_the_same(snat: list[dict[str, Any]], dnat: list[dict[str, Any]]) -> None:
    rules = [
        rule._replace(source="10.0.0.0/24") if rule.comment.startswith("hairpin") else rule
        for rule in in_order([*understood("dnat", dnat), *understood("snat", snat)])
    ]
    body = capture_nat(rules)
    found = []
    for kind in ("dnat", "snat"):
        again, problems = read(kind, body.get(kind))
        assert not problems, body
        found += again
    bare = [rule._replace(source="") if rule.comment.startswith("hairpin") else rule for rule in rules]
    assert in_order(found) == in_order(bare)
    assert capture_nat(in_order(found)) == body


# --- planning --------------------------------------------------------------------------------------------------------


def options(namespace: str, rules: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    default = {"lab": None, "purge": False, "backend": "auto", "state": "present"}
    return {**default, "namespace": namespace, "rules": rules, **more}


def host(nat: dict[str, list[NatRule]] | None = None, *addresses: str, **more: Any) -> State:
    """A host with these rules of the demand's lab, and with addresses on eth0."""
    loopback = kernel.new_namespace(HOST).links["lo"]
    eth0 = Link("eth0", 2, up=True, addresses=[Address(address) for address in addresses])
    there = {backend: in_order(rules) for backend, rules in (nat or {}).items()}
    namespace = Namespace(HOST, inode=1, links={"lo": loopback, "eth0": eth0}, nat=there)
    for key in ("legacy_nat", "others_nat"):
        if key in more:
            setattr(namespace, key, more.pop(key))
    return State({HOST: namespace}, **{"nat_backends": frozenset(("nftables", "iptables")), **more})


def masquerade(number: int, **words: Any) -> NatRule:
    return NatRule(POST, "masquerade", source=f"10.0.{number}.0/24", **words)


def entry(number: int, **words: Any) -> dict[str, Any]:
    return {"source": f"10.0.{number}.0/24", "masquerade": True, **words}


def planned(wanted: Wanted, state: State) -> Plan:
    """The plan; after it there is nothing to do."""
    found = plan(wanted, state)
    after = kernel.copy(state)
    for change in found.changes:
        kernel.play(after, change)
    assert not plan(wanted, after).steps
    return found


def merged(there: list[int], wanted: list[int], **more: Any) -> list[int] | None:
    """The order of rules by number after a run of ns_snat; None if it would change nothing."""
    state = host({"nftables": [masquerade(number) for number in there]} if there else None)
    changes = planned(_options.ns_snat(options(HOST, list(map(entry, wanted)), **more)), state).changes
    if not changes:
        return None
    (change,) = changes
    assert isinstance(change, c.SetNat)
    return [int(rule.source.split(".")[2]) for rule in change.rules]


@pytest.mark.parametrize(
    ("there", "wanted", "result"),
    [
        ([], [1, 2, 3], [1, 2, 3]),
        ([1, 2, 3], [1, 2, 3], None),
        ([1, 2, 3], [1, 3], None),
        ([1, 2, 3], [], None),
        # a missing one goes next to its neighbours
        ([1, 3], [1, 2, 3], [1, 2, 3]),
        ([1, 9, 3], [1, 2, 3], [1, 2, 9, 3]),
        ([9, 2, 3], [1, 2, 3], [9, 1, 2, 3]),
        ([9, 1, 8], [1, 2], [9, 1, 2, 8]),
        ([9, 8], [1, 2], [9, 8, 1, 2]),
        ([9, 3, 8], [1, 2, 3, 4, 5], [9, 1, 2, 3, 4, 5, 8]),
        # duplicates collapse into the first, others' duplicates are theirs
        ([1, 1], [1], [1]),
        ([1, 2, 1, 3, 2], [1, 2], [1, 2, 3]),
        ([9, 9, 1], [1], None),
        # another order is put right, and what is not named stays before
        ([2, 1], [1, 2], [1, 2]),
        ([3, 9, 1, 2], [1, 2, 3], [9, 1, 2, 3]),
        ([2, 9, 1], [1, 2, 3], [9, 1, 2, 3]),
    ],
)
def test_without_purge_the_wanted_rules_are_there_in_order_and_others_stay(
    there: list[int], wanted: list[int], result: list[int] | None
) -> None:
    assert merged(there, wanted) == result


@pytest.mark.parametrize(
    ("there", "wanted", "result"),
    [
        ([1, 9, 2], [1, 2], [1, 2]),
        ([2, 1], [1, 2], [1, 2]),
        ([1, 1], [1], [1]),
        ([1, 2], [], []),
        ([], [], None),
        ([1, 2], [1, 2], None),
    ],
)
def test_with_purge_there_are_exactly_the_wanted_rules(
    there: list[int], wanted: list[int], result: list[int] | None
) -> None:
    assert merged(there, wanted, purge=True) == result


@pytest.mark.parametrize(
    ("there", "wanted", "result"),
    [([1, 2, 3], [2], [1, 3]), ([1, 2, 1], [1], [2]), ([1], [1], []), ([1], [2], None), ([], [1], None)],
)
def test_absent_removes_what_is_named(there: list[int], wanted: list[int], result: list[int] | None) -> None:
    assert merged(there, wanted, state="absent") == result


WEB_RULE, WEB_OUT, WEB_HAIRPIN = read("dnat", [{**WEB, "local": True, "hairpin": True}])[0]
HAIRPIN = WEB_HAIRPIN._replace(source="10.0.0.0/24")
PUBLISHED = [WEB_RULE, WEB_OUT, HAIRPIN]


@pytest.mark.parametrize("purge", [False, True])
def test_snat_and_dnat_do_not_touch_each_others_rules(purge: bool) -> None:
    state = host({"nftables": [*PUBLISHED, masquerade(1)]}, "10.0.0.1/24")
    (change,) = planned(_options.ns_snat(options(HOST, [entry(2)], purge=purge)), state).changes
    kept = [] if purge else [masquerade(1)]
    assert change.rules == in_order([*PUBLISHED, *kept, masquerade(2)])
    dnat = {**WEB, "port": 81}
    (change,) = planned(_options.ns_dnat(options(HOST, [dnat], purge=purge)), state).changes
    kept = [] if purge else PUBLISHED
    assert change.rules == in_order([*kept, *read("dnat", [dnat])[0], masquerade(1)])


def test_the_rules_of_published_ports_go_before_those_of_snat_in_one_chain() -> None:
    state = host({"nftables": [masquerade(1)]}, "10.0.0.1/24")
    (change,) = planned(_options.ns_dnat(options(HOST, [{**WEB, "hairpin": True}])), state).changes
    assert [rule for rule in change.rules if rule.chain == POST] == [HAIRPIN, masquerade(1)]


def test_what_cannot_be_said_goes_with_the_first_change_and_even_without_one() -> None:
    strange = NatRule(POST, "", unknown="counter")
    state = host({"nftables": [masquerade(1), strange]})
    (change,) = planned(_options.ns_snat(options(HOST, [entry(1)])), state).changes
    assert change.rules == (masquerade(1),)
    assert [str(one) for one in c.descriptions(change)] == ["remove snat host [counter] backend nftables"]


def test_a_hairpin_is_for_the_smallest_prefix_that_the_target_is_in() -> None:
    state = host({}, "10.0.0.1/8", "10.0.0.3/24", "192.0.2.1/24")
    (change,) = planned(_options.ns_dnat(options(HOST, [{**WEB, "hairpin": True}])), state).changes
    assert change.rules[1].source == "10.0.0.0/24"


def test_a_hairpin_without_neighbours_is_refused() -> None:
    wanted = _options.ns_dnat(options(HOST, [{**WEB, "hairpin": True}]))
    assumed = plan(wanted, host({}, "10.9.0.1/24")).assumptions
    assert [problem.path for problem in assumed] == ["rules[0].hairpin"]
    assert "no interface of the namespace host has the prefix of 10.0.0.2" in assumed[0].text


def test_a_hairpin_goes_whatever_has_become_of_its_prefix() -> None:
    dnat = [{**WEB, "local": True, "hairpin": True}]
    wanted = _options.ns_dnat(options(HOST, dnat, state="absent"))
    for addresses in ((), ("10.0.0.1/16",)):
        state = host({"nftables": [*PUBLISHED, masquerade(1)]}, *addresses)
        found = planned(wanted, state)
        assert not found.assumptions
        assert found.changes[0].rules == (masquerade(1),)
    wanted = _options.ns_dnat(options("nowhere", dnat, state="absent"))
    found = plan(wanted, host())
    assert (found.steps, found.assumptions) == ([], [])


def test_a_hairpin_stays_as_long_as_another_published_port_may_need_it() -> None:
    """Two ports that lead to one service share the rule by which its neighbours get their answers."""
    rules = [{**WEB, "port": port, "hairpin": True} for port in (8080, 8081)]
    both = read("dnat", rules)[0]
    there = [rule._replace(source="10.0.0.0/24") if rule.chain == POST else rule for rule in both]
    assert len(there) == 3
    state = host({"nftables": there}, "10.0.0.1/24")
    (change,) = planned(_options.ns_dnat(options(HOST, rules[:1], state="absent")), state).changes
    assert change.rules == (there[2], there[1])
    (change,) = planned(_options.ns_dnat(options(HOST, rules, state="absent")), state).changes
    assert change.rules == ()


# the backend

BOTH = ("nftables", "iptables")


def chosen(state: State, backend: str = "auto") -> dict[str, str]:
    return plan(_options.ns_snat(options(HOST, [entry(1)], backend=backend)), state).backends


@pytest.mark.parametrize(
    ("nat", "more", "backend"),
    [
        ({}, {}, "nftables"),
        ({}, {"legacy_nat": True}, "iptables"),
        ({"nftables": [masquerade(1)]}, {"legacy_nat": True}, "nftables"),
        ({"iptables": [masquerade(1)]}, {"legacy_nat": True}, "iptables"),
        ({"nftables": [masquerade(1)], "iptables": [masquerade(1)]}, {"legacy_nat": True}, "iptables"),
        ({}, {"nat_backends": frozenset(("iptables",))}, "iptables"),
        ({}, {"nat_backends": frozenset(("nftables",)), "legacy_nat": True}, "nftables"),
        ({}, {"nat_backends": frozenset(("nftables",))}, "nftables"),
    ],
)
def test_auto_keeps_the_holder_or_takes_what_is_in_use(
    nat: dict[str, list[NatRule]], more: dict[str, Any], backend: str
) -> None:
    assert chosen(host(nat, **more)) == {HOST: backend}
    for said in BOTH:
        if said in more.get("nat_backends", BOTH):
            assert chosen(host(nat, **more), said) == {HOST: said}


def test_a_missing_backend_is_said_with_the_path() -> None:
    document = {"name": "x", "namespaces": {HOST: {"snat": [entry(1)], "nat_backend": "iptables"}}}
    for wanted, path in (
        (read_topology(document).wanted, "namespaces.host.nat_backend"),
        (_options.ns_snat(options(HOST, [entry(1)], backend="iptables")), "backend"),
    ):
        with pytest.raises(Refused) as caught:
            plan(wanted, host(nat_backends=frozenset(("nftables",))))
        assert [problem.path for problem in caught.value.problems] == [path]
        assert "'iptables' cannot be used: the managed host lacks the Python library python-iptables" in str(
            caught.value
        )
    with pytest.raises(Refused, match=r"^rules\[0\]: the managed host can translate no addresses: it lacks nftables"):
        plan(_options.ns_snat(options(HOST, [entry(1)])), host(nat_backends=frozenset()))
    # Without rules nobody needs one.
    assert not plan(_options.ns_snat(options(HOST, [], purge=True)), host(nat_backends=frozenset())).steps


def test_a_switch_adds_the_rules_before_it_removes_them() -> None:
    state = host({"nftables": [masquerade(1), masquerade(2)]})
    found = planned(_options.ns_snat(options(HOST, [entry(1)], backend="iptables")), state)
    assert [(change.backend, len(change.rules)) for change in found.changes] == [("iptables", 2), ("nftables", 0)]
    assert found.backends == {HOST: "iptables"}


def test_what_a_killed_switch_has_left_in_both_backends_comes_together() -> None:
    state = host({backend: [masquerade(1), masquerade(2)] for backend in BOTH}, legacy_nat=True)
    found = planned(_options.ns_snat(options(HOST, [entry(2)])), state)
    assert [(change.backend, change.rules) for change in found.changes] == [("nftables", ())]


def test_what_the_backend_cannot_do_is_said_with_the_path() -> None:
    rules = [entry(1), entry(2, persistent=True)]
    with pytest.raises(Refused) as caught:
        plan(_options.ns_snat(options(HOST, rules, backend="iptables")), host())
    assert [str(problem) for problem in caught.value.problems] == [
        "rules[1]: iptables has no persistent for masquerade"
    ]
    with pytest.raises(Refused, match=r"rules\[0\]: nftables' JSON has no way to say the interface name '@a'"):
        plan(_options.ns_snat(options(HOST, [entry(1, out_interface="@a")])), host())


def test_what_the_backend_cannot_do_of_rules_that_move_with_the_others_is_said() -> None:
    """ns_snat takes the rules of ns_dnat along to another backend."""
    (published,) = read("dnat", [{**WEB, "random_fully": True}])[0]
    state = host({"nftables": [published]})
    with pytest.raises(Refused) as caught:
        plan(_options.ns_snat(options(HOST, [entry(1)], backend="iptables")), state)
    (problem,) = caught.value.problems
    assert problem.path == "backend"
    assert "iptables has no random_fully for dnat" in problem.text
    assert "to_destination 10.0.0.2:80" in problem.text


def test_rules_of_others_in_the_other_backend_are_warned_of() -> None:
    state = host(legacy_nat=True, others_nat=frozenset(BOTH))
    (warning,) = plan(_options.ns_snat(options(HOST, [entry(1)], backend="nftables")), state).warnings
    assert "the namespace host has rules of translation both in nftables, which are this lab's, and in the" in warning
    assert "the table nat of legacy iptables" in warning
    (warning,) = plan(_options.ns_snat(options(HOST, [entry(1)], backend="iptables")), state).warnings
    assert "a table of nftables that is not" in warning


@pytest.mark.parametrize(
    ("backends", "legacy_nat", "is_warned"),
    [(("nftables",), True, True), (BOTH, True, False), (("nftables",), False, False)],
)
def test_rules_that_may_stay_unseen_are_warned_of(backends: tuple[str, ...], legacy_nat: bool, is_warned: bool) -> None:
    whole = {"topology": {"name": "x"}, "state": "absent", "lab": None, "adopt": False, "strict": False}
    for wanted in (_options.ns_snat(options(HOST, [entry(1)], state="absent")), _options.topology(whole)):
        warnings = plan(wanted, host(legacy_nat=legacy_nat, nat_backends=frozenset(backends))).warnings
        assert [("rules that were made in it stay" in warning) for warning in warnings] == [True] * is_warned


# how it reads


def test_changes_name_each_rule() -> None:
    before = [masquerade(1), masquerade(2), masquerade(3), NatRule(POST, "", unknown="set x")]
    after = [masquerade(3), masquerade(1), masquerade(2, comment="new")]
    change = c.SetNat("a", "nftables", tuple(after), tuple(before))
    assert [str(one) for one in c.descriptions(change)] == [
        "remove snat a source 10.0.2.0/24 masquerade backend nftables",
        "remove snat a [set x] backend nftables",
        "move snat a source 10.0.3.0/24 masquerade backend nftables position 3 -> 1",
        "add snat a source 10.0.2.0/24 masquerade comment 'new' backend nftables",
    ]


def test_a_doubled_rule_that_goes_is_removed_and_not_moved() -> None:
    change = c.SetNat("a", "iptables", (masquerade(1), masquerade(2)), (masquerade(1), masquerade(2), masquerade(1)))
    assert [str(one) for one in c.descriptions(change)] == [
        "remove snat a source 10.0.1.0/24 masquerade backend iptables"
    ]


@_SETTINGS
@given(data=st.data())
def test_undoing_a_change_leads_back(data: st.DataObject) -> None:
    numbers = st.lists(st.integers(1, 5), max_size=6)
    state = host(
        {"nftables": [masquerade(number) for number in data.draw(numbers)]} if data.draw(st.booleans()) else {}
    )
    wanted = _options.ns_snat(
        options(
            HOST,
            [entry(number) for number in dict.fromkeys(data.draw(numbers))],
            purge=data.draw(st.booleans()),
            backend=data.draw(st.sampled_from(("auto", *BOTH))),
        )
    )
    before = dict(state.namespaces[HOST].nat)
    after = kernel.copy(state)
    steps = plan(wanted, state).steps
    for step in steps:
        kernel.play(after, step.change)
    for step in reversed(steps):
        for change in step.undo:
            if isinstance(change, c.RestoreNat):
                after.namespaces[HOST].nat.pop(change.backend, None)
                if change.backend in before:
                    after.namespaces[HOST].nat[change.backend] = before[change.backend]
            else:
                kernel.play(after, change)
    assert after.namespaces[HOST].nat == before
    with contextlib.suppress(NslabError):
        assert plan(wanted, after).changes == [step.change for step in steps]
