# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What can go wrong, in words for the user.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

#: What is in the way belongs to somebody else.
FOREIGN = "foreign"
#: What is asked for would cut the connection by which it is asked for.
CONNECTION = "connection"
#: What is needed and is not the lab's own is not there: a device of the host, a container's namespace.
MISSING = "missing"


class Problem(NamedTuple):
    """One thing that is wrong: where it stands, and what is wrong and would be right.

    ``code`` is FOREIGN, CONNECTION, MISSING, or empty for what is just wrong.
    """

    path: str
    text: str
    code: str = ""

    def __str__(self) -> str:
        return f"{self.path}: {self.text}" if self.path else self.text


class NslabError(Exception):
    """Base of all errors that a module reports in place of a traceback."""


class ProblemsFound(NslabError):
    """Nothing was touched, because of these problems."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class InvalidInput(ProblemsFound):
    """What the user wrote cannot be meant."""


class Refused(ProblemsFound):
    """What the user wrote is fine, but what is on the host stands against it."""


class Busy(NslabError):
    """Another process holds a lock: the one of this collection, or the one of iptables."""


class Missing(NslabError):
    """The host lacks something that the collection needs."""


class NoNamespace(NslabError):
    """A namespace that is worked in is not there."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no namespace {name!r}")


class KernelError(NslabError):
    """The kernel said no. ``number`` is its errno, ``words`` its extended acknowledgement, if it gave one."""

    def __init__(self, number: int, words: str = "") -> None:
        self.number = number
        self.words = words
        text = os.strerror(number)
        super().__init__(f"{text} ({words})" if words else text)


class StepFailed(NslabError):
    """A step of a plan failed. ``remains`` tells what the rollback could not take back (normally nothing)."""

    def __init__(self, step: str, path: str, cause: str, remains: Sequence[str] = ()) -> None:
        self.step = step
        self.path = path
        self.cause = cause
        self.remains = tuple(remains)
        where = f"{path}: " if path else ""
        if self.remains:
            after = "Not everything could be taken back; this remains: " + "; ".join(self.remains)
        else:
            after = "Everything that this run had done was taken back."
        super().__init__(f"{where}{step}: {cause}. {after}")


def article(word: str) -> str:
    return f"an {word}" if word[:1] in "aeiou" else f"a {word}"


#: How many things are named where there are many.
_FEW = 5


def few(words: Sequence[str]) -> str:
    """Some of the words, as a list in a sentence."""
    named = [*words[:_FEW], *([f"{len(words) - _FEW} more"] if len(words) > _FEW else [])]
    return " and ".join(filter(None, [", ".join(named[:-1]), *named[-1:]]))


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """A hint at the known word that an unknown one resembles; empty if there is none."""
    near = difflib.get_close_matches(word, list(words), 1)
    return f"; did you mean {near[0]!r}?" if near else ""
