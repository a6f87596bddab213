# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs ansible-playbook as people do, and reads what they see: its output and its exit status."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent

# A run that takes longer hangs.
DEADLINE_SECONDS = 300

Play = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """What one ansible-playbook said."""

    code: int
    stdout: str
    stderr: str

    @property
    def words(self) -> str:
        """All of it with single spaces, as a reader takes it: messages are wrapped and indented."""
        return " ".join(f"{self.stdout}\n{self.stderr}".split())

    @property
    def changed(self) -> int:
        """How many tasks have changed something, by the recap."""
        return sum(int(number) for number in re.findall(r" changed=(\d+) ", self.stdout))

    @property
    def diff(self) -> list[str]:
        """The lines of all diffs, in order."""
        return _diff_lines(self.stdout)

    def play(self, name: str) -> Part:
        """What it said in a play, which has to be there once."""
        parts = re.split(r"^PLAY (?:\[(.*?)\]|RECAP) \*+$", self.stdout, flags=re.MULTILINE)
        found = [text for title, text in zip(parts[1::2], parts[2::2]) if title == name]
        assert len(found) == 1, f"the play {name!r} ran {len(found)} times:\n{self}"
        return Part(found[0])

    def succeeded(self) -> Run:
        """Itself, if the run succeeded."""
        assert self.code == 0, str(self)
        assert "Traceback" not in self.words, str(self)
        return self

    def failed(self) -> Run:
        """Itself, if the run failed in words."""
        assert self.code != 0, str(self)
        assert "Traceback" not in self.words, str(self)
        return self

    def __str__(self) -> str:
        return f"exit status {self.code}\n{self.stdout}\n{self.stderr}"


@dataclass(frozen=True)
class Part:
    """The output of one play."""

    text: str

    @property
    def changed(self) -> list[str]:
        """The lines of what has changed something: a task, or an item of a task's loop."""
        return [line for line in self.text.splitlines() if line.startswith("changed: [")]

    @property
    def diff(self) -> list[str]:
        return _diff_lines(self.text)


def _diff_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if re.match(r"[-+](?!--|\+\+)", line)]


class Controller:
    """ansible-playbook with a home of its own, so that runs in parallel share nothing and find nobody's settings.

    What modules are packed in is kept in ``archives``, for as long as the code of the collection stays as it is.
    """

    def __init__(self, home: Path, archives: Path) -> None:
        self.home = home
        home.mkdir()
        configuration = home / "ansible.cfg"
        configuration.touch()
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
        self.environment = {
            **inherited,
            # ip and sysctl are where Debian keeps them, on everybody's PATH or not.
            "PATH": os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]),
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_CALLBACK_PLUGINS": str(Path(__file__).parent / "callbacks"),
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "yaml",
            "ANSIBLE_CALLBACKS_ENABLED": "keep_archives",
            "ANSIBLE_COLLECTIONS_PATH": os.environ.get("ANSIBLE_COLLECTIONS_PATH") or str(ROOT / ".cache/collections"),
            "ANSIBLE_CONFIG": str(configuration),
            "ANSIBLE_HOME": str(home),
            "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false",
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_LOCAL_TEMP": str(home / "local"),
            "ANSIBLE_NOCOLOR": "true",
            "ANSIBLE_NOCOWS": "true",
            "ANSIBLE_PIPELINING": "true",
            "ANSIBLE_REMOTE_TEMP": str(home / "remote"),
            "ANSIBLE_REMOTE_TMP": str(home / "remote"),
            "NSLAB_ARCHIVES": str(archives),
        }

    def run(self, playbook: str | Sequence[Play], *options: str, prefix: Sequence[str] = (), **variables: Any) -> Run:
        """Run a playbook, by its path from the root or by its plays; wait for its end."""
        process = self.start(playbook, *options, prefix=prefix, **variables)
        try:
            stdout, stderr = process.communicate(timeout=DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            stdout, stderr = process.communicate()
            raise AssertionError(f"it hangs:\n{stdout}\n{stderr}") from None
        return Run(process.returncode, stdout, stderr)

    def start(
        self, playbook: str | Sequence[Play], *options: str, prefix: Sequence[str] = (), **variables: Any
    ) -> subprocess.Popen[str]:
        """Start a playbook. ``prefix`` is a command that starts it in turn."""
        if not isinstance(playbook, str):
            file = self.home / "playbook.yml"
            file.write_text(json.dumps(playbook, indent=2))
            playbook = str(file)
        # The Python of the target is most often that of the tests.
        target = os.environ.get("NSLAB_TARGET_PYTHON")
        variables = {**({"ansible_python_interpreter": target} if target else {}), **variables}
        extra = ["--extra-vars", json.dumps(variables)] if variables else []
        return subprocess.Popen(
            [*prefix, _ansible_playbook(), *options, *extra, playbook],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def inventory(self, *inventories: str) -> Run:
        """What ansible-inventory lists of some inventories."""
        program = str(Path(_ansible_playbook()).with_name("ansible-inventory"))
        options = [word for inventory in inventories for word in ("--inventory", inventory)]
        done = subprocess.run(
            [program, *options, "--list"],
            cwd=ROOT,
            env={**self.environment, "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true"},
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE_SECONDS,
        )
        return Run(done.returncode, done.stdout, done.stderr)


def _ansible_playbook() -> str:
    beside = shutil.which("ansible-playbook", path=str(Path(sys.executable).parent))
    found = os.environ.get("NSLAB_ANSIBLE_PLAYBOOK") or beside
    assert found, "say which ansible-playbook to use: make test stage=e2e does, or the variable NSLAB_ANSIBLE_PLAYBOOK"
    return found


# Plays


def apply_role(role: str, title: str = "", variables: Mapping[str, Any] | None = None, **keywords: Any) -> Play:
    """A play with a role of the collection."""
    return play(title or role, roles=[{"role": f"nslab.netns.{role}", **(variables or {})}], **keywords)


def play(title: str, **keywords: Any) -> Play:
    return {"name": title, "hosts": "localhost", "gather_facts": False, **keywords}
