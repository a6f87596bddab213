# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Policy rules, from what is to a topology document; pure.

Private to the collection: no stable interface.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ._model import HOST, Namespace
from ._nat import PROTOCOLS
from ._rules import TABLES, Rule, mark_text, range_text, table_text

_PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}


def capture_rules(namespace: Namespace, added: Collection[str | None]) -> list[dict[str, Any]]:
    """The rules that a person or the collection has made; of the host's those that the lab has ``added``.

    What a document cannot say, such as ``goto``, is left out, and counts as drift of the lab.
    """
    rules = [
        rule
        for rule in namespace.rules
        if rule.is_sayable and (str(rule) in added or (namespace.name != HOST and rule.is_static))
    ]
    return [rule_words(rule) for rule in dict.fromkeys(rule.words for rule in rules)]


def rule_words(rule: Rule) -> dict[str, Any]:
    """A rule in the words of a document, without what is not said of it."""
    body: dict[str, Any] = {"priority": rule.priority}
    if rule.family == 6 and not (rule.source or rule.destination):
        body["family"] = "ipv6"
    found: dict[str, Any] = {
        "not": rule.inverted,
        "from": rule.source,
        "to": rule.destination,
        "tos": f"{rule.tos:#04x}" if rule.tos else "",
        "fwmark": mark_text(rule.mark, rule.mark_mask),
        "iif": rule.iif,
        "oif": rule.oif,
        "uidrange": range_text(rule.uidrange),
        "ipproto": _PROTOCOL_NAMES.get(rule.ipproto, rule.ipproto),
        "sport": range_text(rule.sport),
        "dport": range_text(rule.dport),
        "l3mdev": rule.l3mdev,
        "type": rule.type if rule.type != "lookup" else "",
    }
    body.update((key, value) for key, value in found.items() if value)
    if rule.type == "lookup" and not rule.l3mdev:
        body["table"] = table_text(rule.table) if rule.table in TABLES.values() else rule.table
    if rule.suppress_prefixlength >= 0:
        body["suppress_prefixlength"] = rule.suppress_prefixlength
    return body
