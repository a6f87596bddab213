# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules have in common."""

from __future__ import annotations

import pytest
from ansible_collections.nslab.netns.plugins.module_utils._errors import InvalidInput
from ansible_collections.nslab.netns.plugins.module_utils._module import check_seconds


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -float("inf"), -1.0, 1e10])
@pytest.mark.parametrize("option", ["revert_after", "lock_timeout", "wait_timeout"])
def test_times_that_nobody_can_mean_are_refused(option: str, seconds: float) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_seconds({option: seconds})
    assert (
        str(caught.value) == f"{option}: {seconds:g} is no number of seconds from {option == 'revert_after':g} to 86400"
    )


def test_the_others_are_taken() -> None:
    check_seconds({"revert_after": None, "lock_timeout": 0.0})
    check_seconds({"revert_after": 1.0, "lock_timeout": 86400.0, "wait_timeout": 0.5})
