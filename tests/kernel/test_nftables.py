# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of a lab in the kernel, by nft's own words, and by what it does to connections."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gzip
import importlib.util
import ipaddress
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.nslab.netns.plugins.module_utils import _namespaces, _nftables
from ansible_collections.nslab.netns.plugins.module_utils._errors import KernelError, Missing, NslabError
from ansible_collections.nslab.netns.plugins.module_utils._nat import NatRule
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from throwaway import ip, throwaway_host

EXAMPLES = int(os.environ.get("NSLAB_EXAMPLES", "60"))

NFT = _nftables._program()
if NFT is None:
    pytest.skip("the program nft is not installed", allow_module_level=True)

#: It depends neither on pyroute2 nor on python-iptables.
pytestmark = pytest.mark.once

#: Where distributions put the binding, which is for their own Python only.
SYSTEM_PACKAGES = Path("/usr/lib/python3/dist-packages")


def nft(script: str) -> str:
    """Let nft do these commands; return what it prints."""
    done = subprocess.run([NFT, "-f", "-"], input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{script}\n{done.stderr}"
    return done.stdout


def ruleset() -> str:
    return nft("list ruleset")


def listed(lab: str = "t") -> list[str]:
    """The rules of the lab's table, as nft prints them."""
    lines = [line.strip() for line in nft(f"list table inet nslab-{lab}").splitlines()]
    return [line for line in lines if line and not line.startswith(("table ", "chain ", "type ", "}"))]


def handles(lab: str = "t") -> list[tuple[str, int]]:
    """Chain and handle of each rule of the lab's table."""
    done = subprocess.run(
        [NFT, "-j", "list", "table", "inet", f"nslab-{lab}"], capture_output=True, text=True, check=True
    )
    entries = [entry["rule"] for entry in json.loads(done.stdout)["nftables"] if "rule" in entry]
    return [(entry["chain"], entry["handle"]) for entry in entries]


@pytest.fixture(scope="session")
def binding_folder(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """A folder with nothing but the binding in it; None if this Python has it anyway."""
    if importlib.util.find_spec("nftables"):
        return None
    if not (SYSTEM_PACKAGES / "nftables").is_dir():
        pytest.skip("nftables' Python binding is not installed (Debian: python3-nftables)")
    folder = tmp_path_factory.mktemp("binding")
    (folder / "nftables").symlink_to(SYSTEM_PACKAGES / "nftables")
    return folder


@contextlib.contextmanager
def way(name: str, folder: Path | None) -> Iterator[None]:
    """All goes through the binding, or through the program."""
    with pytest.MonkeyPatch.context() as patch:
        if name == "binding":
            if folder is not None:
                patch.syspath_prepend(str(folder))
            _nftables._binding.cache_clear()
            if _nftables._binding() is None:
                pytest.skip("nftables' Python binding does not load here")
            patch.setattr(_nftables, "_program", lambda: None)
        else:
            patch.setattr(_nftables, "_binding", lambda: None)
        yield
    _nftables._binding.cache_clear()
    sys.modules.pop("nftables", None)


@pytest.fixture(params=["binding", "program"])
def either(request: pytest.FixtureRequest) -> Iterator[None]:
    """The test goes both ways."""
    folder = request.getfixturevalue("binding_folder") if request.param == "binding" else None
    with way(request.param, folder):
        yield


@pytest.fixture
def binding(binding_folder: Path | None) -> Iterator[None]:
    with way("binding", binding_folder):
        yield


@pytest.fixture
def program() -> Iterator[None]:
    with way("program", None):
        yield


def masquerade(**words: Any) -> NatRule:
    return NatRule("postrouting", "masquerade", **words)


def snat(to_address: str, **words: Any) -> NatRule:
    return NatRule("postrouting", "snat", to_address=to_address, **words)


def dnat(to_address: str = "", chain: str = "prerouting", **words: Any) -> NatRule:
    return NatRule(chain, "dnat", to_address=to_address, **words)


#: Rules, each with the listing of nft that is to come out; None where only the way back matters.
RULES: list[tuple[NatRule, str | None]] = [
    # what is published
    (
        dnat("10.0.0.1", protocol="tcp", destination_ports="80", local=True, to_ports="8080", comment="the web"),
        "meta nfproto ipv4 fib daddr type local tcp dport 80 dnat ip to 10.0.0.1:8080",
    ),
    (
        dnat("fd00::1", family=6, destination="fd00::/64", protocol="udp", destination_ports="53", to_ports="53"),
        "ip6 daddr fd00::/64 udp dport 53 dnat ip6 to [fd00::1]:53",
    ),
    (dnat("10.0.0.1", in_interface="eth0"), 'meta nfproto ipv4 iifname "eth0" dnat ip to 10.0.0.1'),
    (dnat("fd00::1", family=6, local=True), "meta nfproto ipv6 fib daddr type local dnat ip6 to fd00::1"),
    (
        dnat("10.0.0.1-10.0.0.9", protocol="tcp", destination_ports="80,443,8000-8100", to_ports="80-90"),
        "meta nfproto ipv4 tcp dport { 80, 443, 8000-8100 } dnat ip to 10.0.0.1-10.0.0.9:80-90",
    ),
    (
        dnat(protocol="tcp", destination_ports="81", to_ports="8081"),
        "meta nfproto ipv4 tcp dport 81 dnat to :8081",
    ),
    (dnat(family=6, protocol="tcp", destination_ports="81", to_ports="8081-8089"), None),
    (dnat("10.0.0.2", protocol="tcp", to_ports="1"), "meta nfproto ipv4 meta l4proto tcp dnat ip to 10.0.0.2:1"),
    (dnat("10.0.0.0-10.0.0.255", random_fully=True), "meta nfproto ipv4 dnat ip to 10.0.0.0/24 fully-random"),
    (dnat("fd00::-fd00::ffff", family=6, persistent=True), None),
    (dnat("fd00::1-fd00::9", family=6, protocol="sctp", destination_ports="1-2", to_ports="3-4"), None),
    (dnat("10.0.0.1", source="10.9.0.0/16", negated=("source",)), "ip saddr != 10.9.0.0/16 dnat ip to 10.0.0.1"),
    (dnat("10.0.0.1", protocol="icmp"), "meta l4proto icmp dnat ip to 10.0.0.1"),
    (dnat("fd00::1", family=6, protocol="icmpv6"), None),
    (dnat("10.0.0.1", in_interface="eth*"), r'meta nfproto ipv4 iifname "eth\*" dnat ip to 10.0.0.1'),
    (dnat("10.0.0.1", in_interface="*"), None),
    (dnat("10.0.0.1", in_interface="eth0.1+\\x"), None),
    (dnat("10.0.0.1", in_interface="über"), None),
    (dnat("10.0.0.1", chain="output", destination="10.0.0.7/32"), "ip daddr 10.0.0.7 dnat ip to 10.0.0.1"),
    (dnat("10.0.0.1", chain="output", protocol="tcp", destination_ports="80", to_ports="81", local=True), None),
    (dnat("fd00::1", chain="output", family=6, destination="fd00::7/128", comment="ü ö, ' and \\"), None),
    # what goes out
    (
        masquerade(source="10.0.0.0/8", out_interface="eth1", negated=("out_interface",), comment=" two  spaces "),
        'ip saddr 10.0.0.0/8 oifname != "eth1" masquerade',
    ),
    (masquerade(), "meta nfproto ipv4 masquerade"),
    (masquerade(family=6), "meta nfproto ipv6 masquerade"),
    (masquerade(source="0.0.0.0/0"), "ip saddr 0.0.0.0/0 masquerade"),
    (masquerade(family=6, source="::/0", destination=str(ipaddress.ip_network("::ffff:0:0/96"))), None),
    (masquerade(family=6, source="fd00:0:0:8000::/49"), "ip6 saddr fd00:0:0:8000::/49 masquerade"),
    (masquerade(source="10.128.0.0/9", destination="10.0.0.0/9", negated=("source", "destination")), None),
    (masquerade(random_fully=True), "meta nfproto ipv4 masquerade fully-random"),
    (masquerade(persistent=True), "meta nfproto ipv4 masquerade persistent"),
    (masquerade(random_fully=True, persistent=True), "meta nfproto ipv4 masquerade fully-random,persistent"),
    (
        masquerade(protocol="udp", source_ports="1-1023", to_ports="1024-65535"),
        "meta nfproto ipv4 udp sport 1-1023 masquerade to :1024-65535",
    ),
    (masquerade(protocol="udplite", to_ports="5", random_fully=True), None),
    (masquerade(protocol="icmp"), "meta l4proto icmp masquerade"),
    (masquerade(protocol="icmp", negated=("protocol",)), "meta nfproto ipv4 meta l4proto != icmp masquerade"),
    (masquerade(family=6, protocol="icmp"), "meta nfproto ipv6 meta l4proto icmp masquerade"),
    (masquerade(protocol="icmpv6"), None),
    (masquerade(family=6, protocol="icmpv6"), None),
    (masquerade(family=6, protocol="icmpv6", negated=("protocol",)), None),
    (masquerade(protocol="47"), None),
    (masquerade(protocol="0"), None),
    (masquerade(protocol="255", source="10.0.0.0/8"), "ip saddr 10.0.0.0/8 meta l4proto 255 masquerade"),
    (masquerade(mark="0x1"), "meta nfproto ipv4 meta mark 0x00000001 masquerade"),
    (masquerade(mark="0x0", negated=("mark",)), "meta nfproto ipv4 meta mark != 0x00000000 masquerade"),
    (masquerade(mark="0x1/0xff"), "meta nfproto ipv4 meta mark & 0x000000ff == 0x00000001 masquerade"),
    (masquerade(mark="0x10/0xfffffff0", negated=("mark",)), None),
    (masquerade(mark="0x80000000/0x80000000"), None),
    (masquerade(mark="0x1/0xff000000"), None),
    (masquerade(mark="0x0/0x0"), None),
    (
        snat("10.0.2.1", source="10.0.1.0/24", out_interface="veth-cli"),
        'ip saddr 10.0.1.0/24 oifname "veth-cli" snat ip to 10.0.2.1',
    ),
    (snat("10.0.2.1-10.0.2.2", persistent=True), "meta nfproto ipv4 snat ip to 10.0.2.1-10.0.2.2 persistent"),
    (snat("10.0.2.1", protocol="dccp", source_ports="1,3", destination_ports="5-7", to_ports="9"), None),
    (
        snat("10.0.2.1", protocol="tcp", destination_ports="22,80-90", negated=("destination_ports",), to_ports="1-9"),
        "meta nfproto ipv4 tcp dport != { 22, 80-90 } snat ip to 10.0.2.1:1-9",
    ),
    (snat("10.0.2.1", protocol="tcp", destination_ports="22", negated=("destination_ports",)), None),
    (snat("10.0.2.1", protocol="tcp", destination_ports="22-23", negated=("destination_ports",)), None),
    (snat("10.0.2.1", protocol="tcp", source_ports="0,65535"), None),
    (snat("10.0.2.1", protocol="tcp", source_ports="0-65535"), None),
    (snat("fd00::2", family=6, source="fd00::1/128", protocol="tcp"), None),
    (snat("::102:304", family=6), None),
    (snat("10.0.2.0-10.0.2.3", protocol="udp", to_ports="1-2"), None),
    (
        snat(
            "10.0.2.1",
            source="10.0.0.0/8",
            destination="10.1.0.0/16",
            out_interface="eth1",
            protocol="tcp",
            source_ports="1,5-6",
            destination_ports="80",
            mark="0x1/0xf",
            negated=("source", "destination", "out_interface", "source_ports", "destination_ports", "mark"),
            to_ports="1-2",
            random_fully=True,
            persistent=True,
            comment="all at once",
        ),
        None,
    ),
]


def by_chain(rules: list[NatRule]) -> list[NatRule]:
    return sorted(rules, key=lambda rule: ["prerouting", "output", "postrouting"].index(rule.chain))


@pytest.mark.usefixtures("host", "either")
@pytest.mark.parametrize("lab", ["", "t", "A.b_c-d" + "x" * 57])
def test_a_table_is_read_as_it_was_written(lab: str) -> None:
    rules = by_chain([rule for rule, _text in RULES])
    if len(lab) > 57:
        rules = [rule._replace(comment=rule.comment[:5]) for rule in rules]
    assert _nftables.read(lab) is None
    _nftables.replace(lab, rules)
    assert _nftables.read(lab) == rules
    # The order in which the chains' rules come makes no difference; that within a chain does.
    _nftables.replace(lab, rules[::-1])
    assert _nftables.read(lab) == by_chain(rules[::-1])
    _nftables.replace(lab, [])
    assert _nftables.read(lab) is None
    assert ruleset() == ""


@pytest.mark.usefixtures("host", "either")
def test_the_kernel_has_the_rules_in_these_words() -> None:
    rules = by_chain([rule for rule, text in RULES if text])
    texts = dict(RULES)
    _nftables.replace("t", rules)
    comments = [f"nslab:t {rule.comment}" if rule.comment else "nslab:t" for rule in rules]
    assert listed() == [f'{texts[rule]} comment "{comment}"' for rule, comment in zip(rules, comments)]


@pytest.mark.usefixtures("host", "either")
def test_the_table_has_the_chains_that_it_needs() -> None:
    _nftables.replace("t", [masquerade(out_interface="eth0", comment="out")])
    assert ruleset() == (
        "table inet nslab-t {\n"
        "\tchain postrouting {\n"
        "\t\ttype nat hook postrouting priority srcnat; policy accept;\n"
        '\t\tmeta nfproto ipv4 oifname "eth0" masquerade comment "nslab:t out"\n'
        "\t}\n"
        "}\n"
    )
    _nftables.replace("t", [dnat("10.0.0.1"), dnat("10.0.0.1", chain="output")])
    # Newer versions have a name for the priority of an output chain as well.
    assert ruleset().replace("hook output priority dstnat;", "hook output priority -100;") == (
        "table inet nslab-t {\n"
        "\tchain prerouting {\n"
        "\t\ttype nat hook prerouting priority dstnat; policy accept;\n"
        '\t\tmeta nfproto ipv4 dnat ip to 10.0.0.1 comment "nslab:t"\n'
        "\t}\n"
        "\n"
        "\tchain output {\n"
        "\t\ttype nat hook output priority -100; policy accept;\n"
        '\t\tmeta nfproto ipv4 dnat ip to 10.0.0.1 comment "nslab:t"\n'
        "\t}\n"
        "}\n"
    )


@pytest.mark.usefixtures("host", "either")
def test_what_nft_lists_can_be_loaded_again() -> None:
    """An administrator's `nft list ruleset > file` is good for a restore."""
    # nft 1.0.6 cannot read what it lists for a range that is a prefix and has ports, 10.0.2.0/30:1-2, and takes the
    # bits that it masks for zeros in what it lists for 0x1/0xff000000, 0x00000001/8.
    misread = {"10.0.2.0-10.0.2.3", "0x1/0xff000000"}
    rules = by_chain([rule for rule, _text in RULES if not misread & {rule.to_address, rule.mark}])
    _nftables.replace("t", rules)
    saved = ruleset()
    _nftables.replace("t", [])
    nft(saved)
    assert _nftables.read("t") == rules


@pytest.mark.usefixtures("host", "either")
def test_many_rules_at_once() -> None:
    rules = [masquerade(source=f"10.{i // 250}.{i % 250}.0/24", comment=f"number {i}") for i in range(2000)]
    _nftables.replace("t", rules)
    assert _nftables.read("t") == rules


# --- rules of any kind -----------------------------------------------------------------------------------------------


PORT_PROTOCOLS = ["tcp", "udp", "sctp", "dccp", "udplite"]
MATCHES = ("source", "destination", "in_interface", "out_interface", "protocol", "source_ports", "destination_ports")
ports = st.integers(0, 65535) | st.sampled_from([0, 1, 255, 256, 1023, 1024, 65534, 65535])
names = st.text(st.sampled_from("ab0*+-._@\\$~ü'#"), min_size=1, max_size=7)


def addresses(family: int) -> st.SearchStrategy[str]:
    few = ["10.0.0.1", "1.0.0.0", "255.255.255.255"] if family == 4 else ["fd00::1", "::", "::1", "::ffff:1.2.3.4"]
    kind = ipaddress.IPv4Address if family == 4 else ipaddress.IPv6Address
    return (st.integers(0, 2 ** (32 if family == 4 else 128) - 1) | st.sampled_from(few)).map(kind).map(str)


@st.composite
def prefixes(draw: st.DrawFn, family: int) -> str:
    length = draw(st.integers(0, 32 if family == 4 else 128))
    return str(ipaddress.ip_network(f"{draw(addresses(family))}/{length}", strict=False))


@st.composite
def ranges(draw: st.DrawFn, family: int) -> str:
    if draw(st.booleans()):
        # One that is a prefix, which nft lists as one.
        network = ipaddress.ip_network(draw(prefixes(family)))
        first, last = network[0], network[-1]
    else:
        first, last = sorted(ipaddress.ip_address(draw(addresses(family))) for _again in range(2))
    return str(first) if first == last else f"{first}-{last}"


@st.composite
def port_ranges(draw: st.DrawFn) -> str:
    first, last = sorted((draw(ports), draw(ports)))
    return draw(st.sampled_from([str(first), f"{first}-{last}" if first != last else str(first)]))


@st.composite
def port_sets(draw: st.DrawFn) -> str:
    """In NatRule's order, and with none that touch."""
    limits = sorted(draw(st.sets(ports, min_size=1, max_size=8)))
    parts: list[tuple[int, int]] = []
    while limits:
        first = limits.pop(0)
        last = limits.pop(0) if limits and draw(st.booleans()) else first
        if not parts or parts[-1][1] + 1 < first:
            parts.append((first, last))
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


@st.composite
def marks(draw: st.DrawFn) -> str:
    bits = st.integers(0, 2**32 - 1) | st.integers(0, 31).map(lambda bit: 1 << bit) | st.sampled_from([0, 255])
    mask = draw(bits | st.integers(0, 32).map(lambda length: 2**32 - 2**length))
    value = draw(bits)
    return f"{value:#x}" if mask == 2**32 - 1 or draw(st.booleans()) else f"{value:#x}/{mask:#x}"


def interfaces() -> st.SearchStrategy[str]:
    return names.filter(
        lambda name: name not in {".", ".."} and name[0] != "@" and not (name[-1] == "*" and "\\" in name)
    )


@st.composite
def nat_rules(draw: st.DrawFn) -> NatRule:
    chain = draw(st.sampled_from(["prerouting", "output", "postrouting"]))
    action = draw(st.sampled_from(["snat", "masquerade"])) if chain == "postrouting" else "dnat"
    family = draw(st.sampled_from([4, 6]))
    words: dict[str, Any] = {}

    def maybe(field: str, values: st.SearchStrategy[Any]) -> None:
        if draw(st.booleans()):
            words[field] = draw(values)

    maybe("source", prefixes(family))
    maybe("destination", prefixes(family))
    if chain == "prerouting":
        maybe("in_interface", interfaces())
    else:
        maybe("out_interface", interfaces())
    others = (
        st.integers(0, 255).map(str).filter(lambda number: number not in {"1", "6", "17", "33", "58", "132", "136"})
    )
    maybe("protocol", st.sampled_from([*PORT_PROTOCOLS, "icmp", "icmpv6"]) | others)
    with_ports = words.get("protocol") in PORT_PROTOCOLS
    if with_ports:
        maybe("source_ports", port_sets())
        maybe("destination_ports", port_sets())
    maybe("mark", marks())
    can_be_negated = [field for field in NatRule._fields if field in words]
    if "source_ports" in words or "destination_ports" in words:
        can_be_negated.remove("protocol")
    negated = draw(st.sets(st.sampled_from(can_be_negated))) if can_be_negated else set()
    words["negated"] = tuple(field for field in can_be_negated if field in negated)
    maybe("local", st.booleans())
    if with_ports and "protocol" not in negated:
        maybe("to_ports", port_ranges())
    if action != "masquerade" and (action == "snat" or "to_ports" not in words or draw(st.booleans())):
        words["to_address"] = draw(ranges(family))
    maybe("random_fully", st.booleans())
    maybe("persistent", st.booleans())
    maybe("comment", st.text(st.sampled_from("ab0 üЖ語😀'\\#;{}$@"), max_size=12))
    return NatRule(chain, action, family, **words)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
@given(rules=st.lists(nat_rules(), min_size=10, max_size=25))
def test_any_rules_are_read_as_they_were_written(either: None, rules: list[NatRule]) -> None:
    with throwaway_host():
        _nftables.replace("t", rules)
        assert _nftables.read("t") == by_chain(rules)


# --- drift -----------------------------------------------------------------------------------------------------------


TABLE = [
    dnat("10.0.0.1", protocol="tcp", destination_ports="80", local=True, to_ports="8080"),
    dnat("10.0.0.2", in_interface="eth0", protocol="tcp", destination_ports="81"),
    dnat("10.0.0.1", chain="output", destination="10.0.0.9/32"),
    masquerade(source="10.0.0.0/8", out_interface="eth1", comment="out"),
    snat("10.9.9.9", source="10.1.0.0/16"),
]

#: What somebody does by hand. {0}, {1} and so on are the handles of the rules of TABLE.
TAMPERING = {
    "rule deleted": "delete rule inet nslab-t prerouting handle {0}",
    "rules swapped": (
        "delete rule inet nslab-t postrouting handle {3}\n"
        'add rule inet nslab-t postrouting ip saddr 10.0.0.0/8 oifname "eth1" masquerade comment "nslab:t out"'
    ),
    "rule doubled": ('add rule inet nslab-t postrouting ip saddr 10.1.0.0/16 snat ip to 10.9.9.9 comment "nslab:t"'),
    "rule added": "add rule inet nslab-t postrouting ip saddr 10.2.0.0/16 masquerade",
    "rule of another lab added": 'add rule inet nslab-t postrouting ip saddr 10.2.0.0/16 masquerade comment "nslab:u"',
    "target changed": (
        'replace rule inet nslab-t postrouting handle {4} ip saddr 10.1.0.0/16 snat ip to 10.9.9.8 comment "nslab:t"'
    ),
    "flag added": (
        "replace rule inet nslab-t postrouting handle {4} "
        'ip saddr 10.1.0.0/16 snat ip to 10.9.9.9 random comment "nslab:t"'
    ),
    "prefix of the target": (
        "replace rule inet nslab-t postrouting handle {4} "
        'ip saddr 10.1.0.0/16 snat ip prefix to 10.9.0.0/16 comment "nslab:t"'
    ),
    "counter added": (
        "replace rule inet nslab-t postrouting handle {4} "
        'ip saddr 10.1.0.0/16 counter snat ip to 10.9.9.9 comment "nslab:t"'
    ),
    "log added": (
        "replace rule inet nslab-t postrouting handle {4} "
        'ip saddr 10.1.0.0/16 log prefix "x" snat ip to 10.9.9.9 comment "nslab:t"'
    ),
    "match added": (
        "replace rule inet nslab-t postrouting handle {4} "
        'ip saddr 10.1.0.0/16 ct state new snat ip to 10.9.9.9 comment "nslab:t"'
    ),
    "protocol of the header matched": (
        "replace rule inet nslab-t postrouting handle {4} "
        'ip saddr 10.1.0.0/16 ip protocol tcp snat ip to 10.9.9.9 comment "nslab:t"'
    ),
    "matched twice": (
        "replace rule inet nslab-t postrouting handle {4} "
        'ip saddr 10.1.0.0/16 ip saddr 10.1.1.0/24 snat ip to 10.9.9.9 comment "nslab:t"'
    ),
    "range of sources": (
        "replace rule inet nslab-t postrouting handle {4} "
        'ip saddr 10.1.0.0-10.1.255.255 snat ip to 10.9.9.9 comment "nslab:t"'
    ),
    "set of sources": (
        "replace rule inet nslab-t postrouting handle {4} "
        'ip saddr {{ 10.1.0.1, 10.3.0.1 }} snat ip to 10.9.9.9 comment "nslab:t"'
    ),
    "any interface of a kind": (
        "replace rule inet nslab-t postrouting handle {3} "
        'ip saddr 10.0.0.0/8 oifname "eth1*" masquerade comment "nslab:t out"'
    ),
    "an interface that cannot be written": (
        "replace rule inet nslab-t postrouting handle {3} "
        'ip saddr 10.0.0.0/8 oifname "@eth1" masquerade comment "nslab:t out"'
    ),
    "both families": (
        'replace rule inet nslab-t postrouting handle {3} oifname "eth1" masquerade comment "nslab:t out"'
    ),
    "accept": 'insert rule inet nslab-t prerouting accept comment "nslab:t"',
    "return": 'insert rule inet nslab-t prerouting ip saddr 10.0.0.0/8 return comment "nslab:t"',
    "redirect": 'insert rule inet nslab-t prerouting tcp dport 1 redirect to :2 comment "nslab:t"',
    "map": (
        "insert rule inet nslab-t prerouting "
        'dnat ip to ip saddr map {{ 1.1.1.1 : 2.2.2.2, 1.1.1.2 : 2.2.2.3 }} comment "nslab:t"'
    ),
    "comment changed": (
        "replace rule inet nslab-t postrouting handle {3} "
        'ip saddr 10.0.0.0/8 oifname "eth1" masquerade comment "nslab:t in"'
    ),
    "mark removed": (
        'replace rule inet nslab-t postrouting handle {3} ip saddr 10.0.0.0/8 oifname "eth1" masquerade comment "out"'
    ),
    "comment removed": (
        'replace rule inet nslab-t postrouting handle {3} ip saddr 10.0.0.0/8 oifname "eth1" masquerade'
    ),
    "chain flushed": "flush chain inet nslab-t output",
    "table flushed": "flush table inet nslab-t",
    "table deleted": "delete table inet nslab-t",
    "table dormant": "add table inet nslab-t {{ flags dormant; }}",
    "chain added": "add chain inet nslab-t mine",
    "hooked chain added": "add chain inet nslab-t input {{ type nat hook input priority 100; }}",
    "chain with rules added": "add chain inet nslab-t mine\nadd rule inet nslab-t mine counter",
    "chain deleted": "flush chain inet nslab-t output\ndelete chain inet nslab-t output",
    "policy changed": "add chain inet nslab-t output {{ type nat hook output priority -100; policy drop; }}",
    "set added": "add set inet nslab-t mine {{ type ipv4_addr; }}",
    "map added": "add map inet nslab-t mine {{ type ipv4_addr : ipv4_addr; }}",
    "named counter added": "add counter inet nslab-t mine",
    "flowtable added": "add flowtable inet nslab-t mine {{ hook ingress priority 0; devices = {{ lo }}; }}",
}

OUTPUT = 'ip daddr 10.0.0.9 {} ip to 10.0.0.1 comment "nslab:t"'
TAMPERING |= {
    f"chain with {what}": (
        "flush chain inet nslab-t output\ndelete chain inet nslab-t output\n"
        f"add chain inet nslab-t output {{{{ {words}; }}}}\nadd rule inet nslab-t output {rule}"
    )
    for what, words, rule in (
        ("another priority", "type nat hook output priority -99", OUTPUT.format("dnat")),
        ("another hook", "type nat hook prerouting priority -100", OUTPUT.format("dnat")),
        ("another type", "type filter hook output priority -100", "accept"),
    )
}
TAMPERING["chain without a hook"] = (
    "flush chain inet nslab-t output\ndelete chain inet nslab-t output\nadd chain inet nslab-t output\n"
    f"add rule inet nslab-t output {OUTPUT.format('dnat')}"
)


@pytest.mark.usefixtures("host", "either")
@pytest.mark.parametrize("what", TAMPERING)
def test_what_was_changed_by_hand_is_seen_and_put_right(what: str) -> None:
    _nftables.replace("t", TABLE)
    before = ruleset()
    assert _nftables.read("t") == TABLE
    try:
        nft(TAMPERING[what].format(*(handle for _chain, handle in handles())))
    except AssertionError as error:
        if what == "flowtable added" and "No such file or directory" in str(error):
            pytest.skip("this kernel has no flowtables")
        raise
    assert ruleset() != before
    found = _nftables.read("t")
    assert found != TABLE
    assert found is None or all(bool(rule.action) != bool(rule.unknown) for rule in found)
    _nftables.replace("t", TABLE)
    assert _nftables.read("t") == TABLE
    assert ruleset() == before


@pytest.mark.usefixtures("host", "either")
def test_a_changed_rule_is_told_in_its_place() -> None:
    _nftables.replace("t", TABLE)
    number = handles()[3][1]
    nft(f"replace rule inet nslab-t postrouting handle {number} counter masquerade")
    nft("add set inet nslab-t mine { type ipv4_addr; }")
    found = _nftables.read("t")
    assert found is not None
    assert [rule.unknown for rule in found if rule.unknown] == [
        "set mine",
        f'rule with handle {number}: {{"counter": {{"packets": 0, "bytes": 0}}}}',
    ]
    assert found[1:4] == TABLE[:3]
    assert found[5:] == TABLE[4:]


@pytest.mark.usefixtures("host", "either")
def test_an_unknown_rule_is_not_written() -> None:
    with pytest.raises(NslabError, match="not a rule of translation: somebody's"):
        _nftables.replace("t", [NatRule("postrouting", "", unknown="somebody's")])
    assert ruleset() == ""


# --- others' tables --------------------------------------------------------------------------------------------------


FOREIGN = """
table inet firewalld {
    set trusted { type ipv4_addr; flags interval; elements = { 10.0.0.0/8 }; }
    chain public { tcp dport 22 counter packets 3 bytes 180 accept; }
    map zones { type ifname : verdict; elements = { "eth0" : jump public }; }
    chain input { type filter hook input priority 10; policy accept; iifname vmap @zones; ip saddr @trusted accept; }
}
table ip nat {
    chain DOCKER { iifname "docker0" counter return; tcp dport 8080 counter dnat to 172.17.0.2:80; }
    chain PREROUTING { type nat hook prerouting priority -100; fib daddr type local counter jump DOCKER; }
    chain POSTROUTING { type nat hook postrouting priority 100; ip saddr 172.17.0.0/16 counter masquerade; }
}
table inet nslab-other { chain postrouting { type nat hook postrouting priority 100; masquerade; }; }
table ip nslab-t { chain postrouting { type nat hook postrouting priority 100; masquerade; }; }
table inet nslab-t2 { comment "of nobody"; }
"""


@pytest.mark.usefixtures("host", "either")
def test_others_tables_stay_as_they_are() -> None:
    nft(FOREIGN)
    if shutil.which("iptables-nft"):
        iptables = ["-t", "nat", "-A", "POSTROUTING", "-s", "10.5.0.0/16", "-m", "comment", "--comment", "x"]
        subprocess.run(["iptables-nft", *iptables, "-j", "MASQUERADE"], check=True, capture_output=True)
    before = ruleset()
    assert _nftables.read("t") is None
    _nftables.replace("t", TABLE)
    assert _nftables.read("t") == TABLE
    assert ruleset().startswith(before)
    _nftables.replace("t", TABLE[:1])
    assert ruleset().startswith(before)
    with pytest.raises(NslabError):
        _nftables.replace("t", [masquerade()._replace(chain="prerouting")])
    _nftables.replace("t", [])
    assert ruleset() == before
    _nftables.replace("t", [])
    assert ruleset() == before


@pytest.mark.usefixtures("host", "either")
@pytest.mark.parametrize(
    ("script", "answer"),
    [
        ("", False),
        ("table inet x { chain y { type filter hook input priority 0; counter; }; }", False),
        ("table inet x { chain y { type nat hook postrouting priority 0; }; chain z { counter; }; }", False),
        ("table inet nslab { chain y { type nat hook postrouting priority 0; masquerade; }; }", True),
        ("table inet nslab-other { chain y { type nat hook postrouting priority 0; masquerade; }; }", True),
        ("table ip nslab { chain y { type nat hook postrouting priority 0; masquerade; }; }", True),
        ("table ip6 nat { chain y { type nat hook postrouting priority 0; masquerade; }; }", True),
        (FOREIGN, True),
    ],
)
def test_others_translate(script: str, answer: bool) -> None:
    nft(script)
    _nftables.replace("t", TABLE)
    assert _nftables.others_translate("t") is answer


@pytest.mark.usefixtures("host", "either")
def test_the_rules_of_iptables_nft_are_seen() -> None:
    if not shutil.which("iptables-nft"):
        pytest.skip("iptables-nft is not installed")
    subprocess.run(["iptables-nft", "-t", "nat", "-L"], check=True, capture_output=True)
    assert not _nftables.others_translate("t")
    rule = ["-t", "nat", "-A", "POSTROUTING", "-m", "conntrack", "--ctstate", "NEW", "-j", "MASQUERADE"]
    subprocess.run(["iptables-nft", *rule], check=True, capture_output=True)
    assert _nftables.others_translate("t")


# --- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("host", "either")
@pytest.mark.parametrize(
    ("rule", "words"),
    [
        # what the kernel refuses
        (masquerade()._replace(chain="prerouting"), "Could not process rule: Operation not supported"),
        (dnat("10.0.0.1")._replace(chain="postrouting"), "Could not process rule: Operation not supported"),
        # what nft refuses
        (snat("10.0.0.1", to_ports="80"), "transport protocol mapping is only valid after transport protocol match"),
        # what we refuse
        (masquerade(destination_ports="80"), "ports need one protocol that has them"),
        (masquerade(destination_ports="80", protocol="tcp", negated=("protocol",)), "ports need one protocol"),
        (masquerade(source="example.com/32"), "example.com"),
        (masquerade(source="10.0.0.1/8"), "has host bits set"),
        (masquerade(family=6, source="10.0.0.0/8"), "10.0.0.0/8"),
        (masquerade(to_address="10.0.0.1"), "no such translation"),
        (masquerade(out_interface="@eth0"), "no way to say the interface name @eth0"),
        (masquerade(out_interface="a\\b*"), "no way to say the interface name a\\b*"),
        (masquerade(comment='say "please"'), "double quotes"),
        (masquerade(comment="two\nlines"), "unprintable"),
        (masquerade(comment="ü" * 61), "a comment can have 120 bytes here"),
        (masquerade()._replace(chain="input"), "not a rule of translation"),
    ],
)
def test_a_table_with_one_bad_rule_changes_nothing(rule: NatRule, words: str) -> None:
    _nftables.replace("t", TABLE)
    before = ruleset()
    with pytest.raises(NslabError) as raised:
        _nftables.replace("t", [TABLE[0], rule, TABLE[3]])
    assert words in str(raised.value)
    assert str(raised.value).startswith("nftables: ")
    assert "\n" not in str(raised.value)
    assert ruleset() == before


@pytest.mark.usefixtures("host")
def test_a_comment_of_full_length() -> None:
    rule = masquerade(comment="ü" * 60)
    _nftables.replace("t", [rule])
    assert _nftables.read("t") == [rule]


@pytest.mark.parametrize(
    ("error", "read", "replace"),
    [
        (
            b"internal:0:0-0: Error: Could not process rule: No such file or directory\n\n",
            None,
            (
                "Could not process rule: No such file or directory; "
                "is one of the kernel modules nf_tables, nft_chain_nat, nft_nat, nft_masq, nft_fib_inet missing?"
            ),
        ),
        (
            b"netlink: Error: cache initialization failed: Invalid argument\n",
            None,
            "cache initialization failed: Invalid argument; is the kernel module nf_tables missing?",
        ),
        (
            b"netlink.c:60: Unable to initialize Netlink socket: Protocol not supported\n",
            None,
            "Unable to initialize Netlink socket: Protocol not supported; is the kernel module nf_tables missing?",
        ),
        (
            b"netlink: Error: cache initialization failed: Operation not permitted\n",
            "cache initialization failed: Operation not permitted",
            "cache initialization failed: Operation not permitted",
        ),
    ],
)
def test_a_kernel_without_nftables(
    error: bytes, read: str | None, replace: str, program: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such kernels cannot be had here, so the words are those that nft has for them.

    Reading asks nft only if the kernel has the table; it may have gone until nft looks.
    """
    monkeypatch.setattr(_nftables, "_is_there", lambda _lab: True)
    monkeypatch.setattr(_nftables, "_program", lambda: "nft")
    monkeypatch.setattr(_nftables, "_ask_program", lambda _program, _text, _as_json: (1, b"", error))
    if read is None:
        assert _nftables.read("t") is None
    else:
        with pytest.raises(NslabError, match=read):
            _nftables.read("t")
    with pytest.raises(NslabError) as raised:
        _nftables.replace("t", TABLE)
    assert str(raised.value).endswith(replace)


def test_an_expression_that_the_kernel_lacks_is_not_found() -> None:
    """What the hint about modules goes by: the kernel's answer to a rule with an unknown expression is ENOENT."""
    source = Path("/proc/config.gz")
    if not source.exists() or b"CONFIG_NFT_QUEUE=" in gzip.decompress(source.read_bytes()):
        pytest.skip("this kernel has the expression queue, or does not say")
    with throwaway_host():
        script = "table inet x { chain y { type filter hook input priority 0; queue; }; }"
        done = subprocess.run([NFT, "-f", "-"], input=script, capture_output=True, text=True, check=False)
        assert "Could not process rule: No such file or directory" in done.stderr


@pytest.mark.usefixtures("host")
def test_a_machine_without_nftables(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _nftables.available()
    _nftables.replace("t", TABLE)
    monkeypatch.setattr(_nftables, "_binding", lambda: None)
    monkeypatch.setattr(_nftables, "_program", lambda: None)
    assert not _nftables.available()
    for call in (_nftables.read, _nftables.save):
        with pytest.raises(Missing, match="neither its Python binding nor the program nft"):
            call("t")
    with pytest.raises(Missing, match="neither its Python binding nor the program nft"):
        _nftables.replace("t", [])
    # Whether there is a table is known without.
    assert _nftables.read("u") is None
    assert _nftables.save("u") == ""


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("#!/bin/sh\nexec sleep 30\n", "has not answered within 0.2 s"),
        ("#!/bin/sh\nkill -SEGV $$\n", "it failed without a word"),
        ("no program\n", "could not be run: Exec format error"),
    ],
)
def test_a_broken_program(
    script: str, words: str, program: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nft("table inet nslab-t {}")
    path = tmp_path / "nft"
    path.write_text(script)
    path.chmod(0o755)
    monkeypatch.setattr(_nftables, "_program", lambda: str(path))
    monkeypatch.setattr(_nftables, "_PROGRAM_SECONDS", 0.2)
    for call in (_nftables.read, _nftables.save):
        with pytest.raises(NslabError, match=words):
            call("t")
    for change in (_nftables.replace, _nftables.restore):
        with pytest.raises(NslabError, match=words):
            change("t", "")


@pytest.mark.usefixtures("host")
def test_whether_a_table_is_there_is_asked_of_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_arguments: Any) -> Any:
        raise AssertionError("nft was asked")

    for script, labs in (
        ("", []),
        ("table ip nslab-t {}; table inet nslab-t2 {}; table inet NSLAB-t {}", ["t2"]),
        ("table inet nslab {}", ["", "t2"]),
        ("table inet nslab-t { flags dormant; }", ["", "t", "t2"]),
    ):
        nft(script)
        with monkeypatch.context() as patch:
            patch.setattr(_nftables, "_run", never)
            assert [lab for lab in ("", "t", "t2") if _nftables._is_there(lab)] == labs
            for lab in {"", "t", "t2"} - set(labs):
                assert _nftables.read(lab) is None
                assert _nftables.save(lab) == ""


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize(("number", "answer"), [(errno.ENOENT, False), (errno.EINVAL, False), (errno.EPERM, None)])
def test_what_the_kernel_says_of_a_table(number: int, answer: bool | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: Any) -> Any:
        raise KernelError(number)

    monkeypatch.setattr(_nftables.Session, "get", refuse)
    if answer is None:
        with pytest.raises(KernelError, match="Operation not permitted"):
            _nftables._is_there("t")
    else:
        assert _nftables._is_there("t") is answer


@pytest.mark.usefixtures("host", "either")
@pytest.mark.parametrize("what", TAMPERING)
def test_what_was_changed_by_hand_is_put_back_as_it_was(what: str) -> None:
    """Whatever somebody has made of the table: after save and replace, restore leads back to nft's very listing."""
    nft(FOREIGN)
    _nftables.replace("t", TABLE)
    try:
        nft(TAMPERING[what].format(*(handle for _chain, handle in handles())))
    except AssertionError as error:
        if what == "flowtable added" and "No such file or directory" in str(error):
            pytest.skip("this kernel has no flowtables")
        raise
    before = sorted(tables())
    saved = _nftables.save("t")
    assert bool(saved) == (what != "table deleted")
    for rules in (TABLE, []):
        _nftables.replace("t", rules)
        _nftables.restore("t", saved)
        assert sorted(tables()) == before
        # That is all that a rollback needs to know: it may be done twice.
        _nftables.restore("t", saved)
        assert sorted(tables()) == before


def tables() -> list[str]:
    """Each table as nft lists it."""
    return ruleset().split("\n}\n")


@pytest.mark.usefixtures("host", "either")
def test_what_cannot_be_restored_changes_nothing() -> None:
    _nftables.replace("t", TABLE)
    before = ruleset()
    with pytest.raises(NslabError, match=r"^nftables: "):
        _nftables.restore("t", "table inet nslab-t { chain x { nonsense; }; }")
    assert ruleset() == before
    _nftables.restore("t", "")
    assert ruleset() == ""


def test_the_program_is_found_without_the_administrators_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert str(_nftables._program.__wrapped__()).endswith("sbin/nft")


# --- namespaces, threads, and what they leave behind -----------------------------------------------------------------


@contextlib.contextmanager
def inside(name: str) -> Iterator[None]:
    """In the namespace of that name."""
    handle = _namespaces.open_named(name)
    assert handle is not None
    try:
        with _namespaces.entered(handle):
            yield
    finally:
        os.close(handle.fd)


@pytest.mark.usefixtures("host", "either")
def test_each_namespace_has_its_own_table() -> None:
    for name in ("a", "b"):
        ip("netns", "add", name)
    for name, rules in (("a", TABLE[:2]), ("b", TABLE[2:])):
        with inside(name):
            _nftables.replace("t", rules)
    assert ruleset() == ""
    for name, rules in (("a", TABLE[:2]), ("b", TABLE[2:])):
        with inside(name):
            assert _nftables.read("t") == rules
        command = ["nsenter", f"--net=/run/netns/{name}", NFT, "list", "ruleset"]
        assert "table inet nslab-t" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


def leave_threads_alone() -> None:
    """Let this thread have its own working directory: one that shares it cannot leave its mount namespace."""
    assert ctypes.CDLL(None).unshare(0x200) == 0  # CLONE_FS


@pytest.mark.usefixtures("host", "either")
def test_readers_see_one_whole_table_or_the_other() -> None:
    tables = (TABLE, [masquerade(source=f"10.{i}.0.0/16") for i in range(50)])
    _nftables.replace("t", tables[0])
    found: list[list[NatRule] | None] = []
    failures: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        try:
            leave_threads_alone()
            while not done.is_set():
                found.append(_nftables.read("t"))
        except BaseException as error:  # noqa: BLE001 - the test's own thread tells
            failures.append(error)

    readers = [threading.Thread(target=read) for _again in range(3)]
    for reader in readers:
        reader.start()
    for turn in range(30):
        _nftables.replace("t", tables[turn % 2])
    done.set()
    for reader in readers:
        reader.join()
    assert not failures
    assert found
    assert all(one in tables for one in found)


@pytest.mark.usefixtures("host", "either")
def test_others_may_change_their_tables_meanwhile(tmp_path: Path) -> None:
    """The kernel refuses a transaction that another one has overtaken, and nft does it again."""
    script = tmp_path / "script"
    script.write_text("table ip x { chain y { counter; }; }\ndelete table ip x\n" * 20)
    with subprocess.Popen(["sh", "-c", f"while {NFT} -f {script}; do :; done"]) as other:
        try:
            for turn in range(100):
                rules = TABLE[turn % 3 :]
                _nftables.replace("t", rules)
                assert _nftables.read("t") == rules
            assert other.poll() is None
        finally:
            other.kill()


def resident_kilobytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


@pytest.mark.usefixtures("host", "binding")
def test_the_binding_leaves_nothing_behind() -> None:
    _nftables.replace("t", TABLE)

    def work(times: int) -> None:
        for _again in range(times):
            assert _nftables.read("t") == TABLE
            assert _nftables.read("u") is None

    work(50)
    memory, files = resident_kilobytes(), os.listdir("/proc/self/fd")
    work(500)
    assert os.listdir("/proc/self/fd") == files
    assert resident_kilobytes() - memory < 2048


# --- packets ---------------------------------------------------------------------------------------------------------


def socket_in(name: str) -> socket.socket:
    with inside(name):
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.settimeout(5)
    return made


@pytest.mark.usefixtures("host", "either")
def test_connections_are_translated() -> None:
    """The host routes between two namespaces, and the server knows no way back to the client."""
    for name, number in (("client", 1), ("server", 2)):
        ip("netns", "add", name)
        ip("link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("address", "add", f"10.0.{number}.1/24", "dev", f"to-{name}")
        ip("link", "set", f"to-{name}", "up")
        ip("-n", name, "address", "add", f"10.0.{number}.2/24", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
    ip("-n", "client", "route", "add", "default", "via", "10.0.1.1")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    _nftables.replace(
        "t",
        [
            dnat("10.0.2.2", protocol="tcp", destination_ports="8080", local=True, to_ports="80"),
            dnat("10.0.2.2", chain="output", protocol="tcp", destination_ports="8080", local=True, to_ports="80"),
            snat("10.0.2.1", source="10.0.1.0/24", out_interface="to-server", protocol="tcp", to_ports="5000-5009"),
        ],
    )
    with socket_in("server") as server:
        server.bind(("10.0.2.2", 80))
        server.listen()
        with socket_in("client") as client:
            client.connect(("10.0.1.1", 8080))
            accepted, (address, port) = server.accept()
            accepted.close()
            assert address == "10.0.2.1"
            assert 5000 <= port <= 5009
        with socket.socket() as own:
            own.settimeout(5)
            own.connect(("10.0.1.1", 8080))
            accepted, _address = server.accept()
            accepted.close()
