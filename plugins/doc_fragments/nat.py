# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """What the modules for address translation have in common."""

    DOCUMENTATION = r"""
options:
  namespace:
    description:
      - The namespace. V(host) is the namespace that the module itself runs in.
    type: str
    default: host
  backend:
    description:
      - What holds the rules.
      - V(nftables) has a table of its own in each namespace, C(inet nslab-LAB), or C(inet nslab) without O(lab). It takes nftables'
        Python binding or the program C(nft).
      - V(iptables) has rules in the built-in chains of the table C(nat) of legacy iptables, known by a comment. It takes the Python
        library python-iptables. Rules of iptables-nft are rules of nftables, which this does not touch.
      - V(auto) is the one that holds rules of the lab in the namespace already; or else V(iptables) where the namespace has the table
        C(nat) of legacy iptables; or else V(nftables), where it is there.
      - When this changes, the rules are added to the new one before they are removed from the old one. All rules of a lab in a
        namespace are in one, so that those that stay move as well, also with O(state=absent). The table C(nat) of legacy iptables,
        once it is there, stays until the namespace goes.
    type: str
    choices: [auto, nftables, iptables]
    default: auto
  state:
    description:
      - Whether the rules shall be there.
    type: str
    choices: [present, absent]
    default: present
"""
