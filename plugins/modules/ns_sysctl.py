#!/usr/bin/python
# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ns_sysctl
short_description: Set sysctls of a network namespace
version_added: 0.1.0
description:
  - Sets kernel parameters below C(/proc/sys/net) of one namespace, for as long as the namespace lives.
  - A parameter that exists once for the whole machine is refused by name.
options:
  namespace:
    description:
      - The namespace. V(host) is the namespace that the module itself runs in.
    type: str
    default: host
  settings:
    description:
      - The sysctls by name, and the value that each shall have.
      - A name may be spelled as C(net.ipv4.ip_forward) or C(net/ipv4/ip_forward). An interface name that has dots in it may stand
        as it is, as in C(net.ipv4.conf.eth0.100.rp_filter).
      - A value is a number, a string, or a boolean for V(1) and V(0).
    type: dict
    required: true
seealso:
  - module: ansible.posix.sysctl
    description: Parameters of the host, kept in a file over a reboot.
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

- name: Make it a router
  nslab.netns.ns_sysctl:
    namespace: router
    settings:
      net.ipv4.ip_forward: 1
      net.ipv6.conf.all.forwarding: 1
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
      sample: change
    object:
      description: The kind of the object, such as V(namespace), V(veth), V(bridge), V(port), V(link), V(address),
        V(route), or V(sysctl).
      type: str
      sample: sysctl
    namespace:
      description: The namespace that the object is in, V(host) for that of the host.
      type: str
      sample: router
    name:
      description: The name of the namespace or interface, the destination of the route, or the key of the sysctl.
      type: str
      sample: net.ipv4.ip_forward
    before:
      description: The object before the change, in one line; empty if it was not there, or if that cannot be known.
      type: str
      sample: "sysctl router net.ipv4.ip_forward = 0"
    after:
      description: The object after the change, in one line; empty if it is gone.
      type: str
      sample: "sysctl router net.ipv4.ip_forward = 1"
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
      sample: settings['net.ipv4.ip_forwrad']
    text:
      description: What is wrong there, and what would be right.
      type: str
      sample: "there is no sysctl net.ipv4.ip_forwrad; did you mean 'net.ipv4.ip_forward'?"
"""

from ..module_utils import _options
from ..module_utils._module import run_module


def main() -> None:
    options = {
        "namespace": {"type": "str", "default": "host"},
        "settings": {"type": "dict", "required": True},
    }
    run_module("ns_sysctl", options, _options.ns_sysctl)


if __name__ == "__main__":
    main()
