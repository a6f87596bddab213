# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where pyroute2 is: beside this Python, or in the virtual environment that the role bootstrap makes.

pyroute2 is Python alone, so every Python can have it from there. Nobody has to say which interpreter, and none is
started anew: ansible-core's own way to do that sends the module's arguments through a pipe that takes 64 KiB.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from typing import NamedTuple

from .._errors import Missing

#: The virtual environment, or a symlink to it.
VENV = "/usr/local/lib/nslab/venv"

#: pyroute2 of Debian 12.
OLDEST = "0.7.2"

_METADATA = re.compile(r"pyroute2-(\d+(?:\.\d+)*)[^-]*(?:-py[\d.]+)?\.(?:dist|egg)-info")


class Library(NamedTuple):
    """A pyroute2 that is there. ``version`` is empty if it does not say which it is."""

    version: str
    folder: str

    @property
    def is_old(self) -> bool:
        return bool(self.version) and _numbers(self.version) < _numbers(OLDEST)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def find() -> Library | None:
    """The pyroute2 that is imported from now on; None if none is new enough. Cheap: it imports nothing."""
    usual = _usual()
    if usual and not usual.is_old:
        return usual
    for library in _in_venv():
        if not library.is_old:
            # Before an old one; there is nothing else in it that could go before anything.
            sys.path.insert(0, library.folder)
            importlib.invalidate_caches()
            return library
    return None


def require() -> None:
    """Raise Missing, with what helps, if there is no pyroute2 that is new enough."""
    if find() is None:
        found = _usual()
        what = f"in {found.folder} is {found.version}, too old," if found else "is not installed"
        raise Missing(
            f"the Python library pyroute2 ({OLDEST} or newer) {what} for {sys.executable} on the managed host; "
            "the role nslab.netns.bootstrap installs it, from a package or in a virtual environment of its own; or "
            "install the distribution's package, if it is new enough (Debian, Ubuntu, Fedora: python3-pyroute2)"
        )


def _usual() -> Library | None:
    spec = importlib.util.find_spec("pyroute2")
    if spec is None or not spec.origin:
        return None
    folder = os.path.dirname(os.path.dirname(spec.origin))
    return Library(_version(folder), folder)


def _in_venv() -> Iterator[Library]:
    """What is in the virtual environment, if it is root's alone: it is root who imports it."""
    top = f"{VENV}/lib"
    if all(map(_is_roots, (os.path.dirname(VENV), VENV))):
        with contextlib.suppress(OSError):
            for name in sorted(os.listdir(top)):
                folder = f"{top}/{name}/site-packages"
                if os.path.isfile(f"{folder}/pyroute2/__init__.py"):
                    yield Library(_version(folder), folder)


def _is_roots(folder: str) -> bool:
    try:
        found = os.stat(folder)
    except OSError:
        return False
    return found.st_uid == 0 and not found.st_mode & 0o022


def _version(folder: str) -> str:
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            match = _METADATA.fullmatch(name)
            if match:
                return match.group(1)
    return ""
