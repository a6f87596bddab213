# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The program that applies the document of a lab when the host boots, without Ansible.

It runs in an engine that nslab.netns.persist has put on the host, and goes the same way as the modules.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from . import _engine as engine
from . import _options, _persisted, _services
from ._changes import SetNat, descriptions
from ._errors import MISSING, NslabError, Refused
from ._model import HOST, Wanted, WantedNamespace
from ._plan import Plan

#: Labs are applied one after the other.
_LOCK_SECONDS = 600.0
_POLL_SECONDS = 0.25

#: sd-daemon(3): how the journal knows the weight of a line.
_ERROR, _WARNING, _INFO = "<3>", "<4>", "<6>"


def main(arguments: Sequence[str]) -> int:
    """Apply the document of a lab; the exit status.

    ``--without-services``: leave out those that are not there yet. ``--lost-rules``: put only the rules on the host
    back, and only where the lab stands and has lost them all, as when somebody has emptied the tables.
    """
    lab, *options = arguments
    try:
        record = _persisted.read(lab)
        if record is None:
            raise NslabError(f"there is no {_persisted.path_of(lab)}")
        wanted = read(record, "--without-services" in options)
        engine.require_host()
        if "--read" in options:
            return 0
        if "--lost-rules" in options:
            wanted, reason = _lost_rules(wanted)
            if reason:
                _say(_INFO, f"lab {lab}: {reason}")
                return 0
        planned = _applied(wanted, record.device_timeout)
    except (NslabError, OSError) as error:
        for line in str(error).splitlines():
            _say(_ERROR, f"lab {lab}: {line}")
        return 1
    for warning in [*planned.warnings, *map(str, planned.findings)]:
        _say(_WARNING, f"lab {lab}: {warning}")
    changes = [description for change in planned.changes for description in descriptions(change)]
    for description in changes:
        _say(_INFO, f"lab {lab}: {description}")
    count = {0: "nothing had to be changed", 1: "1 change was made"}
    _say(_INFO, f"lab {lab}: {count.get(len(changes), f'{len(changes)} changes were made')}")
    return 0


def read(record: _persisted.Record, without_services: bool = False) -> Wanted:
    """The demand of a document. Raises InvalidInput."""
    options = dict(record.options)
    # While the machine runs, those that there are shall be as they are.
    if without_services and record.lab not in _services.labs():
        options["topology"] = _without_services(options["topology"])
    wanted = _options.topology({**options, "lab": None, "state": "present"})
    if record.boot == _persisted.EARLY:
        # The host gets the address later by which the others of the lab reach it.
        wanted.span = wanted.span and wanted.span._replace(address="")
    return wanted


def _without_services(topology: Mapping[str, Any]) -> dict[str, Any]:
    namespaces = {
        name: {key: value for key, value in body.items() if key != "services"} if body else body
        for name, body in (topology.get("namespaces") or {}).items()
    }
    return {**topology, "namespaces": namespaces}


def _applied(wanted: Wanted, seconds: float) -> Plan:
    """Apply it. What is not there yet and is not the lab's own, a device above all, is waited for."""
    deadline = time.monotonic() + seconds
    terms = engine.Terms(purpose=f"the boot of the lab {wanted.lab}", lock_seconds=_LOCK_SECONDS)
    has_told = False
    while True:
        try:
            return engine.run(wanted, terms=terms)
        except Refused as error:
            if {problem.code for problem in error.problems} != {MISSING}:
                raise
            if time.monotonic() >= deadline:
                _say(_ERROR, f"lab {wanted.lab}: waited {seconds:g} s for what is missing")
                raise
            if not has_told:
                _say(_INFO, f"lab {wanted.lab}: waits up to {seconds:g} s for what is missing: {error}")
            has_told = True
        time.sleep(_POLL_SECONDS)


def _lost_rules(wanted: Wanted) -> tuple[Wanted, str]:
    """The part of a demand that is the rules on the host, and why they stay as they are, in words.

    The words are empty if the lab stands and has lost them all.
    """
    host = wanted.namespaces.get(HOST)
    if host is None or host.nat is None:
        return wanted, "it has no rules on the host"
    has_more = len(wanted.namespaces) > 1 or any((host.links, host.routes, host.rules, host.sysctls, host.services))
    if has_more and wanted.lab not in engine.standing():
        return wanted, "it does not stand, and gets no rules"
    demand = Wanted(
        lab=wanted.lab,
        namespaces={HOST: WantedNamespace(HOST, host.path, nat=replace(host.nat, purge=False))},
    )
    changes = engine.run(demand, check=True).changes
    has_lost_them = any(isinstance(change, SetNat) and not change.before for change in changes)
    return demand, "" if has_lost_them else "it has rules on the host, which stay as they are"


def _say(weight: str, line: str) -> None:
    # What it says is for the journal; somebody who runs it by hand has no use for its marks.
    mark = weight if "JOURNAL_STREAM" in os.environ else ""
    file = sys.stdout if weight == _INFO else sys.stderr
    file.write(f"{mark}{line}\n")
    file.flush()
