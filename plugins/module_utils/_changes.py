# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The vocabulary of plans: every change that the engine can make, and how it reads.

A change names its object by namespace and interface, as people do; apply resolves the names to inodes and indexes.
``path`` is the place in the user's input that asked for it. The inverse of a change is again one or more changes.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Union

from ._impairment import Impairment
from ._kinds import Kind
from ._model import (
    BRIDGE_SETTINGS,
    DEFAULT_MTU,
    HOSTNAME,
    PORT_SETTINGS,
    Address,
    Endpoint,
    NodeSetting,
    Remembered,
    Route,
    Vlan,
)
from ._nat import NFTABLES, NatRule
from ._rules import Rule, beginning
from ._service import Service
from ._sysctl_keys import name_of


class Description(NamedTuple):
    """How a change reads. ``before`` and ``after`` are the object as one line each; "" where it is not there."""

    action: str  # add, remove, change, move
    #: namespace, veth, bridge, dummy, vlan and the like, port, link, altname, address, route, rule, impairment, snat,
    #: dnat, nat, sysctl, hostname, file, service
    object: str
    namespace: str
    name: str
    before: str
    after: str

    def __str__(self) -> str:
        if self.action == "add":
            return f"add {self.after}"
        if self.action == "remove":
            return f"remove {self.before}"
        if not self.before:
            return f"{self.action} {self.after}"
        words, same = self.after.split(" "), 0
        for word, other in zip(words, self.before.split(" ")):
            if word != other:
                break
            same += 1
        while not _is_whole(" ".join(words[:same])):
            same -= 1
        # Where nothing is new, something of what was there before has gone.
        return f"{self.action} {self.before} -> {' '.join(words[same:]) or self.after}"

    def as_result(self) -> dict[str, Any]:
        """The change as a module returns it."""
        return {**self._asdict(), "text": str(self)}


def _is_whole(text: str) -> bool:
    """Does it end outside of all brackets and quotes?"""
    return text.count("(") == text.count(")") and text.count("'") % 2 == 0


class AddNamespace(NamedTuple):
    """Make a namespace with its ``lo`` up and marked. ``stale``: the name's leftover file is replaced."""

    name: str
    alias: str = ""
    stale: bool = False
    path: str = ""

    def describe(self) -> Description:
        stale = " (in the place of a stale file)" if self.stale else ""
        return Description("add", "namespace", self.name, self.name, "", f"namespace {self.name}{stale}")


class RemoveNamespace(NamedTuple):
    name: str
    stale: bool = False
    path: str = ""

    def describe(self) -> Description:
        what = "stale namespace file" if self.stale else "namespace"
        return Description("remove", "namespace", self.name, self.name, f"{what} {self.name}", "")


class RestoreNamespace(NamedTuple):
    """The inverse of RemoveNamespace: the namespace, alive through its open handle, gets its name back."""

    name: str
    path: str = ""

    def describe(self) -> Description:
        return Description("add", "namespace", self.name, self.name, "", f"namespace {self.name}")


class AttachNamespace(NamedTuple):
    """Give the namespace of something else (``what``) a name.

    The name stands for another one, ``inode``, by an entry of that kind, or for none; ``before`` says so in words.
    """

    name: str
    what: str
    kind: str = ""
    inode: int = 0
    before: str = ""
    path: str = ""

    def describe(self) -> Description:
        action = "change" if self.before else "add"
        after = f"namespace {self.name} of {self.what}"
        return Description(action, "namespace", self.name, self.name, self.before, after)


class DetachNamespace(NamedTuple):
    """The inverse of AttachNamespace: the name stands for what it stood for before."""

    name: str
    path: str = ""

    def describe(self) -> Description:
        return Description("remove", "namespace", self.name, self.name, f"namespace {self.name}", "")


class AddVeth(NamedTuple):
    """Make a veth, both ends in place. MTU 0, MAC "" and index 0 are the kernel's choice."""

    ends: tuple[Endpoint, Endpoint]
    mtus: tuple[int, int] = (0, 0)
    macs: tuple[str, str] = ("", "")
    aliases: tuple[str, str] = ("", "")
    indexes: tuple[int, int] = (0, 0)
    path: str = ""

    def describe(self) -> Description:
        ends = []
        for end, mtu, mac in zip(self.ends, self.mtus, self.macs):
            words = [str(end), "" if mtu in (0, DEFAULT_MTU) else f"mtu {mtu}", f"mac {mac}" if mac else ""]
            ends.append(" ".join(filter(None, words)))
        return Description("add", "veth", *self.ends[0], "", "veth " + " -- ".join(ends))


class AddBridge(NamedTuple):
    """Make a bridge, which stays down. MAC "" and ifindex 0 are the kernel's choice."""

    end: Endpoint
    settings: tuple[tuple[str, int], ...] = ()
    mac: str = ""
    alias: str = ""
    ifindex: int = 0
    path: str = ""

    def describe(self) -> Description:
        words = [*_values(self.settings, BRIDGE_SETTINGS), *([f"mac {self.mac}"] if self.mac else [])]
        return Description("add", "bridge", *self.end, "", " ".join([f"bridge {self.end}", *words]))


class AddLink(NamedTuple):
    """Make a link of a kind (_kinds.py), which stays down. MTU 0, MAC "" and ifindex 0 are the kernel's choice."""

    end: Endpoint
    kind: Kind
    mtu: int = 0
    mac: str = ""
    alias: str = ""
    ifindex: int = 0
    path: str = ""

    def describe(self) -> Description:
        kind, text = self.kind.name, self.kind.text(self.end.namespace)
        words = [f"{kind} {self.end}", text, f"mac {self.mac}" if self.mac else ""]
        return Description("add", kind, *self.end, "", " ".join(filter(None, words)))


class SetVrf(NamedTuple):
    """Make a link a part of a VRF in its namespace, or of none ("")."""

    end: Endpoint
    vrf: str
    before: str = ""
    path: str = ""

    def describe(self) -> Description:
        before, after = (f"link {self.end} vrf {name or 'none'}" for name in (self.before, self.vrf))
        return Description("change", "link", *self.end, before, after)


class SetBridge(NamedTuple):
    """Change settings of a bridge (BRIDGE_SETTINGS). Some are set anew to what they are, which is not worth a word."""

    end: Endpoint
    settings: tuple[tuple[str, int], ...]
    before: tuple[tuple[str, int], ...] = ()
    path: str = ""

    def describe(self) -> Description:
        same = set(self.before) & set(self.settings)
        before, after = (
            " ".join([f"bridge {self.end}", *_values([one for one in settings if one not in same], BRIDGE_SETTINGS)])
            for settings in (self.before, self.settings)
        )
        return Description("change", "bridge", *self.end, before, after)


class SetMaster(NamedTuple):
    """Make a link a port of a bridge in its namespace, or of none (""). The settings that it had as a port are lost."""

    end: Endpoint
    master: str
    before: str = ""
    path: str = ""

    def describe(self) -> Description:
        action = "remove" if not self.master else "change" if self.before else "add"
        before, after = (f"port {self.end} of {name}" if name else "" for name in (self.before, self.master))
        return Description(action, "port", *self.end, before, after)


class SetPort(NamedTuple):
    """Change settings of a bridge port (PORT_SETTINGS). ``before`` lacks what only the kernel can tell."""

    end: Endpoint
    settings: tuple[tuple[str, int], ...]
    before: tuple[tuple[str, int], ...] = ()
    path: str = ""

    def describe(self) -> Description:
        before = f"port {self.end} {' '.join(_values(self.before, PORT_SETTINGS))}" if self.before else ""
        after = f"port {self.end} {' '.join(_values(self.settings, PORT_SETTINGS))}"
        return Description("change", "port", *self.end, before, after)


class SetVlans(NamedTuple):
    """Change the VLANs of a bridge port, or those in which the bridge itself is (``bridge vlan ... self``)."""

    end: Endpoint
    vlans: tuple[Vlan, ...]
    before: tuple[Vlan, ...] = ()
    path: str = ""
    of_bridge: bool = False

    def describe(self) -> Description:
        what = "bridge" if self.of_bridge else "port"
        before, after = (
            f"{what} {self.end} vlans {', '.join(map(str, vlans)) or 'none'}" for vlans in (self.before, self.vlans)
        )
        return Description("change", what, *self.end, before, after)


class RemoveLink(NamedTuple):
    end: Endpoint
    kind: str = ""
    peer: Endpoint | None = None
    path: str = ""

    def describe(self) -> Description:
        kind = self.kind or "link"
        wired = f" -- {self.peer}" if self.peer else ""
        return Description("remove", kind, *self.end, f"{kind} {self.end}{wired}", "")


class MoveLink(NamedTuple):
    """Move a link to another namespace, where it may have another name. The kernel sets it down and empties it.

    Within one namespace it gets another name, and nothing else happens.

    ``conf`` has sysctls that it shall have there as it had them before, whatever is the default (see RestoreConf).
    """

    end: Endpoint
    to: Endpoint
    path: str = ""
    conf: tuple[tuple[str, str], ...] = ()

    def describe(self) -> Description:
        return Description("move", "link", *self.end, f"link {self.end}", f"link {self.to}")


class SetAltname(NamedTuple):
    """Give a link a second name, or take it away. It keeps that wherever it is moved to."""

    end: Endpoint
    altname: str
    is_added: bool = True
    path: str = ""

    def describe(self) -> Description:
        text = f"altname {self.end} {self.altname}"
        if self.is_added:
            return Description("add", "altname", *self.end, "", text)
        return Description("remove", "altname", *self.end, text, "")


class RestoreConf(NamedTuple):
    """Give a device that is home again the sysctls that it had there: its own, and those that were like the default.

    With ``lost``: those of IPv6 that are noted since an MTU has taken them. Without any: those that it had before such
    a change. A value ``all`` is the one that is set for all links by then.
    """

    end: Endpoint
    settings: tuple[tuple[str, str], ...]
    path: str = ""
    like_others: tuple[tuple[str, str], ...] = ()
    lost: bool = False

    def describe(self) -> Description:
        words = ", ".join(f"{key.rpartition('/')[2]} = {value}" for key, value in self.settings)
        return Description("change", "sysctl", *self.end, "", f"sysctls {self.end} {words or 'as before'}")

    @property
    def is_a_way_back(self) -> bool:
        return not (self.settings or self.like_others or self.lost)


class SetLink(NamedTuple):
    """Set MTU, MAC or alias of a link; None leaves it alone. ``before`` is (MTU, MAC, alias) as far as it changes."""

    end: Endpoint
    mtu: int | None = None
    mac: str | None = None
    alias: str | None = None
    before: tuple[int | None, str | None, str | None] = (None, None, None)
    path: str = ""

    def describe(self) -> Description:
        before = f"link {self.end} {_settings(*self.before)}"
        return Description("change", "link", *self.end, before, f"link {self.end} {_settings(*self[1:4])}")


class SetUp(NamedTuple):
    """Set a link up or down. ``is_new``: the plan itself makes the link, so that it was not down before."""

    end: Endpoint
    up: bool
    is_new: bool = False
    path: str = ""

    def describe(self) -> Description:
        before, after = ("down", "up") if self.up else ("up", "down")
        was = "" if self.is_new else f"link {self.end} {before}"
        return Description("change", "link", *self.end, was, f"link {self.end} {after}")


class SetImpairment(NamedTuple):
    """Let a link do this to what it sends, or nothing (None)."""

    end: Endpoint
    impairment: Impairment | None
    before: Impairment | None = None
    path: str = ""

    def describe(self) -> Description:
        action = "remove" if self.impairment is None else "change" if self.before else "add"
        before, after = (f"impairment {self.end} {item}" if item else "" for item in (self.before, self.impairment))
        if before == after and self.before and self.impairment:
            before, after = (f"{before} handle {item.handle >> 16:x}:" for item in (self.before, self.impairment))
        return Description(action, "impairment", *self.end, before, after)


class AddAddress(NamedTuple):
    end: Endpoint
    address: Address
    path: str = ""

    def describe(self) -> Description:
        return Description("add", "address", *self.end, "", f"address {self.end} {self.address}")


class ReplaceAddress(NamedTuple):
    """Change the flags or lifetime of an IPv6 address in place."""

    end: Endpoint
    before: Address
    address: Address
    path: str = ""

    def describe(self) -> Description:
        before = f"address {self.end} {self.before}"
        return Description("change", "address", *self.end, before, f"address {self.end} {self.address}")


class RemoveAddress(NamedTuple):
    end: Endpoint
    address: Address
    path: str = ""

    def describe(self) -> Description:
        return Description("remove", "address", *self.end, f"address {self.end} {self.address}", "")


class AddRoute(NamedTuple):
    """Add a route. ``append``: behind others of the same key, as ``ip route append`` does; only in taking back."""

    namespace: str
    route: Route
    path: str = ""
    append: bool = False

    def describe(self) -> Description:
        return Description("add", "route", self.namespace, self.route.to, "", f"route {self.namespace} {self.route}")


class ReplaceRoute(NamedTuple):
    namespace: str
    before: Route
    route: Route
    path: str = ""

    def describe(self) -> Description:
        before, after = f"route {self.namespace} {self.before}", f"route {self.namespace} {self.route}"
        if before == after:
            before += f" proto {self.before.protocol}"
            after += f" proto {self.route.protocol}"
        return Description("change", "route", self.namespace, self.route.to, before, after)


class RemoveRoute(NamedTuple):
    namespace: str
    route: Route
    path: str = ""

    def describe(self) -> Description:
        return Description("remove", "route", self.namespace, self.route.to, f"route {self.namespace} {self.route}", "")


class SetRules(NamedTuple):
    """Let the policy rules of one family and priority be these, in this order."""

    namespace: str
    rules: tuple[Rule, ...]
    before: tuple[Rule, ...] = ()
    path: str = ""

    def describe(self) -> Description:
        return self.describe_each()[0]

    def describe_each(self) -> list[Description]:
        """The rules that are removed, added, or only moved behind the others, one by one."""
        gone = [rule for rule in self.before if rule not in self.rules]
        new = [rule for rule in self.rules if rule not in self.before]
        if len(gone) == len(new) == 1:
            before, after = self._line(gone[0]), self._line(new[0])
            if before == after:
                before, after = (f"{self._line(rule)} proto {rule.protocol}" for rule in (gone[0], new[0]))
            return [self._description("change", before, after)]
        found = [self._description("remove", self._line(rule), "") for rule in gone]
        found += [self._description("add", "", self._line(rule)) for rule in new]
        return found or list(self._moves())

    def _moves(self) -> Iterator[Description]:
        kept = len(beginning(self.before, self.rules))
        for place, rule in enumerate(self.rules[kept:], kept):
            texts = [f"{self._line(rule)} position {i + 1}" for i in (self.before.index(rule), place)]
            yield self._description("move", *texts)

    def _line(self, rule: Rule) -> str:
        return f"rule {self.namespace} {rule}"

    def _description(self, action: str, before: str, after: str) -> Description:
        rule = next(iter((*self.rules, *self.before)))
        return Description(action, "rule", self.namespace, str(rule.priority), before, after)


class SetNat(NamedTuple):
    """Let the lab's rules of translation in a backend be these; without any, what held them goes, too."""

    namespace: str
    backend: str
    rules: tuple[NatRule, ...]
    before: tuple[NatRule, ...] = ()
    path: str = ""

    @property
    def is_undone_by_words(self) -> bool:
        """Whether ``before`` says all that was there: not where rules stand among those of others, nor that a table is
        there and empty, nor what is unknown."""
        return self.backend == NFTABLES and bool(self.before) and not any(rule.unknown for rule in self.before)

    def describe(self) -> Description:
        action = "change" if self.before and self.rules else "add" if self.rules else "remove"
        counts = [f"{len(rules)} rule{'' if len(rules) == 1 else 's'}" for rules in (self.before, self.rules)]
        before, after = (f"nat {self.namespace} in {self.backend}: {count}" for count in counts)
        return Description(
            action,
            "nat",
            self.namespace,
            self.backend,
            "" if action == "add" else before,
            "" if action == "remove" else after,
        )

    def describe_each(self) -> list[Description]:
        """The rules that are added, removed, or only moved, one by one; the whole if it holds no rules."""
        removed: list[tuple[NatRule, int]] = []
        added: list[tuple[NatRule, int]] = []
        matcher = difflib.SequenceMatcher(None, self.before, self.rules, autojunk=False)
        for kind, first, last, new_first, new_last in matcher.get_opcodes():
            if kind != "equal":
                removed += [(self.before[i], i) for i in range(first, last)]
                added += [(self.rules[i], i) for i in range(new_first, new_last)]
        found = []
        for rule, position in added:
            moved = next((item for item in removed if item[0] == rule and not rule.unknown), None)
            if moved:
                removed.remove(moved)
                before = f"{self._words(rule)} position {_position(self.before, moved[1])}"
                after = f"{self._words(rule)} position {_position(self.rules, position)}"
                found.append(Description("move", rule.kind, self.namespace, rule.chain, before, after))
            else:
                found.append(Description("add", rule.kind, self.namespace, rule.chain, "", self._words(rule)))
        gone = [
            Description("remove", rule.kind, self.namespace, rule.chain, self._words(rule), "") for rule, _at in removed
        ]
        return gone + found or [self.describe()]

    def _words(self, rule: NatRule) -> str:
        return f"{rule.kind} {self.namespace} {rule} backend {self.backend}"


class RestoreNat(NamedTuple):
    """The inverse of a SetNat in the place of rules that cannot be said in our words."""

    namespace: str
    backend: str
    path: str = ""

    def describe(self) -> Description:
        text = f"nat {self.namespace} in {self.backend} as it was found"
        return Description("add", "nat", self.namespace, self.backend, "", text)


class SetSysctl(NamedTuple):
    """Set a sysctl. ``before`` is None where the value cannot be known when planning: in what the plan itself makes."""

    namespace: str
    key: str
    value: str
    before: str | None = None
    path: str = ""

    def describe(self) -> Description:
        name = name_of(self.key)
        start = f"sysctl {self.namespace} {name} ="
        before = "" if self.before is None else f"{start} {self.before}"
        after = f"{start} {self.value}"
        return Description("change", "sysctl", self.namespace, name, before, after)


class SetNode(NamedTuple):
    """Give a namespace its own host name or a file of its own, or take it away (None)."""

    namespace: str
    what: str
    setting: NodeSetting | None
    before: NodeSetting | None = None
    path: str = ""

    def describe(self) -> Description:
        action = "remove" if self.setting is None else "change" if self.before else "add"
        before, after = (self._line(setting) if setting else "" for setting in (self.before, self.setting))
        kind = "hostname" if self.what == HOSTNAME else "file"
        return Description(action, kind, self.namespace, self.what, before, after)

    def _line(self, setting: NodeSetting) -> str:
        if self.what == HOSTNAME:
            return f"hostname {self.namespace} {setting.value}"
        text = "; ".join(line for line in setting.value.splitlines() if line)
        return f"file /etc/netns/{self.namespace}/{self.what} {text}"


class SetService(NamedTuple):
    """Let a service run in a namespace, or none (None). What runs by that name is ended before, in any case."""

    namespace: str
    name: str
    service: Service | None
    before: Service | None = None
    path: str = ""

    def describe(self) -> Description:
        action = "remove" if self.service is None else "change" if self.before else "add"
        before = self._line(self.before, None) if self.before else ""
        after = self._line(self.service, self.before) if self.service else ""
        return Description(action, "service", self.namespace, self.name, before, after)

    def _line(self, service: Service, other: Service | None) -> str:
        line = f"service {self.namespace}:{self.name} {service.definition.text(other.definition if other else None)}"
        notes = [service.state] if service.state != "running" else []
        notes += ["altered"] if service.altered else []
        after = self.service
        if after and service is self.before and not notes and service.inode != after.inode:
            notes.append("in an earlier namespace")
        if after and self.before and self.before.lab != after.lab:
            notes.append(f"lab {service.lab}" if service.lab else "no lab")
        return f"{line} ({', '.join(notes)})" if notes else line


Change = Union[
    AddNamespace,
    RemoveNamespace,
    RestoreNamespace,
    AttachNamespace,
    DetachNamespace,
    AddVeth,
    AddBridge,
    AddLink,
    SetVrf,
    SetBridge,
    SetMaster,
    SetPort,
    SetVlans,
    RemoveLink,
    MoveLink,
    SetAltname,
    RestoreConf,
    SetLink,
    SetUp,
    SetImpairment,
    AddAddress,
    ReplaceAddress,
    RemoveAddress,
    AddRoute,
    ReplaceRoute,
    RemoveRoute,
    SetRules,
    SetNat,
    RestoreNat,
    SetSysctl,
    SetNode,
    SetService,
]


def descriptions(change: Change) -> list[Description]:
    """How a change reads, one for each thing that it changes."""
    return change.describe_each() if isinstance(change, (SetNat, SetRules)) else [change.describe()]


class Step(NamedTuple):
    """A change, the changes that take it back, and what has to be remembered of it before it is made."""

    change: Change
    undo: tuple[Change, ...] = ()
    remember: tuple[Remembered, ...] = ()


def _position(rules: tuple[NatRule, ...], index: int) -> int:
    """The place of a rule among those that see the same packets, from 1 on."""
    here = rules[index]
    return sum((rule.chain, rule.family) == (here.chain, here.family) for rule in rules[: index + 1])


def _values(settings: Iterable[tuple[str, int]], kinds: Mapping[str, tuple[str, int | None]]) -> list[str]:
    """Settings as ``ip link`` and ``bridge link`` write them, with times in seconds."""
    words = []
    for name, value in settings:
        kind = kinds[name][0]
        text = ("on" if value else "off") if kind == "flag" else f"{value / 100:g}" if kind == "time" else str(value)
        words.append(f"{name} {text}")
    return words


def _settings(mtu: int | None, mac: str | None, alias: str | None) -> str:
    words = []
    if mtu is not None:
        words.append(f"mtu {mtu}")
    if mac is not None:
        words.append(f"mac {mac}")
    if alias is not None:
        words.append(f"alias {alias!r}")
    return " ".join(words)
