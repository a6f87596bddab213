# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run that ends in the middle, however that happens, is recovered by running again."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from controller import DEADLINE_SECONDS, Controller, Play, Run, play
from throwaway import eventually, ip_json, named_namespaces, ping, snapshot, without

# Enough to be caught in the act.
NODES = 60


def big_topology() -> dict[str, Any]:
    """A chain of nodes, each with a veth to the next one and to the host, and a route to the far end."""
    namespaces: dict[str, Any] = {"host": {"interfaces": {}}}
    links = []
    for i in range(NODES):
        namespaces[f"node{i}"] = {
            "interfaces": {
                "lo": {"addresses": [f"192.0.2.{i + 1}/32"]},
                "uplink": {"addresses": [f"10.{i}.0.2/24"]},
            },
            "routes": [{"to": "default", "via": f"10.{i}.0.1"}],
            "sysctls": {"net.ipv4.ip_forward": 1},
        }
        namespaces["host"]["interfaces"][f"down{i}"] = {"addresses": [f"10.{i}.0.1/24"]}
        links.append({"endpoints": [f"node{i}:uplink", f"host:down{i}"]})
        if i:
            links.append({"endpoints": [f"node{i - 1}:next", f"node{i}:previous"]})
    return {"name": "big", "namespaces": namespaces, "links": links}


def plays(state: str = "present") -> list[Play]:
    return [play("big", tasks=[{"nslab.netns.topology": {"topology": big_topology(), "state": state}}])]


# Facts that are there when a part of the work is done, and not all of it.
MIDDLES: dict[str, tuple[Callable[[], bool], str]] = {
    "among the namespaces": (lambda: count("/run/netns") >= 5, "the first namespaces"),
    "among the links": (Path("/sys/class/net/down5").exists, "the first links"),
    "among the addresses": (lambda: "10.3.0.1" in Path("/proc/thread-self/net/fib_trie").read_text(), "an address"),
}


@pytest.mark.once
@pytest.mark.parametrize(("reached", "what"), MIDDLES.values(), ids=MIDDLES)
def test_a_killed_module(ansible: Controller, reached: Callable[[], bool], what: str) -> None:
    """Nothing can be taken back by a process that is no more: what is half-built is what the next run finds."""
    before = snapshot()
    run = interrupt_in_the_middle(ansible, reached, what, signal.SIGKILL)
    assert run.code != 0, str(run)
    assert named_namespaces(), "it was killed before it had done anything"
    converge(ansible, before)


@pytest.mark.once
def test_a_module_that_is_asked_to_stop_takes_all_back(ansible: Controller) -> None:
    before = snapshot()
    run = interrupt_in_the_middle(ansible, *MIDDLES["among the links"], signal.SIGTERM).failed()
    assert "SIGTERM" in run.words
    assert "Everything that this run had done was taken back." in run.words
    folders = ("/run/netns", "/run/nslab")
    eventually(lambda: without(snapshot(), *folders) == without(before, *folders), "nothing is left", 10)
    converge(ansible, before)


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGTERM, id="SIGTERM"),
        *(pytest.param(number, id=number.name, marks=pytest.mark.once) for number in (signal.SIGINT, signal.SIGKILL)),
    ],
)
def test_an_ansible_playbook_that_is_stopped(ansible: Controller, number: signal.Signals) -> None:
    before = snapshot()
    run = interrupt(ansible, *MIDDLES["among the namespaces"], "controller", number)
    assert run.code != 0, str(run)
    converge(ansible, before)


def interrupt_in_the_middle(ansible: Controller, reached: Callable[[], bool], what: str, number: signal.Signals) -> Run:
    """Send a signal to the module, and once more to another run if it was done by then."""
    for _attempt in range(5):
        run = interrupt(ansible, reached, what, "module", number)
        if not complete():
            return run
        ansible.run(plays("absent")).succeeded()
    raise AssertionError("each time it was done before the signal came")


def interrupt(ansible: Controller, reached: Callable[[], bool], what: str, whom: str, number: signal.Signals) -> Run:
    """Start the big topology, send a signal in the middle, and wait until no module works on it any more."""
    process = ansible.start(plays())
    with contextlib.ExitStack() as stack:
        stack.callback(process.wait)
        stack.callback(process.kill)
        eventually(lambda: reached() or process.poll() is not None, what, DEADLINE_SECONDS)
        family = {}
        for pid in descendants(process.pid):
            with contextlib.suppress(ProcessLookupError):
                family[pid] = stack.enter_context(opened(pid))
        module = module_among(list(family))
        os.kill(process.pid if whom == "controller" else module, number)
        stdout, stderr = process.communicate(timeout=DEADLINE_SECONDS)
        assert select.select([family[module]], [], [], DEADLINE_SECONDS)[0], "the module hangs"
        return Run(process.returncode, stdout, stderr)


def converge(ansible: Controller, before: dict[str, Any]) -> None:
    """One run makes it whole, a second one finds nothing to do, and its removal leaves nothing."""
    ansible.run(plays()).succeeded()
    assert complete()
    for i in (0, NODES // 2, NODES - 1):
        assert ping(f"node{i}", f"10.{i}.0.1")[0]
        assert ping(None, f"10.{i}.0.2")[0]
    again = ansible.run(plays(), "--diff").succeeded()
    assert (again.changed, again.diff) == (0, [])
    ansible.run(plays("absent")).succeeded()
    folders = ("/run/netns", "/run/nslab")
    eventually(lambda: without(snapshot(), *folders) == without(before, *folders), "nothing is left", 60)


def complete() -> bool:
    """Whether each node is there with all that it has by the document."""
    names = {f"node{i}" for i in range(NODES)}
    if set(named_namespaces()) != names:
        return False
    for i in range(NODES):
        links = {link["ifname"]: link for link in ip_json(f"node{i}", "address", "show", "up")}
        wanted = {"lo", "uplink"} | ({"next"} if i < NODES - 1 else set()) | ({"previous"} if i else set())
        held = {address["local"] for link in links.values() for address in link["addr_info"]}
        routes = ip_json(f"node{i}", "route", "show", "default")
        if links.keys() != wanted or not {f"192.0.2.{i + 1}", f"10.{i}.0.2"} <= held or len(routes) != 1:
            return False
    return True


def count(folder: str) -> int:
    with contextlib.suppress(FileNotFoundError):
        return len(os.listdir(folder))
    return 0


# Processes


def descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{name}/stat").read_text()
                children.setdefault(int(status.rpartition(")")[2].split()[1]), []).append(int(name))
    found = list(children.get(pid, []))
    for child in found:
        found += children.get(child, [])
    return found


def module_among(pids: list[int]) -> int:
    """The process that runs the module: the youngest Python that is no ansible-playbook."""
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"python" in command.split(b"\0")[0] and b"ansible-playbook" not in command:
                found.append(pid)
    assert found, "no module is running"
    return found[-1]


@contextlib.contextmanager
def opened(pid: int) -> Iterator[int]:
    """A descriptor that becomes readable when a process ends, which it does at the end of the block at the latest.

    A worker of an ansible-playbook that was killed waits for ever for somebody to take its result.
    """
    pidfd = os.pidfd_open(pid)
    try:
        yield pidfd
    finally:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)
