# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Probes between the namespaces of this machine, and their results as plain data.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import errno
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from . import _namespaces as namespaces
from ._errors import KernelError, Missing, Problem, Refused
from ._machine import Machine
from ._model import HOST, MAIN_TABLE
from ._netlink import decode
from ._probe import Listen, Probe, explain
from ._probe_wave import run_probes


def probe(probes: Sequence[Probe]) -> list[dict[str, Any]]:
    """Run probes.

    Raises Refused if one starts or listens in a namespace that is not there, or if it is not clear where it shall
    listen; and Missing without the right to.
    """
    if os.geteuid() != 0:
        raise Missing("probes can be sent from inside a namespace only as root; use 'become: true'")
    with Machine() as machine:
        missing = [probe for probe in probes if machine.find(probe.source) is None]
        if missing:
            known = ", ".join(machine.all_names()) or "none"
            raise Refused(
                [Problem(f"{p.path}.from", f"there is no namespace {p.source!r}; there are: {known}") for p in missing]
            )

        probes = _with_listeners(machine, probes)

        def lookup(namespace: str, destination: str) -> dict[str, object]:
            return _lookup(machine, namespace, destination)

        results = run_probes(probes, machine.entered, lookup)
    return [
        {
            "from": result.probe.source,
            "to": result.probe.to,
            "protocol": result.probe.protocol,
            "port": result.probe.port,
            "expect": result.probe.expect,
            "outcome": result.outcome,
            "passed": result.passed,
            "rtt_ms": None if result.rtt_ms is None else round(result.rtt_ms, 3),
            "sent": result.sent,
            "received": result.received,
            "source_seen": result.source_seen,
            "source_expected": result.probe.source_seen or None,
            "elapsed": round(result.elapsed, 3),
            "evidence": asdict(result.evidence),
            "route": None if result.route is None else dict(result.route),
            "text": explain(result),
        }
        for result in results
    ]


def _with_listeners(machine: Machine, probes: Sequence[Probe]) -> list[Probe]:
    """Say for each listener in which namespace it is. Raises Refused with all that are not clear."""
    if all(probe.listen is None for probe in probes):
        return list(probes)
    owners = _Owners(machine)
    problems: list[Problem] = []
    placed = []
    for probe in probes:
        place = probe.listen and _place(probe, probe.listen, owners)
        if isinstance(place, Problem):
            problems.append(place)
        else:
            placed.append(replace(probe, listen=place))
    if problems:
        raise Refused(problems)
    return placed


def _place(probe: Probe, listen: Listen, owners: _Owners) -> Listen | Problem:
    """Find the namespace and the address of a listener."""
    address = listen.address or probe.to.partition("%")[0]
    having = owners.of(address)
    at = f"{probe.path}.listen"
    if listen.namespace:
        if listen.namespace not in owners.names:
            known = ", ".join(owners.names)
            return Problem(f"{at}.namespace", f"there is no namespace {listen.namespace!r}; there are: {known}")
        namespace = owners.names[listen.namespace]
        if listen.address and namespace not in having:
            found = f"; {_have(having)}" if having else ""
            return Problem(f"{at}.address", f"{listen.namespace} does not have the address {address}{found}")
    elif len(having) == 1:
        namespace = having[0]
    elif owners.names[probe.source] in having:  # what is sent to an own address does not leave the namespace
        namespace = owners.names[probe.source]
    else:
        where = f"{at}.address" if listen.address else at
        reason = _have(having) if having else f"no namespace has the address {address}"
        return Problem(
            where, f"{reason}; say where to listen, such as 'listen: {{namespace: {(having or [HOST])[0]}}}'"
        )
    # A link-local address cannot be bound without its interface, and what is translated goes to another address.
    alone = namespace in having and not ipaddress.ip_address(address).is_link_local
    return replace(listen, namespace=namespace, address=address if alone else "")


def _have(names: Sequence[str]) -> str:
    return f"{' and '.join(names)} {'has' if len(names) == 1 else 'have'} it"


class _Owners:
    """Which namespaces have which address.

    names: the name that stands for each namespace, by all of its names.
    """

    def __init__(self, machine: Machine) -> None:
        self._having: dict[str, list[str]] = {}
        entries = namespaces.entries()
        first = namespaces.first_names(entries)
        self.names = {HOST: HOST}
        self.names.update((entry.name, first[entry.inode]) for entry in entries if entry.name != HOST and entry.inode)
        for name in first.values():
            with machine.released(name) as handle:
                if handle is None:
                    continue
                for address in decode.addresses(machine.session(name)):
                    having = self._having.setdefault(str(address.value.ip.ip), [])
                    if name not in having:
                        having.append(name)

    def of(self, address: str) -> list[str]:
        """The namespaces that have an address. Each one has those of the loopback."""
        if ipaddress.ip_address(address).is_loopback:
            return list(dict.fromkeys(self.names.values()))
        return self._having.get(address, [])


def _lookup(machine: Machine, namespace: str, destination: str) -> dict[str, object]:
    session = machine.session(namespace)
    names = {link.ifindex: link.name for link in decode.links(session)}
    try:
        route = decode.route_lookup(session, destination, names)
    except KernelError as error:
        name = errno.errorcode.get(error.number, str(error.number))
        return {"dst": destination, "errno": name, "error": os.strerror(error.number)}
    return {
        "dst": destination,
        "via": route.via or None,
        "dev": route.dev or None,
        "src": route.src or None,
        "type": route.type,
        "table": None if route.table in (0, MAIN_TABLE) else route.table,
    }
