# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Services in namespaces where there is no systemd: real programs, their processes, and what is left of them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.nslab.netns.plugins.module_utils import _apply, _options, _supervised
from ansible_collections.nslab.netns.plugins.module_utils import _engine as engine
from ansible_collections.nslab.netns.plugins.module_utils._document import read_topology
from ansible_collections.nslab.netns.plugins.module_utils._errors import NslabError, Refused, StepFailed
from ansible_collections.nslab.netns.plugins.module_utils._facts import gather
from ansible_collections.nslab.netns.plugins.module_utils._model import Wanted
from ansible_collections.nslab.netns.tests.unit.topologies import Document
from applying import (
    BY_THEN_SECONDS,
    Rendezvous,
    fail_each_call,
    host_without_lab_traces,
    kill_at,
    module,
    netns,
    refused,
    run,
    words,
)
from throwaway import deadline, differences, entered, eventually, inside, ip, own_etc, snapshot, sysctls

SERVICES = Path("/run/nslab/services")
SLEEP = ("sleep", "1000")


@pytest.fixture(autouse=True)
def services(host: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A throw-away host, on which nothing is left running.

    On it, what runs counts as running sooner, and what does not want to end is killed sooner.
    """
    monkeypatch.setattr(_supervised, "SETTLE_SECONDS", 0.02)
    monkeypatch.setattr(_supervised, "STOP_SECONDS", 1.0)
    yield
    for file in SERVICES.glob("*/*/state"):
        state = json.loads(file.read_text())
        for pid, started in (state["supervisor"], (state["pid"], state["pid_started"])):
            if pid and started and started_at(pid) == started:
                os.kill(pid, signal.SIGKILL)


def started_at(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if fields[0] in ("Z", "X") else int(fields[19])


def lab(command: Any = SLEEP, name: str = "lab", **more: Any) -> Document:
    """A namespace with one service."""
    return {"name": name, "namespaces": {"server": {"services": {"one": {"command": command, **more}}}}}


def pids(namespace: str = "server") -> list[int]:
    return [int(pid) for pid in ip("netns", "pids", namespace).split()]


def processes() -> str:
    """What runs in the namespace, in the words of ps."""
    chosen = ",".join(map(str, pids())) or "0"
    command = ["ps", "-o", "pid,ppid,pgid,sid,stat,args", "-p", chosen]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def pid_of(namespace: str = "server", name: str = "one") -> int:
    """The process of the service, by its pid file; it has to be inside."""
    pid = int((SERVICES / namespace / name / "pid").read_text())
    assert pid in pids(namespace)
    return pid


def state_of(namespace: str = "server", name: str = "one") -> Any:
    return json.loads((SERVICES / namespace / name / "state").read_text())


def is_gone(pid: int) -> bool:
    return started_at(pid) == 0


def gone(*numbers: int) -> None:
    eventually(lambda: all(map(is_gone, numbers)), f"the end of the processes {numbers}", 10)


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


def fetch(namespace: str | None, url: str) -> str:
    script = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=2).read().decode())"
    command = [*inside(namespace), sys.executable, "-c", script, url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def remove(name: str = "lab") -> list[str]:
    return run({"name": name}, absent=True)


# --- the proof of labs.md, L8 ----------------------------------------------------------------------------------------


def two_servers(folder: Path) -> Document:
    """Two namespaces side by side, in each of which a web server has port 80."""
    document: Document = {"name": "lab", "namespaces": {}, "links": [{"endpoints": ["red:eth0", "blue:eth0"]}]}
    for number, name in enumerate(("red", "blue"), start=1):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "index.html").write_text(f"this is {name}")
        document["namespaces"][name] = {
            "interfaces": {"eth0": {"addresses": [f"10.0.0.{number}/24"]}},
            "services": {
                "web": {"command": [sys.executable, "-m", "http.server", 80], "directory": str(folder / name)}
            },
        }
    return document


def test_two_services_have_port_80_in_two_namespaces_at_once(tmp_path: Path) -> None:
    document = two_servers(tmp_path)
    fresh = host_without_lab_traces()
    predicted = run(document, check=True)
    assert not differences(fresh, host_without_lab_traces())
    assert run(document) == predicted
    assert run(document, check=True) == run(document) == []

    eventually(lambda: bool(fetch("red", "http://127.0.0.1/") and fetch("blue", "http://127.0.0.1/")), "both answer")
    for namespace in ("red", "blue"):
        assert fetch(namespace, "http://127.0.0.1/") == f"this is {namespace}"
        assert fetch(namespace, "http://10.0.0.1/") == "this is red"
        assert fetch(namespace, "http://10.0.0.2/") == "this is blue"
    assert fetch(None, "http://127.0.0.1/") == ""
    before = {name: pid_of(name, "web") for name in ("red", "blue")}

    # What changes beside a service leaves it alone; what changes of one leaves the other alone.
    document["namespaces"]["red"]["interfaces"]["eth0"]["mtu"] = 1400
    document["namespaces"]["blue"]["services"]["web"]["environment"] = {"LANG": "C"}
    assert [change for change in run(document) if "service" in change] == [
        f"change service blue:web {sys.executable} -m http.server 80 directory {tmp_path}/blue -> environment LANG"
    ]
    assert pid_of("red", "web") == before["red"]
    gone(before["blue"])
    eventually(lambda: fetch("red", "http://10.0.0.2/") == "this is blue", "the other one answers again")

    everything = [*pids("red"), *pids("blue")]
    remove()
    assert remove() == []
    gone(*everything)
    assert not differences(fresh, host_without_lab_traces())


def test_probes_meet_the_services(tmp_path: Path) -> None:
    from ansible_collections.nslab.netns.plugins.module_utils._probing import probe

    document = two_servers(tmp_path)
    document["probes"] = [
        {"from": "red", "to": "10.0.0.2", "protocol": "http", "port": 80, "body": "this is blue"},
        {"from": "blue", "to": "10.0.0.1", "protocol": "tcp", "port": 81, "expect": "refused"},
    ]
    read = read_topology(document)
    results: list[Any] = []

    def prove() -> list[str]:
        results.extend(probe(read.probes))
        return [result["text"] for result in results if not result["passed"]]

    engine.run(read.wanted, terms=engine.Terms(prove=prove))
    assert len(results) == 2
    remove()


# --- what it runs in -------------------------------------------------------------------------------------------------


def test_what_a_service_finds_inside(tmp_path: Path) -> None:
    own_etc(tmp_path)
    folder = Path("/run/work")
    folder.mkdir()
    folder.chmod(0o777)
    script = "id -u; id -g; pwd; uname -n; tail -n 1 /etc/resolv.conf; ls /sys/class/net"
    script += "; echo $GREETING $HOME $USER $PATH $$"
    document = lab(
        shell(f"({script}; ulimit -a | wc -l) > out.new 2>&1; mv out.new out; exec sleep 1000"),
        user="nobody",
        group="daemon",
        directory=str(folder),
        environment={"GREETING": "a 'b' $HOME \"c\"", "PATH": "/usr/bin:/bin"},
    )
    document["namespaces"]["server"].update(hostname="web.example", resolv_conf={"nameservers": ["192.0.2.53"]})
    run(document)
    pid = pid_of()
    eventually((folder / "out").exists, "what the service has found")
    lines = (folder / "out").read_text().splitlines()
    assert lines[:6] == ["65534", "1", str(folder), "web.example", "nameserver 192.0.2.53", "lo"]
    assert lines[6] == f"a 'b' $HOME \"c\" /nonexistent nobody /usr/bin:/bin {pid}"
    assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"

    def has_only_its_own() -> bool:
        try:
            links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        except FileNotFoundError:  # closed between the two looks
            return False
        return all(link == "/dev/null" or link.startswith("pipe:") for link in links)

    # Nothing of the module, and nothing of what watches it. The libraries of `sleep` are open while it starts.
    eventually(has_only_its_own, "a service without files of others")
    remove()


@pytest.mark.once
def test_a_service_has_the_ipv6_address_of_its_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the run that gives it, in which the kernel has to find out first whether somebody else has it."""
    monkeypatch.setattr(_supervised, "SETTLE_SECONDS", 0.3)
    script = "import socket, time; socket.create_server(('fd00::1', 80), family=socket.AF_INET6); time.sleep(1000)"
    document = lab([sys.executable, "-c", script])
    document["namespaces"]["server"]["interfaces"] = {
        "eth0": {"addresses": ["fd00::1/64"]},
        # Without a carrier nothing is found out of it, and nothing waited for.
        "eth1": {"addresses": ["fd01::1/64"]},
    }
    document["namespaces"]["other"] = {"interfaces": {"eth1": {"up": False}}}
    document["links"] = [{"endpoints": [f"server:eth{number}", f"other:eth{number}"]} for number in range(2)]
    monkeypatch.setattr(_apply, "_DAD_SECONDS", 1000.0)
    with deadline("a run that waits for the addresses of links that have a carrier"):
        run(document)
    assert pid_of()
    remove()


def test_the_host_runs_services_too() -> None:
    document = {"name": "lab", "namespaces": {"host": {"services": {"one": {"command": SLEEP}}}}}
    run(document)
    assert run(document) == []
    pid = int((SERVICES / "host/one/pid").read_text())
    assert os.stat(f"/proc/{pid}/ns/net").st_ino == os.stat("/proc/thread-self/ns/net").st_ino
    assert remove() == ["remove service host:one sleep 1000"]
    gone(pid)


@pytest.mark.once
def test_what_runs_in_a_namespace_is_not_on_the_host() -> None:
    """What a task of the become plugin calls the host would be one and the same for all namespaces."""
    run({"name": "lab", "namespaces": {"server": {}, "other": {}}})
    document = {"name": "in", "namespaces": {"host": {"services": {"one": {"command": SLEEP}}}}}
    with entered("server"):
        told = "namespaces.host.services.one: 'host' is the namespace server here, in which this task runs itself"
        assert told in refused(document)
        for state in ("present", "absent"):
            with pytest.raises(Refused, match="say 'server' in the place of 'host'"):
                ns_service({"one": {"command": SLEEP}}, namespace="host", state=state)
        with pytest.raises(Refused, match="say 'server' in the place of 'host'"):
            ns_service({}, namespace="host", purge=True)
    assert not SERVICES.exists()
    remove()


def test_nobody_sees_the_values_of_the_environment() -> None:
    document = lab(environment={"TOKEN": "hunter2", "PORT": 80})
    said = run(document)
    changed = run(lab(environment={"TOKEN": "hunter3", "PORT": 80}))
    assert changed == ["change service server:one sleep 1000 environment PORT, TOKEN -> new value of TOKEN"]
    facts = gather(None, (), "")
    said += [json.dumps(facts)]
    assert b"TOKEN=hunter3" in Path(f"/proc/{pid_of()}/environ").read_bytes().split(b"\0")
    # What was captured has null in their place, which leaves them as they are.
    assert run(facts["topology"]) == []
    assert facts["topology"]["namespaces"]["server"]["services"]["one"]["environment"] == {"TOKEN": None, "PORT": None}
    supervisor = state_of()["supervisor"][0]
    said.append(Path(f"/proc/{supervisor}/cmdline").read_text())
    said.append(Path(f"/proc/{supervisor}/environ").read_text())
    said += remove()
    assert "hunter" not in "".join(said)
    # Where it is missing, a check says that and all else that is.
    assert run(facts["topology"], check=True) == [
        "add namespace server",
        "add service server:one sleep 1000 environment PORT, TOKEN",
    ]
    with pytest.raises(Refused, match=r"namespaces\.server\.services\.one\.environment\.TOKEN: has no value"):
        run(facts["topology"])
    assert not SERVICES.exists()


# --- drift -----------------------------------------------------------------------------------------------------------


def test_a_service_that_dies_is_started_again() -> None:
    run(lab())
    first = pid_of()
    os.kill(first, signal.SIGKILL)
    eventually(lambda: state_of()["restarts"] == 1 and state_of()["state"] == "running", "its next process")
    assert pid_of() != first
    assert state_of()["ended"] == "signal SIGKILL"
    assert run(lab()) == []
    remove()


def test_a_service_that_stays_dead_is_drift() -> None:
    document = lab(restart=False)
    run(document)
    first, supervisor = pid_of(), state_of()["supervisor"][0]
    os.kill(first, signal.SIGKILL)
    gone(first, supervisor)
    before = snapshot()
    service = "service server:one sleep 1000 restart no"
    predicted = run(document, check=True)
    assert predicted == [f"change {service} (stopped) -> {service}"]
    assert not differences(before, snapshot())
    facts = gather(["server"], (), "")["namespaces"]["server"]["services"]
    assert [(one["state"], one["pid"], one["ended"]) for one in facts] == [("stopped", None, "signal SIGKILL")]
    assert run(document) == predicted
    assert pid_of() != first
    assert run(document) == []
    remove()


@pytest.mark.once
def test_when_a_service_is_started_again() -> None:
    ends = {
        "never": ("no", "exit 1"),
        "failed": ("on-failure", "exit 1"),
        "done": ("on-failure", "exit 0"),
        "ended": ("on-failure", "kill -TERM $$"),
        "crashed": ("on-failure", "kill -SEGV $$"),
        "always": ("always", "exit 0"),
    }
    told = Path("/run/end")
    wait = f"until test -e {told}; do sleep 0.1; done"
    services = {
        name: {"command": shell(f"{wait}; {script}"), "restart": restart} for name, (restart, script) in ends.items()
    }
    run({"name": "lab", "namespaces": {"server": {"services": services}}})
    told.touch()
    for name in ("failed", "crashed", "always"):
        eventually(lambda name=name: state_of(name=name)["restarts"] >= 2, "the third process", 10)  # type: ignore[misc]
    for name in ("never", "done", "ended"):
        gone(state_of(name=name)["supervisor"][0])
        assert (state_of(name=name)["state"], state_of(name=name)["restarts"]) == ("stopped", 0)
    remove()


def test_the_one_who_watches_is_killed() -> None:
    # One child in the session of the service, one in a session of its own, one that wants to stay.
    script = "sleep 1001 & setsid sleep 1002 & (trap '' TERM; sleep 1003; sleep 1004) & exec sleep 1000"
    document = lab(shell(script))
    run(document)
    eventually(lambda: len(pids()) == 5, "all of its processes", seen=processes)
    everything, first = pids(), pid_of()
    os.kill(state_of()["supervisor"][0], signal.SIGKILL)
    gone(first)
    assert [change.split(" ")[0] for change in run(document, check=True)] == ["change"]
    run(document)
    gone(*everything)
    assert run(document) == []
    eventually(lambda: len(pids()) == 5, "all of its processes", seen=processes)
    everything, supervisor = pids(), state_of()["supervisor"][0]
    remove()
    gone(*everything, supervisor)


def test_the_one_who_watches_is_killed_before_it_has_written_anything() -> None:
    run(lab(shell("setsid sleep 1001 & exec sleep 1000")))
    eventually(lambda: len(pids()) == 2, "both of its processes")
    everything, supervisor = pids(), state_of()["supervisor"][0]
    os.kill(supervisor, signal.SIGKILL)
    gone(supervisor)
    (SERVICES / "server/one/state").unlink()
    assert run(lab(), check=True)
    remove()
    gone(*everything)


@pytest.mark.once
@pytest.mark.parametrize("said", ['{"supervisor": [1]}', '{"state": 1}', "[]", "[1"])
def test_what_was_written_of_a_service_is_not_to_be_read(said: str) -> None:
    run(lab())
    everything = [*pids(), state_of()["supervisor"][0]]
    file = SERVICES / "server/one/state"
    written = json.loads(file.read_text())
    file.write_text(json.dumps({**written, **json.loads(said)}) if said.startswith("{") else said)
    assert [one["state"] for one in gather(["server"], (), "")["namespaces"]["server"]["services"]] == ["stopped"]
    remove()
    gone(*everything)
    assert not SERVICES.exists()


@pytest.mark.once
def test_what_others_may_write_stops_nobody_else() -> None:
    run(lab())
    run({"name": "other", "namespaces": {"server2": {"services": {"one": {"command": SLEEP}}}}})
    SERVICES.joinpath("server").chmod(0o777)
    told = "the service server:one, if there is one, is not known: cannot use /run/nslab/services/server: it belongs"
    (orphan,) = gather(None, (), "other")["orphans"]
    assert (orphan["kind"], orphan["namespace"], orphan["name"]) == ("service", "server", "one")
    assert orphan["text"].startswith(told)
    with pytest.raises(NslabError, match="cannot use /run/nslab/services/server: "):
        run(lab())
    assert run({"name": "other"}, absent=True, warned=[told])
    SERVICES.joinpath("server").chmod(0o700)
    assert run(lab()) == []
    run({"name": "lab"}, absent=True, warned=[])
    assert not SERVICES.exists()


def test_nothing_else_is_ended_that_has_a_number_of_its_processes() -> None:
    run(lab(restart="no"))
    first, supervisor = pid_of(), state_of()["supervisor"][0]
    os.kill(supervisor, signal.SIGKILL)
    gone(first, supervisor)
    with subprocess.Popen([*inside("server"), *SLEEP], start_new_session=True) as other:
        state = state_of()
        state.update(supervisor=[other.pid, state["supervisor"][1]], pid=other.pid)
        (SERVICES / "server/one/state").write_text(json.dumps(state))
        run(lab(restart="no"))
        remove()
        assert other.poll() is None
        other.kill()


def test_a_namespace_that_was_made_anew_gets_its_service() -> None:
    run(lab())
    first = pid_of()
    ip("netns", "delete", "server")
    kinds = {orphan["kind"]: orphan["text"] for orphan in gather(None, (), "")["orphans"]}
    assert kinds == {"service": "the service server:one of the lab 'lab' is left of a namespace that is gone"}
    ip("netns", "add", "server")
    assert "of an earlier namespace of that name" in gather(None, (), "")["orphans"][0]["text"]
    ip("netns", "delete", "server")
    assert not is_gone(first)
    assert run(lab()) == [
        "add namespace server",
        "change service server:one sleep 1000 (in an earlier namespace) -> service server:one sleep 1000",
    ]
    gone(first)
    assert pid_of() != first
    assert gather(None, (), "")["orphans"] == []
    assert run(lab()) == []
    # Without its namespace it is not started again.
    first, supervisor = pid_of(), state_of()["supervisor"][0]
    ip("netns", "delete", "server")
    os.kill(first, signal.SIGKILL)
    gone(supervisor)
    assert state_of()["ended"] == "its namespace server is gone"
    assert remove() == ["remove service server:one sleep 1000 (stopped)"]
    assert not SERVICES.exists()


# --- what cannot be started ------------------------------------------------------------------------------------------

_WRONG: list[tuple[dict[str, Any], str]] = [
    ({"command": ["no-such-program"]}, "there is no program 'no-such-program' in /usr/local/sbin"),
    ({"command": ["/etc/passwd"]}, "there is no program '/etc/passwd' that could be run"),
    ({"command": SLEEP, "environment": {"PATH": "/nowhere"}}, "there is no program 'sleep' in /nowhere"),
    ({"command": SLEEP, "user": "no-such-user"}, "there is no user 'no-such-user'"),
    ({"command": SLEEP, "group": "no-such-group"}, "there is no group 'no-such-group'"),
    ({"command": SLEEP, "directory": "/no/such"}, "there is no directory '/no/such'"),
    ({"command": SLEEP, "user": "nobody", "directory": "/run/closed"}, "'/run/closed': Permission denied"),
    ({"command": ["true", "x" * 200_000]}, "Argument list too long"),
    ({"command": shell("echo first; echo second >&2; exit 3")}, "exit status 3; it said: first; second"),
    ({"command": shell("exit 0")}, "it has ended at once: exit status 0"),
    ({"command": shell("kill -9 $$")}, "it has ended at once: signal SIGKILL"),
    ({"command": shell("(sleep 1000 &) ; exit 0")}, "it has ended at once: exit status 0"),
]


@pytest.mark.once
@pytest.mark.parametrize(("body", "told"), _WRONG, ids=[str(body)[:60] for body, _told in _WRONG])
def test_what_does_not_start_is_an_error(body: dict[str, Any], told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_supervised, "SETTLE_SECONDS", BY_THEN_SECONDS)
    Path("/run/closed").mkdir(mode=0o700)
    fresh = host_without_lab_traces()
    document = {"name": "lab", "namespaces": {"server": {"services": {"good": {"command": SLEEP}, "one": body}}}}
    with pytest.raises(StepFailed) as caught:
        run(document)
    assert told in str(caught.value)
    assert str(caught.value).startswith("namespaces.server.services.one: add service server:one")
    assert str(caught.value).endswith("Everything that this run had done was taken back.")
    assert not differences(fresh, host_without_lab_traces())


@pytest.mark.once
@pytest.mark.parametrize("body", [_WRONG[0][0], _WRONG[-1][0]], ids=str)
def test_what_ran_before_runs_again(body: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_supervised, "SETTLE_SECONDS", BY_THEN_SECONDS)
    good = {"name": "lab", "namespaces": {"server": {"services": {"one": {"command": SLEEP}}}}}
    run(good)
    with pytest.raises(StepFailed):
        run({"name": "lab", "namespaces": {"server": {"services": {"one": body}}}})
    assert Path(f"/proc/{pid_of()}/cmdline").read_bytes() == b"sleep\x001000\x00"
    assert run(good) == []
    remove()


def test_all_of_it_ends_with_the_service() -> None:
    script = "trap '' TERM; sleep 1001 & setsid sh -c \"trap '' TERM; sleep 1002; sleep 1003\" & sleep 1004; sleep 1005"
    run(lab(shell(script)))
    eventually(lambda: len(pids()) == 5, "all of its processes", seen=processes)
    everything = pids()
    remove()
    gone(*everything)


@pytest.mark.once
def test_all_are_asked_to_end_before_one_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_supervised, "STOP_SECONDS", 60.0)
    first, second = Rendezvous(Path("/run/first")), Rendezvous(Path("/run/second"))
    first.run()
    everything = pids()
    second.run()
    assert first.ended() == list(first.names)
    remove()
    assert second.ended() == list(second.names)
    gone(*everything)


def test_the_log_is_bounded() -> None:
    line = "x" * 99
    run(lab(shell(f"i=0; while [ $i -lt 40000 ]; do echo {line}; i=$((i+1)); done; echo the end; exec sleep 1000")))
    folder = SERVICES / "server/one"
    eventually(lambda: b"the end" in (folder / "log").read_bytes() if (folder / "log").exists() else False, "its end")
    sizes = {name: (folder / name).stat().st_size for name in ("log", "log.1")}
    assert sizes["log"] <= 1 << 20
    assert 1 << 20 <= sizes["log.1"] <= (1 << 20) + 65536
    assert stat.S_IMODE((folder / "log").stat().st_mode) == 0o600
    assert [stat.S_IMODE(path.stat().st_mode) for path in (SERVICES, SERVICES / "server", folder)] == [0o700] * 3
    assert gather(["server"], (), "")["namespaces"]["server"]["services"][0]["log"] == str(folder / "log")
    remove()


def test_what_is_said_of_a_service_may_be_long() -> None:
    """Longer than what a pipe takes at once (64 KiB), or a line of what is run."""
    long = {f"LONG_{number}": str(number) * 100_000 for number in range(4)}
    run(lab(["sleep", "1000", *("0" * 30_000 for _number in range(4))], environment=long))
    found = Path(f"/proc/{pid_of()}/environ").read_bytes().split(b"\0")
    assert {f"{name}={value}".encode() for name, value in long.items()} <= set(found)
    remove()


# --- whose it is -----------------------------------------------------------------------------------------------------


def ns_service(services: Any, **more: Any) -> list[str]:
    options = {"namespace": "server", "services": services, "state": "present", "purge": False, **more}
    return module(_options.ns_service, **options)


def test_the_module_says_the_same_as_a_document() -> None:
    run(lab(user="nobody"))
    assert ns_service({"one": {"command": "sleep 1000", "user": "nobody"}}, lab="lab") == []
    assert ns_service({"one": {"command": "sleep 1000", "user": "nobody"}}) == []
    ns_service({"two": {"command": "sleep 1001"}}, lab="lab")
    ns_service({"three": {"command": "sleep 1002"}})
    assert ns_service({"two": {"command": "sleep 1001"}}, lab="lab", purge=True) == [
        "remove service server:one sleep 1000 user nobody"
    ]
    assert ns_service({"four": {"command": "sleep 1003"}}, purge=True) == [
        "remove service server:three sleep 1002",
        "add service server:four sleep 1003",
    ]
    assert ns_service({"two": None, "four": None}, state="absent") == [
        "remove service server:four sleep 1003",
        "remove service server:two sleep 1001",
    ]
    assert ns_service({"two": None}, state="absent") == []
    assert not SERVICES.exists()
    remove()


def test_what_is_another_labs_is_refused() -> None:
    run(lab())
    other = {"name": "other", "namespaces": {"server2": {}}}
    run(other)
    with pytest.raises(Refused, match="the service server:one exists already and belongs to lab 'lab'"):
        ns_service({"one": {"command": "sleep 1"}}, lab="other")
    assert ns_service({"one": None}, state="absent", lab="other") == []
    assert pid_of()
    remove("other")
    assert pid_of()
    # Without a lab it is changed, and stays the lab's.
    ns_service({"one": {"command": "sleep 1001"}})
    assert run(lab()) == ["change service server:one sleep 1001 -> 1000"]
    remove()
    assert not SERVICES.exists()


@pytest.mark.once
@pytest.mark.parametrize("how", ["document", "module", "gc", "gone", "gone, module", "pruned"])
def test_services_end_with_what_they_belong_to(how: str) -> None:
    run(lab())
    first, supervisor = pid_of(), state_of()["supervisor"][0]
    if how.startswith("gone"):
        ip("netns", "delete", "server")
    if how == "gc":
        run({"name": "other", "namespaces": {"server2": {"services": {"one": {"command": SLEEP}}}}})
        told = words(engine.run(Wanted(whole=True, valid_labs=frozenset({"other"}))))
        assert pid_of("server2")
        remove("other")
    elif how.endswith("module"):
        told = netns("server", state="absent")
    elif how == "pruned":
        told = run({"name": "lab", "namespaces": {"server": {}}})
    else:
        told = remove()
    assert told[0] == "remove service server:one sleep 1000"
    gone(first, supervisor)
    assert not SERVICES.exists()
    remove()


# --- failing and being killed on the way -----------------------------------------------------------------------------


def ways(way: str) -> tuple[Document | None, Document]:
    """From which document to which."""
    many = lab()
    many["namespaces"]["server"]["services"]["two"] = {"command": "sleep 1001", "environment": {"A": "1"}}
    changed = lab("sleep 1002")
    changed["namespaces"]["server"]["services"]["two"] = {"command": "sleep 1001", "environment": {"A": "2"}}
    none: Document = {"name": "lab", "namespaces": {"server": {}}}
    empty: Document = {"name": "lab", "namespaces": {}}
    return {
        "create": (None, many),
        "change": (many, changed),
        "remove": (many, none),
        "remove all": (many, empty),
    }[way]


@pytest.mark.once
@pytest.mark.parametrize("way", ["create", "change", "remove"])
def test_every_failing_call_leaves_all_as_it_was(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    before, after = ways(way)
    if before:
        run(before)
    with monkeypatch.context() as patch:
        assert fail_each_call(patch, after) >= 5
    if before:
        run(before)
        assert pid_of()
        assert pid_of(name="two")
    remove()
    assert not SERVICES.exists()


@pytest.mark.once
@pytest.mark.parametrize("way", ["create", "change", "remove all"])
def test_kill_at_any_step_then_one_run_converges(way: str) -> None:
    before, after = ways(way)
    fresh = host_without_lab_traces()
    for count in range(1, 40):
        if before:
            run(before)
        was_killed = kill_at(count, after)
        run(after)
        assert run(after) == [], count
        expected = after["namespaces"].get("server", {}).get("services", {})
        found = {path.parent.name for path in SERVICES.glob("server/*/pid")}
        assert found == set(expected)
        for name, body in expected.items():
            command = body["command"].split() if isinstance(body["command"], str) else list(body["command"])
            assert Path(f"/proc/{pid_of(name=name)}/cmdline").read_text().split("\0")[:-1] == command
        if expected:
            assert len(pids()) == len(expected), f"call {count}"
        remove()
        assert not differences(fresh, host_without_lab_traces()), f"call {count}"
        if not was_killed:
            break
    assert not was_killed


# --- planted ---------------------------------------------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize("what", ["services", "services/server", "services/server/one"])
@pytest.mark.parametrize("how", ["symlink", "of another user", "for all to write"])
def test_nobody_directs_where_notes_are_written(tmp_path: Path, what: str, how: str) -> None:
    run(lab())
    remove()
    path = Path("/run/nslab") / what
    path.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
    for folder in (SERVICES, SERVICES / "server"):
        if folder.exists():
            folder.chmod(0o700)
    if how == "symlink":
        path.symlink_to(tmp_path)
    else:
        path.mkdir()
        path.chmod(0o777 if how == "for all to write" else 0o700)
        if how == "of another user":
            os.chown(path, 65534, 65534)
    with pytest.raises(NslabError, match=f"cannot use /run/nslab/{what}: "):
        run(lab())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.once
@pytest.mark.parametrize("name", ["note", "state", "pid", "lock", "log", "log.1", ".note.new", ".state.new"])
@pytest.mark.parametrize("how", ["symlink", "hard link"])
def test_nothing_planted_is_written_to(tmp_path: Path, name: str, how: str) -> None:
    # On the file system of /run, as a hard link has to be.
    victim = Path("/run/victim")
    victim.write_text("precious")
    folder = SERVICES / "server/one"
    folder.mkdir(parents=True, mode=0o700)
    for parent in (Path("/run/nslab"), SERVICES, SERVICES / "server", folder):
        parent.chmod(0o700)
    if how == "symlink":
        (folder / name).symlink_to(victim)
    else:
        os.link(victim, folder / name)
    with contextlib.suppress(NslabError):
        run(lab(shell("while :; do echo hello; sleep 0.1; done")))
        eventually(lambda: bool(pids()), "the service")
    assert victim.read_text() == "precious"
    (folder / name).unlink(missing_ok=True)
    remove()


@pytest.mark.once
def test_what_is_taken_back_is_remembered_as_before_although_something_remains(monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = host_without_lab_traces()
    program = Path("/run/program")
    program.write_text("#!/bin/sh\nexec sleep 1000\n")
    program.chmod(0o755)

    def on(forward: int, **services: str) -> Document:
        server = {"services": {name: {"command": said} for name, said in services.items()}}
        host = {"sysctls": {"net.ipv4.ip_forward": forward}}
        return {"name": "lab", "namespaces": {"server": server, "host": host}}

    run(on(1, one=str(program)))
    program.unlink()
    monkeypatch.setattr(_supervised, "SETTLE_SECONDS", BY_THEN_SECONDS)
    with pytest.raises(StepFailed, match="Not everything could be taken back"):
        run(on(0, one="sleep 1000", two="false"))
    assert sysctls(None, r"^net\.ipv4\.ip_forward$") == {"net.ipv4.ip_forward": "1"}
    remove()
    assert not differences(fresh, host_without_lab_traces())
