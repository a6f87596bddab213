#!/usr/bin/python
# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ns_probe
short_description: Assert with real packets what a network namespace reaches
version_added: 0.1.0
description:
  - Sends ICMP echo requests or opens TCP connections from inside namespaces, all side by side, and compares what comes back
    with what is expected.
  - Fails if any probe found something else than it expected, and says what came back and where the route leads.
  - Waits for facts, not for time. A probe that expects V(reachable) asks again until its deadline, so that an address that is not
    usable yet, or a service that is about to listen, needs no pause before.
  - In check mode nothing is sent, as the namespaces may be a prediction.
options:
  probes:
    description:
      - The probes. They are all sent at once.
    type: list
    elements: dict
    required: true
    suboptions:
      from:
        description: The namespace to send from. V(host) is the namespace that the module itself runs in.
        type: str
        required: true
      to:
        description: The IPv4 or IPv6 address to reach. A link-local one has its interface with it, as in V(fe80::1%eth0).
        type: str
        required: true
      protocol:
        description: What to send, V(icmp) (echo requests) or V(tcp) (a connection, which is reset at once).
        type: str
        choices: [icmp, tcp]
        default: icmp
      port:
        description: The TCP port. It is required with O(probes[].protocol=tcp).
        type: int
      expect:
        description:
          - What shall be found.
          - V(unreachable) is an ICMP error, an error of the kernel such as C(Network is unreachable), or no answer by the deadline. The
            result says which.
          - V(refused) is the reset of a TCP connection.
        type: str
        choices: [reachable, unreachable, refused]
        default: reachable
      count:
        description: How many echo replies make the address reachable.
        type: int
        default: 1
      deadline:
        description: How many seconds the probe may take at most.
        type: float
        default: 5.0
extends_documentation_fragment:
  - nslab.netns.attributes
  - nslab.netns.attributes.info
seealso:
  - module: nslab.netns.topology
author:
  - nslab contributors (@nslab)
"""

EXAMPLES = r"""
- name: Make a namespace
  nslab.netns.netns:
    name: server

- name: Give it an address
  nslab.netns.ns_link:
    name: lo
    namespace: server
    addresses: [1.1.1.1/24]

- name: Prove what it reaches and what not
  nslab.netns.ns_probe:
    probes:
      - {from: server, to: 1.1.1.1}
      - {from: server, to: 8.8.8.8, expect: unreachable}
      - {from: server, to: 1.1.1.1, protocol: tcp, port: 80, expect: refused}
"""

RETURN = r"""
results:
  description: What each probe found, in the order of O(probes).
  returned: when the probes were sent
  type: list
  elements: dict
  contains:
    from:
      description: The namespace that it was sent from.
      type: str
      sample: server
    to:
      description: The address that it was sent to.
      type: str
      sample: 1.1.1.1
    protocol:
      description: What was sent.
      type: str
      sample: icmp
    port:
      description: The TCP port.
      type: int
      sample: 80
    expect:
      description: What was expected.
      type: str
      sample: reachable
    outcome:
      description: What was found, V(reachable), V(unreachable), or V(refused).
      type: str
      sample: reachable
    passed:
      description: Whether that is what was expected.
      type: bool
      sample: true
    rtt_ms:
      description: The round-trip time of the fastest answer in milliseconds.
      type: float
      sample: 0.07
    sent:
      description: How many requests were sent.
      type: int
      sample: 1
    received:
      description: How many of them were answered.
      type: int
      sample: 1
    elapsed:
      description: How many seconds the probe took.
      type: float
      sample: 0.001
    evidence:
      description:
        - What came back. C(kind) is V(answer), V(icmp), V(reset), V(errno), V(stranger), or V(silence); C(text) says it in words;
          C(errno), C(icmp_type), C(icmp_code) and C(offender) (who sent the ICMP error) are there where they apply.
      type: dict
      sample: {"kind": "errno", "text": "Network is unreachable", "errno": "ENETUNREACH"}
    route:
      description: What the route lookup said in the namespace, for a probe that failed.
      type: dict
      sample: {"dst": "8.8.8.8", "errno": "ENETUNREACH", "error": "Network is unreachable"}
    text:
      description: All that in one sentence.
      type: str
      sample: "probes[0] (server -> 1.1.1.1, icmp): reachable as expected: 1 of 1 answered"
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _options, _probing
from ..module_utils._errors import NslabError
from ..module_utils._module import fail


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "probes": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "from": {"type": "str", "required": True},
                    "to": {"type": "str", "required": True},
                    "protocol": {"type": "str", "choices": ["icmp", "tcp"], "default": "icmp"},
                    "port": {"type": "int"},
                    "expect": {
                        "type": "str",
                        "choices": ["reachable", "unreachable", "refused"],
                        "default": "reachable",
                    },
                    "count": {"type": "int", "default": 1},
                    "deadline": {"type": "float", "default": 5.0},
                },
            },
        },
        supports_check_mode=True,
    )
    try:
        probes = _options.probes(module.params)
        if module.check_mode:
            module.exit_json(changed=False, skipped=True, msg="no packets are sent in check mode")
        results = _probing.probe(probes)
    except NslabError as error:
        fail(module, error)
    failures = [result["text"] for result in results if not result["passed"]]
    if failures:
        module.fail_json(msg="\n".join(failures), results=results)
    module.exit_json(changed=False, results=results)


if __name__ == "__main__":
    main()
