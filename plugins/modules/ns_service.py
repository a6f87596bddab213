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
  - Runs commands in a namespace, starts them again when they die, and ends them with the lab or with the namespace.
  - Where systemd is process 1, a service is a unit in C(/run/systemd/system), C(nslab-LAB:NAMESPACE:NAME.service). Elsewhere it is watched by a
    process of its own, which keeps a pid file and a log in C(/run/nslab/services/NAMESPACE/NAME).
  - A service finds inside what a task of the become plugin P(nslab.netns.netns#become) finds, the files of C(/etc/netns/NAMESPACE) and the host
    name of the namespace. It does not survive a reboot, as namespaces do not.
  - One that has not ended shortly after its start counts as running. If one does not start, or ends at once, the task fails with the last that
    it has said, and everything is as it was.
options:
  namespace:
    description:
      - The namespace. V(host) is the namespace that the module itself runs in, and is refused for a task that runs inside another namespace than
        process 1, such as one of the become plugin P(nslab.netns.netns#become); give the namespace's name in a task that does not.
    type: str
    default: host
  services:
    description:
      - "The services by name, or with O(state=absent) those that shall not be there, for which the name is enough, as in C({web: null})."
      - A name has 1 to 64 letters, digits, V(_), V(.) and V(-), the first no V(.) or V(-).
      - A service that runs as it is described here is left alone; one that is described otherwise, or does not run, is started anew.
      - "C(command): the program and its arguments, as a list, or as a string that is split into words as a shell would; no shell runs it. A
        program without a C(/) is looked for in C(PATH). Required."
      - "C(user) and C(group): who it runs as, by name or number, which needs no account. The default is root, and the main group of the user."
      - "C(directory): the absolute path of the directory that it begins in, V(/) by default."
      - "C(environment): more variables by name. A value that is V(null) stays as it is, and is refused where there is none. The names are
        shown in results and diffs, the values never are; C(no_log) on the task keeps Ansible from showing what it was given.
        V(NSLAB_SERVICE) is the name of the service, and cannot be chosen."
      - "C(restart): when it is started again by itself, V(on-failure), V(always) or V(no), as C(Restart=) of C(systemd.service). The default
        is V(on-failure)."
    type: dict
    required: true
  purge:
    description:
      - Whether services of the lab, or without O(lab) those of tasks without one, that O(services) does not name are ended and removed.
    type: bool
    default: false
  state:
    description:
      - Whether the services shall be there or not.
    type: str
    choices: [present, absent]
    default: present
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
- name: Make a namespace
  nslab.netns.netns:
    name: web

- name: Run a web server in it, and nothing else
  nslab.netns.ns_service:
    namespace: web
    services:
      http:
        command: [python3, -m, http.server, "80"]
        directory: /srv
        environment: {PYTHONUNBUFFERED: "1"}
    purge: true

- name: Run another program as another user
  nslab.netns.ns_service:
    namespace: web
    services:
      ticker: {command: sleep 86400, user: nobody, restart: always}

- name: End them
  nslab.netns.ns_service:
    namespace: web
    services: {http: null, ticker: null}
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
      sample: web
    name:
      description: The name of the namespace, interface or service, the destination of the route, or the key of the sysctl.
      type: str
      sample: ticker
    before:
      description: The object before the change, in one line; empty if it was not there, or if that cannot be known.
      type: str
      sample: ""
    after:
      description: The object after the change, in one line; empty if it is gone.
      type: str
      sample: "service web:ticker sleep 86400 user nobody restart always"
    text:
      description: The change as one sentence.
      type: str
      sample: "add service web:ticker sleep 86400 user nobody restart always"
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
      sample: services.http.directory
    text:
      description: What is wrong there, and what would be right.
      type: str
      sample: "'srv' is no absolute path"
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
