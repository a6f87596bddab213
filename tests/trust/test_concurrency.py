# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several at once: runs of this collection, and others who do not know of it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible_collections.nslab.netns.plugins.module_utils import _apply
from ansible_collections.nslab.netns.plugins.module_utils._errors import StepFailed
from ansible_collections.nslab.netns.tests.unit.topologies import Document, routed
from applying import host_without_lab_traces, run
from counting import count
from oracle import look, without_identity
from throwaway import differences, inside, ip, ip_json, named_namespaces, ping, throwaway_host

_RUN = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from ansible_collections.nslab.netns.plugins.module_utils import _engine as engine
from ansible_collections.nslab.netns.plugins.module_utils._document import read_topology
from ansible_collections.nslab.netns.plugins.module_utils._errors import Busy
document, absent, seconds = json.loads(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
try:
    plan = engine.run(read_topology(document, absent=absent).wanted, terms=engine.Terms(lock_seconds=seconds))
    print("done", len(plan.changes))
except Busy as error:
    print("busy", error)
"""


@pytest.fixture(autouse=True)
def _at_home() -> Iterator[None]:
    with throwaway_host():
        yield


def at_once(*runs: tuple[Document, bool], seconds: float = 60) -> list[str]:
    """Have processes of their own apply documents, all from the same moment; what each says in the end."""
    processes = []
    with contextlib.ExitStack() as stack:
        for document, absent in runs:
            command = [sys.executable, "-c", _RUN, json.dumps(sys.path), json.dumps([document, absent, seconds])]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            processes.append(stack.enter_context(process))
            assert process.stdout is not None
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        return [process.communicate(timeout=120)[0].strip() for process in processes]


def numbered(number: int) -> Document:
    return {
        "name": f"lab{number}",
        "namespaces": {
            f"n{number}": {"interfaces": {"e0": {"addresses": [f"10.{number}.0.1/24"]}}},
            "host": {"sysctls": {"net.ipv4.ip_forward": 1}, "interfaces": {f"h{number}": {}}},
        },
        "links": [{"endpoints": [f"n{number}:e0", f"host:h{number}"]}],
    }


def test_eight_different_labs_at_once() -> None:
    labs = [numbered(number) for number in range(8)]
    fresh = host_without_lab_traces()
    for _round in range(5):
        said = at_once(*((lab, False) for lab in labs))
        assert all(answer.startswith("done") for answer in said), said
        assert all(run(lab) == [] for lab in labs)
        said = at_once(*((lab, True) for lab in labs))
        assert all(answer.startswith("done") for answer in said), said
        assert not differences(fresh, host_without_lab_traces())
        count("runs of eight at once", 16)


def test_eight_times_the_same_lab_at_once() -> None:
    for _round in range(5):
        said = at_once(*[(routed(), False)] * 8)
        # One makes it all, the others find it made.
        assert sorted(answer.split()[0] for answer in said) == ["done"] * 8
        assert sorted(int(answer.split()[1]) for answer in said) == [0] * 7 + [20]
        assert run(routed()) == []
        at_once(*[(routed(), True)] * 8)
        assert named_namespaces() == []
        count("runs of eight at once", 16)


def test_present_and_absent_at_once_end_in_one_of_the_two() -> None:
    empty = host_without_lab_traces()
    run(routed())
    whole = without_identity(look())
    for _round in range(5):
        said = at_once(*[(routed(), False), (routed(), True)] * 4)
        assert all(answer.startswith("done") for answer in said), said
        if named_namespaces():
            assert not differences(whole, without_identity(look()))
        else:
            assert not differences(empty, host_without_lab_traces())
        count("runs of eight at once", 8)


def test_who_does_not_want_to_wait_is_told_who_is_at_it() -> None:
    said = at_once(*[(routed(), False)] * 8, seconds=0)
    done = [answer for answer in said if answer.startswith("done")]
    busy = [answer for answer in said if answer.startswith("busy")]
    assert len(done) + len(busy) == 8
    assert done
    assert all("has been changing this machine's namespaces" in answer for answer in busy)
    assert run(routed()) == []


def test_beside_ip_netns_that_adds_and_deletes() -> None:
    stop = threading.Event()
    home = [os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY) for kind in ("net", "mnt")]
    failures: list[str] = []
    command = ["nsenter", *(f"--{kind}=/proc/self/fd/{fd}" for kind, fd in zip(("net", "mount"), home))]

    def others() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            for verb in ("add", "delete"):
                whole = [*command, "ip", "netns", verb, f"other{number}"]
                done = subprocess.run(whole, capture_output=True, text=True, check=False, pass_fds=home)
                if done.returncode:
                    failures.append(done.stderr)

    thread = threading.Thread(target=others)
    thread.start()
    try:
        for _round in range(20):
            run(routed())
            assert ping("server", "10.0.1.2")[0]
            run({"name": "routed"}, absent=True)
            count("runs beside ip netns", 2)
    finally:
        stop.set()
        thread.join()
        for fd in home:
            os.close(fd)
    assert failures == []
    assert named_namespaces() == []


# --- what happens under our feet --------------------------------------------------------------------------------------


def meanwhile(monkeypatch: pytest.MonkeyPatch, method: str, what: Callable[[], Any]) -> None:
    """Have somebody else do something right after the first change of a kind."""
    make = getattr(_apply.Application, method)
    done: list[bool] = []

    def and_somebody(self: _apply.Application, change: Any) -> None:
        make(self, change)
        if not done:
            done.append(True)
            what()

    monkeypatch.setattr(_apply.Application, method, and_somebody)


def test_a_namespace_that_is_deleted_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    before = host_without_lab_traces()
    meanwhile(monkeypatch, "_add_address", lambda: ip("netns", "delete", "router"))
    with pytest.raises(StepFailed, match="the namespace router was removed or replaced by somebody else") as caught:
        run(routed())
    assert caught.value.remains == ()
    assert not differences(before, host_without_lab_traces())
    assert run(routed())
    assert run(routed()) == []


@pytest.mark.parametrize("moment", ["_add_veth", "_add_address", "_set_up"])
def test_an_interface_that_is_renamed_meanwhile(monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """As a rule of udev does."""
    before = host_without_lab_traces()
    meanwhile(monkeypatch, moment, lambda: ip("-n", "server", "link", "set", "vethS", "name", "renamed"))
    with pytest.raises(StepFailed, match=r"server:vethS|vethS"):
        run(routed())
    assert not differences(before, host_without_lab_traces())
    assert run(routed())
    assert run(routed()) == []


def test_an_interface_that_is_renamed_before_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    before = host_without_lab_traces()
    add_veth = _apply.encode.add_veth

    def and_renamed(*arguments: Any) -> None:
        add_veth(*arguments)
        monkeypatch.setattr(_apply.encode, "add_veth", add_veth)
        ip("-n", "server", "link", "set", "vethS", "name", "eno1")

    monkeypatch.setattr(_apply.encode, "add_veth", and_renamed)
    with pytest.raises(StepFailed, match="server:vethS was renamed to eno1 by somebody else while it was made"):
        run(routed())
    assert not differences(before, host_without_lab_traces())


def test_a_link_that_is_deleted_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    before = host_without_lab_traces()
    meanwhile(monkeypatch, "_add_address", lambda: ip("-n", "client", "link", "delete", "vethC"))
    with pytest.raises(StepFailed) as caught:
        run(routed())
    assert caught.value.remains == ()
    assert not differences(before, host_without_lab_traces())


def test_what_somebody_else_puts_into_our_namespace_meanwhile_is_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    meanwhile(monkeypatch, "_add_address", lambda: ip("-n", "server", "link", "add", "theirs", "type", "ifb"))
    run(routed())
    assert "theirs" in {link["ifname"] for link in ip_json("server", "link")}
    subprocess.run([*inside("server"), "true"], check=True)
