# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One netlink socket in one namespace: send a message, match its answer.

The socket is a plain one. pyroute2's would do, but it costs 300 ms to import and, before 0.9.1, a process for each
namespace; here a run that changes nothing never imports it (encode.py does, which a change needs).

Private to the collection: no stable interface.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator

from .._errors import KernelError

# include/uapi/linux/netlink.h
_NLMSG_NOOP = 1
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP = 0x300
_NLM_F_DUMP_INTR = 0x10
_NLM_F_CAPPED = 0x100
_NLM_F_ACK_TLVS = 0x200
_NLMSGERR_ATTR_MSG = 1
_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_ERROR = struct.Struct("=i")

#: The kernel fills dump messages up to 32 KiB when the reader offers that much (netlink_dump()).
_RECEIVE_BYTES = 65536
#: How often a dump that changed while it was read is read again before it is an error.
_DUMP_TRIES = 10


class Session:
    """A netlink socket that stays in the namespace in which it was opened, wherever its user goes."""

    def __init__(self, protocol: int = socket.NETLINK_ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
            try:
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
            except OSError:
                # Kernels before 4.20 have no strict checking: their dumps are unfiltered, and we filter anyway.
                pass
        self._socket.bind((0, 0))
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def request(self, message_type: int, flags: int, payload: bytes) -> None:
        """Ask for a change and wait for the kernel's acknowledgement.

        Raises KernelError with the errno and, where the kernel gave one, its extended acknowledgement.
        """
        sequence = self._send(message_type, flags | NLM_F_ACK, payload)
        for _type, _body in self._answers(sequence):
            pass

    def get(self, message_type: int, payload: bytes) -> tuple[int, bytes]:
        """Ask for one object; returns the type and the body of the answer. Raises KernelError."""
        sequence = self._send(message_type, 0, payload)
        for answer in self._answers(sequence, single=True):
            return answer
        raise KernelError(errno.ENODATA)

    def dump(self, message_type: int, payload: bytes) -> list[bytes]:
        """All objects of a kind, as message bodies of one consistent view. Raises KernelError."""
        for _try in range(_DUMP_TRIES):
            sequence = self._send(message_type, NLM_F_DUMP, payload)
            self._interrupted = False
            bodies = [body for _type, body in self._answers(sequence)]
            if not self._interrupted:
                return bodies
        raise KernelError(errno.EINTR, "the kernel's tables changed each time that they were read")

    def _send(self, message_type: int, flags: int, payload: bytes) -> int:
        self._sequence += 1
        header = _HEADER.pack(_HEADER.size + len(payload), message_type, flags | NLM_F_REQUEST, self._sequence, 0)
        self._socket.sendto(header + payload, (0, 0))
        return self._sequence

    def _answers(self, wanted_sequence: int, single: bool = False) -> Iterator[tuple[int, bytes]]:
        while True:
            data = self._socket.recv(_RECEIVE_BYTES)
            offset = 0
            while offset + _HEADER.size <= len(data):
                length, message_type, flags, sequence, _port = _HEADER.unpack_from(data, offset)
                body = data[offset + _HEADER.size : offset + length]
                offset += (length + 3) & ~3
                if sequence != wanted_sequence or message_type == _NLMSG_NOOP:
                    continue
                if flags & _NLM_F_DUMP_INTR:
                    self._interrupted = True
                if message_type in (_NLMSG_ERROR, _NLMSG_DONE):
                    # A dump that fails on its way says so in the number that NLMSG_DONE carries.
                    if message_type == _NLMSG_ERROR or len(body) >= 4:
                        _raise_error(body, flags, message_type)
                    return
                yield message_type, body
                if single:
                    return


def _raise_error(body: bytes, flags: int, message_type: int) -> None:
    number = -_ERROR.unpack_from(body)[0]
    if number <= 0:
        return
    words = ""
    if flags & _NLM_F_ACK_TLVS:
        start = 4
        if message_type == _NLMSG_ERROR:
            original = _HEADER.unpack_from(body, 4)[0]
            start += _HEADER.size if flags & _NLM_F_CAPPED else (original + 3) & ~3
        for kind, value in attributes(body, start):
            if kind == _NLMSGERR_ATTR_MSG:
                words = value.rstrip(b"\0").decode("utf-8", "replace").rstrip(".")
    raise KernelError(number, words)


def attributes(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """The netlink attributes in ``data`` from ``offset`` on, as (type without flags, value)."""
    end = len(data)
    while offset + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4 or offset + length > end:
            return
        yield kind & 0x3FFF, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
