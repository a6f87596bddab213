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
  - Sends ICMP echo requests, UDP datagrams and HTTP requests, and opens TCP connections, from inside namespaces, all side by side,
    and compares what comes back with what is expected.
  - Can listen at the far end itself while the probe takes place (O(probes[].listen)), so that no service has to be there, and tell which
    source address the far end has seen (O(probes[].source_seen)).
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
        description: The namespace to send from. V(host) is the namespace that the module itself runs in. With O(host) it may be
          C(host/namespace), as in a document for several machines.
        type: str
        required: true
      to:
        description: The IPv4 or IPv6 address to reach. A link-local one has its interface with it, as in V(fe80::1%eth0).
        type: str
        required: true
      protocol:
        description:
          - What to send.
          - V(icmp) sends echo requests.
          - V(tcp) opens a connection, which is reset at once.
          - V(udp) sends datagrams. The address is reachable if one of them is answered, by whatever datagram. A service that answers only what it
            understands stays silent, as a firewall does; see O(probes[].listen).
          - V(http) asks for O(probes[].path) with HTTP/1.1, and looks at the status and the body of the response.
        type: str
        choices: [icmp, tcp, udp, http]
        default: icmp
      port:
        description: The port. It is required with O(probes[].protocol=tcp) and O(probes[].protocol=udp), and 80 by default with
          O(probes[].protocol=http).
        type: int
      path:
        description: What to ask for with O(probes[].protocol=http), a path with its query, if any. It is V(/) by default.
        type: str
      status:
        description: The status that makes an O(probes[].protocol=http) service reachable. It is 200 by default. Redirects are not followed.
        type: int
      body:
        description: A text that has to be in the body of the response with O(probes[].protocol=http). The first MiB is looked through.
        type: str
      expect:
        description:
          - What shall be found.
          - V(unreachable) is an ICMP error, an error of the kernel such as C(Network is unreachable), or no answer by the deadline. The
            result says which.
          - V(refused) is the reset of a TCP connection, or the ICMP error that a port is unreachable. It is not for O(probes[].protocol=icmp).
        type: str
        choices: [reachable, unreachable, refused]
        default: reachable
      source_seen:
        description:
          - The address that the far end has to see the packets come from, such as the one of source NAT. It is not for O(probes[].protocol=http).
          - With O(probes[].expect=reachable) the answer has to come back, and the far end has to see this address. The probe asks again until
            both are so.
          - With O(probes[].expect=unreachable) a request has to arrive from this address, and no answer may come back. That is not for
            O(probes[].protocol=tcp), where a listener sees who has connected, and nobody else.
          - It implies O(probes[].listen). With O(probes[].protocol=icmp) the kernel answers, and the listener only looks at the requests that
            its namespace accepts.
        type: str
      listen:
        description:
          - V(true) starts a listener where O(probes[].to) and O(probes[].port) say, for as long as the probe takes. The namespace is the one
            that has the address O(probes[].to), or O(probes[].from) if that one has it too.
          - A dictionary says where else, as is needed behind destination NAT. Its keys are C(namespace), C(address) (which finds the
            namespace, if that is not given) and C(port) (by default O(probes[].port)). Without C(address), and if the namespace does not have
            the address O(probes[].to), the listener is on all addresses of the namespace.
          - With it only the answer of this listener makes the address reachable. If something else answers, the probe fails, whatever it
            expects. It fails too if the port is in use already.
          - A listener for V(http) answers 200, and its body is the address that the request came from.
          - A listener answers others too as long as it is there, such as another of the probes, which all take place at the same time. The one
            for V(udp) answers only the datagrams of its own probes.
        type: raw
      count:
        description: How many answers make the address reachable with O(probes[].protocol=icmp) and O(probes[].protocol=udp).
        type: int
        default: 1
      deadline:
        description: How many seconds the probe may take at most.
        type: float
        default: 5.0
  host:
    description:
      - The name of this machine among the hosts of a lab that spans some, usually V({{ inventory_hostname }}). Probes from other hosts are
        left to these then, and are not in RV(results) but counted in RV(left_to).
    type: str
  hosts:
    description:
      - The names of all hosts of that lab, as in C("{{ topology.hosts | list }}"). With them, a probe from any other is refused; without them,
        one whose host is misspelt is left to somebody who is not there.
    type: list
    elements: str
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

- name: Prove it with listeners that are there while the probes are
  nslab.netns.ns_probe:
    probes:
      - {from: server, to: 1.1.1.1, protocol: udp, port: 53, listen: true}
      - {from: server, to: 1.1.1.1, protocol: http, port: 8080, listen: true, body: 1.1.1.1}
      - {from: server, to: 127.0.0.1, protocol: tcp, port: 5000, listen: {namespace: server}}
      - {from: server, to: 1.1.1.1, source_seen: 1.1.1.1}
"""

RETURN = r"""
results:
  description: What each probe of this host found, in the order of O(probes).
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
      description: The port.
      type: int
      sample: 80
    expect:
      description: What was expected.
      type: str
      sample: reachable
    outcome:
      description:
        - What was found, V(reachable), V(unreachable), or V(refused).
        - V(mismatch) if there was a connection or an answer, but not as the probe asks, such as another status, or another service than the
          probe's own listener. V(unsent) if the listener could not be opened. Such a probe fails, whatever it expects.
      type: str
      sample: reachable
    passed:
      description: Whether that is what was expected, and the source address was the expected one, if one was.
      type: bool
      sample: true
    rtt_ms:
      description: The round-trip time of the fastest answer in milliseconds, if it is known which request was answered.
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
    source_seen:
      description: The address that the probe's listener saw the last request come from.
      type: str
      sample: 10.0.2.1
    source_expected:
      description: The address that it was to see.
      type: str
      sample: 10.0.2.1
    elapsed:
      description: How many seconds the probe took.
      type: float
      sample: 0.001
    evidence:
      description:
        - What came back. C(kind) is V(answer), V(icmp), V(reset), V(errno), V(stranger) (somebody else answered), V(http) (another response), or
          V(silence); C(text) says it in words;
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
left_to:
  description: How many probes are left to other hosts, by their names.
  returned: when the probes were sent
  type: dict
  sample: {"vm2": 1}
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
                    "protocol": {"type": "str", "choices": ["icmp", "tcp", "udp", "http"], "default": "icmp"},
                    "port": {"type": "int"},
                    "path": {"type": "str"},
                    "status": {"type": "int"},
                    "body": {"type": "str"},
                    "expect": {
                        "type": "str",
                        "choices": ["reachable", "unreachable", "refused"],
                        "default": "reachable",
                    },
                    "source_seen": {"type": "str"},
                    "listen": {"type": "raw"},
                    "count": {"type": "int", "default": 1},
                    "deadline": {"type": "float", "default": 5.0},
                },
            },
            "host": {"type": "str"},
            "hosts": {"type": "list", "elements": "str"},
        },
        supports_check_mode=True,
    )
    try:
        probes, left_to = _options.probes(module.params)
        if module.check_mode:
            module.exit_json(changed=False, skipped=True, msg="no packets are sent in check mode")
        results = _probing.probe(probes)
    except NslabError as error:
        fail(module, error)
    failures = [result["text"] for result in results if not result["passed"]]
    if failures:
        module.fail_json(msg="\n".join(failures), results=results, left_to=left_to)
    module.exit_json(changed=False, results=results, left_to=left_to)


if __name__ == "__main__":
    main()
