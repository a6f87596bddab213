# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The words of the engine: what is (State), what shall be (Wanted), and the values that both are made of.

Knows nothing of netlink, files, or Ansible. Private to the collection: no stable interface.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Union

from ._impairment import Impairment
from ._kinds import Kind
from ._nat import NatRule
from ._rules import Rule
from ._service import Definition, Service, ServiceKey

#: The name of the network namespace in which the module itself was started.
HOST = "host"

#: The route protocol number that marks the routes of this collection (``ip route``: ``proto 110``).
#: Free in the kernel's include/uapi/linux/rtnetlink.h and in iproute2's rt_protos.
ROUTE_PROTOCOL = 110

#: The group (``ip link set ... group``) of a link of a lab from its birth until it has its mark, which the kernel takes
#: only in a second message; and that of links which are removed together. A link that is in it while nobody holds the
#: lock was left by a run that was killed.
BIRTH_GROUP = 0x6E736C

#: Routes that an administrator or this collection made. Those of the kernel, of router advertisements, of DHCP
#: clients and of routing daemons have other numbers and belong to them.
STATIC_ROUTE_PROTOCOLS = frozenset((0, 3, 4, ROUTE_PROTOCOL))  # unspec, boot, static, ours

MAIN_TABLE = 254
LOCAL_TABLE = 255

#: ip6_route_add() gives a route without a metric this one (IP6_RT_PRIO_USER).
DEFAULT_METRIC_V6 = 1024

#: addrconf_prefix_route() gives the route of an address's prefix this one (IP6_RT_PRIO_ADDRCONF).
CONNECTED_METRIC_V6 = 256

#: What loopbacks have, and bridges that have lost their last port (br_stp_recalculate_bridge_id()).
NO_MAC = "00:00:00:00:00:00"

#: The MTU that the kernel gives a new veth and the one that it gives a loopback device.
DEFAULT_MTU = 1500
LOOPBACK_MTU = 65536

#: The bounds that the kernel's veth and loopback set (ETH_MIN_MTU, ETH_MAX_MTU); lo takes no more either.
MIN_MTU, MAX_MTU = 68, 65535

#: Below this MTU the kernel takes IPv6 away from a link (IPV6_MIN_MTU, RFC 8200).
IPV6_MIN_MTU = 1280

#: A bridge takes this many ports (BR_MAX_PORTS in net/bridge/br_private.h; port number 0 is none).
MAX_PORTS = 1023

#: The settings of a bridge: what the value is, and what a new bridge has. Times are hundredths of a second.
BRIDGE_SETTINGS = {
    "stp": ("flag", 0),
    "ageing_time": ("time", 30000),
    "forward_delay": ("time", 1500),
    "vlan_filtering": ("flag", 0),
    "vlan_default_pvid": ("number", 1),
    "multicast_snooping": ("flag", 1),
    "group_fwd_mask": ("number", 0),
}

#: From the least to the most, in the kernel's units, with the spanning tree on (br_set_forward_delay()).
FORWARD_DELAY = (200, 3000)

NO_VLANS = "the kernel of this host cannot filter VLANs on bridges (it is built without CONFIG_BRIDGE_VLAN_FILTERING)"

#: The settings of a bridge port, and what a new port has; the kernel derives the cost from the speed of the link.
PORT_SETTINGS: dict[str, tuple[str, int | None]] = {
    "cost": ("number", None),
    "priority": ("number", 32),
    "hairpin": ("flag", 0),
    "guard": ("flag", 0),
    "learning": ("flag", 1),
    "flood": ("flag", 1),
    "isolated": ("flag", 0),
    "neigh_suppress": ("flag", 0),
    "mcast_flood": ("flag", 1),
}

#: What a new bridge and a new port have, as far as it does not depend on the link.
BRIDGE_DEFAULTS = {name: default for name, (_kind, default) in BRIDGE_SETTINGS.items()}
PORT_DEFAULTS = {name: default for name, (_kind, default) in PORT_SETTINGS.items() if default is not None}

#: The kernel takes a veth for a link of 10 Gbit/s (port_cost() in net/bridge/br_if.c).
VETH_PORT_COST = 2

IPAddress = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
IPInterface = Union[ipaddress.IPv4Interface, ipaddress.IPv6Interface]
IPNetwork = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]


class Endpoint(NamedTuple):
    """One end of a wire: an interface of a namespace."""

    namespace: str
    interface: str

    def __str__(self) -> str:
        return f"{self.namespace}:{self.interface}"


@functools.lru_cache(maxsize=4096)
def _interface(text: str) -> IPInterface:
    return ipaddress.ip_interface(text)


class Address(NamedTuple):
    """An address with its prefix length (``10.0.0.1/24``) on a link, compared with what the kernel reports.

    The prefix is that of the ``peer`` where there is one: the other end of a point-to-point link.
    """

    address: str
    scope: str = "global"
    label: str = ""
    nodad: bool = False
    noprefixroute: bool = False
    preferred_lft: str = "forever"
    peer: str = ""

    @property
    def ip(self) -> IPInterface:
        return _interface(self.address)

    @property
    def network(self) -> IPNetwork:
        """The prefix to which the kernel makes a route."""
        return _interface(f"{self.peer}/{self.ip.network.prefixlen}").network if self.peer else self.ip.network

    @property
    def family(self) -> int:
        return 6 if ":" in self.address else 4

    def __str__(self) -> str:
        words = [self.address]
        if self.peer:
            words.append(f"peer {self.peer}")
        if self.family == 4 and self.scope != "global":
            words.append(f"scope {self.scope}")
        if self.label:
            words.append(f"label {self.label}")
        if self.nodad:
            words.append("nodad")
        if self.noprefixroute:
            words.append("noprefixroute")
        if self.preferred_lft != "forever":
            words.append(f"preferred_lft {self.preferred_lft}")
        return " ".join(words)


class NextHop(NamedTuple):
    """One of the ways of a multipath route."""

    via: str = ""
    dev: str = ""
    weight: int = 1
    onlink: bool = False
    dead: bool = False

    def __str__(self) -> str:
        words = ["nexthop"]
        if self.via:
            words.append(f"via {self.via}")
        if self.dev:
            words.append(f"dev {self.dev}")
        if self.weight != 1:
            words.append(f"weight {self.weight}")
        if self.onlink:
            words.append("onlink")
        if self.dead:
            words.append("dead")
        return " ".join(words)


class RouteKey(NamedTuple):
    """What makes two routes one and the same for the kernel."""

    family: int
    table: int
    to: str
    metric: int
    tos: int

    def __str__(self) -> str:
        return f"{self.to} metric {self.metric} table {self.table}"


class Route(NamedTuple):
    """A route, in the words of ``ip route``. Empty words are absent ones; ``to`` is always a full prefix."""

    to: str
    type: str = "unicast"
    via: str = ""
    dev: str = ""
    src: str = ""
    metric: int = 0
    table: int = MAIN_TABLE
    scope: str = "global"
    onlink: bool = False
    mtu: int = 0
    nexthops: tuple[NextHop, ...] = ()
    tos: int = 0
    protocol: int = ROUTE_PROTOCOL

    @property
    def family(self) -> int:
        return 6 if ":" in self.to else 4

    @property
    def key(self) -> RouteKey:
        return RouteKey(self.family, self.table, self.to, self.metric, self.tos)

    @property
    def hops(self) -> tuple[NextHop, ...]:
        """The ways of the route, one for a route that is not multipath, none for a route that goes nowhere."""
        if self.nexthops:
            return self.nexthops
        if self.via or self.dev:
            return (NextHop(self.via, self.dev, onlink=self.onlink),)
        return ()

    def __str__(self) -> str:
        words = [] if self.type == "unicast" else [self.type]
        words.append("default" if self.to in ("0.0.0.0/0", "::/0") else self.to)
        if self.via:
            words.append(f"via {self.via}")
        if self.dev:
            words.append(f"dev {self.dev}")
        if self.src:
            words.append(f"src {self.src}")
        if self.metric and not (self.family == 6 and self.metric == DEFAULT_METRIC_V6):
            words.append(f"metric {self.metric}")
        if self.table != MAIN_TABLE:
            words.append(f"table {self.table}")
        if self.scope != self.default_scope:
            words.append(f"scope {self.scope}")
        if self.onlink:
            words.append("onlink")
        if self.mtu:
            words.append(f"mtu {self.mtu}")
        if self.tos:
            words.append(f"tos {self.tos}")
        words.extend(str(hop) for hop in self.nexthops)
        return " ".join(words)

    @property
    def default_scope(self) -> str:
        """The scope that ``ip route`` gives a route that names none."""
        return "link" if self.family == 4 and self.type == "unicast" and not (self.via or self.nexthops) else "global"


# --- what is ---------------------------------------------------------------------------------------------------------


class Vlan(NamedTuple):
    """A VLAN of a bridge port. ``pvid``: what comes in untagged is in it; ``untagged``: it goes out without a tag."""

    vid: int
    pvid: bool = False
    untagged: bool = False

    def __str__(self) -> str:
        return " ".join([str(self.vid), *(["pvid"] if self.pvid else []), *(["untagged"] if self.untagged else [])])


class Origin(NamedTuple):
    """Where a device that was moved into a namespace comes from: the lab that took it, and its name on the host."""

    lab: str
    name: str


@dataclass
class Link:
    """A link that is there. ``addresses`` are in the kernel's order, without those that the kernel made itself."""

    name: str
    index: int
    kind: str = ""
    mtu: int = DEFAULT_MTU
    mac: str = ""
    up: bool = False
    alias: str = ""
    #: A run that was killed has made it and not come to mark it; it goes to this lab, which is the one that looks.
    unfinished: str = ""
    addresses: list[Address] = field(default_factory=list)
    peer: Endpoint | None = None
    #: The settings of a bridge (BRIDGE_SETTINGS), in the kernel's units; empty for another link.
    bridge: dict[str, int] = field(default_factory=dict)
    #: The bridge that the link is a port of, and its settings as one (PORT_SETTINGS); empty for none.
    master: str = ""
    port: dict[str, int] = field(default_factory=dict)
    #: The VLANs of a port, or those that a bridge itself is in.
    vlans: tuple[Vlan, ...] = ()
    #: What it is a part of that is no bridge, such as a bond; and what it lies on, as a VLAN does.
    controller: str = ""
    lower: str = ""
    #: What it is, if it is of a kind that the collection makes besides veths and bridges; and the VRF that it is in.
    details: Kind | None = None
    vrf: str = ""
    #: What it does to what it sends; and a queueing discipline that somebody else has set and that is no such thing.
    impairment: Impairment | None = None
    other_qdisc: str = ""
    #: A bridge that was seen to have another MTU than its ports', or was given one: it follows them no more.
    own_mtu: bool = field(default=False, compare=False)
    #: The kernel-made addresses (link-local, 127.0.0.1, ::1), which are never planned.
    kernel_addresses: tuple[Address, ...] = ()
    #: More names that it has, of which some are marks (``device_mark``).
    altnames: tuple[str, ...] = ()
    #: The MAC address that the hardware came with, if it is hardware.
    permanent_mac: str = ""
    #: What the device is called that the link belongs to, on its bus; only where somebody asked.
    paths: frozenset[str] = frozenset()

    @property
    def lab(self) -> str:
        return lab_of(self.alias) or self.unfinished

    @property
    def origins(self) -> tuple[Origin, ...]:
        """Where it comes from, if it is a device that was moved or is about to be; one for each lab that says so."""
        return tuple(filter(None, map(origin_of, self.altnames)))

    def origin(self, lab: str) -> Origin | None:
        return next((origin for origin in self.origins if origin.lab == lab), None)

    @property
    def all_addresses(self) -> list[Address]:
        return [*self.addresses, *self.kernel_addresses]

    @property
    def domain(self) -> str:
        """The VRF whose addresses its own are, and which knows no other ones; empty outside of all VRFs."""
        return self.name if self.kind == "vrf" else self.vrf


@dataclass
class Namespace:
    """A namespace that is there, or that a plan has made. ``inode`` is 0 until the kernel has given one."""

    name: str
    inode: int = 0
    links: dict[str, Link] = field(default_factory=dict)
    routes: list[Route] = field(default_factory=list)
    #: The policy rules of both families, in the kernel's order within one family and priority.
    rules: list[Rule] = field(default_factory=list)
    #: The IP versions for which the kernel can have any.
    rule_families: frozenset[int] = frozenset((4, 6))
    #: Only the sysctls that were asked for; None: the key does not exist here.
    sysctls: dict[str, str | None] = field(default_factory=dict)
    #: Only its mark was looked at; links, routes and sysctls were not.
    glimpsed: bool = False
    alias: str = ""
    #: The lab's rules of translation by the backend that holds them, in ``in_order``, where they were looked at. An
    #: empty table is one without rules.
    nat: dict[str, tuple[NatRule, ...]] = field(default_factory=dict)
    #: The backends in which rules that are no lab's translate as well.
    others_nat: frozenset[str] = frozenset()
    #: The table ``nat`` of legacy iptables is there, with or without rules.
    legacy_nat: bool = False

    @property
    def lab(self) -> str:
        """The lab that the namespace belongs to, by the mark on its ``lo``; empty for none. The host is nobody's."""
        if self.name == HOST:
            return ""
        return self.links["lo"].lab if "lo" in self.links else lab_of(self.alias)


class Remembered(NamedTuple):
    """What a lab changed on something that is not its own, and what was there before (``None``: nothing).

    ``before`` equals ``after`` where another lab had made it so already.
    """

    #: address, route, rule, mtu, mac, up, impairment, master, sysctl; attached: the name of a namespace; port: the
    #: settings that go with a master; lost address, lost route: what a change took along, which ``after`` names;
    #: consequence: a sysctl that the kernel set along with one of the lab's, and that setting that one back does not
    #: restore; conf: the sysctls that a device has lost with IPv6, as ``before`` has them (IFLA_AF_SPEC); device: all
    #: that a device of the host had before it was moved to ``after``. It names no devices, as it is found again by its
    #: mark.
    kind: str
    namespace: str
    inode: int
    object: str
    before: str | None
    after: str | None
    #: The devices that it speaks of, the one that it is about first: their names then, and their indexes, which stay
    #: when they are renamed.
    devices: tuple[tuple[str, int], ...] = ()

    @property
    def ifindex(self) -> int:
        """The index of the device that it is about; 0 if it is about none."""
        return self.devices[0][1] if self.devices else 0

    @property
    def key(self) -> tuple[str, str, int, str, int]:
        """What is changed but once: a device that has got the name of another one is another thing.

        A route is the same one whatever its ways.
        """
        return (*self[:4], 0 if self.kind == "route" else self.ifindex)


#: What a namespace may have of its own as a machine: a host name, and files in the place of those in /etc.
HOSTNAME, RESOLV_CONF, HOSTS_FILE = "hostname", "resolv.conf", "hosts"
NODE_FILES = (RESOLV_CONF, HOSTS_FILE)


class NodeSetting(NamedTuple):
    """A host name, or the text of a file and the lab whose it is; empty for a file of others, and for a host name."""

    lab: str
    value: str


class Connection(NamedTuple):
    """The TCP connection by which a run came to the machine: the inode of its namespace, and its two ends."""

    inode: int
    local: str
    port: int
    remote: str


class Attach(NamedTuple):
    """A namespace that something else has made and that shall have a name: that of a process, or behind a path.

    ``replace_symlink``: a symlink of that name that somebody else has made gives way.
    """

    pid: int = 0
    path: str = ""
    replace_symlink: bool = False


class Attachment(NamedTuple):
    """What was found of such a namespace (``inode``: 0 if there is none, and ``problem`` says why), and of its name."""

    #: It, in words.
    what: str
    inode: int = 0
    problem: str = ""
    is_missing: bool = False
    #: What the name stands for now (0: for no namespace), and what kind of entry in /run/netns it is ("": none).
    current: int = 0
    kind: str = ""
    #: Where a symlink leads.
    target: str = ""
    #: The name was given to what it stands for by this collection.
    is_known: bool = False


@dataclass
class State:
    """What is on the machine, as far as it was looked at."""

    namespaces: dict[str, Namespace] = field(default_factory=dict)
    #: Names in /run/netns that stand for no namespace: left over from an interrupted ``ip netns add`` or a reboot.
    stale: frozenset[str] = frozenset()
    #: Names in /run/netns that something else has which is no namespace, and what it is, in words.
    obstacles: dict[str, str] = field(default_factory=dict)
    #: Names of namespaces that have another name as well, and that one. The host's own may have such, too.
    second_names: dict[str, str] = field(default_factory=dict)
    #: Host names and files by the name of a namespace, which need not be there.
    nodes: dict[str, dict[str, NodeSetting]] = field(default_factory=dict)
    #: What lies on links, by these: VLANs and the like (_kinds.py), in the order in which they were seen or made.
    uppers: dict[Endpoint, tuple[Endpoint, ...]] = field(default_factory=dict)
    #: Why no files can be put into /etc/netns/NAME, in words, by that name.
    node_obstacles: dict[str, str] = field(default_factory=dict)
    #: The services of all namespaces, whether or not these are there.
    services: dict[ServiceKey, Service] = field(default_factory=dict)
    #: Where nothing can be read of services, and why, in words.
    unreadable_services: dict[ServiceKey, str] = field(default_factory=dict)
    #: Why ``host`` can have no services, in words; empty if it can.
    no_host_services: str = ""
    #: What was found of the namespaces that shall be attached, by the name that they shall have.
    attachments: dict[str, Attachment] = field(default_factory=dict)
    #: Names that somebody else's namespaces have, by a symlink or since they were attached: it lives on without.
    borrowed: frozenset[str] = frozenset()
    #: The names of all namespaces, looked at or not, without second ones.
    names: frozenset[str] = frozenset()
    #: What the lab has changed on things that are not its own; and what each of the other labs has.
    remembered: tuple[Remembered, ...] = ()
    claims: dict[str, tuple[Remembered, ...]] = field(default_factory=dict)
    #: The connection by which this run came, if it came by one that a plan could cut.
    connection: Connection | None = None
    #: The processes in namespaces of others that are in the way, in words.
    users: dict[str, str] = field(default_factory=dict)
    #: The per-namespace sysctls that a new namespace has, of those that were asked for.
    new_namespace_sysctls: frozenset[str] = frozenset()
    #: The sysctls that the machine has at all, of those that were asked for; and such as stand beside a missing one.
    known_sysctls: frozenset[str] = frozenset()
    #: Those of them that a namespace other than the host's shows but does not let anyone set.
    fixed_sysctls: frozenset[str] = frozenset()
    #: The backends for rules of translation that the machine has.
    nat_backends: frozenset[str] = frozenset()
    #: What the administrator has to know of rules in legacy iptables on this machine; empty for nothing.
    iptables_note: str = ""

    def links(self) -> Iterator[tuple[Endpoint, Link]]:
        for namespace in self.namespaces.values():
            for link in namespace.links.values():
                yield Endpoint(namespace.name, link.name), link

    def link(self, end: Endpoint) -> Link | None:
        namespace = self.namespaces.get(end.namespace)
        return namespace.links.get(end.interface) if namespace else None


# --- what shall be ---------------------------------------------------------------------------------------------------


class WantedAddress(NamedTuple):
    value: Address
    path: str


class WantedRoute(NamedTuple):
    """A route that shall be. ``value.dev`` may be empty where ``via`` says enough: the planner finds the device."""

    value: Route
    path: str


class WantedRule(NamedTuple):
    """A policy rule that shall be; or one that shall not be, of which only the keys in ``said`` are said."""

    value: Rule
    path: str
    said: frozenset[str] = frozenset()


class WantedSysctl(NamedTuple):
    key: str
    value: str
    path: str


class WantedPort(NamedTuple):
    """A link that shall be a port of a bridge. What is not said stays as it is."""

    name: str
    path: str
    settings: dict[str, int]
    vlans: tuple[Vlan, ...] | None = None


@dataclass
class WantedBridge:
    """What makes a wanted link a bridge. ``create``: it is made if it is missing; otherwise it has to be there."""

    create: bool
    settings: dict[str, int] = field(default_factory=dict)
    ports: dict[str, WantedPort] = field(default_factory=dict)
    #: The VLANs that the bridge itself is in; None where nobody says.
    vlans: tuple[Vlan, ...] | None = None
    #: Ports that are not in ``ports`` leave the bridge.
    purge: bool = False
    #: A port of another bridge changes over instead of being refused.
    move: bool = False
    absent_ports: list[str] = field(default_factory=list)


class Device(NamedTuple):
    """A device of the host by one of: its name, its MAC address, what it is called on its bus.

    ``force``: it is taken although the host may need it.
    """

    name: str = ""
    mac: str = ""
    path: str = ""
    force: bool = False

    def __str__(self) -> str:
        return f"with the MAC address {self.mac}" if self.mac else f"at {self.path}" if self.path else repr(self.name)


class WantedImpairment(NamedTuple):
    """What a link shall do to what it sends, which may be nothing."""

    value: Impairment
    path: str


@dataclass
class WantedLink:
    """A link that shall be so. What is None is not said and stays as it is."""

    name: str
    path: str
    mtu: int | None = None
    mac: str | None = None
    up: bool | None = None
    addresses: list[WantedAddress] = field(default_factory=list)
    #: Addresses that are not in ``addresses`` go.
    purge: bool = False
    bridge: WantedBridge | None = None
    impairment: WantedImpairment | None = None
    #: It is this device of the host, which is moved here if it is not here yet.
    device: Device | None = None
    #: It is of this kind, and made if it is missing; and where that stands in the user's input.
    kind: Kind | None = None
    kind_path: str = ""
    #: The interfaces of a VRF, each with its place in the input; None if nothing is said of them.
    members: dict[str, str] | None = None
    #: Interfaces that are not in ``members`` leave it.
    purge_members: bool = False


class WantedNatRule(NamedTuple):
    """A rule of translation that shall be.

    ``hairpin``: the planner adds the one by which the target's neighbours reach it, too.
    """

    value: NatRule
    path: str
    hairpin: bool = False


@dataclass
class WantedNat:
    """The rules of translation that shall be in a namespace, of the kinds (snat, dnat) that are spoken of."""

    path: str
    kinds: tuple[str, ...]
    rules: list[WantedNatRule] = field(default_factory=list)
    absent_rules: list[WantedNatRule] = field(default_factory=list)
    #: Rules of the lab, of these kinds, that are not in ``rules`` go.
    purge: bool = False
    #: nftables, iptables, or auto: the one that holds the lab's rules already, or else what fits the host.
    backend: str = "auto"


class WantedService(NamedTuple):
    """A service that shall run. ``kept``: the variables of its environment whose values stay as they are."""

    name: str
    definition: Definition
    path: str
    kept: tuple[str, ...] = ()


@dataclass
class WantedNamespace:
    """What shall be in a namespace. ``create``: it is made if it is missing; otherwise it has to be there."""

    name: str
    path: str
    create: bool = False
    links: dict[str, WantedLink] = field(default_factory=dict)
    routes: list[WantedRoute] = field(default_factory=list)
    purge_routes: bool = False
    absent_routes: list[WantedRoute] = field(default_factory=list)
    rules: list[WantedRule] = field(default_factory=list)
    purge_rules: bool = False
    absent_rules: list[WantedRule] = field(default_factory=list)
    sysctls: dict[str, WantedSysctl] = field(default_factory=dict)
    nat: WantedNat | None = None
    #: Where the namespace comes from, if something else has made it and it only gets this name.
    attach: Attach | None = None
    #: The host name and the files that it shall have, each with its place in the document.
    node: dict[str, tuple[str, str]] = field(default_factory=dict)
    services: dict[str, WantedService] = field(default_factory=dict)
    #: Services that shall not be, each with its place in the input.
    absent_services: dict[str, str] = field(default_factory=dict)
    #: Services that are not in ``services`` go.
    purge_services: bool = False


class Wire(NamedTuple):
    """A veth that shall be, by its two ends."""

    ends: tuple[Endpoint, Endpoint]
    path: str


class Span(NamedTuple):
    """What a host of a lab of several hosts knows of the others.

    ``host``: its name, empty if the document does not have it; ``hosts``: all names that it has. ``address``: that by
    which the others send to this one, and ``mtu`` that of the network between them; the first is empty if the document
    has no links to others, or if nothing is to be said of it yet. ``found``: what was found in the document as a whole,
    as the code, the path and the text of each.
    """

    host: str
    hosts: tuple[str, ...]
    address: str = ""
    mtu: int = 0
    found: tuple[tuple[str, str, str], ...] = ()


@dataclass
class Wanted:
    """A whole demand on the machine. Every module's parameters end up as one of these."""

    lab: str = ""
    namespaces: dict[str, WantedNamespace] = field(default_factory=dict)
    wires: list[Wire] = field(default_factory=list)
    absent_namespaces: list[str] = field(default_factory=list)
    #: Veths that shall go, by one end or, where the user names it, by both.
    absent_veths: list[tuple[Endpoint, Endpoint | None]] = field(default_factory=list)
    absent_bridges: list[Endpoint] = field(default_factory=list)
    #: Devices that shall go home, by where they are; or links of a kind (_kinds.py) that shall go.
    absent_devices: list[Endpoint] = field(default_factory=list)
    #: Whatever carries the lab's mark and is not wanted goes.
    prune: bool = False
    #: Objects of the same name that carry another mark or none are taken over.
    adopt: bool = False
    #: Only these labs may stay on the machine; all others go. Nothing else is demanded then.
    valid_labs: frozenset[str] | None = None
    #: Labs that have gone in the same run by then; they need nothing to stay.
    gone: frozenset[str] = frozenset()
    #: All labs that go in the same run, before this one or after it.
    going: frozenset[str] = frozenset()
    #: What has to be proved with packets for the changes to be kept.
    probes: list[Any] = field(default_factory=list)
    #: The connection by which the run came may be cut: somebody has taken care of the way back.
    may_cut: bool = False
    #: What is hardly meant is refused instead of being told.
    strict: bool = False
    #: The demand is complete: what it leans on is in it or on the host, and no earlier task would have made it.
    whole: bool = False
    #: The part of a lab of several hosts.
    span: Span | None = None


# --- marks -----------------------------------------------------------------------------------------------------------

_MARK = "nslab:"

#: The lab of what a killed run has left without a mark, for one who asks for that alone. No lab has such a name.
NOBODY = "."


def mark(lab: str) -> str:
    """The link alias that marks an object of ``lab``; on a namespace's ``lo`` it marks the namespace."""
    return _MARK + lab if lab else ""


def lab_of(alias: str) -> str:
    """The lab in a link alias; empty if the alias is no mark of ours."""
    return alias[len(_MARK) :].split(" ", 1)[0] if alias.startswith(_MARK) else ""


def device_mark(lab: str, name: str) -> str:
    """The second name by which a moved device says whose it is and what it was called on the host.

    No interface has such a name by accident: its own never has a colon. It moves along with the device.
    """
    return f"{_MARK}{lab}:{name}"


def origin_of(altname: str) -> Origin | None:
    """What a second name says, if it is such a mark."""
    parts = altname.split(":")
    return Origin(parts[1], parts[2]) if len(parts) == 3 and parts[0] + ":" == _MARK and parts[2] else None
