# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sysctl files below /proc/sys/net, of the namespace that the calling thread is in.

The kernel resolves /proc/sys/net for the thread that opens a file, so the caller enters the namespace first.
A key is a path below /proc/sys: ``net/ipv4/conf/eth0.100/rp_filter``.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import os
from typing import Optional

from ._errors import KernelError

_ROOT = "/proc/sys/"

#: The sysctl directories whose next element names an interface; what follows never has a dot.
_PER_INTERFACE = ("net.ipv4.conf.", "net.ipv6.conf.", "net.ipv4.neigh.", "net.ipv6.neigh.", "net.mpls.conf.")


def key_of(name: str) -> str:
    """The path of a sysctl in any of its spellings.

    As sysctl(8) has it, the first separator tells which of ``.`` and ``/`` separates, and the other stands for a dot
    in an element. Besides, an interface name's own dots may stand as they are: ``net.ipv4.conf.eth0.100.rp_filter``.
    """
    if "/" in name and ("." not in name or name.index("/") < name.index(".")):
        return name.strip("/")
    for prefix in _PER_INTERFACE:
        if name.startswith(prefix):
            interface, _dot, last = name[len(prefix) :].rpartition(".")
            return prefix.replace(".", "/") + interface.replace("/", ".") + "/" + last
    return name.translate(str.maketrans("./", "/."))


def name_of(key: str) -> str:
    """A key as people write it: with dots, unless an element has a dot of its own."""
    return key if "." in key else key.replace("/", ".")


def normal(value: str) -> str:
    """A value with its white space folded, as values of several numbers are reported with tabs."""
    return " ".join(value.split())


def exists(key: str) -> bool:
    return os.path.isfile(_ROOT + key)


def writable(key: str) -> bool:
    """False for a key that this namespace can read but not set, as most of net.core outside the initial one."""
    try:
        return bool(os.stat(_ROOT + key).st_mode & 0o200)
    except OSError:
        return False


def read(key: str) -> Optional[str]:
    """The value of a sysctl; None if it does not exist here. Raises KernelError if it cannot be read."""
    try:
        with open(_ROOT + key, encoding="ascii", errors="surrogateescape") as file:
            return normal(file.read())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KernelError(error.errno or 0) from error


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
