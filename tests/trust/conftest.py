# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests that try to break the promises, in numbers; each makes its own throw-away hosts."""

from __future__ import annotations

import contextlib
import importlib
import sys
from pathlib import Path

for folder in ("..", "../kernel", "."):
    sys.path.insert(0, str((Path(__file__).parent / folder).resolve()))

with contextlib.suppress(ImportError):
    # Each look at legacy iptables is a process that imports this. Those of the tests inherit it.
    importlib.import_module("iptc")

importlib.import_module("nftables_binding").provide()
