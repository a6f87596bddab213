# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: report
short_description: Show a lab as text
version_added: 0.1.0
author:
  - nslab contributors (@nslab)
description:
  - Draws the namespaces of a topology document and how they are wired, lists what probes have found, and says what was changed.
positional: _input, changes, probes, predicted
options:
  _input:
    description:
      - A topology document, such as the RV(nslab.netns.netns_info#module:topology) of M(nslab.netns.netns_info).
    type: dict
    required: true
  changes:
    description:
      - The RV(nslab.netns.topology#module:changes) of M(nslab.netns.topology). If it is not given, nothing is said of changes.
    type: list
    elements: dict
  probes:
    description:
      - The RV(nslab.netns.ns_probe#module:results) of M(nslab.netns.ns_probe).
    type: list
    elements: dict
    default: []
  predicted:
    description:
      - Whether the changes were only predicted, as in check mode.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Look at the lab that stands
  nslab.netns.netns_info:
  register: facts

- name: Draw it
  ansible.builtin.debug:
    msg: "{{ facts.topology | nslab.netns.report }}"
  when: facts.topology is not none
"""

RETURN = r"""
_value:
  description: The text, in several lines.
  type: str
  sample: |-
    Lab routed

    server
      lo              1.1.1.1/24
      vethS           10.0.1.2/24  ------ router:veth-srv
      routes          default via 10.0.1.1 dev vethS

    server -> 2.2.2.2  reachable, 0.071 ms

    Nothing had to be changed.
"""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.nslab.netns.plugins.module_utils._kinds import KINDS


def report(
    topology: Any,
    changes: Sequence[Mapping[str, Any]] | None = None,
    probes: Sequence[Mapping[str, Any]] = (),
    predicted: bool = False,
) -> str:
    """A topology document as text, with probe results and the number of changes."""
    if not isinstance(topology, Mapping) or "namespaces" not in topology:
        raise AnsibleFilterError(
            "nslab.netns.report: the input is no topology document, a dictionary with 'namespaces'"
        )
    peers: dict[str, str] = {}
    impairments = {}
    for link in topology.get("links") or ():
        first, second = link["endpoints"]
        peers[first], peers[second] = second, first
        if link.get("impairment"):
            impairments[first] = impairments[second] = link["impairment"]
    for name, body in topology["namespaces"].items():
        for interface, settings in ((body or {}).get("interfaces") or {}).items():
            if (settings or {}).get("device"):
                words = [f"{key} {value}" for key, value in settings["device"].items() if key != "force"]
                peers[f"{name}:{interface}"] = f"device of the host, {' '.join(words)}"
    blocks = [f"Lab {topology.get('name', 'without a name')}"]
    blocks += [_namespace(name, body or {}, peers, impairments) for name, body in topology["namespaces"].items()]
    if probes:
        blocks.append(_probes(probes))
    if changes is not None:
        count = "1 change" if len(changes) == 1 else f"{len(changes)} changes"
        made = "would be made" if predicted else "was made" if len(changes) == 1 else "were made"
        blocks.append(f"{count} {made}." if changes else "Nothing had to be changed.")
    return "\n\n".join(blocks)


def _namespace(
    name: str, body: Mapping[str, Any], peers: Mapping[str, str], impairments: Mapping[str, Mapping[str, Any]]
) -> str:
    interfaces = dict(body.get("interfaces") or {})
    for end in peers:
        namespace, _colon, interface = end.partition(":")
        if namespace == name:
            interfaces.setdefault(interface, {})
            if end in impairments:
                interfaces[interface] = {**(interfaces[interface] or {}), "impairment": impairments[end]}
    rows = [
        (interface, _carries(settings or {}), peers.get(f"{name}:{interface}"))
        for interface, settings in interfaces.items()
    ]
    width = max((len(text) for _interface, text, peer in rows if peer), default=0)
    lines = [name]
    lines += [_row(interface, f"{text:<{width}}  ------ {peer}" if peer else text) for interface, text, peer in rows]
    lines += [_row(bridge, _bridge(settings or {})) for bridge, settings in (body.get("bridges") or {}).items()]
    lines += [_row("" if i else "routes", _route(route)) for i, route in enumerate(body.get("routes") or ())]
    for key in ("rules", "snat", "dnat"):
        lines += [_row("" if i else key, _words(rule)) for i, rule in enumerate(body.get(key) or ())]
    sysctls = (body.get("sysctls") or {}).items()
    lines += [_row("" if i else "sysctls", f"{key} = {value}") for i, (key, value) in enumerate(sysctls)]
    services = (body.get("services") or {}).items()
    lines += [_row("" if i else "services", f"{key}: {_command(one)}") for i, (key, one) in enumerate(services)]
    return "\n".join(lines)


def _row(label: str, text: str) -> str:
    return f"  {label:<15} {text}".rstrip()


def _command(service: Mapping[str, Any]) -> str:
    command = service["command"]
    return command if isinstance(command, str) else shlex.join(map(str, command))


def _carries(settings: Mapping[str, Any]) -> str:
    words = [str(a["address"]) if isinstance(a, Mapping) else str(a) for a in settings.get("addresses") or ()]
    words += [f"mtu {settings['mtu']}"] if settings.get("mtu") else []
    words += ["down"] if settings.get("up") is False else []
    for kind in KINDS:
        if settings.get(kind):
            words.append(kind if settings[kind] is True else f"{kind} {_words(settings[kind])}")
    if settings.get("impairment"):
        words.append(f"impaired by {_words(settings['impairment'])}")
    return ", ".join(words)


def _bridge(settings: Mapping[str, Any]) -> str:
    words = [_carries(settings)] if _carries(settings) else []
    return "  ".join([*words, f"bridge of {', '.join(settings.get('ports') or ()) or 'no ports'}"])


def _route(route: Mapping[str, Any]) -> str:
    words = [str(route["type"])] if route.get("type", "unicast") != "unicast" else []
    words.append(str(route["to"]))
    words += [f"{key} {route[key]}" for key in ("via", "dev", "src", "metric", "table", "mtu") if route.get(key)]
    for hop in route.get("nexthops") or ():
        words.append("nexthop " + " ".join(f"{key} {hop[key]}" for key in ("via", "dev", "weight") if hop.get(key)))
    return " ".join(words)


def _words(rule: Mapping[str, Any]) -> str:
    words = []
    for key, value in rule.items():
        if value is True:
            words.append(key)
        elif value is False:
            words.append(f"{key} off")
        elif value is not None:
            words.append(f"{key} {','.join(map(str, value)) if isinstance(value, list) else value}")
    return " ".join(words)


def _probes(probes: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for probe in probes:
        port = f" {probe['protocol']} port {probe['port']}" if probe.get("port") else ""
        rtt = f", {probe['rtt_ms']:.3f} ms" if probe.get("rtt_ms") is not None else f": {probe['evidence']['text']}"
        source = f", seen from {probe['source_seen']}" if probe.get("source_seen") else ""
        wanted = (
            f"{probe['expect']}, seen from {probe['source_expected']}"
            if probe.get("source_expected")
            else probe["expect"]
        )
        failed = "" if probe["passed"] else f" (expected {wanted})"
        rows.append((f"{probe['from']} -> {probe['to']}{port}", f"{probe['outcome']}{source}{rtt}{failed}"))
    width = max(len(subject) for subject, _found in rows)
    return "\n".join(f"{subject:<{width}}  {found}" for subject, found in rows)


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., str]]:
        return {"report": report}
