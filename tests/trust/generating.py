# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Generated examples in numbers: spread over processes, the same each time, and told in full where one fails."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

from ansible_collections.nslab.netns.tests.unit.topologies import Document
from hypothesis import HealthCheck, Phase, Verbosity, seed, settings

#: Each seed leads to other examples.
_SEED = int(os.environ.get("NSLAB_SEED", "0"))


def generated(part: int, examples: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """As many examples, others in each part; the least, which comes first always, is one more."""

    def around(test: Callable[..., Any]) -> Callable[..., Any]:
        settled = settings(
            max_examples=examples + 1,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            database=None,
            derandomize=False,
            # `telling` says it in two lines.
            verbosity=Verbosity.quiet,
            print_blob=False,
        )(test)
        return seed(1_000 * _SEED + part)(settled)

    return around


@contextlib.contextmanager
def telling(first: Document, document: Document) -> Iterator[None]:
    """Let what fails say on the way from which document to which, so that it can be tried again by hand."""
    try:
        yield
    except Exception as error:
        error.add_note(f"from {json.dumps(first)}\nto {json.dumps(document)}")
        raise
