# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Impairments of links: from what the user wrote to the model.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from ._impairment import DEFAULT_LIMIT, NO_IMPAIRMENT, RATE_UNITS, TIME_UNITS, Impairment, share_of
from ._model import WantedImpairment
from ._reader import Reader, join, show

_KEYS = ("delay", "jitter", "loss", "duplicate", "reorder", "corrupt", "rate", "limit")

#: netem cuts jitter to what its arithmetic takes (INT_MAX), and old kernels keep times as 32-bit ticks of 64 ns.
_MAX_JITTER = 2_147_483_647
_MAX_DELAY = 200 * TIME_UNITS["s"]
_MAX_RATE = RATE_UNITS["tbit"]
_MAX_LIMIT = 2**32 - 1

_NUMBER = re.compile(r"(\d{1,15}(?:\.\d{1,12})?) ?([A-Za-z%]*)\Z", re.ASCII)


def read_impairment(reader: Reader, value: Any, path: str) -> WantedImpairment | None:
    """``{delay, jitter, loss, duplicate, reorder, corrupt, rate, limit}``; None for what is not said."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        reader.problem(path, f"{show(value)} is no impairment such as {{delay: 10ms, loss: 1%}}")
        return None
    body = {key: item for key, item in reader.mapping(value, path, _KEYS).items() if item is not None}
    entry = _Entry(reader, path, body)
    before = len(reader.problems)
    found = Impairment(
        delay=entry.time("delay", _MAX_DELAY),
        jitter=entry.time("jitter", _MAX_JITTER),
        loss=entry.share("loss"),
        duplicate=entry.share("duplicate"),
        reorder=entry.share("reorder"),
        corrupt=entry.share("corrupt"),
        rate=entry.rate(),
        limit=reader.integer(body["limit"], join(path, "limit"), 1, _MAX_LIMIT) if "limit" in body else DEFAULT_LIMIT,
    )
    has_no_delay = "delay" not in body or (not found.delay and len(reader.problems) == before)
    for word in ("jitter", "reorder"):
        if word in body and has_no_delay:
            what = "the delay varies" if word == "jitter" else "what is not delayed overtakes the rest"
            reader.problem(join(path, word), f"needs a 'delay': {what} by it")
    if found == NO_IMPAIRMENT._replace(limit=found.limit) and "limit" in body:
        reader.problem(join(path, "limit"), "impairs nothing by itself; say what, such as 'delay: 10ms'")
    return WantedImpairment(found._replace(gap=int(found.reorder > 0)), path)


class _Entry:
    """One impairment of the input."""

    def __init__(self, reader: Reader, path: str, body: dict[str, Any]) -> None:
        self._reader = reader
        self._path = path
        self._body = body

    def time(self, word: str, most: int) -> int:
        number, unit = self._split(word)
        if number is None:
            return 0
        if unit not in TIME_UNITS:
            self._problem(word, f"is no time such as 10ms; the units are {', '.join(TIME_UNITS)}")
            return 0
        return self._within(word, number * TIME_UNITS[unit], most, f"{Fraction(most, TIME_UNITS['s']).__float__():g}s")

    def share(self, word: str) -> int:
        number, unit = self._split(word)
        if number is None:
            return 0
        if unit != "%":
            self._problem(word, "is no share such as 1% or 0.5%")
            return 0
        if number > 100:
            self._problem(word, "is more than all: it has to be from 0% to 100%")
            return 0
        return share_of(number)

    def rate(self) -> int:
        number, unit = self._split("rate")
        if number is None:
            return 0
        if unit not in RATE_UNITS:
            self._problem("rate", f"is no rate such as 1mbit; the units are {', '.join(RATE_UNITS)} (a second)")
            return 0
        bits = self._within("rate", number * RATE_UNITS[unit], _MAX_RATE, "1tbit")
        if bits and bits < 8:
            self._problem("rate", "is too low: it has to be at least 8bit, a byte a second")
        return bits // 8

    def _split(self, word: str) -> tuple[Fraction | None, str]:
        """The number and the unit of a value; no number if it is not said. What cannot be read has no unit."""
        if word not in self._body:
            return None, ""
        value = self._body[word]
        match = _NUMBER.match(value) if isinstance(value, str) else None
        return (Fraction(match[1]), match[2].lower()) if match else (Fraction(0), "")

    def _within(self, word: str, value: Fraction, most: int, text: str) -> int:
        if value > most:
            self._problem(word, f"is out of range: it has to be at most {text}")
            return 0
        return int(value)

    def _problem(self, word: str, text: str) -> None:
        self._reader.problem(join(self._path, word), f"{show(self._body[word])} {text}")
