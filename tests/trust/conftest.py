# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests that try to break the promises, in numbers; each makes its own throw-away hosts."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from pathlib import Path

for folder in ("..", "../kernel", "."):
    sys.path.insert(0, str((Path(__file__).parent / folder).resolve()))

with contextlib.suppress(ImportError):
    # Each look at legacy iptables is a process that imports this. Those of the tests inherit it.
    importlib.import_module("iptc")

# As on a managed host, where the distribution's Python has nftables' binding: a process less for each question.
_BINDING = Path("/usr/lib/python3/dist-packages/nftables/__init__.py")
if _BINDING.exists() and "nftables" not in sys.modules:
    _spec = importlib.util.spec_from_file_location(
        "nftables", _BINDING, submodule_search_locations=[str(_BINDING.parent)]
    )
    assert _spec is not None
    assert _spec.loader is not None
    sys.modules["nftables"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["nftables"])
