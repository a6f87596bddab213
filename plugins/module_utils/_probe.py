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
class Listen:
    """Where a probe has its own listener; for icmp, where it looks for the requests that arrive.

    namespace: empty until it is known which one has the address.
    address: empty for all addresses of the family of ``to``.
    port: 0 for the probe's own.
    """

    namespace: str = ""
    address: str = ""
    port: int = 0


@dataclass(frozen=True)
class Probe:
    """One assertion: from ``source``, ``to`` is what ``expect`` says.

    source: namespace name, or ``host``; the document's key is ``from``.
    to: IPv4 or IPv6 address literal, a link-local one with its zone (``fe80::1%eth0``).
    protocol: ``icmp`` (echo), ``tcp`` (a handshake, reset at once), ``udp`` (a datagram that is answered) or ``http``
        (a response with ``status``, and ``body`` in it).
    port: of the protocol; None for icmp.
    expect: ``reachable``, ``unreachable`` or, not for icmp, ``refused``.
    count: answers that make the address ``reachable`` to icmp and udp. A request goes out when the one before it was
        answered, or after 0.2 s; lost ones are sent anew until the deadline. One single reply disproves
        ``unreachable``. Of tcp and http one is enough, whatever ``count`` says.
    deadline: seconds that the whole probe may take.
    path: where the probe stands in the document (``probes[1]``), for messages.
    url_path, status, body: for http; the document's key is ``path``.
    source_seen: address that the far end has to see the requests come from, in the kernel's spelling; empty for any.
    listen: where the far end's listener is; None if what is there already shall answer.
    """

    source: str
    to: str
    protocol: str = "icmp"
    port: int | None = None
    expect: str = "reachable"
    count: int = 1
    deadline: float = DEFAULT_DEADLINE
    path: str = "probe"
    url_path: str = "/"
    status: int = 200
    body: str = ""
    source_seen: str = ""
    listen: Listen | None = None


@dataclass(frozen=True)
class Evidence:
    """What came back.

    kind: ``answer``, ``icmp`` (an ICMP error), ``reset`` (a TCP reset), ``errno`` (the kernel would not send, or
        gave up, or there is no listener), ``stranger`` (another address answered, or another service than the
        probe's own listener), ``http`` (another response than the one that was asked for, or none) or ``silence``.
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

    outcome: ``reachable``, ``unreachable`` or ``refused``. Two others are never what was expected: ``mismatch`` if
        something was connected or answered, but not as the probe asks, and ``unsent`` if its listener could not be
        opened.
    passed: the outcome is the expected one, and so is the source address if one was.
    rtt_ms: milliseconds of the fastest answer (the first one often waits for ARP); None without an answer, or if the
        answer did not say which of several requests it belongs to.
    sent, received: requests and answers; connection attempts and completed handshakes.
    elapsed: seconds from the first request to the verdict.
    source_seen: address that the probe's listener saw the last request come from; None if it saw none.
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
    source_seen: str | None = None


def explain(result: ProbeResult) -> str:
    """Say in one line what came back and, for a failed probe, what was expected and where the route leads."""
    probe = result.probe
    protocol = probe.protocol if probe.port is None else f"{probe.protocol} port {probe.port}"
    subject = f"{probe.path} ({probe.source} -> {probe.to}, {protocol})"
    found = result.evidence.text
    if result.evidence.kind not in ("answer", "silence") and result.outcome != "unsent":
        found += f" after {result.elapsed:.1f} s"
    wanted, got = probe.expect, result.outcome
    if probe.source_seen:
        wanted += f" and seen from {probe.source_seen}"
        got += f" and seen from {result.source_seen}" if result.source_seen else " and not seen"
    if result.passed:
        return f"{subject}: {got} as expected: {found}"
    sentence = f"{subject}: expected {wanted}, got {got}: {found}"
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
