# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """The options of every module that changes something."""

    DOCUMENTATION = r"""
options:
  lab:
    description:
      - The name of the lab that the objects belong to. It is left on them as a mark in the kernel (the alias of a link, the
        alias of a namespace's C(lo)), by which M(nslab.netns.topology) knows them as the lab's own.
      - With it, a namespace or link that has another lab's mark or none is neither taken over nor removed.
      - Without it, objects are made without a mark, as C(ip) would make them, and those of any lab may be changed and
        removed, as C(ip) would do it.
    type: str
  lock_timeout:
    description:
      - How many seconds to wait for another run of this collection on the same host, before failing with its name.
    type: float
    default: 60.0
  verify:
    description:
      - Look again after the changes. What the kernel did not keep is an error, and everything is taken back.
    type: bool
    default: true
  revert_after:
    description:
      - Have the host take the changes back by itself after so many seconds, unless M(nslab.netns.confirm) comes before.
        This survives the end of the SSH session. It is from 1 to 86400 seconds, a day.
      - Until then nothing else is changed by this collection on the host, and namespaces that were removed live on.
      - Without it, a change that would cut the SSH session by which Ansible is on the host is refused.
    type: float
"""
