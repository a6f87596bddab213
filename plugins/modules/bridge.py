#!/usr/bin/python
# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: bridge
short_description: Make, set up and remove a bridge in a network namespace
version_added: 0.1.0
description:
  - Makes a bridge, or sets up one that is there. What is not said stays as it is, and is the kernel's default for a new bridge.
  - Ports are the business of M(nslab.netns.bridge_port).
options:
  name:
    description:
      - The name of the bridge.
    type: str
    required: true
  namespace:
    description:
      - The namespace that it is in. V(host) is the namespace that the module itself runs in.
    type: str
    default: host
  state:
    description:
      - V(present) makes it be there with these settings.
      - V(absent) removes it; its ports stay, as ports of none. With O(lab) only a bridge with that mark is removed. A link of that name
        that is no bridge is refused.
    type: str
    choices: [present, absent]
    default: present
  up:
    description:
      - Whether the bridge shall be up.
      - With many ports it is quicker to bring the bridge up after they have joined, as IPv6 sends to all of them when one more comes up.
    type: bool
    default: true
  mtu:
    description:
      - The MTU in bytes.
      - A bridge that never got one takes the smallest of its ports.
    type: int
  mac:
    description:
      - The MAC address.
      - A bridge that never got one takes the lowest of its ports.
    type: str
  addresses:
    description:
      - The IPv4 and IPv6 addresses that the bridge shall have, each with its prefix length.
      - Each is a string such as V(10.0.0.1/24), or a dictionary with the key C(address) and any of C(nodad), C(noprefixroute),
        C(label), C(scope), and C(preferred_lft) (V(0) or V(forever)).
    type: list
    elements: raw
  purge:
    description:
      - Whether addresses that O(addresses) does not name are removed.
    type: bool
    default: false
  stp:
    description:
      - Whether the spanning tree protocol is on. It is off on a new bridge.
    type: bool
  ageing_time:
    description:
      - How many seconds the bridge remembers on which port it has last heard a MAC address. It is V(300) on a new bridge.
      - While the spanning tree minds a change of the topology, it cannot be seen and is not compared; a warning says so.
    type: float
  forward_delay:
    description:
      - How many seconds a port listens, and then learns, before it forwards, where O(stp) is on. It is V(15) on a new bridge.
      - A bridge that is not the root of the spanning tree shows that one's. It is not compared there; a warning says so.
    type: float
  vlan_filtering:
    description:
      - Whether the bridge minds VLAN tags and the VLANs of its ports. It does not on a new bridge. The kernel has to be built for it.
    type: bool
  vlan_default_pvid:
    description:
      - The VLAN that a new port is in, untagged and for what comes in without a tag; V(0) for none. It is V(1) on a new bridge.
    type: int
  vlans:
    description:
      - The VLANs that the bridge itself is in, so that its addresses and VLANs that lie on it are reached by them. Each is a number or a
        dictionary of C(vid), C(pvid) and C(untagged), as those of a port. A new bridge is in the one of O(vlan_default_pvid).
    type: list
    elements: raw
  multicast_snooping:
    description:
      - Whether multicast goes only where somebody has asked for it. It is on on a new bridge.
    type: bool
  group_fwd_mask:
    description:
      - Which of the link-local group addresses C(01:80:C2:00:00:0X) are forwarded, as a mask with bit X. V(16384) forwards LLDP.
      - The kernel refuses bits 0 to 2.
    type: int
seealso:
  - module: nslab.netns.bridge_port
  - module: nslab.netns.topology
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
    name: router

- name: Make a bridge in it
  nslab.netns.bridge:
    name: br0
    namespace: router
    addresses: [172.18.0.1/16]
    ageing_time: 60

- name: Remove the bridge
  nslab.netns.bridge:
    name: br0
    namespace: router
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
      sample: bridge
    namespace:
      description: The namespace that the object is in, V(host) for that of the host.
      type: str
      sample: router
    name:
      description: The name of the namespace or interface, the destination of the route, or the key of the sysctl.
      type: str
      sample: br0
    before:
      description: The object before the change, in one line; empty if it was not there, or if that cannot be known.
      type: str
      sample: ""
    after:
      description: The object after the change, in one line; empty if it is gone.
      type: str
      sample: "bridge router:br0 ageing_time 60"
    text:
      description: The change as one sentence.
      type: str
      sample: add bridge router:br0 ageing_time 60
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
      sample: ageing_time
    text:
      description: What is wrong there, and what would be right.
      type: str
      sample: "'long' is no number"
"""

from ..module_utils import _options
from ..module_utils._module import run_module


def main() -> None:
    options = {
        "name": {"type": "str", "required": True},
        "namespace": {"type": "str", "default": "host"},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "up": {"type": "bool", "default": True},
        "mtu": {"type": "int"},
        "mac": {"type": "str"},
        "addresses": {"type": "list", "elements": "raw"},
        "purge": {"type": "bool", "default": False},
        "stp": {"type": "bool"},
        "ageing_time": {"type": "float"},
        "forward_delay": {"type": "float"},
        "vlan_filtering": {"type": "bool"},
        "vlan_default_pvid": {"type": "int"},
        "vlans": {"type": "list", "elements": "raw"},
        "multicast_snooping": {"type": "bool"},
        "group_fwd_mask": {"type": "int"},
    }
    run_module("bridge", options, _options.bridge)


if __name__ == "__main__":
    main()
