# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The part of planning that is about host names and files of namespaces. Pure, as all of planning.

Private to the collection: no stable interface.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from . import _changes as c
from ._errors import FOREIGN
from ._model import HOSTNAME, NodeSetting, WantedNamespace

if TYPE_CHECKING:
    from ._plan import Planner


class Nodes:
    """Plans what makes the lab's namespaces look like machines of their own."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self._wanted = planner.wanted

    def remove(self, going: Collection[str]) -> None:
        """Take away what goes with namespaces, what has left the document, and what is left of those that are gone."""
        for name, there in list(self._planner.state.nodes.items()):
            wanted = self._wanted.namespaces.get(name)
            said = wanted.node if wanted else {}
            for what, setting in list(there.items()):
                if name in going:
                    is_surplus = bool(setting.lab) or what == HOSTNAME
                else:
                    is_surplus = self._is_ours(name, what, setting) and what not in said
                if is_surplus:
                    self._planner.do(c.SetNode(name, what, None, setting, wanted.path if wanted else ""))

    def _is_ours(self, name: str, what: str, setting: NodeSetting) -> bool:
        """May a run of the lab remove it? A host name without its namespace is nobody's."""
        if not (self._wanted.prune and self._wanted.lab):
            return False
        if what == HOSTNAME:
            namespace = self._planner.state.namespaces.get(name)
            known = name in self._planner.state.names or namespace is not None
            return not known or (namespace is not None and namespace.lab == self._wanted.lab)
        return setting.lab == self._wanted.lab

    def set(self) -> None:
        for wanted in self._wanted.namespaces.values():
            for what in wanted.node:
                self._set(wanted, what)

    def _set(self, wanted: WantedNamespace, what: str) -> None:
        value, path = wanted.node[what]
        there = self._planner.state.nodes.get(wanted.name, {}).get(what)
        setting = NodeSetting("" if what == HOSTNAME else self._wanted.lab, value)
        if there == setting:
            return
        obstacle = self._planner.state.node_obstacles.get(wanted.name)
        if what != HOSTNAME and obstacle:
            self._planner.problem(path, obstacle, FOREIGN)
            return
        if what != HOSTNAME and there and there.lab != self._wanted.lab and not self._wanted.adopt:
            whose = f"belongs to lab {there.lab!r}" if there.lab else "is not this lab's"
            text = f"/etc/netns/{wanted.name}/{what} exists already and {whose}; remove it, or take it over with "
            self._planner.problem(path, f"{text}'adopt: true'", FOREIGN)
            return
        self._planner.do(c.SetNode(wanted.name, what, setting, there, path))
