# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the engine on the host that the test is on, as the modules do, and makes it fail on the way."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.nslab.netns.plugins.module_utils import (
    _apply,
    _attached,
    _namespaces,
    _node,
    _options,
    _services,
    _supervised,
    _sysctl,
)
from ansible_collections.nslab.netns.plugins.module_utils import _engine as engine
from ansible_collections.nslab.netns.plugins.module_utils._changes import Description, descriptions
from ansible_collections.nslab.netns.plugins.module_utils._document import read_topology
from ansible_collections.nslab.netns.plugins.module_utils._errors import KernelError, NslabError, Refused, StepFailed
from ansible_collections.nslab.netns.plugins.module_utils._netlink.session import Session
from ansible_collections.nslab.netns.plugins.module_utils._plan import Plan
from ansible_collections.nslab.netns.tests.unit.topologies import Document
from throwaway import differences, eventually, snapshot, without

#: What ends at once has ended by then, however much the machine has to do.
BY_THEN_SECONDS = 3.0

#: Settings of a bridge that its spanning tree hides at times.
_HIDDEN = re.compile(r" (ageing_time|forward_delay) \S+")


def run(
    document: Document,
    check: bool = False,
    absent: bool = False,
    adopt: bool = False,
    warned: Sequence[str] | None = None,
    host: str | None = None,
) -> list[str]:
    """Apply a document, of a ``host``. ``warned`` are the beginnings of all warnings that it has to give."""
    wanted = read_topology(document, absent=absent, host=host).wanted
    wanted.adopt = adopt
    planned = engine.run(wanted, check=check)
    if warned is not None:
        assert len(planned.warnings) == len(warned), planned.warnings
        assert all(map(str.startswith, planned.warnings, warned)), planned.warnings
    return words(planned)


def words(planned: Plan) -> list[str]:
    return list(map(str, described(planned)))


def visible(planned: Plan, standing: Document | None = None) -> list[str]:
    """The changes without what the spanning tree of a bridge hides at times, from one run and not from the next one.

    ``standing`` is the document that stands.
    """
    return [str(change) for change in (_visible(change, standing or {}) for change in described(planned)) if change]


def _visible(change: Description, standing: Document) -> Description | None:
    bridge = standing.get("namespaces", {}).get(change.namespace, {}).get("bridges", {}).get(change.name, {})
    if (change.action, change.object) != ("change", "bridge") or not bridge.get("stp"):
        return change
    before, now = (_HIDDEN.sub("", text) for text in (change.before, change.after))
    is_nothing = now == f"bridge {change.namespace}:{change.name}"
    return None if is_nothing else change._replace(before=before, after=now)


def described(planned: Plan) -> list[Description]:
    return [description for change in planned.changes for description in descriptions(change)]


def module(read: Callable[..., Any], **options: Any) -> list[str]:
    """What a granular module does with these options."""
    return words(engine.run(read({"lab": None, **options})))


def netns(*names: str, state: str = "present", lab: str | None = None) -> list[str]:
    return module(_options.netns, name=list(names), state=state, lab=lab)


def veth(name: str, namespace: str, peer: str, peer_namespace: str, state: str = "present", **more: Any) -> list[str]:
    other = {"name": peer, "namespace": peer_namespace, "up": True}
    return module(_options.veth, name=name, namespace=namespace, peer=other, state=state, purge=False, up=True, **more)


def host_without_lab_traces() -> dict[str, Any]:
    """A snapshot without the folders that stay when the last namespace is gone, as after ``ip netns``."""
    return without(snapshot(), "/run/netns", "/run/nslab")


def refused(document: Document) -> str:
    before = snapshot()
    with pytest.raises(Refused) as caught:
        run(document)
    changed = differences(without(before, "/run/nslab"), without(snapshot(), "/run/nslab"))
    assert not changed, changed
    with pytest.raises(Refused):
        run(document, check=True)
    return str(caught.value)


#: Every function that changes the kernel or /run: its owner and its name.
MUTATING: tuple[tuple[Any, str], ...] = (
    (Session, "request"),
    (_sysctl, "write"),
    (_node, "write"),
    (_namespaces, "create"),
    (_namespaces, "give_name"),
    (_namespaces, "remove_name"),
    (_namespaces, "replace_name"),
    (_attached, "note"),
    (_attached, "settle"),
    (_services, "write"),
    (_services, "ask_to_end"),
    (_services, "_note"),
    (_services, "_remove"),
    (_supervised, "start"),
    (_supervised, "stop"),
    (_apply.memory, "append"),
    (_apply.memory, "rewrite"),
    (_apply.nftables, "replace"),
    (_apply.nftables, "restore"),
    (_apply.iptables, "replace"),
    (_apply.iptables, "restore"),
)


@contextlib.contextmanager
def failing_call(monkeypatch: pytest.MonkeyPatch, number: int, error: Exception | None = None) -> Iterator[list[int]]:
    """Let the ``number``-th call that changes the kernel or /run fail; the list counts the calls.

    It fails as such calls do, or with ``error``.
    """
    calls = [0]

    def failing(function: Callable[..., Any], usual: Exception) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            calls[0] += 1
            if calls[0] == number:
                raise error or usual
            return function(*arguments, **more)

        return call

    with monkeypatch.context() as patch:
        for owner, name in MUTATING:
            usual: Exception = KernelError(5, "injected")
            if owner in (_namespaces, _attached, _apply.memory, _node, _services, _supervised):
                usual = OSError(5, "injected")
            elif owner in (_apply.nftables, _apply.iptables):
                usual = NslabError("injected")
            patch.setattr(owner, name, failing(getattr(owner, name), usual))
        yield calls


class Rendezvous:
    """A lab with three services, each of which ends when all have been asked to: who waits for one has to kill it."""

    names = ("one", "three", "two")

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        services = {name: {"command": ["sh", "-c", self._script(name)]} for name in self.names}
        self.document: Document = {"name": "lab", "namespaces": {"server": {"services": services}}}

    def _script(self, name: str) -> str:
        asked = " && ".join(f"[ -e {self._folder}/asked-{other} ]" for other in self.names)
        # The shell itself makes the files: whatever it calls is asked to end as well.
        trap = f"trap ': > {self._folder}/asked-{name}' TERM; : > {self._folder}/ready-{name}"
        return f"{trap}; until {asked}; do sleep 0.1; done; : > {self._folder}/ended-{name}"

    def run(self) -> None:
        run(self.document)
        eventually(lambda: self._found("ready") == list(self.names), "all of them")

    def ended(self) -> list[str]:
        """Those that have ended by themselves."""
        return self._found("ended")

    def _found(self, what: str) -> list[str]:
        return sorted(path.name.partition("-")[2] for path in self._folder.glob(f"{what}-*"))


def outcome(document: Document, host: str | None = None) -> StepFailed | None:
    """The error that a run ends with, if it is one of a step."""
    try:
        run(document, host=host)
    except StepFailed as error:
        return error
    return None


def fail_each_call(monkeypatch: pytest.MonkeyPatch, document: Document, host: str | None = None) -> int:
    """Make each call that changes anything fail once, and see the host as it was; return how many there were."""
    before = host_without_lab_traces()
    number = 0
    while True:
        number += 1
        with failing_call(monkeypatch, number) as calls:
            failed = outcome(document, host)
        if failed is None:
            return number
        assert "injected" in str(failed)
        assert not failed.remains, failed
        assert calls[0] >= number
        assert not differences(before, host_without_lab_traces()), f"call {number}"


def kill_at(count: int, document: Document) -> bool:
    """Apply a document in a process that is killed right after the ``count``-th call that changes anything.

    Returns whether it came so far.
    """
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            _kill_after(count)
            engine.run(read_topology(document).wanted)
            status = 0
        except BaseException:  # noqa: BLE001 - a child ends here, whatever it is
            traceback.print_exc()
        finally:
            os._exit(status)
    _pid, status = os.waitpid(pid, 0)
    assert status in (0, signal.SIGKILL), "the run has failed before it could be killed"
    return status != 0


def _kill_after(count: int) -> None:
    left = [count]

    def killing(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            result = function(*arguments, **more)
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    for owner, name in MUTATING:
        setattr(owner, name, killing(getattr(owner, name)))
