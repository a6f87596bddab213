# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Root queueing disciplines: reads the kernel's dumps, and makes the requests that set and remove netem, all by hand.

Layouts and numbers: include/uapi/linux/{rtnetlink,pkt_sched}.h. netem takes times as 64-bit nanoseconds since Linux
4.15; what it has besides, in ticks of 64 ns, is only for older ones.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

from .._impairment import Impairment
from .session import Session, attributes

_RTM_NEWQDISC, _RTM_DELQDISC, _RTM_GETQDISC = 36, 37, 38
_NLM_F_REPLACE, _NLM_F_CREATE = 0x100, 0x400
_TC_H_ROOT = 0xFFFFFFFF
#: The part of a handle that a queueing discipline's classes have in common with it.
_MAJOR = 0xFFFF0000

#: struct tcmsg: family, padding, ifindex, handle, parent, info.
_TCMSG = struct.Struct("=BxxxiIII")
_ATTRIBUTE = struct.Struct("=HH")
_TCA_KIND, _TCA_OPTIONS = 1, 2

#: struct tc_netem_qopt: latency, limit, loss, gap, duplicate, jitter.
_QOPT = struct.Struct("=IIIIII")
_CORR, _PAIR, _RATE = struct.Struct("=III"), struct.Struct("=II"), struct.Struct("=IiIi")
_U32, _S64, _U64 = struct.Struct("=I"), struct.Struct("=q"), struct.Struct("=Q")
#: struct tc_netem_slot: the shortest and the longest delay, packets, bytes, and two of a distribution.
_SLOT = struct.Struct("=qqiiqq")
_TCA_NETEM_CORR, _TCA_NETEM_REORDER, _TCA_NETEM_CORRUPT, _TCA_NETEM_RATE, _TCA_NETEM_ECN = 1, 3, 4, 6, 7
_TCA_NETEM_RATE64, _TCA_NETEM_PAD, _TCA_NETEM_LATENCY64, _TCA_NETEM_JITTER64 = 8, 9, 10, 11
_TCA_NETEM_SLOT, _TCA_NETEM_PRNG_SEED = 12, 14
_KNOWN = {
    _TCA_NETEM_CORR,
    _TCA_NETEM_REORDER,
    _TCA_NETEM_CORRUPT,
    _TCA_NETEM_RATE,
    _TCA_NETEM_RATE64,
    _TCA_NETEM_PAD,
    _TCA_NETEM_LATENCY64,
    _TCA_NETEM_JITTER64,
    _TCA_NETEM_PRNG_SEED,
}
#: Of what has no word in an impairment, what stays as it was if a change does not tell it.
_NOTHING_MORE = {_TCA_NETEM_ECN: _U32.pack(0), _TCA_NETEM_SLOT: bytes(_SLOT.size)}
_MAX_U32 = 0xFFFFFFFF
_TICK_SHIFT = 6


class Root(NamedTuple):
    """A root queueing discipline that somebody has set: an impairment, or another one in words."""

    impairment: Impairment | None
    text: str = ""


def roots(session: Session) -> dict[int, Root]:
    """The root queueing disciplines by interface index, without those that the kernel itself has chosen (handle 0)."""
    found: dict[int, Root] = {}
    inner: dict[tuple[int, int], str] = {}
    for body in session.dump(_RTM_GETQDISC, _TCMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
        _family, index, handle, parent, _info = _TCMSG.unpack_from(body)
        if not handle:
            continue
        values = dict(attributes(body, _TCMSG.size))
        kind = values.get(_TCA_KIND, b"").rstrip(b"\0").decode("ascii", "replace")
        text = f"{kind} {handle >> 16:x}:"
        if parent != _TC_H_ROOT:
            inner[index, parent & _MAJOR] = text
            continue
        impairment = _impairment(values.get(_TCA_OPTIONS, b""), handle) if kind == "netem" else None
        found[index] = Root(impairment, "" if impairment else text)
    for index, (impairment, _text) in found.items():
        if impairment and (index, impairment.handle) in inner:
            found[index] = Root(impairment._replace(inner=inner[index, impairment.handle]))
    return found


def _impairment(options: bytes, handle: int) -> Impairment | None:
    """None for what cannot be read."""
    if len(options) < _QOPT.size:
        return None
    latency, limit, loss, gap, duplicate, jitter = _QOPT.unpack_from(options)
    values = dict(attributes(options, _QOPT.size))
    unknown = {kind: value for kind, value in values.items() if kind not in _KNOWN}
    unknown = {kind: value for kind, value in unknown.items() if value != _NOTHING_MORE.get(kind)}
    rate, *overhead = _RATE.unpack(values.get(_TCA_NETEM_RATE, bytes(_RATE.size)))
    if any(overhead):
        unknown[_TCA_NETEM_RATE] = values[_TCA_NETEM_RATE]
    delay_corr, loss_corr, duplicate_corr = _CORR.unpack(values.get(_TCA_NETEM_CORR, bytes(_CORR.size)))
    reorder, reorder_corr = _PAIR.unpack(values.get(_TCA_NETEM_REORDER, bytes(_PAIR.size)))
    corrupt, corrupt_corr = _PAIR.unpack(values.get(_TCA_NETEM_CORRUPT, bytes(_PAIR.size)))
    return Impairment(
        delay=_number(_S64, values.get(_TCA_NETEM_LATENCY64), latency << _TICK_SHIFT),
        jitter=_number(_S64, values.get(_TCA_NETEM_JITTER64), jitter << _TICK_SHIFT),
        loss=loss,
        duplicate=duplicate,
        reorder=reorder,
        corrupt=corrupt,
        rate=_number(_U64, values.get(_TCA_NETEM_RATE64), rate),
        limit=limit,
        gap=gap,
        correlations=(delay_corr, loss_corr, duplicate_corr, reorder_corr, corrupt_corr),
        unknown=tuple(sorted(unknown.items())),
        handle=handle,
    )


def _number(form: struct.Struct, value: bytes | None, absent: int) -> int:
    return absent if value is None else int(form.unpack(value)[0])


def set_impairment(session: Session, index: int, impairment: Impairment) -> None:
    """Give an interface an impairment. What has its handle is changed, with what waits in it; others are replaced."""
    session.request(_RTM_NEWQDISC, _NLM_F_CREATE | _NLM_F_REPLACE, _request(index, impairment.handle, impairment))


def remove_impairment(session: Session, index: int, handle: int) -> None:
    """Take the one with this handle away; the kernel's own choice is in its place then."""
    session.request(_RTM_DELQDISC, 0, _request(index, handle))


def _request(index: int, handle: int, impairment: Impairment | None = None) -> bytes:
    body = _TCMSG.pack(socket.AF_UNSPEC, index, handle, _TC_H_ROOT, 0)
    if impairment is None:
        return body
    return body + _attribute(_TCA_KIND, b"netem\0") + _attribute(_TCA_OPTIONS, _options(impairment))


def _options(wanted: Impairment) -> bytes:
    """All that netem has, also what is nothing: what a change does not tell stays as it was."""
    delay_corr, loss_corr, duplicate_corr, reorder_corr, corrupt_corr = wanted.correlations
    ticks = (min(time >> _TICK_SHIFT, _MAX_U32) for time in (wanted.delay, wanted.jitter))
    options = _QOPT.pack(next(ticks), wanted.limit, wanted.loss, wanted.gap, wanted.duplicate, next(ticks))
    found = {
        _TCA_NETEM_CORR: _CORR.pack(delay_corr, loss_corr, duplicate_corr),
        _TCA_NETEM_REORDER: _PAIR.pack(wanted.reorder, reorder_corr),
        _TCA_NETEM_CORRUPT: _PAIR.pack(wanted.corrupt, corrupt_corr),
        _TCA_NETEM_LATENCY64: _S64.pack(wanted.delay),
        _TCA_NETEM_JITTER64: _S64.pack(wanted.jitter),
        _TCA_NETEM_RATE: _RATE.pack(min(wanted.rate, _MAX_U32), 0, 0, 0),
        **_NOTHING_MORE,
        **dict(wanted.unknown),
    }
    if wanted.rate > _MAX_U32:
        found[_TCA_NETEM_RATE64] = _U64.pack(wanted.rate)
    return options + b"".join(_attribute(kind, value) for kind, value in found.items())


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + b"\0" * (-len(value) % 4)
