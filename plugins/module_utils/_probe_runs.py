# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One probe being run: requests, answers, and the verdict, for each protocol.

Private to the collection: no stable interface.

How a verdict is reached:

- An answer (as many echo replies as asked for, a completed handshake, the HTTP response that is asked for) is final,
  whatever was expected. Only if the far end has seen another source address than a probe wants that expects
  ``reachable``, that one asks again.
- A refused connection or datagram, and an answer that does not match, are final, unless the probe expects
  ``reachable``: the service may be about to listen.
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
from ._probe_http import MAX_RESPONSE, get_request, read_response, shown
from ._probe_listen import NOT_OUR_LISTENER, SOURCE_HEADER, TOKEN_HEADER, Listener
from ._probe_verdict import (
    Refusal,
    connect_refusal,
    errno_refusal,
    icmp_refusal,
    mismatch,
    port_refusal,
    stranger_refusal,
    unanswered,
)
from ._probe_wire import (
    ANCILLARY,
    BATCH,
    ECHO_REPLY,
    ECHO_REQUEST,
    PACKET,
    SO_TIMESTAMPNS,
    arrived,
    canonical,
    checksum,
    echo_socket,
    icmp_errors,
    parse_echo,
    received_echo,
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
    tag: what the requests carry, where they can carry something, so that the far end knows whose they are.
    listener: the probe's own listener, if it has one.
    """

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        self.outcome = ""
        self.due: float | None = None
        self.tag = os.urandom(16)
        self.listener: Listener | None = None
        self._began = math.inf
        self._elapsed = 0.0
        self._sent = 0
        self._received = 0
        self._rtt_ms: float | None = None
        self._refusal: Refusal | None = None  # the last one
        self._doubted_at = math.inf  # when the first one came that has to be confirmed
        self._evidence = Evidence("silence", "no request was sent")
        self._source_seen: str | None = None  # the last one
        self._answer_error = 0  # with which the far end's kernel refused to send the last answer

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
        if self.listener is not None:
            self.listener.leave(self)

    def seen(self, source: str, answer_error: int = 0) -> None:
        """Take the listener's word: a request came from that address. ``answer_error``: it could not be answered."""
        if not self.outcome:
            self._source_seen = source
            self._answer_error = answer_error

    def result(self, lookup: Lookup) -> ProbeResult:
        """Give the result of a run that has its verdict."""
        probe = self.probe
        passed = self.outcome == probe.expect and self._source_is_right()
        return ProbeResult(
            probe=probe,
            outcome=self.outcome,
            passed=passed,
            rtt_ms=self._rtt_ms,
            sent=self._sent,
            received=self._received,
            elapsed=self._elapsed,
            evidence=self._evidence,
            source_seen=self._source_seen,
            route=None if passed or self.outcome == "unsent" else lookup(probe.source, probe.to),
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

    def _answered(self, rtt_ms: float | None) -> None:
        """Count an answer, which took so many milliseconds if that is known."""
        self._received += 1
        if rtt_ms is not None:
            self._rtt_ms = rtt_ms if self._rtt_ms is None else min(rtt_ms, self._rtt_ms)

    def _source_is_right(self) -> bool:
        return not self.probe.source_seen or self._source_seen == self.probe.source_seen

    def _proved(self, evidence: Evidence, asked_at: float) -> None:
        """End the probe with an answer, unless it waits for the far end to see another source address."""
        if self.probe.expect == "reachable" and not self._source_is_right():
            self._refused(Refusal("reachable", evidence, math.inf), asked_at)
        else:
            self.finish("reachable", evidence)

    def _refused(self, refusal: Refusal, asked_at: float) -> None:
        """Note what the request of that time met; end the probe if it is what was expected and cannot pass."""
        self._refusal = refusal
        if refusal.outcome in ("refused", "mismatch"):
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
        text = f"{answers} within {self.probe.deadline:g} s"
        if self._answer_error:
            text += f": {unanswered(self._answer_error)}"
        self.finish("unreachable", Evidence("silence", text))


class _RequestRun(Run):
    """Requests, one after the other, each of which can be answered."""

    def __init__(self, probe: Probe) -> None:
        super().__init__(probe)
        self._wave: Wave
        self._asked: dict[int, tuple[float, int]] = {}  # by sequence: monotonic seconds, wall clock nanoseconds

    def refused(self, sequence: int, refusal: Refusal) -> None:
        """Take an ICMP error for one of the requests."""
        if sequence in self._asked:
            self._refused(refusal, self._asked[sequence][0])

    def _took(self, sequence: int, arrived_at: int | None) -> None:
        """Take the answer to a request, which arrived at that wall clock time in nanoseconds, if it is surely its."""
        asked_at, departed = self._asked.pop(sequence)
        self._answered(None if arrived_at is None else max(0, arrived_at - departed) / 1e6)
        if self._received >= self.probe.count or self.probe.expect != "reachable":
            self._proved(Evidence("answer", self._answer_text()), asked_at)
        else:
            self._request(time.monotonic())

    def _answer_text(self) -> str:
        return "answer" if self._rtt_ms is None else f"answer in {self._rtt_ms:.3f} ms"

    def _request(self, now: float) -> None:
        sequence = self._sent & 0xFFFF
        self._asked[sequence] = (now, time.time_ns())
        number = self._send(sequence)
        if number:
            del self._asked[sequence]
            self._refused(errno_refusal(number), now)
        else:
            self._requested()
        if not self.outcome:
            self._wave.wake_at(min(now + _PACE, self._deadline), self)

    @abc.abstractmethod
    def _send(self, sequence: int) -> int:
        """Send a request; return 0 or the error number with which the kernel refused it."""


class EchoRun(_RequestRun):
    """Echo requests."""

    def open(self, wave: Wave, family: int, address: Address) -> None:
        """Share the echo socket of the namespace and the address family."""
        self._wave = wave
        self._address = address
        self._to = canonical(family, address[0])
        self._echo_socket = wave.echo_socket(family)
        self._ident = self._echo_socket.join(self)

    def replied(self, sequence: int, source: str, arrived_at: int) -> None:
        """Take an echo reply."""
        if sequence not in self._asked:  # a duplicate
            return
        if source != self._to:
            self._refused(stranger_refusal(source), self._asked.pop(sequence)[0])
            return
        if self.listener is not None:  # the far end had the request before it replied, so that there it lies ready
            self.listener.ready()
        self._took(sequence, arrived_at)

    def _send(self, sequence: int) -> int:
        return self._echo_socket.send(self._ident, sequence, self.tag, self._address)


class DatagramRun(_RequestRun):
    """UDP datagrams, from one socket that stays in the probe's namespace."""

    def __init__(self, probe: Probe) -> None:
        super().__init__(probe)
        self._watched = False

    def open(self, wave: Wave, family: int, address: Address) -> None:
        """Open the socket, unconnected, so that the kernel chooses the source address anew for each request."""
        self._wave = wave
        self._family = family
        self._address = address
        self._to = canonical(family, address[0])
        self._socket = wave.keep(socket.socket(family, socket.SOCK_DGRAM))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._watched = True
        wave.watch(self._socket, selectors.EVENT_READ, self)

    def finish(self, outcome: str, evidence: Evidence) -> None:
        """Take this for the verdict, and nothing more from the socket."""
        super().finish(outcome, evidence)
        if self._watched:
            self._wave.unwatch(self._socket)
            self._watched = False

    def ready(self) -> None:
        """Take errors and answers; what exceeds the batch makes the selector call again."""
        for error, quote in icmp_errors(self._socket, self._family):
            if not self.outcome:
                self.refused(self._sequence(quote, self.tag, self._oldest()), port_refusal(error))
        for _answer in range(BATCH):
            if self.outcome:
                return
            try:
                data, ancillary, _flags, source = self._socket.recvmsg(PACKET, ANCILLARY)
            except BlockingIOError:
                return
            except OSError:  # the same as in the error queue, once more
                continue
            self._replied(data, canonical(self._family, source[0]), source[1], arrived(ancillary))

    def _replied(self, data: bytes, source: str, port: int, arrived_at: int) -> None:
        if not self._asked:
            return
        asked_at = self._asked[self._oldest()][0]
        if (source, port) != (self._to, self.probe.port):
            self._refused(stranger_refusal(source, None if source != self._to else port), asked_at)
        elif self.listener is not None:
            sequence = self._sequence(data, self.listener.token + self.tag, -1)
            if sequence in self._asked:
                self._took(sequence, arrived_at)
            elif sequence < 0:
                self._refused(mismatch("stranger", f"answered {NOT_OUR_LISTENER}"), asked_at)
        else:
            # A service that sends back what it gets tells which request it answers. Of another one's answer the time
            # is known only if there is one request that it can belong to.
            alone = self._oldest() if len(self._asked) == 1 else -1
            sequence = self._sequence(data, self.tag, alone)
            if sequence in self._asked:
                self._took(sequence, arrived_at)
            elif sequence < 0:
                self._took(self._oldest(), None)

    def _oldest(self) -> int:
        """Give the request that has waited longest; there is one."""
        return next(iter(self._asked), -1)

    @staticmethod
    def _sequence(data: bytes, prefix: bytes, otherwise: int) -> int:
        """Read the sequence number of the request that is in an answer or a quote."""
        end = len(prefix) + 2
        return int.from_bytes(data[end - 2 : end], "big") if data.startswith(prefix) and len(data) >= end else otherwise

    def _send(self, sequence: int) -> int:
        number = 0
        for _attempt in range(2):  # an ICMP error that came just now fails one send, the kernel's own decision both
            try:
                self._socket.sendto(self.tag + sequence.to_bytes(2, "big"), self._address)
            except OSError as refused:
                number = refused.errno or errno.EIO
            else:
                return 0
        return number


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
        self._socket = wave.keep(socket.socket(family, socket.SOCK_STREAM))

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
            self._connected()
            return
        # An ICMP error that comes while connect() still holds the socket, as it does over veth, is queued and does not
        # end the attempt: it is taken for its end.
        self._disconnect()
        self._refused(connect_refusal(number, errors[-1] if errors else None), self._asked_at)
        if not self.outcome:
            self._wave.wake_at(min(self._asked_at + _PACE, self._deadline), self)

    def _connected(self) -> None:
        self.finish("reachable", Evidence("answer", f"connected in {self._rtt_ms:.3f} ms"))

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


class ExchangeRun(ConnectRun):
    """Connections with one HTTP request and its response: to an HTTP service, or to the probe's own listener."""

    def __init__(self, probe: Probe) -> None:
        super().__init__(probe)
        self._exchanging = False
        self._unsent = b""
        self._data = b""

    def ready(self) -> None:
        """Send what is left of the request, and judge the response as far as it has come."""
        if not self._exchanging:
            super().ready()
            return
        # An ICMP error does not end an open connection, but stays ready until it is taken.
        for _error in icmp_errors(self._socket, self._family):
            pass
        self._send()
        self._judge(self._receive())

    def _connected(self) -> None:
        self._exchanging = True
        self._data = b""
        self._unsent = get_request(self.probe.to, self.probe.port or 80, self.probe.url_path)
        self._wave.unwatch(self._socket)
        self._wave.watch(self._socket, selectors.EVENT_READ | selectors.EVENT_WRITE, self)
        self._wave.wake_at(self._deadline, self)
        self._send()

    def _send(self) -> None:
        if not self._unsent:
            return
        with contextlib.suppress(OSError):  # what ends the connection is found in receiving
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
        if not self._unsent:
            self._wave.unwatch(self._socket)
            self._wave.watch(self._socket, selectors.EVENT_READ, self)

    def _receive(self) -> bool:
        """Take what has come; say whether nothing more comes, or nothing more is wanted."""
        while len(self._data) < MAX_RESPONSE:
            try:
                data = self._socket.recv(MAX_RESPONSE - len(self._data))
            except BlockingIOError:
                return False
            except (ConnectionError, TimeoutError):
                return True
            except OSError:  # an ICMP error
                continue
            if not data:
                return True
            self._data += data
        return True

    def _judge(self, ended: bool) -> None:
        probe = self.probe
        try:
            response = read_response(self._data, ended)
        except ValueError as problem:
            self._mismatched(f"connected, but {problem}")
            return
        if response is None:
            return
        said = f"HTTP {response.status} {response.reason}".rstrip()
        if self.listener is not None:
            if response.headers.get(TOKEN_HEADER) != self.listener.token.hex():
                self._mismatched(f"{said} {NOT_OUR_LISTENER}", "stranger")
                return
            self.seen(response.headers.get(SOURCE_HEADER, ""))
        if response.status != probe.status:
            self._mismatched(f"{said} instead of {probe.status}")
        elif probe.body.encode() in response.body:
            what = "connected" if probe.protocol == "tcp" else f"{said}, connected"
            self._proved(Evidence("answer", f"{what} in {self._rtt_ms:.3f} ms"), self._asked_at)
            self._again()
        elif response.complete:
            found = shown(response.body) if response.body else "which is empty"
            self._mismatched(f"{said}, but {probe.body!r} is not in its body: {found}")

    def _mismatched(self, text: str, kind: str = "http") -> None:
        self._refused(mismatch(kind, text), self._asked_at)
        self._again()

    def _again(self) -> None:
        """Go on with another connection, unless there is a verdict."""
        if not self.outcome:
            self._disconnect()
            self._wave.wake_at(min(max(self._asked_at + _PACE, time.monotonic()), self._deadline), self)

    def _disconnect(self) -> None:
        super()._disconnect()
        self._exchanging = False

    def _expire(self) -> None:
        known = self._refusal is not None and self._refusal.outcome in ("mismatch", "reachable")
        if self._exchanging and not known:
            text = f"connected, but no whole response within {self.probe.deadline:g} s"
            self.finish("mismatch", Evidence("http", text))
        else:
            super()._expire()


def new_run(probe: Probe) -> Run:
    """Make the run of a probe."""
    if probe.protocol == "tcp" and probe.listen is not None:
        return ExchangeRun(probe)
    return _RUNS[probe.protocol](probe)


_RUNS: dict[str, type[Run]] = {"icmp": EchoRun, "tcp": ConnectRun, "udp": DatagramRun, "http": ExchangeRun}

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
        self._socket = wave.keep(echo_socket(family, ECHO_REPLY[family]))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._first_ident = _random_ident()
        self._runs: list[EchoRun] = []
        wave.watch(self._socket, selectors.EVENT_READ, self)

    def join(self, run: EchoRun) -> int:
        """Give the run an echo identifier of its own."""
        self._runs.append(run)
        return (self._first_ident + len(self._runs) - 1) % IDENTS

    def send(self, ident: int, sequence: int, tag: bytes, address: Address) -> int:
        """Send an echo request; return 0 or the error number with which the kernel refused it."""
        message = struct.pack("!BBHHH", ECHO_REQUEST[self._family], 0, 0, ident, sequence) + tag
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
            echo = received_echo(packet, self._family)
            if echo is None or echo.type != ECHO_REPLY[self._family]:
                continue
            run = self._run(echo.ident)
            # Replies go to all raw sockets of the namespace, other processes' too: the tag says whose they are.
            if run is not None and echo.payload == run.tag:
                run.replied(echo.sequence, canonical(self._family, source[0]), arrived(ancillary))

    def _take_errors(self) -> None:
        """Hand the ICMP errors in the queue to their runs."""
        for error, quote in icmp_errors(self._socket, self._family):
            echo = parse_echo(quote)
            if echo is None or echo.type != ECHO_REQUEST[self._family]:
                continue
            run = self._run(echo.ident)
            # Routers quote at least 8 bytes of the request: the identifier surely, of the tag what there is.
            if run is not None and run.tag.startswith(echo.payload[: len(run.tag)]):
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
