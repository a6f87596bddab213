# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One probe being run: requests, answers, and the verdict, for each protocol.

Private to the collection: no stable interface.

How a verdict is reached:

- An answer (as many echo replies as asked for, a completed handshake) is final, whatever was expected.
- A refused connection is final, unless the probe expects ``reachable``: the service may be about to listen.
- A probe that expects ``reachable`` or ``refused`` waits for that fact: whatever else comes back, it asks again
  every 0.2 s until the deadline.
- A probe that expects ``unreachable`` ends early on a refusal that cannot pass (see ``Refusal``).
- No answer by the deadline is ``unreachable`` too; the evidence says which of the two it was.
"""

from __future__ import annotations

import abc
import contextlib
import ctypes
import errno
import math
import os
import selectors
import socket
import struct
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ._probe import Evidence, Probe, ProbeResult
from ._probe_verdict import Refusal, connect_refusal, errno_refusal, icmp_refusal, stranger_refusal
from ._probe_wire import (
    ANCILLARY,
    BATCH,
    ICMP6_FILTER,
    ICMP_FILTER,
    PACKET,
    SO_RCVBUFFORCE,
    SO_SNDBUFFORCE,
    SO_TIMESTAMPNS,
    SOL_RAW,
    arrived,
    checksum,
    icmp_errors,
    parse_echo,
)

if TYPE_CHECKING:
    from ._probe_wave import Wave

Address = tuple[Any, ...]  # what Python's socket methods take, for either family
Lookup = Callable[[str, str], Mapping[str, object]]

_PACE = 0.2  # seconds between two requests of one probe
_SYN_PATIENCE = 1.0  # seconds after which a silent connection attempt makes way for a new one


class Run(abc.ABC):
    """A probe on its way to its verdict.

    outcome: empty until the verdict.
    due: when the timer goes off, by the monotonic clock; None before the first request and after the verdict.
    """

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        self.outcome = ""
        self.due: float | None = None
        self._began = math.inf
        self._elapsed = 0.0
        self._sent = 0
        self._received = 0
        self._rtt_ms: float | None = None
        self._refusal: Refusal | None = None  # the last one
        self._doubted_at = math.inf  # when the first one came that has to be confirmed
        self._evidence = Evidence("silence", "no request was sent")

    @abc.abstractmethod
    def open(self, wave: Wave, family: int, address: Address) -> None:
        """Open what the run needs in the namespace that the thread is in."""

    def wake(self, now: float) -> None:
        """Send the first or the next request, or end the probe at its deadline."""
        if self._began == math.inf:
            self._began = now
        elif now >= self._deadline:
            self._expire()
            return
        self._request(now)

    def finish(self, outcome: str, evidence: Evidence) -> None:
        """Take this for the verdict."""
        self.outcome = outcome
        self.due = None
        self._evidence = evidence
        self._elapsed = max(0.0, time.monotonic() - self._began)

    def result(self, lookup: Lookup) -> ProbeResult:
        """Give the result of a run that has its verdict."""
        probe = self.probe
        passed = self.outcome == probe.expect
        return ProbeResult(
            probe=probe,
            outcome=self.outcome,
            passed=passed,
            rtt_ms=self._rtt_ms,
            sent=self._sent,
            received=self._received,
            elapsed=self._elapsed,
            evidence=self._evidence,
            route=None if passed else lookup(probe.source, probe.to),
        )

    @abc.abstractmethod
    def _request(self, now: float) -> None:
        """Send a request and set the timer for the next one."""

    @property
    def _deadline(self) -> float:
        return self._began + self.probe.deadline

    def _requested(self) -> None:
        """Count a request that is on its way: what kept an earlier one from being sent is over."""
        self._sent += 1
        if self._refusal is not None and self._refusal.evidence.kind == "errno":
            self._refusal = None

    def _answered(self, rtt_ms: float) -> None:
        """Count an answer."""
        self._received += 1
        self._rtt_ms = rtt_ms if self._rtt_ms is None else min(rtt_ms, self._rtt_ms)

    def _refused(self, refusal: Refusal, asked_at: float) -> None:
        """Note what the request of that time met; end the probe if it is what was expected and cannot pass."""
        self._refusal = refusal
        if refusal.outcome == "refused":
            final = self.probe.expect != "reachable"
        elif self.probe.expect == "unreachable":
            confirmed = not refusal.confirm or asked_at > self._doubted_at
            final = confirmed and asked_at - self._began >= refusal.settled
        else:
            final = False
        if refusal.confirm:
            self._doubted_at = min(self._doubted_at, time.monotonic())
        if final:
            self.finish(refusal.outcome, refusal.evidence)

    def _expire(self) -> None:
        """End at the deadline with the last refusal, or with silence."""
        if self._refusal is not None:
            self.finish(self._refusal.outcome, self._refusal.evidence)
            return
        answers = f"{self._received} of {self.probe.count} answers" if self._received else "no answer"
        self.finish("unreachable", Evidence("silence", f"{answers} within {self.probe.deadline:g} s"))


class EchoRun(Run):
    """Echo requests, one after the other."""

    def open(self, wave: Wave, family: int, address: Address) -> None:
        """Share the echo socket of the namespace and the address family."""
        self._wave = wave
        self._address = address
        self._echo_socket = wave.echo_socket(family)
        self._ident = self._echo_socket.join(self)
        self._asked: dict[int, tuple[float, int]] = {}  # by sequence: monotonic seconds, wall clock nanoseconds

    def answered(self, sequence: int, source: str, arrived: int) -> None:
        """Take an echo reply that arrived at that wall clock time in nanoseconds."""
        if sequence not in self._asked:  # a duplicate
            return
        asked_at, departed = self._asked.pop(sequence)
        if source != self._echo_socket.canonical(self._address[0]):
            self._refused(stranger_refusal(source), asked_at)
            return
        self._answered(max(0, arrived - departed) / 1e6)
        if self._received >= self.probe.count or self.probe.expect == "unreachable":
            self.finish("reachable", Evidence("answer", f"answer in {self._rtt_ms:.3f} ms"))
        else:
            self._request(time.monotonic())

    def refused(self, sequence: int, refusal: Refusal) -> None:
        """Take an ICMP error for one of the requests."""
        if sequence in self._asked:
            self._refused(refusal, self._asked[sequence][0])

    def _request(self, now: float) -> None:
        sequence = self._sent & 0xFFFF
        self._asked[sequence] = (now, time.time_ns())
        number = self._echo_socket.send(self._ident, sequence, self._address)
        if number:
            del self._asked[sequence]
            self._refused(errno_refusal(number), now)
        else:
            self._requested()
        if not self.outcome:
            self._wave.wake_at(min(now + _PACE, self._deadline), self)


class ConnectRun(Run):
    """Connection attempts, one after the other, on one socket that stays in the probe's namespace."""

    def __init__(self, probe: Probe) -> None:
        super().__init__(probe)
        self._asked_at = 0.0
        self._connecting = False

    def open(self, wave: Wave, family: int, address: Address) -> None:
        """Open the socket."""
        self._wave = wave
        self._family = family
        self._address = address
        self._socket = wave.new_socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)

    def finish(self, outcome: str, evidence: Evidence) -> None:
        """Take this for the verdict and leave no connection behind."""
        super().finish(outcome, evidence)
        if self._connecting:
            self._disconnect()

    def ready(self) -> None:
        """Learn how the attempt ended: a second connect() says how the first did."""
        number = self._socket.connect_ex(self._address)
        # After connect(), because taking the error from the queue clears the socket's error number.
        errors = [error for error, _quote in icmp_errors(self._socket, self._family)]
        if number == errno.EALREADY and not errors:
            return
        if number in _HANDSHAKE_DONE:
            self._answered(self._handshake_ms())
            self.finish("reachable", Evidence("answer", f"connected in {self._rtt_ms:.3f} ms"))
            return
        # An ICMP error that comes while connect() still holds the socket, as it does over veth, is queued and does not
        # end the attempt: it is taken for its end.
        self._disconnect()
        self._refused(connect_refusal(number, errors[-1] if errors else None), self._asked_at)
        if not self.outcome:
            self._wave.wake_at(min(self._asked_at + _PACE, self._deadline), self)

    def _request(self, now: float) -> None:
        self._disconnect()
        self._asked_at = now
        number = self._socket.connect_ex(self._address)
        if number in (0, errno.EINPROGRESS):
            self._requested()
            self._connecting = True
            self._wave.watch(self._socket, selectors.EVENT_WRITE, self)
            # The source address was chosen for good: while IPv6 addresses are tentative it can be a wrong one, and
            # the kernel repeats a SYN ever more seldom. So a silent attempt makes way for a new one, but the last
            # one has half the deadline, so that a slow path has its time.
            last = now + self.probe.deadline / 2 >= self._deadline
            due = self._deadline if last else now + _SYN_PATIENCE
        else:
            self._refused(errno_refusal(number), now)
            due = now + _PACE
        if not self.outcome:
            self._wave.wake_at(min(due, self._deadline), self)

    def _disconnect(self) -> None:
        """Make the socket as new: an open connection is reset, an attempt given up, the source address forgotten."""
        if self._connecting:
            self._wave.unwatch(self._socket)
            self._connecting = False
        # connect() to AF_UNSPEC (0), which the socket module cannot say. TCP always accepts it.
        _libc.connect(self._socket.fileno(), bytes(16), 16)

    def _handshake_ms(self) -> float:
        """Give the kernel's measure, which does not grow with the number of probes, unless ours is the finer one."""
        ours = (time.monotonic() - self._asked_at) * 1e3
        info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCPI_RTT + 4)
        microseconds: int = struct.unpack_from("=I", info, _TCPI_RTT)[0]
        # 0 if it has none; after a repeated SYN it counts in whole milliseconds.
        return min(microseconds / 1e3 or ours, ours)


RUNS: dict[str, type[Run]] = {"icmp": EchoRun, "tcp": ConnectRun}

# A reset after the handshake (the service closed at once) proves the handshake; one instead of it is ECONNREFUSED.
_HANDSHAKE_DONE = {0, errno.EISCONN, errno.ECONNRESET, errno.EPIPE}

_TCPI_RTT = 68  # offset of tcpi_rtt in struct tcp_info

_libc = ctypes.CDLL(None)


class EchoSocket:
    """The raw ICMP socket that all echo probes of one namespace and address family share.

    Each raw socket would get a copy of every reply and every error, so that n sockets mean n * n packets.
    """

    def __init__(self, wave: Wave, family: int) -> None:
        self._family = family
        if family == socket.AF_INET:
            self._request_type, self._reply_type = 8, 0
            self._socket = wave.new_socket(family, socket.SOCK_RAW, socket.IPPROTO_ICMP)
            self._socket.setsockopt(SOL_RAW, ICMP_FILTER, struct.pack("=I", ~(1 << 0) & 0xFFFFFFFF))
        else:
            self._request_type, self._reply_type = 128, 129
            self._socket = wave.new_socket(family, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
            blocked = [0xFFFFFFFF] * 8
            blocked[129 // 32] &= ~(1 << 129 % 32)
            self._socket.setsockopt(socket.IPPROTO_ICMPV6, ICMP6_FILTER, struct.pack("=8I", *blocked))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        # Requests that wait for a silent neighbour fill the send buffer, and would stop those for other neighbours.
        with contextlib.suppress(PermissionError):  # root of a user namespace keeps the default
            self._socket.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, BUFFER)
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        # Replies go to all raw sockets of the namespace, other processes' too: the token says whose they are.
        self._token = os.urandom(16)
        self._first_ident = _random_ident()
        self._runs: list[EchoRun] = []
        wave.watch(self._socket, selectors.EVENT_READ, self)

    def join(self, run: EchoRun) -> int:
        """Give the run an echo identifier of its own."""
        self._runs.append(run)
        return (self._first_ident + len(self._runs) - 1) % IDENTS

    def canonical(self, address: str) -> str:
        """Write an address as ``ready`` reports the sources of replies."""
        return socket.inet_ntop(self._family, socket.inet_pton(self._family, address))

    def send(self, ident: int, sequence: int, address: Address) -> int:
        """Send an echo request; return 0 or the error number with which the kernel refused it."""
        message = struct.pack("!BBHHH", self._request_type, 0, 0, ident, sequence) + self._token
        if self._family == socket.AF_INET:  # the kernel fills in the ICMPv6 checksum only
            message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
        try:
            self._socket.sendto(message, address)
        except OSError as refused:
            return refused.errno or errno.EIO
        return 0

    def ready(self) -> None:
        """Hand errors and replies to their runs; what exceeds the batch makes the selector call again."""
        self._take_errors()
        for _reply in range(BATCH):
            try:
                packet, ancillary, _flags, source = self._socket.recvmsg(PACKET, ANCILLARY)
            except OSError:  # nothing left, or an ICMP error came just now and has to be taken first
                return
            if self._family == socket.AF_INET:
                packet = packet[(packet[0] & 0xF) * 4 :] if packet else packet
            echo = parse_echo(packet)
            if echo is None or echo.type != self._reply_type or echo.payload != self._token:
                continue
            run = self._run(echo.ident)
            if run is not None:
                run.answered(echo.sequence, self.canonical(source[0].partition("%")[0]), arrived(ancillary))

    def _take_errors(self) -> None:
        """Hand the ICMP errors in the queue to their runs."""
        for error, quote in icmp_errors(self._socket, self._family):
            echo = parse_echo(quote)
            # Routers quote at least 8 bytes of the request: the identifier surely, of the token what there is.
            if echo is None or echo.type != self._request_type or not self._token.startswith(echo.payload[:16]):
                continue
            run = self._run(echo.ident)
            if run is not None:
                run.refused(echo.sequence, icmp_refusal(error))

    def _run(self, ident: int) -> EchoRun | None:
        """Find the run of an identifier, unless it has its verdict."""
        index = (ident - self._first_ident) % IDENTS
        if index >= len(self._runs) or self._runs[index].outcome:
            return None
        return self._runs[index]


def _random_ident() -> int:
    """Give another identifier for each run: connection tracking goes on translating one that it has seen before."""
    return int.from_bytes(os.urandom(2), "big")


IDENTS = 1 << 16  # echo identifiers, 16 bits


BUFFER = 16 << 20  # bytes: 25 requests of 1000 probes, of about 0.8 kB each with the kernel's own overhead
