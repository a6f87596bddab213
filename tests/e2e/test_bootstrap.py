# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role bootstrap, for a Python that has no pyroute2, on a host without a network."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from controller import ROOT, Controller, apply_role, play
from throwaway import named_namespaces, own_local_lib

pytestmark = pytest.mark.once

PLACE = Path("/usr/local/lib/nslab/venv")
DUO = {"name": "duo", "namespaces": {"one": {"bridges": {"br0": {"stp": True}}}}}
USE = [play("use", tasks=[{"nslab.netns.topology": {"topology": DUO}}])]
UNUSE = [play("unuse", tasks=[{"nslab.netns.topology": {"lab": "duo", "state": "absent"}}])]
BOOTSTRAP = [apply_role("bootstrap")]


@pytest.fixture(autouse=True)
def local_lib(host: None) -> None:
    own_local_lib()


@pytest.fixture
def bare() -> str:
    """A Python without pyroute2."""
    python = str(getattr(sys, "_base_executable", ""))
    script = "import importlib.util as u, ensurepip; exit(u.find_spec('pyroute2') is not None)"
    if subprocess.run([python, "-I", "-c", script], capture_output=True, check=False).returncode:
        pytest.skip(f"{python} has pyroute2, or no ensurepip")
    return python


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """The wheels, without that of pip: this Python has one."""
    found = os.environ.get("NSLAB_WHEELS")
    if not found:
        pytest.skip("there are no wheels: make test stage=e2e downloads them, and the variable NSLAB_WHEELS says where")
    folder = tmp_path / "wheels"
    folder.mkdir()
    for wheel in Path(found).glob("pyroute2-*.whl"):
        shutil.copy(wheel, folder)
    return folder


def everything() -> list[str]:
    return sorted(str(path) for path in Path("/usr/local/lib").rglob("*"))


def test_a_host_that_has_all_is_left_alone(ansible: Controller) -> None:
    for options in (("--check",), ()):
        run = ansible.run(BOOTSTRAP, *options).succeeded()
        assert run.changed == 0
        # Nothing was looked for that is not missing.
        assert "Learn which distribution it is] ******************" in run.stdout
        assert "skipping: [localhost]" in run.stdout
    assert everything() == []


def test_wheels_for_a_python_without_pyroute2(ansible: Controller, bare: str, wheels: Path) -> None:
    variables = {"ansible_python_interpreter": bare, "bootstrap_wheels": str(wheels)}
    run = ansible.run(USE, **variables).failed()
    assert f"pyroute2 (0.7.2 or newer) is not installed for {bare} on the managed host" in run.words
    assert "the role nslab.netns.bootstrap installs it" in run.words

    predicted = ansible.run(BOOTSTRAP, "--check", **variables).succeeded()
    assert predicted.changed > 0
    assert everything() == []
    assert ansible.run(BOOTSTRAP, **variables).succeeded().changed > 0
    before = everything()
    for options in (("--check",), ()):
        assert ansible.run(BOOTSTRAP, *options, **variables).succeeded().changed == 0
    assert everything() == before
    # A later play, with the same Python, needs to know nothing.
    ansible.run(USE, ansible_python_interpreter=bare).succeeded()
    assert named_namespaces() == ["one"]
    ansible.run(UNUSE, ansible_python_interpreter=bare).succeeded()
    # So does one with the Python of the environment, which has the packages of the other one as well.
    ansible.run(USE, ansible_python_interpreter=f"{PLACE}/bin/python").succeeded()
    # Another version is pinned.
    (PLACE / "nslab-requirements.txt").write_text("pyroute2==0.7.2\n")
    assert ansible.run(BOOTSTRAP, "--check", **variables).succeeded().changed > 0
    # A run was killed when it had put the old one aside, or had put the new one in its place.
    new, old = (PLACE.with_name(f"{PLACE.name}.{end}") for end in ("new", "old"))
    for is_in_place in (False, True):
        shutil.copytree(PLACE, new, symlinks=True)
        shutil.copytree(PLACE, old, symlinks=True)
        if not is_in_place:
            shutil.rmtree(PLACE)
        assert ansible.run(BOOTSTRAP, **variables).succeeded().changed > 0
        assert ansible.run(BOOTSTRAP, **variables).succeeded().changed == 0
        ansible.run(USE, ansible_python_interpreter=bare).succeeded()
        assert everything() == before
        (PLACE / "nslab-requirements.txt").write_text("pyroute2==0.7.2\n")


def test_one_that_is_too_old_and_another_place(ansible: Controller, bare: str, wheels: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    (old / "pyroute2-0.5.14.dist-info").mkdir(parents=True)
    (old / "pyroute2").mkdir()
    (old / "pyroute2/__init__.py").write_text("raise ImportError('it is too old')\n")
    ansible.environment["PYTHONPATH"] = str(old)
    place = Path("/usr/local/lib/elsewhere/venv")
    variables = {
        "ansible_python_interpreter": bare,
        "bootstrap_wheels": str(wheels),
        "bootstrap_venv": str(place),
    }
    run = ansible.run(USE, **variables).failed()
    assert f"pyroute2 (0.7.2 or newer) in {old} is 0.5.14, too old, for {bare} on the managed host" in run.words
    ansible.run(BOOTSTRAP, **variables).succeeded()
    assert PLACE.resolve() == place
    assert ansible.run(BOOTSTRAP, **variables).succeeded().changed == 0
    ansible.run(USE, **variables).succeeded()
    # What others have put somewhere stays.
    full = Path("/usr/local/lib/full")
    full.mkdir()
    (full / "data").write_text("precious")
    for options in (("--check",), ()):
        refused = ansible.run(BOOTSTRAP, *options, **{**variables, "bootstrap_venv": str(full)}).failed()
        assert f"the folder {full} is neither empty nor a virtual environment" in refused.words
    assert PLACE.resolve() == place
    # One that cannot be made anew stays as it is.
    (place / "nslab-requirements.txt").write_text("pyroute2==0.7.2\n")
    (wheel,) = wheels.iterdir()
    right = wheel.read_bytes()
    wheel.write_bytes(right + b"more")
    assert "DO NOT MATCH THE HASHES" in ansible.run(BOOTSTRAP, **variables).failed().words
    ansible.run(USE, **variables).succeeded()
    wheel.write_bytes(right)
    # It goes where it is said to be, and comes back: with pip from the newest of two wheels.
    shutil.copy(next(Path(os.environ["NSLAB_WHEELS"]).glob("pip-*.whl")), wheels)
    (wheels / "pip-9.0.3-py2.py3-none-any.whl").write_text("too old for this")
    for another in (PLACE, Path("/usr/local/lib/third"), place):
        variables["bootstrap_venv"] = f"{another}/"
        assert ansible.run(BOOTSTRAP, "--check", **variables).succeeded().changed > 0
        ansible.run(BOOTSTRAP, **variables).succeeded()
        assert (PLACE.resolve(), PLACE.is_symlink()) == (another, another != PLACE)
        assert ansible.run(BOOTSTRAP, **variables).succeeded().changed == 0
        ansible.run(USE, **variables).succeeded()
        assert not [path for path in everything() if path.endswith((".new", ".old"))]
    # What others can write to is not imported by root.
    place.chmod(0o777)
    assert "too old" in ansible.run(USE, **variables).failed().words


def test_wheels_that_are_not_there_or_are_others(ansible: Controller, bare: str, wheels: Path, tmp_path: Path) -> None:
    variables = {"ansible_python_interpreter": bare, "bootstrap_wheels": str(tmp_path / "nowhere")}
    for options in (("--check",), ()):
        words = ansible.run(BOOTSTRAP, *options, **variables).failed().words
        assert f"bootstrap_wheels: the folder {tmp_path}/nowhere has no wheel of pyroute2-" in words
    assert everything() == []
    (wheel,) = wheels.iterdir()
    with wheel.open("ab") as file:
        file.write(b"more")
    run = ansible.run(BOOTSTRAP, **{**variables, "bootstrap_wheels": str(wheels)}).failed()
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in run.words
    assert "is not installed for" in ansible.run(USE, **variables).failed().words


def test_the_role_and_the_constraints_pin_the_same() -> None:
    (pinned,) = re.findall(
        r"^pyroute2==\S+", (ROOT / "roles/bootstrap/files/requirements.txt").read_text(), re.MULTILINE
    )
    assert pinned in (ROOT / "requirements/constraints.txt").read_text().splitlines()
