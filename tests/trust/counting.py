# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How often something was tried. `make test` adds it up over all processes and prints it in the end."""

from __future__ import annotations

import json
import os


def count(what: str, number: int = 1) -> None:
    path = os.environ.get("NSLAB_COUNTS")
    if path:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps([what, number]) + "\n")
