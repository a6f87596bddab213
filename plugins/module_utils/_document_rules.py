# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Policy rules: from what the user wrote to the model.

Private to the collection: no stable interface.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._model import WantedRule
from ._nat import PROTOCOLS
from ._reader import Reader, show
from ._rules import ALL_MARK_BITS, NO_RANGE, RULE_TYPES, TABLES, Rule

_MATCHES = ("from", "to", "iif", "oif", "fwmark", "tos", "ipproto", "sport", "dport", "uidrange")
RULE_KEYS = ("priority", "family", "type", "table", "not", "l3mdev", "suppress_prefixlength", *_MATCHES)
FAMILIES = {"ipv4": 4, "ipv6": 6}
_MAX_U32 = 2**32 - 1
#: -1 as a number of a user stands for none.
_MAX_UID = _MAX_U32 - 1


def read_rules(reader: Reader, value: Any, path: str, only_matches: bool = False) -> list[WantedRule]:
    """Rules in the words of ``ip rule``. ``only_matches``: rules that shall go, of which not all has to be said."""
    found: list[WantedRule] = []
    seen: dict[Rule, str] = {}
    for i, item in enumerate(reader.sequence(value, path)):
        at = f"{path}[{i}]"
        before = len(reader.problems)
        if not isinstance(item, Mapping):
            reader.problem(at, f"{show(item)} is no rule such as {{priority: 100, from: 10.0.0.0/24, table: 100}}")
            continue
        body = {key: entry for key, entry in reader.mapping(item, at, RULE_KEYS).items() if entry is not None}
        rule = _Entry(reader, at, body).rule(only_matches)
        if len(reader.problems) > before:
            continue
        if rule in seen and not only_matches:
            reader.problem(at, f"is the same rule as {seen[rule]}; leave one of them out")
            continue
        seen[rule] = at
        found.append(WantedRule(rule, at, frozenset(body) if only_matches else frozenset()))
    return found


class _Entry:
    """One rule of the input."""

    def __init__(self, reader: Reader, path: str, body: dict[str, Any]) -> None:
        self._reader = reader
        self._path = path
        self._body = body

    def rule(self, only_matches: bool) -> Rule:
        reader, body = self._reader, self._body
        if "priority" not in body:
            text = "is missing: the place of the rule; the rule with the lowest number is asked first"
            reader.problem(self._at("priority"), text)
        mark, mask = self._mark() if "fwmark" in body else (0, 0)
        prefixes = {key: self._prefix(key) for key in ("from", "to") if key in body}
        family = self._family(prefixes)
        rule = Rule(
            priority=self._integer("priority", 1, _MAX_U32),
            family=family,
            type=reader.choice(body["type"], self._at("type"), RULE_TYPES) if "type" in body else "lookup",
            table=self._table() if "table" in body else 0,
            source=_unless_all(prefixes.get("from", "")),
            destination=_unless_all(prefixes.get("to", "")),
            inverted=self._flag("not"),
            iif=self._interface("iif"),
            oif=self._interface("oif"),
            tos=self._tos(family) if "tos" in body else 0,
            mark=mark,
            mark_mask=mask,
            ipproto=self._protocol() if "ipproto" in body else 0,
            sport=self._range("sport", 1, 65535, "port"),
            dport=self._range("dport", 1, 65535, "port"),
            uidrange=self._range("uidrange", 0, _MAX_UID, "number of a user"),
            l3mdev=self._flag("l3mdev"),
            suppress_prefixlength=self._integer("suppress_prefixlength", 0, 32 if family == 4 else 128, -1),
        )
        if only_matches:
            return rule
        self._check(rule)
        is_plain_lookup = rule.type == "lookup" and not rule.l3mdev and not rule.table
        return rule._replace(table=TABLES["main"]) if is_plain_lookup else rule

    def _check(self, rule: Rule) -> None:
        """What the kernel does not take, or takes without a meaning."""
        for key in ("table", "suppress_prefixlength"):
            if rule.type != "lookup" and key in self._body:
                self._problem(key, f"a rule of the type {rule.type!r} looks up no table; leave it out")
        if rule.l3mdev and "table" in self._body:
            self._problem("table", "with 'l3mdev' the table is that of the packet's VRF; leave it out")
        # A prefix of all addresses is empty here, and narrows nothing.
        prefixes = {"from": rule.source, "to": rule.destination}
        if rule.inverted and not (rule.l3mdev or any(prefixes.get(key, key in self._body) for key in _MATCHES)):
            self._problem("not", f"needs something that shall not match: {', '.join(_MATCHES)}")

    def _at(self, key: str) -> str:
        return f"{self._path}.{key}"

    def _problem(self, key: str, text: str) -> None:
        self._reader.problem(self._at(key), text)

    def _integer(self, key: str, low: int, high: int, absent: int = 0) -> int:
        return self._reader.integer(self._body[key], self._at(key), low, high) if key in self._body else absent

    def _flag(self, key: str) -> bool:
        return self._reader.boolean(self._body[key], self._at(key)) if key in self._body else False

    def _interface(self, key: str) -> str:
        return self._reader.name_of_interface(self._body[key], self._at(key)) if key in self._body else ""

    def _prefix(self, key: str) -> str:
        text = self._reader.string(self._body[key], self._at(key))
        if text == "all" or not isinstance(self._body[key], str):
            return ""
        return self._reader.prefix(text, self._at(key), "prefix such as 10.0.0.0/24, address, or 'all'")

    def _family(self, prefixes: dict[str, str]) -> int:
        found = {key: 6 if ":" in prefix else 4 for key, prefix in prefixes.items() if prefix}
        if len(set(found.values())) > 1:
            self._problem("to", f"{self._body['to']!r} is of another address family than 'from'")
        family = next(iter(found.values()), 4)
        if "family" not in self._body:
            return family
        said = FAMILIES[self._reader.choice(self._body["family"], self._at("family"), FAMILIES)]
        if found and said != family:
            key = next(iter(found))
            self._problem("family", f"{self._body['family']!r} is another one than that of {self._body[key]!r}")
        return said

    def _table(self) -> int:
        value = self._body["table"]
        if isinstance(value, str) and value in TABLES:
            return TABLES[value]
        if isinstance(value, str) and not value.isdigit():
            self._problem("table", f"{show(value)} is no table: a number, main, default or local")
            return 0
        return self._reader.integer(value, self._at("table"), 1, _MAX_U32)

    def _tos(self, family: int) -> int:
        number = self._number("tos", 255)
        # Below are the bits of explicit congestion notification; of IPv4 the kernel looks at no more (IPTOS_RT_MASK).
        bits = 0x1C if family == 4 else 0xFC
        if number is None or not number or number & ~bits:
            some = "0x04, 0x08, 0x0c, 0x10, 0x14, 0x18 or 0x1c" if family == 4 else "a multiple of 4 up to 0xfc"
            self._problem("tos", f"{show(self._body['tos'])} is nothing that rules of IPv{family} match: {some}")
            return 0
        return number

    def _mark(self) -> tuple[int, int]:
        value = self._body["fwmark"]
        parts = str(value).split("/")
        numbers = [_integer_of(part) for part in parts]
        if isinstance(value, bool) or len(parts) > 2 or any(n is None or n > ALL_MARK_BITS for n in numbers):
            text = f"{show(value)} is no mark: a number such as 0x1, or one with a mask such as 0x1/0xff"
            self._problem("fwmark", text)
            return 0, 0
        mark, mask = numbers[0] or 0, numbers[1] if len(numbers) > 1 else ALL_MARK_BITS
        if not mask:
            self._problem("fwmark", f"{show(value)} has an empty mask, with which all packets are alike; leave it out")
        elif mark & ~mask:
            text = f"{show(value)} has bits outside of its mask, at which the kernel does not look"
            self._problem("fwmark", f"{text}; write '{mark & mask:#x}/{mask:#x}'")
        return mark, mask or 0

    def _protocol(self) -> int:
        value = self._body["ipproto"]
        names = {**PROTOCOLS, "ipv6-icmp": PROTOCOLS["icmpv6"]}
        if isinstance(value, str) and value.lower() in names:
            return names[value.lower()]
        number = self._number("ipproto", 255)
        if not number:
            text = f"{show(value)} is no protocol: {', '.join(PROTOCOLS)}, or a number from 1 to 255"
            self._problem("ipproto", text)
        return number or 0

    def _number(self, key: str, most: int) -> int | None:
        value = self._body[key]
        number = None if isinstance(value, bool) else _integer_of(str(value))
        return number if number is not None and number <= most else None

    def _range(self, key: str, low: int, high: int, what: str) -> tuple[int, int]:
        if key not in self._body:
            return NO_RANGE
        value = self._body[key]
        ends = [_integer_of(end) for end in str(value).split("-")]
        numbers = [end for end in ends if end is not None]
        if isinstance(value, bool) or len(ends) > 2 or len(numbers) != len(ends):
            self._problem(key, f"{show(value)} is no {what} and no range such as {low}-{high}")
            return NO_RANGE
        if not all(low <= number <= high for number in numbers):
            self._problem(key, f"{show(value)} is out of range: it has to be from {low} to {high}")
            return NO_RANGE
        if numbers[0] > numbers[-1]:
            self._problem(key, f"the range {show(value)} is backwards; write '{numbers[-1]}-{numbers[0]}'")
            return NO_RANGE
        return numbers[0], numbers[-1]


def _integer_of(text: str) -> int | None:
    """A number in any of Python's spellings but for white space, signs and underscores; None for anything else."""
    # Python takes no number of thousands of digits.
    if not text.isascii() or not text.isalnum() or len(text) > 20:
        return None
    try:
        return int(text, 0)
    except ValueError:
        return None


def _unless_all(prefix: str) -> str:
    """The kernel keeps no prefix of all addresses."""
    return "" if prefix.endswith("/0") else prefix
