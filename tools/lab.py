# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""make lab, make teardown, make audit: set up what the playbook needs, then run it on this machine."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from environment import ROOT, Unavailable, collection_tree, find_command, need_commands, newest_controller, venv


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("playbook", choices=["lab", "teardown", "audit"])
    parser.add_argument("topology", nargs="?", default="", help="a topology document; without it, the routed lab")
    arguments = parser.parse_args()

    extra = []
    packages = {"ip": "iproute2"}
    if arguments.topology:
        topology = Path(arguments.topology).resolve()
        if not topology.is_file():
            raise Unavailable(f"There is no topology document at {arguments.topology}.")
        extra = ["--extra-vars", json.dumps({"topology_file": str(topology)})]
        packages |= translation_packages(topology)
    become = become_options()
    need_commands(packages)
    commands = venv("lab", newest_controller(), ["lab"])

    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(collection_tree()),
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "yaml",
        # The lab is on this machine; that there is no inventory is not worth a warning.
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false",
        # Ansible refuses to run in a locale that is not UTF-8.
        "LC_ALL": "C.UTF-8",
        "ANSIBLE_NOCOWS": "true",
        "ANSIBLE_PIPELINING": "true",
    }
    command = [str(commands / "ansible-playbook"), *become, *extra, f"playbooks/{arguments.playbook}.yml"]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def translation_packages(topology: Path) -> dict[str, str]:
    """What a document needs whose namespaces translate addresses, by its words: nothing can read YAML yet."""
    text = topology.read_text(encoding="utf-8", errors="replace")
    return {"nft": "nftables"} if re.search(r"\b[sd]nat\b", text) else {}


def become_options() -> list[str]:
    """How ansible-playbook becomes root here."""
    if os.geteuid() == 0:
        return []
    sudo = find_command("sudo")
    if sudo and subprocess.run([sudo, "-n", "true"], capture_output=True, check=False).returncode == 0:
        return ["--become"]
    if sudo and sys.stdin.isatty():
        return ["--become", "--ask-become-pass"]
    raise Unavailable("Network namespaces need root: run this as root, or from a terminal as a user who may use sudo.")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Unavailable as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
