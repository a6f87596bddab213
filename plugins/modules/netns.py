#!/usr/bin/python
# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: netns
short_description: Make and remove network namespaces
version_added: 0.1.0
description:
  - Makes and removes named network namespaces, as C(ip netns add) and C(ip netns delete) do.
  - The loopback interface C(lo) of each namespace is brought up.
  - A stale file in C(/run/netns), left over from an interrupted C(ip netns add), is replaced.
options:
  name:
    description:
      - The name of the namespace, or a list of names.
      - Letters, digits, V(_), V(.) and V(-) are allowed; the first character is no V(.) and no V(-).
    type: list
    elements: str
    required: true
  state:
    description:
      - Whether the namespaces shall be there.
      - With V(absent), the veths between a namespace and others go with it. Processes inside are left alone.
    type: str
    choices: [present, absent]
    default: present
  pid:
    description:
      - The process whose network namespace shall have the O(name), as C(ip netns attach) gives it. It may be one in a container.
      - Everything else of this collection works on it then. The name keeps the namespace alive when the process ends; removing the name
        leaves the process, and all that is in the namespace, alone.
      - If the name was given to another process before, by this module, and that one's namespace is another one, the name goes over to this
        one. So a container that was started anew is found again.
    type: int
  path:
    description:
      - The file that stands for the network namespace that shall have the O(name), in the place of O(pid), such as C(/proc/4242/ns/net) or
        C(/run/docker/netns/1f2e3d4c5b6a).
    type: path
  replace_symlink:
    description:
      - With O(pid) or O(path), let a symlink of that name in C(/run/netns) give way, which somebody else has made.
      - A symlink that leads to the namespace itself does as well as a name, as long as the process lives.
    type: bool
    default: false
  wait:
    description:
      - With O(state=absent), return only when the kernel has really ended the namespaces.
      - A namespace lives on without its name as long as a process or an open file holds it. If that lasts longer than
        O(wait_timeout), the module fails and says who holds it.
    type: bool
    default: false
  wait_timeout:
    description:
      - How many seconds to wait at most with O(wait=true).
    type: float
    default: 30.0
seealso:
  - module: nslab.netns.topology
  - module: nslab.netns.netns_info
author:
  - nslab contributors (@nslab)
extends_documentation_fragment:
  - nslab.netns.attributes
  - nslab.netns.attributes.changes
  - nslab.netns.common
"""

EXAMPLES = r"""
- name: Make three namespaces
  nslab.netns.netns:
    name:
      - server
      - router
      - client

- name: Remove one of them, and wait until the kernel has ended it
  nslab.netns.netns:
    name: client
    state: absent
    wait: true

- name: Start something in a network namespace of its own, as a container is
  ansible.builtin.shell: unshare --net sleep 600 > /dev/null 2>&1 & echo $!
  register: started
  changed_when: true
  check_mode: false

- name: Give that namespace a name
  nslab.netns.netns:
    name: web
    pid: "{{ started.stdout }}"

- name: Work on it, as on any other
  nslab.netns.ns_link:
    name: lo
    namespace: web
    up: true
    addresses:
      - 192.0.2.1/32
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
        V(route), V(sysctl), V(hostname), or V(file).
      type: str
      sample: namespace
    namespace:
      description: The namespace that the object is in, V(host) for that of the host.
      type: str
      sample: server
    name:
      description: The name of the namespace or interface, the destination of the route, or the key of the sysctl.
      type: str
      sample: server
    before:
      description: The object before the change, in one line; empty if it was not there, or if that cannot be known.
      type: str
      sample: ""
    after:
      description: The object after the change, in one line; empty if it is gone.
      type: str
      sample: "namespace server"
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
      sample: name[0]
    text:
      description: What is wrong there, and what would be right.
      type: str
      sample: "'-a' is no name for a namespace"
"""

from ..module_utils import _options
from ..module_utils._module import run_module


def main() -> None:
    options = {
        "name": {"type": "list", "elements": "str", "required": True},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "pid": {"type": "int"},
        "path": {"type": "path"},
        "replace_symlink": {"type": "bool", "default": False},
        "wait": {"type": "bool", "default": False},
        "wait_timeout": {"type": "float", "default": 30.0},
    }
    run_module("netns", options, _options.netns)


if __name__ == "__main__":
    main()
