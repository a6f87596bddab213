# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The part of planning that is about impairments of links. Pure, as all of planning.

Private to the collection: no stable interface.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _changes as c
from ._errors import FOREIGN
from ._impairment import NO_IMPAIRMENT, OUR_HANDLE
from ._model import HOST, Endpoint, Link, Remembered, WantedImpairment

if TYPE_CHECKING:
    from ._plan import Planner


class Impairments:
    """Plans what links do to what they send."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self._wanted = planner.wanted

    def set(self) -> None:
        for end, wanted in self._planner.wanted_links():
            if wanted.impairment is not None:
                link = self._planner.state.namespaces[end.namespace].links[end.interface]
                self._set(end, link, wanted.impairment)
        self._remove_surplus()

    def _set(self, end: Endpoint, link: Link, wanted: WantedImpairment) -> None:
        before, after = link.impairment, None if wanted.value == NO_IMPAIRMENT else wanted.value
        if after and link.other_qdisc:
            text = f"{end} has a queueing discipline of somebody else's, {link.other_qdisc}"
            self._problem(wanted, end, text, "root")
            return
        if before and before.inner:
            text = f"the impairment of {end} has a queueing discipline of somebody else's in it, {before.inner}"
            self._problem(wanted, end, text, f"parent {before.handle >> 16:x}:1")
            return
        texts = [str(item) if item else None for item in (before, after)]
        memory = self._planner.remember("impairment", end, *texts)
        if not self._planner.memories.agree(memory, wanted.path) or before == after:
            return
        is_known = memory is None or memory[:4] in self._planner.memories.keys
        if before and not is_known and not self._wanted.adopt:
            text = f"{end} is impaired by somebody else, with {before}"
            self._problem(wanted, end, text, "root", ", or take it over with 'adopt: true'")
            return
        self._planner.do(c.SetImpairment(end, after, before, wanted.path), memory)

    def _problem(self, wanted: WantedImpairment, end: Endpoint, text: str, place: str, more: str = "") -> None:
        inside = "" if end.namespace == HOST else f"-n {end.namespace} "
        text = f"{text}; remove that with 'tc {inside}qdisc delete dev {end.interface} {place}'{more}"
        self._planner.problem(wanted.path, text, FOREIGN)

    def _remove_surplus(self) -> None:
        """Of what is left on other links in the lab's own namespaces, what has the collection's mark goes."""
        if not self._wanted.prune:
            return
        for end, link in list(self._planner.state.links()):
            wanted = self._wanted.namespaces.get(end.namespace)
            said = wanted.links.get(end.interface) if wanted else None
            there = link.impairment
            is_ours = there is not None and there.handle == OUR_HANDLE and not there.inner
            if is_ours and wanted and not said and self._planner.owns(self._planner.state.namespaces[end.namespace]):
                self._planner.do(c.SetImpairment(end, None, there, wanted.path))

    def put_back(self, entry: Remembered, end: Endpoint, link: Link) -> None:
        """Take away what the lab has set on what is not its own, and wants no more."""
        now = link.impairment
        if now is None:
            return
        if str(now) == entry.after and now.handle == OUR_HANDLE:
            self._planner.do(c.SetImpairment(end, None, now))
        else:
            self._planner.memories.leave(entry, str(now))
