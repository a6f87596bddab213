# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one way from a demand to its result: observe, plan, apply, observe again, keep.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from . import _lock as lock
from . import _pending as pending
from ._apply import Application, Stops
from ._changes import RemoveNamespace
from ._errors import Missing, NslabError, Refused, StepFailed
from ._leaving import Leaving
from ._machine import Machine
from ._model import Wanted
from ._netlink import library
from ._observe import labs, observe
from ._plan import Plan, foresee, plan


@dataclass(frozen=True)
class Terms:
    """On which terms the machine is changed."""

    #: What others are told who wait for this run.
    purpose: str = "nslab.netns"
    #: How long to wait for another run.
    lock_seconds: float = 60.0
    #: Look again after the changes.
    verify: bool = True
    #: What has to hold as well for the changes to be kept; returns what does not, in words.
    prove: Callable[[], list[str]] | None = None
    #: The machine takes the changes back by itself after this time, unless they are confirmed.
    revert_seconds: float | None = None
    #: Return when the kernel has really ended the namespaces that were removed, after their last user is gone.
    wait_seconds: float | None = None


_PLAIN_TERMS = Terms()


def run(wanted: Wanted, check: bool = False, terms: Terms = _PLAIN_TERMS) -> Plan:
    """Bring the machine into the wanted state, and return the changes that were made: all of them, or none.

    With ``check`` they are only predicted, and nothing is touched.

    Raises Refused, Busy, Missing, or StepFailed; after any of them the machine is as it was before, or the error says
    what remains.
    """
    require_host()
    if check:
        with Machine() as machine:
            plans: list[Plan] = []
            for demand in _demands(wanted, machine):
                state = observe(machine, demand)
                for earlier in plans:
                    foresee(state, demand.lab, earlier)
                plans.append(plan(demand, state))
            return _merged(plans)
    with lock.held(terms.purpose, terms.lock_seconds) as held, contextlib.ExitStack() as after, Machine() as machine:
        transaction = _Transaction(machine, terms)
        with transaction:
            for demand in _demands(wanted, machine):
                transaction.apply(demand)
            whole = _merged(transaction.plans)
            if terms.prove:
                transaction.prove(terms.prove)
            if whole.steps and terms.revert_seconds is not None:
                texts = [str(step.change.describe()) for step in whole.steps]
                record = {"purpose": terms.purpose, "lab": wanted.lab, "changes": texts}
                whole.until = pending.leave_to_confirmation(transaction, held, terms.revert_seconds, record)
            else:
                transaction.commit()
            pending.forget(wanted.lab)
        for leaving in transaction.leaving:
            after.callback(leaving.wait)
        return whole


def standing() -> list[str]:
    """The labs that have left anything on the machine."""
    with Machine() as machine:
        return labs(machine)


def _demands(wanted: Wanted, machine: Machine) -> list[Wanted]:
    """The demand, or one for each lab that has to go."""
    if wanted.valid_labs is None:
        return [wanted]
    going = [lab for lab in labs(machine) if lab not in wanted.valid_labs]
    return [
        Wanted(lab=lab, prune=True, whole=True, gone=frozenset(going[: position + 1]), going=frozenset(going))
        for position, lab in enumerate(going)
    ]


class _Transaction:
    """What a run has applied, to be kept or taken back as a whole. Left by an exception, it is taken back."""

    def __init__(self, machine: Machine, terms: Terms) -> None:
        self._machine = machine
        self._terms = terms
        self._stops = Stops()
        self._applications: list[Application] = []
        self.plans: list[Plan] = []
        self.leaving: list[Leaving] = []

    def __enter__(self) -> _Transaction:
        self._stops.__enter__()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if error is not None:
                remains = self.roll_back()
                if remains and isinstance(error, StepFailed):
                    raise StepFailed(error.step, error.path, error.cause, [*error.remains, *remains]) from error
        finally:
            self._stops.__exit__(None, None, None)

    def apply(self, wanted: Wanted) -> None:
        """Plan, make the changes, and look again. Raises Refused, or StepFailed after this much was taken back."""
        state = observe(self._machine, wanted)
        planned = plan(wanted, state)
        if planned.assumptions or planned.unsaid:
            raise Refused([*planned.assumptions, *planned.unsaid])
        removed = [change.name for change in planned.changes if isinstance(change, RemoveNamespace) if not change.stale]
        if removed and self._terms.wait_seconds is not None:
            self.leaving.append(Leaving(self._machine, removed, self._terms.wait_seconds))
        application = Application(planned, state, self._machine, wanted.lab, self._stops)
        application.apply()
        self._applications.append(application)
        self.plans.append(planned)
        if planned.steps and self._terms.verify:
            self._verify(wanted, application)

    def _verify(self, wanted: Wanted, application: Application) -> None:
        """Look again: what is still to be changed is what the kernel did not keep."""
        lost = [name for name in self._machine.lost() if name in wanted.namespaces]
        if lost:
            text = f"the namespace {lost[0]} was removed or replaced by somebody else meanwhile"
            raise StepFailed("verify", wanted.namespaces[lost[0]].path, text, self.roll_back())
        state = observe(self._machine, wanted)
        state.remembered = application.remembered()
        try:
            left = plan(wanted, state).steps
        except Refused as error:
            raise StepFailed("verify", "", f"after the changes {error}", self.roll_back()) from error
        if left:
            words = "; ".join(str(step.change.describe()) for step in left)
            path = left[0].change.path
            raise StepFailed("verify", path, f"the kernel did not keep what was set: {words}", self.roll_back())

    def prove(self, prove: Callable[[], list[str]]) -> None:
        failures = prove()
        if failures:
            raise StepFailed("probes", "", "; ".join(failures), self.roll_back())

    def commit(self) -> None:
        """Keep it all."""
        self._stops.check(self.roll_back)
        try:
            for application in self._applications:
                application.commit()
        except (NslabError, OSError) as error:
            raise StepFailed("commit", "", str(error), self.roll_back()) from error
        # Only now, so that until here all of it can be taken back.
        self.leave()

    def roll_back(self) -> list[str]:
        """Take it all back. Returns what could not be taken back, in words."""
        return [what for application in reversed(self._applications) for what in application.roll_back()]

    def leave(self) -> None:
        """Leave it as it is, for good or to another process, which has a copy of this."""
        for application in self._applications:
            application.leave()


def _merged(plans: Sequence[Plan]) -> Plan:
    """Plans one after the other, as one."""
    whole = Plan()
    for planned in plans:
        whole.steps += planned.steps
        whole.assumptions += planned.assumptions
        whole.unsaid += planned.unsaid
        whole.warnings += [warning for warning in planned.warnings if warning not in whole.warnings]
        whole.findings += planned.findings
        whole.backends.update(planned.backends)
    return whole


def require_host() -> None:
    """Raise Missing, with what helps, where the collection cannot work at all."""
    library.require()
    if os.geteuid() != 0:
        raise Missing("network namespaces can be managed only as root; use 'become: true'")
