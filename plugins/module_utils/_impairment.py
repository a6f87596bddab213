# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an interface does to what it sends (tc-netem(8)), in the kernel's units, and how it reads. Pure.

Private to the collection: no stable interface.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

#: The handle of the collection's queueing disciplines, ``6e73:`` in the words of ``tc``, by which it knows them again.
OUR_HANDLE = 0x6E730000

#: netem keeps shares as parts of this.
WHOLE = 0xFFFFFFFF

#: How many packets wait at most, unless somebody says so (tc's own default).
DEFAULT_LIMIT = 1000

NO_NETEM = (
    "the kernel of this host has no netem (it is built without CONFIG_NET_SCH_NETEM, or lacks the module sch_netem)"
)

_TIMES = (("s", 10**9), ("ms", 10**6), ("us", 10**3), ("ns", 1))
TIME_UNITS = dict(_TIMES)
_RATES = (("tbit", 10**12), ("gbit", 10**9), ("mbit", 10**6), ("kbit", 10**3), ("bit", 1))
RATE_UNITS = dict(_RATES)


class Impairment(NamedTuple):
    """A netem queueing discipline. Times are nanoseconds, shares are parts of WHOLE, the rate is bytes a second."""

    delay: int = 0
    jitter: int = 0
    loss: int = 0
    duplicate: int = 0
    reorder: int = 0
    corrupt: int = 0
    rate: int = 0
    limit: int = DEFAULT_LIMIT
    #: What somebody has set by hand that has no word here: every how many packets one is reordered, and how much delay,
    #: loss, duplication, reordering and corruption depend on what was before.
    gap: int = 0
    correlations: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)
    #: Besides: the kernel's attributes as they are, of models of loss, slots, and the like.
    unknown: tuple[tuple[int, bytes], ...] = ()
    #: A queueing discipline that somebody has put into it, such as ``tbf 10:``; not known well enough to be made again.
    inner: str = ""
    handle: int = OUR_HANDLE

    @property
    def is_sayable(self) -> bool:
        """Can a demand have it?"""
        needs_delay = self.jitter or self.reorder
        is_plain = self.gap == bool(self.reorder) and not (any(self.correlations) or self.unknown or self.inner)
        return is_plain and bool(self.delay or not needs_delay)

    @property
    def loses_all(self) -> bool:
        """Does nothing arrive?"""
        return WHOLE in (self.loss, self.corrupt)

    @property
    def words(self) -> dict[str, str | int]:
        """What it does, in the words of a document."""
        found: dict[str, str | int] = {}
        for word, value in (("delay", self.delay), ("jitter", self.jitter)):
            found.update({word: time_text(value)} if value else {})
        for word in ("loss", "duplicate", "reorder", "corrupt"):
            found.update({word: share_text(getattr(self, word))} if getattr(self, word) else {})
        if self.rate:
            found["rate"] = rate_text(self.rate)
        if self.limit != DEFAULT_LIMIT:
            found["limit"] = self.limit
        return found

    def __str__(self) -> str:
        words = [f"{word} {value}" for word, value in self.words.items()]
        if self.gap != bool(self.reorder):
            words.append(f"gap {self.gap}")
        if any(self.correlations):
            words.append("correlations " + "/".join(share_text(value) for value in self.correlations))
        words += [f"attribute {kind} {value.hex()}" for kind, value in self.unknown]
        if self.inner:
            words.append(f"with {self.inner} inside")
        return " ".join(words) or "nothing"


#: What a demand has that wants none.
NO_IMPAIRMENT = Impairment()


def time_text(nanoseconds: int) -> str:
    unit, factor = next((unit, factor) for unit, factor in _TIMES if nanoseconds >= factor or factor == 1)
    return _decimal(Fraction(nanoseconds, factor)) + unit


def rate_text(bytes_a_second: int) -> str:
    bits = bytes_a_second * 8
    unit, factor = next((unit, factor) for unit, factor in _RATES if bits >= factor)
    return _decimal(Fraction(bits, factor)) + unit


def share_text(share: int) -> str:
    """A share as percent, with as few digits as lead back to it."""
    for digits in range(13):
        text = f"{share * 100 / WHOLE:.{digits}f}"
        if share_of(Fraction(text)) == share:
            break
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text}%"


def share_of(percent: Fraction) -> int:
    """A percentage as the kernel has it; tc rounds in the same way."""
    return round(percent * WHOLE / 100)


def _decimal(number: Fraction) -> str:
    """A number whose denominator is a power of ten, in full."""
    text = f"{number.numerator * 10**12 // number.denominator:013d}"
    return f"{text[:-12]}.{text[-12:]}".rstrip("0").rstrip(".")
