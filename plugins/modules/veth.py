#!/usr/bin/python
# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: veth
short_description: Make, wire and remove veth pairs between network namespaces
version_added: 0.1.0
description:
  - Makes a veth pair with each end in its namespace from the start, under its final name.
  - An end that sits in the wrong namespace is moved to the right one.
  - A link of the same name that is no veth, or that is wired to another peer, is refused.
  - What is not said stays as it is on a veth that is there already.
options:
  name:
    description:
      - The interface name of one end, 1 to 15 bytes.
    type: str
    required: true
  namespace:
    description:
      - The namespace of that end. V(host) is the namespace that the module itself runs in.
    type: str
    default: host
  mtu:
    description:
      - The MTU of that end in bytes.
    type: int
  mac:
    description:
      - The MAC address of that end. The kernel chooses one at random if it is not said.
    type: str
  addresses:
    description:
      - The IPv4 and IPv6 addresses that the end shall have, each with its prefix length.
      - Each is a string such as V(10.0.0.1/24), or a dictionary with the key C(address) and any of C(nodad), C(noprefixroute),
        C(label), C(scope), and C(preferred_lft) (V(0) or V(forever)).
    type: list
    elements: raw
  up:
    description:
      - Whether that end shall be up.
    type: bool
    default: true
  peer:
    description:
      - The other end. It is required with O(state=present).
    type: dict
    suboptions:
      name:
        description: The interface name of the other end.
        type: str
        required: true
      namespace:
        description: The namespace of the other end.
        type: str
        default: host
      mtu:
        description: The MTU of the other end in bytes.
        type: int
      mac:
        description: The MAC address of the other end.
        type: str
      addresses:
        description: The addresses of the other end, as in O(addresses).
        type: list
        elements: raw
      up:
        description: Whether the other end shall be up.
        type: bool
        default: true
      impairment:
        description: What the other end does to what it sends, as in O(impairment).
        type: dict
        suboptions:
          delay:
            description: How long each packet is delayed.
            type: str
          jitter:
            description: By how much the delay varies.
            type: str
          loss:
            description: How many packets are lost.
            type: str
          duplicate:
            description: How many packets are sent twice.
            type: str
          reorder:
            description: How many packets are not delayed.
            type: str
          corrupt:
            description: How many packets have one wrong bit.
            type: str
          rate:
            description: How much is sent in a second.
            type: str
          limit:
            description: How many packets wait at most.
            type: int
  purge:
    description:
      - Whether addresses that O(addresses) or O(peer.addresses) do not name are removed, of each end that names any.
      - Addresses that the kernel made itself, such as link-local ones, always stay.
    type: bool
    default: false
  state:
    description:
      - Whether the veth shall be there. One end is enough to remove it.
    type: str
    choices: [present, absent]
    default: present
seealso:
  - module: nslab.netns.netns
  - module: nslab.netns.ns_link
author:
  - nslab contributors (@nslab)
extends_documentation_fragment:
  - nslab.netns.attributes
  - nslab.netns.attributes.changes
  - nslab.netns.common
  - nslab.netns.impairment
"""

EXAMPLES = r"""
- name: Make the namespaces
  nslab.netns.netns:
    name: [server, router]

- name: Wire them
  nslab.netns.veth:
    name: vethS
    namespace: server
    addresses: [10.0.1.2/24]
    peer:
      name: veth-srv
      namespace: router
      addresses:
        - 10.0.1.1/24
        - address: 2001:db8:1::1/64
          nodad: true

- name: Wire the host to one of them
  nslab.netns.veth:
    name: veth-a
    addresses: [10.0.0.1/24]
    peer:
      name: veth-b
      namespace: server
      addresses: [10.0.0.2/24]

- name: Remove that wire again
  nslab.netns.veth:
    name: veth-a
    state: absent
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
      sample: veth
    namespace:
      description: The namespace that the object is in, V(host) for that of the host.
      type: str
      sample: server
    name:
      description: The name of the namespace or interface, the destination of the route, or the key of the sysctl.
      type: str
      sample: vethS
    before:
      description: The object before the change, in one line; empty if it was not there, or if that cannot be known.
      type: str
      sample: ""
    after:
      description: The object after the change, in one line; empty if it is gone.
      type: str
      sample: "veth server:vethS mtu 1500 -- router:veth-srv mtu 1500"
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
        connection by which Ansible is there, V(missing) if something is not there that is needed and not made, else empty.
      type: str
      sample: ""
    path:
      description: The place of the offending key.
      type: str
      sample: peer.addresses[0]
    text:
      description: What is wrong there, and what would be right.
      type: str
      sample: "'10.0.1.1' lacks its prefix length; write '10.0.1.1/24', or whatever the link's is"
"""

from ..module_utils import _options
from ..module_utils._module import run_module


def main() -> None:
    options = {
        "name": {"type": "str", "required": True},
        "namespace": {"type": "str", "default": "host"},
        "mtu": {"type": "int"},
        "mac": {"type": "str"},
        "addresses": {"type": "list", "elements": "raw"},
        "up": {"type": "bool", "default": True},
        "impairment": _options.IMPAIRMENT,
        "peer": {
            "type": "dict",
            "options": {
                "name": {"type": "str", "required": True},
                "namespace": {"type": "str", "default": "host"},
                "mtu": {"type": "int"},
                "mac": {"type": "str"},
                "addresses": {"type": "list", "elements": "raw"},
                "up": {"type": "bool", "default": True},
                "impairment": _options.IMPAIRMENT,
            },
        },
        "purge": {"type": "bool", "default": False},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    }
    run_module("veth", options, _options.veth, required_if=[("state", "present", ["peer"])])


if __name__ == "__main__":
    main()
