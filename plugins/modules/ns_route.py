#!/usr/bin/python
# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ns_route
short_description: Manage the routes of a network namespace
version_added: 0.1.0
description:
  - Adds, changes in place and removes routes in a namespace, in the words of C(ip route).
  - Two routes are the same one if they have the same destination, table and metric.
  - The order of the list does not matter. Routes that make a gateway reachable are added first.
options:
  namespace:
    description:
      - The namespace. V(host) is the namespace that the module itself runs in.
    type: str
    default: host
  routes:
    description:
      - The routes that shall be there, or with O(state=absent), those that shall not.
    type: list
    elements: dict
    required: true
    suboptions:
      to:
        description: The destination, a prefix such as V(10.0.0.0/24), an address, or V(default).
        type: str
        required: true
      via:
        description: The gateway. V(default) takes its address family from it.
        type: str
      dev:
        description: The interface. With O(routes[].via), the one that reaches the gateway is found if it is not said.
        type: str
      src:
        description: The source address that the namespace prefers for what it sends on this route.
        type: str
      metric:
        description:
          - The metric, also called priority. The lowest is preferred.
          - The kernel's default is V(0) for IPv4 and V(1024) for IPv6.
        type: int
      table:
        description: The number of the routing table, or V(main) or V(default).
        type: str
        default: main
      scope:
        description:
          - The scope of an IPv4 route. By default V(link) for a route without a gateway, V(global) for others.
        type: str
        choices: [global, link, host]
      onlink:
        description: Take the gateway to be on the link, although no prefix of the link covers it.
        type: bool
      mtu:
        description: The path MTU in bytes for this route.
        type: int
      type:
        description:
          - The type of the route. All but V(unicast) discard packets, V(blackhole) silently, V(unreachable) and V(prohibit)
            with an ICMP error.
        type: str
        choices: [unicast, blackhole, unreachable, prohibit]
      nexthops:
        description: The ways of a multipath route, two or more, in the place of O(routes[].via) and O(routes[].dev).
        type: list
        elements: dict
        suboptions:
          via:
            description: The gateway of this way.
            type: str
          dev:
            description: The interface of this way.
            type: str
          weight:
            description: The share of this way, from V(1) to V(256).
            type: int
          onlink:
            description: Take the gateway to be on the link.
            type: bool
  purge:
    description:
      - Whether routes that O(routes) does not name are removed, of all tables and of both address families.
      - With O(lab), too, these may be anybody's. A lab's mark is on namespaces and links, and routes have none.
      - Routes of the kernel (connected and local ones), of router advertisements, DHCP clients and routing daemons always stay.
    type: bool
    default: false
  state:
    description:
      - Whether the routes shall be there. To remove one, C(to), and C(table) and C(metric) if they are not the defaults, are enough.
    type: str
    choices: [present, absent]
    default: present
seealso:
  - module: nslab.netns.ns_sysctl
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

- name: Wire it to the host
  nslab.netns.veth:
    name: veth-srv
    namespace: router
    addresses: [10.0.1.1/24]
    peer:
      name: veth-a

- name: Give it exactly these static routes
  nslab.netns.ns_route:
    namespace: router
    routes:
      - {to: default, via: 10.0.1.2}
      - {to: 1.1.1.0/24, via: 10.0.1.3, metric: 100}
      - {to: 192.0.2.0/24, type: blackhole}
    purge: true

- name: Remove one of them
  nslab.netns.ns_route:
    namespace: router
    routes:
      - {to: 192.0.2.0/24}
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
      sample: route
    namespace:
      description: The namespace that the object is in, V(host) for that of the host.
      type: str
      sample: router
    name:
      description: The name of the namespace or interface, the destination of the route, or the key of the sysctl.
      type: str
      sample: 1.1.1.0/24
    before:
      description: The object before the change, in one line; empty if it was not there, or if that cannot be known.
      type: str
      sample: ""
    after:
      description: The object after the change, in one line; empty if it is gone.
      type: str
      sample: "route router 1.1.1.0/24 via 10.0.1.3 dev veth-srv metric 100"
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
      sample: routes[1].via
    text:
      description: What is wrong there, and what would be right.
      type: str
      sample: "'10.9.9.9' is not reachable in the namespace router: no connected prefix (10.0.1.0/24) ..."
"""

from ..module_utils import _options
from ..module_utils._module import run_module


def main() -> None:
    options = {
        "namespace": {"type": "str", "default": "host"},
        "routes": {
            "type": "list",
            "elements": "dict",
            "required": True,
            "options": {
                "to": {"type": "str", "required": True},
                "via": {"type": "str"},
                "dev": {"type": "str"},
                "src": {"type": "str"},
                "metric": {"type": "int"},
                "table": {"type": "str", "default": "main"},
                "scope": {"type": "str", "choices": ["global", "link", "host"]},
                "onlink": {"type": "bool"},
                "mtu": {"type": "int"},
                "type": {"type": "str", "choices": ["unicast", "blackhole", "unreachable", "prohibit"]},
                "nexthops": {
                    "type": "list",
                    "elements": "dict",
                    "options": {
                        "via": {"type": "str"},
                        "dev": {"type": "str"},
                        "weight": {"type": "int"},
                        "onlink": {"type": "bool"},
                    },
                },
            },
        },
        "purge": {"type": "bool", "default": False},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    }
    run_module("ns_route", options, _options.ns_route)


if __name__ == "__main__":
    main()
