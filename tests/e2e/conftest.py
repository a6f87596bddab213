# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every test has a throw-away host, and an ansible-playbook that manages it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))

from controller import Controller
from throwaway import throwaway_host


@pytest.fixture(autouse=True)
def host() -> Iterator[None]:
    with throwaway_host():
        yield


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("archives")


@pytest.fixture
def ansible(tmp_path: Path, archives: Path) -> Controller:
    return Controller(tmp_path / "ansible", archives)
