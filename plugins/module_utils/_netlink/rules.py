# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Policy rules: reads the kernel's dumps, and makes the requests that add and remove rules, all by hand.

Layouts and numbers: include/uapi/linux/fib_rules.h. Rules know interfaces by name.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .._errors import KernelError
from .._rules import NO_RANGE, Rule, steps
from .session import Session, attributes

_RTM_NEWRULE, _RTM_DELRULE, _RTM_GETRULE = 32, 33, 34
_NLM_F_CREATE = 0x400
_FIB_RULE_INVERT = 0x2

#: struct fib_rule_hdr: family, dst_len, src_len, tos, table, two reserved ones, action, flags.
_HEADER = struct.Struct("=BBBBBBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_U8, _U16, _U32 = struct.Struct("=B"), struct.Struct("=H"), struct.Struct("=I")
_PORTS, _UIDS = struct.Struct("=HH"), struct.Struct("=II")

_FRA_DST, _FRA_SRC, _FRA_IIFNAME, _FRA_PRIORITY, _FRA_FWMARK = 1, 2, 3, 6, 10
_FRA_SUPPRESS_IFGROUP, _FRA_SUPPRESS_PREFIXLEN, _FRA_TABLE, _FRA_FWMASK = 13, 14, 15, 16
_FRA_OIFNAME, _FRA_PAD, _FRA_L3MDEV, _FRA_UID_RANGE, _FRA_PROTOCOL = 17, 18, 19, 20, 21
_FRA_IP_PROTO, _FRA_SPORT_RANGE, _FRA_DPORT_RANGE = 22, 23, 24
_FRA_SPORT_MASK, _FRA_DPORT_MASK = 28, 29

_ACTIONS = {1: "lookup", 2: "goto", 3: "nop", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
_ACTION_NUMBERS = {word: number for number, word in _ACTIONS.items()}
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}

#: What is told with every rule and says nothing by these values.
_SILENT = {_FRA_SUPPRESS_IFGROUP: b"\xff" * 4, _FRA_SPORT_MASK: b"\xff" * 2, _FRA_DPORT_MASK: b"\xff" * 2}


def rules(session: Session) -> dict[int, list[Rule]]:
    """The policy rules in the kernel's order, by the families for which it can have any. Raises KernelError."""
    found: dict[int, list[Rule]] = {}
    for family, number in _FAMILIES.items():
        try:
            bodies = session.dump(_RTM_GETRULE, _HEADER.pack(number, 0, 0, 0, 0, 0, 0, 0, 0))
        except KernelError as error:
            # The kernel has no rules for this family, or does not know it at all.
            if error.number in (errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
                continue
            raise
        found[family] = [_rule(body) for body in bodies if body[0] == number]
    return found


def _rule(body: bytes) -> Rule:
    family, dst_len, src_len, tos, table, _r1, _r2, action, flags = _HEADER.unpack_from(body)
    words: dict[str, Any] = {
        "type": _ACTIONS.get(action, str(action)),
        "inverted": bool(flags & _FIB_RULE_INVERT),
        "tos": tos,
        "table": table,
        "protocol": 0,
    }
    priority = 0
    unknown: list[tuple[int, bytes]] = []
    for kind, value in attributes(body, _HEADER.size):
        if kind == _FRA_DST:
            words["destination"] = f"{socket.inet_ntop(family, value)}/{dst_len}"
        elif kind == _FRA_SRC:
            words["source"] = f"{socket.inet_ntop(family, value)}/{src_len}"
        elif kind == _FRA_PRIORITY:
            priority = _U32.unpack(value)[0]
        elif kind == _FRA_SUPPRESS_PREFIXLEN:
            words["suppress_prefixlength"] = struct.unpack("=i", value)[0]
        elif kind in _READERS:
            name, read = _READERS[kind]
            words[name] = read(value)
        elif kind != _FRA_PAD and _SILENT.get(kind) != value:
            unknown.append((kind, value))
    if words["type"] != "lookup" or words.get("l3mdev"):
        words["table"] = 0
    return Rule(priority, 6 if family == socket.AF_INET6 else 4, unknown=tuple(unknown), **words)


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode("utf-8", "surrogateescape")


_READERS: dict[int, tuple[str, Callable[[bytes], Any]]] = {
    _FRA_IIFNAME: ("iif", _text),
    _FRA_OIFNAME: ("oif", _text),
    _FRA_FWMARK: ("mark", lambda value: _U32.unpack(value)[0]),
    _FRA_FWMASK: ("mark_mask", lambda value: _U32.unpack(value)[0]),
    _FRA_TABLE: ("table", lambda value: _U32.unpack(value)[0]),
    _FRA_L3MDEV: ("l3mdev", lambda value: bool(value[0])),
    _FRA_UID_RANGE: ("uidrange", _UIDS.unpack),
    _FRA_PROTOCOL: ("protocol", lambda value: value[0]),
    _FRA_IP_PROTO: ("ipproto", lambda value: value[0]),
    _FRA_SPORT_RANGE: ("sport", _PORTS.unpack),
    _FRA_DPORT_RANGE: ("dport", _PORTS.unpack),
}


def add(session: Session, new: Iterable[Rule]) -> None:
    """Append rules, each behind all others of its priority. Raises KernelError."""
    for rule in new:
        session.request(_RTM_NEWRULE, _NLM_F_CREATE, _request(rule))


def replace(session: Session, before: Sequence[Rule], wanted: Sequence[Rule]) -> None:
    """Let the rules of one family and priority be ``wanted``, as far as they were known (``before``).

    Those that somebody else has made meanwhile stay. What is new is there before what is old goes.
    """
    places = {rule.place for rule in (*before, *wanted)}
    there = [rule for known in rules(session).values() for rule in known if rule.place in places]
    others = [rule for rule in there if rule not in before and rule not in wanted]
    planned = steps(there, [*wanted, *others])
    add(session, planned.add)
    for rule in planned.remove:
        session.request(_RTM_DELRULE, 0, _request(rule))


def _request(rule: Rule) -> bytes:
    source, source_length = _packed(rule.source)
    destination, destination_length = _packed(rule.destination)
    found: list[tuple[int, bytes]] = [(_FRA_PRIORITY, _U32.pack(rule.priority)), (_FRA_TABLE, _U32.pack(rule.table))]
    for kind, text in ((_FRA_IIFNAME, rule.iif), (_FRA_OIFNAME, rule.oif)):
        found += [(kind, text.encode("utf-8", "surrogateescape") + b"\0")] if text else []
    found += [(_FRA_SRC, source)] if source else []
    found += [(_FRA_DST, destination)] if destination else []
    if rule.mark_mask:
        found += [(_FRA_FWMARK, _U32.pack(rule.mark)), (_FRA_FWMASK, _U32.pack(rule.mark_mask))]
    if rule.l3mdev:
        found.append((_FRA_L3MDEV, _U8.pack(1)))
    if rule.uidrange != NO_RANGE:
        found.append((_FRA_UID_RANGE, _UIDS.pack(*rule.uidrange)))
    if rule.ipproto:
        found.append((_FRA_IP_PROTO, _U8.pack(rule.ipproto)))
    for kind, ports in ((_FRA_SPORT_RANGE, rule.sport), (_FRA_DPORT_RANGE, rule.dport)):
        found += [(kind, _PORTS.pack(*ports))] if ports != NO_RANGE else []
    if rule.suppress_prefixlength >= 0:
        found.append((_FRA_SUPPRESS_PREFIXLEN, _U32.pack(rule.suppress_prefixlength)))
    if rule.protocol:
        found.append((_FRA_PROTOCOL, _U8.pack(rule.protocol)))
    header = _HEADER.pack(
        _FAMILIES[rule.family],
        destination_length,
        source_length,
        rule.tos,
        # Tables above 255 stand in FRA_TABLE alone.
        rule.table if rule.table < 256 else 0,
        0,
        0,
        _ACTION_NUMBERS.get(rule.type) or int(rule.type),
        _FIB_RULE_INVERT if rule.inverted else 0,
    )
    return header + b"".join(_attribute(kind, value) for kind, value in (*found, *rule.unknown))


def _packed(prefix: str) -> tuple[bytes, int]:
    """A prefix as address and length; nothing for none, and for one of all addresses: the kernel keeps no such."""
    address, _slash, length = prefix.partition("/")
    if not int(length or 0):
        return b"", 0
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address), int(length)


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + b"\0" * (-len(value) % 4)
