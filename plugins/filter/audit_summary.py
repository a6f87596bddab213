# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: audit_summary
short_description: Sum up how the labs of many hosts stand
version_added: 0.1.0
author:
  - nslab contributors (@nslab)
description:
  - Takes the verdicts of the filter P(nslab.netns.audit_verdicts#filter) by host, and writes them as text.
options:
  _input:
    description:
      - The verdicts by the name of the host.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show how the labs stand
  ansible.builtin.debug:
    msg: "{{ {inventory_hostname: verdicts} | nslab.netns.audit_summary }}"
"""

RETURN = r"""
_value:
  description: The text, in several lines.
  type: str
  sample: |-
    alpha: the lab routed is as the document has it
    beta: the lab routed has drifted: 1 change would repair it
      change link router:veth-srv mtu 1400 -> 1500

    2 labs on 2 hosts: 1 drifted, 1 sound
"""

from collections.abc import Mapping
from typing import Any, Callable

from ansible.errors import AnsibleFilterError


def audit_summary(verdicts: Any) -> str:
    """The verdicts of all hosts as text, with the changes that would repair each lab."""
    if not isinstance(verdicts, Mapping):
        raise AnsibleFilterError("nslab.netns.audit_summary takes the verdicts by the name of the host")
    lines: list[str] = []
    counts: dict[str, int] = {}
    for host, labs in verdicts.items():
        for lab in labs:
            counts[lab["verdict"]] = counts.get(lab["verdict"], 0) + 1
            lines.append(f"{host}: {lab['text']}")
            lines += [f"  {change['text']}" for change in lab["changes"]]
    total = sum(counts.values())
    named = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items())) or "none"
    labs_text = "1 lab" if total == 1 else f"{total} labs"
    hosts_text = "1 host" if len(verdicts) == 1 else f"{len(verdicts)} hosts"
    return "\n".join([*lines, "", f"{labs_text} on {hosts_text}: {named}"])


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"audit_summary": audit_summary}
