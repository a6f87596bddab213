# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A throw-away host that is managed over ssh, from a namespace that stands for the controller's machine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from controller import Controller, Play, Run
from throwaway import eventually, inside, ip

CONTROLLER = "away"
ADDRESS, CONTROLLERS_ADDRESS = "198.18.0.2", "198.18.0.1"
INTERFACE = "eth0"
OPERATOR, OPERATOR_ID, PASSWORD = "operator", 65500, "open sesame"

_CONFIGURATION = """
ListenAddress 0.0.0.0
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
PidFile none
Subsystem sftp internal-sftp
"""


class Remote:
    """The managed host, seen from the controller."""

    def __init__(self, ansible: Controller, folder: Path, daemon: int, user: str) -> None:
        self.daemon = daemon
        self._ansible = ansible
        self._folder = folder
        self._inventory = folder / "inventory"
        options = f"-o UserKnownHostsFile={folder}/known_hosts -o StrictHostKeyChecking=yes -o ConnectTimeout=3"
        variables = {
            "ansible_host": ADDRESS,
            "ansible_user": user,
            "ansible_ssh_private_key_file": f"{folder}/key",
            "ansible_ssh_common_args": f"'{options} -o ServerAliveInterval=1 -o ServerAliveCountMax=2'",
            # The path of a control socket may be 107 bytes long.
            "ansible_control_path_dir": "/run/cp",
            "ansible_ssh_args": "'-o ControlMaster=auto -o ControlPersist=5s'",
            "ansible_python_interpreter": sys.executable,
        }
        self._inventory.write_text("managed " + " ".join(f"{key}={value}" for key, value in variables.items()))

    def run(self, tasks: list[dict[str, Any]], *options: str, **variables: Any) -> Run:
        """Run tasks on the host."""
        return self.run_plays([{"hosts": "managed", "gather_facts": False, "tasks": tasks}], *options, **variables)

    def run_plays(self, plays: list[Play], *options: str, **variables: Any) -> Run:
        arguments = ("--inventory", str(self._inventory), *options)
        return self._ansible.run(plays, *arguments, prefix=inside(CONTROLLER), **variables)

    def kill_sessions(self) -> None:
        """End every session at once, as when the controller's machine or the way to it dies."""
        found = subprocess.run(["pgrep", "-P", str(self.daemon)], capture_output=True, text=True, check=True)
        for session in found.stdout.split():
            os.kill(int(session), signal.SIGKILL)

    def reaches(self) -> bool:
        """Whether a new connection to sshd comes up."""
        command = [*inside(CONTROLLER), "ssh-keyscan", "-T", "2", ADDRESS]
        return ADDRESS in subprocess.run(command, capture_output=True, text=True, check=False).stdout


@contextlib.contextmanager
def managed(ansible: Controller, folder: Path, user: str = "root") -> Iterator[Remote]:
    """Have the throw-away host listen to ssh, on an interface that the controller is at the other end of.

    Whoever is not root may become root by sudo, with PASSWORD.
    """
    folder.mkdir()
    ip("netns", "add", CONTROLLER)
    ip("link", "add", INTERFACE, "type", "veth", "peer", "name", "eth0", "netns", CONTROLLER)
    for name, address in ((None, ADDRESS), (CONTROLLER, CONTROLLERS_ADDRESS)):
        where = ["-n", name] if name else []
        ip(*where, "address", "add", f"{address}/24", "dev", "eth0")
        ip(*where, "link", "set", "eth0", "up")
    for name in ("host_key", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{folder}/{name}"], check=True)
    host_key = (folder / "host_key.pub").read_text()
    (folder / "known_hosts").write_text(f"{ADDRESS} {host_key}")
    (folder / "sshd_config").write_text(_CONFIGURATION.format(folder=folder))
    os.makedirs("/run/sshd", 0o755)
    os.makedirs("/run/cp", 0o700)
    _have_users(folder)
    with (folder / "log").open("w") as log:
        command = [os.environ["NSLAB_SSHD"], "-D", "-e", "-f", f"{folder}/sshd_config"]
        daemon = subprocess.Popen(command, stderr=log, env={**os.environ, "LD_LIBRARY_PATH": _libraries()})
        remote = Remote(ansible, folder, daemon.pid, user)
        try:
            eventually(remote.reaches, "sshd answers")
            yield remote
        finally:
            daemon.kill()
            daemon.wait()


def _have_users(folder: Path) -> None:
    """sshd wants a user of its own, and root not locked. What only this throw-away host sees does for both.

    So do a user who may use sudo, and its password.
    """
    users = Path("/etc/passwd").read_text().splitlines()
    if not any(line.startswith("sshd:") for line in users):
        users.append("sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin")
    home = folder / "home"
    home.mkdir()
    os.chown(home, OPERATOR_ID, OPERATOR_ID)
    for parent in folder.parents:
        if parent.stat().st_uid == os.geteuid() and len(parent.parts) > 2:
            parent.chmod(parent.stat().st_mode | 0o011)
    folder.chmod(0o755)
    users.append(f"{OPERATOR}:x:{OPERATOR_ID}:{OPERATOR_ID}::{home}:/bin/sh")
    command = ["openssl", "passwd", "-6", PASSWORD]
    secret = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    secrets = [line for line in Path("/etc/shadow").read_text().splitlines() if not line.startswith("root:")]
    secrets += ["root:*:19000:0:99999:7:::", f"{OPERATOR}:{secret}:19000:0:99999:7:::"]
    sudoers = [f"Defaults:{OPERATOR} timestamp_timeout=0", f"{OPERATOR} ALL=(ALL:ALL) ALL"]
    for name, lines, mode in (("passwd", users, 0o644), ("shadow", secrets, 0o600), ("sudoers", sudoers, 0o440)):
        if Path(f"/etc/{name}").exists():
            (folder / name).write_text("\n".join([*lines, ""]))
            (folder / name).chmod(mode)
            subprocess.run(["mount", "--bind", f"{folder}/{name}", f"/etc/{name}"], check=True)


def _libraries() -> str:
    top = Path(os.environ["NSLAB_SSHD"]).parent.parent.parent
    return os.pathsep.join(
        str(path) for pattern in ("usr/lib/*-linux-gnu*", "lib/*-linux-gnu*") for path in top.glob(pattern)
    )
