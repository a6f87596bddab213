# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Labs that come back: what is written for that, and what the program does in a boot, without Ansible."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.nslab.netns.plugins.module_utils import _persist, _persisted, _systemd
from ansible_collections.nslab.netns.plugins.module_utils._errors import InvalidInput, NslabError, Refused, StepFailed
from ansible_collections.nslab.netns.tests.unit.topologies import Document
from applying import run as apply
from booted import booted_host
from throwaway import (
    eventually,
    ip,
    ip_json,
    kernel_has,
    named_namespaces,
    own_etc,
    own_local_lib,
    ping,
    throwaway_host,
)

pytestmark = pytest.mark.once

DOCUMENT = Path("/etc/nslab/labs/pair.json")
UNIT = Path("/etc/systemd/system/nslab-lab@pair.service")
SERVICES_UNIT = Path("/etc/systemd/system/nslab-services@pair.service")
START = Path("/etc/systemd/system/multi-user.target.wants/nslab-lab@pair.service")
RULES_UNIT = Path("/etc/systemd/system/nslab-rules@pair.service")
RULES_START = Path("/etc/systemd/system/nftables.service.wants/nslab-rules@pair.service")
ENGINES = Path("/usr/local/lib/nslab/engine")
OPTIONS = {"host": None, "adopt": False, "strict": False, "boot": "early", "device_timeout": 0.0}


@pytest.fixture
def host(tmp_path: Path) -> Iterator[None]:
    """A throw-away host with an /etc and a /usr/local/lib of its own."""
    with throwaway_host():
        own_etc(tmp_path)
        own_local_lib()
        yield


def pair(**left: Any) -> Document:
    return {
        "name": "pair",
        "namespaces": {
            "left": {"interfaces": {"eth0": {"addresses": ["192.0.2.1/24"]}}, **left},
            "right": {"interfaces": {"eth0": {"addresses": ["192.0.2.2/24"]}}},
        },
        "links": [{"endpoints": ["left:eth0", "right:eth0"]}],
    }


def translating(*ports: int) -> Document:
    """The host translates to the left one, for each of these ports."""
    document = pair(routes=[{"to": "198.51.100.0/24", "via": "203.0.113.1"}])
    document["namespaces"]["left"]["interfaces"]["eth1"] = {"addresses": ["203.0.113.2/24"]}
    document["namespaces"]["host"] = {
        "interfaces": {"left0": {"addresses": ["203.0.113.1/24"]}},
        "dnat": [{"protocol": "tcp", "port": port, "to_destination": "203.0.113.2"} for port in ports],
    }
    document["links"].append({"endpoints": ["host:left0", "left:eth1"]})
    return document


def secret(value: str | None) -> Document:
    return pair(services={"one": {"command": ["sleep", "1000"], "environment": {"TOKEN": value}}})


def persist(document: Document, check: bool = False, **more: Any) -> list[str]:
    record = _persist.record_of({**OPTIONS, **more}, document)
    return list(map(str, _persist.run("pair", record, check, 1.0)))


def forget(check: bool = False) -> list[str]:
    return list(map(str, _persist.run("pair", None, check, 1.0)))


def files() -> dict[str, Any]:
    """All that is there of it, but for what Python compiles."""
    found: dict[str, Any] = {}
    for top in ("/etc/nslab", "/etc/systemd/system", "/usr/local/lib"):
        for path in sorted(Path(top).rglob("*")):
            if "__pycache__" not in str(path):
                content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
                found[str(path)] = (content, path.lstat().st_mode, path.lstat().st_uid)
    return found


def boot(*options: str, lab: str = "pair") -> subprocess.CompletedProcess[str]:
    """What the unit of the lab runs, with an environment as poor as systemd's."""
    (engine,) = ENGINES.iterdir()
    return subprocess.run(
        [sys.executable, "-I", str(engine), lab, *options],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_lab_comes_back_without_ansible(host: None) -> None:
    before = files()
    predicted = persist(pair(), check=True)
    assert files() == before
    assert persist(pair()) == predicted
    assert [line.split(" ")[:2] for line in predicted] == [
        ["add", "engine"],
        ["add", "document"],
        ["add", "unit"],
        ["add", "start"],
    ]
    assert persist(pair()) == persist(pair(), check=True) == []
    assert not ip("netns", "list")
    assert (DOCUMENT.stat().st_mode & 0o777, DOCUMENT.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert START.resolve() == UNIT
    assert "import ansible" not in "".join(path.read_text() for path in ENGINES.rglob("*.py"))
    done = boot()
    assert (done.returncode, done.stderr) == (0, "")
    assert "lab pair: add namespace left\n" in done.stdout
    assert done.stdout.endswith("changes were made\n")
    assert ping("left", "192.0.2.2")[0]
    assert apply(pair(), check=True) == []
    assert boot().stdout == "lab pair: nothing had to be changed\n"
    # The lab stays as it is until the next boot.
    predicted = forget(check=True)
    assert forget() == predicted
    assert forget() == []
    after = files()
    after.pop("/etc/systemd/system/multi-user.target.wants", None)
    before.pop("/etc/systemd/system/multi-user.target.wants", None)
    assert after == before
    assert ping("left", "192.0.2.2")[0]


@pytest.mark.skipif(not kernel_has("vxlan"), reason="this kernel has no vxlan")
def test_the_part_of_a_lab_across_hosts_comes_back(host: None) -> None:
    document = {
        "name": "pair",
        "hosts": {"vm1": {"address": "198.51.100.1"}, "vm2": {"address": "198.51.100.2"}},
        "namespaces": {
            "vm1/left": {"interfaces": {"eth0": {"addresses": ["192.0.2.1/24"]}}},
            "vm2/right": {"services": {"one": {"command": ["sleep", "1000"]}}},
        },
        "links": [{"endpoints": ["vm1/left:eth0", "vm2/right:eth0"]}],
    }
    with pytest.raises(InvalidInput, match="host: is missing"):
        persist(document, host=None)
    # The address of this host may come later in the boot.
    persist(document, host="vm1", strict=True)
    assert not SERVICES_UNIT.exists()
    assert boot().returncode == 0
    assert named_namespaces() == ["left"]
    assert ip_json("left", "-details", "link", "show", "dev", "eth0")[0]["linkinfo"]["info_kind"] == "vxlan"
    assert apply(document, host="vm1") == []
    assert persist(document, host="vm1", strict=True) == []
    forget()


def test_a_document_that_is_changed_and_one_that_is_changed_by_hand(host: None) -> None:
    persist(secret("first"))
    changed = secret("second")
    changed["namespaces"]["left"]["interfaces"]["eth0"]["mtu"] = 1400
    found = persist(changed)
    assert found == [
        "change document pair namespaces.left.interfaces.eth0.mtu absent -> 1400",
        "change document pair namespaces.left.services.one.environment.TOKEN (not shown) -> (another one)",
    ]
    good = files()
    UNIT.write_text(UNIT.read_text().replace("Type=oneshot", "Type=simple"))
    START.unlink()
    (engine,) = ENGINES.iterdir()
    (engine / "nslab_netns/_boot.py").write_text("raise SystemExit\n")
    DOCUMENT.write_text("{")
    assert "problem" in _persisted.facts()[0]
    assert [line.split(" ")[:2] for line in persist(changed)] == [
        ["change", "engine"],
        ["change", "document"],
        ["change", "unit"],
        ["add", "start"],
    ]
    assert files() == good


def change_text(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def link(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def program() -> Path:
    return next(ENGINES.iterdir()) / "__main__.py"


def fail() -> None:
    raise NslabError("it does not work")


#: What somebody does, and how that is told.
BROKEN: dict[str, tuple[Callable[[], object], str]] = {
    "the document can be read": (lambda: DOCUMENT.chmod(0o644), "mode 0644"),
    "the document can be written": (lambda: DOCUMENT.chmod(0o660), "cannot use"),
    "the document is another's": (lambda: os.chown(DOCUMENT, 1000, 0), "cannot use"),
    "the document is a symlink": (lambda: link(DOCUMENT, "/etc/hostname"), "cannot read"),
    "an option": (lambda: change_text(DOCUMENT, '"strict": false', '"strict": true'), "its content"),
    "no time": (lambda: change_text(DOCUMENT, '"device_timeout": 0.0', '"device_timeout": 1e400'), "it is no document"),
    "the folder can be read": (lambda: DOCUMENT.parent.chmod(0o755), "mode 0755"),
    "the folder is another's": (lambda: os.chown(DOCUMENT.parent, 1000, 0), "of the user 1000"),
    "the folder above can be written": (lambda: DOCUMENT.parent.parent.chmod(0o777), "mode 0777"),
    "the unit can be written": (lambda: UNIT.chmod(0o666), "mode 0666"),
    "the unit is masked": (lambda: link(UNIT, "/dev/null"), "a symlink to /dev/null"),
    "the start leads elsewhere": (lambda: link(START, "/dev/null"), "leads elsewhere"),
    "the engines can be written": (lambda: ENGINES.chmod(0o777), "mode 0777"),
    "the engine can be written": (lambda: program().parent.chmod(0o775), "mode 0775"),
    "the program is another's": (lambda: os.chown(program(), 1000, 0), "of the user 1000"),
    "the program is a symlink": (lambda: link(program(), "/etc/hostname"), "a symlink"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_somebody_has_done_to_it_is_told_and_put_right(
    host: None, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    before = files()
    persist(pair())
    good = files()
    break_it, told = BROKEN[what]
    break_it()
    broken = files()
    (fact,) = _persisted.facts()
    found = _persisted.compared("pair", pair())
    assert found
    assert told in fact["problem"]
    assert found["problem"] == fact["problem"]
    assert fact["problem"].endswith("persist the lab anew")
    with monkeypatch.context() as patch:
        patch.setattr(_systemd, "reload", fail)
        with pytest.raises(StepFailed):
            persist(pair())
    assert files() == broken
    predicted = persist(pair(), check=True)
    assert files() == broken
    assert persist(pair()) == predicted != []
    assert files() == good
    assert persist(pair()) == []
    assert _persisted.facts()[0]["problem"] is None
    # It can go as it is, too.
    break_it()
    assert forget() != []
    assert files().keys() <= {*before, str(START.parent), str(DOCUMENT.parent.parent)}


def test_a_start_that_systemd_has_made_is_right(host: None) -> None:
    persist(pair())
    link(START, str(UNIT))
    assert persist(pair()) == []
    assert _persisted.facts()[0]["problem"] is None


def test_an_audit_tries_the_program(host: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(_persist, "_python", lambda: str(python))
    persist(pair())
    assert (_persisted.compared("pair", pair(), tries=True) or {})["problem"] is None
    python.write_text("#!/bin/sh\necho pyroute2 is gone >&2; exit 1\n")
    assert (_persisted.compared("pair", pair()) or {})["problem"] is None
    found = _persisted.compared("pair", pair(), tries=True) or {}
    assert found["problem"] == "the program for the boot does not work by itself: pyroute2 is gone"


def test_what_administrators_have_added_to_a_unit_is_theirs(host: None) -> None:
    persist(pair())
    assert _persist.alterations("pair") == []
    file = Path(f"{UNIT}.d/override.conf")
    file.parent.mkdir()
    file.write_text("[Unit]\nAfter=mine.service\n")
    text = f"the unit {UNIT.name} is altered by {file}; it stays so until that is removed"
    assert _persist.alterations("pair") == [text]
    assert persist(pair()) == []
    forget()
    assert file.exists()


def test_what_cannot_come_back_is_refused(host: None) -> None:
    before = files()
    attached = pair()
    attached["namespaces"]["app"] = {"attach": {"pid": 1}}
    for document, path in (
        (attached, "namespaces.app.attach: is a process"),
        (secret(None), "namespaces.left.services.one.environment.TOKEN: has no value"),
        (pair(mtu=3), "namespaces.left.mtu: there is no such key here"),
    ):
        with pytest.raises(InvalidInput, match=f"^{path}"):
            persist(document)
    with pytest.raises(InvalidInput, match="device_timeout: nan is no number of seconds"):
        persist(pair(), device_timeout=float("nan"))
    UNIT.write_text("[Unit]\n")
    with pytest.raises(Refused, match="is a unit of somebody else"):
        persist(pair())
    UNIT.unlink()
    assert files() == before


def test_a_step_that_fails_takes_all_back(host: None, monkeypatch: pytest.MonkeyPatch) -> None:
    persist(pair())
    before = files()
    monkeypatch.setattr(_persist, "_python", lambda: "/bin/false")
    with pytest.raises(StepFailed, match=r"verify: the program for the boot does not work by itself: exit status 1"):
        persist(secret("a"))
    assert files() == before
    monkeypatch.setattr(_persist, "_python", lambda: sys.executable)
    for number in range(3):
        with monkeypatch.context() as patch:
            calls = itertools.count()

            def rename(source: str, target: str, calls: Iterator[int] = calls, last: int = number) -> None:
                if next(calls) == last:
                    raise OSError(28, "No space left on device")
                os.replace(source, target)

            patch.setattr(_persist.os, "rename", rename)
            with pytest.raises(StepFailed):
                persist(secret("a"))
        assert files() == before
    assert persist(pair()) == []


def test_a_planted_symlink_is_not_followed(host: None, tmp_path: Path) -> None:
    DOCUMENT.parent.parent.mkdir()
    DOCUMENT.parent.symlink_to(tmp_path)
    with pytest.raises(NslabError, match="it is a symlink"):
        persist(pair())
    DOCUMENT.parent.unlink()
    DOCUMENT.parent.mkdir()
    victim = tmp_path / "victim"
    victim.write_text("mine")
    DOCUMENT.symlink_to(victim)
    assert f"change document {DOCUMENT} (a symlink to {victim}) -> document {DOCUMENT}" in persist(pair())
    assert victim.read_text() == "mine"
    assert not DOCUMENT.is_symlink()


def test_what_is_not_there_yet_is_waited_for(host: None) -> None:
    document = pair()
    document["namespaces"]["left"]["interfaces"]["wan"] = {"device": {"name": "late0"}}
    persist(document)
    done = boot()
    assert done.returncode == 1
    assert "lab pair: waited 0 s for what is missing" in done.stderr
    assert "late0" in done.stderr
    assert not ip("netns", "list")
    persist(document, device_timeout=60.0)
    (engine,) = ENGINES.iterdir()
    with subprocess.Popen(
        [sys.executable, "-I", str(engine), "pair"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        assert "lab pair: waits up to 60 s for what is missing" in program.stdout.readline()
        ip("link", "add", "late0", "type", "veth", "peer", "name", "other0")
        said, error = program.communicate(timeout=60)
    assert (program.returncode, error) == (0, ""), said
    assert "wan" in ip("-n", "left", "link", "show")


def test_an_interface_of_a_sysctl_is_waited_for(host: None) -> None:
    document = {"name": "pair", "namespaces": {"host": {"sysctls": {"net.ipv4.conf.late0.forwarding": 1}}}}
    persist(document)
    assert "lab pair: waited 0 s for what is missing" in boot().stderr
    ip("link", "add", "late0", "type", "veth", "peer", "name", "other0")
    done = boot()
    assert (done.returncode, done.stderr) == (0, "")


def test_an_error_names_the_lab_and_leaves_nothing(host: None) -> None:
    persist(pair())
    ip("netns", "add", "left")
    done = boot()
    assert done.returncode == 1
    assert done.stderr.startswith("lab pair: namespaces.left: the namespace left")
    assert ip("netns", "list") == "left\n"
    assert "there is no /etc/nslab/labs/none.json" in boot(lab="none").stderr


def test_engines_stay_as_long_as_a_lab_needs_them(host: None, monkeypatch: pytest.MonkeyPatch) -> None:
    persist(pair())
    (old,) = ENGINES.iterdir()
    texts = {**_persist.sources(), "nslab_netns/more.py": ""}
    monkeypatch.setattr(_persist, "sources", lambda: texts)
    other = {"name": "other", "namespaces": {"far": {}}}
    _persist.run("other", _persist.record_of(OPTIONS, other), False, 1.0)
    assert len(list(ENGINES.iterdir())) == 2
    found = persist(pair())
    assert found[-1] == f"remove engine {old.name}"
    assert any(line.startswith(f'change document pair engine "{old.name}" -> ') for line in found)
    assert not old.exists()
    forget()
    assert len(list(ENGINES.iterdir())) == 1
    assert [fact["name"] for fact in _persisted.facts()] == ["other"]


def test_what_others_say_of_it(host: None) -> None:
    assert _persisted.compared("pair", pair()) is None
    persist(pair())
    assert _persisted.compared("pair", pair()) == {"version": _persist.VERSION, "differences": [], "problem": None}
    changed = pair(sysctls={"net.ipv4.ip_forward": 1})
    found = _persisted.compared("pair", changed)
    assert found
    assert found["differences"] == ["namespaces.left.sysctls.net.ipv4.ip_forward"]
    record = _persisted.read("pair")
    assert record
    DOCUMENT.write_text(record._replace(version="0.0.9").text())
    found = _persisted.compared("pair", pair())
    assert found
    assert "the engine is of version 0.0.9" in found["problem"]
    UNIT.unlink()
    assert f"{UNIT} is missing" in str(_persisted.facts()[0]["problem"])
    UNIT.symlink_to("/dev/null")  # as `systemctl mask` would leave it
    for problem in (_persisted.facts()[0]["problem"], (_persisted.compared("pair", pair()) or {})["problem"]):
        assert problem == f"{UNIT} is not as it was: a symlink to /dev/null; persist the lab anew"


def run_and_kill(number: int, document: Document, absent: bool) -> bool:
    """Persist a document, or the contrary, in a process that is killed before its n-th step, or a part of one.

    Returns whether it came so far.
    """
    pid = os.fork()
    if pid == 0:
        left = [number]

        def killing(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **more: Any) -> Any:
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **more)

            return call

        for owner, name in (
            (os, "rename"),
            (_persist._File, "do"),
            (_persist._Engine, "do"),
            (_persist._OldEngine, "settle"),
            (_systemd, "reload"),
        ):
            setattr(owner, name, killing(getattr(owner, name)))
        try:
            forget() if absent else persist(document)
        finally:
            os._exit(0)
    _pid, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("way", ["from nothing", "change", "remove"])
def test_a_kill_at_any_step_is_mended_by_the_next_run(host: None, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    told: list[str] = []
    reload = _systemd.reload
    monkeypatch.setattr(_systemd, "reload", lambda: (told.append("reload"), reload()))
    before, after = secret("first"), secret("second")
    nothing = files()
    persist(after)
    whole = files()
    # Each file of an engine is two of them, and which one it is makes no difference.
    engine = 2 * len(_persist.sources())
    for number in sorted({*range(1, 15), engine // 2, *range(engine - 3, engine + 40)}):
        forget()
        if way != "from nothing":
            persist(before)
        was_killed = run_and_kill(number, after, absent=way == "remove")
        told.clear()
        changed = forget() if way == "remove" else persist(after)
        assert files() == (nothing if way == "remove" else whole), number
        assert way == "remove" or _persisted.facts()[0]["problem"] is None
        assert not changed or told
        if not was_killed:
            assert not changed
            return
        assert told, number
    raise AssertionError("it was killed each time")


def test_an_engine_that_was_broken_by_hand_is_told(host: None) -> None:
    persist(pair())
    (engine,) = ENGINES.iterdir()
    (engine / "nslab_netns/_plan.py").unlink()
    for problem in (_persisted.facts()[0]["problem"], (_persisted.compared("pair", pair()) or {})["problem"]):
        assert problem == f"{engine} is not as it was: its content; persist the lab anew"
    assert [line.split(" ")[:2] for line in persist(pair())] == [["change", "engine"]]
    # One too many is as wrong as one too few.
    (engine / "nslab_netns/more.py").write_text("")
    assert (_persisted.compared("pair", pair()) or {})["problem"] == problem
    assert [line.split(" ")[:2] for line in persist(pair())] == [["change", "engine"]]
    assert not (engine / "nslab_netns/more.py").exists()
    # What Python has compiled is no part of it.
    assert boot().returncode == 0
    assert _persisted.facts()[0]["problem"] is None


def test_units_that_have_lost_their_document_are_told(host: None) -> None:
    persist(pair())
    DOCUMENT.unlink()
    text = f"{DOCUMENT} is missing, and {UNIT} is there; persist the lab anew, or not at all"
    assert [(fact["name"], fact["problem"]) for fact in _persisted.facts()] == [("pair", text)]
    assert (_persisted.compared("pair", pair()) or {})["problem"] == text
    assert forget() != []
    assert _persisted.facts() == []
    assert _persisted.compared("pair", pair()) is None


@pytest.mark.parametrize(
    "broken",
    [
        {"device_timeout": "30"},
        {"options": {"topology": {}}},
        {"options": {"adopt": False, "strict": False, "topology": {"namespaces": {"left": "x"}}}},
        {"options": {"adopt": False, "strict": False, "topology": {"namespaces": [1]}}},
    ],
    ids=str,
)
def test_a_document_that_was_broken_by_hand_is_no_document(host: None, broken: dict[str, Any]) -> None:
    persist(pair())
    DOCUMENT.write_text(json.dumps({**json.loads(DOCUMENT.read_text()), **broken}))
    found = _persisted.compared("pair", pair())
    assert found
    assert "it is no document that nslab.netns.persist has written; persist the lab anew" in found["problem"]
    assert boot().returncode == 1
    assert "Traceback" not in boot().stderr


def rules() -> list[str]:
    """The ports that the host translates, by nft's own words."""
    output = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
    return re.findall(r"tcp dport (\d+) dnat", output)


def test_rules_that_somebody_has_flushed_come_back_and_nothing_else_does(host: None) -> None:
    before = files()
    assert "add start of nslab-rules@pair.service" in persist(translating(80, 81))
    assert RULES_START.resolve() == RULES_UNIT
    assert boot("--lost-rules").stdout == "lab pair: it does not stand, and gets no rules\n"
    assert boot().returncode == 0
    for flush in ("flush ruleset", "flush table inet nslab-pair"):
        subprocess.run(["nft", flush], check=True)
        ip("-n", "left", "link", "set", "eth0", "mtu", "1400")
        assert boot("--lost-rules").stdout.endswith("lab pair: 2 changes were made\n")
        assert rules() == ["80", "81"]
        # The rest of the lab is none of its business.
        assert ip_json("left", "link", "show", "eth0")[0]["mtu"] == 1400
    # The lab is another one by now.
    apply(translating(81))
    assert boot("--lost-rules").stdout == "lab pair: it has rules on the host, which stay as they are\n"
    assert rules() == ["81"]
    apply({"name": "pair"}, absent=True)
    assert boot("--lost-rules").stdout == "lab pair: it does not stand, and gets no rules\n"
    assert not rules()
    forget()
    assert files().keys() - before.keys() <= {"/etc/systemd/system/multi-user.target.wants"}


def test_nftables_is_restarted_and_reloaded_under_systemd() -> None:
    unit = Path("/usr/lib/systemd/system/nftables.service").read_text()
    with booted_host() as machine:

        def build() -> None:
            own_local_lib()
            Path("/run/units/nftables.service").write_text(unit)
            apply(translating(80))
            persist(translating(80))

        def are(*wanted: str) -> bool:
            names = (RULES_UNIT.name, UNIT.name)
            return machine.systemctl("show", "--value", "--property=ActiveState", *names).split() == [*wanted]

        machine.call(build)
        # The lab was not booted yet; and by two commands, by one, and by a reload.
        for verbs in (["start"], ["stop", "start"], ["restart"], ["reload"]):
            for verb in verbs:
                assert machine.systemctl(verb, "nftables.service") == ""
            machine.call(lambda: eventually(lambda: rules() == ["80"], "the rule of the lab"))
            eventually(lambda: are("active", "inactive"), "the end of what has put it back")
        machine.call(lambda: apply({"name": "pair"}, absent=True))
        for verb in ("restart", "reload"):
            machine.systemctl(verb, "nftables.service")
        eventually(lambda: are("active", "inactive"), "the end of what the restart has begun")
        assert machine.call(rules) == []
        assert machine.call(lambda: ip("netns", "list")) == ""


def test_under_systemd_with_services() -> None:
    """The wires first, the services when systemd starts some; what was said is in the journal."""
    with booted_host() as machine:

        def test() -> None:
            # Its /usr is the machine's, and not to be written to.
            own_local_lib()
            assert persist(secret("correct horse"))
            assert SERVICES_UNIT.exists()
            units = [UNIT.name, SERVICES_UNIT.name]
            verified = subprocess.run(
                ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False
            )
            ours = [line for line in verified.stderr.splitlines() if "nslab" in line and "network" not in line]
            assert ours == []
            assert f"Wants={SERVICES_UNIT.name}\n" in UNIT.read_text()
            assert "correct horse" not in UNIT.read_text() + SERVICES_UNIT.read_text()

        machine.call(test)
        assert machine.systemctl("show", "--value", "--property=LoadState", UNIT.name) == "loaded"
        # Each process there has a mount namespace of systemd's; what /usr/local/lib is there is seen by all.
        assert machine.systemctl("start", "--job-mode=ignore-dependencies", UNIT.name) == ""

        def wired() -> None:
            assert ping("left", "192.0.2.2")[0]
            assert subprocess.run(["ip", "netns", "pids", "left"], capture_output=True, check=True).stdout == b""

        machine.call(wired)
        machine.systemctl("start", "--job-mode=ignore-dependencies", SERVICES_UNIT.name)

        def served() -> None:
            eventually(lambda: bool(ip("netns", "pids", "left")), "the service of the lab")
            said = subprocess.run(
                ["journalctl", "--identifier=nslab", "--output=cat"], capture_output=True, text=True, check=True
            ).stdout
            assert "lab pair: add namespace left\n" in said
            assert "lab pair: add service left:one sleep 1000" in said
            assert "correct horse" not in said

        machine.call(served)
        machine.call(forget_there)
        assert (
            machine.systemctl("list-units", "--all", "--plain", "--no-legend", "nslab-lab@*", "nslab-services@*") == ""
        )


def forget_there() -> None:
    assert forget()
    assert ip("netns", "pids", "left")
