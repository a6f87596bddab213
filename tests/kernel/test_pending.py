# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes that take themselves back unless they are confirmed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.nslab.netns.plugins.module_utils import _engine as engine
from ansible_collections.nslab.netns.plugins.module_utils import _pending as pending
from ansible_collections.nslab.netns.plugins.module_utils._document import read_topology
from ansible_collections.nslab.netns.plugins.module_utils._errors import Busy, NslabError
from ansible_collections.nslab.netns.tests.unit.topologies import Document, routed
from applying import host_without_lab_traces, run
from throwaway import differences, eventually, ip, named_namespaces, ping

pytestmark = pytest.mark.usefixtures("host")

_RUN = """
import os, sys
sys.path[:] = {path!r}
from ansible_collections.nslab.netns.plugins.module_utils import _engine as engine
from ansible_collections.nslab.netns.plugins.module_utils._document import read_topology
wanted = read_topology({document!r}, absent={absent!r}).wanted
plan = engine.run(wanted, terms=engine.Terms(purpose="a test", revert_seconds={seconds!r}))
print(plan.until)
"""


def left_to_confirmation(document: Document, seconds: float, absent: bool = False) -> str:
    """Apply a document in a process that ends at once; return when what it has done is taken back."""
    text = _RUN.format(path=sys.path, document=document, absent=absent, seconds=seconds)
    done = subprocess.run([sys.executable, "-c", text], check=True, capture_output=True, text=True, timeout=20)
    return done.stdout.strip()


def waiting() -> dict[str, Any]:
    found = pending.pending()
    assert found is not None
    return found


@contextlib.contextmanager
def ended_afterwards() -> Iterator[None]:
    try:
        yield
    finally:
        with contextlib.suppress(AssertionError, ProcessLookupError):
            os.kill(waiting()["pid"], signal.SIGKILL)


def test_confirmed_changes_stay() -> None:
    with ended_afterwards():
        until = left_to_confirmation(routed(), 60)
        found = waiting()
        assert found["until"] == until
        assert 50 < found["seconds_left"] <= 60
        assert "add namespace client" in found["changes"]
        assert ping("server", "2.2.2.2")[0]
        assert pending.confirm("routed") is not None
        assert pending.pending() is None
        assert pending.confirm("routed") is None
        assert pending.reverted() is None
    assert run(routed()) == []
    assert not Path("/run/nslab/pending.sock").exists()


def test_nobody_confirms_the_changes_of_another_lab() -> None:
    with ended_afterwards():
        left_to_confirmation(routed(), 60)
        for lab, own in (("other", "of the lab 'other'"), ("", "without a lab")):
            with pytest.raises(
                NslabError, match=f"what waits is a test, not a change {own}; say 'lab: routed' to confirm"
            ):
                pending.confirm(lab)
        assert waiting()["lab"] == "routed"
        assert pending.confirm("routed") is not None
    assert run(routed()) == []


def test_what_was_taken_back_is_known_until_its_lab_is_changed_again() -> None:
    with ended_afterwards():
        left_to_confirmation(routed(), 1)
        eventually(lambda: pending.pending() is None, "the changes are taken back")
    run({"name": "other", "namespaces": {"x": {}}})
    assert pending.reverted() is not None
    run(routed())
    assert pending.reverted() is None


def test_changes_are_taken_back_at_once_if_nobody_can_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    before = host_without_lab_traces()
    monkeypatch.setattr(pending, "_STOP_SIGNALS", (signal.SIGKILL,))  # Nobody may handle that one.
    with pytest.raises(NslabError, match="the process that shall wait for the confirmation has ended at once"):
        engine.run(read_topology(routed()).wanted, terms=engine.Terms(revert_seconds=60))
    assert pending.pending() is None
    assert not differences(before, host_without_lab_traces())
    assert run(routed()) != []


@pytest.mark.parametrize("how", ["in time", "stopped"])
def test_unconfirmed_changes_are_taken_back(how: str) -> None:
    before = host_without_lab_traces()
    document = {**routed(), "namespaces": {**routed()["namespaces"], "host": {"sysctls": {"net.ipv4.ip_forward": 1}}}}
    with ended_afterwards():
        left_to_confirmation(document, 1.5 if how == "in time" else 60)
        process = waiting()["pid"]
        if how == "stopped":
            os.kill(process, signal.SIGTERM)
        eventually(lambda: pending.pending() is None, "the changes are taken back")
    found = pending.reverted()
    assert found is not None
    assert found["remains"] == []
    assert found["purpose"] == "a test"
    assert pending.confirm("routed") is None
    left = host_without_lab_traces()
    del left["files"]["/run/nslab/reverted.json"]
    assert not differences(before, left)
    # The next run knows nothing of it any more.
    run(routed())
    assert pending.reverted() is None


def test_a_service_runs_again_as_before() -> None:
    """What takes it back has no file of the collection any more, and starts a process that outlives it."""

    def lab(command: str) -> Document:
        return {"name": "lab", "namespaces": {"server": {"services": {"one": {"command": command}}}}}

    def command() -> bytes:
        pid = Path("/run/nslab/services/server/one/pid").read_text().strip()
        return Path(f"/proc/{pid}/cmdline").read_bytes()

    run(lab("sleep 1000"))
    with ended_afterwards():
        left_to_confirmation(lab("sleep 1001"), 1)
        assert command() == b"sleep\x001001\x00"
        eventually(lambda: pending.pending() is None, "the changes are taken back")
    assert command() == b"sleep\x001000\x00"
    assert run(lab("sleep 1000")) == []
    run({"name": "lab"}, absent=True)


def test_a_removal_can_be_taken_back_with_all_that_was_in_it() -> None:
    run(routed())
    before = host_without_lab_traces()
    with ended_afterwards():
        left_to_confirmation({"name": "routed"}, 1.5, absent=True)
        assert named_namespaces() == []
        eventually(lambda: pending.pending() is None, "the changes are taken back")
    left = host_without_lab_traces()
    del left["files"]["/run/nslab/reverted.json"]
    assert not differences(before, left)
    assert run(routed()) == []
    eventually(lambda: ping("server", "2.2.2.2")[0], "it works again")


def test_nobody_changes_anything_meanwhile_but_all_may_look() -> None:
    with ended_afterwards():
        left_to_confirmation(routed(), 60)
        wanted = read_topology({"name": "other", "namespaces": {"x": {}}}).wanted
        assert len(engine.run(wanted, check=True).changes) == 1
        with pytest.raises(Busy, match=r"\(a test, which takes its changes back at .* unless they are confirmed\)"):
            engine.run(wanted, terms=engine.Terms(lock_seconds=0.2))
        # Who waits is let in when it is confirmed.
        confirmer = threading.Timer(0.5, pending.confirm, ["routed"])
        confirmer.start()
        assert len(engine.run(wanted, terms=engine.Terms(lock_seconds=20)).changes) == 1
        confirmer.join()


def test_nothing_is_left_to_confirmation_where_nothing_has_changed() -> None:
    run(routed())
    assert left_to_confirmation(routed(), 60) == ""
    assert pending.pending() is None


def test_what_could_not_be_taken_back_is_told_and_the_rest_is() -> None:
    with ended_afterwards():
        left_to_confirmation(
            {
                "name": "x",
                "namespaces": {"a": {"interfaces": {"e0": {"addresses": ["192.0.2.1/24"]}}}},
                "links": [{"endpoints": ["a:e0", "host:h0"]}],
            },
            60,
        )
        ip("-n", "a", "address", "del", "192.0.2.1/24", "dev", "e0")
        os.kill(waiting()["pid"], signal.SIGTERM)
        eventually(lambda: pending.pending() is None, "the changes are taken back")
    found = pending.reverted()
    assert found is not None
    (remains,) = found["remains"]
    assert remains.startswith("remove address a:e0 192.0.2.1/24: ")
    assert named_namespaces() == []


def test_a_process_that_was_killed_leaves_no_lock_and_no_lie() -> None:
    left_to_confirmation(routed(), 60)
    os.kill(waiting()["pid"], signal.SIGKILL)
    eventually(lambda: pending.pending() is None, "it is gone")
    assert pending.confirm("routed") is None
    assert run(routed()) == []


def test_nobody_else_can_reach_the_socket() -> None:
    with ended_afterwards():
        left_to_confirmation(routed(), 60)
        assert os.stat("/run/nslab").st_mode & 0o777 == 0o700
