#!/usr/bin/python
# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: persist
short_description: Let a lab come back after a reboot
version_added: 0.1.0
description:
  - Puts the topology document of a lab on the host, the engine of this collection, and a unit of systemd that applies the document
    when the host boots. Ansible is not needed for that any more.
  - It touches nothing of the lab as it stands. M(nslab.netns.topology) applies the document now; the role P(nslab.netns.persist#role) does both.
  - The document is in C(/etc/nslab/labs), for root alone to read, the engine in C(/usr/local/lib/nslab/engine), and the unit is
    C(nslab-lab@LAB.service). What it does and why it fails is in the journal.
  - Where the document has services, those of a lab that comes V(early) are started by a second unit, C(nslab-services@LAB.service), as
    soon as systemd starts services.
  - Where it has C(snat) or C(dnat) on the host, a unit C(nslab-rules@LAB.service) puts them back whenever C(nftables.service) has emptied the
    tables, as long as the lab stands.
options:
  topology:
    description:
      - The document, as M(nslab.netns.topology) takes it. With O(state=absent) its C(name) is enough.
      - A namespace that is attached to a process cannot come back, and variables of services need values.
    type: dict
  lab:
    description:
      - The name of the lab, if the document does not say its C(name).
    type: str
  state:
    description:
      - Whether the lab shall come back. With V(absent), the lab stays as it stands until the host reboots.
    type: str
    choices: [present, absent]
    default: present
  host:
    description:
      - Which of the document's C(hosts) this machine is, in a lab that spans some; usually V({{ inventory_hostname }}). Only what the document
        has on that host is applied in a boot.
      - It is needed there, and does nothing with any other document.
    type: str
  adopt:
    description:
      - As O(nslab.netns.topology#module:adopt), when the document is applied.
    type: bool
    default: false
  strict:
    description:
      - As O(nslab.netns.topology#module:strict), when the document is applied.
    type: bool
    default: false
  boot:
    description:
      - When the document is applied.
      - With V(early), before the network of the host is configured, and so before containers and most services. This is right for everything that
        needs nothing of the network of the host.
      - With V(online), when the network of the host is up (C(network-online.target)). This is right for a lab with routes or addresses
        of C(host) that need interfaces and gateways of the host.
      - Either goes after the firewall's own services, which empty the tables of nftables.
    type: str
    choices: [early, online]
    default: early
  device_timeout:
    description:
      - How many seconds to wait in a boot for what the lab needs and is not its own, such as a device of the host, from 0 to 600.
    type: float
    default: 30.0
  lock_timeout:
    description:
      - How many seconds to wait for another run of this collection on the same host, before failing with its name.
    type: float
    default: 60.0
notes:
  - A lab comes back with the engine that has persisted it. After an upgrade of the collection, run this again.
seealso:
  - module: nslab.netns.topology
  - module: nslab.netns.netns_info
author:
  - nslab contributors (@nslab)
extends_documentation_fragment:
  - nslab.netns.attributes
  - nslab.netns.attributes.changes
"""

EXAMPLES = r"""
- name: Let a pair of namespaces come back
  nslab.netns.persist:
    topology:
      name: pair
      namespaces:
        left: {interfaces: {eth0: {addresses: [192.0.2.1/24]}}}
        right: {interfaces: {eth0: {addresses: [192.0.2.2/24]}}}
      links:
        - endpoints: ["left:eth0", "right:eth0"]

- name: Let it come back no more
  nslab.netns.persist:
    lab: pair
    state: absent
"""

RETURN = r"""
changes:
  description:
    - The changes in the order in which they were made, or would be made in check mode. Values of variables of services are not shown.
  returned: success
  type: list
  elements: dict
  contains:
    action:
      description: What happens to the object, V(add), V(remove), or V(change).
      type: str
      sample: add
    object:
      description: V(engine), V(document), V(unit), V(folder), or V(start), by which systemd starts a unit.
      type: str
      sample: document
    namespace:
      description: V(host).
      type: str
      sample: host
    name:
      description: The lab, the unit, the engine, or the folder.
      type: str
      sample: pair
    before:
      description: The object before the change, in one line; empty if it was not there.
      type: str
      sample: "document pair namespaces.left.interfaces.eth0.mtu 1400"
    after:
      description: The object after the change, in one line; empty if it is gone.
      type: str
      sample: "document pair namespaces.left.interfaces.eth0.mtu 1500"
    text:
      description: The change as one sentence.
      type: str
      sample: change document pair namespaces.left.interfaces.eth0.mtu 1400 -> 1500
problems:
  description:
    - What is wrong with the options, or stands against them on the host. Nothing was touched.
  returned: failure, if the input was refused
  type: list
  elements: dict
  contains:
    code:
      description: V(foreign) if something of somebody else is in the way, else empty.
      type: str
      sample: ""
    path:
      description: The place of the offending key.
      type: str
      sample: namespaces.left.attach
    text:
      description: What is wrong there, and what would be right.
      type: str
      sample: is a process, which is gone after a boot; such a lab cannot come back by itself
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _options, _persist
from ..module_utils._errors import NslabError
from ..module_utils._module import check_seconds, diff_of, fail


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "topology": {"type": "dict"},
            "lab": {"type": "str"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "host": {"type": "str"},
            "adopt": {"type": "bool", "default": False},
            "strict": {"type": "bool", "default": False},
            "boot": {"type": "str", "choices": ["early", "online"], "default": "early"},
            "device_timeout": {"type": "float", "default": 30.0},
            "lock_timeout": {"type": "float", "default": 60.0},
        },
        required_if=[("state", "present", ["topology"])],
        required_one_of=[("topology", "lab")],
        supports_check_mode=True,
    )
    options = module.params
    try:
        wanted = _options.topology(options)
        check_seconds(options)
        topology = {**(options["topology"] or {}), "name": wanted.lab}
        record = _persist.record_of(options, topology) if options["state"] == "present" else None
        changes = _persist.run(wanted.lab, record, module.check_mode, options["lock_timeout"])
    except NslabError as error:
        fail(module, error)
    except OSError as error:
        fail(module, NslabError(str(error)))
    for warning in _persist.alterations(wanted.lab):
        module.warn(warning)
    results = [change.as_result() for change in changes]
    module.exit_json(changed=bool(changes), changes=results, diff=diff_of(changes))


if __name__ == "__main__":
    main()
