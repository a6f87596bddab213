# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is on the machine, as far as a demand needs to know it.

Looking changes nothing: it makes no file, takes no lock, and needs no more than to enter namespaces.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from . import _attached as attached
from . import _devices as devices
from . import _iptables as iptables
from . import _memory as memory
from . import _namespaces as namespaces
from . import _nftables as nftables
from . import _node as node
from . import _services as services
from . import _sysctl as sysctl
from ._connection import connection
from ._errors import few
from ._findings import BRIDGE_NETFILTER
from ._kinds import NUMBERED, kind
from ._machine import Machine
from ._model import (
    BIRTH_GROUP,
    HOST,
    NOBODY,
    Endpoint,
    Link,
    Namespace,
    Origin,
    Remembered,
    State,
    Wanted,
    WantedNamespace,
    lab_of,
    origin_of,
)
from ._namespaces import Handle
from ._nat import IPTABLES, NFTABLES, NatRule, in_order
from ._netlink import decode, qdiscs, rules
from ._netlink.session import Session
from ._renames import device_of, followed
from ._service import Service, ServiceKey
from ._sysctl_keys import PASSED_ON, disable_ipv6_of, generic_key, ipv6_conf

_FORWARDING_CAUSES = {
    "net/ipv4/ip_forward": ("ipv4", ("forwarding", "accept_redirects")),
    "net/ipv4/conf/all/forwarding": ("ipv4", ("forwarding", "accept_redirects")),
    **{ipv6_conf("all", name): ("ipv6", (name,)) for name in PASSED_ON},
}


def observe(machine: Machine, wanted: Wanted) -> State:
    """Look at all that ``wanted`` speaks of, at all that carries its lab's mark, and at what they are wired to."""
    entries = namespaces.entries()
    asked = [*wanted.namespaces, *wanted.absent_namespaces]
    noted = [entry.namespace for lab in memory.labs() if wanted.lab for entry in memory.recall(lab)]
    second_names = _second_names(entries, [*asked, *noted])
    state = State(
        stale=frozenset(entry.name for entry in entries if entry.kind == "stale"),
        obstacles={entry.name: _obstacle(entry) for entry in entries if entry.kind in ("dangling", "foreign")},
        second_names=second_names,
        names=frozenset(entry.name for entry in entries if entry.inode and entry.name not in second_names),
    )
    _find_attachments(machine, wanted, state, {entry.name: entry for entry in entries})
    earlier = _find_earlier(machine, wanted, state, entries)
    if wanted.prune or wanted.absent_namespaces:
        state.nodes = node.read_all()
        state.node_obstacles = {name: node.obstacle(name) for name, body in wanted.namespaces.items() if body.node}
        links = {entry.name for entry in entries if entry.kind == "symlink"}
        state.borrowed = frozenset(attached.names() | links)
    state.services = _services(wanted)
    if wanted.prune or wanted.absent_namespaces:
        state.unreadable_services = services.unreadable()
    host = wanted.namespaces.get(HOST)
    if host and (host.services or host.absent_services or host.purge_services):
        state.no_host_services = services.host_obstacle([name for name, at in second_names.items() if at == HOST])
    known: _KnownNames = {}
    state.remembered = remembered(machine, wanted.lab, known)
    state.claims = {lab: remembered(machine, lab, known) for lab in _labs_that_matter(wanted) if lab != wanted.lab}
    state.connection = connection()
    keys = _sysctl_keys(wanted, state)
    names = dict.fromkeys(asked)
    ends = [end for wire in wanted.wires for end in wire.ends] + _absent_ends(wanted)
    names.update(dict.fromkeys(end.namespace for end in ends))
    names.update(dict.fromkeys(entry.namespace for entry in state.remembered))
    kinds = [link.kind for body in wanted.namespaces.values() for link in body.links.values() if link.kind]
    names.update(dict.fromkeys(kind.link.namespace if kind.link else kind.netns for kind in kinds))
    names.pop("", None)
    if _speaks_of_devices(wanted):
        names[HOST] = None
    if wanted.prune:
        names[HOST] = None
        others = [name for name in machine.all_names(names) if name not in names]
        names.update(dict.fromkeys(name for name in others if _concerns(machine, name, wanted.lab)))
    look = Look(machine, state, keys, wanted.lab)
    look.by_path = _speaks_of_devices(wanted)
    look.at_what_leads_out(earlier)
    look.at(names)
    _find_devices(wanted, look)
    _find_what_lies_on_others(wanted, look)
    _find_numbers(wanted, look)
    if look.strays(wanted):
        look.at([HOST, *machine.all_names(names)])
    _find_sysctls(machine, wanted, state)
    _find_users(wanted, state)
    if wanted.prune or any(namespace.nat for namespace in wanted.namespaces.values()):
        look_at_nat(machine, state, wanted.lab, wanted.namespaces)
    return state


def _services(wanted: Wanted) -> dict[ServiceKey, Service]:
    """The services of namespaces, if the demand may have to do with them."""
    bodies = wanted.namespaces.values()
    asked = [(wanted.lab, ServiceKey(body.name, name)) for body in bodies for name in body.services]
    concerns = any(body.absent_services or body.purge_services for body in bodies)
    if not (asked or concerns or wanted.prune or wanted.absent_namespaces):
        return {}
    return {key: found.service for key, found in services.read_all(asked).items()}


def _labs_that_matter(wanted: Wanted) -> list[str]:
    """The labs whose notes have to be known; "" for what was done for none."""
    return [*memory.labs(), ""] if wanted.lab or _speaks_of_devices(wanted) or wanted.absent_namespaces else []


def _speaks_of_devices(wanted: Wanted) -> bool:
    return bool(wanted.absent_devices) or any(True for _end in _device_ends(wanted))


def _device_ends(wanted: Wanted) -> Iterator[Endpoint]:
    """Where the devices of the host shall be that are wanted in namespaces."""
    for namespace in wanted.namespaces.values():
        yield from (Endpoint(namespace.name, link.name) for link in namespace.links.values() if link.device)


def _absent_ends(wanted: Wanted) -> list[Endpoint]:
    """The links that shall not be, one by one."""
    veths = [end for veth in wanted.absent_veths for end in veth if end]
    return [*veths, *wanted.absent_bridges, *wanted.absent_devices]


def _find_devices(wanted: Wanted, look: Look) -> None:
    """Look also where a device may be that is not where it shall be; and at the host if one may have to go there."""
    there = [look.state.link(end) for end in _device_ends(wanted)]
    seen = {origin for _end, link in look.state.links() for origin in link.origins}
    noted = {Origin(wanted.lab, entry.object) for entry in look.state.remembered if entry.kind == "device"}
    if any(link is None or not link.origin(wanted.lab) for link in there) or noted - seen:
        look.where(_was_moved)
    if any(link.origins for _end, link in look.state.links()):
        look.at([HOST])


def _was_moved(link: decode.RawLink) -> bool:
    """Is a link a device of the host?"""
    return any(map(origin_of, link.altnames))


def _find_what_lies_on_others(wanted: Wanted, look: Look) -> None:
    """Look where links may lie on one that goes, or that is moved. A demand that prunes has looked there already."""
    state = look.state
    are_moved = [link is None or not link.origins for link in map(state.link, _device_ends(wanted))]
    are_gone = [
        *map(state.link, _absent_ends(wanted)),
        *(name in state.namespaces for name in wanted.absent_namespaces),
    ]
    if any((*are_moved, *are_gone)) and not wanted.prune:
        look.where(_lies_elsewhere)


def _find_numbers(wanted: Wanted, look: Look) -> None:
    """Look where another VXLAN, or a VLAN on a link of another namespace, may have the number that a new one gets."""
    numbers = {
        (link.kind.name, link.kind.get("id"))
        for name, body in wanted.namespaces.items()
        for link in body.links.values()
        if link.kind and link.kind.name in NUMBERED and look.state.link(Endpoint(name, link.name)) is None
    }

    def has_one(link: decode.RawLink) -> bool:
        found = link.details
        if found is None or (found.name == "vlan" and not _lies_elsewhere(link)):
            return False
        return (found.name, found.get("id")) in numbers

    if numbers:
        look.where(has_one)


def _lies_elsewhere(link: decode.RawLink) -> bool:
    """Does a link lie on one of another namespace?"""
    return link.details is not None and bool(link.lower) and link.lower_nsid is not None


def _second_names(entries: Sequence[namespaces.Entry], preferred: Iterable[str]) -> dict[str, str]:
    """The names of namespaces that have another one here, and that one."""
    names = namespaces.first_names(entries, preferred)
    there = [entry for entry in entries if entry.inode and entry.name != HOST]
    return {entry.name: names[entry.inode] for entry in there if names[entry.inode] != entry.name}


_KnownNames = dict[tuple[str, int], dict[int, str]]


def remembered(machine: Machine, lab: str, known: _KnownNames | None = None) -> tuple[Remembered, ...]:
    """What the lab has changed on things that are not its own, by the names that these have now.

    ``known`` keeps what was found out on the way.
    """
    known = {} if known is None else known
    entries = memory.recall(lab)
    for place in dict.fromkeys((entry.namespace, entry.inode) for entry in entries if entry.ifindex):
        handle = machine.find(place[0]) if place not in known else None
        if handle and handle.inode == place[1]:
            known[place] = {link.ifindex: link.name for link in decode.links(machine.session(place[0]))}
    return followed(entries, known)


def _find_attachments(machine: Machine, wanted: Wanted, state: State, entries: dict[str, namespaces.Entry]) -> None:
    """Open the namespaces that shall be attached: from here on they are known by the names that they shall have."""
    for name, body in wanted.namespaces.items():
        if body.attach is None:
            continue
        state.attachments[name], handle = attached.find(name, body.attach, entries)
        if handle:
            machine.adopt(handle)
            others = [entry.name for entry in entries.values() if entry.inode == handle.inode and entry.name != name]
            state.second_names.pop(name, None)
            state.second_names.update(dict.fromkeys(others, name))
            state.names -= set(others)


def _find_earlier(machine: Machine, wanted: Wanted, state: State, entries: Sequence[namespaces.Entry]) -> list[str]:
    """Open what names stand for that go over to others. Its own name is one that no namespace can have."""
    found = []
    elsewhere = {entry.inode for entry in entries if entry.name not in state.attachments}
    elsewhere |= {attachment.inode for attachment in state.attachments.values()}
    for name, there in state.attachments.items() if wanted.prune else ():
        if there.inode and there.is_known and there.kind != "symlink" and there.current not in elsewhere:
            found.append(f"{name}/earlier")
            machine.adopt(namespaces.open_path(found[-1], f"{namespaces.RUN_DIRECTORY}/{name}"))
    return found


def _find_users(wanted: Wanted, state: State) -> None:
    """Who lives in the namespaces that shall be made and are there already as somebody else's."""
    there = [
        state.namespaces[name] for name, body in wanted.namespaces.items() if body.create and name in state.namespaces
    ]
    foreign = [namespace for namespace in there if wanted.lab and namespace.lab != wanted.lab]
    pids = namespaces.pids_inside() if foreign else {}
    for namespace in foreign:
        words = [f"process {pid} ({namespaces.command_of(pid)})" for pid in pids.get(namespace.inode, ())]
        state.users[namespace.name] = few(words)


def _obstacle(entry: namespaces.Entry) -> str:
    what = f"a symlink to {entry.target}" if entry.target else "neither a file nor a symlink"
    return f"{namespaces.RUN_DIRECTORY}/{entry.name} is {what}, which is no namespace"


def _concerns(machine: Machine, name: str, lab: str) -> bool:
    """Is the namespace the lab's, or a link or a rule of translation in it, or what a link of it may lie on?"""
    with machine.released(name) as handle:
        if handle is None:
            return False
        if lab == NOBODY:
            return True
        links = decode.links(machine.session(name))
        # Links may be in a namespace that another lab has taken over, or lie on one that goes.
        if any(lab in _labs_of(link) or _lies_elsewhere(link) for link in links):
            return True
        with machine.entered(name):
            return bool(_nat_of(lab, iptables.in_use()))


def _labs_of(link: decode.RawLink) -> set[str]:
    """The labs whose marks a link has, by its alias or as a device that was moved; "" is none."""
    return {lab_of(link.alias), *(origin.lab for origin in map(origin_of, link.altnames) if origin)}


def labs(machine: Machine) -> list[str]:
    """The labs that have left anything on the machine: a mark, rules of translation, or a memory. NOBODY is one."""
    found = set(memory.labs()) | services.labs()
    can_read_iptables = iptables.available()
    for name in [HOST, *machine.all_names()]:
        with machine.released(name) as handle:
            if handle is None:
                continue
            links = decode.links(machine.session(name))
            found.update(lab for link in links for lab in _labs_of(link))
            found.update(NOBODY for link in links if link.group == BIRTH_GROUP and not link.alias)
            with machine.entered(name):
                found |= nftables.labs()
                if can_read_iptables and iptables.in_use():
                    found |= iptables.labs()
    return sorted(found - {""})


def look_at_nat(machine: Machine, state: State, lab: str, wanted: Mapping[str, WantedNamespace]) -> None:
    """Read the lab's rules of translation in each namespace; where it wants some, also whether others translate."""
    state.nat_backends = frozenset(
        backend
        for backend, is_there in ((NFTABLES, nftables.available()), (IPTABLES, iptables.available()))
        if is_there
    )
    state.iptables_note = iptables.flavour_note()
    for name, namespace in state.namespaces.items():
        with machine.entered(name):
            namespace.legacy_nat = iptables.in_use()
            found = _nat_of(lab, namespace.legacy_nat)
            namespace.nat = {backend: in_order(rules) for backend, rules in found.items()}
            body = wanted.get(name)
            if body and body.nat and body.nat.rules and (namespace.legacy_nat or body.nat.backend == IPTABLES):
                namespace.others_nat = frozenset(_translators(lab, namespace.legacy_nat))


def _translators(lab: str, legacy_nat: bool) -> Iterator[str]:
    """The backends in which rules that are not the lab's translate in the namespace that this thread is in."""
    if legacy_nat and iptables.available() and iptables.others_translate(lab):
        yield IPTABLES
    if nftables.available() and nftables.others_translate(lab):
        yield NFTABLES


def _nat_of(lab: str, legacy_nat: bool) -> dict[str, list[NatRule]]:
    """The lab's rules in the namespace that this thread is in, by backend."""
    found = {
        NFTABLES: nftables.read(lab),
        IPTABLES: iptables.read(lab) if legacy_nat and iptables.available() else None,
    }
    return {backend: rules for backend, rules in found.items() if rules is not None}


def _sysctl_keys(wanted: Wanted, state: State) -> dict[str, set[str]]:
    keys = {name: set(namespace.sysctls) for name, namespace in wanted.namespaces.items()}
    for namespace in wanted.namespaces.values():
        if any(link.bridge for link in namespace.links.values()):
            keys[namespace.name].update(BRIDGE_NETFILTER)
        if not namespace.create:
            links = [link for link in namespace.links.values() if any(a.value.family == 6 for a in link.addresses)]
            keys[namespace.name].update(disable_ipv6_of(link.name) for link in links)
    for entry in state.remembered:
        if entry.kind in ("sysctl", "consequence"):
            keys.setdefault(entry.namespace, set()).add(entry.object)
        elif entry.kind == "lost address":
            disabling = (disable_ipv6_of(device_of(entry)), disable_ipv6_of("all"))
            keys.setdefault(entry.namespace, set()).update(disabling)
    notes = (state.remembered, *state.claims.values())
    host = wanted.namespaces.get(HOST)
    ipv6 = (a for link in host.links.values() for a in link.addresses if a.value.family == 6) if host else ()
    if any(entry.kind == "device" for entries in notes for entry in entries) or any(True for _address in ipv6):
        # What comes to the host, or is made there, takes that.
        keys.setdefault(HOST, set()).update((disable_ipv6_of("default"), disable_ipv6_of("all")))
    return keys


def _with_target(session: Session, link: decode.RawLink) -> decode.RawLink:
    """A VXLAN whose entry for its other end somebody has deleted sends there no more, and has none."""
    if link.details is None or link.details.name != "vxlan":
        return link
    target = str(link.details.get("remote") or link.details.get("group"))
    if not target or target in decode.flood_targets(session, link.ifindex):
        return link
    said = {**dict(link.details.settings), "remote": "", "group": ""}
    return link._replace(details=kind(link.details.name, said))


class Look:
    """Reads namespaces into a state, and finds out which veth ends belong together."""

    def __init__(self, machine: Machine, state: State, keys: dict[str, set[str]], lab: str = "") -> None:
        self.lab = lab
        self.machine = machine
        self.state = state
        self.keys = keys
        #: The links as the kernel reports them, with more than the model has.
        self.raw: dict[Endpoint, decode.RawLink] = {}
        #: Ask also what the devices are called that links belong to.
        self.by_path = False
        self._nsids: dict[tuple[str, str], int] = {}

    def at(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self.state.namespaces and name not in self.state.second_names:
                handle = self.machine.find(name)
                if handle:
                    self.state.namespaces[name] = self._namespace(name, handle)
        self._pair()

    def where(self, is_meant: Callable[[decode.RawLink], bool]) -> None:
        """Look at those namespaces, of all that were not looked at yet, that have such a link."""
        others = (name for name in self.machine.all_names(self.state.namespaces) if name not in self.state.namespaces)
        self.at([name for name in others if self._has(name, is_meant)])

    def _has(self, name: str, is_meant: Callable[[decode.RawLink], bool]) -> bool:
        with self.machine.released(name) as handle:
            return handle is not None and any(map(is_meant, decode.links(self.machine.session(name))))

    def at_what_leads_out(self, names: Iterable[str]) -> None:
        """Read of namespaces only the lab's links that lead out of them: veths, and VXLANs, of which there is one for
        each number as long as a namespace lives, also when it has lost its name and something in it goes on.
        """
        for name in names:
            namespace = self._namespace(name, self.machine.handle(name))
            for interface in list(namespace.links):
                raw = self.raw[Endpoint(name, interface)]
                if raw.lower_nsid is None or lab_of(raw.alias) != self.lab:
                    del namespace.links[interface], self.raw[Endpoint(name, interface)]
            if namespace.links:
                self.state.namespaces[name] = namespace

    def _namespace(self, name: str, handle: Handle) -> Namespace:
        session = self.machine.session(name)
        namespace = Namespace(name, handle.inode)
        indexes: dict[int, Link] = {}
        names: dict[int, str] = {}
        for raw in map(functools.partial(_with_target, session), decode.links(session)):
            link = Link(raw.name, raw.ifindex, raw.kind, raw.mtu, raw.mac, raw.up, raw.alias)
            link.bridge, link.port = raw.bridge, raw.port
            link.altnames, link.permanent_mac = raw.altnames, raw.permanent_mac
            if self.by_path:
                link.paths = devices.names(*raw.parent)
                if name == HOST and not raw.parent[1]:
                    link.paths = devices.names_by_link(raw.name, raw.ifindex)
            link.unfinished = self.lab if raw.group == BIRTH_GROUP and not raw.alias else ""
            namespace.links[raw.name] = indexes[raw.ifindex] = link
            names[raw.ifindex] = raw.name
            self.raw[Endpoint(name, raw.name)] = raw
        self._find_ports(session, name, indexes)
        for index, root in qdiscs.roots(session).items():
            indexes[index].impairment, indexes[index].other_qdisc = root
        for address in decode.addresses(session):
            link = indexes[address.ifindex]
            if address.kernel:
                link.kernel_addresses += (address.value,)
            else:
                # The kernel gives each IPv4 address a label, by default the interface's name.
                label = "" if address.value.label == link.name else address.value.label
                link.addresses.append(address.value._replace(label=label))
        namespace.routes = decode.routes(session, names)
        known = rules.rules(session)
        namespace.rules, namespace.rule_families = (
            [rule for found in known.values() for rule in found],
            frozenset(known),
        )
        if self.keys.get(name):
            with self.machine.entered(name):
                namespace.sysctls = {key: sysctl.read(key) for key in _with_consequences(self.keys[name])}
        return namespace

    def _find_ports(self, session: Session, name: str, indexes: dict[int, Link]) -> None:
        vlans = decode.port_vlans(session) if any(link.bridge for link in indexes.values()) else {}
        for index, link in indexes.items():
            raw = self.raw[Endpoint(name, link.name)]
            master = indexes.get(raw.master)
            link.vlans = vlans.get(index, ()) if link.bridge else ()
            if master and master.bridge:
                link.master = master.name
                link.vlans = vlans.get(index, ())
            elif master and raw.part_of == "vrf":
                link.vrf = master.name
            elif master:
                link.controller = master.name
            if raw.lower in indexes and raw.lower_nsid is None and raw.kind != "veth":
                link.lower = indexes[raw.lower].name

    def _pair(self) -> None:
        """Name the other end of each veth: the link with whose index it is reported, in the namespace of that id.

        What is the other end of one has that one for its own.
        """
        by_index: dict[int, list[Endpoint]] = {}
        for end, raw in self.raw.items():
            by_index.setdefault(raw.ifindex, []).append(end)
        for end, raw in self.raw.items():
            link = self.state.namespaces[end.namespace].links[end.interface]
            if raw.kind != "veth" or link.peer:
                continue
            for other in by_index.get(raw.lower, ()):
                if self.raw[other].lower == raw.ifindex and self._is_in(end.namespace, other.namespace, raw.lower_nsid):
                    link.peer = other
                    self.state.namespaces[other.namespace].links[other.interface].peer = end
                    break
        self._find_lowers(by_index)

    def _find_lowers(self, by_index: dict[int, list[Endpoint]]) -> None:
        """Name what links lie on, and the namespaces that the packets of others go through."""
        self.state.uppers = {}
        for end, raw in self.raw.items():
            link = self.state.namespaces[end.namespace].links[end.interface]
            if raw.details is None:
                continue
            # A link of 0 is that of a vxlan that lies on none.
            lowers = (other for other in by_index.get(raw.lower, ()) if raw.lower)
            lower = next((o for o in lowers if self._is_in(end.namespace, o.namespace, raw.lower_nsid)), None)
            netns = ""
            if lower is None and not raw.lower and raw.lower_nsid is not None:
                others = (name for name in self.state.namespaces if name != end.namespace)
                netns = next((name for name in others if self._is_in(end.namespace, name, raw.lower_nsid)), "?")
            if lower:
                self.state.uppers[lower] = (*self.state.uppers.get(lower, ()), end)
            link.details = raw.details._replace(link=lower, netns=netns)

    def _is_in(self, here: str, there: str, nsid: object) -> bool:
        """Is ``there`` the namespace that ``here`` knows by ``nsid`` (None: itself)?"""
        if nsid is None or here == there:
            return nsid is None and here == there
        if (here, there) not in self._nsids:
            session: Session = self.machine.session(here)
            self._nsids[here, there] = decode.nsid(session, self.machine.handle(there).fd)
        return self._nsids[here, there] == nsid

    def strays(self, wanted: Wanted) -> bool:
        """Is a veth that is wanted, or that goes with its namespace, wired to something that was not looked at yet?"""
        ends = [end for wire in wanted.wires for end in wire.ends]
        ends += [end for veth in wanted.absent_veths for end in veth if end]
        ends += [
            Endpoint(name, interface)
            for name in wanted.absent_namespaces
            if name in self.state.namespaces
            for interface in self.state.namespaces[name].links
        ]
        links = [self.state.link(end) for end in ends]
        return any(link is not None and link.kind == "veth" and link.peer is None for link in links)


def _with_consequences(keys: set[str]) -> list[str]:
    """The keys, their generic forms, and those that the kernel sets by itself when one of them changes."""
    found = dict.fromkeys(sorted(keys))
    found.update(dict.fromkeys(generic_key(key) for key in sorted(keys)))
    for cause in keys & set(_FORWARDING_CAUSES):
        family, names = _FORWARDING_CAUSES[cause]
        directory = f"net/{family}/conf"
        for interface in sorted(os.listdir(f"/proc/sys/{directory}")):
            for name in names if interface == "all" else names[:1]:
                found[f"{directory}/{interface}/{name}"] = None
        if family == "ipv4":
            found["net/ipv4/ip_forward"] = None
    return list(found)


def _find_sysctls(machine: Machine, wanted: Wanted, state: State) -> None:
    """Which of the wanted sysctls there are: on the machine, in a new namespace, and for somebody to set."""
    keys = {key for namespace in wanted.namespaces.values() for key in namespace.sysctls}
    keys |= {generic_key(key) for key in keys}
    if not keys:
        return
    with namespaces.initial():
        known = {key for key in keys if sysctl.exists(key)}
        for key in keys - known:
            known.update(sysctl.beside(key))
        state.known_sysctls = frozenset(known)
    others = [name for name in wanted.namespaces if name != HOST and wanted.namespaces[name].sysctls]
    if others:
        # What one namespace has, all have. If there is none yet, one without a name, gone at once, tells.
        there = [name for name in others if name in state.namespaces]
        with machine.entered(there[0]) if there else namespaces.scratch():
            state.new_namespace_sysctls = frozenset(key for key in keys if sysctl.exists(key))
            state.fixed_sysctls = frozenset(key for key in state.new_namespace_sysctls if not sysctl.writable(key))
