# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one way from a demand to its result: observe, plan, apply, observe again.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import contextlib
import os

from . import _lock as lock
from ._apply import Application
from ._changes import RemoveNamespace
from ._errors import Missing, Refused, StepFailed
from ._leaving import Leaving
from ._machine import Machine
from ._model import Wanted
from ._netlink import encode
from ._observe import observe
from ._plan import Plan, plan


def run(
    wanted: Wanted,
    check: bool = False,
    purpose: str = "nslab.netns",
    lock_seconds: float = 60.0,
    wait_seconds: float | None = None,
) -> Plan:
    """Bring the machine into the wanted state, and return the changes that were made.

    With ``check`` they are only predicted, and nothing is touched. With ``wait_seconds`` it returns when the kernel has
    really ended the namespaces that were removed, which it does after their last user is gone.

    Raises Refused, Busy, Missing, or StepFailed; after any of them the machine is as it was before, or the error says
    what remains.
    """
    require_host()
    if check:
        with Machine() as machine:
            return plan(wanted, observe(machine, wanted))
    with lock.held(purpose, lock_seconds), contextlib.ExitStack() as after, Machine() as machine:
        state = observe(machine, wanted)
        planned = plan(wanted, state)
        if planned.assumptions:
            raise Refused(planned.assumptions)
        removed = [
            change.name for change in planned.changes if isinstance(change, RemoveNamespace) and not change.stale
        ]
        leaving = None if wait_seconds is None or not removed else Leaving(machine, removed, wait_seconds)
        application = Application(planned, state, machine, wanted.lab)
        with application.uninterrupted():
            application.apply()
            if planned.steps:
                _verify(wanted, machine, application)
            application.commit()
        if leaving:
            after.callback(leaving.wait)
        return planned


def _verify(wanted: Wanted, machine: Machine, application: Application) -> None:
    """Look again: what is still to be changed is what the kernel did not keep."""
    try:
        left = plan(wanted, observe(machine, wanted)).steps
    except Refused as error:
        raise StepFailed("verify", "", f"after the changes {error}", application.roll_back()) from error
    if left:
        words = "; ".join(str(step.change.describe()) for step in left)
        path = left[0].change.path
        raise StepFailed("verify", path, f"the kernel did not keep what was set: {words}", application.roll_back())


def require_host() -> None:
    """Raise Missing, with what helps, where the collection cannot work at all."""
    encode.require()
    if os.geteuid() != 0:
        raise Missing("network namespaces can be managed only as root; use 'become: true'")
