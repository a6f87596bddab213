# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The part of planning that is about address translation. Pure, as all of planning.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import _changes as c
from ._model import Namespace, WantedNamespace, WantedNat, WantedNatRule
from ._nat import CHAINS, IPTABLES, NFTABLES, NatRule, hairpin_of, in_order, limits, output_of

if TYPE_CHECKING:
    from ._plan import Planner

#: What the host lacks without a backend.
_PACKAGES = {
    NFTABLES: "nftables (Debian's packages nftables or python3-nftables)",
    IPTABLES: "the Python library python-iptables (1.0.1 or newer)",
}

_HELP = "; the role nslab.netns.bootstrap installs it"


class Nat:
    """Plans the lab's rules of translation, namespace by namespace."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self._wanted = planner.wanted

    def remove(self) -> None:
        """Remove the lab's rules from where the demand says nothing of them."""
        if not (self._wanted.prune and self._wanted.lab):
            return
        for name, namespace in self._planner.state.namespaces.items():
            wanted = self._wanted.namespaces.get(name)
            if wanted is None or wanted.nat is None:
                self._empty(namespace, tuple(namespace.nat), "")
            if not self._wanted.namespaces and namespace.lab != self._wanted.lab:
                self._warn_of_unseen(namespace)

    def set(self) -> None:
        """Let each namespace have its rules, all in one backend."""
        for wanted in self._wanted.namespaces.values():
            if wanted.nat is not None:
                self._set(wanted, wanted.nat, self._planner.state.namespaces[wanted.name])

    def _set(self, wanted: WantedNamespace, nat: WantedNat, namespace: Namespace) -> None:
        backend = self._backend(nat, namespace)
        rules = self._rules(nat, namespace, backend)
        path = next((item.path for item in nat.rules), wanted.path)
        if not rules:
            self._empty(namespace, tuple(namespace.nat), path)
            self._warn_of_unseen(namespace)
            return
        if not backend:
            self._planner.problem(*self._lack(nat))
            return
        paths = {item.value._replace(source=""): item.path for item in reversed(nat.rules)}
        for rule in rules:
            for text in limits(backend, rule):
                # Rules that are there and not spoken of go to the backend of the others.
                known = paths.get(rule._replace(source=""))
                self._planner.problem(known or nat.path, text if known else f"{text}, which is needed for: {rule}")
        self._planner.result.backends[wanted.name] = backend
        self._warn(namespace, backend)
        there = namespace.nat.get(backend)
        if there != rules:
            if backend == IPTABLES and self._planner.before.iptables_note:
                self._planner.result.warnings.append(self._planner.before.iptables_note)
            self._planner.do(c.SetNat(wanted.name, backend, rules, there or (), path))
        # Only now, so that there is no moment in which nothing is translated. The kernel translates a connection once:
        # while both have the rule, it is one of them that does.
        self._empty(namespace, tuple(name for name in namespace.nat if name != backend), path)

    def _empty(self, namespace: Namespace, backends: Sequence[str], path: str) -> None:
        for backend in backends:
            self._planner.do(c.SetNat(namespace.name, backend, (), namespace.nat[backend], path))

    # --- the backend -------------------------------------------------------------------------------------------------

    def _backend(self, nat: WantedNat, namespace: Namespace) -> str:
        """The backend that holds the rules, or shall hold them; empty if there is none."""
        there = self._planner.before.nat_backends
        if nat.backend != "auto":
            return nat.backend if nat.backend in there else ""
        holders = [backend for backend in (NFTABLES, IPTABLES) if backend in namespace.nat and backend in there]
        if len(holders) == 1:
            return holders[0]
        if namespace.legacy_nat and IPTABLES in there:
            return IPTABLES
        return next((backend for backend in (NFTABLES, IPTABLES) if backend in there), "")

    def _lack(self, nat: WantedNat) -> tuple[str, str]:
        if nat.backend != "auto":
            return nat.path, f"{nat.backend!r} cannot be used: the managed host lacks {_PACKAGES[nat.backend]}{_HELP}"
        path = nat.rules[0].path if nat.rules else nat.path
        return path, f"the managed host can translate no addresses: it lacks {' and '.join(_PACKAGES.values())}{_HELP}"

    def _warn_of_unseen(self, namespace: Namespace) -> None:
        """Where rules shall go: some may be where nobody can look."""
        if namespace.legacy_nat and IPTABLES not in self._planner.before.nat_backends:
            self._planner.result.warnings.append(
                f"the namespace {namespace.name} has the table nat of legacy iptables; rules that were made in it "
                f"stay, for they cannot be seen: the managed host lacks {_PACKAGES[IPTABLES]}"
            )

    def _warn(self, namespace: Namespace, backend: str) -> None:
        for other in sorted(namespace.others_nat - {backend}):
            table = (
                "the table nat of legacy iptables, which are" if other == IPTABLES else "a table of nftables that is"
            )
            self._planner.result.warnings.append(
                f"the namespace {namespace.name} has rules of translation both in {backend}, which are this lab's, and "
                f"in {table} not; a new connection is translated by the first that matches, whichever has it"
            )

    # --- the rules ---------------------------------------------------------------------------------------------------

    def _rules(self, nat: WantedNat, namespace: Namespace, backend: str) -> tuple[NatRule, ...]:
        """All rules of the lab in the namespace. What cannot be said in our words is nobody's wish, and goes."""
        there = [
            rule
            for name in sorted(namespace.nat, key=lambda name: name != backend)
            for rule in namespace.nat[name]
            if not rule.unknown
        ]
        if len(namespace.nat) > 1:
            there = list(dict.fromkeys(there))
        wanted = [self._completed(item, namespace) for item in nat.rules]
        there = _without(there, nat.absent_rules)
        rules: list[NatRule] = []
        # The rules of published ports go first in their chain.
        for kind in ("dnat", "snat"):
            have = [rule for rule in there if rule.kind == kind]
            if kind in nat.kinds:
                want = [rule for rule in wanted if rule.kind == kind]
                have = want if nat.purge else _merged(have, want)
            rules += have
        return in_order(rules)

    def _completed(self, item: WantedNatRule, namespace: Namespace) -> NatRule:
        """The rule with the prefix of its target's neighbours, if it is for them."""
        if not item.hairpin:
            return item.value
        target = ipaddress.ip_network(item.value.destination)[0]
        networks = [
            address.network
            for link in namespace.links.values()
            for address in link.addresses
            if target in address.network
        ]
        if not networks:
            self._planner.assume(
                f"{item.path}.hairpin",
                f"no interface of the namespace {namespace.name} has the prefix of {target}, so that it has no "
                "neighbours that would reach it through here; leave it out",
                namespace.name,
            )
            return item.value
        return item.value._replace(source=str(max(networks, key=lambda network: network.prefixlen)))


def _without(there: list[NatRule], absent: list[WantedNatRule]) -> list[NatRule]:
    """The rules that stay. What goes with a published port stays while another one of those that stay may need it."""
    going = {item.value for item in absent}
    left = [rule for rule in there if rule.chain == "prerouting" and rule not in going]
    needed = {output_of(rule) for rule in left} | {hairpin_of(rule) for rule in left}
    # Of a hairpin the prefix is only known from what the interfaces have, which may be something else by now.
    return [
        rule
        for rule in there
        if (plain := rule._replace(source="") if rule.is_hairpin else rule) not in going or plain in needed
    ]


def _merged(there: list[NatRule], wanted: list[NatRule]) -> list[NatRule]:
    """The rules that are there with the wanted ones among them, once each and in their order; little is moved."""
    merged: list[NatRule] = []
    for chain in CHAINS:
        for family in (4, 6):
            have = [rule for rule in there if (rule.chain, rule.family) == (chain, family)]
            want = [rule for rule in wanted if (rule.chain, rule.family) == (chain, family)]
            merged += _merged_in_chain(have, want)
    return merged


def _merged_in_chain(there: list[NatRule], wanted: list[NatRule]) -> list[NatRule]:
    wishes = set(wanted)
    have: list[NatRule] = []
    met: set[NatRule] = set()
    for rule in there:
        if rule not in met:
            have.append(rule)
        met.update((rule,) if rule in wishes else ())
    if [rule for rule in have if rule in wishes] != [rule for rule in wanted if rule in met]:
        return [rule for rule in have if rule not in wishes] + wanted
    # One that is missing goes after the one that shall be before it, and a first one before the next.
    missing: dict[NatRule | None, list[NatRule]] = {}
    before = None
    for rule in wanted:
        if rule in met:
            before = rule
        else:
            missing.setdefault(before, []).append(rule)
    merged: list[NatRule] = []
    is_first = True
    for rule in have:
        if rule in wishes and is_first:
            merged += missing.get(None, [])
            is_first = False
        merged += [rule, *missing.get(rule, [])]
    return merged + (missing.get(None, []) if is_first else [])
