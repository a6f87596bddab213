# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ansible-test as it wants to be run: on a copy of the checkout in a collection tree, with a home of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from environment import CACHE, REQUIREMENTS, ROOT, Version, compiling_once, dotted, path_without_rust, pythons, venv

# ansible-test downloads a get-pip.py from a host that is no package index. This one stands in its place: Python's own
# pip installs the version that was asked for, from the index that pip is set up to use.
GET_PIP = """\
import os, subprocess, sys, tempfile

wanted = [argument for argument in sys.argv[1:] if argument not in ("--no-setuptools", "--no-wheel")]
environment = {key: value for key, value in os.environ.items() if key != "GET_PIP"}
with tempfile.TemporaryDirectory() as folder:
    for command in (["ensurepip", "--upgrade"], ["pip", "install", "--quiet", "--upgrade", *wanted]):
        command = [sys.executable, "-m", *command]
        subprocess.run(command, check=True, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
"""

# What Debian 12 has.
TARGET_PYTHON = "3.11"

# An integration target that is only in the copy.
PREPARATION = "nothing"


class AnsibleTest:
    """One ansible-core's. What runs at the same time has a copy of its own, called ``copy``."""

    def __init__(self, version: Version, copy: str = "ansible-test") -> None:
        self.version = version
        self.commands = venv(f"ansible-test-{dotted(version)}", version, ["ansible-test"])
        self._folder = CACHE / copy
        self.tree = self._folder / "ansible_collections/nslab/netns"
        self.junit = self.tree / "tests/output/junit"
        #: Where what has run is noted.
        self.coverage = self.tree / "tests/output/coverage"

    def command(self, what: str, *options: str, python: Version | None = None) -> tuple[list[str], dict[str, str]]:
        """The command line, and the environment to run it in. Sanity tests look with every Python that they find."""
        interpreter = [] if what == "sanity" else ["--python", dotted(python or self.version)]
        return (
            [str(self.commands / "ansible-test"), what, "--venv", *interpreter, *options],
            {"HOME": str(self._home()), "PATH": self._path()},
        )

    def prepare_integration(self) -> tuple[list[str], dict[str, str]]:
        """Have everything installed that `integration` needs, by way of a target that does nothing."""
        tasks = self.tree / "tests/integration/targets" / PREPARATION / "tasks"
        tasks.mkdir(parents=True)
        (tasks / "main.yml").write_text("---\n- name: Nothing\n  ansible.builtin.meta: noop\n")
        return self.command("integration", PREPARATION)

    def compile_once(self) -> None:
        """For what was prepared: the Python there compiles what Ansible sends it only once."""
        environments = self.tree / "tests/output/.tmp/delegation"
        for packages in environments.glob("python*/lib/python*/site-packages"):
            compiling_once(packages)

    def integration(self, targets: Iterable[str]) -> tuple[list[str], dict[str, str]]:
        return self.command("integration", "--allow-destructive", "--allow-root", *targets)

    def integration_over_ssh(self, port: int, key: Path, targets: Iterable[str]) -> tuple[list[str], dict[str, str]]:
        """With a virtual machine as the target, and what of the collection has run there noted.

        The key is in an agent that lives as long as the command.
        """
        hosts = [
            *("--controller", f"origin:python={dotted(self.version)}"),
            *("--target", f"ssh:root@127.0.0.1:{port},python={TARGET_PYTHON}"),
        ]
        agent = ["ssh-agent", "sh", "-c", 'ssh-add -q "$0" && exec "$@"', str(key)]
        return self._from_here("integration", *hosts, "--allow-destructive", "--coverage", *targets, through=agent)

    def coverage_report(self) -> tuple[list[str], dict[str, str]]:
        return self._from_here("coverage", "report")

    def _from_here(self, *options: str, through: Sequence[str] = ()) -> tuple[list[str], dict[str, str]]:
        """A command line without a virtual environment of ansible-test's own, and the environment to run it in."""
        path = os.pathsep.join([str(self.commands), self._path()])
        return [*through, str(self.commands / "ansible-test"), *options], {"HOME": str(self._home()), "PATH": path}

    def stage(self, instead: str | None = None) -> None:
        """Copy what git knows or would add. A symlink would not do: ansible-test resolves it and loses the tree.

        tests/output stays: ansible-test's virtual environments are in there.
        """
        self.tree.mkdir(parents=True, exist_ok=True)
        for old in self.tree.iterdir():
            if old.name == "tests":
                _clear(old, keep="output")
            else:
                _remove(old)
        listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for name in filter(None, names.split("\0")):
            if (ROOT / name).exists():
                (self.tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.tree / name, follow_symlinks=False)
        # Without a repository of its own the copy is an ignored folder of the checkout's, with nothing in it to test.
        subprocess.run(["git", "init", "--quiet"], cwd=self.tree, check=True)
        pins = _pins("constraints", instead)
        for kind in ("unit", "integration"):
            (self.tree / "tests" / kind).mkdir(parents=True, exist_ok=True)
            (self.tree / "tests" / kind / "constraints.txt").write_text(pins)

    def _home(self) -> Path:
        """A home of its own, where the get-pip.py above is the one that ansible-test finds in its cache."""
        home = self._folder / f"home-{dotted(self.version)}"
        cache = home / ".ansible/test/cache"
        cache.mkdir(parents=True, exist_ok=True)
        (package,) = self.commands.parent.glob("lib/python3*/site-packages/ansible_test")
        requirements = (package / "_internal/python_requirements.py").read_text()
        for pip in re.findall(r"pip='([\d.]+)'", requirements):
            (cache / f"get_pip_{pip.replace('.', '_')}.py").write_text(GET_PIP)
        # Dozens of small installations: only what goes wrong is worth a line.
        (home / ".pip").mkdir(exist_ok=True)
        (home / ".pip/pip.conf").write_text("[global]\nquiet = 2\n")
        # How the user reaches the package index.
        settings = Path.home() / ".config/pip"
        if settings.exists() and not (home / ".config").exists():
            (home / ".config").mkdir()
            (home / ".config/pip").symlink_to(settings)
        return home

    def _path(self) -> str:
        """The user's PATH with the real interpreters in front, without pyenv's shims, which fail when called."""
        newest_first = dict(sorted(pythons().items(), reverse=True))
        real = dict.fromkeys(str(Path(python).parent) for python in newest_first.values())
        rest = [folder for folder in os.environ["PATH"].split(os.pathsep) if Path(folder).name != "shims"]
        return path_without_rust(os.pathsep.join([*real, *rest]))


def _pins(constraints: str, instead: str | None) -> str:
    """The constraints, with the pins of another file in the place of those of the same name."""
    lines = (REQUIREMENTS / f"{constraints}.txt").read_text().splitlines()
    for pin in (REQUIREMENTS / f"{instead}.txt").read_text().splitlines() if instead else ():
        name = pin.split("==")[0]
        lines = [line for line in lines if "==" not in pin or not line.startswith(f"{name}==")] + [pin]
    return "\n".join(lines) + "\n"


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _clear(folder: Path, keep: str) -> None:
    for entry in folder.iterdir():
        if entry.name != keep:
            _remove(entry)
