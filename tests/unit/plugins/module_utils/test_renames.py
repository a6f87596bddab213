# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is remembered follows devices that get other names."""

from __future__ import annotations

import json

import pytest
from ansible_collections.nslab.netns.plugins.module_utils._model import Address, NextHop, Remembered, Route
from ansible_collections.nslab.netns.plugins.module_utils._renames import device_of, devices_of, followed

#: `dev` and `mtu` are names for devices as good as any, and so is `ip`.
NAMES = ["eth0", "dev", "mtu", "ip", "0", "a.b", "up", "net", "ipv4"]
OTHERS = {"other": 8, "br0": 9}


def entries(device: str) -> list[Remembered]:
    """One of each kind, as they are for a device of that name."""

    def entry(kind: str, what: str, before: str | None, after: str | None, *others: str) -> Remembered:
        indexes = ((device, 3), *((name, OTHERS[name]) for name in others))
        return Remembered(kind, "host", 7, what, before, after, indexes)

    route = Route("203.0.113.0/24", via="192.0.2.1", dev=device)
    other = Route("198.51.100.0/24", dev=device)
    ways = Route("192.0.2.128/25", nexthops=(NextHop("192.0.2.1", device), NextHop("192.0.2.9", "other")))
    address = Address("2001:db8::2/64")
    rp_filter, disable = f"net/ipv4/conf/{device}/rp_filter", f"net/ipv6/conf/{device}/disable_ipv6"
    return [
        entry("mtu", device, "1500", "1000"),
        entry("mac", device, "02:00:00:00:00:01", "02:00:00:00:00:02"),
        entry("up", device, "up", "down"),
        entry("master", device, "", "br0", "br0"),
        entry("port", device, "[]", None),
        entry("address", f"{device} 192.0.2.2/24", None, "192.0.2.2/24"),
        entry("route", str(route.key), None, str(route)),
        entry("sysctl", rp_filter, "0", "1"),
        entry("consequence", rp_filter, "0", "1"),
        entry("lost address", f"{device} {address.address}", json.dumps(address), f"mtu {device}"),
        entry("lost address", f"{device} {address.address}/1", json.dumps(address), f"sysctl {disable}"),
        entry("lost route", f"{route.key} {route}", json.dumps(route), f"up {device}"),
        entry("lost route", f"{ways.key} {ways}", json.dumps(ways), f"up {device}", "other"),
        entry("lost route", f"{other.key} {other}", json.dumps(other), f"up {device}"),
        entry("route", str(ways.key), None, str(ways), "other"),
    ]


@pytest.mark.parametrize("new", NAMES)
@pytest.mark.parametrize("old", NAMES)
def test_every_kind_follows(old: str, new: str) -> None:
    assert [device_of(entry) for entry in entries(old)] == [old] * len(entries(old))
    for entry in entries(old):
        assert devices_of(entry) == [name for name, _index in entry.devices]
    assert list(followed(entries(old), {("host", 7): {3: new, 4: old}})) == entries(new)


def test_devices_may_swap_their_names() -> None:
    one, two = (entries(name)[0]._replace(devices=((name, index),)) for index, name in ((1, "a"), (2, "b")))
    found = followed([one, two], {("host", 7): {1: "b", 2: "a"}})
    assert [(entry.object, entry.ifindex) for entry in found] == [("b", 1), ("a", 2)]


def test_what_was_changed_under_both_names_is_known_from_before_the_first_change() -> None:
    first, second = entries("a")[0], entries("b")[0]._replace(before="1000", after="900")
    assert followed([first, second], {("host", 7): {3: "b"}}) == (second._replace(before="1500"),)


def test_what_is_about_two_devices_stays_apart() -> None:
    gone, renamed = entries("b")[0]._replace(devices=(("b", 2),)), entries("a")[0]
    assert followed([gone, renamed], {("host", 7): {3: "b"}}) == (gone, entries("b")[0])


def test_every_way_and_every_bridge_follows() -> None:
    found = followed(entries("a"), {("host", 7): {3: "a", 8: "another", 9: "br1"}})
    assert [entry for entry in found if any(f'"{name}' in json.dumps(entry) for name in OTHERS)] == []
    assert [entry for entry in found if any(f"dev {name} " in f"{entry.after} " for name in OTHERS)] == []


@pytest.mark.parametrize("names", [{}, {("host", 7): {19: "b"}}, {("host", 8): {3: "b"}}, {("other", 7): {3: "b"}}])
def test_what_is_not_seen_stays_as_it_is(names: dict[tuple[str, int], dict[int, str]]) -> None:
    assert list(followed(entries("a"), names)) == entries("a")


def test_what_is_about_no_device_stays_as_it_is() -> None:
    entry = Remembered("sysctl", "host", 7, "net/ipv4/ip_forward", "0", "1")
    assert device_of(entry) == ""
    assert followed([entry], {("host", 7): {0: "b", 3: "c"}}) == (entry,)
