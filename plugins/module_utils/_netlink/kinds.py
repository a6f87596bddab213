# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the kernel says of a link's kind (IFLA_INFO_DATA), from and to.

Field layouts: include/uapi/linux/if_link.h.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from typing import Callable

from .._kinds import Kind, Setting, kind
from .session import attributes

_VLAN_ID, _VLAN_FLAGS, _VLAN_PROTOCOL = 1, 2, 5
#: Of struct ifla_vlan_flags: flags and mask.
_VLAN_FLAG_BITS = {"reorder_hdr": 0x1, "gvrp": 0x2, "loose_binding": 0x4, "mvrp": 0x8, "bridge_binding": 0x10}
_VLAN_PROTOCOLS = {"802.1Q": 0x8100, "802.1ad": 0x88A8}
_MACVLAN_MODE = 1
_MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8, "source": 16}
_IPVLAN_MODE, _IPVLAN_FLAGS = 1, 2
_IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}
_IPVLAN_FLAG_WORDS = {"bridge": 0, "private": 1, "vepa": 2}
_VXLAN_ID, _VXLAN_GROUP, _VXLAN_LINK, _VXLAN_LOCAL, _VXLAN_TTL, _VXLAN_TOS, _VXLAN_LEARNING, _VXLAN_AGEING = range(1, 9)
_VXLAN_PORT, _VXLAN_GROUP6, _VXLAN_LOCAL6, _VXLAN_DF = 15, 16, 17, 29
_VXLAN_DFS = {"unset": 0, "set": 1, "inherit": 2}
_VRF_TABLE = 1

_U8, _U16, _U32, _PAIR = struct.Struct("=B"), struct.Struct("=H"), struct.Struct("=I"), struct.Struct("=II")
_HEADER = struct.Struct("=HH")

_Said = dict[str, Setting]


def read(name: str, data: bytes) -> tuple[Kind | None, int]:
    """What a link is, if it is of a kind that the collection makes; and the index that it names as what it lies on.

    0: it names none, as most kinds have it in the link itself (IFLA_LINK).
    """
    readers: dict[str, Callable[[dict[int, bytes]], _Said]] = {
        "dummy": lambda _values: {},
        "vlan": _read_vlan,
        "macvlan": lambda values: {"mode": _word(_MACVLAN_MODES, _U32, values[_MACVLAN_MODE])},
        "ipvlan": _read_ipvlan,
        "vxlan": _read_vxlan,
        "vrf": lambda values: {"table": _U32.unpack(values[_VRF_TABLE])[0]},
    }
    if name not in readers:
        return None, 0
    values = dict(attributes(data))
    try:
        said = readers[name](values)
    except KeyError:
        return None, 0
    lower = _U32.unpack(values[_VXLAN_LINK])[0] if name == "vxlan" and _VXLAN_LINK in values else 0
    return kind(name, said), lower


def _word(words: dict[str, int], layout: struct.Struct, value: bytes) -> str:
    number = layout.unpack(value)[0]
    return next((word for word, known in words.items() if known == number), str(number))


def _read_vlan(values: dict[int, bytes]) -> _Said:
    protocol = int.from_bytes(values.get(_VLAN_PROTOCOL, b"\x81\x00"), "big")
    words = {number: word for word, number in _VLAN_PROTOCOLS.items()}
    flags, _mask = _PAIR.unpack(values[_VLAN_FLAGS])
    said: _Said = {word: bool(flags & bit) for word, bit in _VLAN_FLAG_BITS.items()}
    return {**said, "id": _U16.unpack(values[_VLAN_ID])[0], "protocol": words.get(protocol, hex(protocol))}


def _read_ipvlan(values: dict[int, bytes]) -> _Said:
    flags = values.get(_IPVLAN_FLAGS, _U16.pack(0))
    return {"mode": _word(_IPVLAN_MODES, _U16, values[_IPVLAN_MODE]), "flag": _word(_IPVLAN_FLAG_WORDS, _U16, flags)}


def _read_vxlan(values: dict[int, bytes]) -> _Said:
    said: _Said = {"id": _U32.unpack(values[_VXLAN_ID])[0]}
    for attribute in (_VXLAN_GROUP, _VXLAN_GROUP6):
        if any(values.get(attribute, b"")):
            other = ipaddress.ip_address(values[attribute])
            said["group" if other.is_multicast else "remote"] = str(other)
    for attribute in (_VXLAN_LOCAL, _VXLAN_LOCAL6):
        if any(values.get(attribute, b"")):
            said["local"] = str(ipaddress.ip_address(values[attribute]))
    said["learning"] = any(values.get(_VXLAN_LEARNING, b""))
    said["ageing"] = _U32.unpack(values[_VXLAN_AGEING])[0]
    said["ttl"], said["tos"] = values[_VXLAN_TTL][0], values[_VXLAN_TOS][0]
    said["df"] = _word(_VXLAN_DFS, _U8, values.get(_VXLAN_DF, b"\0"))
    said["dstport"] = int.from_bytes(values.get(_VXLAN_PORT, b"\0\0"), "big")
    return said


def write(wanted: Kind, lower: int) -> bytes:
    """What makes a link of that kind, on the one with the index ``lower``, in the form of IFLA_INFO_DATA."""
    value = dict(wanted.settings)
    if wanted.name == "vlan":
        protocol = _VLAN_PROTOCOLS[str(value["protocol"])]
        flags = sum(bit for word, bit in _VLAN_FLAG_BITS.items() if value[word])
        data = _attribute(_VLAN_ID, _U16.pack(int(value["id"]))) + _attribute(_VLAN_PROTOCOL, _port(protocol))
        return data + _attribute(_VLAN_FLAGS, _PAIR.pack(flags, sum(_VLAN_FLAG_BITS.values())))
    if wanted.name == "macvlan":
        return _attribute(_MACVLAN_MODE, _U32.pack(_MACVLAN_MODES[str(value["mode"])]))
    if wanted.name == "ipvlan":
        mode, flag = _IPVLAN_MODES[str(value["mode"])], _IPVLAN_FLAG_WORDS[str(value["flag"])]
        return _attribute(_IPVLAN_MODE, _U16.pack(mode)) + _attribute(_IPVLAN_FLAGS, _U16.pack(flag))
    if wanted.name == "vxlan":
        return _vxlan(value, lower)
    return _attribute(_VRF_TABLE, _U32.pack(int(value["table"]))) if wanted.name == "vrf" else b""


def _vxlan(value: dict[str, Setting], lower: int) -> bytes:
    data = _attribute(_VXLAN_ID, _U32.pack(int(value["id"])))
    if lower:
        data += _attribute(_VXLAN_LINK, _U32.pack(lower))
    others = (str(value["remote"] or value["group"]), _VXLAN_GROUP, _VXLAN_GROUP6)
    for address, attribute, attribute6 in (others, (str(value["local"]), _VXLAN_LOCAL, _VXLAN_LOCAL6)):
        if address:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            data += _attribute(attribute6 if ":" in address else attribute, socket.inet_pton(family, address))
    data += _attribute(_VXLAN_LEARNING, bytes([bool(value["learning"])]))
    data += _attribute(_VXLAN_AGEING, _U32.pack(int(value["ageing"])))
    data += _attribute(_VXLAN_TTL, bytes([int(value["ttl"])])) + _attribute(_VXLAN_TOS, bytes([int(value["tos"])]))
    if value["df"] != "unset":
        data += _attribute(_VXLAN_DF, bytes([_VXLAN_DFS[str(value["df"])]]))
    return data + _attribute(_VXLAN_PORT, _port(int(value["dstport"])))


def _port(number: int) -> bytes:
    return number.to_bytes(2, "big")


def _attribute(attribute: int, value: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(value), attribute) + value + b"\0" * (-len(value) % 4)
