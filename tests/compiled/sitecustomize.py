# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps the bytecode of what is imported from archives, as Python itself does of what is imported from folders.

Ansible sends each module as an archive of its sources, of which Python compiles every file twice (zipimport compiles it
to know its name): a third of the time that a playbook takes. A Python that has this file compiles each once for all
tests. It keeps them in the folder `compiled` beside this file, if there is one, and finds them by their contents, so
that they are never those of another version.
"""

from __future__ import annotations

import _imp
import contextlib
import marshal
import os
import sys
import zipimport
from types import CodeType

_compile = zipimport._compile_source  # type: ignore[attr-defined]
_FOLDER = os.path.join(os.path.dirname(__file__), "compiled")


def _compiled(path: str, source: bytes) -> CodeType:
    name = f"{os.path.basename(path)}-{_imp.source_hash(0, source).hex()}.{sys.implementation.cache_tag}"
    kept = os.path.join(_FOLDER, name)
    with contextlib.suppress(OSError, EOFError, ValueError), open(kept, "rb") as file:
        return marshal.load(file)  # noqa: S302 - it was written below
    code: CodeType = _compile(path, source)
    try:
        with open(f"{kept}.{os.getpid()}", "wb") as file:
            marshal.dump(code, file)
        os.replace(f"{kept}.{os.getpid()}", kept)
    except OSError:
        pass  # Whoever may not write there compiles again.
    return code


zipimport._compile_source = _compiled  # type: ignore[attr-defined]
