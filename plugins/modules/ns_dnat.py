#!/usr/bin/python
# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ns_dnat
short_description: Publish ports of a network namespace (destination address translation)
version_added: 0.1.0
description:
  - Adds, removes and orders rules that send what comes into a namespace on to another address or port (DNAT).
  - The first rule that matches a new connection decides. The order of the list is the order of the rules.
  - To send packets on, the namespace has to forward (C(net.ipv4.ip_forward), see M(nslab.netns.ns_sysctl)), and the answers have to
    come back through it.
  - Rules of others, of firewalld, Docker or an administrator, are neither read as ours nor touched.
options:
  rules:
    description:
      - The rules that shall be there in this order, or with O(state=absent), those that shall not.
      - A rule that is missing goes next to its neighbours of the list, or after all others if none is there.
    type: list
    elements: dict
    required: true
    suboptions:
      protocol:
        description: The protocol, V(tcp), V(udp), V(sctp), V(dccp), V(udplite), V(icmp), V(icmpv6), or a number.
        type: str
      port:
        description: The port that is published, or a range such as V(8000-8100). It needs O(rules[].protocol).
        type: str
      ports:
        description: Several of them, in the place of O(rules[].port).
        type: raw
      source:
        description: The source address or prefix.
        type: str
      destination:
        description: The address or prefix that a packet was sent to. Without it the rule is for what is sent to the namespace itself.
        type: str
      in_interface:
        description: The interface by which it comes in.
        type: str
      mark:
        description: The packet mark, such as V(0x1), or with a mask V(0x1/0xff).
        type: str
      not_source:
        description: Matches where O(rules[].source) would not.
        type: str
      not_destination:
        description: Matches where O(rules[].destination) would not.
        type: str
      not_in_interface:
        description: Matches where O(rules[].in_interface) would not.
        type: str
      not_mark:
        description: Matches where O(rules[].mark) would not.
        type: str
      family:
        description: The address family, where no address says it. By default a rule without addresses is for both.
        type: str
        choices: [ipv4, ipv6]
      to_destination:
        description: Where it goes, an address, or one with a port after it, as V(10.0.0.2:80) or V([fd00::2]:80); a range of addresses or ports,
          over which connections are spread; or only V(:PORT) for another port of the same machine.
        type: str
        required: true
      local:
        description: Whether the rule is also for what the namespace sends itself; but what it sends to its own loopback addresses stays there,
          unless O(rules[].destination) names them.
        type: bool
      hairpin:
        description: Whether the neighbours of the target, in its own prefix, reach it this way, too. Their connections are masqueraded, for
          otherwise the answers would not come back through the namespace.
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
        Only rules of this module count, not those of M(nslab.netns.ns_snat).
    type: bool
    default: false
seealso:
  - module: nslab.netns.ns_snat
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
- name: Make two namespaces
  nslab.netns.netns:
    name: [router, web]

- name: Wire them
  nslab.netns.veth:
    name: veth-web
    namespace: router
    addresses: [172.18.0.1/16]
    peer:
      name: eth0
      namespace: web
      addresses: [172.18.0.10/16]

- name: Publish a port of the one in the other
  nslab.netns.ns_dnat:
    namespace: router
    rules:
      - {protocol: tcp, port: 5000, to_destination: "172.18.0.10:5000", local: true}
      - {protocol: tcp, port: 8080, destination: 192.0.2.1, to_destination: "172.18.0.10:80", hairpin: true}
    purge: true

- name: Take it back
  nslab.netns.ns_dnat:
    namespace: router
    rules: []
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
        V(route), V(snat), V(dnat), or V(sysctl).
      type: str
      sample: dnat
    namespace:
      description: The namespace that the object is in, V(host) for that of the host.
      type: str
      sample: router
    name:
      description: The name of the namespace or interface, the destination of the route, the chain of the rule, or the key of the
        sysctl.
      type: str
      sample: prerouting
    before:
      description: The object before the change, in one line; empty if it was not there, or if that cannot be known.
      type: str
      sample: ""
    after:
      description: The object after the change, in one line; empty if it is gone.
      type: str
      sample: "dnat router chain prerouting protocol tcp destination_ports 5000 local to_destination 172.18.0.10:5000 backend nftables"
    text:
      description: The change as one sentence.
      type: str
      sample: "add dnat router chain prerouting protocol tcp destination_ports 5000 local to_destination 172.18.0.10:5000 backend nftables"
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
      sample: rules[0].port
    text:
      description: What is wrong there, and what would be right.
      type: str
      sample: "the ports 80 need a 'protocol' that has ports: tcp, udp, sctp, dccp or udplite"
"""

from ..module_utils import _options
from ..module_utils._module import NAT_OPTIONS, NAT_RULE_OPTIONS, run_module


def main() -> None:
    matches = {
        "source": {"type": "str"},
        "destination": {"type": "str"},
        "in_interface": {"type": "str"},
        "mark": {"type": "str"},
    }
    options = {
        **NAT_OPTIONS,
        "rules": {
            "type": "list",
            "elements": "dict",
            "required": True,
            "options": {
                "protocol": {"type": "str"},
                "port": {"type": "str"},
                "ports": {"type": "raw"},
                **matches,
                **{f"not_{name}": option for name, option in matches.items()},
                "to_destination": {"type": "str", "required": True},
                "local": {"type": "bool"},
                "hairpin": {"type": "bool"},
                **NAT_RULE_OPTIONS,
            },
        },
        "purge": {"type": "bool", "default": False},
    }
    run_module("ns_dnat", options, _options.ns_dnat)


if __name__ == "__main__":
    main()
