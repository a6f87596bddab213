# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is remembered of devices follows them when somebody renames them. Pure.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

from ._model import NextHop, Remembered, Route
from ._sysctl_keys import interface_of

#: The names of the devices of a namespace by their indexes.
Names = Mapping[int, str]


def device_of(entry: Remembered) -> str:
    """The device that something remembered is about; empty if it is about none. Of the ways of a route: the first."""
    if entry.kind in ("sysctl", "consequence"):
        return interface_of(entry.object)
    if entry.kind == "lost route":
        return next((hop.dev for hop in lost_route(entry).hops), "")
    if entry.kind == "route":
        match = re.search(r"\bdev (\S+)", entry.after or "")
        return match.group(1) if match else ""
    return entry.object.split(" ", 1)[0]


def lost_route(entry: Remembered) -> Route:
    """The route that an entry of the kind ``lost route`` has."""
    words = dict(zip(Route._fields, json.loads(entry.before or "")))
    return Route(**{**words, "nexthops": tuple(NextHop(*hop) for hop in words["nexthops"])})


def followed(entries: Iterable[Remembered], names: Mapping[tuple[str, int], Names]) -> tuple[Remembered, ...]:
    """The entries with the names that their devices have now; ``names`` are by namespace and its inode."""
    found: dict[tuple[object, ...], Remembered] = {}
    for entry in entries:
        old, new = device_of(entry), names.get((entry.namespace, entry.inode), {}).get(entry.ifindex, "")
        now = _renamed(entry, old, new) if entry.ifindex and new and old != new else entry
        known = found.get(now[:4])
        # What was changed under both names was there first before the earlier change.
        found[now[:4]] = now._replace(before=known.before) if known else now
    return tuple(found.values())


def _renamed(entry: Remembered, old: str, new: str) -> Remembered:
    if entry.kind == "route":
        before = entry.before and _in_route(entry.before, old, new)
        return entry._replace(before=before, after=entry.after and _in_route(entry.after, old, new))
    if entry.kind == "lost route":
        route = lost_route(entry)
        hops = tuple(hop._replace(dev=new) if hop.dev == old else hop for hop in route.nexthops)
        route = route._replace(dev=new if route.dev == old else route.dev, nexthops=hops)
        entry = entry._replace(object=_in_route(entry.object, old, new), before=json.dumps(route))
    else:
        entry = entry._replace(object=_in_words(entry.object, old, new))
    if entry.kind in ("lost route", "lost address"):
        # It names the change that took it along.
        kind, _space, cause = (entry.after or "").partition(" ")
        entry = entry._replace(after=f"{kind} {_in_words(cause, old, new)}")
    return entry


def _in_route(text: str, old: str, new: str) -> str:
    return re.sub(rf"(?<!\S)dev {re.escape(old)}(?!\S)", lambda _match: f"dev {new}", text)


def _in_words(text: str, old: str, new: str) -> str:
    """``text`` with the name of a device as a word, or as an element of a sysctl's key, replaced."""
    return re.sub(rf"(?<![^\s/]){re.escape(old)}(?![^\s/])", lambda _match: new, text)
