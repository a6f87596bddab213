# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """What the modules have in common that impair links."""

    DOCUMENTATION = r"""
options:
  impairment:
    description:
      - What the link does to what it sends, in the words of C(tc-netem). What is not said is as without any.
      - An empty dictionary takes it away. Without this option it stays as it is.
      - It takes a kernel with netem. A queueing discipline of another kind that somebody has set is refused.
    type: dict
    suboptions:
      delay:
        description: How long each packet is delayed, such as V(10ms). The units are V(s), V(ms), V(us) and V(ns).
        type: str
      jitter:
        description: By how much the delay varies, such as V(2ms). It needs a delay.
        type: str
      loss:
        description: How many packets are lost, such as V(1%).
        type: str
      duplicate:
        description: How many packets are sent twice, such as V(1%).
        type: str
      reorder:
        description: How many packets are not delayed, such as V(25%). It needs a delay.
        type: str
      corrupt:
        description: How many packets have one wrong bit, such as V(0.1%).
        type: str
      rate:
        description: How much is sent in a second, such as V(1mbit). The units are V(bit), V(kbit), V(mbit), V(gbit) and V(tbit).
        type: str
      limit:
        description: How many packets wait at most. The others are dropped. Without it they are 1000.
        type: int
"""
