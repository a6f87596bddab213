# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run needs: Debian packages, Python interpreters, virtual environments, the collection tree.

Everything is made once, in the ignored folder .cache of the checkout, and made again only when what it was made from
has changed. What is there already is not mentioned. Standard library only: this runs before anything is installed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
COLLECTIONS = CACHE / "collections"
REQUIREMENTS = ROOT / "requirements"

#: What PyPI has no wheel of, so that pip compiles it, and what that takes. Python's own headers are not needed.
COMPILED = {"python-iptables": {"gcc": "gcc libc6-dev"}}

Version = tuple[int, int]

# ansible-core 2.19, the oldest that the collection supports, needs this on the controller.
OLDEST_CONTROLLER = (3, 11)


class Unavailable(Exception):
    """Something is missing that a run cannot do without; the text says what, and what to do."""


def say(line: str) -> None:
    print(line, flush=True)


def as_root(command: list[str]) -> list[str]:
    """The command as root may run it: itself, or through sudo."""
    if os.geteuid() == 0:
        return command
    sudo = find_command("sudo")
    if sudo is None:
        raise Unavailable(f"This needs root: run it as root, or install sudo (wanted: {' '.join(command)}).")
    return [sudo, *command]


def find_command(name: str) -> str | None:
    """Where a command is. Debian keeps ip and nft in /usr/sbin, which is not on everybody's PATH."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]))


# Debian packages


def need_commands(packages: Mapping[str, str]) -> None:
    """Install the Debian packages of each command that is missing: {command: packages with spaces between}."""
    missing = {name for command, names in packages.items() if find_command(command) is None for name in names.split()}
    if missing:
        _apt_install(sorted(missing))


def _apt_install(packages: list[str]) -> None:
    names = " ".join(packages)
    if find_command("apt-get") is None:
        raise Unavailable(f"Please install the equivalent of these Debian packages, then try again: {names}")
    say(f"Installing Debian packages that are missing: {names}")
    apt_get = as_root(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"])
    log = _log("apt-get")
    # A new machine has no package lists, an old one has lists that name versions which are gone.
    _logged([*apt_get, "update"], log)
    _logged([*apt_get, "install", "--yes", "--no-install-recommends", *packages], log)


#: What Debian's sshd is made of, and what a small system lacks of it, where that has these names.
_SSHD_PACKAGES = ("openssh-sftp-server", "openssh-server")
_SSHD_LIBRARIES = ("libnsl2", "libtirpc3", "libwrap0")


def sshd() -> str:
    """The path of an sshd: the machine's, or one of our own in .cache, since installing the package would start it."""
    installed = find_command("sshd")
    if installed:
        return installed
    folder = CACHE / "sshd"
    own = folder / "usr/sbin/sshd"
    if own.exists():
        return str(own)
    if find_command("apt-get") is None:
        raise Unavailable("Please install an OpenSSH server, then try again. It need not run.")
    say("Unpacking an sshd in .cache/sshd")
    log = _log("sshd")
    _logged(as_root(["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300", "update"]), log)
    shutil.rmtree(folder, ignore_errors=True)
    packages = folder / "packages"
    packages.mkdir(parents=True)
    for name in _SSHD_LIBRARIES:
        with contextlib.suppress(Unavailable):
            _logged(["apt-get", "-qq", "download", name], log, packages)
    _logged(["apt-get", "-qq", "download", *_SSHD_PACKAGES], log, packages)
    for package in sorted(packages.glob("*.deb")):
        _logged(["dpkg-deb", "--extract", str(package), str(folder)], log)
    return str(own)


# Python interpreters


def pythons() -> dict[Version, str]:
    """Every Python of this machine that really runs; where a version is there twice, the one on the PATH.

    Running each is the only way to know: pyenv's python3.13 on the PATH fails unless 3.13 is its active version.
    """
    names = ["python3", *(f"python3.{minor}" for minor in range(9, 20)), "/usr/bin/python3"]
    candidates = [sys.executable, *filter(None, map(shutil.which, names))]
    candidates += sorted(str(path) for path in Path.home().glob(".pyenv/versions/3.*/bin/python3"))
    found: dict[Version, str] = {}
    for candidate in dict.fromkeys(candidates):
        script = "import sys; print(*sys.version_info[:2], sys.executable)"
        answer = subprocess.run([candidate, "-c", script], capture_output=True, text=True, check=False)
        if answer.returncode == 0:
            major, minor, executable = answer.stdout.strip().split(" ", 2)
            found.setdefault((int(major), int(minor)), executable)
    return found


def newest_controller() -> Version:
    """The newest Python here that can take an ansible-core of ours."""
    version = max(pythons())
    if version < OLDEST_CONTROLLER:
        raise Unavailable(
            f"Python 3.11 or newer is needed for ansible-core; the newest on this machine is {dotted(version)}."
        )
    return version


def dotted(version: Version) -> str:
    return ".".join(map(str, version))


# Virtual environments


def venv(purpose: str, version: Version, requirements: Iterable[str], instead: str | None = None) -> Path:
    """The virtual environment for a purpose, as the folder of its commands.

    The files are names of requirements/, held by constraints.txt. `instead` is one more file whose pins replace the
    constrained ones.
    """
    python = pythons()[version]
    home = CACHE / f"venv-{purpose}"
    files = [REQUIREMENTS / f"{name}.txt" for name in requirements]
    constraints = REQUIREMENTS / "constraints.txt"
    overriding = [REQUIREMENTS / f"{instead}.txt"] if instead else []
    recipe = hashlib.sha256("\0".join([python, str(home)]).encode())
    for file in [constraints, *files, *overriding]:
        recipe.update(file.read_bytes())
    stamp = home / "made-from"
    if stamp.exists() and stamp.read_text() == recipe.hexdigest():
        return home / "bin"

    names = {line for file in [*files, *overriding] for line in file.read_text().splitlines()}
    for name in names & COMPILED.keys():
        need_commands(COMPILED[name])
    say(f"Making .cache/{home.name} with Python {dotted(version)}")
    log = _log(home.name)
    _require_ensurepip(python, version)
    _logged([python, "-m", "venv", "--clear", str(home)], log)
    install = [str(home / "bin/python"), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    wanted = [argument for file in files for argument in ("--requirement", str(file))]
    _logged([*install, "--constraint", str(constraints), *wanted], log)
    for file in overriding:
        _logged([*install, "--no-deps", "--requirement", str(file)], log)
    stamp.write_text(recipe.hexdigest())
    return home / "bin"


def _require_ensurepip(python: str, version: Version) -> None:
    """Debian splits ensurepip off into a package of its own; `-m venv` fails half-way without it."""
    if subprocess.run([python, "-c", "import ensurepip"], capture_output=True, check=False).returncode == 0:
        return
    if not python.startswith("/usr/bin/"):
        raise Unavailable(
            f"{python} has no ensurepip module, so it cannot make a virtual environment: please reinstall it."
        )
    _apt_install([f"python{dotted(version)}-venv"])


def wheels(commands: Path) -> Path:
    """A folder with the wheels that the role bootstrap installs, and that of pip, for hosts without a network."""
    folder = CACHE / "wheels"
    pinned = ROOT / "roles/bootstrap/files/requirements.txt"
    stamp = folder / "made-from"
    recipe = pinned.read_text() + (REQUIREMENTS / "constraints.txt").read_text()
    if not stamp.exists() or stamp.read_text() != recipe:
        say("Downloading wheels to .cache/wheels")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        download = [str(commands / "python"), "-m", "pip", "download", "--disable-pip-version-check", "--no-deps"]
        log = _log("wheels")
        _logged([*download, "--dest", str(folder), "--require-hashes", "--requirement", str(pinned)], log)
        _logged([*download, "--dest", str(folder), "--constraint", str(REQUIREMENTS / "constraints.txt"), "pip"], log)
        stamp.write_text(recipe)
    return folder


# The collection tree


def collection_tree() -> Path:
    """A collections path in which the checkout stands as nslab.netns: for ansible-playbook and for Python imports."""
    link = COLLECTIONS / "ansible_collections/nslab/netns"
    # Relative, so that the tree survives a checkout that is moved.
    target = os.path.relpath(ROOT, link.parent)
    if not link.is_symlink() or os.readlink(link) != target:
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(target)
    return COLLECTIONS


def compiling_once(folder: Path) -> Path:
    """A folder for PYTHONPATH, or one that Python looks into anyway: it compiles what Ansible sends it only once."""
    (folder / "compiled").mkdir(parents=True, exist_ok=True)
    shutil.copy2(ROOT / "tests/compiled/sitecustomize.py", folder)
    return folder


def path_without_rust(path: str) -> str:
    """A PATH for pip, which asks rustc for its version at each start and waits for the answer; nobody needs it."""
    return os.pathsep.join(folder for folder in path.split(os.pathsep) if not (Path(folder) / "rustc").exists())


# Running things whose output matters only when they fail


def _log(name: str) -> Path:
    log = CACHE / "log" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    return log


def _logged(command: list[str], log: Path, folder: Path | None = None) -> None:
    environment = {**os.environ, "PATH": path_without_rust(os.environ.get("PATH", os.defpath))}
    with log.open("ab") as output:
        done = subprocess.run(
            command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=environment, cwd=folder, check=False
        )
    code = done.returncode
    if code:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise Unavailable(f"{tail}\nThis failed with exit status {code}: {' '.join(command)}")
