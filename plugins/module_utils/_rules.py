# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A policy rule, how it reads, and how the kernel finds the one that it shall remove. Without input and output.

Private to the collection: no stable interface.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

#: The protocol number that marks the rules of this collection (``ip -details rule``: ``proto 110``), as that of routes.
RULE_PROTOCOL = 110

#: Rules that an administrator or this collection made. Those of the kernel and of daemons have other numbers.
STATIC_RULE_PROTOCOLS = frozenset((0, 3, 4, RULE_PROTOCOL))  # unspec, boot, static, ours

#: The tables that have names.
TABLES = {"main": 254, "default": 253, "local": 255}
_TABLE_NAMES = {number: name for name, number in TABLES.items()}

RULE_TYPES = ("lookup", "blackhole", "unreachable", "prohibit")

ALL_MARK_BITS = 0xFFFFFFFF
NO_RANGE = (-1, -1)


class Rule(NamedTuple):
    """A policy rule, in the words of ``ip rule``. Empty words are absent ones; prefixes are full ones."""

    priority: int
    family: int = 4
    type: str = "lookup"
    table: int = 0
    source: str = ""
    destination: str = ""
    inverted: bool = False
    iif: str = ""
    oif: str = ""
    tos: int = 0
    mark: int = 0
    #: 0 for a rule that does not look at the mark.
    mark_mask: int = 0
    ipproto: int = 0
    sport: tuple[int, int] = NO_RANGE
    dport: tuple[int, int] = NO_RANGE
    uidrange: tuple[int, int] = NO_RANGE
    l3mdev: bool = False
    #: A route whose prefix is not longer than this is not taken; -1 for any.
    suppress_prefixlength: int = -1
    #: What the kernel tells of it that has no word here: netlink attributes as they are. No demand has any.
    unknown: tuple[tuple[int, bytes], ...] = ()
    protocol: int = RULE_PROTOCOL

    @property
    def place(self) -> tuple[int, int]:
        """What rules have in common among which the order is that of their making."""
        return self.family, self.priority

    @property
    def words(self) -> Rule:
        """What it says, whoever made it."""
        return self._replace(protocol=RULE_PROTOCOL)

    @property
    def is_static(self) -> bool:
        """Has a person made it, or this collection? What says the same as one of the kernel's is taken for that one."""
        is_of_kernel = self.words in KERNEL_RULES and self.protocol != RULE_PROTOCOL
        return self.protocol in STATIC_RULE_PROTOCOLS and not is_of_kernel

    @property
    def is_sayable(self) -> bool:
        """Can a demand have such a rule?"""
        return not self.unknown and self.type in RULE_TYPES and self.priority > 0

    def __str__(self) -> str:
        words = [f"priority {self.priority}"]
        if self.family == 6 and ":" not in self.source + self.destination:
            words.append("family ipv6")
        return " ".join([*words, *self._matches(), *self._action()])

    def _matches(self) -> list[str]:
        found = {
            "from": self.source or ("" if self.destination else "all"),
            "to": self.destination,
            "tos": f"{self.tos:#04x}" if self.tos else "",
            "fwmark": mark_text(self.mark, self.mark_mask),
            "iif": self.iif,
            "oif": self.oif,
            "uidrange": range_text(self.uidrange),
            "ipproto": str(self.ipproto or ""),
            "sport": range_text(self.sport),
            "dport": range_text(self.dport),
        }
        return [*(["not"] if self.inverted else []), *(f"{word} {text}" for word, text in found.items() if text)]

    def _action(self) -> list[str]:
        words = ["l3mdev"] if self.l3mdev else []
        if self.type != "lookup":
            words.append(self.type)
        elif not self.l3mdev:
            words.append(f"lookup {table_text(self.table)}")
        if self.suppress_prefixlength >= 0:
            words.append(f"suppress_prefixlength {self.suppress_prefixlength}")
        words += [f"attribute {kind} {value.hex()}" for kind, value in self.unknown]
        return words


#: What the kernel makes with each namespace (fib_default_rules_init(), fib6_rules_net_init()).
NEW_RULES = tuple(
    Rule(priority, family, table=TABLES[name], protocol=2)
    for family, priority, name in (
        (4, 0, "local"),
        (4, 32766, "main"),
        (4, 32767, "default"),
        (6, 0, "local"),
        (6, 32766, "main"),
    )
)
#: What it makes with the first VRF of a namespace, and with none that comes later (vrf_newlink()).
VRF_RULES = tuple(Rule(1000, family, l3mdev=True, protocol=2) for family in (4, 6))

#: All these are nobody else's, even if somebody has made them anew.
KERNEL_RULES = frozenset(rule.words for rule in (*NEW_RULES, *VRF_RULES))


def table_text(table: int) -> str:
    return _TABLE_NAMES.get(table, str(table))


def mark_text(mark: int, mask: int) -> str:
    """A mark as ``ip rule`` takes it; empty for none."""
    if not mask:
        return ""
    return f"{mark:#x}" if mask == ALL_MARK_BITS else f"{mark:#x}/{mask:#x}"


def range_text(numbers: tuple[int, int]) -> str:
    if numbers == NO_RANGE:
        return ""
    return "-".join(map(str, dict.fromkeys(numbers)))


def lacking(there: Collection[Rule], given: Iterable[Rule], families: Collection[int]) -> list[Rule]:
    """Which of the kernel's own rules are not there, of the families that it knows."""
    words = {rule.words for rule in there}
    return [rule for rule in given if rule.family in families and rule.words not in words]


def groups(rules: Iterable[Rule]) -> dict[tuple[int, int], tuple[Rule, ...]]:
    """The rules by family and priority, each group in its order."""
    found: dict[tuple[int, int], tuple[Rule, ...]] = {}
    for rule in rules:
        found[rule.place] = (*found.get(rule.place, ()), rule)
    return found


# --- from some rules to others ----------------------------------------------------------------------------------------


class Steps(NamedTuple):
    """How the rules of one family and priority become others: these are appended, then these are removed."""

    add: tuple[Rule, ...]
    remove: tuple[Rule, ...]


def steps(there: Sequence[Rule], wanted: Sequence[Rule]) -> Steps:
    """The fewest steps. The kernel puts a new rule behind all others of its priority, and changes none in place.

    It removes the first rule that has what it was told: one that says more, and stands before the one that is meant,
    goes in its place. Such a one has to go as well, and comes again.
    """
    kept = beginning(there, wanted)
    while True:
        staying = set(kept)
        removed = [rule for i, rule in enumerate(there) if i not in staying]
        hit = _wrongly_hit(there, kept)
        if hit is None:
            return Steps(tuple(wanted[len(kept) :]), tuple(removed))
        kept = kept[: kept.index(hit)]


def beginning(there: Sequence[Rule], wanted: Sequence[Rule]) -> list[int]:
    """Which of the rules can stay: the longest beginning of the wanted ones that is there in this order."""
    kept: list[int] = []
    start = 0
    for rule in wanted:
        found = next((i for i in range(start, len(there)) if there[i] == rule), None)
        if found is None:
            break
        kept.append(found)
        start = found + 1
    return kept


def _wrongly_hit(there: Sequence[Rule], kept: Sequence[int]) -> int | None:
    """A rule that shall stay and that would be removed in the place of another one."""
    left = list(range(len(there)))
    for i in [i for i in left if i not in kept]:
        hit = next((j for j in left if _is_hit(there[i], there[j])), i)
        if hit in kept:
            return hit
        left.remove(hit)
    return None


#: What is nothing in a request to remove a rule, so that any rule has it.
_NOTHING = Rule(0, 0, "", suppress_prefixlength=-1, protocol=0)


def _is_hit(asked: Rule, there: Rule) -> bool:
    """Does the kernel take ``there`` for the rule that it was asked to remove (rule_find(), fib4_rule_compare())?

    What the request does not say may be anything, and so may ``not``, at which nobody looks.
    """
    asked = asked._replace(inverted=False)
    return all(want in (nothing, have) for want, nothing, have in zip(asked, _NOTHING, there))
