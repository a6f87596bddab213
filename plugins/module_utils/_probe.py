# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The words of reachability probes: what is asserted, what came back, and both in one sentence.

Private to the collection: no stable interface.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# Long enough for the first IPv6 answer after links came up. Duplicate address detection takes up to 3 s (carrier
# reported up to 1 s late, random delay up to 1 s, detection 1 s), and a neighbour solicited in vain meanwhile is
# given up after 3.1 s and asked anew: 3.1 to 3.5 s were measured. It also covers the kernel's "Host Unreachable"
# for a silent IPv4 neighbour, after 3.1 s.
DEFAULT_DEADLINE = 5.0


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
