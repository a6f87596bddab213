# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Everything that is in a namespace, as plain data.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from . import _attached as attached
from . import _iptables as iptables
from . import _memory as memory
from . import _namespaces as namespaces
from . import _nftables as nftables
from . import _node as node
from . import _pending as pending
from . import _persisted as persisted
from . import _services as services
from . import _sysctl as sysctl
from ._capture import capture
from ._capture_rules import rule_words
from ._connection import proc_address
from ._errors import Missing, Problem, Refused
from ._machine import Machine
from ._model import HOST, NOBODY, STATIC_ROUTE_PROTOCOLS, Endpoint, Link, Route, State, origin_of
from ._netlink import decode, library
from ._observe import Look, look_at_nat, remembered
from ._observe import labs as find_labs
from ._orphans import orphans
from ._rules import Rule
from ._sysctl_keys import key_of

Facts = dict[str, Any]


def gather(names: Sequence[str] | None, sysctls: Sequence[str], lab: str) -> Facts:
    """Facts on the named namespaces, or on all; and on the ``lab``, or the only one, as a topology document.

    Raises Refused if a name stands for no namespace, and Missing without the right to enter namespaces.
    """
    if os.geteuid() != 0:
        raise Missing("the inside of a namespace can be seen only as root; use 'become: true'")
    entries = namespaces.entries()
    broken = {entry.name: entry for entry in entries if not entry.inode}
    with Machine() as machine:
        known = [HOST, *machine.all_names(names or ())]
        asked = list(dict.fromkeys(known if names is None else names))
        unknown = [name for name in asked if name not in known]
        if unknown:
            raise Refused([_unknown(machine, name, known, entries) for name in unknown])
        running = services.read_all()
        state = State(services={key: found.service for key, found in running.items()})
        state.unreadable_services = services.unreadable()
        look = Look(machine, state, {}, NOBODY)
        look.at(known)
        labs = [name for name in find_labs(machine) if name != NOBODY]
        pids = namespaces.pids_inside()
        given = attached.names()
        links = {entry.name: entry for entry in entries}
        facts: Facts = {
            "namespaces": {
                name: {
                    **_namespace(machine, look, name, links, pids, given, sysctls),
                    "services": [_service(key.name, found) for key, found in running.items() if key.namespace == name],
                }
                for name in asked
                if name in state.namespaces
            },
            "stale": [
                {"name": entry.name, "kind": entry.kind, "target": entry.target or None} for entry in broken.values()
            ],
            "orphans": [
                {key: value or None for key, value in orphan._asdict().items()}
                for orphan in orphans(
                    state,
                    {name: (entry.kind, _broken(entry)) for name, entry in broken.items()},
                    {name: memory.recall(name) for name in memory.labs()},
                )
            ],
            "pending": pending.pending(),
            "reverted": pending.reverted(),
            "labs": labs,
            "persisted": persisted.facts(),
            "requirements": _requirements(),
            "topology": None,
        }
        chosen = lab or (labs[0] if len(labs) == 1 else "")
        if chosen:
            facts["topology"] = _topology(machine, state, chosen, names or ())
        return facts


def _requirements() -> Facts:
    """What the collection needs of the host, as far as it is there."""
    found = library.find()
    ways = {"binding": nftables.has_binding(), "program": nftables.has_program()}
    return {
        "python": sys.executable,
        "python_version": ".".join(map(str, sys.version_info[:3])),
        "pyroute2": {"version": found.version or None, "folder": found.folder} if found else None,
        "nftables": [way for way, is_there in ways.items() if is_there],
        "iptables": iptables.available(),
        "ip": shutil.which("ip", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"),
        "can_make_venv": importlib.util.find_spec("ensurepip") is not None,
    }


def _broken(entry: namespaces.Entry) -> str:
    path = f"{namespaces.RUN_DIRECTORY}/{entry.name}"
    if entry.kind == "stale":
        return f"{path} stands for no namespace: an 'ip netns add' or 'delete' was interrupted"
    return f"{path} is " + (f"a symlink to {entry.target}, which is no namespace" if entry.target else "no namespace")


def _unknown(machine: Machine, name: str, known: Sequence[str], entries: Sequence[namespaces.Entry]) -> Problem:
    entry = next((entry for entry in entries if entry.name == name), None)
    if entry is None:
        return Problem("namespaces", f"there is no namespace {name!r}; there are {', '.join(known)}")
    if entry.inode:
        other = next(other for other in known if machine.handle(other).inode == entry.inode)
        whose = "the host's own namespace" if other == HOST else f"the namespace {other}"
        return Problem("namespaces", f"{name!r} is a second name of {whose}, which is {other!r} here")
    return Problem("namespaces", f"{name!r} is a {entry.kind} entry in {namespaces.RUN_DIRECTORY}, no namespace")


def _topology(machine: Machine, state: State, lab: str, also: Sequence[str]) -> Facts:
    state.remembered = remembered(machine, lab)
    for entry in state.remembered:
        namespace = state.namespaces.get(entry.namespace)
        if entry.kind == "sysctl" and namespace and namespace.inode == entry.inode:
            with machine.entered(entry.namespace):
                namespace.sysctls[entry.object] = sysctl.read(entry.object)
    look_at_nat(machine, state, lab, {})
    state.nodes = node.read_all()
    return capture(state, lab, also)


def _namespace(
    machine: Machine,
    look: Look,
    name: str,
    links: Mapping[str, namespaces.Entry],
    pids: dict[int, list[int]],
    given: Collection[str],
    sysctls: Sequence[str],
) -> Facts:
    session = machine.session(name)
    entry = links.get(name)
    namespace = look.state.namespaces[name]
    indexes = {link.index: link.name for link in namespace.links.values()}
    nsid = -1 if name == HOST else decode.nsid(machine.session(HOST), machine.handle(name).fd)
    with machine.entered(name):
        settings = {key: sysctl.read(key_of(key)) for key in sysctls}
        listening = _listening()
    return {
        "name": name,
        "lab": namespace.lab or None,
        "inode": namespace.inode,
        "nsid": nsid if nsid >= 0 else None,
        "symlink": entry.target if entry and entry.kind == "symlink" else None,
        "attached": name in given,
        "second_names": sorted(other for other in links if other != name and links[other].inode == namespace.inode),
        "links": _links(look, name, decode.addresses(session)),
        "routes": [_route(route) for route in decode.routes(session, indexes, kernel=True)],
        "rules": [_rule(rule) for rule in namespace.rules],
        "neighbours": decode.neighbours(session, indexes),
        "sysctls": settings,
        "listening": listening,
        "pids": pids.get(namespace.inode, []),
        **_machine(name),
    }


def _machine(name: str) -> Facts:
    """What the namespace has of its own as a machine."""
    if name == HOST:
        return {"hostname": os.uname().nodename, "files": []}
    return {"hostname": node.read_hostname(name), "files": node.files_of(name)}


def _service(name: str, found: services.Found) -> Facts:
    service, running = found.service, found.running
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(running.since)) if running.since else None
    return {
        "name": name,
        "lab": service.lab or None,
        "state": running.state,
        "pid": running.pid or None,
        "since": since,
        "restarts": running.restarts,
        "ended": running.ended or None,
        "command": list(service.definition.command),
        "user": service.definition.user or None,
        "environment": [variable for variable, _value in service.definition.environment],
        "log": found.log or None,
        "unit": found.unit or None,
    }


def _links(look: Look, name: str, addresses: list[decode.RawAddress]) -> list[Facts]:
    links = look.state.namespaces[name].links.values()
    names = {link.index: link.name for link in links}
    found = []
    for link in links:
        raw = look.raw[Endpoint(name, link.name)]
        found.append(
            {
                "name": raw.name,
                "index": raw.ifindex,
                "type": raw.kind or "physical",
                "mtu": raw.mtu,
                "mac": raw.mac or None,
                "up": raw.up,
                "flags": raw.flag_words,
                "operstate": raw.operstate,
                "alias": raw.alias or None,
                "lab": link.lab or next((origin.lab for origin in link.origins), "") or None,
                "master": names.get(raw.master) if raw.master else None,
                "impairment": link.impairment.words if link.impairment else None,
                "bridge": {**raw.bridge, "vlans": [vlan._asdict() for vlan in link.vlans]} if raw.bridge else None,
                "port": {**raw.port, "vlans": [vlan._asdict() for vlan in link.vlans]} if raw.port else None,
                "peer": link.peer._asdict() if link.peer else None,
                "details": _details(link),
                "vrf": link.vrf or None,
                "altnames": [altname for altname in raw.altnames if not origin_of(altname)],
                "device": {"from": HOST, "name": link.origins[0].name} if link.origins else None,
                "addresses": [
                    {
                        **address.value._asdict(),
                        "family": f"ipv{address.value.family}",
                        "kernel": address.kernel,
                        "flags": address.flag_words,
                    }
                    for address in addresses
                    if address.ifindex == raw.ifindex
                ],
            }
        )
    return found


def _details(link: Link) -> Facts | None:
    """What a link of a kind is (_kinds.py), and what it lies on."""
    if link.details is None:
        return None
    found: Facts = {name: None if value == "" else value for name, value in link.details.settings}
    if link.details.link:
        found["link"] = link.details.link._asdict()
    if link.details.netns:
        found["link_netns"] = link.details.netns
    return found


def _route(route: Route) -> Facts:
    return {
        **route._asdict(),
        "family": f"ipv{route.family}",
        "protocol": decode.ROUTE_PROTOCOLS.get(route.protocol, str(route.protocol)),
        "nexthops": [hop._asdict() for hop in route.nexthops],
        "static": route.protocol in STATIC_ROUTE_PROTOCOLS,
    }


def _rule(rule: Rule) -> Facts:
    """A rule in the document's words, with what only the kernel's rules have."""
    found = {"from": "all", "to": "all", **rule_words(rule)}
    found["table"] = rule.table or None
    return {
        **found,
        "family": f"ipv{rule.family}",
        "action": rule.type,
        "not": rule.inverted,
        "protocol": decode.ROUTE_PROTOCOLS.get(rule.protocol, str(rule.protocol)),
        "static": rule.is_static,
    }


def _listening() -> list[Facts]:
    """The sockets that listen in the namespace that this thread is in, from /proc/thread-self/net."""
    found = []
    # proc(5): TCP_LISTEN is 0A; a UDP socket that is bound and not connected is in state 07.
    for protocol, state in (("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")):
        try:
            with open(f"/proc/thread-self/net/{protocol}", encoding="ascii") as file:
                lines = file.readlines()[1:]
        except FileNotFoundError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == state:
                address, _colon, port = fields[1].partition(":")
                entry = {"protocol": protocol[:3], "address": proc_address(address), "port": int(port, 16)}
                found.append(entry)
    return sorted(found, key=lambda entry: (str(entry["protocol"]), int(str(entry["port"])), str(entry["address"])))
