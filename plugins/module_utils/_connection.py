# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The SSH session by which this run came to the machine, if it came by one.

sshd tells its children of it in SSH_CONNECTION. sudo drops that, but the process that called sudo still has it. What a
terminal multiplexer has kept of a session that has ended is told by the kernel, which knows of no such connection.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from collections.abc import Iterator

from ._model import Connection

_VARIABLE = b"SSH_CONNECTION="
#: include/net/tcp_states.h
_TCP_ESTABLISHED = "01"


def connection() -> Connection | None:
    """The connection of the nearest SSH session that this process descends from; None if there is none."""
    below = ""
    for pid in _ancestors():
        text = _ssh_connection(pid)
        if below and text != below:
            # sshd itself, which has no such variable or that of a session around it.
            found = _read(below, pid)
            if found:
                return found
        below = text
    return None


def _ancestors() -> Iterator[int]:
    pid = os.getpid()
    while pid > 0:
        yield pid
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                # The name of the command, in brackets, may hold anything.
                pid = int(file.read().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return


def _ssh_connection(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            variables = file.read().split(b"\0")
    except OSError:
        return ""
    found = next((variable for variable in variables if variable.startswith(_VARIABLE)), _VARIABLE)
    return found[len(_VARIABLE) :].decode("ascii", "replace")


def _read(text: str, server: int) -> Connection | None:
    """``text`` is "remote port local port"; ``server`` the process that holds the socket, or did."""
    try:
        remote, remote_port, local, local_port = text.split()
        inode = os.stat(f"/proc/{server}/ns/net").st_ino
        found = Connection(inode, _plain(local), int(local_port), _plain(remote))
        if (found.local, found.port, found.remote, int(remote_port)) in _established(server):
            return found
    except (ValueError, OSError):
        pass
    return None


def _plain(text: str) -> str:
    """An address as the model has it: without a zone, and not IPv4 in the clothes of IPv6."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if address.version == 6 and address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(address)


def _established(pid: int) -> Iterator[tuple[str, int, str, int]]:
    """The TCP connections in the network namespace of a process."""
    for name in ("tcp", "tcp6"):
        try:
            with open(f"/proc/{pid}/net/{name}", encoding="ascii") as file:
                lines = file.readlines()[1:]
        except OSError:
            continue
        for line in lines:
            _number, local, remote, state = line.split()[:4]
            if state == _TCP_ESTABLISHED:
                yield (*_end(local), *_end(remote))


def _end(text: str) -> tuple[str, int]:
    address, _colon, port = text.partition(":")
    return _plain(proc_address(address)), int(port, 16)


def proc_address(text: str) -> str:
    """An address of /proc/net/tcp: 32-bit words of network order, each printed in the machine's own order."""
    words = [int(text[i : i + 8], 16) for i in range(0, len(text), 8)]
    packed = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)
