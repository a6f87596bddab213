# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """A module names the standard fragment and one of the others: changes if it changes the host, info if it looks."""

    DOCUMENTATION = r"""
options: {}
requirements:
  - Linux
  - Python 3.9 or newer on the target
  - pyroute2 0.7.2 or newer on the target (C(python3-pyroute2) on Debian and Ubuntu)
  - root on the target
attributes:
  action_group:
    description: Use C(group/nslab.netns.all) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - nslab.netns.all
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying target.
  diff_mode:
    description: Will return details on what has changed or, in C(check_mode), on what would change, when in diff mode.
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
      - This assumes that the system controlled by the module has not changed in a relevant way.
  platform:
    description: Target OS families that can be operated against.
    support: full
    platforms: Linux
"""

    CHANGES = r"""
options: {}
attributes:
  check_mode:
    support: full
    details:
      - The prediction is the very plan that would be applied.
      - A namespace that an earlier task of the same check run would have made is part of the prediction, not an error.
  diff_mode:
    support: full
  idempotent:
    support: full
notes:
  - Only one run at a time changes a host. Another one waits for a bounded time, then fails and names the other.
"""

    INFO = r"""
options: {}
attributes:
  check_mode:
    support: full
    details:
      - This action does not modify state.
  diff_mode:
    support: N/A
    details:
      - This action does not modify state.
  idempotent:
    support: full
    details:
      - This action does not modify state.
"""
