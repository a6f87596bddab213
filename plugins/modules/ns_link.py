#!/usr/bin/python
# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ns_link
short_description: Set up a link in a network namespace, and make VLANs and the like
version_added: 0.1.0
description:
  - Sets MTU, MAC, addresses and the administrative state of a link that exists, C(lo) above all.
  - With one of O(dummy), O(vlan), O(macvlan), O(ipvlan), O(vxlan) and O(vrf) it makes the link if it is missing, and with
    O(state=absent) removes it. One that is there and is something else is refused; to make it anew, remove it first.
  - What is not said stays as it is.
  - With O(device) it moves a device of the host (a NIC, a macvlan, a tun or tap) into the namespace first, and gives it
    its name there. With O(state=absent) the device goes home, under its old name and as it was there.
options:
  state:
    description:
      - V(absent) removes a link of the kinds that this module makes, and sends a device home that was moved by O(device).
        Nothing happens if there is none. Beside O(name), O(namespace) and O(lab) all other options are ignored then.
      - A device goes home as well when its namespace is removed by M(nslab.netns.netns) or M(nslab.netns.topology).
    type: str
    choices: [present, absent]
    default: present
  device:
    description:
      - The device of the host that the link is. If it is not in the namespace yet, it is moved there, and called O(name).
      - It says itself what it was called, by a second name (C(altname)) such as C(nslab::eth1), so that it is found again
        wherever it is. Its addresses, MTU, MAC, sysctls, its bridge and the routes through it are remembered until the
        host is booted anew.
      - It may be a port of a bridge in its new namespace. The kernel does not let every device move, a bridge or a bond
        for example; such a device is refused.
    type: dict
    suboptions:
      name:
        description:
          - Its name on the host, or a second one that it has there (C(altname)). One of O(device.name), O(device.mac)
            and O(device.path) is required.
        type: str
      mac:
        description:
          - Its MAC address, the one that it has or the one that the hardware came with.
        type: str
      path:
        description:
          - What it is called on its bus, such as V(0000:00:03.0) or V(virtio0), or by udev (C(ID_PATH)), such as
            V(pci-0000:00:03.0).
        type: str
      force:
        description:
          - Take the device although the host may need it, as the host's default route goes by it, as it is a port of a
            bridge, as a VLAN or the like lies on it, or as the SSH session comes in by it by which Ansible is there.
        type: bool
        default: false
  dummy:
    description:
      - V(true) for a dummy, a link from which nothing is sent.
    type: bool
  vlan:
    description:
      - What is sent through the link is tagged and goes out of another link, and the other way round.
    type: dict
    suboptions:
      link:
        description:
          - The interface that the VLAN lies on, in the same namespace, or in another one as in V(host:eth0).
        type: str
        required: true
      id:
        description: The number of the VLAN, from 1 to 4094.
        type: int
        required: true
      protocol:
        description: The kind of tags; V(802.1Q) without it.
        type: str
        choices: [802.1Q, 802.1ad]
      reorder_hdr:
        description: Whether what looks at the packets sees them without their tags; V(true) without it.
        type: bool
      gvrp:
        description: Whether the VLAN is registered by GVRP; V(false) without it.
        type: bool
      mvrp:
        description: Whether the VLAN is registered by MVRP; V(false) without it.
        type: bool
      loose_binding:
        description: Whether the VLAN stays up when the interface that it lies on goes down; V(false) without it.
        type: bool
      bridge_binding:
        description:
          - Whether a VLAN that lies on a bridge has a carrier only as long as a port of its number has one; V(false) without it.
        type: bool
  macvlan:
    description:
      - A link with a MAC address of its own that shares another link with that and with others of its kind.
      - The link that it lies on can be no macvlan itself and no port of a bridge, and have no ipvlan on it.
    type: dict
    suboptions:
      link:
        description: The interface that it lies on, as of O(vlan.link).
        type: str
        required: true
      mode:
        description:
          - Whether those on one link reach each other; V(bridge) without it, as container engines have it. The kernel's own
            default is V(vepa).
        type: str
        choices: [bridge, private, vepa, passthru]
  ipvlan:
    description:
      - A link that shares another one, and its MAC address. All on one link are of the same mode and flag, and the link
        that they lie on can be no ipvlan itself.
    type: dict
    suboptions:
      link:
        description: The interface that it lies on, as of O(vlan.link).
        type: str
        required: true
      mode:
        description: V(l2) without it, as container engines have it. The kernel's own default is V(l3).
        type: str
        choices: [l2, l3, l3s]
      flag:
        description: Whether those on one link reach each other; V(bridge) without it.
        type: str
        choices: [bridge, private, vepa]
  vxlan:
    description:
      - What is sent through the link goes to another host in UDP packets.
    type: dict
    suboptions:
      id:
        description: The network identifier (VNI), from 0 to 16777215.
        type: int
        required: true
      remote:
        description: The address of the other end.
        type: str
      group:
        description: A multicast group of several ends, in the place of O(vxlan.remote). It takes O(vxlan.link).
        type: str
      local:
        description: The address from which packets are sent.
        type: str
      link:
        description: The interface that packets leave by, as of O(vlan.link).
        type: str
      link_netns:
        description: The namespace through which packets go, where that is another one and O(vxlan.link) does not say it.
        type: str
      dstport:
        description: The UDP port; 4789 without it.
        type: int
      learning:
        description: Whether the link learns from which end a MAC address comes; V(true) without it.
        type: bool
      ageing:
        description: For how many seconds it keeps what it has learned; 300 without it.
        type: int
      ttl:
        description:
          - The time to live of the packets, from 1 to 255. V(0), as without it, is the namespace's usual one, and 1 to a O(vxlan.group).
        type: int
      tos:
        description: The type of service of the packets; 0 without it. V(1) is that of what is in them.
        type: int
      df:
        description:
          - Whether routers on the way are told not to fragment the packets; V(inherit) as it is said of what is in them.
            V(unset) without it.
        type: str
        choices: [unset, set, inherit]
  vrf:
    description:
      - A routing domain. The routes of its interfaces' addresses are in its table, and what comes in by them is routed by it.
    type: dict
    suboptions:
      table:
        description: The number of its routing table.
        type: int
        required: true
      interfaces:
        description:
          - The interfaces of the same namespace that are in it. With O(purge), others leave it. Without this, they stay as they are.
        type: list
        elements: str
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
      - Whether addresses that O(addresses) does not name are removed, and interfaces that O(vrf.interfaces) does not name leave the VRF.
        Of the two only what is said is purged, and one has to be.
      - Addresses that the kernel made itself, such as link-local ones, V(127.0.0.1) and V(::1), always stay.
    type: bool
    default: false
seealso:
  - module: nslab.netns.veth
  - module: nslab.netns.netns
author:
  - nslab contributors (@nslab)
extends_documentation_fragment:
  - nslab.netns.attributes
  - nslab.netns.attributes.changes
  - nslab.netns.common
  - nslab.netns.impairment
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

- name: Give the host one more device, for want of a NIC
  nslab.netns.veth:
    name: veth-a
    peer: {name: veth-b}

- name: Move the device into the namespace, where it is eth0
  nslab.netns.ns_link:
    name: eth0
    namespace: server
    device: {name: veth-a}
    up: true
    addresses: [10.0.1.2/24]

- name: Lay a macvlan on it
  nslab.netns.ns_link:
    name: web
    namespace: server
    macvlan: {link: eth0}
    up: true
    addresses: [10.0.1.80/24]

- name: Remove the macvlan
  nslab.netns.ns_link:
    name: web
    namespace: server
    state: absent

- name: Send it home
  nslab.netns.ns_link:
    name: eth0
    namespace: server
    state: absent

- name: Remove it
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
      description: The kind of the object, such as V(namespace), V(veth), V(bridge), V(port), V(link), V(altname), V(address),
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
        connection by which Ansible is there, V(missing) if something is not there that is needed and not made, else empty.
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
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "name": {"type": "str", "required": True},
        "device": {
            "type": "dict",
            "options": {
                "name": {"type": "str"},
                "mac": {"type": "str"},
                "path": {"type": "str"},
                "force": {"type": "bool", "default": False},
            },
        },
        **_options.KINDS,
        "namespace": {"type": "str", "default": "host"},
        "up": {"type": "bool"},
        "mtu": {"type": "int"},
        "mac": {"type": "str"},
        "addresses": {"type": "list", "elements": "raw"},
        "impairment": _options.IMPAIRMENT,
        "purge": {"type": "bool", "default": False},
    }
    run_module("ns_link", options, _options.ns_link)


if __name__ == "__main__":
    main()
