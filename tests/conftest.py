# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets `import ansible_collections.nslab.netns` find this checkout; gives each run of tests a folder for its files."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

with contextlib.suppress(ImportError):
    from hypothesis import settings

    # The same examples each time, so that a change is what makes a test fail; others with each seed.
    settings.register_profile("nslab", derandomize="NSLAB_SEED" not in os.environ)
    settings.load_profile("nslab")

ROOT = Path(__file__).resolve().parent.parent

# The copy that ansible-test works on stands in a collection tree already.
if ROOT.parts[-3:] != ("ansible_collections", "nslab", "netns"):
    sys.path.insert(0, str(ROOT / "tools"))
    from environment import collection_tree

    sys.path[0] = str(collection_tree())


_BASETEMP = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Give each run a folder of its own for the files of tests, unless it was told which.

    The one that all runs of a user share, /tmp/pytest-of-USER, is closed to all others at each start: then the other
    users that the tests of a run that is under way have to do with find nothing any more.
    """
    # A worker of xdist has been told.
    if config.option.basetemp is None:
        folder = tempfile.mkdtemp(prefix="nslab-tests-")
        Path(folder).chmod(0o711)
        config.stash[_BASETEMP] = folder
        config.option.basetemp = f"{folder}/run"


def pytest_unconfigure(config: pytest.Config) -> None:
    if _BASETEMP in config.stash:
        shutil.rmtree(config.stash[_BASETEMP], ignore_errors=True)
