# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Probes with real packets, all side by side.

Private to the collection: no stable interface.

The sockets of all probes are opened inside their namespaces and stay there, then one selector waits for answers, for
the kernel's errors and for monotonic deadlines, all in the calling thread.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import itertools
import math
import os
import resource
import selectors
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from ._errors import Missing
from ._probe import Evidence, Listen, Probe, ProbeResult
from ._probe_listen import DatagramListener, EchoWitness, Listener, StreamListener, unopened
from ._probe_runs import IDENTS, Address, EchoSocket, Lookup, Run, new_run
from ._probe_verdict import errno_refusal
from ._probe_wire import RECVERR

_SPARE_DESCRIPTORS = 32  # file descriptors left for ``enter``, the selector and Python while a wave is open

Enter = Callable[[str], contextlib.AbstractContextManager[None]]


def run_probes(probes: Sequence[Probe], enter: Enter, lookup: Lookup) -> list[ProbeResult]:
    """Run all probes side by side and return their results in the same order.

    enter: ``with enter(namespace):`` has the calling thread in that namespace.
    lookup: ``lookup(namespace, to)`` is the kernel's route lookup there, for failed probes: a mapping with dst, via,
        dev, src, type and table as far as known, or with errno (its name) and error (its text).

    The namespace of each listener has to be known. This takes as long as the slowest probe. Probes that outnumber the
    free file descriptors run in waves.

    Raises Missing if no file descriptor is free. What ``enter`` and ``lookup`` raise passes through.
    """
    runs = [new_run(probe) for probe in probes]
    for wave in _waves(runs):
        _run_wave(wave, enter)
    return [run.result(lookup) for run in runs]


def _waves(runs: Sequence[Run]) -> Iterator[Sequence[Run]]:
    """Cut the runs into waves that fit the free file descriptors and the echo identifiers.

    Raises Missing if no file descriptor is free.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    free: float = math.inf
    if limit != resource.RLIM_INFINITY:
        free = limit - len(os.listdir("/proc/self/fd")) - _SPARE_DESCRIPTORS
    if free < max((_descriptors(run) for run in runs), default=1):
        raise Missing(
            f"no file descriptor is free for probes: of {limit} (ulimit -n) {_SPARE_DESCRIPTORS} are kept in "
            "reserve and the others are open"
        )
    wave: list[Run] = []
    opened = 0
    for run in runs:
        if opened + _descriptors(run) > free or len(wave) == IDENTS:
            yield wave
            wave, opened = [], 0
        wave.append(run)
        opened += _descriptors(run)
    yield wave


def _descriptors(run: Run) -> int:
    """Count the sockets of a run: its own; its listener, and the listener's end of its connection."""
    return 1 if run.probe.listen is None else 3


def _run_wave(runs: Sequence[Run], enter: Enter) -> None:
    """Enter each namespace once to open its sockets, then drive the runs until each has its verdict."""
    senders: dict[str, list[Run]] = {}
    receivers: dict[str, list[Run]] = {}
    for run in runs:
        senders.setdefault(run.probe.source, []).append(run)
        if run.probe.listen is not None:
            receivers.setdefault(run.probe.listen.namespace, []).append(run)
    with contextlib.ExitStack() as stack:
        wave = Wave(stack)
        for namespace in {**senders, **receivers}:
            with enter(namespace):
                wave.listen(receivers.get(namespace, ()))
                wave.open(senders.get(namespace, ()))
        wave.drive(runs)


class Wave:
    """The sockets and timers of the runs that go on at the same time."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._selector = stack.enter_context(selectors.DefaultSelector())
        self._timers: list[tuple[float, int, Run]] = []
        self._timer_number = itertools.count()
        self._echo_sockets: dict[int, EchoSocket] = {}

    def listen(self, runs: Iterable[Run]) -> None:
        """Open the listeners of these runs, which are all in the namespace that the thread is in."""
        opened: dict[tuple[type[Listener], int, str, int], Listener] = {}
        # A listener on all addresses leaves no room for another one on the same port, and is that one too.
        for run in sorted(runs, key=lambda run: bool(run.probe.listen and run.probe.listen.address)):
            if run.outcome:
                continue
            probe, where = run.probe, run.probe.listen or Listen()
            port = where.port or probe.port or 0
            kind = _LISTENERS[probe.protocol]
            family = socket.AF_INET6 if ":" in probe.to else socket.AF_INET
            key = (kind, family, where.address, port)
            listener = opened.get((kind, family, "", port)) or opened.get(key)
            try:
                listener = opened[key] = listener or kind(self, family, where.address, port)
            except OSError as error:
                name = errno.errorcode.get(error.errno or 0)
                text = unopened(error, probe.protocol, where.namespace, where.address, port)
                run.finish("unsent", Evidence("errno", text, errno=name))
            else:
                listener.join(run)

    def open(self, runs: Iterable[Run]) -> None:
        """Open what these runs need in the namespace that the thread is in, which is the source of all of them."""
        self._echo_sockets = {}
        for run in runs:
            if run.outcome:  # its listener could not be opened
                continue
            try:
                family, address = _socket_address(run.probe)
            except OSError:
                run.finish("unreachable", errno_refusal(errno.ENODEV).evidence)
            else:
                run.open(self, family, address)

    def echo_socket(self, family: int) -> EchoSocket:
        """Give the echo socket of the family in the namespace that the thread is in."""
        if family not in self._echo_sockets:
            self._echo_sockets[family] = EchoSocket(self, family)
        return self._echo_sockets[family]

    def keep(self, new: socket.socket) -> socket.socket:
        """Make a socket non-blocking, report ICMP errors in its error queue, and close it when the wave ends."""
        self._stack.enter_context(new)
        new.setblocking(False)
        new.setsockopt(*RECVERR[new.family], 1)
        return new

    def at_end(self, action: Callable[[], object]) -> None:
        """Do something when the wave ends."""
        self._stack.callback(action)

    def watch(self, watched: socket.socket, events: int, owner: Owner) -> None:
        """Call ``owner.ready()`` when the socket has something."""
        self._selector.register(watched, events, owner)

    def unwatch(self, watched: socket.socket) -> None:
        """Stop watching a socket."""
        self._selector.unregister(watched)

    def wake_at(self, due: float, run: Run) -> None:
        """Set the run's only timer."""
        run.due = due
        heapq.heappush(self._timers, (due, next(self._timer_number), run))

    def drive(self, runs: Iterable[Run]) -> None:
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


_LISTENERS: dict[str, type[Listener]] = {
    "icmp": EchoWitness,
    "tcp": StreamListener,
    "udp": DatagramListener,
    "http": StreamListener,
}


class Owner(Protocol):
    """Who owns a watched socket."""

    def ready(self) -> None:
        """Take what the kernel has for the socket."""


def _socket_address(probe: Probe) -> tuple[int, Address]:
    """Give the address family and the socket address; the zone's index is that of the thread's namespace.

    Raises OSError if there is no interface of the zone's name.
    """
    host, _percent, zone = probe.to.partition("%")
    if ":" not in host:
        return socket.AF_INET, (host, probe.port or 0)
    return socket.AF_INET6, (host, probe.port or 0, 0, socket.if_nametoindex(zone) if zone else 0)
