# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ICMP as the sockets of the probes have it: messages, errors, and times of arrival.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

BATCH = 64  # messages taken at once, so that a flood does not hold up timers and other sockets
PACKET = 2048  # bytes read of a message, far more than an echo reply has
ANCILLARY = 512  # bytes read of control messages
_BUFFER = 16 << 20  # bytes: 25 requests of 1000 probes, of about 0.8 kB each with the kernel's own overhead

ECHO_REQUEST: dict[int, int] = {socket.AF_INET: 8, socket.AF_INET6: 128}
ECHO_REPLY: dict[int, int] = {socket.AF_INET: 0, socket.AF_INET6: 129}

# Linux constants that the socket module of Python 3.9 has no names for.
_SOL_RAW = 255
_ICMP_FILTER = 1
_ICMP6_FILTER = 1
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33
SO_TIMESTAMPNS = 35
RECVERR: dict[int, tuple[int, int]] = {
    socket.AF_INET: (socket.IPPROTO_IP, 11),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 25),
}
_ICMP_ORIGINS = {2: socket.AF_INET, 3: socket.AF_INET6}  # SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6


def echo_socket(family: int, kind: int) -> socket.socket:
    """Open a raw ICMP socket in the thread's namespace that gets the messages of one type only."""
    if family == socket.AF_INET:
        new = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        new.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", ~(1 << kind) & 0xFFFFFFFF))
    else:
        new = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        blocked = [0xFFFFFFFF] * 8
        blocked[kind // 32] &= ~(1 << kind % 32)
        new.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, struct.pack("=8I", *blocked))
    new.setblocking(False)
    # Requests that wait for a silent neighbour fill the send buffer, and would stop those for other neighbours.
    with contextlib.suppress(PermissionError):  # root of a user namespace keeps the default
        new.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _BUFFER)
        new.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
    return new


def canonical(family: int, address: str) -> str:
    """Write an address that a socket gave in the kernel's spelling, without a zone."""
    return socket.inet_ntop(family, socket.inet_pton(family, address.partition("%")[0]))


@dataclass(frozen=True)
class Echo:
    """An echo request or reply."""

    type: int
    ident: int
    sequence: int
    payload: bytes


def parse_echo(message: bytes) -> Echo | None:
    """Read an ICMP message that begins like an echo; None if it is too short."""
    if len(message) < 8:
        return None
    kind, _code, _checksum_field, ident, sequence = struct.unpack_from("!BBHHH", message)
    return Echo(kind, ident, sequence, message[8:])


def received_echo(packet: bytes, family: int) -> Echo | None:
    """Read what a raw ICMP socket received; for IPv4 the IP header is before it."""
    return parse_echo(packet[(packet[0] & 0xF) * 4 :] if packet and family == socket.AF_INET else packet)


@dataclass(frozen=True)
class IcmpError:
    """An ICMP error as the socket's error queue tells it (struct sock_extended_err and the offender)."""

    family: int
    errno: int
    type: int
    code: int
    offender: str


def icmp_errors(source: socket.socket, family: int) -> Iterator[tuple[IcmpError, bytes]]:
    """Take a batch of ICMP errors from the error queue, each with what it quotes of the request's transport header."""
    for _entry in range(BATCH):
        try:
            quote, ancillary, _flags, _address = source.recvmsg(PACKET, ANCILLARY, socket.MSG_ERRQUEUE)
        except OSError:  # EAGAIN: the queue is empty
            return
        for level, kind, data in ancillary:
            if (level, kind) == RECVERR[family]:
                error = _parse_extended_err(data)
                if error is not None:
                    yield error, quote


def _parse_extended_err(data: bytes) -> IcmpError | None:
    """Read struct sock_extended_err; None if it tells of no ICMP error."""
    if len(data) < 16:
        return None
    number, origin, kind, code = struct.unpack_from("=IBBB", data)
    family = _ICMP_ORIGINS.get(origin)
    address = data[20:24] if family == socket.AF_INET else data[24:40]
    if family is None or len(address) != (4 if family == socket.AF_INET else 16):
        return None
    return IcmpError(family, number, kind, code, socket.inet_ntop(family, address))


def arrived(ancillary: Iterable[tuple[int, int, bytes]]) -> int:
    """Give the wall clock nanoseconds at which the kernel took the packet, which no waiting in our queue delays."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS) and len(data) == struct.calcsize("@ll"):
            seconds, nanoseconds = struct.unpack("@ll", data)
            return int(seconds) * 1_000_000_000 + int(nanoseconds)
    return time.time_ns()


def checksum(message: bytes) -> int:
    """Compute the Internet checksum (RFC 1071) of a message of even length."""
    total: int = sum(struct.unpack(f"!{len(message) // 2}H", message))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF
