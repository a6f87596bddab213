#!/usr/bin/python
# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: topology
short_description: Apply a whole topology document in one task
version_added: 0.1.0
description:
  - Brings namespaces, veths, addresses, routes and sysctls of a host into the state that one document declares, in one go.
  - What exists and is right is not touched. What has drifted is repaired in place. What carries the lab's mark and has
    left the document is removed.
  - If a step fails, everything that was done before it is taken back.
  - Objects of the same names that belong to somebody else are refused.
options:
  topology:
    description:
      - The document. Its keys are C(name) (of the lab, required), C(hosts), C(underlay), C(namespaces), C(links), and C(probes).
      - C(hosts) and C(underlay) make it one for several machines, where names of namespaces are C(host/namespace).
      - C(namespaces) has for each name C(interfaces), C(bridges), C(routes), C(rules), C(sysctls) and C(services), in the words of
        M(nslab.netns.ns_link), M(nslab.netns.bridge) with C(ports) as M(nslab.netns.bridge_port) has them, M(nslab.netns.ns_route),
        M(nslab.netns.ns_rule), M(nslab.netns.ns_sysctl) and M(nslab.netns.ns_service). V(host) is the namespace that the module itself runs in.
      - C(links) is a list of veths, each with its two C(endpoints) as C(namespace:interface), and with the C(impairment) of both. Between two
        hosts it is a VXLAN, and may have a C(vni).
      - C(probes) are checked here, and run by M(nslab.netns.ns_probe).
      - It may be left out with O(state=absent) and O(lab).
    type: dict
  host:
    description:
      - Which of the document's C(hosts) this machine is, in a lab that spans some; usually V({{ inventory_hostname }}). Only what the document
        has on that host is applied.
      - From a machine that is none of them, all that is there of the lab is removed. This is a finding, V(no-part), and O(strict=true) refuses it.
      - It is needed there, and does nothing with any other document.
    type: str
  gc:
    description:
      - The names of the labs that shall stay. Every other lab on the host goes, with all that carries its mark; and so does what
        a killed run has left without one. An empty list removes all labs.
      - It takes no document.
    type: list
    elements: str
  state:
    description:
      - With V(absent), everything that carries the mark of the lab goes. The document's C(name) is enough then.
      - A lab that was persisted comes back with the next boot all the same, and a warning says so. M(nslab.netns.persist) makes an end of it.
    type: str
    choices: [present, absent]
    default: present
  adopt:
    description:
      - Take over namespaces, veths and bridges of the same names that belong to another lab, or to none, and ports of other bridges.
    type: bool
    default: false
  strict:
    description:
      - Refuse what the kernel takes but is hardly meant, such as one connected prefix on two interfaces, instead of warning of it.
        RV(findings) has it, and the documentation of the topology document lists the kinds.
    type: bool
    default: false
  commit:
    description:
      - When the changes are kept.
      - With V(changes), when all of them are made.
      - With V(probes), when the document's C(probes) have passed as well, also if nothing had to be changed. If one fails, everything is taken
        back. In check mode they are not run.
    type: str
    choices: [changes, probes]
    default: changes
  lab:
    description:
      - The name of the lab, if the document does not say its C(name).
    type: str
seealso:
  - module: nslab.netns.netns_info
  - module: nslab.netns.ns_probe
author:
  - nslab contributors (@nslab)
extends_documentation_fragment:
  - nslab.netns.attributes
  - nslab.netns.attributes.changes
  - nslab.netns.common
"""

EXAMPLES = r"""
- name: Build a routed lab
  nslab.netns.topology:
    topology:
      name: routed
      namespaces:
        server:
          interfaces:
            lo: {addresses: [1.1.1.1/24]}
            vethS: {addresses: [10.0.1.2/24]}
          routes: [{to: default, via: 10.0.1.1}]
        router:
          sysctls: {net.ipv4.ip_forward: 1}
          interfaces:
            veth-srv: {addresses: [10.0.1.1/24]}
            veth-cli: {addresses: [10.0.2.1/24]}
          routes:
            - {to: 1.1.1.0/24, via: 10.0.1.2}
            - {to: 2.2.2.0/24, via: 10.0.2.2}
        client:
          interfaces:
            vethC: {addresses: [10.0.2.2/24]}
            lo: {addresses: [2.2.2.2/24]}
          routes: [{to: default, via: 10.0.2.1}]
      links:
        - endpoints: ["server:vethS", "router:veth-srv"]
        - endpoints: ["client:vethC", "router:veth-cli"]

- name: Remove it
  nslab.netns.topology:
    lab: routed
    state: absent

- name: Keep a change only if packets get through, and take it back after a minute if this host is not reached any more
  nslab.netns.topology:
    topology:
      name: gateway
      namespaces:
        host:
          interfaces: {gw0: {addresses: [192.0.2.1/30]}}
        gateway:
          interfaces: {eth0: {addresses: [192.0.2.2/30]}}
      links:
        - endpoints: ["host:gw0", "gateway:eth0"]
      probes:
        - {from: host, to: 192.0.2.2}
    commit: probes
    revert_after: 60

- name: Say that it is
  nslab.netns.confirm:
    lab: gateway

- name: Remove all labs but two
  nslab.netns.topology:
    gc: [routed, gateway]
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
        V(route), V(sysctl), V(hostname), or V(file).
      type: str
      sample: link
    namespace:
      description: The namespace that the object is in, V(host) for that of the host.
      type: str
      sample: router
    name:
      description: The name of the namespace or interface, the destination of the route, or the key of the sysctl.
      type: str
      sample: veth-srv
    before:
      description: The object before the change, in one line; empty if it was not there, or if that cannot be known.
      type: str
      sample: "link router:veth-srv mtu 1400"
    after:
      description: The object after the change, in one line; empty if it is gone.
      type: str
      sample: "link router:veth-srv mtu 1500"
    text:
      description: The change as one sentence.
      type: str
      sample: change link router:veth-srv mtu 1400 -> 1500
assumptions:
  description:
    - What the prediction takes for granted, because an earlier task of the same check run would have made it.
    - Outside check mode the list is empty, as the same would be an error.
  returned: success
  type: list
  elements: str
  sample: ["namespace: there is no namespace 'server'"]
findings:
  description:
    - What the kernel takes but is hardly meant. Each is a warning as well.
  returned: success
  type: list
  elements: dict
  contains:
    code:
      description: The kind.
      type: str
      sample: same-prefix
    path:
      description: The place of the key.
      type: str
      sample: namespaces.host.interfaces.veth1.addresses[0]
    text:
      description: What it is, and what would be right.
      type: str
      sample: veth0 and veth1 of the namespace host both have the connected prefix 172.18.0.0/16
probes:
  description:
    - The results of the probes, as M(nslab.netns.ns_probe) returns them.
  returned: with O(commit=probes), also on failure
  type: list
  elements: dict
  sample: [{"from": "server", "to": "2.2.2.2", "passed": true, "text": "server -> 2.2.2.2 reachable, 0.05 ms"}]
persisted:
  description:
    - How the lab would come back after a reboot; V(null) if it would not. It is what M(nslab.netns.persist) has left.
  returned: success, without O(gc)
  type: dict
  contains:
    version:
      description: The version of the collection that has persisted it; V(null) if that cannot be read.
      type: str
      sample: 0.1.0
    differences:
      description: The places in which the document that would be applied then differs from O(topology).
      type: list
      elements: str
      sample: ["namespaces.router.interfaces.veth-srv.mtu"]
    problem:
      description: What is not as it should be, such as a unit that is missing, or an engine of another version; V(null) if nothing is.
      type: str
      sample: null
host:
  description:
    - Which of the document's hosts this machine is; V(null) if the document has none, or not this one.
  returned: success, without O(gc)
  type: str
  sample: vm1
unconfirmed_until:
  description:
    - When the host takes the changes back by itself, in UTC.
  returned: if something changed, with O(revert_after)
  type: str
  sample: "2026-01-31T23:59:59Z"
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
      sample: foreign
    path:
      description: The place of the offending key.
      type: str
      sample: namespaces.router.routes[1].via
    text:
      description: What is wrong there, and what would be right.
      type: str
      sample: "'10.9.9.9' is not reachable in the namespace router"
"""

from ..module_utils import _options, _persisted
from ..module_utils._module import run_module
from ..module_utils._probing import probe


def main() -> None:
    options = {
        "topology": {"type": "dict"},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "adopt": {"type": "bool", "default": False},
        "strict": {"type": "bool", "default": False},
        "commit": {"type": "str", "choices": ["changes", "probes"], "default": "changes"},
        "gc": {"type": "list", "elements": "str"},
        "host": {"type": "str"},
    }
    run_module(
        "topology",
        options,
        _options.topology,
        probe,
        _persisted.remark,
        required_if=[("state", "present", ["topology", "gc"], True)],
        required_one_of=[("topology", "lab", "gc")],
        mutually_exclusive=[("topology", "gc"), ("lab", "gc")],
    )


if __name__ == "__main__":
    main()
