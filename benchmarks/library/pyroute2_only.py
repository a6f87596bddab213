# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module that imports pyroute2 and does nothing: what any task costs whose module is written with it."""

from __future__ import annotations

import pyroute2
from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    AnsibleModule(argument_spec={}).exit_json(changed=False, pyroute2=pyroute2.__name__)


if __name__ == "__main__":
    main()
