# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sysctl files below /proc/sys/net, of the namespace that the calling thread is in.

The kernel resolves /proc/sys/net for the thread that opens a file, so the caller enters the namespace first.
Keys are those of _sysctl_keys.py.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import os

from ._errors import KernelError
from ._sysctl_keys import normal

_ROOT = "/proc/sys/"


def exists(key: str) -> bool:
    return os.path.isfile(_ROOT + key)


def beside(key: str) -> list[str]:
    """The sysctls that stand in the same directory; none if there is no such directory either."""
    directory = key.rpartition("/")[0]
    try:
        return [f"{directory}/{name}" for name in os.listdir(_ROOT + directory) if exists(f"{directory}/{name}")]
    except OSError:
        return []


def writable(key: str) -> bool:
    """False for a key that this namespace can read but not set, as most of net.core outside the initial one."""
    try:
        return bool(os.stat(_ROOT + key).st_mode & 0o200)
    except OSError:
        return False


def read(key: str) -> str | None:
    """The value of a sysctl; None if it does not exist here, "" if it has none."""
    try:
        with open(_ROOT + key, encoding="ascii", errors="surrogateescape") as file:
            return normal(file.read())
    except FileNotFoundError:
        return None
    except OSError:
        # One that was never set (stable_secret), or that can only be written (route.flush), has no value.
        return ""


def write(key: str, value: str) -> None:
    """Set a sysctl. Raises KernelError with the kernel's errno."""
    try:
        fd = os.open(_ROOT + key, os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        raise KernelError(error.errno or 0) from error
    try:
        os.write(fd, value.encode() + b"\n")
    except OSError as error:
        raise KernelError(error.errno or 0) from error
    finally:
        os.close(fd)
