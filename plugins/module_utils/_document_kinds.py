# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Interfaces that are dummies, VLANs, macvlans, ipvlans, VXLANs or VRFs: from what the user wrote to the model.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any

from ._errors import article
from ._kinds import KINDS, SHARING, Kind, Setting, conflict, kind
from ._model import HOST, LOCAL_TABLE, MAIN_TABLE, Endpoint, Wanted, WantedLink
from ._reader import Reader, enumeration, join, show, suggestion

#: Tables that every namespace has; a VRF has one of its own.
_COMMON_TABLES = {253: "default", MAIN_TABLE: "main", LOCAL_TABLE: "local"}

_CHOICES = {
    ("vlan", "protocol"): ("802.1Q", "802.1ad"),
    ("macvlan", "mode"): ("bridge", "private", "vepa", "passthru"),
    ("ipvlan", "mode"): ("l2", "l3", "l3s"),
    ("ipvlan", "flag"): ("bridge", "private", "vepa"),
    ("vxlan", "df"): ("unset", "set", "inherit"),
}
_RANGES = {
    ("vlan", "id"): (1, 4094),
    ("vxlan", "id"): (0, 0xFFFFFF),
    ("vxlan", "dstport"): (1, 65535),
    ("vxlan", "ageing"): (1, 0xFFFFFFFF),
    ("vxlan", "ttl"): (0, 255),
    ("vxlan", "tos"): (0, 255),
}


def read_kind(reader: Reader, body: Mapping[str, Any], link: WantedLink, namespace: str, path: str) -> None:
    """What an interface is, where it is none that is there already: one of the keys of KINDS.

    ``path`` may be empty: the keys are options then.
    """
    said = [name for name in KINDS if body.get(name) is not None]
    if not said:
        return
    name, at = said[0], join(path, said[0])
    if len(said) > 1 or body.get("device") is not None:
        both = enumeration([*said, *(["device"] if body.get("device") is not None else [])], "and")
        reader.problem(join(path, said[-1]), f"an interface is one thing: leave out all but one of {both}")
        return
    if link.name == "lo":
        reader.problem(at, f"lo is every namespace's own loopback, no {name}")
    before = len(reader.problems)
    link.kind_path = at
    found = _READERS[name](reader, body[name], link, namespace, at)
    if name == "ipvlan" and link.mac is not None:
        reader.problem(join(path, "mac"), "an ipvlan has the MAC address of the link that it lies on; leave this out")
    if name == "vrf" and link.mac is not None:
        reader.problem(join(path, "mac"), "nothing is sent to the MAC address of a VRF; leave this out")
    if name == "macvlan" and link.mac is not None and found.get("mode") == "passthru":
        reader.problem(join(path, "mac"), "a 'passthru' has the MAC of the link that it lies on; leave this out")
    if len(reader.problems) == before:
        link.kind = found


def _dummy(reader: Reader, value: Any, _link: WantedLink, _namespace: str, path: str) -> Kind:
    if not reader.boolean(value, path):
        reader.problem(path, "leave this out of what is no dummy")
    return kind("dummy", {})


def _stacked(
    name: str, reader: Reader, value: Any, namespace: str, path: str
) -> tuple[dict[str, Any], Endpoint | None]:
    """The settings of what lies on another link, and that one."""
    body = _body(reader, name, value, path, ("link",))
    lower = _lower(reader, body.get("link"), namespace, f"{path}.link")
    if "link" not in body and isinstance(value, Mapping):
        reader.problem(f"{path}.link", f"is missing: the interface that the {name} lies on")
    return body, lower


def _body(reader: Reader, name: str, value: Any, path: str, more: tuple[str, ...]) -> dict[str, Any]:
    keys = (*more, *KINDS[name])
    if not isinstance(value, Mapping):
        reader.problem(path, f"{show(value)} is no dictionary of {enumeration(keys, 'and')}")
        return {}
    return {key: item for key, item in reader.mapping(value, path, keys).items() if item is not None}


def _lower(reader: Reader, value: Any, namespace: str, path: str) -> Endpoint | None:
    """An interface of the same namespace by its name, or one of another: ``host:eth0``."""
    if value is None:
        return None
    text = reader.string(value, path)
    where, colon, interface = text.rpartition(":")
    if not colon:
        where = namespace
    elif "/" in where:
        host = where.partition("/")[0]
        reader.problem(path, f"{text!r} names a host, and what a link lies on is on its own one; leave out '{host}/'")
        return None
    before = len(reader.problems)
    reader.name_of_namespace(where, path)
    reader.name_of_interface(interface, path)
    if interface == "lo":
        reader.problem(path, "nothing can lie on lo")
    return Endpoint(where, interface) if len(reader.problems) == before else None


def _settings(reader: Reader, name: str, body: Mapping[str, Any], path: str) -> dict[str, Setting]:
    """The settings that are numbers, words of a few, or yes or no."""
    said: dict[str, Setting] = {}
    for key, usual in KINDS[name].items():
        at = f"{path}.{key}"
        if key == "id" and key not in body:
            low, high = _RANGES[name, key]
            reader.problem(at, f"is missing: the number of the {name.upper()}, from {low} to {high}")
        elif key not in body:
            continue
        elif (name, key) in _CHOICES:
            said[key] = reader.choice(body[key], at, _CHOICES[name, key])
        elif (name, key) in _RANGES:
            said[key] = reader.integer(body[key], at, *_RANGES[name, key])
        elif isinstance(usual, bool):
            said[key] = reader.boolean(body[key], at)
    return said


def _vlan(reader: Reader, value: Any, _link: WantedLink, namespace: str, path: str) -> Kind:
    body, lower = _stacked("vlan", reader, value, namespace, path)
    return kind("vlan", _settings(reader, "vlan", body, path) if body else {}, lower)


def _macvlan(reader: Reader, value: Any, _link: WantedLink, namespace: str, path: str) -> Kind:
    body, lower = _stacked("macvlan", reader, value, namespace, path)
    return kind("macvlan", _settings(reader, "macvlan", body, path), lower)


def _ipvlan(reader: Reader, value: Any, _link: WantedLink, namespace: str, path: str) -> Kind:
    body, lower = _stacked("ipvlan", reader, value, namespace, path)
    return kind("ipvlan", _settings(reader, "ipvlan", body, path), lower)


def _vxlan(reader: Reader, value: Any, _link: WantedLink, namespace: str, path: str) -> Kind:
    body = _body(reader, "vxlan", value, path, ("link", "link_netns"))
    if not isinstance(value, Mapping):
        return kind("vxlan", {})
    said = _settings(reader, "vxlan", body, path)
    lower = _lower(reader, body.get("link"), namespace, f"{path}.link")
    netns = ""
    if "link_netns" in body:
        netns = reader.name_of_namespace(body["link_netns"], f"{path}.link_netns")
        if lower:
            reader.problem(f"{path}.link_netns", "is where 'link' is; leave one of them out")
    for key in ("remote", "group", "local"):
        if key in body:
            said[key] = _address(reader, body[key], f"{path}.{key}", multicast=key == "group")
    if said.get("remote") and said.get("group"):
        reader.problem(f"{path}.group", "packets go to one 'remote' or to a 'group', not to both")
    if said.get("group") and not lower:
        reader.problem(f"{path}.link", "is missing: a 'group' is joined on an interface")
    to = str(said.get("remote") or said.get("group") or "")
    if to and said.get("local") and (":" in to) != (":" in str(said["local"])):
        reader.problem(f"{path}.local", f"{show(body['local'])} is of another IP version than what the packets go to")
    return kind("vxlan", said, lower, netns if netns != namespace else "")


def _address(reader: Reader, value: Any, path: str, multicast: bool) -> str:
    text = reader.ip(value, path)
    if not text:
        return ""
    address = ipaddress.ip_address(text)
    if address.is_multicast != multicast:
        what = "no multicast address" if multicast else "a multicast address, which is a 'group'"
        reader.problem(path, f"{text!r} is {what}")
    elif address.is_unspecified:
        reader.problem(path, f"{text!r} is no address that packets go to or come from")
    return text


def _vrf(reader: Reader, value: Any, link: WantedLink, _namespace: str, path: str) -> Kind:
    body = _body(reader, "vrf", value, path, ("interfaces",))
    said: dict[str, Setting] = {}
    if "table" in body:
        said["table"] = reader.integer(body["table"], f"{path}.table", 1, 0xFFFFFFFF)
        if said["table"] in _COMMON_TABLES:
            text = f"{said['table']} is the table {_COMMON_TABLES[int(said['table'])]!r} of every namespace"
            reader.problem(f"{path}.table", f"{text}; a VRF has one of its own")
    elif isinstance(value, Mapping):
        reader.problem(f"{path}.table", "is missing: the number of the VRF's own routing table, such as 10")
    members: dict[str, str] = {}
    for i, item in enumerate(reader.sequence(body.get("interfaces"), f"{path}.interfaces")):
        at = f"{path}.interfaces[{i}]"
        name = reader.name_of_interface(item, at)
        if name in ("lo", link.name):
            reader.problem(at, f"{name!r} can be no part of the VRF {link.name}")
        elif name in members:
            reader.problem(at, f"{name!r} stands here twice: it is at {members[name]} already")
        members.setdefault(name, at)
    link.members = members if "interfaces" in body else None
    return kind("vrf", said)


_READERS = {"dummy": _dummy, "vlan": _vlan, "macvlan": _macvlan, "ipvlan": _ipvlan, "vxlan": _vxlan, "vrf": _vrf}


# --- a whole document ------------------------------------------------------------------------------------------------


def check_kinds(reader: Reader, wanted: Wanted) -> None:
    """What lies on what, and which interfaces are parts of what, fits together."""
    links = {
        Endpoint(body.name, link.name): link for body in wanted.namespaces.values() for link in body.links.values()
    }
    ports = {
        end._replace(interface=name): port.path
        for end, link in links.items()
        for name, port in (link.bridge.ports.items() if link.bridge else ())
    }
    taken: dict[Any, str] = {}
    members: dict[Endpoint, str] = {}
    lowers: dict[Endpoint, WantedLink] = {}
    for end, link in links.items():
        if link.kind is None:
            continue
        _check_lower(reader, wanted, end, link, links)
        _check_beside(reader, link, ports, lowers)
        key = link.kind.identity(end.namespace)
        if key and key in taken:
            reader.problem(link.kind_path, f"is the same as {taken[key]}; the kernel has such a one once")
        taken.setdefault(key, link.kind_path)
        for name, path in (link.members or {}).items():
            member = end._replace(interface=name)
            if member in members or member in ports:
                other = members.get(member) or ports.get(member)
                reader.problem(path, f"{name!r} is a part of something else: it is at {other} already")
            elif _is_vrf(links.get(member)):
                reader.problem(path, f"{name!r} is a VRF itself")
            elif wanted.whole and member not in links:
                names = [other.interface for other in links if other.namespace == end.namespace]
                reader.problem(path, f"the document has no interface {name!r} here{suggestion(name, names)}")
            members.setdefault(member, path)


def _is_vrf(link: WantedLink | None) -> bool:
    return bool(link and link.kind and link.kind.name == "vrf")


def _check_lower(
    reader: Reader, wanted: Wanted, end: Endpoint, link: WantedLink, links: Mapping[Endpoint, WantedLink]
) -> None:
    kind_ = link.kind
    if kind_ is None:
        return
    for key, name in (("link_netns", kind_.netns), ("link", kind_.link.namespace if kind_.link else "")):
        if name not in ("", HOST) and wanted.whole and name not in wanted.namespaces:
            text = f"there is no namespace {name!r} in the topology{suggestion(name, wanted.namespaces)}"
            reader.problem(f"{link.kind_path}.{key}", text)
            return
    lower = kind_.link
    if lower is None:
        return
    path = f"{link.kind_path}.link"
    if lower == end or any(below == end for below in _below(lower, links)):
        reader.problem(path, f"{end} would lie on itself")
    body = wanted.namespaces.get(lower.namespace)
    if wanted.whole and body and body.create and lower not in links:
        names = [other.interface for other in links if other.namespace == lower.namespace]
        text = f"the document has no interface {lower.interface!r} in {lower.namespace}"
        reader.problem(path, text + suggestion(lower.interface, names))
    below = links[lower].kind if lower in links else None
    if below and below.name == kind_.name and below.name in ("macvlan", "ipvlan"):
        # macvlan_common_newlink(), ipvlan_link_new(): it is put on what that one lies on.
        reader.problem(path, f"{lower} is {article(below.name)} itself; say what that lies on, {below.link}")


def _check_beside(
    reader: Reader, link: WantedLink, ports: Mapping[Endpoint, str], lowers: dict[Endpoint, WantedLink]
) -> None:
    """A macvlan or an ipvlan takes what comes in by the link that it lies on: it shares it with its like only."""
    kind_ = link.kind
    if kind_ is None or kind_.link is None or kind_.name not in SHARING:
        return
    path = f"{link.kind_path}.link"
    if kind_.link in ports:
        text = f"{kind_.link} is a port of a bridge, at {ports[kind_.link]}, which takes all that comes in by it"
        reader.problem(path, f"{text}; lie on the bridge")
    first = lowers.setdefault(kind_.link, link)
    if first is link or first.kind is None:
        return
    why = conflict(kind_, first.kind)
    if why:
        key = "mode" if first.kind.name == kind_.name else "link"
        text = f"{article(first.kind.name)} lies on {kind_.link} already, at {first.kind_path}, and {why}"
        reader.problem(f"{link.kind_path}.{key}", text)


def _below(start: Endpoint, links: Mapping[Endpoint, WantedLink]) -> Iterator[Endpoint]:
    """All that an interface leans on, in a document: what it lies on, and the ports of bridges."""
    seen = {start}
    open_ends = [start]
    while open_ends:
        end = open_ends.pop()
        link = links.get(end)
        if link is None:
            continue
        found = [link.kind.link] if link.kind and link.kind.link else []
        if link.bridge:
            found += [end._replace(interface=name) for name in link.bridge.ports]
        new = [other for other in found if other not in seen]
        yield from new
        seen.update(new)
        open_ends += new
