# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a lab has changed on things that are not its own: the little that no kernel object can remember.

Two labs may want the same of such a thing. Then each has it in its file, and the last one to go puts back what was
there before the first.

One file of JSON lines per lab in /run/nslab, which dies with the boot as the lab does. A line is appended *before* the
change that it speaks of, so that a run that is killed in between forgets nothing. A line that was not written whole
is the trace of a kill before its change, and counts as not written.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence

from ._model import Remembered
from ._own_files import RUN_DIRECTORY, open_file, replace_file, run_directory
from ._renames import once

_PREFIX, _SUFFIX = "lab-", ".jsonl"


def _file(lab: str) -> str:
    return f"{_PREFIX}{lab}{_SUFFIX}"


def labs() -> list[str]:
    """The labs of which something is remembered, sorted. What was done for no lab has none."""
    try:
        names = os.listdir(RUN_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return []
    files = [name for name in names if name.startswith(_PREFIX) and name.endswith(_SUFFIX)]
    return sorted({name[len(_PREFIX) : -len(_SUFFIX)] for name in files} - {""})


def recall(lab: str) -> tuple[Remembered, ...]:
    """What the lab has changed. What it changed more than once is there once, with its earliest ``before``."""
    if not os.path.lexists(f"{RUN_DIRECTORY}/{_file(lab)}"):
        return ()
    try:
        with run_directory() as folder:
            fd = open_file(_file(lab), os.O_RDONLY, folder)
    except FileNotFoundError:
        return ()
    with open(fd, encoding="utf-8") as file:
        return once(filter(None, map(_entry, file)))


def _entry(line: str) -> Remembered | None:
    try:
        kind, namespace, inode, thing, before, after, devices = json.loads(line)
        return Remembered(kind, namespace, inode, thing, before, after, tuple((name, index) for name, index in devices))
    except (ValueError, TypeError):
        return None


def append(lab: str, entries: Sequence[Remembered]) -> None:
    with run_directory() as folder:
        fd = open_file(_file(lab), os.O_WRONLY | os.O_APPEND | os.O_CREAT, folder)
    try:
        os.write(fd, _lines(entries).encode())
    finally:
        os.close(fd)


def _lines(entries: Sequence[Remembered]) -> str:
    # The leading line break ends a line that a killed run left half-written.
    return "".join(f"\n{json.dumps(entry)}\n" for entry in entries)


def rewrite(lab: str, entries: Sequence[Remembered]) -> None:
    """Put ``entries`` in the place of all that is remembered; without any the file goes."""
    with run_directory() as folder:
        if entries:
            replace_file(_file(lab), _lines(entries), folder)
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_file(lab), dir_fd=folder)
