# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A target of ansible-test integration with a virtual machine of its own as the host that the modules run on.

    python3 tests/vm/integration.py TARGET [--suite bookworm]

What of the collection has run there is noted in the copy of the checkout that ansible-test has worked on.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from ansibletest import AnsibleTest
from environment import newest_controller
from image import SUITES, key
from machine import down, up


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("target")
    parser.add_argument("--suite", choices=SUITES, default=SUITES[0])
    arguments = parser.parse_args()
    test = AnsibleTest(newest_controller(), f"integration-vm/{arguments.target}")
    test.stage()
    machine = up(f"integration-{arguments.target.replace('_', '-')}", arguments.suite)
    command, environment = test.integration_over_ssh(machine.port, key(), [arguments.target])
    whole = {**os.environ, **environment}
    try:
        sys.exit(subprocess.run(command, cwd=test.tree, env=whole, stdin=subprocess.DEVNULL, check=False).returncode)
    finally:
        down(machine.name)


if __name__ == "__main__":
    main()
