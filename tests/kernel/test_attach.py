# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Namespaces that something else has made get a name; they live on without it, and come again with another process."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible_collections.nslab.netns.plugins.module_utils import _engine as engine
from ansible_collections.nslab.netns.plugins.module_utils import _options
from ansible_collections.nslab.netns.plugins.module_utils._errors import InvalidInput, NslabError, Refused, StepFailed
from ansible_collections.nslab.netns.plugins.module_utils._facts import gather
from ansible_collections.nslab.netns.tests.unit.topologies import Document
from applying import fail_each_call, host_without_lab_traces, kill_at, module, netns, refused, run
from test_ownership import collect, files
from throwaway import Containers, differences, eventually, inode_of, ip, ip_json, named_namespaces, snapshot

pytestmark = pytest.mark.usefixtures("host")

Start = Callable[[], int]


@pytest.fixture
def start(host: None) -> Iterator[Start]:
    """Start a container of sorts: a process in a network namespace of its own, with an eth0 to the host."""
    containers, numbers = Containers(), itertools.count(1)

    def started() -> int:
        pid = containers.start()
        ip("link", "add", f"veth{next(numbers)}", "type", "veth", "peer", "name", "eth0", "netns", str(pid))
        return pid

    yield started
    containers.end()


def attach(name: str = "web", **options: Any) -> list[str]:
    return module(_options.netns, **{"name": [name], "state": "present", **options})


def stop(pid: int) -> None:
    os.kill(pid, 9)
    eventually(lambda: not os.path.exists(f"/proc/{pid}/ns/net"), "ended")


@pytest.mark.parametrize("by", ["pid", "path"])
def test_a_process_gives_its_namespace_to_a_name(start: Start, by: str) -> None:
    pid = start()
    how: dict[str, Any] = {"pid": pid} if by == "pid" else {"path": f"/proc/{pid}/ns/net"}
    before = snapshot()
    what = f"process {pid} (cat)" if by == "pid" else f"/proc/{pid}/ns/net"
    wanted = _options.netns({"lab": None, "name": ["web"], "state": "present", **how})
    assert [str(change.describe()) for change in engine.run(wanted, check=True).changes] == [
        f"add namespace web of {what}"
    ]
    assert not differences(before, snapshot())
    assert attach(**how) == [f"add namespace web of {what}"]
    assert os.stat("/run/netns/web").st_ino == inode_of(pid)
    assert attach(**how) == []
    assert gather(["web"], (), "")["namespaces"]["web"]["attached"] is True
    assert (
        module(_options.ns_link, name="eth0", namespace="web", addresses=["192.0.2.2/24"], up=True, purge=False) != []
    )
    assert netns("web", state="absent") == ["remove namespace web"]
    assert netns("web", state="absent") == []
    assert os.path.exists(f"/proc/{pid}")
    assert [link["ifname"] for link in ip_json(None, "link")] == ["lo", "veth1"]
    assert [path for path in files() if "attached" in path] == []


def test_the_name_goes_over_to_a_container_that_was_started_anew(start: Start) -> None:
    old = start()
    attach(pid=old)
    stop(old)
    new = start()
    assert attach(pid=new) == [f"change namespace web of an earlier one -> process {new} (cat)"]
    assert os.stat("/run/netns/web").st_ino == inode_of(new)
    assert attach(pid=new) == []
    eventually(lambda: "veth1" not in [link["ifname"] for link in ip_json(None, "link")], "the old one has ended")


def test_what_others_have_made_is_not_replaced(start: Start) -> None:
    pid = start()
    netns("web")
    before = snapshot()
    with pytest.raises(Refused, match="a namespace web already that was not attached by this collection; remove it"):
        attach(pid=pid)
    with pytest.raises(Refused, match="is in the host's own namespace, which is 'host' here"):
        attach("own", pid=os.getpid())
    with pytest.raises(Refused, match="there is no process 4000000"):
        attach("gone", pid=4000000)
    with pytest.raises(Refused, match="/proc/self/ns/mnt is no network namespace"):
        attach("mnt", path="/proc/self/ns/mnt")
    with pytest.raises(Refused, match="/etc/passwd is no network namespace"):
        attach("passwd", path="/etc/passwd")
    with pytest.raises(Refused, match="/nowhere cannot be opened: No such file or directory"):
        attach("nowhere", path="/nowhere")
    assert not differences(before, snapshot())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pid": 1, "path": "/x"}, "path: say either 'pid' or 'path'"),
        ({"pid": 0}, "pid: 0 is"),
        ({"path": "x"}, "path: 'x' is no absolute path"),
        ({"pid": 1, "name": ["a", "b"]}, "pid: goes with one 'name' that shall be present"),
        ({"pid": 1, "state": "absent"}, "pid: goes with one 'name' that shall be present"),
        ({"replace_symlink": True}, "replace_symlink: goes with 'pid' or 'path' only"),
    ],
    ids=str,
)
def test_wrong_options_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        _options.netns({"lab": None, "name": ["web"], "state": "present", **options})


@pytest.mark.parametrize("leads", ["to it", "to another one", "nowhere"])
def test_symlinks_of_others_give_way_on_request(start: Start, leads: str) -> None:
    pid, other = start(), start()
    os.makedirs("/run/netns", mode=0o755, exist_ok=True)
    where = {"to it": pid, "to another one": other, "nowhere": 4000000}[leads]
    target = f"/proc/{where}/ns/net"
    os.symlink(target, "/run/netns/web")
    if leads == "to it":
        assert attach(pid=pid) == []
    else:
        with pytest.raises(Refused, match=f"/run/netns/web is a symlink to {target} that somebody else has made; say"):
            attach(pid=pid)
    assert os.readlink("/run/netns/web") == target
    before = f"symlink web -> {target}"
    assert attach(pid=pid, replace_symlink=True) == [f"change {before} -> namespace web of process {pid} (cat)"]
    assert attach(pid=pid, replace_symlink=True) == []
    assert not os.path.islink("/run/netns/web")
    assert os.stat("/run/netns/web").st_ino == inode_of(pid)


def test_a_symlink_goes_and_the_container_stays(start: Start) -> None:
    pid = start()
    os.makedirs("/run/netns", mode=0o755, exist_ok=True)
    os.symlink(f"/proc/{pid}/ns/net", "/run/netns/web")
    assert netns("web", state="absent") == ["remove namespace web"]
    assert [link["ifname"] for link in ip_json(None, "link")] == ["lo", "veth1"]


def document(pid: int, **attach: Any) -> Document:
    """A lab in which a container has a second interface to a namespace of the lab's."""
    return {
        "name": "one",
        "namespaces": {
            "web": {
                "attach": {"pid": pid, **attach},
                "interfaces": {"eth1": {"addresses": ["10.0.1.2/24"]}, "eth0": {"mtu": 1400, "up": True}},
                "routes": [{"to": "10.0.9.0/24", "via": "10.0.1.1"}],
                "sysctls": {"net.ipv4.ip_forward": 1},
            },
            "router": {"interfaces": {"r0": {"addresses": ["10.0.1.1/24"]}}},
        },
        "links": [{"endpoints": ["web:eth1", "router:r0"]}],
    }


def inside(pid: int) -> dict[str, Any]:
    """What is in the namespace of a process, by a name that it has only for this look."""
    ip("netns", "attach", "look", str(pid))
    try:
        found: dict[str, Any] = snapshot()["namespace look"]
        return found
    finally:
        ip("netns", "delete", "look")


def test_a_lab_has_a_container_in_it(start: Start) -> None:
    pid = start()
    before, container = host_without_lab_traces(), inside(pid)
    lab = document(pid)
    predicted = run(lab, check=True)
    assert run(lab) == predicted
    assert predicted[0] == f"add namespace web of process {pid} (cat)"
    assert run(lab) == []
    assert subprocess.run(["ip", "netns", "exec", "web", "ping", "-c1", "-W2", "10.0.1.1"], check=False).returncode == 0
    predicted = run(lab, absent=True, check=True)
    assert run(lab, absent=True, warned=[]) == predicted
    assert predicted[-1] == "remove namespace web"
    assert not differences(before, host_without_lab_traces())
    assert not differences(container, inside(pid))
    assert run(lab, absent=True) == []


def test_a_lab_finds_a_container_that_was_started_anew(start: Start) -> None:
    old = start()
    run(document(old))
    stop(old)
    new = start()
    container = inside(new)
    changes = run(document(new))
    assert f"change namespace web of an earlier one -> process {new} (cat)" in changes
    assert any(re.match("move .*web/earlier:eth1", change) for change in changes), changes
    assert run(document(new)) == []
    run(document(new), absent=True, warned=[])
    assert not differences(container, inside(new))
    assert named_namespaces() == []
    assert [path for path in files() if "lab-" in path or "attached" in path] == []


def test_two_labs_may_have_one_container(start: Start) -> None:
    pid = start()
    for lab in ("one", "two"):
        run({"name": lab, "namespaces": {"web": {"attach": {"pid": pid}}}})
    run({"name": "one"}, absent=True)
    assert named_namespaces() == ["web"]
    assert collect() == ["remove namespace web"]
    assert named_namespaces() == []


def test_a_name_that_was_there_stays(start: Start) -> None:
    pid = start()
    ip("netns", "attach", "web", str(pid))
    assert "add namespace web" not in " ".join(run(document(pid)))
    run(document(pid), absent=True)
    assert named_namespaces() == ["web"]


def test_another_name_of_the_same_namespace_is_no_hindrance(start: Start) -> None:
    pid = start()
    ip("netns", "attach", "a", str(pid))
    run(document(pid))
    assert run(document(pid)) == []
    run(document(pid), absent=True)
    assert named_namespaces() == ["a"]


def test_a_document_says_what_is_wrong_with_it() -> None:
    with pytest.raises(
        NslabError, match=r"namespaces\.web\.hostname: what is attached has the host name that its maker"
    ):
        run({"name": "one", "namespaces": {"web": {"attach": {"pid": 1}, "hostname": "x"}}})
    with pytest.raises(NslabError, match=r"namespaces\.web\.attach: lacks what it is: 'pid'"):
        run({"name": "one", "namespaces": {"web": {"attach": {"replace_symlink": True}}}})
    with pytest.raises(NslabError, match=r"namespaces\.host\.attach: 'host' is the machine's own namespace"):
        run({"name": "one", "namespaces": {"host": {"attach": {"pid": 1}}}})
    assert "namespaces.web.attach.pid: there is no process 4000000" in refused(document(4000000))


@pytest.mark.parametrize("replace", [False, True])
def test_every_failing_call_leaves_all_as_it_was(start: Start, monkeypatch: pytest.MonkeyPatch, replace: bool) -> None:
    pid = start()
    if replace:
        os.makedirs("/run/netns", mode=0o755, exist_ok=True)
        os.symlink(f"/proc/{pid}/ns/net", "/run/netns/web")
    assert fail_each_call(monkeypatch, document(pid, replace_symlink=replace)) > 10


def test_each_failing_step_leaves_the_name_with_the_earlier_one(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    run(document(start()))
    pid = start()
    assert fail_each_call(monkeypatch, document(pid)) > 10
    assert run(document(pid)) == []


def test_every_kill_is_mended_by_the_next_run(start: Start) -> None:
    pid = start()
    before, container = host_without_lab_traces(), inside(pid)
    count = 1
    while kill_at(count, document(pid)):
        run(document(pid))
        assert run(document(pid)) == []
        run(document(pid), absent=True)
        assert not differences(before, host_without_lab_traces()), count
        assert not differences(container, inside(pid)), count
        count += 1
    assert count > 10


def test_the_module_takes_back_the_name_that_it_gave_for_a_lab(start: Start) -> None:
    pid = start()
    there = host_without_lab_traces()
    attach(pid=pid, lab="edge")
    assert attach(state="absent", lab="other") == []
    assert attach(state="absent", lab="edge") == ["remove namespace web"]
    assert not differences(there, host_without_lab_traces())
    assert files() == []
    assert inode_of(pid) > 0


@pytest.mark.once
def test_a_service_runs_again_where_it_ran_if_another_process_is_no_good(start: Start) -> None:
    def lab(pid: int, **services: str) -> Document:
        body = {"attach": {"pid": pid}, "services": {name: {"command": said} for name, said in services.items()}}
        return {"name": "edge", "namespaces": {"web": body}}

    first, second = start(), start()
    fresh = host_without_lab_traces()
    run(lab(first, one="sleep 1000"))
    with pytest.raises(StepFailed, match="Everything that this run had done was taken back"):
        run(lab(second, one="sleep 1000", two="false"))
    assert os.stat("/run/netns/web").st_ino == inode_of(first)
    assert run(lab(first, one="sleep 1000")) == []
    run({"name": "edge"}, absent=True)
    assert not differences(fresh, host_without_lab_traces())
