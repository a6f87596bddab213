# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets `import ansible_collections.nslab.netns` find this checkout, wherever it stands."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

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
