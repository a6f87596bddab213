# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rules of address translation: their words, their order, and what each backend cannot say. Pure.

Private to the collection: no stable interface.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

NFTABLES, IPTABLES = "nftables", "iptables"

#: The chains, in the order in which a packet passes them.
CHAINS = ("prerouting", "output", "postrouting")

#: A rule's comment starts with this and the lab; the user's words follow after a space.
OWNER = "nslab:"

#: nft takes longer comments by JSON, but not in its own language (parser_bison.y: comment_spec), so that its listing
#: could not be loaded again.
COMMENT_BYTES = 128

#: Where a masquerading rule has this for its comment, or before it, it belongs to a published port.
HAIRPIN = "hairpin"

#: The protocols that have a name here, by IANA's numbers. Small systems have no /etc/protocols.
PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "dccp": 33, "icmpv6": 58, "sctp": 132, "udplite": 136}
#: Those with ports.
PORT_PROTOCOLS = ("tcp", "udp", "sctp", "dccp", "udplite")

#: How the new address and ports are chosen, besides.
FLAGS = ("random_fully", "persistent")

#: A whole mark.
ALL_BITS = 0xFFFFFFFF

_LOOPBACK = {4: "127.0.0.0/8", 6: "::1/128"}

#: xt_multiport has room for so many ports, of which a range takes two (XT_MULTI_PORTS).
_IPTABLES_PORT_SLOTS = 15


class NatRule(NamedTuple):
    """One rule of address translation in one chain, for one family. Empty words are absent ones.

    ``negated`` names those of the matches (source, ..., mark) that shall not match, in the order of the fields.
    """

    chain: str  # prerouting, output (both for dnat), postrouting
    action: str  # dnat, snat, masquerade
    family: int = 4
    #: Prefixes, always with their length.
    source: str = ""
    destination: str = ""
    in_interface: str = ""
    out_interface: str = ""
    #: tcp, udp, sctp, dccp, udplite, icmp, icmpv6, or another protocol's name or number.
    protocol: str = ""
    #: Ports and ranges, in ascending order, with commas between: ``80,443,8000-8100``.
    source_ports: str = ""
    destination_ports: str = ""
    #: ``0x1``, or with a mask ``0x1/0xff``.
    mark: str = ""
    negated: tuple[str, ...] = ()
    #: Only what is addressed to the namespace itself.
    local: bool = False
    #: One address, or the first and the last of a range with ``-`` between.
    to_address: str = ""
    #: One port, or the first and the last of a range with ``-`` between.
    to_ports: str = ""
    random_fully: bool = False
    persistent: bool = False
    comment: str = ""
    #: What stands in the place of a rule but cannot be said in these words: somebody has changed it by hand.
    unknown: str = ""

    @property
    def kind(self) -> str:
        """What it is for, ``snat`` or ``dnat``: one that goes with a published port counts as that."""
        return "snat" if self.chain == "postrouting" and not self.is_hairpin else "dnat"

    @property
    def is_hairpin(self) -> bool:
        return self.comment == HAIRPIN or self.comment.startswith(f"{HAIRPIN} ")

    def __str__(self) -> str:
        if self.unknown:
            return f"[{self.unknown}]"
        words = [f"chain {self.chain}"] if self.kind == "dnat" else []
        if not (self.source or self.destination or ":" in self.to_address or "." in self.to_address):
            words.append(f"family ipv{self.family}")
        for field in _MATCHES:
            value = getattr(self, field)
            if value:
                words.append(f"{'not_' if field in self.negated else ''}{field} {value}")
        if self.local:
            words.append("local")
        if self.action == "masquerade":
            words.append("masquerade")
        else:
            words.append(f"{'to_source' if self.action == 'snat' else 'to_destination'} {self.to}")
        words += [field for field in FLAGS if getattr(self, field)]
        if self.comment:
            words.append(f"comment {self.comment!r}")
        return " ".join(words)

    @property
    def to(self) -> str:
        """What is put in: an address, a range, ports, or both, as ``to_source`` and ``to_destination`` have it."""
        if not self.to_ports:
            return self.to_address
        address = f"[{self.to_address}]" if ":" in self.to_address else self.to_address
        return f"{address}:{self.to_ports}"


#: What a rule may match, in the order of the fields; each can be negated.
_MATCHES = (
    "source",
    "destination",
    "in_interface",
    "out_interface",
    "protocol",
    "source_ports",
    "destination_ports",
    "mark",
)


def joined_ports(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same ports in ascending order, with ranges that touch made one, as nft does when one of a set is a range."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = joined[-1][0], max(last, joined[-1][1])
        else:
            joined.append((first, last))
    return joined


def ports_text(ranges: Iterable[tuple[int, int]]) -> str:
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def mark_text(value: int, mask: int) -> str:
    return f"{value:#x}" if mask == ALL_BITS else f"{value:#x}/{mask:#x}"


def output_of(rule: NatRule) -> NatRule:
    """The twin of a rule for what the namespace sends itself. What it sends to its own loopback stays there."""
    negated = tuple(name for name in rule.negated if name != "in_interface")
    rule = rule._replace(chain="output", in_interface="", negated=negated)
    if rule.local and not rule.destination:
        negated = tuple(name for name in _MATCHES if name in (*negated, "destination"))
        rule = rule._replace(destination=_LOOPBACK[rule.family], negated=negated)
    return rule


def hairpin_of(rule: NatRule) -> NatRule:
    """What has a neighbour of the target get its answers by way of the namespace; the planner knows its prefix."""
    return NatRule(
        "postrouting",
        "masquerade",
        rule.family,
        destination=f"{rule.to_address}/{32 if rule.family == 4 else 128}",
        protocol=rule.protocol,
        destination_ports=rule.to_ports or rule.destination_ports,
        comment=f"{HAIRPIN} {rule.comment}" if rule.comment else HAIRPIN,
    )


def in_order(rules: Iterable[NatRule]) -> tuple[NatRule, ...]:
    """Rules chain by chain and IPv4 first, as far as they do not see each other; the others keep their order."""
    return tuple(sorted(rules, key=lambda rule: (_position(rule.chain), rule.family)))


def _position(chain: str) -> int:
    return CHAINS.index(chain) if chain in CHAINS else len(CHAINS)


def limits(backend: str, rule: NatRule) -> Iterator[str]:
    """What the backend cannot do of a rule that makes sense, in words."""
    interfaces = [name for name in (rule.in_interface, rule.out_interface) if name]
    if backend == NFTABLES:
        for name in interfaces:
            if name.startswith("@") or (name.endswith("*") and "\\" in name):
                yield f"nftables' JSON has no way to say the interface name {name!r}"
        return
    for name in interfaces:
        if name.endswith("+"):
            yield f"iptables takes {name!r} for a pattern, as every interface name that ends in '+'"
    if rule.action == "dnat" and rule.random_fully:
        yield "iptables has no random_fully for dnat"
    if rule.action == "masquerade" and rule.persistent:
        yield "iptables has no persistent for masquerade"
    if rule.to_ports and rule.protocol == "udplite":
        yield "iptables cannot change the ports of udplite"
    for ports in (rule.source_ports, rule.destination_ports):
        slots = 1 + ports.count(",") + ports.count("-")
        if "," in ports and slots > _IPTABLES_PORT_SLOTS:
            yield f"{ports} takes {slots} places, a port one and a range two; iptables has {_IPTABLES_PORT_SLOTS}"
