# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Services as they are read, and as units of systemd."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.nslab.netns.plugins.module_utils import _systemd as systemd
from ansible_collections.nslab.netns.plugins.module_utils._document_services import read_services
from ansible_collections.nslab.netns.plugins.module_utils._reader import Reader
from ansible_collections.nslab.netns.plugins.module_utils._service import Definition, ServiceKey


def read(body: Any, name: str = "web", namespace: str = "server") -> tuple[Any, list[str]]:
    reader = Reader()
    found = read_services(reader, {name: body}, "services", namespace, "lab")
    return found.get(name), [str(problem) for problem in reader.problems]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["a", "b c", 80, 1.5], ("a", "b c", "80", "1.5")),
        ("a 'b c' \"$HOME\" ;d", ("a", "b c", "$HOME", ";d")),
        ("/bin/a", ("/bin/a",)),
    ],
)
def test_a_command_is_words(command: Any, words: tuple[str, ...]) -> None:
    wanted, problems = read({"command": command})
    assert problems == []
    assert wanted.definition == Definition(words)


def test_all_keys_are_read() -> None:
    body = {
        "command": "a",
        "user": 1000,
        "group": "www-data",
        "directory": "/srv",
        "environment": {"B": 1, "A": "x y", "C": None},
        "restart": False,
    }
    wanted, problems = read(body)
    assert problems == []
    environment = (("A", "x y"), ("B", "1"))
    assert wanted.definition == Definition(("a",), "1000", "www-data", "/srv", environment, "no")
    assert wanted.kept == ("C",)
    assert "x y" not in str(wanted.definition)


BAD: list[tuple[Any, str]] = [
    (None, "services.web.command: is missing"),
    ({"command": []}, "services.web.command: [] names no program"),
    ({"command": "  "}, "services.web.command: '  ' names no program"),
    ({"command": [""]}, "services.web.command: [''] names no program"),
    ({"command": 5}, "services.web.command: 5 is no list"),
    ({"command": ["a", ["b"]]}, "services.web.command[1]: ['b'] is no string"),
    ({"command": ["a", True]}, "services.web.command[1]: true is no string"),
    ({"command": ["a", "b\0"]}, "services.web.command[1]: 'b\\x00' has the byte 0"),
    ({"command": "bin/a"}, "services.web.command: 'bin/a' is no absolute path"),
    ({"command": 'a "b'}, "services.web.command: 'a \"b' cannot be split into words: no closing quotation"),
    ({"command": "a", "user": "a b"}, "services.web.user: 'a b' is no name of a user"),
    ({"command": "a", "user": "-x"}, "services.web.user: '-x' is no name of a user"),
    ({"command": "a", "group": True}, "services.web.group: true is no string"),
    ({"command": "a", "directory": "srv"}, "services.web.directory: 'srv' is no absolute path"),
    ({"command": "a", "environment": {"A B": 1}}, "services.web.environment.A B: 'A B' is no name for a variable"),
    ({"command": "a", "environment": {"A": []}}, "services.web.environment.A: [] is no string"),
    ({"command": "a", "restart": True}, "services.web.restart: true is not one of"),
    ({"command": "a", "when": 1}, "services.web.when: there is no such key here"),
]


@pytest.mark.parametrize(("body", "told"), BAD, ids=[told for _body, told in BAD])
def test_what_cannot_be_meant_is_refused(body: Any, told: str) -> None:
    _wanted, problems = read(body)
    assert len(problems) == 1
    assert problems[0].startswith(told)


@pytest.mark.parametrize("name", ["", ".a", "-a", "a/b", "a b", "a:b", "a\n", "a" * 65])
def test_names_that_are_none(name: str) -> None:
    _wanted, problems = read({"command": "a"}, name)
    assert len(problems) == 1
    assert "is no name for a service" in problems[0]


def test_names_that_are_too_long_for_a_unit() -> None:
    namespace = "n" * (255 - len(systemd.name("lab", ServiceKey("", "web"))))
    assert read({"command": "a"}, namespace=namespace)[1] == []
    _wanted, problems = read({"command": "a"}, namespace=namespace + "n")
    assert "is too long here" in problems[0]


def test_no_two_services_have_one_unit() -> None:
    keys = [("a", "b-c", "d"), ("a-b", "c", "d"), ("a", "b", "c-d"), ("", "a-b", "c-d"), ("a.b", "c", "d")]
    assert len({systemd.name(lab, ServiceKey(namespace, name)) for lab, namespace, name in keys}) == len(keys)


DEFINITIONS = [
    Definition(("/bin/sleep", "1000")),
    Definition(("/bin/sh", "-c", "echo \"$HOME\" '%n' \\n\n${A}")),
    Definition(("/bin/sleep", "1"), "daemon", "nogroup", "/tmp", (("A", 'x "$y" `z` \\'),), "always"),  # noqa: S108
    Definition(("/bin/sleep", "1"), "12345", restart="no"),
]


@pytest.mark.parametrize("definition", DEFINITIONS, ids=str)
@pytest.mark.parametrize("namespace", ["server", "host"])
def test_systemd_takes_the_unit(tmp_path: Path, definition: Definition, namespace: str) -> None:
    text = systemd.text("lab", ServiceKey(namespace, "web"), definition, "/run/nslab/services/server/web")
    assert text.startswith("# nslab:lab ")
    assert ("NetworkNamespacePath=/run/netns/server\n" in text) == (namespace == "server")
    # Anybody may ask systemd for what is in a unit.
    assert '"$y"' not in text
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd-analyze")
    # It takes what is behind a colon in the name of a file for the name of the unit.
    unit = tmp_path / "nslab.service"
    unit.write_text(text)
    done = subprocess.run([program, "verify", str(unit)], capture_output=True, text=True, check=False)
    told = [line for line in done.stderr.splitlines() if "nslab" in line]
    assert told == []
