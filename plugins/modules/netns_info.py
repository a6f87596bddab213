#!/usr/bin/python
# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: netns_info
short_description: Tell what is in the network namespaces of a host
version_added: 0.1.0
description:
  - Gathers links, addresses, routes, policy rules, neighbours, listening sockets and processes of namespaces.
  - Returns a lab that is on the host as a topology document. Applied again with M(nslab.netns.topology), it changes nothing.
options:
  namespaces:
    description:
      - The namespaces to look into. V(host) is the namespace that the module itself runs in.
      - By default all that have a name, and V(host).
    type: list
    elements: str
  sysctls:
    description:
      - The sysctls to read in each of them, in any spelling that M(nslab.netns.ns_sysctl) takes.
    type: list
    elements: str
    default: []
  lab:
    description:
      - The lab to return as RV(topology). By default the only one on the host, if there is one only.
      - Namespaces that O(namespaces) names and that have no mark are taken as part of it.
    type: str
extends_documentation_fragment:
  - nslab.netns.attributes
  - nslab.netns.attributes.info
seealso:
  - module: nslab.netns.topology
author:
  - nslab contributors (@nslab)
"""

EXAMPLES = r"""
- name: Look into all namespaces
  nslab.netns.netns_info:
    sysctls: [net.ipv4.ip_forward]
  register: facts

- name: Say what stands
  ansible.builtin.debug:
    msg: "{{ facts.namespaces.keys() | list }}"
"""

RETURN = r"""
namespaces:
  description: The facts of each namespace, by its name.
  returned: success
  type: dict
  contains:
    name:
      description: The name.
      type: str
      sample: router
    lab:
      description: The lab that the namespace belongs to by its mark, if any.
      type: str
      sample: routed
    inode:
      description: The number by which the kernel knows the namespace.
      type: int
      sample: 4026532876
    nsid:
      description: The id by which the host's namespace knows it, if it has given one.
      type: int
      sample: 0
    symlink:
      description: Where the name in C(/run/netns) points to, if somebody made it as a symlink.
      type: str
      sample: /proc/4242/ns/net
    attached:
      description: Whether the name was given to a namespace that something else has made, by M(nslab.netns.netns) or a topology.
      type: bool
      sample: false
    second_names:
      description: More names that the same namespace has in C(/run/netns). The first one, or V(host), is what it is called here.
      type: list
      elements: str
      sample: []
    links:
      description:
        - The links with their C(name), C(index), C(type) (C(veth), C(bridge), ...), C(mtu) in bytes, C(mac), C(up), C(flags),
          C(operstate), C(alias), C(altnames), C(lab), C(master), C(peer) (its C(namespace) and C(interface)), C(device) (where
          a device of the host comes C(from), and its C(name) there), C(impairment), C(details) (of a VLAN and the like, with
          the C(link) that it lies on), C(vrf), and C(addresses).
      type: list
      elements: dict
      sample: [{"name": "veth-srv", "type": "veth", "mtu": 1500, "peer": {"namespace": "server", "interface": "vethS"}}]
    routes:
      description: The routes of all tables and both address families, in the words of M(nslab.netns.ns_route).
      type: list
      elements: dict
      sample: [{"to": "1.1.1.0/24", "via": "10.0.1.2", "dev": "veth-srv", "table": 254, "protocol": "110"}]
    rules:
      description:
        - The policy rules of both address families, in the kernel's order and in the words of M(nslab.netns.ns_rule).
        - C(action) is what a rule does, C(protocol) who has made it, and C(static) whether that was a person or this collection.
      type: list
      elements: dict
      sample: [{"priority": 32766, "from": "all", "to": "all", "action": "lookup", "table": 254, "protocol": "kernel", "static": false}]
    neighbours:
      description: The neighbours, with C(address), C(dev), C(mac) and C(state).
      type: list
      elements: dict
      sample: [{"address": "10.0.1.2", "dev": "veth-srv", "mac": "ee:fb:18:04:a3:85", "state": "reachable"}]
    sysctls:
      description: The values of O(sysctls), V(null) for one that the namespace does not have.
      type: dict
      sample: {"net.ipv4.ip_forward": "1"}
    listening:
      description: The TCP sockets that listen and the UDP sockets that are bound.
      type: list
      elements: dict
      sample: [{"protocol": "tcp", "address": "0.0.0.0", "port": 80}]
    pids:
      description: The processes that live in the namespace.
      type: list
      elements: int
      sample: [4242]
    hostname:
      description: The host name that it has of its own, and for V(host) that of the machine.
      type: str
      sample: server.example
    files:
      description: The files in C(/etc/netns) that are in the place of those in C(/etc).
      type: list
      elements: str
      sample: [resolv.conf]
    services:
      description:
        - The services of this collection in the namespace, with C(name), C(lab), C(state) (V(running), V(restarting), V(stopped)), C(pid), C(since),
          C(restarts), C(ended) (how the last process has ended, under systemd as long as no other one runs), C(command), C(user),
          C(environment) (the names of its variables), and where to find what it says, C(log) or, with systemd, C(unit).
      type: list
      elements: dict
      sample:
        - name: http
          lab: routed
          state: running
          pid: 4242
          since: "2026-01-31T23:59:59Z"
          restarts: 0
          ended: null
          command: [python3, -m, http.server, "80"]
          user: null
          environment: []
          log: /run/nslab/services/server/http/log
          unit: null
stale:
  description: Names in C(/run/netns) that stand for no namespace (V(stale) files, V(dangling) symlinks).
  returned: success
  type: list
  elements: dict
  sample: [{"name": "left-over", "kind": "stale", "target": null}]
orphans:
  description:
    - What is left over on the host, of runs that were killed and of labs that were taken apart by hand.
    - M(nslab.netns.topology) with O(nslab.netns.topology#module:gc) removes what is of this collection.
  returned: success
  type: list
  elements: dict
  contains:
    kind:
      description:
        - V(stale), V(dangling) or V(foreign), a name in C(/run/netns) that stands for no namespace.
        - V(unfinished), a link that a killed run has left without a mark.
        - V(unpaired), a lab's end of a veth whose other end is not the lab's, or in a namespace that has no name.
        - V(device), a device of the host that was moved into a namespace, and is not there.
        - V(half), a namespace of a lab with such links in it.
        - V(memory), what a lab has changed in a namespace that is gone.
        - V(service), a service of a namespace that is gone, or was made anew since.
      type: str
      sample: unpaired
    namespace:
      description: The namespace, if it has to do with one.
      type: str
      sample: router
    name:
      description: The name of the file, link, namespace or service.
      type: str
      sample: veth-srv
    lab:
      description: The lab, if it is of one.
      type: str
      sample: routed
    text:
      description: The same as one sentence.
      type: str
      sample: router:veth-srv of the lab 'routed' is wired to a namespace that has no name
pending:
  description: What waits for M(nslab.netns.confirm), which describes it; V(null) if nothing does.
  returned: success
  type: dict
  sample: {"purpose": "nslab.netns.topology for lab edge", "until": "2026-01-31T23:59:59Z", "seconds_left": 41.5}
reverted:
  description: The last changes that were taken back for want of a confirmation, if none were made since; else V(null).
  returned: success
  type: dict
  sample: {"purpose": "nslab.netns.topology for lab edge", "reverted": "2026-01-31T23:59:59Z", "remains": []}
persisted:
  description: The labs that come back after a reboot, as M(nslab.netns.persist) has left them.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The name of the lab.
      type: str
      sample: routed
    version:
      description: The version of the collection that has persisted it.
      type: str
      sample: 0.1.0
    engine:
      description: The engine that applies it, a folder in C(/usr/local/lib/nslab/engine).
      type: str
      sample: 0.1.0-1f2e3d4c5b6a
    python:
      description: The Python that runs the engine.
      type: str
      sample: /usr/bin/python3
    boot:
      description: When it is applied, V(early) or V(online).
      type: str
      sample: early
    units:
      description: The units of systemd that apply it.
      type: list
      elements: str
      sample: [nslab-lab@routed.service]
    problem:
      description: What is not as it should be, such as a unit that is missing; V(null) if nothing is.
      type: str
      sample: null
requirements:
  description: What the collection needs of the host, as far as it is there. The role P(nslab.netns.bootstrap#role) installs what is missing.
  returned: success
  type: dict
  contains:
    python:
      description: The Python that the modules run with.
      type: str
      sample: /usr/bin/python3
    python_version:
      description: Its version.
      type: str
      sample: 3.11.2
    pyroute2:
      description: The C(version) of the pyroute2 that is used, and the C(folder) that it is in; V(null) if there is none that is new enough.
      type: dict
      sample: {"version": "0.7.2", "folder": "/usr/lib/python3/dist-packages"}
    nftables:
      description: The ways to nftables, V(binding) of Python, and V(program), which is C(nft).
      type: list
      elements: str
      sample: [binding, program]
    iptables:
      description: Whether python-iptables is there.
      type: bool
      sample: false
    ip:
      description: Where the program C(ip) of iproute2 is. The modules do without it.
      type: str
      sample: /usr/sbin/ip
    can_make_venv:
      description: Whether this Python can make virtual environments.
      type: bool
      sample: true
labs:
  description: The labs that have left anything on the host, a mark, rules of translation, a service, or a changed value.
  returned: success
  type: list
  elements: str
  sample: [routed]
topology:
  description:
    - The lab as a topology document; V(null) if there is none, or several and O(lab) does not say which.
    - It has V(null) for the values of variables of services, which leaves them as they are.
  returned: success
  type: dict
  sample: {"name": "routed", "namespaces": {}, "links": [{"endpoints": ["server:vethS", "router:veth-srv"]}]}
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _facts
from ..module_utils._errors import NslabError
from ..module_utils._module import fail


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "namespaces": {"type": "list", "elements": "str"},
            "sysctls": {"type": "list", "elements": "str", "default": []},
            "lab": {"type": "str"},
        },
        supports_check_mode=True,
    )
    try:
        facts = _facts.gather(module.params["namespaces"], module.params["sysctls"], module.params["lab"] or "")
    except NslabError as error:
        fail(module, error)
    module.exit_json(changed=False, **facts)


if __name__ == "__main__":
    main()
