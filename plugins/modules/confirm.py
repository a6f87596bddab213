#!/usr/bin/python
# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: confirm
short_description: Keep changes that would take themselves back
version_added: 0.1.0
description:
  - Confirms the changes of a task with C(revert_after), so that the host keeps them.
  - If they were taken back already, or if the changes of another lab wait, it fails. If nothing waits to be confirmed, it changes
    nothing.
options:
  lab:
    description:
      - The lab whose changes are to be kept, as the O(nslab.netns.topology#module:lab) of that task or the name in its document.
      - Left out, changes that were made for no lab are kept, such as those of O(nslab.netns.topology#module:gc).
    type: str
extends_documentation_fragment:
  - nslab.netns.attributes
  - nslab.netns.attributes.changes
seealso:
  - module: nslab.netns.topology
  - module: nslab.netns.netns_info
author:
  - nslab contributors (@nslab)
"""

EXAMPLES = r"""
- name: Give this host one more address
  nslab.netns.ns_link:
    name: lo
    addresses: [192.0.2.53/32]
    lab: edge
    revert_after: 60

- name: Connect anew, as only that proves that the host can still be reached
  ansible.builtin.meta: reset_connection

- name: Keep it
  nslab.netns.confirm:
    lab: edge
"""

RETURN = r"""
confirmed:
  description:
    - What is kept now, or would be in check mode; V(null) if nothing waited.
  returned: success
  type: dict
  contains:
    lab:
      description: The lab; empty for none.
      type: str
      sample: edge
    purpose:
      description: The module, and the lab.
      type: str
      sample: nslab.netns.ns_link for lab edge
    changes:
      description: Its changes, each as a sentence.
      type: list
      elements: str
      sample: ["add address host:lo 192.0.2.53/32"]
    until:
      description: When it would have been taken back, in UTC.
      type: str
      sample: "2026-01-31T23:59:59Z"
    pid:
      description: The process that waited.
      type: int
      sample: 4242
reverted:
  description:
    - What was taken back, for want of a confirmation.
  returned: failure, if it was
  type: dict
  sample: {"purpose": "nslab.netns.ns_link for lab edge", "lab": "edge", "reverted": "2026-01-31T23:59:59Z", "remains": []}
"""

import os

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _pending
from ..module_utils._errors import Missing, NslabError
from ..module_utils._module import fail


def main() -> None:
    module = AnsibleModule(argument_spec={"lab": {"type": "str"}}, supports_check_mode=True)
    try:
        if os.geteuid() != 0:
            raise Missing("what root has changed can be confirmed only as root; use 'become: true'")
        lab = module.params["lab"] or ""
        confirmed = _pending.pending() if module.check_mode else _pending.confirm(lab)
        _pending.check_lab(confirmed, lab)
        reverted = _pending.reverted()
        if reverted and not confirmed and reverted["lab"] == lab:
            left = "; ".join(reverted["remains"])
            text = f"{reverted['purpose']} was not confirmed until {reverted['until']}, and its changes were taken back"
            fail(module, NslabError(f"{text}, but for: {left}" if left else text), reverted=reverted)
    except NslabError as error:
        fail(module, error)
    except OSError as error:
        fail(module, NslabError(str(error)))
    module.exit_json(changed=confirmed is not None, confirmed=confirmed)


if __name__ == "__main__":
    main()
