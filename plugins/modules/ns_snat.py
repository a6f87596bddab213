#!/usr/bin/python
# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ns_snat
short_description: Manage source address translation in a network namespace
version_added: 0.1.0
description:
  - Adds, removes and orders rules that give what leaves a namespace another source address (SNAT, masquerading).
  - The first rule that matches a new connection decides. The order of the list is the order of the rules.
  - Rules of others, of firewalld, Docker or an administrator, are neither read as ours nor touched.
  - Rules that a run does not change keep translating while it works, and so do connections that are established.
options:
  rules:
    description:
      - The rules that shall be there in this order, or with O(state=absent), those that shall not.
      - A rule that is missing goes next to its neighbours of the list, or after all others if none is there.
    type: list
    elements: dict
    required: true
    suboptions:
      source:
        description: The source address or prefix.
        type: str
      destination:
        description: The destination address or prefix.
        type: str
      out_interface:
        description: The interface by which it leaves.
        type: str
      protocol:
        description: The protocol, V(tcp), V(udp), V(sctp), V(dccp), V(udplite), V(icmp), V(icmpv6), or a number.
        type: str
      source_ports:
        description: The source ports, each a number or a range such as V(8000-8100). They need O(rules[].protocol).
        type: raw
      destination_ports:
        description: The destination ports, each a number or a range such as V(8000-8100). They need O(rules[].protocol).
        type: raw
      mark:
        description: The packet mark, such as V(0x1), or with a mask V(0x1/0xff).
        type: str
      not_source:
        description: Matches where O(rules[].source) would not.
        type: str
      not_destination:
        description: Matches where O(rules[].destination) would not.
        type: str
      not_out_interface:
        description: Matches where O(rules[].out_interface) would not.
        type: str
      not_protocol:
        description: Matches where O(rules[].protocol) would not.
        type: str
      not_source_ports:
        description: Matches where O(rules[].source_ports) would not.
        type: raw
      not_destination_ports:
        description: Matches where O(rules[].destination_ports) would not.
        type: raw
      not_mark:
        description: Matches where O(rules[].mark) would not.
        type: str
      family:
        description: The address family, where no address says it. By default a rule without addresses is for both.
        type: str
        choices: [ipv4, ipv6]
      to_source:
        description: The new source, an address, a range such as V(192.0.2.1-192.0.2.5), either with ports after it as in V(192.0.2.1:1024-2047)
          or V([2001:db8::1]:1024-2047), or only V(:PORTS). Ports need O(rules[].protocol).
        type: str
      masquerade:
        description: Take the address of the interface by which it leaves, in the place of O(rules[].to_source).
        type: bool
      random_fully:
        description: Choose the new port at random each time.
        type: bool
      persistent:
        description: Give a client the same address of a range each time.
        type: bool
      comment:
        description: Words that stand at the rule, to be seen in C(nft list ruleset) and C(iptables-save).
        type: str
  purge:
    description:
      - Whether rules of the lab, or without O(lab) those of tasks without one, that O(rules) does not name are removed.
        Only rules of this module count, not those of M(nslab.netns.ns_dnat).
    type: bool
    default: false
seealso:
  - module: nslab.netns.ns_dnat
  - module: nslab.netns.ns_sysctl
author:
  - nslab contributors (@nslab)
extends_documentation_fragment:
  - nslab.netns.attributes
  - nslab.netns.attributes.changes
  - nslab.netns.common
  - nslab.netns.nat
"""

EXAMPLES = r"""
- name: Make a namespace
  nslab.netns.netns:
    name: router

- name: Wire it to the host
  nslab.netns.veth:
    name: veth-cli
    namespace: router
    addresses: [10.0.2.1/24]
    peer:
      name: veth-a

- name: Translate what leaves by one interface
  nslab.netns.ns_snat:
    namespace: router
    rules:
      - {source: 10.0.1.0/24, destination: 192.0.2.0/24, out_interface: veth-cli, to_source: 10.0.2.1}
      - {source: 10.0.1.0/24, not_out_interface: br0, masquerade: true}
    purge: true

- name: Keep only the second rule
  nslab.netns.ns_snat:
    namespace: router
    rules:
      - {source: 10.0.1.0/24, destination: 192.0.2.0/24, out_interface: veth-cli, to_source: 10.0.2.1}
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
        V(route), V(snat), V(dnat), or V(sysctl).
      type: str
      sample: snat
    namespace:
      description: The namespace that the object is in, V(host) for that of the host.
      type: str
      sample: router
    name:
      description: The name of the namespace or interface, the destination of the route, the chain of the rule, or the key of the
        sysctl.
      type: str
      sample: postrouting
    before:
      description: The object before the change, in one line; empty if it was not there, or if that cannot be known.
      type: str
      sample: ""
    after:
      description: The object after the change, in one line; empty if it is gone.
      type: str
      sample: "snat router source 10.0.1.0/24 out_interface veth-cli to_source 10.0.2.1 backend nftables"
    text:
      description: The change as one sentence.
      type: str
      sample: "add snat router source 10.0.1.0/24 out_interface veth-cli to_source 10.0.2.1 backend nftables"
backends:
  description:
    - What holds the rules of translation, by namespace, V(nftables) or V(iptables).
  returned: success, if there are rules
  type: dict
  sample: {router: nftables}
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
      sample: rules[0].to_source
    text:
      description: What is wrong there, and what would be right.
      type: str
      sample: "the range '10.0.2.9-10.0.2.1' is backwards; write '10.0.2.1-10.0.2.9'"
"""

from ..module_utils import _options
from ..module_utils._module import NAT_OPTIONS, NAT_RULE_OPTIONS, run_module


def main() -> None:
    matches = {
        "source": {"type": "str"},
        "destination": {"type": "str"},
        "out_interface": {"type": "str"},
        "protocol": {"type": "str"},
        "source_ports": {"type": "raw"},
        "destination_ports": {"type": "raw"},
        "mark": {"type": "str"},
    }
    options = {
        **NAT_OPTIONS,
        "rules": {
            "type": "list",
            "elements": "dict",
            "required": True,
            "options": {
                **matches,
                **{f"not_{name}": option for name, option in matches.items()},
                "to_source": {"type": "str"},
                "masquerade": {"type": "bool"},
                **NAT_RULE_OPTIONS,
            },
        },
        "purge": {"type": "bool", "default": False},
    }
    run_module("ns_snat", options, _options.ns_snat)


if __name__ == "__main__":
    main()
