# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From rules of translation to the words of a topology document. The inverse of _document_nat.py; pure.

Private to the collection: no stable interface.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ._nat import FLAGS, NatRule, hairpin_of, output_of

Document = dict[str, Any]

_MATCHES = ("source", "destination", "in_interface", "out_interface", "protocol", "source_ports", "mark")


def capture_nat(rules: Sequence[NatRule]) -> Document:
    """The keys ``snat`` and ``dnat`` of a namespace. What cannot be said in their words is left out."""
    known = [rule for rule in rules if not rule.unknown]
    body: Document = {}
    snat = [(_snat(rule), rule.family) for rule in known if rule.kind == "snat"]
    # Of a hairpin's prefix the words say nothing.
    companions = {rule._replace(source="") if rule.is_hairpin else rule for rule in known}
    dnat = [(_dnat(rule, companions), rule.family) for rule in known if rule.chain == "prerouting"]
    for key, entries in (("snat", snat), ("dnat", dnat)):
        if entries:
            body[key] = _joined(entries)
    return body


def _joined(entries: list[tuple[Document, int]]) -> list[Document]:
    """What says the same for both families, once; what says nothing of its family, with it."""
    four = [entry for entry, family in entries if family == 4]
    six = [entry for entry, family in entries if family == 6]
    joined: list[Document] = []
    for entry in four:
        if _tells_family(entry):
            joined.append(entry)
        elif entry in six:
            at = six.index(entry)
            joined += [_with_family(other, "ipv6") for other in six[:at]]
            joined.append(entry)
            six = six[at + 1 :]
        else:
            joined.append(_with_family(entry, "ipv4"))
    return joined + [_with_family(other, "ipv6") for other in six]


def _tells_family(entry: Document) -> bool:
    keys = ("source", "not_source", "destination", "not_destination", "to_source", "to_destination")
    addresses = [entry[key] for key in keys if key in entry]
    return any(not text.startswith(":") for text in addresses) or entry.get("protocol") in ("icmp", "icmpv6")


def _with_family(entry: Document, family: str) -> Document:
    return entry if _tells_family(entry) else {**entry, "family": family}


def _snat(rule: NatRule) -> Document:
    body = _matches(rule, "destination_ports")
    if rule.action == "masquerade":
        body["masquerade"] = True
    else:
        body["to_source"] = rule.to
    return {**body, **_rest(rule)}


def _dnat(rule: NatRule, companions: set[NatRule]) -> Document:
    body = {**_matches(rule, "port" if "," not in rule.destination_ports else "ports"), "to_destination": rule.to}
    if not rule.local and not rule.destination:
        # Without it the rule would be for what is addressed to the namespace itself.
        body["destination"] = "0.0.0.0/0" if rule.family == 4 else "::/0"
    if output_of(rule) in companions:
        body["local"] = True
    if rule.to_address and hairpin_of(rule) in companions:
        body["hairpin"] = True
    return {**body, **_rest(rule)}


def _matches(rule: NatRule, port_key: str) -> Document:
    body: Document = {}
    for field in _MATCHES:
        if getattr(rule, field):
            body[f"not_{field}" if field in rule.negated else field] = getattr(rule, field)
    if rule.destination_ports:
        negated = "destination_ports" in rule.negated
        body[f"not_{port_key}" if negated else port_key] = rule.destination_ports
    return body


def _rest(rule: NatRule) -> Document:
    body: Document = {key: True for key in FLAGS if getattr(rule, key)}
    if rule.comment:
        body["comment"] = rule.comment
    return body
