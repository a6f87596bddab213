# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The hosts of a lab that spans some, and the network between them: from what the user wrote to what each host does.

Every host reads the whole document, and finds its own part of it without asking the others.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ._document_nodes import Node
from ._kinds import KINDS, VXLAN_HEADROOM
from ._model import DEFAULT_MTU, Wanted
from ._reader import Reader, show, suggestion

_HOST_KEYS = ("address",)
_UNDERLAY_KEYS = ("mtu", "dstport")
#: What every IPv4 host has to take (RFC 791), and what fits into a packet.
_MTUS = (576, 65535)
VNIS = (1, 0xFFFFFF)
_THIS_NETWORK = ipaddress.ip_network("0.0.0.0/8")

_USUAL_PORT = int(KINDS["vxlan"]["dstport"] or 0)


class Hosts:
    """The hosts of a document with their addresses, none if all of it is for the machine that reads it."""

    def __init__(
        self,
        addresses: Mapping[str, str],
        underlay_mtu: int = DEFAULT_MTU,
        dstport: int = _USUAL_PORT,
        is_readable: bool = True,
        why_none: str = "and the document has no 'hosts'",
    ) -> None:
        self.addresses = addresses
        self.underlay_mtu = underlay_mtu
        self.dstport = dstport
        self._is_readable = is_readable
        self._why_none = why_none

    def place(self, reader: Reader, text: str, path: str) -> tuple[str, str] | None:
        """The host and the rest of ``HOST/REST``; no host where the document has none. None after a problem."""
        host, slash, rest = text.partition("/")
        if not self._is_readable:
            return None
        if not self.addresses:
            if slash:
                reader.problem(path, f"{text!r} names a host, {self._why_none}; the name of a namespace has no '/'")
            return None if slash else ("", text)
        if not slash:
            example = f"{next(iter(self.addresses))}/{text}"
            reader.problem(path, f"{text!r} says no host, in a lab of several; write HOST/{text}, such as {example}")
            return None
        if host not in self.addresses:
            _refuse(reader, host, self.addresses, path)
            return None
        return host, rest

    @property
    def headroom(self) -> int:
        """What VXLAN adds to a packet."""
        is_ipv6 = any(":" in address for address in self.addresses.values())
        return VXLAN_HEADROOM[6 if is_ipv6 else 4]

    @property
    def mtu(self) -> int:
        """The largest packet that gets through to another host."""
        return self.underlay_mtu - self.headroom


def _refuse(reader: Reader, host: str, names: Collection[str], path: str) -> None:
    reader.problem(path, f"there is no host {host!r} under 'hosts'{suggestion(host, names)}")


class AnyHosts(Hosts):
    """Hosts of which nothing is known but names: of this one, for which ``HOST/`` may be left out, and at times all."""

    def __init__(self, own: str, all_names: Collection[str] = ()) -> None:
        super().__init__({})
        self._own = own
        self._all = all_names

    def place(self, reader: Reader, text: str, path: str) -> tuple[str, str] | None:
        host, slash, rest = text.partition("/")
        if slash and not host:
            reader.problem(path, f"{text!r} names no host before the '/'")
            return None
        if slash and self._all and host not in self._all:
            _refuse(reader, host, self._all, path)
            return None
        return (host, rest) if slash else (self._own, text)


class Part:
    """What a document has for one host, whose name is empty if there is only one."""

    def __init__(self, host: str, lab: str) -> None:
        self.host = host
        self.wanted = Wanted(lab=lab, prune=True, whole=True)
        #: The namespaces as hosts of an inventory.
        self.nodes: dict[str, Node] = {}
        self.probes: list[Any] = []

    def addresses(self) -> Iterator[str]:
        """All that its interfaces have."""
        for namespace in self.wanted.namespaces.values():
            for link in namespace.links.values():
                yield from (str(item.value.ip.ip) for item in link.addresses)


def read_hosts(reader: Reader, value: Any, underlay: Any) -> Hosts:
    """``hosts: {vm1: {address: 192.0.2.1}}`` and ``underlay: {mtu: 1500, dstport: 4789}``."""
    before = len(reader.problems)
    body = {key: item for key, item in reader.mapping(underlay, "underlay", _UNDERLAY_KEYS).items() if item is not None}
    mtu = reader.integer(body["mtu"], "underlay.mtu", *_MTUS) if "mtu" in body else DEFAULT_MTU
    dstport = reader.integer(body["dstport"], "underlay.dstport", 1, 65535) if "dstport" in body else _USUAL_PORT
    if value is None:
        if underlay is not None:
            reader.problem("underlay", "is the network between hosts, and the document has no 'hosts'")
        return Hosts({})
    addresses: dict[str, str] = {}
    for name, settings in reader.mapping(value, "hosts").items():
        path = f"hosts.{name}"
        if not name or "/" in name or " " in name or not name.isprintable():
            reader.problem(path if name else "hosts", f"{name!r} is no name for a host: without '/' and white space")
        addresses[name] = _address(reader, settings, path, addresses)
    if not addresses and len(reader.problems) == before:
        reader.problem("hosts", "has no host; leave it out in a document for the machine that reads it")
    families = {":" in address for address in addresses.values() if address}
    if len(families) > 1 and len(reader.problems) == before:
        reader.problem("hosts", "has IPv4 and IPv6 addresses; packets between hosts go by one of them")
    return Hosts(addresses, mtu, dstport, len(reader.problems) == before)


def _address(reader: Reader, settings: Any, path: str, others: Mapping[str, str]) -> str:
    if not isinstance(settings, Mapping):
        reader.problem(path, f"{show(settings)} is no dictionary such as {{address: 192.0.2.1}}")
        return ""
    before = len(reader.problems)
    body = reader.mapping(settings, path, _HOST_KEYS)
    if body.get("address") is None:
        if len(reader.problems) == before:
            reader.problem(f"{path}.address", "is missing: the address by which the other hosts reach this one")
        return ""
    text = reader.ip(body["address"], f"{path}.address")
    if not text:
        return ""
    address = ipaddress.ip_address(text)
    is_odd = address.version == 4 and (address.is_reserved or address in _THIS_NETWORK)
    if address.is_multicast or address.is_unspecified or address.is_loopback or address.is_link_local or is_odd:
        reader.problem(f"{path}.address", f"{text!r} is no address by which another host could reach this one")
    same = next((name for name, other in others.items() if other == text), None)
    if same is not None:
        reader.problem(f"{path}.address", f"{text} is the address of {same}, too")
    return text


def vni_of(lab: str, ends: tuple[str, str], taken: Collection[int]) -> int:
    """The number of the VXLAN that a link is, which follows from what it joins; the next free one if it is taken.

    All hosts find the same, as they ask in the same order.
    """
    digest = hashlib.sha256("\n".join([lab, *sorted(ends)]).encode("utf-8", "surrogateescape")).digest()
    low, high = VNIS
    number = low + int.from_bytes(digest[:8], "big") % (high - low + 1)
    while number in taken:
        number = number + 1 if number < high else low
    return number
