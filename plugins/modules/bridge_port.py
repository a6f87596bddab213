#!/usr/bin/python
# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: bridge_port
short_description: Manage the ports of a bridge in a network namespace
version_added: 0.1.0
description:
  - Makes existing links ports of an existing bridge in the same namespace, and sets what they are like as ports.
  - What is not said of a port stays as it is.
options:
  bridge:
    description:
      - The name of the bridge.
    type: str
    required: true
  namespace:
    description:
      - The namespace that the bridge and its ports are in. V(host) is the namespace that the module itself runs in.
    type: str
    default: host
  ports:
    description:
      - The ports. Each is the name of a link, or a dictionary with the key C(name) and any of the following.
      - C(cost) (1 to 65535) and C(priority) (0 to 63) for the spanning tree protocol.
      - C(hairpin) sends frames back out of the port that they came in through.
      - C(guard) shuts the port when it hears spanning tree messages.
      - C(learning) remembers the MAC addresses behind the port; C(flood) sends it unicast frames whose way is not known; C(mcast_flood)
        sends it multicast that nobody has asked for.
      - C(isolated) ports reach only ports that are not.
      - C(neigh_suppress) answers ARP and neighbour solicitations for the port from what the bridge knows.
      - C(vlans) is the list of all VLANs of the port, each a number or a dictionary of C(vid), C(pvid) (what comes in without a tag is
        in it) and C(untagged) (it goes out without a tag). The kernel has to be built for it.
    type: list
    elements: raw
    required: true
  purge:
    description:
      - Whether ports of the bridge that O(ports) does not name leave it.
    type: bool
    default: false
  move:
    description:
      - Whether a link that is a port of another bridge changes over. Without it that is refused.
    type: bool
    default: false
  state:
    description:
      - V(present) makes the links ports; V(absent) takes them out of the bridge.
    type: str
    choices: [present, absent]
    default: present
seealso:
  - module: nslab.netns.bridge
  - module: nslab.netns.topology
author:
  - nslab contributors (@nslab)
extends_documentation_fragment:
  - nslab.netns.attributes
  - nslab.netns.attributes.changes
  - nslab.netns.common
"""

EXAMPLES = r"""
- name: Make two namespaces
  nslab.netns.netns:
    name: [router, client]

- name: Make a bridge
  nslab.netns.bridge:
    name: br0
    namespace: router

- name: Make a link to put on it
  nslab.netns.veth:
    name: veth-cli
    namespace: router
    peer: {name: eth0, namespace: client}

- name: Put it on the bridge, and nothing else
  nslab.netns.bridge_port:
    bridge: br0
    namespace: router
    ports:
      - {name: veth-cli, hairpin: true}
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
      sample: port
    namespace:
      description: The namespace that the object is in, V(host) for that of the host.
      type: str
      sample: router
    name:
      description: The name of the namespace or interface, the destination of the route, or the key of the sysctl.
      type: str
      sample: veth-cli
    before:
      description: The object before the change, in one line; empty if it was not there, or if that cannot be known.
      type: str
      sample: ""
    after:
      description: The object after the change, in one line; empty if it is gone.
      type: str
      sample: "port router:veth-cli of br0"
    text:
      description: The change as one sentence.
      type: str
      sample: add port router:veth-cli of br0
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
      sample: ports[0].cost
    text:
      description: What is wrong there, and what would be right.
      type: str
      sample: "0 is out of range: it has to be from 1 to 65535"
"""

from ..module_utils import _options
from ..module_utils._module import run_module


def main() -> None:
    options = {
        "bridge": {"type": "str", "required": True},
        "namespace": {"type": "str", "default": "host"},
        "ports": {"type": "list", "elements": "raw", "required": True},
        "purge": {"type": "bool", "default": False},
        "move": {"type": "bool", "default": False},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    }
    run_module("bridge_port", options, _options.bridge_port)


if __name__ == "__main__":
    main()
