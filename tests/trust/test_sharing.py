# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stories of three labs that share two interfaces of the host and its sysctls, and in the end leave it as it was."""

from __future__ import annotations

import ipaddress
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from ansible_collections.nslab.netns.plugins.module_utils import _engine as engine
from ansible_collections.nslab.netns.plugins.module_utils import _options
from ansible_collections.nslab.netns.plugins.module_utils._document import read_topology
from ansible_collections.nslab.netns.plugins.module_utils._errors import InvalidInput, Refused
from ansible_collections.nslab.netns.tests.unit.topologies import Document
from applying import words
from counting import count
from oracle import look
from throwaway import differences, ip, sysctls, throwaway_host

#: How many stories there are, in parts that go to several processes, and how long each is.
STORIES = int(os.environ.get("NSLAB_STORIES", "32"))
PARTS = 8
STEPS = 10
_FIRST = 10000 * int(os.environ.get("NSLAB_SEED", "0"))

LABS = ("one", "two", "three")
DEVICES = ("d0", "d1")

ADDRESSES = (
    "10.1.0.1/24",
    "10.1.0.2/24",
    "10.1.0.2/32",
    "10.2.0.1/24",
    "2001:db8:1::1/64",
    "2001:db8:1::2/64",
    "2001:db8:2::1/64",
)
#: What the host has before all labs.
HOSTS_ADDRESSES = {"d0": ("192.0.2.2/24", "2001:db8::2/64"), "d1": ("198.51.100.2/24",)}
HOSTS_ROUTES = (
    ("203.0.113.0/24", "via", "192.0.2.1"),
    ("2001:db8:9::/64", "via", "2001:db8::1"),
    ("203.0.114.0/24", "nexthop", "via", "192.0.2.1", "nexthop", "via", "198.51.100.1"),
)
GATEWAYS = ("192.0.2.1", "192.0.2.7", "198.51.100.1", "10.1.0.9", "2001:db8::1", "2001:db8:1::9")
DESTINATIONS = {4: ("10.8.0.0/24", "10.9.0.0/24"), 6: ("2001:db8:8::/64",)}
#: Rules that have one priority, of which some say less than others, as far as the order lets them.
RULES: list[Document] = [
    {"priority": 100, "from": "10.1.0.0/16", "table": 100},
    {"priority": 100, "from": "10.1.0.0/16", "iif": "lo", "table": 100},
    {"priority": 100, "table": 100},
    {"priority": 200, "to": "2001:db8::/32", "type": "prohibit"},
]
SYSCTLS = (
    "net.ipv4.ip_forward",
    "net.ipv4.conf.all.forwarding",
    "net.ipv4.conf.{}.forwarding",
    "net.ipv4.conf.{}.rp_filter",
    "net.ipv6.conf.all.forwarding",
    "net.ipv6.conf.{}.forwarding",
    "net.ipv6.conf.all.disable_ipv6",
    "net.ipv6.conf.{}.disable_ipv6",
)
#: net.ipv4.ip_forward and net.ipv4.conf.all.forwarding are one switch under two names: a story uses one of them.
SWITCHES = SYSCTLS[:2]


class _Story:
    """What has come to pass on one host; ``told`` is it in words, for whoever has to find out what went wrong."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - a story can be told again
        self._switch = self._random.choice(SWITCHES)
        self._standing: dict[str, Document] = {}
        #: The names that the devices have now.
        self._names = {name: name for name in DEVICES}
        self.told: list[str] = []
        _prepare()
        self._before = _host()

    def tell(self) -> None:
        for _step in range(STEPS):
            self._random.choices(
                (self._change, self._remove, self._collect, self._rename, self._swap), (12, 3, 1, 1, 1)
            )[0]()
        labs = list(LABS)
        self._random.shuffle(labs)
        for lab in labs:
            self._go(lab)
            self._all_stand()
        self._name_as_at_first()
        left = differences(self._before, _host())
        assert not left, f"the host is not as it was: {left}"

    def _change(self) -> None:
        lab = self._random.choice(LABS)
        while True:
            document = {"name": lab, "namespaces": {"host": self._body()}}
            with suppress(InvalidInput):  # of what contradicts itself
                wanted = read_topology(document).wanted
                break
        self.told.append(f"apply {document}")
        before = _host()
        try:
            predicted = words(engine.run(wanted, check=True))
        except Refused as refusal:
            self.told.append(f"  refused: {refusal}")
            with pytest.raises(Refused):
                engine.run(wanted)
            assert not differences(before, _host()), "what was refused has touched something"
            count("documents of labs that share interfaces, refused")
            return
        assert not differences(before, _host()), "check mode has touched something"
        done = words(engine.run(wanted))
        self.told += [f"  {change}" for change in done]
        assert done == predicted
        self._standing[lab] = document
        self._all_stand()
        count("documents of labs that share interfaces: check = apply, no lab breaks another one")

    def _body(self) -> Document:
        choose = self._random
        interfaces: dict[str, Any] = {}
        for name in DEVICES:
            body: dict[str, Any] = {}
            if choose.random() < 0.25:
                body["up"] = choose.random() < 0.6
            if choose.random() < 0.25:
                body["mtu"] = choose.choice((1000, 1400, 1400, 1500))
            if choose.random() < 0.15:
                body["mac"] = choose.choice(("02:00:00:00:00:08", "02:00:00:00:00:09"))
            if choose.random() < 0.5:
                pool = [*ADDRESSES, *HOSTS_ADDRESSES[name]]
                body["addresses"] = [
                    {"address": address, "nodad": True} if ":" in address else address
                    for address in choose.sample(pool, choose.randint(1, 3))
                ]
            if body:
                interfaces[self._names[name]] = body
        keys = [
            key.format(self._names[choose.choice(DEVICES)])
            for key in choose.sample([key for key in SYSCTLS if key not in SWITCHES or key == self._switch], 2)
        ]
        routes = [self._route(interfaces) for _i in range(choose.randint(0, 2))]
        sets = choose.random() < 0.5
        return {
            "interfaces": interfaces,
            "sysctls": {key: choose.choice((0, 1)) for key in keys} if sets else {},
            "routes": list({route["to"]: route for route in routes}.values()),
            "rules": choose.sample(RULES, choose.choice((0, 0, 1, 2))),
        }

    def _route(self, interfaces: Document) -> Document:
        """A route by gateways that the document or the host itself leads to; no lab leans on another one's address."""
        added = [item for body in interfaces.values() for item in body.get("addresses", ())]
        texts = [item["address"] if isinstance(item, dict) else item for item in added]
        networks = [ipaddress.ip_interface(text).network for text in (*texts, *sum(HOSTS_ADDRESSES.values(), ()))]
        gateways = [via for via in GATEWAYS if any(ipaddress.ip_address(via) in network for network in networks)]
        via = self._random.choice(gateways)
        family = 6 if ":" in via else 4
        to = self._random.choice(DESTINATIONS[family])
        others = [other for other in gateways if (":" in other) == (family == 6) and other != via]
        if others and self._random.random() < 0.3:
            return {"to": to, "nexthops": [{"via": via}, {"via": self._random.choice(others)}]}
        return {"to": to, "via": via}

    def _remove(self) -> None:
        self._go(self._random.choice(LABS))
        self._all_stand()

    def _go(self, lab: str) -> None:
        self.told.append(f"absent {lab}")
        wanted = read_topology({"name": lab}, absent=True).wanted
        predicted = words(engine.run(wanted, check=True))
        planned = engine.run(wanted)
        self.told += [f"  {text}" for text in (*words(planned), *planned.warnings)]
        assert words(planned) == predicted
        assert not planned.warnings
        self._standing.pop(lab, None)

    def _collect(self) -> None:
        valid = [lab for lab in LABS if self._random.random() < 0.5]
        self.told.append(f"gc {valid}")
        wanted = _options.topology({"gc": valid})
        predicted = words(engine.run(wanted, check=True))
        planned = engine.run(_options.topology({"gc": valid}))
        self.told += [f"  {text}" for text in (*words(planned), *planned.warnings)]
        assert words(planned) == predicted
        assert not planned.warnings
        self._standing = {lab: document for lab, document in self._standing.items() if lab in valid}
        self._all_stand()

    def _rename(self) -> None:
        name = self._random.choice(DEVICES)
        if self._is_named():
            return
        self._call(name, f"n{len(self.told)}")

    def _swap(self) -> None:
        if self._is_named():
            return
        one, other = (self._names[name] for name in DEVICES)
        self._call("d0", "tmp")
        self._call("d1", one)
        self._call("d0", other)

    def _call(self, device: str, name: str) -> None:
        self.told.append(f"ip link set {self._names[device]} name {name}")
        ip("link", "set", self._names[device], "name", name)
        self._names[device] = name

    def _is_named(self) -> bool:
        """Does a lab stand that names an interface? Who renames that has to change the document, too."""
        return any(
            body["interfaces"] or body["routes"] or any(".d" in key for key in body["sysctls"])
            for document in self._standing.values()
            for body in document["namespaces"].values()
        )

    def _name_as_at_first(self) -> None:
        if self._names != {name: name for name in DEVICES}:
            for name in DEVICES:
                self._call(name, f"{name}tmp")
            for name in DEVICES:
                self._call(name, name)

    def _all_stand(self) -> None:
        for lab, document in self._standing.items():
            left = words(engine.run(read_topology(document).wanted, check=True))
            assert left == [], f"the lab {lab} stands no more"


def _prepare() -> None:
    for name in DEVICES:
        ip("link", "add", name, "type", "veth", "peer", "name", f"{name}p")
        for end in (name, f"{name}p"):
            ip("link", "set", end, "up", "addrgenmode", "none")
        for address in HOSTS_ADDRESSES[name]:
            ip("address", "add", address, "dev", name, "nodad")
    for to, *words_of in HOSTS_ROUTES:
        ip("route", "add", to, *words_of)


def _host() -> dict[str, Any]:
    return {"look": look()["stacks"], "sysctls": sysctls(None)}


@contextmanager
def _telling(story: _Story, seed: int) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        error.args = (f"story {seed}: {error}\n" + "\n".join(story.told),)
        raise


def tell(seed: int) -> None:
    """Play a story from its number."""
    with throwaway_host():
        story = _Story(seed)
        with _telling(story, seed):
            story.tell()
    count("stories of labs that share interfaces, after which the host was as before")


@pytest.mark.parametrize("part", range(PARTS))
def test_labs_that_share_interfaces_leave_them_as_they_were(part: int) -> None:
    for number in range(part, STORIES, PARTS):
        tell(_FIRST + number)
