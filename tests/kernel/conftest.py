# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every test of this folder runs on a throw-away host of its own, against the real kernel."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))

from throwaway import throwaway_host

with contextlib.suppress(ImportError):
    # Each look at legacy iptables is a process that imports this. Those of the tests inherit it.
    importlib.import_module("iptc")


@pytest.fixture
def host() -> Iterator[None]:
    """The test runs on a throw-away host."""
    with throwaway_host():
        yield
