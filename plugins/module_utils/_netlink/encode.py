# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What shall change in a namespace, as rtnetlink requests.

A large lab is made of links, addresses and plain routes by the thousand. Their messages are packed by hand, as
decode.py reads them: pyroute2 takes ten times as long for each. Settings of bridges and ports, and routes with more to
them, are encoded by pyroute2's message classes. It is imported with the first of those: a run without one does without
its 300 ms.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Sequence
from typing import Any

from .._kinds import Kind
from .._model import Address, NextHop, Route, Vlan
from . import kinds
from .decode import IFF_UP, ROUTE_TYPES, SCOPES
from .session import Session

# include/uapi/linux/rtnetlink.h, include/uapi/linux/netlink.h
_RTM_NEWLINK, _RTM_DELLINK, _RTM_SETLINK = 16, 17, 19
_RTM_NEWADDR, _RTM_DELADDR = 20, 21
_RTM_NEWROUTE, _RTM_DELROUTE = 24, 25
_RTM_NEWLINKPROP, _RTM_DELLINKPROP = 108, 109
_NLM_F_REPLACE, _NLM_F_EXCL, _NLM_F_CREATE, _NLM_F_APPEND = 0x100, 0x200, 0x400, 0x800
_IFA_F_NODAD, _IFA_F_NOPREFIXROUTE = 0x02, 0x200
_RTNH_F_ONLINK = 4
_FOREVER = 0xFFFFFFFF

_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBI")
_RTMSG = struct.Struct("=BBBBBBBBI")
_CACHEINFO = struct.Struct("=IIII")
_U32 = struct.Struct("=I")
_HEADER = struct.Struct("=HH")
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 4, 5, 10, 18
_IFLA_IFALIAS, _IFLA_GROUP, _IFLA_NET_NS_FD = 20, 27, 28
_IFLA_PROP_LIST, _IFLA_ALT_IFNAME, _NLA_F_NESTED = 52, 53, 0x8000
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_LABEL, _IFA_CACHEINFO, _IFA_FLAGS = 1, 2, 3, 6, 8
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC, _RTA_TABLE = 1, 4, 5, 6, 7, 15

_SCOPE_NUMBERS = {word: number for number, word in SCOPES.items()}
_TYPE_NUMBERS = {word: number for number, word in ROUTE_TYPES.items()}


def _message(name: str, fields: dict[str, Any], attributes: Sequence[Sequence[Any]]) -> bytes:
    """The body of a message of pyroute2's class ``name``, without its netlink header."""
    module = __import__(f"pyroute2.netlink.rtnl.{name}", fromlist=[name])
    message = getattr(module, name)()
    for field, value in fields.items():
        message[field] = value
    message["attrs"] = [list(attribute) for attribute in attributes]
    message.encode()
    return bytes(message.data[16:])


def _attribute(kind: int, value: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(value), kind) + value + b"\0" * (-len(value) % 4)


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, _U32.pack(value))


def _string(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _link(index: int, *attributes: bytes, flags: int = 0, change: int = 0) -> bytes:
    return _IFINFO.pack(socket.AF_UNSPEC, 0, index, flags, change) + b"".join(attributes)


def add_veth(
    session: Session,
    name: str,
    peer_name: str,
    peer_namespace_fd: int,
    settings: Sequence[tuple[int, str, int]] = ((0, "", 0), (0, "", 0)),
    group: int = 0,
) -> None:
    """Make a veth whose one end is in the session's namespace and the other in the one of ``peer_namespace_fd``.

    ``settings`` are (MTU, MAC, interface index) of the two ends; 0 and "" leave the choice to the kernel. Both are
    born in the link group ``group``.
    """

    def end(end_name: str, setting: tuple[int, str, int], *more: bytes) -> bytes:
        mtu, mac, index = setting
        attributes = [_string(_IFLA_IFNAME, end_name)]
        if mtu:
            attributes.append(_number(_IFLA_MTU, mtu))
        if mac:
            attributes.append(_attribute(_IFLA_ADDRESS, bytes.fromhex(mac.replace(":", ""))))
        if group:
            attributes.append(_number(_IFLA_GROUP, group))
        return _link(index, *attributes, *more)

    peer = end(peer_name, settings[1], _number(_IFLA_NET_NS_FD, peer_namespace_fd))
    data = _attribute(_IFLA_INFO_DATA, _attribute(_VETH_INFO_PEER, peer))
    info = _attribute(_IFLA_LINKINFO, _string(_IFLA_INFO_KIND, "veth") + data)
    session.request(_RTM_NEWLINK, _NLM_F_CREATE | _NLM_F_EXCL, end(name, settings[0], info))


def add_bridge(
    session: Session, name: str, settings: dict[str, int], mac: str = "", index: int = 0, group: int = 0
) -> None:
    attributes: list[list[Any]] = [["IFLA_IFNAME", name], *([["IFLA_ADDRESS", mac]] if mac else [])]
    if group:
        attributes.append(["IFLA_GROUP", group])
    body = _message("ifinfmsg", {"index": index}, [*attributes, ["IFLA_LINKINFO", _bridge_info(settings)]])
    session.request(_RTM_NEWLINK, _NLM_F_CREATE | _NLM_F_EXCL, body)


def add_link(
    session: Session,
    name: str,
    kind: Kind,
    lower: int,
    namespace_fd: int,
    settings: tuple[int, str, int] = (0, "", 0),
    group: int = 0,
) -> None:
    """Make a link of a kind in the namespace of ``namespace_fd``, on the one with the index ``lower`` (0: on none).

    That one, or what the packets of a VXLAN go through, is in the session's namespace. ``settings`` as of a veth's end.
    """
    mtu, mac, index = settings
    attributes = [_string(_IFLA_IFNAME, name), _number(_IFLA_NET_NS_FD, namespace_fd)]
    if lower and kind.name != "vxlan":
        attributes.append(_number(_IFLA_LINK, lower))
    if mtu:
        attributes.append(_number(_IFLA_MTU, mtu))
    if mac:
        attributes.append(_attribute(_IFLA_ADDRESS, bytes.fromhex(mac.replace(":", ""))))
    if group:
        attributes.append(_number(_IFLA_GROUP, group))
    data = kinds.write(kind, lower)
    info = _string(_IFLA_INFO_KIND, kind.name) + (_attribute(_IFLA_INFO_DATA, data) if data else b"")
    attributes.append(_attribute(_IFLA_LINKINFO, info))
    session.request(_RTM_NEWLINK, _NLM_F_CREATE | _NLM_F_EXCL, _link(index, *attributes))


def set_bridge(session: Session, index: int, settings: dict[str, int]) -> None:
    if settings.get("stp") == 0 and len(settings) > 1:
        # br_changelink() takes forward_delay before stp, and with the spanning tree on not every value.
        set_bridge(session, index, {"stp": 0})
        settings = {name: value for name, value in settings.items() if name != "stp"}
    body = _message("ifinfmsg", {"index": index}, [["IFLA_LINKINFO", _bridge_info(settings)]])
    session.request(_RTM_NEWLINK, 0, body)


def _bridge_info(settings: dict[str, int]) -> dict[str, Any]:
    names = {"stp": "STP_STATE", "multicast_snooping": "MCAST_SNOOPING"}
    data = [[f"IFLA_BR_{names.get(name, name.upper())}", value] for name, value in settings.items()]
    return {"attrs": [["IFLA_INFO_KIND", "bridge"], ["IFLA_INFO_DATA", {"attrs": data}]]}


def set_master(session: Session, index: int, master: int) -> None:
    """Make a link a port of the bridge with an index; 0: of none."""
    session.request(_RTM_SETLINK, 0, _link(index, _number(_IFLA_MASTER, master)))


def set_port(session: Session, index: int, settings: dict[str, int]) -> None:
    names = {"hairpin": "MODE", "flood": "UNICAST_FLOOD"}
    data = [[f"IFLA_BRPORT_{names.get(name, name.upper())}", value] for name, value in settings.items()]
    info = {"attrs": [["IFLA_INFO_SLAVE_KIND", "bridge"], ["IFLA_INFO_SLAVE_DATA", {"attrs": data}]]}
    session.request(_RTM_NEWLINK, 0, _message("ifinfmsg", {"index": index}, [["IFLA_LINKINFO", info]]))


def set_vlans(
    session: Session, index: int, remove: Sequence[Vlan], add: Sequence[Vlan], of_bridge: bool = False
) -> None:
    """Change the VLANs of a port, or of a bridge itself."""
    # pyroute2's class for AF_BRIDGE differs between releases; this is `bridge vlan`'s message, of a few numbers.
    # The flag that says that it is about the bridge itself (BRIDGE_FLAGS_SELF).
    own = struct.pack("=HHHxx", 6, 0, 2) if of_bridge else b""
    for message, vlans in ((_RTM_DELLINK, remove), (_RTM_SETLINK, add)):
        for vlan in vlans:
            flags = (2 if vlan.pvid else 0) | (4 if vlan.untagged else 0)
            info = struct.pack("=HHHH", 8, 2, flags, vlan.vid)
            said = struct.pack("=HH", 4 + len(own) + len(info), 26) + own + info
            body = struct.pack("=BxHiII", socket.AF_BRIDGE, 0, index, 0, 0) + said
            session.request(message, 0, body)


def remove_link(session: Session, index: int) -> None:
    session.request(_RTM_DELLINK, 0, _link(index))


def remove_group(session: Session, group: int) -> None:
    """Remove all links of a group at once."""
    session.request(_RTM_DELLINK, 0, _link(0, _number(_IFLA_GROUP, group)))


def set_link(
    session: Session,
    index: int,
    up: bool | None = None,
    mtu: int | None = None,
    mac: str | None = None,
    alias: str | None = None,
    group: int | None = None,
) -> None:
    attributes: list[bytes] = []
    if mtu is not None:
        attributes.append(_number(_IFLA_MTU, mtu))
    if mac is not None:
        attributes.append(_attribute(_IFLA_ADDRESS, bytes.fromhex(mac.replace(":", ""))))
    if alias is not None:
        attributes.append(_string(_IFLA_IFALIAS, alias))
    if group is not None:
        attributes.append(_number(_IFLA_GROUP, group))
    change = 0 if up is None else IFF_UP
    session.request(_RTM_SETLINK, 0, _link(index, *attributes, flags=IFF_UP if up else 0, change=change))


def add_altname(session: Session, index: int, altname: str) -> None:
    session.request(_RTM_NEWLINKPROP, _NLM_F_CREATE | _NLM_F_EXCL | _NLM_F_APPEND, _altname(index, altname))


def remove_altname(session: Session, index: int, altname: str) -> None:
    session.request(_RTM_DELLINKPROP, 0, _altname(index, altname))


def _altname(index: int, altname: str) -> bytes:
    # As what the kernel has told: it need not be UTF-8.
    value = _attribute(_IFLA_ALT_IFNAME, altname.encode("utf-8", "surrogateescape") + b"\0")
    return _link(index, _attribute(_IFLA_PROP_LIST | _NLA_F_NESTED, value))


def move_link(session: Session, index: int, namespace_fd: int, name: str) -> None:
    """Move a link to another namespace and give it a name there, in one step. If it is there: only that."""
    body = _link(index, _number(_IFLA_NET_NS_FD, namespace_fd), _string(_IFLA_IFNAME, name))
    session.request(_RTM_SETLINK, 0, body)


def add_address(session: Session, index: int, address: Address) -> None:
    # An IPv6 address that is there already is brought into the wanted shape; IPv4 knows no replacing here.
    replace = _NLM_F_REPLACE if address.family == 6 else _NLM_F_EXCL
    session.request(_RTM_NEWADDR, _NLM_F_CREATE | replace, _address(index, address))


def remove_address(session: Session, index: int, address: Address) -> None:
    session.request(_RTM_DELADDR, 0, _address(index, address))


def _address(index: int, address: Address) -> bytes:
    ip = address.ip
    flags = (_IFA_F_NODAD if address.nodad else 0) | (_IFA_F_NOPREFIXROUTE if address.noprefixroute else 0)
    other = ipaddress.ip_address(address.peer).packed if address.peer else ip.ip.packed
    attributes = [_attribute(_IFA_ADDRESS, other), _attribute(_IFA_LOCAL, ip.ip.packed)]
    if flags:
        attributes.append(_number(_IFA_FLAGS, flags))
    if address.label:
        attributes.append(_string(_IFA_LABEL, address.label))
    if address.preferred_lft != "forever":
        attributes.append(_attribute(_IFA_CACHEINFO, _CACHEINFO.pack(int(address.preferred_lft), _FOREVER, 0, 0)))
    family = socket.AF_INET6 if ip.version == 6 else socket.AF_INET
    scope = _SCOPE_NUMBERS[address.scope] if ip.version == 4 else 0
    header = _IFADDR.pack(family, ip.network.prefixlen, flags & 0xFF, scope, index)
    return header + b"".join(attributes)


def add_route(
    session: Session, route: Route, indexes: dict[str, int], replace: bool = False, append: bool = False
) -> None:
    """Add a route; put it in the place of the one with the same key, or behind it. ``indexes``: interfaces by name."""
    flags = _NLM_F_CREATE | (_NLM_F_REPLACE if replace else _NLM_F_APPEND if append else _NLM_F_EXCL)
    session.request(_RTM_NEWROUTE, flags, _route(route, indexes))


def remove_route(session: Session, route: Route, indexes: dict[str, int]) -> None:
    session.request(_RTM_DELROUTE, 0, _route(route, indexes))


def _route(route: Route, indexes: dict[str, int]) -> bytes:
    is_plain = not (route.mtu or route.nexthops) and (not route.via or (":" in route.via) == (route.family == 6))
    return _plain_route(route, indexes) if is_plain else _full_route(route, indexes)


def _plain_route(route: Route, indexes: dict[str, int]) -> bytes:
    """A route with one way, of its own family, and without metrics."""
    to, _slash, length = route.to.partition("/")
    family = socket.AF_INET6 if route.family == 6 else socket.AF_INET
    attributes = [_number(_RTA_TABLE, route.table)]
    if int(length):
        attributes.append(_attribute(_RTA_DST, socket.inet_pton(family, to)))
    if route.metric:
        attributes.append(_number(_RTA_PRIORITY, route.metric))
    if route.src:
        attributes.append(_attribute(_RTA_PREFSRC, socket.inet_pton(family, route.src)))
    if route.via:
        attributes.append(_attribute(_RTA_GATEWAY, socket.inet_pton(family, route.via)))
    if route.dev:
        attributes.append(_number(_RTA_OIF, indexes[route.dev]))
    header = _RTMSG.pack(
        family,
        int(length),
        0,
        route.tos,
        # Tables above 255 stand in RTA_TABLE alone.
        route.table if route.table < 256 else 0,
        route.protocol,
        _SCOPE_NUMBERS[route.scope],
        _TYPE_NUMBERS[route.type],
        _RTNH_F_ONLINK if route.onlink else 0,
    )
    return header + b"".join(attributes)


def _full_route(route: Route, indexes: dict[str, int]) -> bytes:
    to, _slash, length = route.to.partition("/")
    fields = {
        "family": socket.AF_INET6 if route.family == 6 else socket.AF_INET,
        "dst_len": int(length),
        "tos": route.tos,
        # Tables above 255 stand in RTA_TABLE alone.
        "table": route.table if route.table < 256 else 0,
        "proto": route.protocol,
        "scope": _SCOPE_NUMBERS[route.scope],
        "type": _TYPE_NUMBERS[route.type],
        "flags": _RTNH_F_ONLINK if route.onlink else 0,
    }
    attributes: list[list[Any]] = [["RTA_TABLE", route.table]]
    if int(length):
        attributes.append(["RTA_DST", to])
    if route.metric:
        attributes.append(["RTA_PRIORITY", route.metric])
    if route.src:
        attributes.append(["RTA_PREFSRC", route.src])
    if route.mtu:
        attributes.append(["RTA_METRICS", {"attrs": [["RTAX_MTU", route.mtu]]}])
    if route.nexthops:
        attributes.append(["RTA_MULTIPATH", [_nexthop(hop, indexes, route.family) for hop in route.nexthops]])
    else:
        attributes += _gateway(route.via, route.dev, indexes, route.family)
    return _message("rtmsg", fields, attributes)


def _nexthop(hop: NextHop, indexes: dict[str, int], family: int) -> dict[str, Any]:
    return {
        "hops": hop.weight - 1,
        "oif": indexes[hop.dev] if hop.dev else 0,
        "flags": _RTNH_F_ONLINK if hop.onlink else 0,
        "attrs": list(_gateway(hop.via, "", indexes, family)),
    }


def _gateway(via: str, dev: str, indexes: dict[str, int], family: int) -> list[list[Any]]:
    attributes: list[list[Any]] = []
    if via and (":" in via) == (family == 6):
        attributes.append(["RTA_GATEWAY", via])
    elif via:
        attributes.append(["RTA_VIA", {"family": socket.AF_INET6 if ":" in via else socket.AF_INET, "addr": via}])
    if dev:
        attributes.append(["RTA_OIF", indexes[dev]])
    return attributes


def add_nsid(session: Session, namespace_fd: int) -> None:
    """Have the session's namespace know another one by an id of the kernel's choice."""
    # RTM_NEWNSID; include/uapi/linux/net_namespace.h: NETNSA_NSID 1, NETNSA_FD 3; NETNSA_NSID_NOT_ASSIGNED -1.
    session.request(88, 0, b"\0\0\0\0" + struct.pack("=HHiHHI", 8, 1, -1, 8, 3, namespace_fd))
