# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a probe's request met that did not get through, and what that means.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import dataclasses
import errno
import math
import os
import socket
from dataclasses import dataclass

from ._probe import Evidence
from ._probe_wire import IcmpError

RESOLUTION = 3.1  # seconds after which the kernel has given up a silent neighbour: 3 solicitations, 1 s each


@dataclass(frozen=True)
class Refusal:
    """What a request met that did not get through, and whether the next one may fare better.

    outcome: ``unreachable``, ``refused`` or ``mismatch``; ``reachable`` if it got through from another source address
        than the far end shall see.
    settled: a request sent so many seconds after the probe began met no passing state: 0 for a routing decision,
        infinity for a full queue.
    confirm: only a request that was sent after an earlier one had met the same is believed.
    """

    outcome: str
    evidence: Evidence
    settled: float = 0.0
    confirm: bool = False


def errno_refusal(number: int) -> Refusal:
    """Judge the error number of a request that the kernel would not send."""
    if number in _LOCAL_DECISIONS:
        settled = 0.0
    elif number == errno.EADDRNOTAVAIL:  # an IPv6 address is no source before duplicate address detection is over
        settled = RESOLUTION
    else:
        settled = math.inf
    name = errno.errorcode.get(number, str(number))
    hint = f": {_ERRNO_HINTS[number]}" if number in _ERRNO_HINTS else ""
    return Refusal("unreachable", Evidence("errno", f"{os.strerror(number)} ({name}{hint})", errno=name), settled)


# The kernel's route lookup or firewall decided against a packet that it was about to send.
_LOCAL_DECISIONS = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL, errno.EPERM}

_ERRNO_HINTS = {
    errno.EACCES: "prohibit route or rule",
    errno.EINVAL: "blackhole route or rule",
    errno.EPERM: "dropped by this namespace's own firewall",
    errno.EADDRNOTAVAIL: "no usable source address",
    errno.ENOBUFS: "queue full, or neighbour table full: net.ipv4.neigh.default.gc_thresh3",
}


def icmp_refusal(error: IcmpError) -> Refusal:
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
        settled = RESOLUTION
    else:
        settled = 0.0
    return Refusal("unreachable", evidence, settled, confirm=kind in _NEIGHBOUR_SILENT)


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


def port_refusal(error: IcmpError) -> Refusal:
    """Judge an ICMP error that came back from a port: Port Unreachable refuses it, also when a firewall sends it."""
    refusal = icmp_refusal(error)
    return dataclasses.replace(refusal, outcome="refused") if error.errno == errno.ECONNREFUSED else refusal


def connect_refusal(number: int, error: IcmpError | None) -> Refusal:
    """Judge a connection attempt that ended with that error number or with an ICMP error."""
    if error is not None:
        return port_refusal(error)
    if number == errno.ECONNREFUSED:
        return Refusal("refused", Evidence("reset", "Connection refused (TCP reset)", errno="ECONNREFUSED"))
    # The kernel gave up and does not say for what reason. Before 5.11 it queued no ICMP errors for TCP.
    return dataclasses.replace(errno_refusal(number), settled=math.inf)


def stranger_refusal(source: str, port: int | None = None) -> Refusal:
    """Judge an answer that another address or port sent, as a wrong address translation makes it."""
    place = source if port is None else f"{source} port {port}"
    return Refusal("unreachable", Evidence("stranger", f"answer from {place} instead", offender=source), math.inf)


def mismatch(kind: str, text: str) -> Refusal:
    """Judge an answer that is another one than the probe asks for."""
    return Refusal("mismatch", Evidence(kind, text), math.inf)


def unanswered(error: int) -> str:
    """Say that the far end has seen a request, and what the kernel there said when it was to answer."""
    name = errno.errorcode.get(error, str(error))
    return f"the request arrived, but could not be answered: {os.strerror(error)} ({name})"
