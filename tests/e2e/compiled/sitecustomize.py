# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps the bytecode of what is imported from archives, as Python itself does of what is imported from folders.

Ansible sends each module as an archive of its sources, of which Python compiles every file twice (zipimport compiles it
to know its name): half of the time that a playbook takes. With this folder on PYTHONPATH each is compiled once for all
tests. It is found by its contents, so that it is never another file's.
"""

from __future__ import annotations

import _imp
import marshal
import os
import sys
import zipimport
from types import CodeType

_compile = zipimport._compile_source  # type: ignore[attr-defined]


def _compiled(path: str, source: bytes) -> CodeType:
    folder = os.environ.get("NSLAB_COMPILED")
    if not folder:
        return _compile(path, source)
    # Sources of the same text at other places say other names in their tracebacks.
    name = os.path.basename(path) + _imp.source_hash(0, source).hex()
    kept = f"{folder}/{name}.{sys.implementation.cache_tag}"
    try:
        with open(kept, "rb") as file:
            return marshal.load(file)  # noqa: S302 - it was written below
    except (OSError, EOFError, ValueError):
        code = _compile(path, source)
    try:
        with open(f"{kept}.{os.getpid()}", "wb") as file:
            marshal.dump(code, file)
        os.replace(f"{kept}.{os.getpid()}", kept)
    except OSError:
        pass  # Whoever may not write there compiles again.
    return code


zipimport._compile_source = _compiled  # type: ignore[attr-defined]
