# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said of services, what is planned of it, and how that reads."""

from __future__ import annotations

import dataclasses
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.nslab.netns.plugins.module_utils import _kernel as kernel
from ansible_collections.nslab.netns.plugins.module_utils import _options, _systemd
from ansible_collections.nslab.netns.plugins.module_utils._changes import SetService
from ansible_collections.nslab.netns.plugins.module_utils._document import read_topology
from ansible_collections.nslab.netns.plugins.module_utils._errors import InvalidInput, Refused
from ansible_collections.nslab.netns.plugins.module_utils._model import HOST, Namespace, State, Wanted
from ansible_collections.nslab.netns.plugins.module_utils._plan import plan
from ansible_collections.nslab.netns.plugins.module_utils._service import Definition, Service, ServiceKey

WEB = {"command": ["httpd", "-f"], "user": "www", "environment": {"TOKEN": "hunter2", "PORT": 80}}
DEFINITION = Definition(("httpd", "-f"), user="www", environment=(("PORT", "80"), ("TOKEN", "hunter2")))
KEY = ServiceKey("a", "web")


def options(services: Any, **more: Any) -> dict[str, Any]:
    return {"lab": None, "namespace": "a", "services": services, "purge": False, "state": "present", **more}


def body(**keys: Any) -> dict[str, Any]:
    return options({"web": {"command": "httpd", **keys}})


# --- reading ---------------------------------------------------------------------------------------------------------

BAD: list[tuple[dict[str, Any], str, str]] = [
    (options([1]), "services", "dictionary"),
    (options({"web": "httpd"}), "services.web", "dictionary"),
    (options({"web": {}}), "services.web.command", "is missing: the program and its arguments"),
    (options({"-web": WEB}), "services.-web", "no name for a service"),
    (options({"a/b": WEB}), "services.a/b", "no name for a service"),
    (options({"w" * 65: WEB}), "services." + "w" * 65, "1 to 64 letters"),
    (options({"w" * 64: WEB}, namespace="n" * 200), "services." + "w" * 64, "is too long here"),
    (options({"web": {**WEB, "args": []}}), "services.web.args", "no such key here"),
    (body(command=[]), "services.web.command", "names no program"),
    (body(command=" "), "services.web.command", "names no program"),
    (body(command="sh -c 'x"), "services.web.command", "cannot be split into words"),
    (body(command="bin/httpd"), "services.web.command", "no absolute path of a program"),
    (body(command=["httpd", True]), "services.web.command[1]", "string"),
    (body(command=["httpd", "a\0b"]), "services.web.command[1]", "byte 0"),
    (body(user="a b"), "services.web.user", "no name of a user"),
    (body(user=-1), "services.web.user", "from 0"),
    (body(group=":"), "services.web.group", "no name of a group"),
    (body(directory="srv"), "services.web.directory", "no absolute path"),
    (body(environment={"A-B": "1"}), "services.web.environment.A-B", "no name for a variable"),
    (body(environment={"A": ["hunter2"]}), "services.web.environment.A", "is no text"),
    (body(environment={"A": "hunter2\0"}), "services.web.environment.A", "is no text"),
    (body(environment={"A": "hunter2\ud800"}), "services.web.environment.A", "is no text"),
    (body(environment=["A=hunter2"]), "services.web.environment", "is no dictionary"),
    (body(environment={"NSLAB_SERVICE": "1"}), "services.web.environment.NSLAB_SERVICE", "the name of the service"),
    (body(environment={"A": True}), "services.web.environment.A", "without quotes"),
    (body(restart="sometimes"), "services.web.restart", "on-failure"),
    (body(restart=True), "services.web.restart", "on-failure"),
    (options({}, purge=True, state="absent"), "purge", "goes with 'state: present'"),
    (options({"-web": None}, state="absent"), "services.-web", "no name for a service"),
    (options(WEB, namespace="x y"), "namespace", "no name for a namespace"),
]


@pytest.mark.parametrize(("said", "path", "words"), BAD, ids=[f"{i}-{case[1]}"[:40] for i, case in enumerate(BAD)])
def test_what_cannot_be_is_refused(said: dict[str, Any], path: str, words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        _options.ns_service(said)
    assert caught.value.problems[0].path == path
    assert words in caught.value.problems[0].text
    assert "hunter2" not in str(caught.value)


def test_the_module_and_the_document_say_the_same() -> None:
    said = {"web": WEB, "other": {"command": "sleep 'a b' 1", "user": 33, "restart": False}}
    of_module = _options.ns_service(options(said)).namespaces["a"].services
    of_document = (
        read_topology({"name": "lab", "namespaces": {"a": {"services": said}}}).wanted.namespaces["a"].services
    )
    found = {name: service.definition for name, service in of_module.items()}
    assert found == {name: service.definition for name, service in of_document.items()}
    assert found == {"web": DEFINITION, "other": Definition(("sleep", "a b", "1"), user="33", restart="no")}


def test_what_shall_go_needs_no_more_than_a_name() -> None:
    said = {"one": None, "two": {}, "three": WEB}
    found = _options.ns_service(options(said, state="absent")).namespaces["a"]
    assert found.absent_services == {name: f"services.{name}" for name in said}
    assert not found.services


# --- planning --------------------------------------------------------------------------------------------------------


def state(**services: Service) -> State:
    namespaces = {HOST: Namespace(HOST, inode=1), "a": Namespace("a", inode=2)}
    for namespace in namespaces.values():
        namespace.links["lo"] = kernel.new_namespace(namespace.name).links["lo"]
    return State(namespaces, services={ServiceKey("a", name): service for name, service in services.items()})


def planned(wanted: Wanted, there: State) -> list[str]:
    """What is planned, in words; after it there is nothing to do."""
    found = plan(wanted, there)
    after = kernel.copy(there)
    for change in found.changes:
        kernel.play(after, change)
    assert not plan(wanted, after).steps
    return [str(change.describe()) for change in found.changes]


def service(lab: str = "", **more: Any) -> Service:
    return Service(lab, DEFINITION, **{"inode": 2, **more})


SHOWN = "service a:web httpd -f user www environment PORT, TOKEN"


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (service(), []),
        (service("lab"), []),
        (service(state="stopped"), [f"change {SHOWN} (stopped) -> {SHOWN}"]),
        (service(altered="x"), [f"change {SHOWN} (altered) -> {SHOWN}"]),
        (service(inode=7), [f"change {SHOWN} (in an earlier namespace) -> {SHOWN}"]),
        (
            service()._replace(definition=DEFINITION._replace(environment=(("PORT", "80"), ("TOKEN", "x")))),
            [f"change {SHOWN} -> new value of TOKEN"],
        ),
        (service()._replace(definition=DEFINITION._replace(directory="/srv")), None),
    ],
)
def test_a_service_is_left_alone_or_started_anew(there: Service, said: list[str] | None) -> None:
    found = planned(_options.ns_service(options({"web": WEB})), state(web=there))
    if said is None:
        said = [
            "change service a:web httpd -f user www directory /srv environment PORT, TOKEN -> environment PORT, TOKEN"
        ]
    assert found == said
    assert "hunter2" not in "".join(found)


def test_a_value_that_is_null_stays() -> None:
    said = {"web": {**WEB, "environment": {"TOKEN": None, "PORT": None}}}
    assert planned(_options.ns_service(options(said)), state(web=service())) == []
    # It cannot be made so, and is not so.
    found = plan(_options.ns_service(options(said)), state())
    text = "has no value, and there is none that could stay; say it"
    assert list(map(str, found.unsaid)) == [f"services.web.environment.{name}: {text}" for name in ("TOKEN", "PORT")]
    assert [str(change.describe()) for change in found.changes] == [f"add {SHOWN}"]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({"lab": "B"}, {"lab": "C"}, "httpd (lab B) -> (lab C)"),
        ({"lab": "B"}, {}, "httpd (lab B) -> (no lab)"),
        ({"command": "httpd -f 'a b'"}, {"command": "httpd -f 'a c'"}, "httpd -f 'a b' -> 'a c'"),
    ],
)
def test_a_change_is_not_cut_in_the_middle(before: dict[str, str], after: dict[str, str], said: str) -> None:
    def of(body: dict[str, str]) -> Service:
        return Service(body.get("lab", ""), Definition(tuple(shlex.split(body.get("command", "httpd")))), 2)

    assert str(SetService(*KEY, of(after), of(before)).describe()) == f"change service a:web {said}"


@pytest.mark.parametrize(
    ("more", "there", "gone"),
    [
        ({}, ["", "", "lab"], []),
        ({"purge": True}, ["", "", "lab"], ["one"]),
        ({"purge": True}, ["lab", "", ""], ["one", "two"]),
        ({"purge": True, "lab": "lab"}, ["lab", "", "lab"], ["two"]),
        ({"state": "absent"}, ["", "", ""], ["web"]),
        ({"state": "absent", "lab": "lab"}, ["other", "", ""], []),
    ],
)
def test_what_is_removed(more: dict[str, Any], there: list[str], gone: list[str]) -> None:
    services = {name: service(lab) for name, lab in zip(("web", "one", "two"), there)}
    found = planned(_options.ns_service(options({"web": WEB}, **more)), state(**services))
    assert [line.split()[2] for line in found if line.startswith("remove")] == [f"a:{name}" for name in gone]


@pytest.mark.parametrize(
    ("how", "lab", "gone"),
    [
        ("absent", "", ["web", "one", "two", "three"]),
        ("absent", "lab", ["web", "one"]),
        ("pruned", "lab", ["web", "one"]),
    ],
)
def test_what_goes_with_a_namespace(how: str, lab: str, gone: list[str]) -> None:
    there = state(
        web=service("other"),
        one=service("lab", inode=7),
        two=service("other", inode=7),
        three=service("", inode=7),
    )
    lo = there.namespaces["a"].links["lo"]
    there.namespaces["a"].links["lo"] = dataclasses.replace(lo, alias="nslab:lab")
    if how == "absent":
        wanted = _options.netns({"name": ["a"], "state": "absent", "lab": lab or None})
    else:
        wanted = read_topology({"name": lab}, absent=True).wanted
    removed = [str(change.describe()) for change in plan(wanted, there).changes]
    assert {line.split()[2] for line in removed if "service" in line} == {f"a:{name}" for name in gone}


def test_a_unit_that_an_administrator_has_altered_stays_so_with_a_warning() -> None:
    there = state(web=service(overrides=("/etc/x.conf",)))
    for how in ("present", "absent"):
        found = plan(_options.ns_service(options({"web": WEB}, state=how)), there)
        assert found.warnings == [
            "the unit of the service a:web is altered by /etc/x.conf; it stays so until that is removed"
        ]
        assert bool(found.steps) == (how == "absent")
    there = state(web=Service("", Definition(()), 0, "foreign", overrides=("/etc/x.conf",)))
    with pytest.raises(Refused, match=r"/etc/x\.conf would alter the unit of the service a:web"):
        plan(_options.ns_service(options({"web": WEB})), there)


@pytest.mark.parametrize("wanted", ["present", "absent"])
def test_somebody_elses_unit_is_refused(wanted: str) -> None:
    with pytest.raises(Refused, match="that this collection has not made; remove it"):
        plan(
            _options.ns_service(options({"web": WEB}, state=wanted)),
            state(web=Service("", Definition(()), 0, "foreign")),
        )


# --- systemd ---------------------------------------------------------------------------------------------------------


def test_a_unit_has_no_secrets_and_means_what_the_service_says() -> None:
    definition = DEFINITION._replace(command=("/bin/echo", "50%", '"$HOME"', "a\\b\n"), directory="/srv/100%\n")
    unit = _systemd.text("lab", KEY, definition, "/run/nslab/services/a/web", 4026531840)
    assert "hunter2" not in unit
    lines = unit.splitlines()
    assert "NetworkNamespacePath=/run/netns/a" in lines
    assert "EnvironmentFile=/run/nslab/services/a/web/environment" in lines
    (start,) = [line for line in lines if line.startswith("ExecStart=")]
    assert start.startswith('ExecStart=:!"/bin/sh" "-c" ')
    assert start.endswith(r'"a" "www" "" "/srv/100%%\n" "4026531840" "/bin/echo" "50%%" "\"$HOME\"" "a\\b\n"')
    on_host = _systemd.text("", KEY._replace(namespace=HOST), Definition(("true",)), "/x", 1).splitlines()
    (start,) = [line for line in on_host if line.startswith("ExecStart=")]
    assert start.endswith(' "sh" "/" "true"')
    assert not [line for line in on_host if "Namespace" in line or "Mount" in line]


def test_the_file_of_the_environment_says_the_values_as_they_are() -> None:
    environment = _systemd.environment(Definition(("x",), environment=(("A", 'a "b" $C `d` \\'),)))
    assert environment.splitlines()[1] == r'A="a \"b\" \$C \`d\` \\"'


def test_no_two_services_have_one_unit() -> None:
    keys = [("a", "b-c", "d"), ("a-b", "c", "d"), ("a", "b", "c-d"), ("", "a-b", "c-d"), ("a.b", "c", "d")]
    assert len({_systemd.name(lab, ServiceKey(namespace, name)) for lab, namespace, name in keys}) == len(keys)


DEFINITIONS = [
    Definition(("sleep", "1000")),
    Definition(("/bin/sh", "-c", "echo \"$HOME\" '%n' \\n\n${A}")),
    Definition(("sleep", "1"), "daemon", "nogroup", "/srv", (("A", 'x "$y" `z` \\'),), "always"),
    Definition(("sleep", "1"), "12345", restart="no"),
]


@pytest.mark.parametrize("definition", DEFINITIONS, ids=str)
@pytest.mark.parametrize("namespace", ["a", HOST])
def test_systemd_takes_the_unit(tmp_path: Path, definition: Definition, namespace: str) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("there is no systemd-analyze")
    # It takes what is behind a colon in the name of a file for the name of the unit.
    unit = tmp_path / "nslab.service"
    unit.write_text(_systemd.text("lab", ServiceKey(namespace, "web"), definition, "/run/nslab/services/a/web", 1))
    done = subprocess.run([program, "verify", str(unit)], capture_output=True, text=True, check=False)
    assert [line for line in done.stderr.splitlines() if "nslab" in line] == []
