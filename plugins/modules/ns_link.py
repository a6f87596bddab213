#!/usr/bin/python
# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ns_link
short_description: Set up an existing link in a network namespace
version_added: 0.1.0
description:
  - Sets MTU, MAC, addresses and the administrative state of a link that exists, C(lo) above all.
  - What is not said stays as it is.
options:
  name:
    description:
      - The name of the interface.
    type: str
    required: true
  namespace:
    description:
      - The namespace that it is in. V(host) is the namespace that the module itself runs in.
    type: str
    default: host
  up:
    description:
      - Whether the link shall be up.
      - The kernel removes the routes of a link that goes down, and its IPv6 addresses.
    type: bool
  mtu:
    description:
      - The MTU in bytes.
    type: int
  mac:
    description:
      - The MAC address.
    type: str
  addresses:
    description:
      - The IPv4 and IPv6 addresses that the link shall have, each with its prefix length.
      - Each is a string such as V(10.0.0.1/24), or a dictionary with the key C(address) and any of C(nodad), C(noprefixroute),
        C(label), C(scope), and C(preferred_lft) (V(0) or V(forever)).
    type: list
    elements: raw
  purge:
    description:
      - Whether addresses that O(addresses) does not name are removed.
      - Addresses that the kernel made itself, such as link-local ones, V(127.0.0.1) and V(::1), always stay.
    type: bool
    default: false
seealso:
  - module: nslab.netns.veth
author:
  - nslab contributors (@nslab)
extends_documentation_fragment:
  - nslab.netns.attributes
  - nslab.netns.attributes.changes
  - nslab.netns.common
"""

EXAMPLES = r"""
- name: Make a namespace
  nslab.netns.netns:
    name: server

- name: Give its loopback an address of its own, and no other
  nslab.netns.ns_link:
    name: lo
    namespace: server
    up: true
    addresses: [1.1.1.1/24]
    purge: true
"""

RETURN = r"""
changes:
  description:
    - The changes in the order in which they were made, or would be made in check mode.
  returned: success
  type: list
  elements: dict
  contains:
    action:
      description: What happens to the object, V(add), V(remove), V(change), or V(move).
      type: str
      sample: add
    object:
      description: The kind of the object, such as V(namespace), V(veth), V(bridge), V(port), V(link), V(address),
        V(route), or V(sysctl).
      type: str
      sample: address
    namespace:
      description: The namespace that the object is in, V(host) for that of the host.
      type: str
      sample: server
    name:
      description: The name of the namespace or interface, the destination of the route, or the key of the sysctl.
      type: str
      sample: lo
    before:
      description: The object before the change, in one line; empty if it was not there, or if that cannot be known.
      type: str
      sample: ""
    after:
      description: The object after the change, in one line; empty if it is gone.
      type: str
      sample: "address server:lo 1.1.1.1/24"
    text:
      description: The change as one sentence.
      type: str
      sample: change link router:veth-srv mtu 1400 -> 1500
unconfirmed_until:
  description:
    - When the host takes the changes back by itself, in UTC.
  returned: if something changed, with O(revert_after)
  type: str
  sample: "2026-01-31T23:59:59Z"
assumptions:
  description:
    - What the prediction takes for granted, because an earlier task of the same check run would have made it.
    - Outside check mode the list is empty, as the same would be an error.
  returned: success
  type: list
  elements: str
  sample: ["namespace: there is no namespace 'server'"]
problems:
  description:
    - What is wrong with the options, or stands against them on the host. Nothing was touched.
  returned: failure, if the input was refused
  type: list
  elements: dict
  contains:
    code:
      description: V(foreign) if something of somebody else is in the way, V(connection) if the change would cut the
        connection by which Ansible is there, else empty.
      type: str
      sample: ""
    path:
      description: The place of the offending key.
      type: str
      sample: addresses[0]
    text:
      description: What is wrong there, and what would be right.
      type: str
      sample: "'1.1.1.1' lacks its prefix length; write '1.1.1.1/24', or whatever the link's is"
"""

from ..module_utils import _options
from ..module_utils._module import run_module


def main() -> None:
    options = {
        "name": {"type": "str", "required": True},
        "namespace": {"type": "str", "default": "host"},
        "up": {"type": "bool"},
        "mtu": {"type": "int"},
        "mac": {"type": "str"},
        "addresses": {"type": "list", "elements": "raw"},
        "purge": {"type": "bool", "default": False},
    }
    run_module("ns_link", options, _options.ns_link)


if __name__ == "__main__":
    main()
