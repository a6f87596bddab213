# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Services in namespaces of a host whose process 1 is a real systemd."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.nslab.netns.plugins.module_utils import _systemd
from ansible_collections.nslab.netns.plugins.module_utils._errors import StepFailed
from ansible_collections.nslab.netns.plugins.module_utils._facts import gather
from ansible_collections.nslab.netns.tests.unit.topologies import Document
from applying import BY_THEN_SECONDS, Rendezvous, kill_at, refused, run
from booted import Booted, Failed, booted_host
from throwaway import eventually, ip

pytestmark = pytest.mark.once

SLEEP = ("sleep", "1000")
UNIT = "nslab-lab:server:one.service"
UNITS = "/run/systemd/system"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Booted]:
    """A booted host, on which what runs counts as running sooner."""
    monkeypatch.setattr(_systemd, "SETTLE_SECONDS", 0.02)
    with booted_host() as host:
        yield host


def lab(command: Any = SLEEP, **more: Any) -> Document:
    """A namespace with one service."""
    return {"name": "lab", "namespaces": {"server": {"services": {"one": {"command": command, **more}}}}}


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


def remove() -> list[str]:
    return run({"name": "lab"}, absent=True)


def show(name: str, unit: str = UNIT) -> str:
    """A property of a unit."""
    command = ["systemctl", "show", "--value", f"--property={name}", "--", unit]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def systemctl(*words: str) -> None:
    subprocess.run(["systemctl", *words], check=True)


def pids(namespace: str = "server") -> list[int]:
    return [int(pid) for pid in ip("netns", "pids", namespace).split()]


def pid_of(unit: str = UNIT) -> int:
    """The process of a service that runs; it has to be inside."""
    assert show("ActiveState", unit) == "active"
    pid = int(show("MainPID", unit))
    assert pid in pids()
    return pid


def command_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").rstrip()


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def nothing_is_left() -> None:
    command = ["systemctl", "list-units", "--all", "--plain", "--no-legend", "nslab-*"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == ""
    assert [name for name in os.listdir(UNITS) if "nslab" in name] == []
    assert not Path("/run/nslab/services").exists()


def test_what_a_service_finds_inside(machine: Booted) -> None:
    def test() -> None:
        script = "id -u; id -g; pwd; uname -n; tail -n 1 /etc/resolv.conf; ls /sys/class/net; cat /etc/more 2>&1"
        script += "; echo $GREETING $HOME $USER $PATH"
        folder = Path("/run/out\n 50%n \\")
        folder.mkdir()
        folder.chmod(0o777)
        document = lab(
            shell(f"({script}) > out.new 2>&1; mv out.new out; echo '50% \"$$\" \\\n'; exec sleep 1000"),
            user="daemon",
            group="nogroup",
            directory=str(folder),
            environment={"GREETING": "a 'b' $HOME \"c\" %n \\", "PATH": "/usr/bin:/bin"},
        )
        document["namespaces"]["server"].update(hostname="web.example", resolv_conf={"nameservers": ["192.0.2.53"]})
        Path("/etc/more").write_text("of the host\n")
        Path("/etc/netns/server").mkdir(parents=True)
        Path("/etc/netns/server/more").write_text("of the namespace\n")
        predicted = run(document, check=True)
        assert run(document) == predicted
        assert run(document, check=True) == run(document) == []
        eventually((folder / "out").exists, "what the service has found")
        lines = (folder / "out").read_text().splitlines()
        assert lines[:4] == ["1", "65534", *str(folder).splitlines()]
        assert lines[4:8] == ["web.example", "nameserver 192.0.2.53", "lo", "of the namespace"]
        assert lines[8] == "a 'b' $HOME \"c\" %n \\ /usr/sbin daemon /usr/bin:/bin"
        # The command is what it was said to be, and not the one that enters.
        pid = pid_of()
        eventually(lambda: command_of(pid) == "sleep 1000", "what it was started with is gone")
        journal = ["journalctl", "--output=cat", f"--unit={UNIT}"]
        assert '50% "$$" \\\n' in subprocess.run(journal, capture_output=True, text=True, check=True).stdout
        (found,) = gather(["server"], (), "")["namespaces"]["server"]["services"]
        assert (found["state"], found["pid"], found["unit"], found["log"]) == ("running", pid, UNIT, None)
        assert remove()[0].startswith("remove service server:one sh -c ")
        assert is_gone(pid)
        nothing_is_left()

    machine.call(test)


def test_a_namespace_without_files_and_the_host(machine: Booted) -> None:
    def test() -> None:
        document = lab()
        document["namespaces"]["host"] = {"services": {"two": {"command": SLEEP, "user": "daemon"}}}
        run(document)
        assert not Path("/etc/netns/server").exists()
        assert os.stat(f"/proc/{pid_of()}").st_uid == 0
        of_host = int(show("MainPID", "nslab-lab:host:two.service"))
        assert os.stat(f"/proc/{of_host}").st_uid == 1
        assert os.stat(f"/proc/{of_host}/ns/net").st_ino == os.stat("/proc/thread-self/ns/net").st_ino
        # Files that come later do not start it anew.
        before = pid_of()
        document["namespaces"]["server"]["resolv_conf"] = {"nameservers": ["192.0.2.53"]}
        run(document)
        assert pid_of() == before
        remove()
        nothing_is_left()

    machine.call(test)


def test_what_is_said_of_a_service_may_be_long(machine: Booted) -> None:
    def test() -> None:
        long = {f"LONG_{number}": str(number) * 100_000 for number in range(4)}
        run(lab(["sleep", "1000", *("0" * 30_000 for _number in range(4))], environment=long))
        found = Path(f"/proc/{pid_of()}/environ").read_bytes().split(b"\0")
        assert {f"{name}={value}".encode() for name, value in long.items()} <= set(found)
        remove()

    machine.call(test)


def test_a_systemd_that_does_not_enter_the_namespace_starts_nothing(machine: Booted) -> None:
    """As one before 242, which only warns of NetworkNamespacePath= and starts the command on the host."""

    def test() -> None:
        run(lab())
        path = Path(UNITS) / UNIT
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(line for line in lines if not line.startswith("NetworkNamespacePath=")))
        systemctl("daemon-reload")
        # It ends at once, at times before systemd has told that it runs.
        subprocess.run(["systemctl", "restart", UNIT], check=False)
        eventually(lambda: show("ExecMainStatus") == "225", "its end")
        assert run(lab()) != []
        assert pid_of()
        remove()
        nothing_is_left()

    machine.call(test)


def test_only_what_has_changed_is_started_anew(machine: Booted) -> None:
    def test() -> None:
        document = lab()
        services = document["namespaces"]["server"]["services"]
        services["two"] = {"command": "sleep 1001", "environment": {"TOKEN": "hunter2"}}
        other = "nslab-lab:server:two.service"
        said = run(document)
        first, second = pid_of(), pid_of(other)
        services["two"]["environment"] = {"TOKEN": "hunter3"}
        changed = run(document)
        assert changed == ["change service server:two sleep 1001 environment TOKEN -> new value of TOKEN"]
        assert pid_of() == first
        assert is_gone(second)
        second = pid_of(other)
        assert b"TOKEN=hunter3" in Path(f"/proc/{second}/environ").read_bytes().split(b"\0")
        # Anybody may ask systemd for what it knows.
        said += [*changed, json.dumps(gather(None, (), ""))]
        said.append(subprocess.run(["systemctl", "show", other], capture_output=True, text=True, check=True).stdout)
        assert "hunter" not in "".join(said)
        captured = gather(None, (), "")["topology"]
        assert run(captured) == []
        services["two"]["restart"] = "always"
        run(document)
        assert (pid_of(), is_gone(second)) == (first, True)
        remove()
        nothing_is_left()

    machine.call(test)


def test_a_service_that_dies_is_started_again(machine: Booted) -> None:
    def test() -> None:
        run(lab())
        first = pid_of()
        os.kill(first, signal.SIGKILL)
        eventually(lambda: show("NRestarts") == "1" and show("SubState") == "running", "its next process")
        (found,) = gather(["server"], (), "")["namespaces"]["server"]["services"]
        assert (found["state"], found["restarts"], found["ended"]) == ("running", 1, None)
        assert pid_of() != first
        assert run(lab()) == []
        # As long as it waits to be started again it does not run.
        os.kill(pid_of(), signal.SIGKILL)
        eventually(lambda: show("SubState") == "auto-restart", "its end")
        assert run(lab(), check=True) == [
            "change service server:one sleep 1000 (restarting) -> service server:one sleep 1000"
        ]
        run(lab())
        assert (show("NRestarts"), bool(pid_of())) == ("0", True)
        remove()

    machine.call(test)


def _edit() -> None:
    with open(f"{UNITS}/{UNIT}", "a") as file:
        file.write("Nice=5\n")
    systemctl("daemon-reload")


def _take_away() -> None:
    os.unlink(f"{UNITS}/{UNIT}")
    systemctl("daemon-reload")


_DRIFT: list[tuple[Callable[[], None], str]] = [
    (lambda: systemctl("stop", UNIT), " (stopped)"),
    (_edit, " (altered)"),
    (_take_away, " (altered)"),
]


@pytest.mark.parametrize(("by_hand", "note"), _DRIFT, ids=["stopped", "edited", "removed"])
def test_what_was_done_by_hand_is_set_right(machine: Booted, by_hand: Callable[[], None], note: str) -> None:
    def test() -> None:
        run(lab())
        before = Path(f"{UNITS}/{UNIT}").read_text()
        by_hand()
        predicted = run(lab(), check=True)
        assert predicted == [f"change service server:one sleep 1000{note} -> service server:one sleep 1000"]
        assert run(lab()) == predicted
        assert pid_of()
        assert Path(f"{UNITS}/{UNIT}").read_text() == before
        assert run(lab()) == []
        by_hand()
        assert remove()[0] == f"remove service server:one sleep 1000{note}"
        nothing_is_left()

    machine.call(test)


def test_a_namespace_that_was_made_anew_gets_its_service(machine: Booted) -> None:
    def test() -> None:
        run(lab())
        first = pid_of()
        ip("netns", "delete", "server")
        (orphan,) = gather(None, (), "")["orphans"]
        assert orphan["text"] == "the service server:one of the lab 'lab' is left of a namespace that is gone"
        assert run(lab()) == [
            "add namespace server",
            "change service server:one sleep 1000 (in an earlier namespace) -> service server:one sleep 1000",
        ]
        assert is_gone(first)
        assert pid_of()
        assert run(lab()) == []
        remove()
        nothing_is_left()

    machine.call(test)


def test_a_service_is_not_started_in_a_later_namespace_of_that_name(machine: Booted) -> None:
    def end() -> None:
        systemctl("kill", "--signal=KILL", UNIT)
        eventually(lambda: show("ActiveState") in ("inactive", "failed"), "the end of it")

    def test() -> None:
        run(lab())
        ip("netns", "delete", "server")
        other: Document = {"name": "other", "namespaces": {"server": {}}}
        run(other)
        (orphan,) = gather(None, (), "")["orphans"]
        assert "of an earlier namespace of that name" in orphan["text"]
        end()
        assert show("ExecMainStatus") == "225"
        assert pids() == []
        (orphan,) = gather(None, (), "")["orphans"]
        assert "of an earlier namespace of that name" in orphan["text"]
        assert run(other, check=True) == []
        run({"name": "other"}, absent=True)
        assert remove() == ["remove service server:one sleep 1000 (stopped)"]
        # Where there is none it is not tried time and again.
        run(lab())
        ip("netns", "delete", "server")
        end()
        remove()
        nothing_is_left()

    machine.call(test)


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_a_unit_that_cannot_be_read_is_set_right(machine: Booted, state: str) -> None:
    def spoil() -> None:
        if state == "stopped":
            systemctl("stop", UNIT)
        (Path(UNITS) / UNIT).write_text("[Service]\nType=exec\n")
        systemctl("daemon-reload")
        assert show("LoadState") == "bad-setting"

    def test() -> None:
        run(lab())
        spoil()
        assert len(run(lab(), check=True)) == 1
        run(lab())
        assert pid_of()
        spoil()
        remove()
        nothing_is_left()
        # A line that is longer than systemd reads.
        too_long = lab([*shell("sleep 1000"), *["x" * 100_000] * 11])
        with pytest.raises(StepFailed, match=r"Everything that this run had done was taken back\.$"):
            run(too_long)
        nothing_is_left()

    machine.call(test)


def test_what_alters_a_unit_is_seen(machine: Booted, monkeypatch: pytest.MonkeyPatch) -> None:
    def alter(folder: str) -> Path:
        path = Path(f"{folder}/{UNIT}.d/override.conf")
        path.parent.mkdir(parents=True)
        path.write_text("[Service]\nExecStart=\nExecStart=/bin/sleep 4242\n")
        systemctl("daemon-reload")
        systemctl("restart", UNIT)
        return path

    def command() -> str:
        return command_of(int(show("MainPID")))

    def test() -> None:
        service = "service server:one sleep 1000"
        run(lab())
        alter(UNITS)
        assert command() == "/bin/sleep 4242"
        drift = [f"change {service} (altered) -> {service}"]
        assert run(lab(), check=True) == drift
        # What fails leaves it as it was.
        failing = lab()
        failing["namespaces"]["server"]["services"]["two"] = {"command": "false"}
        with monkeypatch.context() as patch:
            patch.setattr(_systemd, "SETTLE_SECONDS", BY_THEN_SECONDS)
            with pytest.raises(StepFailed, match="was taken back"):
                run(failing)
        assert command() == "/bin/sleep 4242"
        assert run(lab(), warned=[]) == drift
        eventually(lambda: command() == "sleep 1000", "the service of the document")
        assert pid_of()
        # As `systemctl set-property` does.
        for folder in ("/run/systemd/system.control", UNITS):
            file = alter(folder)
            assert run(lab(), check=True) == drift
        remove()
        nothing_is_left()
        assert not file.parent.exists()
        assert os.listdir("/run/systemd/system.control") == []
        run(lab())
        lasting = alter("/etc/systemd/system")
        told = f"the unit of the service server:one is altered by {lasting}; it stays so"
        assert run(lab(), warned=[told]) == []
        run({"name": "lab"}, absent=True, warned=[told])
        assert f"{lasting} would alter the unit of the service server:one, which is not there yet" in refused(lab())
        lasting.unlink()
        run(lab(), warned=[])
        eventually(lambda: command() == "sleep 1000", "the service of the document")
        remove()
        nothing_is_left()

    machine.call(test)


_NUMBERS: list[tuple[dict[str, Any], list[str]]] = [
    ({"user": 54321}, ["54321", "54321", "54321", "/ 54321 54321"]),
    ({"user": 54321, "group": "daemon"}, ["54321", "1", "1", "/ 54321 54321"]),
    ({"user": "daemon", "group": 54321}, ["1", "54321", "54321 1", "/usr/sbin daemon daemon"]),
    ({"group": 54321}, ["0", "54321", "54321 0", "/root root root"]),
]


def test_a_number_needs_no_account(machine: Booted) -> None:
    def test() -> None:
        for body, found in _NUMBERS:
            for namespace in ("server", "host"):
                out = Path(f"/run/{namespace}")
                out.mkdir(mode=0o777)
                out.chmod(0o777)
                script = "(id -u; id -g; id -G; echo $HOME $USER $LOGNAME) >new; mv new out; exec sleep 1000"
                service = {"command": shell(script), "directory": str(out), **body}
                document = {"name": "lab", "namespaces": {namespace: {"services": {"one": service}}}}
                run(document)
                assert run(document) == []
                eventually((out / "out").exists, "what the service has found")
                assert (out / "out").read_text().splitlines() == found, (body, namespace)
                remove()
                shutil.rmtree(out)

    machine.call(test)


_WRONG: list[tuple[dict[str, Any], str]] = [
    ({"command": ["no-such-program"]}, "there is no program 'no-such-program' in /usr/local/sbin"),
    ({"command": shell("echo first; echo second >&2; exit 3")}, "exit status 3; it said: first; second"),
    ({"command": shell("exit 0")}, "it has ended at once: exit status 0"),
    ({"command": shell("kill -9 $$")}, "it has ended at once: signal SIGKILL"),
    ({"command": shell("exit 3"), "restart": "always"}, "it has ended at once: exit status 3"),
    ({"command": SLEEP, "user": "nobody", "directory": "/run/closed"}, "/run/closed"),
    ({"command": ["/run/closed/program"], "user": "nobody"}, "/run/closed/program"),
    ({"command": ["/run/broken"]}, "/run/broken"),
]


def test_what_does_not_start_is_an_error(machine: Booted, monkeypatch: pytest.MonkeyPatch) -> None:
    """On one machine, one after another: none of them leaves anything, and none says what an earlier one has said."""
    monkeypatch.setattr(_systemd, "SETTLE_SECONDS", BY_THEN_SECONDS)

    def attempt(document: Document) -> str:
        try:
            machine.call(lambda: run(document))
        except Failed as error:
            return str(error)
        raise AssertionError(f"this was started: {document}")

    def prepare() -> None:
        Path("/run/closed").mkdir(mode=0o700)
        for program, text in (("/run/closed/program", "#!/bin/sh\nexec sleep 1000\n"), ("/run/broken", "#!/no/such\n")):
            Path(program).write_text(text)
            Path(program).chmod(0o755)

    machine.call(prepare)
    for body, told in _WRONG:
        said = attempt(lab(**body))
        assert said.startswith("StepFailed: namespaces.server.services.one: add service server:one")
        assert said.endswith("Everything that this run had done was taken back.")
        assert told in said
        assert said.count("it said") <= 1
        assert ("first" in said) == (told.endswith("second"))
        machine.call(nothing_is_left)
    # What ran before runs again, and what was started besides does not.
    machine.call(lambda: run(lab()))
    document = lab(**_WRONG[1][0])
    document["namespaces"]["server"]["services"]["also"] = {"command": SLEEP}
    assert "change service server:one" in attempt(document)
    assert machine.call(lambda: [pid_of()] == pids())
    assert machine.call(lambda: run(lab())) == []
    machine.call(remove)


@pytest.mark.parametrize("account", [{}, {"user": "daemon"}])
def test_a_command_counts_from_when_it_runs(machine: Booted, account: dict[str, str]) -> None:
    """To enter a namespace with many files takes longer than what has not ended by then has to run."""

    def test() -> None:
        Path("/etc/netns/server").mkdir(parents=True)
        for number in range(300):
            for folder in ("/etc", "/etc/netns/server"):
                Path(f"{folder}/many{number}").touch()
        with pytest.raises(StepFailed, match="it has ended at once: exit status 1"):
            run(lab("false", restart="no", **account))
        nothing_is_left()

    machine.call(test)


def test_somebody_elses_unit_is_refused(machine: Booted) -> None:
    def test() -> None:
        path = Path("/etc/systemd/system") / UNIT
        path.write_text("[Service]\nType=exec\nExecStart=/bin/sleep 1000\n")
        systemctl("daemon-reload")
        systemctl("start", UNIT)
        pid = show("MainPID")
        assert "that this collection has not made" in refused(lab())
        assert remove() == []
        assert show("MainPID") == pid

    machine.call(test)


def test_nothing_planted_is_written_to(machine: Booted) -> None:
    def test() -> None:
        victim = Path("/run/victim")
        victim.write_text("precious")
        (Path(UNITS) / f".{UNIT}.new").symlink_to(victim)
        run(lab())
        remove()
        assert victim.read_text() == "precious"
        nothing_is_left()

    machine.call(test)


def test_all_of_it_ends_with_the_lab(machine: Booted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_systemd, "STOP_SECONDS", 1.0)

    def test() -> None:
        stubborn = (
            "trap '' TERM; sleep 1001 & setsid sh -c \"trap '' TERM; sleep 1002; sleep 1003\" & sleep 1004; sleep 1"
        )
        run(lab(shell(stubborn)))
        eventually(lambda: len(pids()) == 5, "all of its processes")
        everything = pids()
        remove()
        eventually(lambda: all(map(is_gone, everything)), "their end", 10)
        nothing_is_left()

    machine.call(test)


def test_all_are_asked_to_end_before_one_is_waited_for(machine: Booted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_systemd, "STOP_SECONDS", 60.0)

    def test() -> None:
        three = Rendezvous(Path("/run/three"))
        three.run()
        remove()
        assert three.ended() == list(three.names)
        nothing_is_left()

    machine.call(test)


@pytest.mark.parametrize("way", ["change", "remove"])
def test_kill_at_any_step_then_one_run_converges(machine: Booted, way: str) -> None:
    after = lab("sleep 1001") if way != "remove" else {"name": "lab", "namespaces": {}}

    def test() -> None:
        for count in range(1, 40):
            run(lab())
            was_killed = kill_at(count, after)
            run(after)
            assert run(after) == [], count
            if way != "remove":
                eventually(lambda: command_of(pid_of()) == "sleep 1001", "the new service and no other")
                assert len(pids()) == 1
            remove()
            nothing_is_left()
            if not was_killed:
                return
        raise AssertionError("it was killed each time")

    machine.call(test)
