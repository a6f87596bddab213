# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reachability probes with real packets.

Private to the collection: no stable interface.

A probe asks whether one namespace reaches one address, and says what came back. All probes run side by side in the
calling thread: their sockets are opened inside their namespaces and stay there, then one selector waits for answers,
for the kernel's errors and for monotonic deadlines.

How a verdict is reached:

- An answer (as many echo replies as asked for, a completed handshake) is final, whatever was expected.
- A refused connection is final, unless the probe expects ``reachable``: the service may be about to listen.
- A probe that expects ``reachable`` or ``refused`` waits for that fact: whatever else comes back, it asks again
  every 0.2 s until the deadline.
- A probe that expects ``unreachable`` ends early on a refusal that cannot pass (see ``_Refusal``).
- No answer by the deadline is ``unreachable`` too; the evidence says which of the two it was.
"""

from __future__ import annotations

import abc
import contextlib
import ctypes
import dataclasses
import errno
import heapq
import itertools
import math
import os
import resource
import selectors
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ._errors import Missing

# Long enough for the first IPv6 answer after links came up. Duplicate address detection takes up to 3 s (carrier
# reported up to 1 s late, random delay up to 1 s, detection 1 s), and a neighbour solicited in vain meanwhile is
# given up after 3.1 s and asked anew: 3.1 to 3.5 s were measured. It also covers the kernel's "Host Unreachable"
# for a silent IPv4 neighbour, after 3.1 s.
DEFAULT_DEADLINE = 5.0

_PACE = 0.2  # seconds between two requests of one probe
_SYN_PATIENCE = 1.0  # seconds after which a silent connection attempt makes way for a new one
_RESOLUTION = 3.1  # seconds after which the kernel has given up a silent neighbour: 3 solicitations, 1 s each
_SPARE_DESCRIPTORS = 32  # file descriptors left for ``enter``, the selector and Python while a wave is open


@dataclass(frozen=True)
class Probe:
    """One assertion: from ``source``, ``to`` is what ``expect`` says.

    source: namespace name, or ``host``; the document's key is ``from``.
    to: IPv4 or IPv6 address literal, a link-local one with its zone (``fe80::1%eth0``).
    protocol: ``icmp`` (echo) or ``tcp`` (a handshake, reset at once).
    port: TCP port; None for icmp.
    expect: ``reachable``, ``unreachable`` or, for tcp, ``refused``.
    count: echo replies that make the address ``reachable``. A request goes out when the one before it was answered,
        or after 0.2 s; lost ones are sent anew until the deadline. One single reply disproves ``unreachable``.
        A tcp probe needs one handshake, whatever ``count`` says.
    deadline: seconds that the whole probe may take.
    path: where the probe stands in the document (``probes[1]``), for messages.
    """

    source: str
    to: str
    protocol: str = "icmp"
    port: int | None = None
    expect: str = "reachable"
    count: int = 1
    deadline: float = DEFAULT_DEADLINE
    path: str = "probe"


@dataclass(frozen=True)
class Evidence:
    """What came back.

    kind: ``answer``, ``icmp`` (an ICMP error), ``reset`` (a TCP reset), ``errno`` (the kernel would not send, or
        gave up), ``stranger`` (another address answered) or ``silence``.
    text: the same in words: ``Destination Net Unreachable from 10.0.2.1``.
    errno: name of the error number (``ENETUNREACH``) for ``icmp``, ``reset`` and ``errno``.
    icmp_type, icmp_code: for ``icmp``.
    offender: address that the ICMP error or the stranger's answer came from.
    """

    kind: str
    text: str
    errno: str | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None
    offender: str | None = None


@dataclass(frozen=True)
class ProbeResult:
    """What a probe found out.

    outcome: ``reachable``, ``unreachable`` or ``refused``.
    passed: the outcome is the expected one.
    rtt_ms: milliseconds of the fastest answer (the first one often waits for ARP); None without an answer.
    sent, received: echo requests and replies; connection attempts and completed handshakes.
    elapsed: seconds from the first request to the verdict.
    route: what ``lookup`` said, for a failed probe; None for one that passed.
    """

    probe: Probe
    outcome: str
    passed: bool
    rtt_ms: float | None
    sent: int
    received: int
    elapsed: float
    evidence: Evidence
    route: Mapping[str, object] | None


Enter = Callable[[str], contextlib.AbstractContextManager[None]]
Lookup = Callable[[str, str], Mapping[str, object]]


def run_probes(probes: Sequence[Probe], enter: Enter, lookup: Lookup) -> list[ProbeResult]:
    """Run all probes side by side and return their results in the same order.

    enter: ``with enter(namespace):`` has the calling thread in that namespace.
    lookup: ``lookup(namespace, to)`` is the kernel's route lookup there, for failed probes: a mapping with dst, via,
        dev, src, type and table as far as known, or with errno (its name) and error (its text).

    This takes as long as the slowest probe. Probes that outnumber the free file descriptors run in waves.

    Raises Missing if no file descriptor is free. What ``enter`` and ``lookup`` raise passes through.
    """
    runs = [_RUNS[probe.protocol](probe) for probe in probes]
    for wave in _waves(runs):
        _run_wave(wave, enter)
    return [run.result(lookup) for run in runs]


def explain(result: ProbeResult) -> str:
    """Say in one line what came back and, for a failed probe, what was expected and where the route leads."""
    probe = result.probe
    protocol = probe.protocol if probe.port is None else f"{probe.protocol} port {probe.port}"
    subject = f"{probe.path} ({probe.source} -> {probe.to}, {protocol})"
    found = result.evidence.text
    if result.evidence.kind not in ("answer", "silence"):
        found += f" after {result.elapsed:.1f} s"
    if result.passed:
        return f"{subject}: {result.outcome} as expected: {found}"
    sentence = f"{subject}: expected {probe.expect}, got {result.outcome}: {found}"
    if result.route is None:
        return sentence
    return f"{sentence}; route lookup in {probe.source}: {_route_text(result.route)}"


def _route_text(route: Mapping[str, object]) -> str:
    """Write a route lookup as ``ip route get`` does."""
    if "errno" in route:
        return f"{route.get('error')} ({route['errno']})"
    words = [str(route["type"])] if route.get("type") not in (None, "unicast") else []
    words.append(str(route.get("dst")))
    words += [f"{key} {route[key]}" for key in ("via", "dev", "src", "table") if route.get(key) is not None]
    return " ".join(words)


# --- Waves of probes ------------------------------------------------------------------------------------------


def _waves(runs: Sequence[_Run]) -> Iterator[Sequence[_Run]]:
    """Cut the runs into waves that fit the free file descriptors (one for each run) and the echo identifiers.

    Raises Missing if no file descriptor is free.
    """
    size = min(max(len(runs), 1), _IDENTS)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit != resource.RLIM_INFINITY:
        size = min(size, limit - len(os.listdir("/proc/self/fd")) - _SPARE_DESCRIPTORS)
    if size < 1:
        raise Missing(
            f"no file descriptor is free for probes: of {limit} (ulimit -n) {_SPARE_DESCRIPTORS} are kept in "
            "reserve and the others are open"
        )
    for first in range(0, len(runs), size):
        yield runs[first : first + size]


def _run_wave(runs: Sequence[_Run], enter: Enter) -> None:
    """Enter each namespace once to open its sockets, then drive the runs until each has its verdict."""
    by_source: dict[str, list[_Run]] = {}
    for run in runs:
        by_source.setdefault(run.probe.source, []).append(run)
    with contextlib.ExitStack() as stack:
        wave = _Wave(stack)
        for source, its_runs in by_source.items():
            with enter(source):
                wave.open(its_runs)
        wave.drive(runs)


class _Wave:
    """The sockets and timers of the runs that go on at the same time."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._selector = stack.enter_context(selectors.DefaultSelector())
        self._timers: list[tuple[float, int, _Run]] = []
        self._timer_number = itertools.count()
        self._echo_sockets: dict[int, _EchoSocket] = {}

    def open(self, runs: Iterable[_Run]) -> None:
        """Open what these runs need in the namespace that the thread is in, which is the source of all of them."""
        self._echo_sockets = {}
        for run in runs:
            try:
                family, address = _socket_address(run.probe)
            except OSError:
                run.finish("unreachable", _errno_refusal(errno.ENODEV).evidence)
            else:
                run.open(self, family, address)

    def echo_socket(self, family: int) -> _EchoSocket:
        """Give the echo socket of the family in the namespace that the thread is in."""
        if family not in self._echo_sockets:
            self._echo_sockets[family] = _EchoSocket(self, family)
        return self._echo_sockets[family]

    def new_socket(self, family: int, kind: int, protocol: int) -> socket.socket:
        """Open a non-blocking socket that lives as long as the wave and reports ICMP errors in its error queue."""
        new = self._stack.enter_context(socket.socket(family, kind, protocol))
        new.setblocking(False)
        new.setsockopt(*_RECVERR[family], 1)
        return new

    def watch(self, watched: socket.socket, events: int, owner: _Owner) -> None:
        """Call ``owner.ready()`` when the socket has something."""
        self._selector.register(watched, events, owner)

    def unwatch(self, watched: socket.socket) -> None:
        """Stop watching a socket."""
        self._selector.unregister(watched)

    def wake_at(self, due: float, run: _Run) -> None:
        """Set the run's only timer."""
        run.due = due
        heapq.heappush(self._timers, (due, next(self._timer_number), run))

    def drive(self, runs: Iterable[_Run]) -> None:
        """Return when every run has its verdict."""
        for run in runs:
            if not run.outcome:
                run.wake(time.monotonic())
        while self._timers:
            due, _number, run = self._timers[0]
            if run.due != due:  # set anew since, or the run has its verdict
                heapq.heappop(self._timers)
                continue
            # A timer goes off by the clock before the select: an answer that lies in a socket's queue counts, even
            # if this process had no processor when the deadline passed.
            now = time.monotonic()
            for key, _events in self._selector.select(max(0.0, due - now)):
                key.data.ready()
            if run.due == due <= now:
                run.wake(now)


class _Owner(Protocol):
    """Who owns a watched socket."""

    def ready(self) -> None:
        """Take what the kernel has for the socket."""


_Address = tuple[Any, ...]  # what Python's socket methods take, for either family


def _socket_address(probe: Probe) -> tuple[int, _Address]:
    """Give the address family and the socket address; the zone's index is that of the thread's namespace.

    Raises OSError if there is no interface of the zone's name.
    """
    host, _percent, zone = probe.to.partition("%")
    if ":" not in host:
        return socket.AF_INET, (host, probe.port or 0)
    return socket.AF_INET6, (host, probe.port or 0, 0, socket.if_nametoindex(zone) if zone else 0)


# --- What did not get through ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Refusal:
    """What a request met that did not get through, and whether the next one may fare better.

    outcome: ``unreachable`` or ``refused``.
    settled: a request sent so many seconds after the probe began met no passing state: 0 for a routing decision,
        infinity for a full queue.
    confirm: only a request that was sent after an earlier one had met the same is believed.
    """

    outcome: str
    evidence: Evidence
    settled: float = 0.0
    confirm: bool = False


def _errno_refusal(number: int) -> _Refusal:
    """Judge the error number of a request that the kernel would not send."""
    if number in _LOCAL_DECISIONS:
        settled = 0.0
    elif number == errno.EADDRNOTAVAIL:  # an IPv6 address is no source before duplicate address detection is over
        settled = _RESOLUTION
    else:
        settled = math.inf
    name = errno.errorcode.get(number, str(number))
    hint = f": {_ERRNO_HINTS[number]}" if number in _ERRNO_HINTS else ""
    return _Refusal("unreachable", Evidence("errno", f"{os.strerror(number)} ({name}{hint})", errno=name), settled)


# The kernel's route lookup or firewall decided against a packet that it was about to send.
_LOCAL_DECISIONS = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL, errno.EPERM}

_ERRNO_HINTS = {
    errno.EACCES: "prohibit route or rule",
    errno.EINVAL: "blackhole route or rule",
    errno.EPERM: "dropped by this namespace's own firewall",
    errno.EADDRNOTAVAIL: "no usable source address",
    errno.ENOBUFS: "queue full, or neighbour table full: net.ipv4.neigh.default.gc_thresh3",
}


def _icmp_refusal(error: _IcmpError) -> _Refusal:
    """Judge an ICMP error that came back for a request."""
    kind = (error.family, error.type, error.code)
    name = _ICMP_NAMES.get(kind) or _ICMP_NAMES.get((error.family, error.type, None))
    evidence = Evidence(
        "icmp",
        f"{name or f'ICMP type {error.type} code {error.code}'} from {error.offender}",
        errno=errno.errorcode.get(error.errno, str(error.errno)),
        icmp_type=error.type,
        icmp_code=error.code,
        offender=error.offender,
    )
    if kind in _TOO_BIG:
        settled = math.inf
    elif error.family == socket.AF_INET6:
        # While an address is tentative, its node has no local route for it and may say "No route", a neighbour gets
        # no answer for it and says "Address unreachable", and a sender takes a source of the wrong scope instead.
        settled = _RESOLUTION
    else:
        settled = 0.0
    return _Refusal("unreachable", evidence, settled, confirm=kind in _NEIGHBOUR_SILENT)


# Path MTU discovery at work, no refusal: the next request is cut to size.
_TOO_BIG = {(socket.AF_INET, 3, 4), (socket.AF_INET6, 2, 0)}

# A neighbour's resolution that fails ends so for all packets that wait for it. It may have begun long before the
# probe, and the neighbour may have come since: the next packet begins a new one. IPv4 routes of type unreachable
# answer the same.
_NEIGHBOUR_SILENT = {(socket.AF_INET, 3, 1), (socket.AF_INET6, 1, 3)}

# In the words of iputils' ping, by family, type and code; None is any code.
_ICMP_NAMES: dict[tuple[int, int, int | None], str] = {
    (socket.AF_INET, 3, 0): "Destination Net Unreachable",
    (socket.AF_INET, 3, 1): "Destination Host Unreachable",
    (socket.AF_INET, 3, 2): "Destination Protocol Unreachable",
    (socket.AF_INET, 3, 3): "Destination Port Unreachable",
    (socket.AF_INET, 3, 4): "Frag needed and DF set",
    (socket.AF_INET, 3, 5): "Source Route Failed",
    (socket.AF_INET, 3, 6): "Destination Net Unknown",
    (socket.AF_INET, 3, 7): "Destination Host Unknown",
    (socket.AF_INET, 3, 8): "Source Host Isolated",
    (socket.AF_INET, 3, 9): "Destination Net Prohibited",
    (socket.AF_INET, 3, 10): "Destination Host Prohibited",
    (socket.AF_INET, 3, 11): "Destination Net Unreachable for Type of Service",
    (socket.AF_INET, 3, 12): "Destination Host Unreachable for Type of Service",
    (socket.AF_INET, 3, 13): "Packet filtered",
    (socket.AF_INET, 3, 14): "Precedence Violation",
    (socket.AF_INET, 3, 15): "Precedence Cutoff",
    (socket.AF_INET, 11, 0): "Time to live exceeded",
    (socket.AF_INET, 11, 1): "Frag reassembly time exceeded",
    (socket.AF_INET, 12, None): "Parameter problem",
    (socket.AF_INET6, 1, 0): "Destination unreachable: No route",
    (socket.AF_INET6, 1, 1): "Destination unreachable: Administratively prohibited",
    (socket.AF_INET6, 1, 2): "Destination unreachable: Beyond scope of source address",
    (socket.AF_INET6, 1, 3): "Destination unreachable: Address unreachable",
    (socket.AF_INET6, 1, 4): "Destination unreachable: Port unreachable",
    (socket.AF_INET6, 1, 5): "Destination unreachable: Source address failed ingress/egress policy",
    (socket.AF_INET6, 1, 6): "Destination unreachable: Reject route",
    (socket.AF_INET6, 2, 0): "Packet too big",
    (socket.AF_INET6, 3, 0): "Time exceeded: Hop limit",
    (socket.AF_INET6, 3, 1): "Time exceeded: Defragmentation failure",
    (socket.AF_INET6, 4, None): "Parameter problem",
}


def _connect_refusal(number: int, error: _IcmpError | None) -> _Refusal:
    """Judge a connection attempt that ended with that error number or with an ICMP error."""
    if error is not None:
        refusal = _icmp_refusal(error)
        # Port Unreachable, as firewalls send it to reject a connection.
        return dataclasses.replace(refusal, outcome="refused") if error.errno == errno.ECONNREFUSED else refusal
    if number == errno.ECONNREFUSED:
        return _Refusal("refused", Evidence("reset", "Connection refused (TCP reset)", errno="ECONNREFUSED"))
    # The kernel gave up and does not say for what reason. Before 5.11 it queued no ICMP errors for TCP.
    return dataclasses.replace(_errno_refusal(number), settled=math.inf)


def _stranger_refusal(source: str) -> _Refusal:
    """Judge an echo reply that another address sent, as a wrong address translation makes it."""
    return _Refusal("unreachable", Evidence("stranger", f"answer from {source} instead", offender=source), math.inf)


# --- Runs: one probe being run --------------------------------------------------------------------------------


class _Run(abc.ABC):
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
        self._refusal: _Refusal | None = None  # the last one
        self._doubted_at = math.inf  # when the first one came that has to be confirmed
        self._evidence = Evidence("silence", "no request was sent")

    @abc.abstractmethod
    def open(self, wave: _Wave, family: int, address: _Address) -> None:
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

    def _refused(self, refusal: _Refusal, asked_at: float) -> None:
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


class _EchoRun(_Run):
    """Echo requests, one after the other."""

    def open(self, wave: _Wave, family: int, address: _Address) -> None:
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
            self._refused(_stranger_refusal(source), asked_at)
            return
        self._answered(max(0, arrived - departed) / 1e6)
        if self._received >= self.probe.count or self.probe.expect == "unreachable":
            self.finish("reachable", Evidence("answer", f"answer in {self._rtt_ms:.3f} ms"))
        else:
            self._request(time.monotonic())

    def refused(self, sequence: int, refusal: _Refusal) -> None:
        """Take an ICMP error for one of the requests."""
        if sequence in self._asked:
            self._refused(refusal, self._asked[sequence][0])

    def _request(self, now: float) -> None:
        sequence = self._sent & 0xFFFF
        self._asked[sequence] = (now, time.time_ns())
        number = self._echo_socket.send(self._ident, sequence, self._address)
        if number:
            del self._asked[sequence]
            self._refused(_errno_refusal(number), now)
        else:
            self._requested()
        if not self.outcome:
            self._wave.wake_at(min(now + _PACE, self._deadline), self)


class _ConnectRun(_Run):
    """Connection attempts, one after the other, on one socket that stays in the probe's namespace."""

    def __init__(self, probe: Probe) -> None:
        super().__init__(probe)
        self._asked_at = 0.0
        self._connecting = False

    def open(self, wave: _Wave, family: int, address: _Address) -> None:
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
        errors = [error for error, _quote in _icmp_errors(self._socket, self._family)]
        if number == errno.EALREADY and not errors:
            return
        if number in _HANDSHAKE_DONE:
            self._answered(self._handshake_ms())
            self.finish("reachable", Evidence("answer", f"connected in {self._rtt_ms:.3f} ms"))
            return
        # An ICMP error that comes while connect() still holds the socket, as it does over veth, is queued and does not
        # end the attempt: it is taken for its end.
        self._disconnect()
        self._refused(_connect_refusal(number, errors[-1] if errors else None), self._asked_at)
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
            self._refused(_errno_refusal(number), now)
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


_RUNS: dict[str, type[_Run]] = {"icmp": _EchoRun, "tcp": _ConnectRun}

# A reset after the handshake (the service closed at once) proves the handshake; one instead of it is ECONNREFUSED.
_HANDSHAKE_DONE = {0, errno.EISCONN, errno.ECONNRESET, errno.EPIPE}

_TCPI_RTT = 68  # offset of tcpi_rtt in struct tcp_info

_libc = ctypes.CDLL(None)


# --- ICMP on the wire -----------------------------------------------------------------------------------------


class _EchoSocket:
    """The raw ICMP socket that all echo probes of one namespace and address family share.

    Each raw socket would get a copy of every reply and every error, so that n sockets mean n * n packets.
    """

    def __init__(self, wave: _Wave, family: int) -> None:
        self._family = family
        if family == socket.AF_INET:
            self._request_type, self._reply_type = 8, 0
            self._socket = wave.new_socket(family, socket.SOCK_RAW, socket.IPPROTO_ICMP)
            self._socket.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", ~(1 << 0) & 0xFFFFFFFF))
        else:
            self._request_type, self._reply_type = 128, 129
            self._socket = wave.new_socket(family, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
            blocked = [0xFFFFFFFF] * 8
            blocked[129 // 32] &= ~(1 << 129 % 32)
            self._socket.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, struct.pack("=8I", *blocked))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        # Requests that wait for a silent neighbour fill the send buffer, and would stop those for other neighbours.
        with contextlib.suppress(PermissionError):  # root of a user namespace keeps the default
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _BUFFER)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        # Replies go to all raw sockets of the namespace, other processes' too: the token says whose they are.
        self._token = os.urandom(16)
        self._first_ident = _random_ident()
        self._runs: list[_EchoRun] = []
        wave.watch(self._socket, selectors.EVENT_READ, self)

    def join(self, run: _EchoRun) -> int:
        """Give the run an echo identifier of its own."""
        self._runs.append(run)
        return (self._first_ident + len(self._runs) - 1) % _IDENTS

    def canonical(self, address: str) -> str:
        """Write an address as ``ready`` reports the sources of replies."""
        return socket.inet_ntop(self._family, socket.inet_pton(self._family, address))

    def send(self, ident: int, sequence: int, address: _Address) -> int:
        """Send an echo request; return 0 or the error number with which the kernel refused it."""
        message = struct.pack("!BBHHH", self._request_type, 0, 0, ident, sequence) + self._token
        if self._family == socket.AF_INET:  # the kernel fills in the ICMPv6 checksum only
            message = message[:2] + struct.pack("!H", _checksum(message)) + message[4:]
        try:
            self._socket.sendto(message, address)
        except OSError as refused:
            return refused.errno or errno.EIO
        return 0

    def ready(self) -> None:
        """Hand errors and replies to their runs; what exceeds the batch makes the selector call again."""
        self._take_errors()
        for _reply in range(_BATCH):
            try:
                packet, ancillary, _flags, source = self._socket.recvmsg(_PACKET, _ANCILLARY)
            except OSError:  # nothing left, or an ICMP error came just now and has to be taken first
                return
            if self._family == socket.AF_INET:
                packet = packet[(packet[0] & 0xF) * 4 :] if packet else packet
            echo = _parse_echo(packet)
            if echo is None or echo.type != self._reply_type or echo.payload != self._token:
                continue
            run = self._run(echo.ident)
            if run is not None:
                run.answered(echo.sequence, self.canonical(source[0].partition("%")[0]), _arrived(ancillary))

    def _take_errors(self) -> None:
        """Hand the ICMP errors in the queue to their runs."""
        for error, quote in _icmp_errors(self._socket, self._family):
            echo = _parse_echo(quote)
            # Routers quote at least 8 bytes of the request: the identifier surely, of the token what there is.
            if echo is None or echo.type != self._request_type or not self._token.startswith(echo.payload[:16]):
                continue
            run = self._run(echo.ident)
            if run is not None:
                run.refused(echo.sequence, _icmp_refusal(error))

    def _run(self, ident: int) -> _EchoRun | None:
        """Find the run of an identifier, unless it has its verdict."""
        index = (ident - self._first_ident) % _IDENTS
        if index >= len(self._runs) or self._runs[index].outcome:
            return None
        return self._runs[index]


def _random_ident() -> int:
    """Give another identifier for each run: connection tracking goes on translating one that it has seen before."""
    return int.from_bytes(os.urandom(2), "big")


_IDENTS = 1 << 16  # echo identifiers, 16 bits
_BATCH = 64  # messages taken at once, so that a flood does not hold up timers and other sockets
_BUFFER = 16 << 20  # bytes: 25 requests of 1000 probes, of about 0.8 kB each with the kernel's own overhead
_PACKET = 2048  # bytes read of a message, far more than an echo reply has
_ANCILLARY = 512  # bytes read of control messages

# Linux constants that the socket module of Python 3.9 has no names for.
_SOL_RAW = 255
_ICMP_FILTER = 1
_ICMP6_FILTER = 1
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33
_SO_TIMESTAMPNS = 35
_RECVERR: dict[int, tuple[int, int]] = {
    socket.AF_INET: (socket.IPPROTO_IP, 11),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 25),
}
_ICMP_ORIGINS = {2: socket.AF_INET, 3: socket.AF_INET6}  # SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6


@dataclass(frozen=True)
class _Echo:
    """An echo request or reply."""

    type: int
    ident: int
    sequence: int
    payload: bytes


def _parse_echo(message: bytes) -> _Echo | None:
    """Read an ICMP message that begins like an echo; None if it is too short."""
    if len(message) < 8:
        return None
    kind, _code, _checksum_field, ident, sequence = struct.unpack_from("!BBHHH", message)
    return _Echo(kind, ident, sequence, message[8:])


@dataclass(frozen=True)
class _IcmpError:
    """An ICMP error as the socket's error queue tells it (struct sock_extended_err and the offender)."""

    family: int
    errno: int
    type: int
    code: int
    offender: str


def _icmp_errors(source: socket.socket, family: int) -> Iterator[tuple[_IcmpError, bytes]]:
    """Take a batch of ICMP errors from the error queue, each with what it quotes of the request's transport header."""
    for _entry in range(_BATCH):
        try:
            quote, ancillary, _flags, _address = source.recvmsg(_PACKET, _ANCILLARY, socket.MSG_ERRQUEUE)
        except OSError:  # EAGAIN: the queue is empty
            return
        for level, kind, data in ancillary:
            if (level, kind) == _RECVERR[family]:
                error = _parse_extended_err(data)
                if error is not None:
                    yield error, quote


def _parse_extended_err(data: bytes) -> _IcmpError | None:
    """Read struct sock_extended_err; None if it tells of no ICMP error."""
    if len(data) < 16:
        return None
    number, origin, kind, code = struct.unpack_from("=IBBB", data)
    family = _ICMP_ORIGINS.get(origin)
    address = data[20:24] if family == socket.AF_INET else data[24:40]
    if family is None or len(address) != (4 if family == socket.AF_INET else 16):
        return None
    return _IcmpError(family, number, kind, code, socket.inet_ntop(family, address))


def _arrived(ancillary: Iterable[tuple[int, int, bytes]]) -> int:
    """Give the wall clock nanoseconds at which the kernel took the packet, which no waiting in our queue delays."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS) and len(data) == struct.calcsize("@ll"):
            seconds, nanoseconds = struct.unpack("@ll", data)
            return int(seconds) * 1_000_000_000 + int(nanoseconds)
    return time.time_ns()


def _checksum(message: bytes) -> int:
    """Compute the Internet checksum (RFC 1071) of a message of even length."""
    total: int = sum(struct.unpack(f"!{len(message) // 2}H", message))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF
