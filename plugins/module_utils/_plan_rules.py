# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The part of planning that is about policy rules. Pure, as all of planning.

Rules of one family and priority are asked in the order in which they were made, so that they are planned together.

Private to the collection: no stable interface.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _changes as c
from ._errors import FOREIGN
from ._model import Namespace, Remembered, WantedNamespace, WantedRule
from ._rules import NEW_RULES, VRF_RULES, Rule, groups

if TYPE_CHECKING:
    from ._plan import Planner

#: The fields of a rule by the keys of the input that say them.
_FIELDS = {
    "from": ("source",),
    "to": ("destination",),
    "not": ("inverted",),
    "fwmark": ("mark", "mark_mask"),
}


class Rules:
    """Plans the policy rules, namespace by namespace."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self._wanted = planner.wanted

    def remove(self) -> None:
        """Remove what shall not be there, before the routes go to which it leads."""
        for wanted in self._wanted.namespaces.values():
            namespace = self._planner.state.namespaces.get(wanted.name)
            if namespace is None:
                continue
            asked = groups(item.value for item in wanted.rules)
            for place, there in groups(namespace.rules).items():
                left = tuple(rule for rule in there if not self._is_surplus(namespace, wanted, rule))
                if place not in asked and left != there:
                    self._planner.do(c.SetRules(namespace.name, left, there, wanted.path))

    def set(self) -> None:
        """Let each namespace have its rules, now that their tables are filled."""
        for wanted in self._wanted.namespaces.values():
            namespace = self._planner.state.namespaces[wanted.name]
            there, given = groups(namespace.rules), groups(self._given(namespace))
            places = dict.fromkeys((*(item.value.place for item in wanted.rules), *there, *given))
            for place in places:
                items = [item for item in wanted.rules if item.value.place == place]
                self._set_group(namespace, wanted, there.get(place, ()), items, given.get(place, ()))

    def _given(self, namespace: Namespace) -> list[Rule]:
        """The rules that the kernel has made with a namespace of the lab's own, or a VRF there, and makes only once."""
        if not (self._wanted.prune and self._planner.owns(namespace)):
            return []
        has_vrf = any(link.kind == "vrf" for link in namespace.links.values())
        rules = (*NEW_RULES, *(VRF_RULES if has_vrf else ()))
        return [rule for rule in rules if rule.family in namespace.rule_families]

    def _set_group(
        self,
        namespace: Namespace,
        wanted: WantedNamespace,
        there: tuple[Rule, ...],
        items: list[WantedRule],
        given: tuple[Rule, ...],
    ) -> None:
        places: dict[int, int] = {}
        for number, item in enumerate(items):
            found = (i for i, rule in enumerate(there) if self._is_same(namespace, rule, item.value))
            place = next((i for i in found if i not in places.values()), None)
            if place is not None:
                places[number] = place
        # In the wanted order are those at the beginning of the demand, as far as they stand one behind the other.
        kept: list[int] = []
        for number in range(len(items)):
            if number not in places or (kept and places[number] < kept[-1]):
                break
            kept.append(places[number])
        staying = [
            rule
            for i, rule in enumerate(there)
            if i in kept or (i not in places.values() and not self._is_surplus(namespace, wanted, rule))
        ]
        again = [there[places[i]] if i in places else items[i].value for i in range(len(kept), len(items))]
        memories = [self._memory(namespace, item, i in places) for i, item in enumerate(items)]
        for i in range(len(kept), len(items)):
            memory = memories[i]
            if i in places and memory and not self._planner.memories.is_alone(memory):
                text = f"the namespace {namespace.name} has this rule already, before others of its priority that are"
                text = f"{text} said before it here, and it is not this lab's alone: say it before them, or give one of"
                self._planner.problem(items[i].path, f"{text} them another priority", FOREIGN)
        for memory, item in zip(memories, items):
            self._planner.memories.agree(memory, item.path)
        rules = (*staying, *again)
        rules += tuple(rule for rule in given if all(rule.words != other.words for other in rules))
        if rules != there:
            path = next((item.path for i, item in enumerate(items) if i not in places), wanted.path)
            new = [memory for i, memory in enumerate(memories) if i not in places and memory]
            self._planner.do(c.SetRules(namespace.name, rules, there, path), *new)

    def _memory(self, namespace: Namespace, item: WantedRule, is_there: bool) -> Remembered | None:
        if not self._wanted.lab or self._planner.owns(namespace):
            return None
        text = str(item.value)
        return Remembered("rule", namespace.name, namespace.inode, text, text if is_there else None, text)

    def _is_same(self, namespace: Namespace, there: Rule, wanted: Rule) -> bool:
        # Outside the lab's own namespaces a rule that somebody else made is as good as one of ours.
        is_good = there.protocol == wanted.protocol or not there.is_static or not self._planner.owns(namespace)
        return there.words == wanted and is_good

    def _is_surplus(self, namespace: Namespace, wanted: WantedNamespace, rule: Rule) -> bool:
        """Shall the rule go, unless it is a wanted one? Those of the kernel and of daemons never do."""
        if not rule.is_static:
            return False
        if any(_is_meant(item, rule) for item in wanted.absent_rules):
            return True
        return wanted.purge_rules or (self._wanted.prune and self._planner.owns(namespace))

    def put_back(self, entry: Remembered, namespace: Namespace) -> None:
        """Remove a rule that the lab has added to what is not its own, and wants no more."""
        for there in groups(namespace.rules).values():
            found = next((rule for rule in there if rule.is_static and str(rule) == entry.after), None)
            if found:
                left = list(there)
                left.remove(found)
                self._planner.do(c.SetRules(namespace.name, tuple(left), there))
                return


def _is_meant(item: WantedRule, rule: Rule) -> bool:
    """Has the rule all that is said of one that shall go?"""
    fields = ["family", *(field for key in item.said for field in _FIELDS.get(key, (key,)))]
    return all(getattr(item.value, field) == getattr(rule, field) for field in fields)
