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

_DEVICE = re.compile(r"(?<!\S)dev (\S+)")


def devices_of(entry: Remembered) -> list[str]:
    """The devices that something remembered speaks of by name; the one that it is about, if there is one, first."""
    found = _of_object(entry.kind, entry.object)
    if entry.kind == "lost route":
        found = [hop.dev for hop in lost_route(entry).hops]
    if entry.kind == "route":
        found = _DEVICE.findall(f"{entry.after} {entry.before}")
    if entry.kind == "master":
        found += [bridge for bridge in (entry.before, entry.after) if bridge]
    if entry.kind.startswith("lost"):
        found += _of_object(*cause_of(entry))
    return [name for name in dict.fromkeys(found) if name]


def device_of(entry: Remembered) -> str:
    """The device that something remembered is about; empty if it is about none. Of the ways of a route: the first."""
    return next(iter(devices_of(entry)), "")


def cause_of(entry: Remembered) -> tuple[str, str]:
    """The kind and the object of the change that took along what is remembered as lost."""
    kind, _space, thing = (entry.after or "").partition(" ")
    return kind, thing


def lost_route(entry: Remembered) -> Route:
    """The route that an entry of the kind ``lost route`` has."""
    words = dict(zip(Route._fields, json.loads(entry.before or "")))
    return Route(**{**words, "nexthops": tuple(NextHop(*hop) for hop in words["nexthops"])})


def once(entries: Iterable[Remembered]) -> tuple[Remembered, ...]:
    """What was changed more than once, or under several names, once: with its earliest ``before``."""
    found: dict[tuple[object, ...], Remembered] = {}
    for entry in entries:
        known = found.get(entry.key)
        found[entry.key] = entry._replace(before=known.before) if known else entry
    return tuple(found.values())


def inherited(known: Iterable[Remembered], entries: Iterable[Remembered]) -> tuple[Remembered, ...]:
    """What a lab remembers that gets the entries of another one, to put back in the end what it goes on needing."""
    found = {entry.key: entry for entry in known}
    for entry in entries:
        same = found.get(entry.key)
        if same is None or same.before == entry.after:
            found[entry.key] = same._replace(before=entry.before) if same else entry
    return tuple(found.values())


def followed(entries: Iterable[Remembered], names: Mapping[tuple[str, int], Names]) -> tuple[Remembered, ...]:
    """The entries with the names that their devices have now; ``names`` are by namespace and its inode.

    What is about a device that is gone is as it was.
    """
    found = []
    for entry in entries:
        there = names.get((entry.namespace, entry.inode), {})
        found.append(_renamed(entry, {old: there.get(index, old) for old, index in entry.devices}))
    return once(found)


def _of_object(kind: str, thing: str) -> list[str]:
    if kind in ("sysctl", "consequence"):
        return [interface_of(thing)]
    # The kernel keeps the names that a rule was given, whatever the interfaces are called by now.
    return [] if "route" in kind or kind in ("rule", "attached", "device") else [thing.split(" ", 1)[0]]


def _renamed(entry: Remembered, names: Mapping[str, str]) -> Remembered:
    if all(old == new for old, new in names.items()):
        return entry
    before, after = entry.before, entry.after
    if entry.kind == "route":
        before, after = before and _in_route(before, names), after and _in_route(after, names)
    elif entry.kind == "lost route":
        route = lost_route(entry)
        hops = tuple(hop._replace(dev=names.get(hop.dev, hop.dev)) for hop in route.nexthops)
        before = json.dumps(route._replace(dev=names.get(route.dev, route.dev), nexthops=hops))
    elif entry.kind == "master":
        before, after = before and names.get(before, before), after and names.get(after, after)
    if entry.kind.startswith("lost"):
        kind, cause = cause_of(entry)
        after = f"{kind} {_in_object(kind, cause, names)}"
    return entry._replace(
        object=_in_object(entry.kind, entry.object, names),
        before=before,
        after=after,
        devices=tuple((names.get(name, name), index) for name, index in entry.devices),
    )


def _in_object(kind: str, thing: str, names: Mapping[str, str]) -> str:
    if "route" in kind:
        return _in_route(thing, names)
    if kind in ("sysctl", "consequence"):
        interface = interface_of(thing)
        parts = thing.split("/")
        return "/".join([*parts[:3], names.get(interface, interface), *parts[4:]]) if interface else thing
    device, space, rest = thing.partition(" ")
    return names.get(device, device) + space + rest


def _in_route(text: str, names: Mapping[str, str]) -> str:
    return _DEVICE.sub(lambda match: f"dev {names.get(match.group(1), match.group(1))}", text)
