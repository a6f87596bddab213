#!/usr/bin/python
# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ns_service
short_description: Run services in a network namespace
version_added: 0.1.0
description:
  - Runs commands in a namespace, with the host name and the files of C(/etc/netns) that the namespace has, and watches them.
  - Where systemd is process 1, each is a unit C(nslab-LAB:NAMESPACE:NAME.service) in C(/run/systemd/system). Elsewhere a process of its own
    watches it, with the files C(pid), C(state) and C(log) in C(/run/nslab/services/NAMESPACE/NAME).
  - A service whose definition has changed is restarted; one that has ended, or that runs in an earlier namespace of that name, is started
    again; all others are left alone.
  - A command that ends within a third of a second has failed. Everything is taken back then, and the error has its last words.
  - Services end with their namespace and with the boot.
options:
  namespace:
    description:
      - The namespace. V(host) is the namespace that the module itself runs in.
    type: str
    default: host
  services:
    description:
      - The services by name, or with O(state=absent), those that shall not be there, each with V(null). The keys of each are
      - C(command) (required), the program and its arguments as a list, or as one text that is split as a shell would split it. There is
        no shell. It has to stay in the foreground.
      - C(user) and C(group), as whom it runs, by default C(root).
      - C(directory), in which it runs, by default C(/).
      - C(environment), its variables and their values. V(null) leaves the value that a variable has. Besides these it has C(PATH), C(HOME),
        C(USER), C(LOGNAME) and C(SHELL). Values are not in any result, so that they may be secrets, but Ansible logs the options of a
        module unless the task says C(no_log).
      - C(restart), when it is started again after it has ended, V(on-failure) by default, V(always), or V(no).
    type: dict
    required: true
  purge:
    description:
      - Whether services of the namespace that O(services) does not name are ended and removed. With a O(lab), those of the lab.
    type: bool
    default: false
  state:
    description:
      - Whether the services shall be there.
    type: str
    choices: [present, absent]
    default: present
seealso:
  - module: nslab.netns.ns_probe
  - module: nslab.netns.netns_info
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
    name: [server, web]

- name: Run a web server on port 80 in one of them
  nslab.netns.ns_service:
    namespace: server
    services:
      web:
        command: [python3, -m, http.server, 80]
        directory: /usr/share

- name: And in the other one, with more said
  nslab.netns.ns_service:
    namespace: web
    services:
      web:
        command: python3 -m http.server 80
        environment:
          LANG: C
        restart: always
    purge: true

- name: End the first one
  nslab.netns.ns_service:
    namespace: server
    services:
      web:
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
        V(route), V(sysctl), or V(service).
      type: str
      sample: service
    namespace:
      description: The namespace that the object is in, V(host) for that of the host.
      type: str
      sample: server
    name:
      description: The name of the namespace or interface, the destination of the route, the key of the sysctl, or the name of the service.
      type: str
      sample: web
    before:
      description: The object before the change, in one line; empty if it was not there, or if that cannot be known.
      type: str
      sample: ""
    after:
      description: The object after the change, in one line; empty if it is gone.
      type: str
      sample: service server:web python3 -m http.server 80
    text:
      description: The change as one sentence.
      type: str
      sample: add service server:web python3 -m http.server 80
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
        connection by which Ansible is there, else empty.
      type: str
      sample: ""
    path:
      description: The place of the offending key.
      type: str
      sample: services.web.user
    text:
      description: What is wrong there, and what would be right.
      type: str
      sample: "'no user' is no name of a user"
"""

from ..module_utils import _options
from ..module_utils._module import run_module


def main() -> None:
    options = {
        "namespace": {"type": "str", "default": "host"},
        "services": {"type": "dict", "required": True},
        "purge": {"type": "bool", "default": False},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    }
    run_module("ns_service", options, _options.ns_service)


if __name__ == "__main__":
    main()
