# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets the runs of ansible-playbook share the archives of modules that they make.

Ansible looks for all that a module imports, and packs it, once in each run. For playbooks as short as those of the
tests that is much of the time that they take.
"""

from __future__ import annotations

import os
from typing import Any

from ansible import constants
from ansible.plugins.callback import CallbackBase


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Puts a folder where Ansible keeps the archives of a run, before there are any."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "keep_archives"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_start(self, playbook: Any) -> None:
        """Called before the first task of a run."""
        os.symlink(os.environ["NSLAB_ARCHIVES"], os.path.join(constants.DEFAULT_LOCAL_TMP, "ansiballz_cache"))
