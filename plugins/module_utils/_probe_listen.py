# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The far end of a probe, for as long as the probe takes: it answers, and says whom it has seen.

Private to the collection: no stable interface.

A listener lives in the same selector as the probes. Those that go to the same port share it. What it answers holds a
token that nobody else knows, so that a probe can tell its own listener from any other service that answers.
"""

from __future__ import annotations

import abc
import contextlib
import errno
import os
import selectors
import socket
from typing import TYPE_CHECKING

from ._probe_http import ok_response
from ._probe_wire import ANCILLARY, BATCH, ECHO_REQUEST, PACKET, canonical, echo_socket, received_echo

if TYPE_CHECKING:
    from ._probe_runs import Run
    from ._probe_wave import Wave

#: The headers in which a stream listener says who it is and whom it has seen, in lower case.
TOKEN_HEADER = "nslab-listener"  # noqa: S105
SOURCE_HEADER = "nslab-source"

#: Who answered, in an evidence.
NOT_OUR_LISTENER = "by something else than the probe's own listener"


class Listener(abc.ABC):
    """What listens in the namespace that the thread was in when it was made. Raises OSError if it cannot.

    token: what only this listener and its probes know.
    """

    def __init__(self, wave: Wave, family: int, address: str, port: int) -> None:
        self.token = os.urandom(16)
        self._wave = wave
        self._family = family
        self._runs: dict[bytes, Run] = {}  # those without a verdict, by their tags
        self._socket = self._open(address, port)
        wave.at_end(self._socket.close)
        wave.watch(self._socket, selectors.EVENT_READ, self)

    def join(self, run: Run) -> None:
        """Listen for this run too."""
        self._runs[run.tag] = run
        run.listener = self

    def leave(self, run: Run) -> None:
        """Listen for this run no longer, and for none of them no longer at all."""
        if self._runs.pop(run.tag, None) and not self._runs:
            self._close()

    def _close(self) -> None:
        self._wave.unwatch(self._socket)
        self._socket.close()

    @abc.abstractmethod
    def ready(self) -> None:
        """Take what has come; what exceeds the batch makes the selector call again."""

    @abc.abstractmethod
    def _open(self, address: str, port: int) -> socket.socket:
        """Open the socket, on all addresses of the family if the address is empty."""

    def _bound(self, kind: int, address: str, port: int) -> socket.socket:
        new = socket.socket(self._family, kind)
        try:
            new.setblocking(False)
            if kind == socket.SOCK_STREAM:  # what an earlier connection left in TIME-WAIT is no service
                new.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if self._family == socket.AF_INET6:
                new.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # An IPv6 address can be bound only after duplicate address detection, which the probe itself waits for.
            new.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
            new.bind((address, port))
        except BaseException:
            new.close()
            raise
        return new


def unopened(error: OSError, protocol: str, namespace: str, address: str, port: int) -> str:
    """Say why there is no listener."""
    name = errno.errorcode.get(error.errno or 0, str(error.errno))
    place = f"{protocol} port {port} of {address or 'all addresses'} in {namespace}" if port else f"in {namespace}"
    if error.errno == errno.EADDRINUSE:
        return f"the probe's own listener found {place} in use by another socket ({name})"
    return f"the probe's own listener could not be opened, {place}: {os.strerror(error.errno or 0)} ({name})"


class StreamListener(Listener):
    """Answers each HTTP request on a TCP port with 200 and the address that it came from."""

    def __init__(self, wave: Wave, family: int, address: str, port: int) -> None:
        super().__init__(wave, family, address, port)
        self._guests: list[_Guest] = []
        wave.at_end(self._dismiss_all)

    def ready(self) -> None:
        """Accept connections."""
        for _connection in range(BATCH):
            try:
                connection, source = self._socket.accept()
            except OSError:  # none is left, or it has gone already
                return
            # A run has one connection at a time: more are others', or such that have been given up.
            if len(self._guests) >= len(self._runs):
                self._guests[0].leave()
            connection.setblocking(False)
            address = canonical(self._family, source[0])
            headers = {TOKEN_HEADER: self.token.hex(), SOURCE_HEADER: address}
            self._guests.append(_Guest(self._wave, self._guests, connection, ok_response(headers, f"{address}\n")))

    def _open(self, address: str, port: int) -> socket.socket:
        new = self._bound(socket.SOCK_STREAM, address, port)
        try:
            new.listen(4096)
        except BaseException:
            new.close()
            raise
        return new

    def _close(self) -> None:
        super()._close()
        self._dismiss_all()

    def _dismiss_all(self) -> None:
        for guest in list(self._guests):
            guest.leave()


class _Guest:
    """A connection to a stream listener, until its request is answered."""

    def __init__(self, wave: Wave, guests: list[_Guest], connection: socket.socket, response: bytes) -> None:
        self._wave = wave
        self._guests = guests
        self._connection = connection
        self._response = response
        self._request = b""
        wave.watch(connection, selectors.EVENT_READ, self)

    def ready(self) -> None:
        """Read, and answer when the request is whole."""
        try:
            data = self._connection.recv(_MAX_REQUEST)
        except BlockingIOError:
            return
        except OSError:
            self.leave()
            return
        self._request += data
        if b"\r\n\r\n" in self._request:
            with contextlib.suppress(OSError):  # it fits the empty send buffer; who has gone needs no answer
                self._connection.send(self._response)
            self.leave()
        elif not data or len(self._request) >= _MAX_REQUEST:
            self.leave()

    def leave(self) -> None:
        """End the connection, unless it has ended already, which the selector may not know yet."""
        if self not in self._guests:
            return
        self._guests.remove(self)
        self._wave.unwatch(self._connection)
        self._connection.close()


class DatagramListener(Listener):
    """Answers the datagrams of its probes, and no others, on a UDP port."""

    def ready(self) -> None:
        """Answer each datagram from the address that it came to."""
        for _datagram in range(BATCH):
            try:
                data, ancillary, _flags, source = self._socket.recvmsg(PACKET, ANCILLARY)
            except OSError:
                return
            run = self._runs.get(data[:16])
            if run is None:
                continue
            number = 0
            try:
                self._socket.sendmsg([self.token, data], [self._from_there(*item) for item in ancillary], 0, source)
            except OSError as error:
                number = error.errno or errno.EIO
            run.seen(canonical(self._family, source[0]), number)

    def _open(self, address: str, port: int) -> socket.socket:
        new = self._bound(socket.SOCK_DGRAM, address, port)
        new.setsockopt(*_RECEIVE_PKTINFO[self._family], 1)
        return new

    def _from_there(self, level: int, kind: int, data: bytes) -> tuple[int, int, bytes]:
        """Make of where a datagram has come to where the answer comes from; routing chooses the interface."""
        if self._family == socket.AF_INET:  # struct in_pktinfo: interface, local address, destination
            return level, kind, bytes(4) + data[4:]
        # struct in6_pktinfo: address, interface; a link-local sender's address has the interface
        return level, kind, data[:16] + bytes(4)


class EchoWitness(Listener):
    """Sees which echo requests reach its namespace; it is the kernel that answers them."""

    def ready(self) -> None:
        """Tell the runs whose requests these are."""
        for _request in range(BATCH):
            try:
                packet, source = self._socket.recvfrom(PACKET)
            except OSError:
                return
            echo = received_echo(packet, self._family)
            if echo is None or echo.type != ECHO_REQUEST[self._family]:
                continue
            run = self._runs.get(echo.payload)
            if run is not None:
                run.seen(canonical(self._family, source[0]))

    def _open(self, _address: str, _port: int) -> socket.socket:
        return echo_socket(self._family, ECHO_REQUEST[self._family])


_MAX_REQUEST = 8192  # bytes

# Linux constants that the socket module of Python 3.9 has no names for.
_IP_FREEBIND = 15
_RECEIVE_PKTINFO: dict[int, tuple[int, int]] = {
    socket.AF_INET: (socket.IPPROTO_IP, 8),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 49),
}
