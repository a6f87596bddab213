# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of tests/kernel in a virtual machine: on a distribution's kernel, with its Python and its pyroute2.

    python3 tests/vm/kernel.py NAME [--suite bookworm] [ARGUMENTS OF PYTEST ...]

The machine has no network: what the tests are run with goes along, as far as it is Python alone. It stays when they
have ended (`python3 tests/vm/machine.py down NAME` ends it).
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from environment import ROOT, venv
from image import SUITES
from machine import Machine, up

#: Where it all stands in the machine.
HOME = "/root/kernel-tests"
TREE = f"{HOME}/ansible_collections/nslab/netns"
#: What of a virtual environment pytest needs, and the documents, generated and of the documentation.
PACKAGES = ("*pytest*", "py.py", "pluggy*", "iniconfig*", "packaging*", "pygments*", "execnet*", "xdist*", "*yaml*")
PACKAGES_OF_HYPOTHESIS = ("*hypothesis*", "sortedcontainers*", "attr*")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name")
    parser.add_argument("--suite", choices=SUITES, default=SUITES[0])
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="ARGUMENTS OF PYTEST")
    arguments = parser.parse_args()
    machine = up(arguments.name, arguments.suite)
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    _send(machine, ROOT, [name for name in names if name and (ROOT / name).exists()], TREE)
    folder = next((venv("test-3.11", (3, 11), ["test"]).parent / "lib").glob("python*/site-packages"))
    found = [path.name for pattern in (*PACKAGES, *PACKAGES_OF_HYPOTHESIS) for path in folder.glob(pattern)]
    _send(machine, folder, sorted(set(found)), f"{HOME}/packages")
    words = shlex.join(["python3", "-m", "pytest", *(arguments.arguments or ["tests/kernel"])])
    command = f"cd {TREE} && PYTHONPATH={HOME}:{HOME}/packages {words}"
    sys.exit(subprocess.run(machine.ssh_command(command), check=False).returncode)


def _send(machine: Machine, folder: Path, names: Sequence[str], to: str) -> None:
    """Put files and folders into a folder of the machine that has nothing else."""
    packed = subprocess.run(
        ["tar", "--create", "--exclude=__pycache__", "--null", "--files-from=-"],
        cwd=folder, input="\0".join(names).encode(), stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    unpack = f"rm -rf {to} && mkdir -p {to} && tar --extract --no-same-owner --directory {to}"
    subprocess.run(machine.ssh_command(unpack), input=packed.stdout, check=True)


if __name__ == "__main__":
    main()
