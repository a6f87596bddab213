# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Probes from the namespaces of this machine, and their results as plain data.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ._errors import KernelError, Missing, Problem, Refused
from ._machine import Machine
from ._model import MAIN_TABLE
from ._netlink import decode
from ._probe import Probe, explain
from ._probe_wave import run_probes


def probe(probes: Sequence[Probe]) -> list[dict[str, Any]]:
    """Run probes. Raises Refused if one starts in a namespace that is not there, and Missing without the right to."""
    if os.geteuid() != 0:
        raise Missing("probes can be sent from inside a namespace only as root; use 'become: true'")
    with Machine() as machine:
        missing = [probe for probe in probes if machine.find(probe.source) is None]
        if missing:
            known = ", ".join(machine.all_names()) or "none"
            raise Refused(
                [Problem(f"{p.path}.from", f"there is no namespace {p.source!r}; there are: {known}") for p in missing]
            )

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
            "elapsed": round(result.elapsed, 3),
            "evidence": asdict(result.evidence),
            "route": None if result.route is None else dict(result.route),
            "text": explain(result),
        }
        for result in results
    ]


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
