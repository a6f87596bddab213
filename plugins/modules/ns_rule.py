#!/usr/bin/python
# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ns_rule
short_description: Manage the policy rules of a network namespace
version_added: 0.1.0
description:
  - Adds and removes the rules by which a namespace chooses the routing table for a packet, in the words of C(ip rule).
  - The kernel changes no rule in place. One that shall be another one is added anew, and the old one goes after that.
  - Rules of one priority are asked in the order of the list.
  - The kernel's own rules are never touched. They are those of the priorities 0, 32766 and 32767, and that of VRFs, 1000.
options:
  namespace:
    description:
      - The namespace. V(host) is the namespace that the module itself runs in.
    type: str
    default: host
  rules:
    description:
      - The rules that shall be there, or with O(state=absent), those that shall not.
    type: list
    elements: dict
    required: true
    suboptions:
      priority:
        description: The place of the rule. The one with the lowest number is asked first.
        type: int
        required: true
      family:
        description:
          - The address family, if neither O(rules[].from) nor O(rules[].to) says it.
          - Without any of them it is V(ipv4).
        type: str
        choices: [ipv4, ipv6]
      from:
        description: The source, a prefix such as V(10.0.0.0/24), an address, or V(all).
        type: str
      to:
        description: The destination, a prefix, an address, or V(all).
        type: str
      iif:
        description: The interface by which a packet comes in. V(lo) is for what the namespace itself sends.
        type: str
      oif:
        description: The interface that a socket is bound to.
        type: str
      fwmark:
        description: The firewall's mark, a number such as V(0x1), or one with a mask such as V(0x1/0xff).
        type: str
      tos:
        description: The type of service, such as V(0x10).
        type: str
      ipproto:
        description: The protocol, such as V(tcp), V(udp) or V(icmp), or its number.
        type: str
      sport:
        description: The source port, or a range such as V(1000-2000).
        type: str
      dport:
        description: The destination port, or a range.
        type: str
      uidrange:
        description: The number of the user whose packets it is about, or a range such as V(1000-1999).
        type: str
      not:
        description: Whether the rule is for what does not match.
        type: bool
      table:
        description: The number of the routing table, or V(main), V(default) or V(local). Without one it is V(main).
        type: str
      suppress_prefixlength:
        description: Do not take a route of the table whose prefix is not longer than this. V(0) passes over default routes.
        type: int
      l3mdev:
        description: Whether the rule is for packets of VRFs, and looks into the table of the packet's VRF.
        type: bool
      type:
        description:
          - What the rule does. V(lookup) looks into O(rules[].table), and the next rule is asked if nothing is found there.
          - The others discard packets, V(blackhole) silently, V(unreachable) and V(prohibit) with an ICMP error. Without one it is
            V(lookup).
        type: str
        choices: [lookup, blackhole, unreachable, prohibit]
  purge:
    description:
      - Whether rules that O(rules) does not name are removed, of both address families.
      - With O(lab), too, these may be anybody's. A lab's mark is on namespaces and links, and rules have none.
      - Rules of the kernel, of DHCP clients and of routing daemons always stay.
    type: bool
    default: false
  state:
    description:
      - Whether the rules shall be there. To remove some, C(priority) is enough. All rules of that priority and of that
        address family go that have what is said.
    type: str
    choices: [present, absent]
    default: present
seealso:
  - module: nslab.netns.ns_route
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

- name: Give it another table for what comes from one network
  nslab.netns.ns_route:
    namespace: router
    routes:
      - {to: 192.0.2.0/24, type: blackhole, table: 100}

- name: Have that network's packets look there, and marked ones nowhere
  nslab.netns.ns_rule:
    namespace: router
    rules:
      - {priority: 100, from: 10.0.1.0/24, table: 100}
      - {priority: 110, fwmark: "0x1/0xff", type: prohibit}
      - {priority: 120, to: "2001:db8::/32", ipproto: tcp, dport: 80-89, table: 100}
    purge: true

- name: Remove one of them
  nslab.netns.ns_rule:
    namespace: router
    rules:
      - {priority: 110}
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
        V(route), V(rule), or V(sysctl).
      type: str
      sample: rule
    namespace:
      description: The namespace that the object is in, V(host) for that of the host.
      type: str
      sample: router
    name:
      description: The name of the namespace or interface, the destination of the route, the priority of the rule, or the key of
        the sysctl.
      type: str
      sample: "100"
    before:
      description: The object before the change, in one line; empty if it was not there, or if that cannot be known.
      type: str
      sample: ""
    after:
      description: The object after the change, in one line; empty if it is gone.
      type: str
      sample: "rule router priority 100 from 10.0.1.0/24 lookup 100"
    text:
      description: The change as one sentence.
      type: str
      sample: change rule router priority 100 from 10.0.1.0/24 lookup main -> 100
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
      sample: rules[1].from
    text:
      description: What is wrong there, and what would be right.
      type: str
      sample: "'10.0.1.1/24' has host bits set; write '10.0.1.0/24'"
"""

from ..module_utils import _options
from ..module_utils._module import run_module


def main() -> None:
    options = {
        "namespace": {"type": "str", "default": "host"},
        "rules": {
            "type": "list",
            "elements": "dict",
            "required": True,
            "options": {
                "priority": {"type": "int", "required": True},
                "family": {"type": "str", "choices": ["ipv4", "ipv6"]},
                "from": {"type": "str"},
                "to": {"type": "str"},
                "iif": {"type": "str"},
                "oif": {"type": "str"},
                "fwmark": {"type": "str"},
                "tos": {"type": "str"},
                "ipproto": {"type": "str"},
                "sport": {"type": "str"},
                "dport": {"type": "str"},
                "uidrange": {"type": "str"},
                "not": {"type": "bool"},
                "table": {"type": "str"},
                "suppress_prefixlength": {"type": "int"},
                "l3mdev": {"type": "bool"},
                "type": {"type": "str", "choices": ["lookup", "blackhole", "unreachable", "prohibit"]},
            },
        },
        "purge": {"type": "bool", "default": False},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    }
    run_module("ns_rule", options, _options.ns_rule)


if __name__ == "__main__":
    main()
