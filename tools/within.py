# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""within.py PURPOSE COMMAND...: run a command in the virtual environment that requirements/PURPOSE.txt describes."""

from __future__ import annotations

import os
import sys

from environment import CACHE, Unavailable, collection_tree, newest_controller, venv


def main(purpose: str, *command: str) -> None:
    commands = venv(purpose, newest_controller(), [purpose])
    os.environ["ANSIBLE_COLLECTIONS_PATH"] = str(collection_tree())
    os.environ["ANSIBLE_HOME"] = str(CACHE / "ansible")
    os.environ["PATH"] = os.pathsep.join([str(commands), os.environ["PATH"]])
    os.execvp(command[0], command)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except Unavailable as error:
        print(error, file=sys.stderr)
        sys.exit(2)
