# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is remembered follows devices that get other names."""

from __future__ import annotations

import json

import pytest
from ansible_collections.nslab.netns.plugins.module_utils._model import Address, NextHop, Remembered, Route
from ansible_collections.nslab.netns.plugins.module_utils._renames import device_of, followed

#: `dev` and `mtu` are names for devices as good as any, and so is `ip`.
NAMES = ["eth0", "dev", "mtu", "ip", "0", "a.b", "up"]


def entries(device: str) -> list[Remembered]:
    """One of each kind, as they are for a device of that name."""

    def entry(kind: str, what: str, before: str | None, after: str | None) -> Remembered:
        return Remembered(kind, "host", 7, what, before, after, 3)

    route = Route("203.0.113.0/24", via="192.0.2.1", dev=device)
    ways = Route("203.0.113.0/24", nexthops=(NextHop("192.0.2.1", device), NextHop("192.0.2.9", "other")))
    address = Address("2001:db8::2/64")
    rp_filter, disable = f"net/ipv4/conf/{device}/rp_filter", f"net/ipv6/conf/{device}/disable_ipv6"
    return [
        entry("mtu", device, "1500", "1000"),
        entry("mac", device, "02:00:00:00:00:01", "02:00:00:00:00:02"),
        entry("up", device, "up", "down"),
        entry("master", device, "", "br0"),
        entry("port", device, "[]", None),
        entry("address", f"{device} 192.0.2.2/24", None, "192.0.2.2/24"),
        entry("route", str(route.key), None, str(route)),
        entry("sysctl", rp_filter, "0", "1"),
        entry("consequence", rp_filter, "0", "1"),
        entry("lost address", f"{device} {address.address}", json.dumps(address), f"mtu {device}"),
        entry("lost address", f"{device} {address.address}/1", json.dumps(address), f"sysctl {disable}"),
        entry("lost route", f"{route.key} {route}", json.dumps(route), f"up {device}"),
        entry("lost route", f"{ways.key} {ways}", json.dumps(ways), f"up {device}"),
    ]


@pytest.mark.parametrize("new", NAMES)
@pytest.mark.parametrize("old", NAMES)
def test_every_kind_follows(old: str, new: str) -> None:
    assert [device_of(entry) for entry in entries(old)] == [old] * len(entries(old))
    assert list(followed(entries(old), {("host", 7): {3: new, 4: old}})) == entries(new)


def test_devices_may_swap_their_names() -> None:
    one, two = (entries(name)[0]._replace(ifindex=index) for index, name in ((1, "a"), (2, "b")))
    found = followed([one, two], {("host", 7): {1: "b", 2: "a"}})
    assert [(entry.object, entry.ifindex) for entry in found] == [("b", 1), ("a", 2)]


def test_what_was_changed_under_both_names_is_known_from_before_the_first_change() -> None:
    first, second = entries("a")[0], entries("b")[0]._replace(before="1000", after="900")
    assert followed([first, second], {("host", 7): {3: "b"}}) == (second._replace(before="1500"),)


@pytest.mark.parametrize("names", [{}, {("host", 7): {9: "b"}}, {("host", 8): {3: "b"}}, {("other", 7): {3: "b"}}])
def test_what_is_not_seen_stays_as_it_is(names: dict[tuple[str, int], dict[int, str]]) -> None:
    assert list(followed(entries("a"), names)) == entries("a")


def test_what_is_about_no_device_stays_as_it_is() -> None:
    entry = Remembered("sysctl", "host", 7, "net/ipv4/ip_forward", "0", "1")
    assert device_of(entry) == ""
    assert followed([entry], {("host", 7): {0: "b", 3: "c"}}) == (entry,)
