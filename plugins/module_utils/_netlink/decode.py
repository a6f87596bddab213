# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a namespace has, read from rtnetlink dumps.

Only the fields that the collection speaks of are decoded, by hand: pyroute2 decodes every field of every message, at
ten times the cost, and that cost is what an audit of a thousand namespaces consists of.
Field layouts: include/uapi/linux/{if_link,if_addr,rtnetlink,neighbour,net_namespace}.h.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import errno
import functools
import ipaddress
import os
import re
import socket
import struct
import sys
from typing import Any, NamedTuple

from .._errors import KernelError
from .._kinds import Kind
from .._model import DEFAULT_METRIC_V6, LOCAL_TABLE, Address, NextHop, Route, Vlan
from . import kinds
from .session import Session, attributes

RTM_NEWLINK, RTM_GETLINK = 16, 18
_RTM_GETADDR = 22
_RTM_NEWROUTE, _RTM_GETROUTE = 24, 26
_RTM_GETNEIGH = 30
_RTM_GETNSID = 90

_IFINFO = struct.Struct("=BxHiII")
#: struct ndmsg: family, padding, ifindex, state, flags, type.
_NDMSG = struct.Struct("=BxxxiHBB")
_RTM_GETNEIGH, _NDA_DST, _NDA_LLADDR, _NDA_IFINDEX = 30, 1, 2, 8
_IFADDR = struct.Struct("=BBBBI")
_RTMSG = struct.Struct("=BBBBBBBBI")
_RTNEXTHOP = struct.Struct("=HBBi")
_NDMSG = struct.Struct("=BxxxiHBB")
_VLAN_INFO = struct.Struct("=HH")
_U32 = struct.Struct("=I")
_S32 = struct.Struct("=i")
_U16 = struct.Struct("=H")

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER = 1, 3, 4, 5, 10
_IFLA_OPERSTATE, _IFLA_LINKINFO, _IFLA_IFALIAS, _IFLA_GROUP = 16, 18, 20, 27
_IFLA_EXT_MASK, _IFLA_LINK_NETNSID = 29, 37
_IFLA_PROP_LIST, _IFLA_ALT_IFNAME, _IFLA_PERM_ADDRESS = 52, 53, 54
_IFLA_PARENT_DEV_NAME, _IFLA_PARENT_DEV_BUS_NAME = 56, 57
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _IFLA_INFO_SLAVE_KIND, _IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
#: IFLA_BR_* and IFLA_BRPORT_*: the settings that the collection speaks of, by attribute.
BRIDGE_ATTRIBUTES = {
    "forward_delay": 1,
    "ageing_time": 4,
    "stp": 5,
    "vlan_filtering": 7,
    "group_fwd_mask": 9,
    "multicast_snooping": 23,
    "vlan_default_pvid": 39,
}
PORT_ATTRIBUTES = {
    "priority": 2,
    "cost": 3,
    "hairpin": 4,
    "guard": 5,
    "learning": 8,
    "flood": 9,
    "mcast_flood": 27,
    "neigh_suppress": 32,
    "isolated": 33,
}
_IFLA_BR_ROOT_ID, _IFLA_BR_BRIDGE_ID, _IFLA_BR_TOPOLOGY_CHANGE = 10, 11, 14
_BRIDGE_NAMES = {attribute: name for name, attribute in BRIDGE_ATTRIBUTES.items()}
_PORT_NAMES = {attribute: name for name, attribute in PORT_ATTRIBUTES.items()}
_IFLA_AF_SPEC, _IFLA_BRIDGE_VLAN_INFO = 26, 2
_BRIDGE_VLAN_INFO_PVID, _BRIDGE_VLAN_INFO_UNTAGGED = 2, 4
_RTEXT_FILTER_BRVLAN = 2
_RTEXT_FILTER_SKIP_STATS = 8

_IFF_FLAGS = (
    (0x1, "UP"),
    (0x2, "BROADCAST"),
    (0x8, "LOOPBACK"),
    (0x10, "POINTOPOINT"),
    (0x80, "NOARP"),
    (0x100, "PROMISC"),
    (0x200, "ALLMULTI"),
    (0x400, "MASTER"),
    (0x800, "SLAVE"),
    (0x1000, "MULTICAST"),
    (0x10000, "LOWER_UP"),
    (0x20000, "DORMANT"),
)
IFF_UP = 0x1
_OPERSTATES = ("unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up")

_IFA_ADDRESS, _IFA_LOCAL, _IFA_LABEL, _IFA_CACHEINFO, _IFA_FLAGS, _IFA_PROTO = 1, 2, 3, 6, 8, 11
_IFA_FLAG_WORDS = (
    (0x01, "secondary"),
    (0x02, "nodad"),
    (0x08, "dadfailed"),
    (0x20, "deprecated"),
    (0x40, "tentative"),
    (0x80, "permanent"),
    (0x100, "mngtmpaddr"),
    (0x200, "noprefixroute"),
)
_IFA_F_NODAD, _IFA_F_DEPRECATED, _IFA_F_PERMANENT, _IFA_F_NOPREFIXROUTE = 0x02, 0x20, 0x80, 0x200
_IFA_F_SECONDARY_OR_TEMPORARY = 0x01
_FOREVER = 0xFFFFFFFF
SCOPES = {0: "global", 200: "site", 253: "link", 254: "host", 255: "nowhere"}

_RTA_DST, _RTA_SRC, _RTA_IIF, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC = 1, 2, 3, 4, 5, 6, 7
_RTA_METRICS, _RTA_MULTIPATH, _RTA_TABLE, _RTA_VIA = 8, 9, 15, 18
_RTAX_MTU = 2
_RTNH_F_DEAD, _RTNH_F_ONLINK = 1, 4
_RTM_F_CLONED = 0x200
ROUTE_TYPES = {
    1: "unicast",
    2: "local",
    3: "broadcast",
    4: "anycast",
    5: "multicast",
    6: "blackhole",
    7: "unreachable",
    8: "prohibit",
    9: "throw",
    10: "nat",
}
ROUTE_PROTOCOLS = {0: "unspec", 1: "redirect", 2: "kernel", 3: "boot", 4: "static", 9: "ra", 16: "dhcp"}
#: Route types that carry no device in the model. For IPv6 the kernel reports ``lo`` with them.
NO_DEVICE_TYPES = frozenset(("blackhole", "unreachable", "prohibit", "throw"))


class RawLink(NamedTuple):
    """A link as the kernel reports it in one namespace."""

    ifindex: int
    name: str
    kind: str
    mtu: int
    mac: str
    flags: int
    operstate: str
    alias: str
    master: int
    lower: int
    #: The id of the namespace that ``lower`` is an index in; None: this namespace.
    lower_nsid: int | None
    group: int
    #: The settings of a bridge, and those of a port of one.
    bridge: dict[str, int]
    port: dict[str, int]
    #: What it says of the address families, raw; conf.py finds the link's sysctls in it.
    af_spec: bytes
    altnames: tuple[str, ...] = ()
    permanent_mac: str = ""
    #: The device that it belongs to, as its bus and its name there; empty for none, and before Linux 5.14.
    parent: tuple[str, str] = ("", "")
    #: What it is, if it is of a kind that the collection makes; what it lies on is ``lower``.
    details: Kind | None = None
    #: The kind of what it is a part of, as that kind calls it (IFLA_INFO_SLAVE_KIND).
    part_of: str = ""

    @property
    def up(self) -> bool:
        return bool(self.flags & IFF_UP)

    @property
    def flag_words(self) -> list[str]:
        return [word for bit, word in _IFF_FLAGS if self.flags & bit]


class RawAddress(NamedTuple):
    """An address as the kernel reports it. ``kernel``: the kernel made it itself."""

    ifindex: int
    value: Address
    kernel: bool
    flag_words: list[str]


def links(session: Session) -> list[RawLink]:
    payload = _IFINFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + _u32_attribute(_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS)
    return [_link(body) for body in session.dump(RTM_GETLINK, payload)]


def link(session: Session, index: int = 0, name: str = "") -> RawLink | None:
    """One link by its index or its name; None if there is none. Raises KernelError for anything else."""
    payload = _IFINFO.pack(socket.AF_UNSPEC, 0, index, 0, 0)
    if name:
        value = name.encode() + b"\0"
        payload += struct.pack("=HH", 4 + len(value), _IFLA_IFNAME) + value + b"\0" * (-len(value) % 4)
    try:
        return _link(session.get(RTM_GETLINK, payload)[1])
    except KernelError as error:
        if error.number == errno.ENODEV:
            return None
        raise


def _link(body: bytes) -> RawLink:  # noqa: C901, PLR0915 - one branch for each attribute
    _family, _type, index, flags, _change = _IFINFO.unpack_from(body)
    name = kind = mac = alias = ""
    operstate = "unknown"
    mtu = master = lower = group = named = 0
    lower_nsid: int | None = None
    bridge: dict[str, int] = {}
    port: dict[str, int] = {}
    af_spec = b""
    altnames: tuple[str, ...] = ()
    permanent_mac = parent = bus = part_of = ""
    details: Kind | None = None
    for attribute, value in attributes(body, _IFINFO.size):
        if attribute == _IFLA_IFNAME:
            name = _text(value)
        elif attribute == _IFLA_MTU:
            mtu = _U32.unpack(value)[0]
        elif attribute == _IFLA_ADDRESS:
            mac = value.hex(":")
        elif attribute == _IFLA_LINK:
            lower = _U32.unpack(value)[0]
        elif attribute == _IFLA_LINK_NETNSID:
            lower_nsid = _S32.unpack(value)[0]
        elif attribute == _IFLA_MASTER:
            master = _U32.unpack(value)[0]
        elif attribute == _IFLA_IFALIAS:
            alias = _text(value)
        elif attribute == _IFLA_GROUP:
            group = _U32.unpack(value)[0]
        elif attribute == _IFLA_AF_SPEC:
            af_spec = value
        elif attribute == _IFLA_PROP_LIST:
            altnames = tuple(_text(item) for kind_, item in attributes(value) if kind_ == _IFLA_ALT_IFNAME)
        elif attribute == _IFLA_PERM_ADDRESS:
            permanent_mac = value.hex(":")
        elif attribute == _IFLA_PARENT_DEV_NAME:
            parent = _text(value)
        elif attribute == _IFLA_PARENT_DEV_BUS_NAME:
            bus = _text(value)
        elif attribute == _IFLA_OPERSTATE and value[0] < len(_OPERSTATES):
            operstate = _OPERSTATES[value[0]]
        elif attribute == _IFLA_LINKINFO:
            info = dict(attributes(value))
            kind = _text(info.get(_IFLA_INFO_KIND, b""))
            if kind == "bridge":
                bridge = _bridge(info.get(_IFLA_INFO_DATA, b""))
            details, named = kinds.read(kind, info.get(_IFLA_INFO_DATA, b""))
            part_of = _text(info.get(_IFLA_INFO_SLAVE_KIND, b""))
            if part_of == "bridge":
                port = _named_numbers(info.get(_IFLA_INFO_SLAVE_DATA, b""), _PORT_NAMES)
    if not kind and flags & 0x8:
        kind = "loopback"
    if kind == "vxlan":
        # Of one that lies on no link the kernel says its own index (dev_get_iflink()).
        lower = named
    return RawLink(
        index, name, kind, mtu, mac, flags, operstate, alias, master, lower, lower_nsid, group, bridge, port,
        af_spec, altnames, permanent_mac, (bus, parent), details, part_of,
    )  # fmt: skip


def _bridge(data: bytes) -> dict[str, int]:
    found = _named_numbers(data, _BRIDGE_NAMES)
    # While the spanning tree minds a change, ageing_time is another one than what was set (__br_set_topology_change()).
    values = dict(attributes(data))
    if found.get("stp") and any(values.get(_IFLA_BR_TOPOLOGY_CHANGE, b"")):
        found.pop("ageing_time", None)
    # A bridge that is not the root takes the root's delay (br_record_config_timeout_values()), and shows that one.
    if values.get(_IFLA_BR_ROOT_ID) != values.get(_IFLA_BR_BRIDGE_ID):
        found.pop("forward_delay", None)
    return found


def _named_numbers(data: bytes, names: dict[int, str]) -> dict[str, int]:
    return {names[kind]: int.from_bytes(value, sys.byteorder) for kind, value in attributes(data) if kind in names}


def port_vlans(session: Session) -> dict[int, tuple[Vlan, ...]]:
    """The VLANs of all bridge ports by interface index; empty where the kernel's bridges know none."""
    payload = _IFINFO.pack(socket.AF_BRIDGE, 0, 0, 0, 0) + _u32_attribute(_IFLA_EXT_MASK, _RTEXT_FILTER_BRVLAN)
    found = {}
    for body in session.dump(RTM_GETLINK, payload):
        for attribute, value in attributes(body, _IFINFO.size):
            if attribute == _IFLA_AF_SPEC:
                pairs = [_VLAN_INFO.unpack(item) for kind, item in attributes(value) if kind == _IFLA_BRIDGE_VLAN_INFO]
                found[_IFINFO.unpack_from(body)[2]] = tuple(
                    Vlan(vid, bool(flags & _BRIDGE_VLAN_INFO_PVID), bool(flags & _BRIDGE_VLAN_INFO_UNTAGGED))
                    for flags, vid in pairs
                )
    return found


def flood_targets(session: Session, index: int) -> list[str]:
    """To which addresses a VXLAN sends what it knows no better one for: those of its entries for the MAC address 0."""
    found = []
    payload = _NDMSG.pack(socket.AF_BRIDGE, 0, 0, 0, 0) + _u32_attribute(_NDA_IFINDEX, index)
    for body in session.dump(_RTM_GETNEIGH, payload):
        _family, its_index, _state, _flags, _type = _NDMSG.unpack_from(body)
        values = dict(attributes(body, _NDMSG.size))
        if its_index == index and _NDA_DST in values and not any(values.get(_NDA_LLADDR, b"\1")):
            found.append(str(ipaddress.ip_address(values[_NDA_DST])))
    return found


def addresses(session: Session) -> list[RawAddress]:
    """All IPv4 and IPv6 addresses, in the kernel's order."""
    bodies = session.dump(_RTM_GETADDR, _IFADDR.pack(socket.AF_UNSPEC, 0, 0, 0, 0))
    return [_address(body) for body in bodies if body[0] in (socket.AF_INET, socket.AF_INET6)]


def _address(body: bytes) -> RawAddress:
    family, prefix_length, flags, scope, index = _IFADDR.unpack_from(body)
    address = local = b""
    label = ""
    protocol = 0
    preferred = _FOREVER
    for attribute, value in attributes(body, _IFADDR.size):
        if attribute == _IFA_ADDRESS:
            address = value
        elif attribute == _IFA_LOCAL:
            local = value
        elif attribute == _IFA_LABEL:
            label = _text(value)
        elif attribute == _IFA_FLAGS:
            flags = _U32.unpack(value)[0]
        elif attribute == _IFA_CACHEINFO:
            preferred = _U32.unpack_from(value)[0]
        elif attribute == _IFA_PROTO:
            protocol = value[0]
    if family == socket.AF_INET and flags & _IFA_F_DEPRECATED:
        # IPv4 shows it by the flag alone; the lifetimes of a permanent address are reported as endless.
        preferred = 0
    text = f"{socket.inet_ntop(family, local or address)}/{prefix_length}"
    words = [word for bit, word in _IFA_FLAG_WORDS if flags & bit]
    value_ = Address(
        text,
        scope=SCOPES.get(scope, str(scope)),
        label=label,
        # IPv4 has no duplicate address detection, and the bit means nothing there.
        nodad=family == socket.AF_INET6 and bool(flags & _IFA_F_NODAD),
        noprefixroute=bool(flags & _IFA_F_NOPREFIXROUTE),
        preferred_lft="forever" if preferred == _FOREVER else str(preferred),
        peer=socket.inet_ntop(family, address) if local and address and local != address else "",
    )
    if family == socket.AF_INET6:
        # Router advertisements and privacy extensions make addresses that are not permanent or are temporary.
        # From 5.18 on the kernel names the maker (IFA_PROTO); before, a permanent link-local /64 is taken for its own.
        made = not flags & _IFA_F_PERMANENT and preferred not in (0, _FOREVER)
        made = made or bool(flags & _IFA_F_SECONDARY_OR_TEMPORARY) or protocol in (1, 2, 3)
        kernel = made or text == "::1/128" or (_is_link_local(local or address) and not _names_maker())
    else:
        kernel = text == "127.0.0.1/8" and protocol in (0, 1)
    return RawAddress(index, value_, kernel, words)


@functools.cache
def _names_maker() -> bool:
    """True if this kernel reports IFA_PROTO for the addresses that it makes (from 5.18 on)."""
    major, minor = re.match(r"(\d+)\.(\d+)", os.uname().release).groups()  # type: ignore[union-attr]
    return (int(major), int(minor)) >= (5, 18)


def _is_link_local(packed: bytes) -> bool:
    return packed[0] == 0xFE and packed[1] & 0xC0 == 0x80


def routes(session: Session, names: dict[int, str], kernel: bool = False) -> list[Route]:
    """The routes of all tables and both families.

    Without ``kernel`` those are left out that the kernel, a router advertisement's redirect or a cache made.
    ``names`` gives the interface names by index. Raises KernelError.
    """
    found = []
    for family in (socket.AF_INET, socket.AF_INET6):
        payload = _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
        try:
            bodies = session.dump(_RTM_GETROUTE, payload)
        except KernelError as error:
            # A kernel without IPv6, or without a table yet, has nothing to dump.
            if error.number in (errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.ENOENT):
                continue
            raise
        for body in bodies:
            # rtm_family, dst_len, src_len, tos, table, protocol, scope, type, flags
            if body[0] != family or _U32.unpack_from(body, 8)[0] & _RTM_F_CLONED:
                continue
            # A route that is for packets of some sources only (body[2]: src_len) is none of the collection's.
            if not kernel and (body[5] in (1, 2) or body[4] == LOCAL_TABLE or body[2]):
                continue
            found.append(_route(body, names))
    return found


def _route(body: bytes, names: dict[int, str]) -> Route:  # noqa: C901 - one branch for each attribute
    family, prefix_length, _src_len, tos, table, protocol, scope, kind, flags = _RTMSG.unpack_from(body)
    to = "0.0.0.0" if family == socket.AF_INET else "::"  # noqa: S104 - the destination of a default route
    via = dev = src = ""
    metric = mtu = 0
    hops: tuple[NextHop, ...] = ()
    for attribute, value in attributes(body, _RTMSG.size):
        if attribute == _RTA_DST:
            to = socket.inet_ntop(family, value)
        elif attribute == _RTA_GATEWAY:
            via = socket.inet_ntop(family, value)
        elif attribute == _RTA_VIA:
            via = _via(value)
        elif attribute == _RTA_OIF:
            dev = _device(value, names)
        elif attribute == _RTA_PRIORITY:
            metric = _U32.unpack(value)[0]
        elif attribute == _RTA_PREFSRC:
            src = socket.inet_ntop(family, value)
        elif attribute == _RTA_TABLE:
            table = _U32.unpack(value)[0]
        elif attribute == _RTA_METRICS:
            for metric_kind, metric_value in attributes(value):
                if metric_kind == _RTAX_MTU:
                    mtu = _U32.unpack(metric_value)[0]
        elif attribute == _RTA_MULTIPATH:
            hops = _nexthops(value, family, names)
    type_ = ROUTE_TYPES.get(kind, str(kind))
    if type_ in NO_DEVICE_TYPES:
        dev = ""
    if len(hops) == 1:
        # IPv4 reports a route through a nexthop object, and IPv6 some single ways, as a multipath of one.
        via, dev, flags = hops[0].via, hops[0].dev, _RTNH_F_ONLINK if hops[0].onlink else 0
        hops = ()
    return Route(
        to=f"{to}/{prefix_length}",
        type=type_,
        via=via,
        dev=dev,
        src=src,
        metric=metric,
        table=table,
        scope="global" if family == socket.AF_INET6 else SCOPES.get(scope, str(scope)),
        onlink=bool(flags & _RTNH_F_ONLINK),
        mtu=mtu,
        nexthops=hops,
        tos=tos,
        protocol=protocol,
    )


def _nexthops(data: bytes, family: int, names: dict[int, str]) -> tuple[NextHop, ...]:
    hops = []
    offset = 0
    while offset + _RTNEXTHOP.size <= len(data):
        length, flags, weight, index = _RTNEXTHOP.unpack_from(data, offset)
        via = ""
        for attribute, value in attributes(data[offset : offset + length], _RTNEXTHOP.size):
            if attribute == _RTA_GATEWAY:
                via = socket.inet_ntop(family, value)
            elif attribute == _RTA_VIA:
                via = _via(value)
        dev = names.get(index, f"#{index}")
        onlink, dead = bool(flags & _RTNH_F_ONLINK), bool(flags & _RTNH_F_DEAD)
        hops.append(NextHop(via, dev, weight + 1, onlink, dead))
        offset += (length + 3) & ~3
    return tuple(hops)


def _via(value: bytes) -> str:
    """A gateway of another family than the route's (struct rtvia)."""
    return socket.inet_ntop(_U16.unpack_from(value)[0], value[2:])


def _device(value: bytes, names: dict[int, str]) -> str:
    index = _U32.unpack(value)[0]
    return names.get(index, f"#{index}")


def route_lookup(session: Session, destination: str, names: dict[int, str]) -> Route:
    """What the kernel's route lookup says for ``destination``. Raises KernelError as connect() would fail."""
    address, _percent, zone = destination.partition("%")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    packed = socket.inet_pton(family, address)
    payload = _RTMSG.pack(family, len(packed) * 8, 0, 0, 0, 0, 0, 0, 0)
    payload += struct.pack("=HH", 4 + len(packed), _RTA_DST) + packed
    for index, name in names.items():
        if zone and name == zone:
            payload += _u32_attribute(_RTA_OIF, index)
    body = session.get(_RTM_GETROUTE, payload)[1]
    # The answer may name a table of 0 (RTM_F_LOOKUP_TABLE was not asked for); it is the route that counts.
    return _route(body, names)


def nsid(session: Session, namespace_fd: int) -> int:
    """The id by which the session's namespace knows the other one; -1 if it has none."""
    # include/uapi/linux/net_namespace.h: NETNSA_NSID 1, NETNSA_PID 2, NETNSA_FD 3
    body = session.get(_RTM_GETNSID, b"\0\0\0\0" + _u32_attribute(3, namespace_fd))[1]
    for attribute, value in attributes(body, 4):
        if attribute == 1:
            return int(_S32.unpack(value)[0])
    return -1


def nsid_lives(session: Session, identifier: int) -> bool:
    """True while the namespace with this id (from ``nsid``) has not begun to be torn down."""
    try:
        session.get(_RTM_GETNSID, b"\0\0\0\0" + struct.pack("=HHi", 8, 1, identifier))
    except KernelError:
        return False
    return True


_NUD_STATES = (
    (0x01, "incomplete"),
    (0x02, "reachable"),
    (0x04, "stale"),
    (0x08, "delay"),
    (0x10, "probe"),
    (0x20, "failed"),
    (0x40, "noarp"),
    (0x80, "permanent"),
)


def neighbours(session: Session, names: dict[int, str]) -> list[dict[str, Any]]:
    """The IPv4 and IPv6 neighbours, without the multicast and loopback ones that need no resolution."""
    found = []
    for body in session.dump(_RTM_GETNEIGH, _NDMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
        family, index, state, _flags, _type = _NDMSG.unpack_from(body)
        if family not in (socket.AF_INET, socket.AF_INET6) or state & 0x40:
            continue
        entry: dict[str, Any] = {"dev": names.get(index, f"#{index}"), "mac": None}
        entry["state"] = next((word for bit, word in _NUD_STATES if state & bit), "none")
        for attribute, value in attributes(body, _NDMSG.size):
            if attribute == 1:  # NDA_DST
                entry["address"] = socket.inet_ntop(family, value)
            elif attribute == 2:  # NDA_LLADDR
                entry["mac"] = value.hex(":")
        found.append(entry)
    return found


def _u32_attribute(kind: int, value: int) -> bytes:
    return struct.pack("=HHI", 8, kind, value)


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode("utf-8", "surrogateescape")


def normal_metric(family: int, metric: int) -> int:
    """The metric that the kernel stores: it has a default of its own for IPv6."""
    return metric or (DEFAULT_METRIC_V6 if family == 6 else 0)
