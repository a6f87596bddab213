# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""make shell: a shell inside a namespace, or one command there."""

from __future__ import annotations

import argparse
import os
import shlex
import sys

from environment import ROOT, Unavailable, as_root

sys.path.insert(0, str(ROOT / "plugins/module_utils"))

from _entering import inside

_NAMES = "/run/netns"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("node", help="the namespace")
    parser.add_argument("command", nargs="?", default="", help="what to run there; without it, a shell")
    arguments = parser.parse_args()

    names = sorted(os.listdir(_NAMES)) if os.path.isdir(_NAMES) else []
    if arguments.node not in names:
        there = f"there are {', '.join(names)}" if names else "there are none; 'make lab' builds some"
        raise Unavailable(f"Say in which namespace: make shell node=NAME; {there}.")
    # Debian's bash shows it in its prompt.
    command = ["env", f"debian_chroot={arguments.node}", os.environ.get("SHELL") or "/bin/sh"]
    if arguments.command:
        command = shlex.split(arguments.command)
    whole = as_root(inside(arguments.node, command))
    os.execvp(whole[0], whole)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Unavailable as error:
        print(error, file=sys.stderr)
        sys.exit(2)
