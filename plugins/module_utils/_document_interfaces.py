# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Interfaces, addresses and bridges: from what the user wrote to the model.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any

from ._document_impairments import read_impairment
from ._document_kinds import read_kind
from ._kinds import KINDS
from ._model import (
    BRIDGE_SETTINGS,
    FORWARD_DELAY,
    HOST,
    IPV6_MIN_MTU,
    LOOPBACK_MTU,
    MAX_MTU,
    MAX_PORTS,
    MIN_MTU,
    PORT_SETTINGS,
    Address,
    Device,
    Vlan,
    Wanted,
    WantedAddress,
    WantedBridge,
    WantedLink,
    WantedNamespace,
    WantedPort,
)
from ._reader import Reader, holds_ipv4, join, show

_INTERFACE_KEYS = ("addresses", "mtu", "mac", "up")
_WIRE_KEYS = ("device", "impairment")
_DEVICE_KEYS = ("name", "mac", "path", "force")
_BRIDGE_KEYS = (*_INTERFACE_KEYS, *BRIDGE_SETTINGS, "vlans", "ports")
_PORT_KEYS = (*PORT_SETTINGS, "vlans")
_VLAN_KEYS = ("vid", "pvid", "untagged")
_ADDRESS_KEYS = ("address", "nodad", "noprefixroute", "label", "scope", "preferred_lft")
_SCOPES = ("global", "site", "link", "host")
_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}\Z")


def read_interface(reader: Reader, name: str, value: Any, path: str, namespace: str = "") -> WantedLink:
    """What an interface carries: ``{addresses, mtu, mac, up, impairment}``, and what it is: a ``device``, or a kind.

    ``path`` may be empty: the keys are options then.
    """
    body = reader.mapping(value, path, (*_INTERFACE_KEYS, *_WIRE_KEYS, *KINDS))
    link = WantedLink(name, path)
    if body.get("device") is not None:
        link.device = read_device(reader, body["device"], join(path, "device"))
        if name == "lo":
            reader.problem(join(path, "device"), "lo is every namespace's own loopback, no device that can be moved")
    if body.get("mtu") is not None:
        link.mtu = reader.integer(body["mtu"], join(path, "mtu"), MIN_MTU, LOOPBACK_MTU if name == "lo" else MAX_MTU)
    if body.get("mac") is not None:
        link.mac = _mac(reader, body["mac"], join(path, "mac"))
    if body.get("up") is not None:
        link.up = reader.boolean(body["up"], join(path, "up"))
    read_kind(reader, body, link, namespace, path)
    link.impairment = read_impairment(reader, body.get("impairment"), join(path, "impairment"))
    link.addresses = read_addresses(reader, body.get("addresses"), join(path, "addresses"))
    # The kernel's own default, which is the same as none.
    link.addresses = [
        item._replace(value=item.value._replace(label="")) if item.value.label == name else item
        for item in link.addresses
    ]
    for item in link.addresses:
        if item.value.family == 6 and link.mtu is not None and link.mtu < IPV6_MIN_MTU:
            reader.problem(
                item.path,
                f"{item.value.address!r} is an IPv6 address, but {name} has an MTU of {link.mtu}: "
                f"IPv6 needs at least {IPV6_MIN_MTU}",
            )
        label = item.value.label
        if label and not label.startswith(name):
            reader.problem(f"{item.path}.label", f"{label!r} has to begin with the interface's name, {name!r}")
    return link


def read_device(reader: Reader, value: Any, path: str) -> Device:
    """A device of the host: its name, its MAC address, or what it is called on its bus."""
    before = len(reader.problems)
    body = reader.mapping(value, path, _DEVICE_KEYS)
    said = [key for key in ("name", "mac", "path") if body.get(key) is not None]
    force = body.get("force") is not None and reader.boolean(body["force"], join(path, "force"))
    if len(reader.problems) > before:
        return Device()
    if len(said) != 1:
        text = "say one of 'name', 'mac' and 'path'" if said else "lacks what it is: 'name', 'mac' or 'path'"
        reader.problem(join(path, said[-1]) if said else path, text)
    elif said == ["name"]:
        name = reader.name_of_interface(body["name"], join(path, "name"), is_second=True)
        if name == "lo":
            reader.problem(join(path, "name"), "'lo' is the host's own loopback; the kernel does not let it move")
        return Device(name=name, force=force)
    elif said == ["mac"]:
        return Device(mac=_mac(reader, body["mac"], join(path, "mac")), force=force)
    else:
        bus_name = reader.string(body["path"], join(path, "path"))
        if isinstance(body["path"], str) and (not bus_name or "/" in bus_name):
            text = f"{bus_name!r} is no name of a device such as '0000:00:03.0', 'virtio0' or 'pci-0000:00:03.0'"
            reader.problem(join(path, "path"), text)
        return Device(path=bus_name, force=force)
    return Device()


def check_devices(reader: Reader, wanted: Wanted) -> None:
    """A device of the host stands in one place of a document, and nowhere as the host's."""
    places: dict[Device, str] = {}
    on_host = _named_on_host(wanted)
    for namespace in wanted.namespaces.values():
        for link in namespace.links.values():
            if link.device is None:
                continue
            path = join(link.path, "device")
            if namespace.name == HOST:
                reader.problem(path, "the device is on the host already; a 'device' stands in a namespace to go to")
                continue
            device = link.device._replace(force=False)
            if device in places and any(device):
                reader.problem(path, f"the device {device} is at {places[device]} already; it can be in one place only")
            places.setdefault(device, path)
            if device.name in on_host:
                text = f"{device.name!r} cannot be in {namespace.name} and on the host: it is at {on_host[device.name]}"
                reader.problem(f"{path}.name", f"{text}, too")


def _named_on_host(wanted: Wanted) -> dict[str, str]:
    """The interfaces that the document has on the host, and where they stand."""
    host = wanted.namespaces.get(HOST)
    found: dict[str, str] = {}
    for link in host.links.values() if host else ():
        found.setdefault(link.name, link.path)
        for port in link.bridge.ports.values() if link.bridge else ():
            found.setdefault(port.name, port.path)
    return found


def _mac(reader: Reader, value: Any, path: str) -> str:
    text = reader.string(value, path)
    if not _MAC.match(text):
        if isinstance(value, str):
            reader.problem(path, f"{text!r} is no MAC address such as 02:00:00:00:00:01")
        return ""
    if int(text[:2], 16) & 1:
        reader.problem(path, f"{text!r} is a multicast address: the first byte of an interface's MAC has to be even")
    if set(text) <= {"0", ":"}:
        reader.problem(path, f"{text!r} is no interface's address")
    return text.lower()


def read_addresses(reader: Reader, value: Any, path: str) -> list[WantedAddress]:
    """Addresses: strings such as ``10.0.0.1/24``, or dictionaries with ``address`` and more."""
    found: list[WantedAddress] = []
    seen: dict[Any, str] = {}
    for i, item in enumerate(reader.sequence(value, path)):
        at = f"{path}[{i}]"
        address = _address(reader, item, at)
        if address is None:
            continue
        # The kernel has an IPv6 address once per link whatever its prefix length, an IPv4 one once per length.
        identity = address.ip.ip if address.family == 6 else address.ip
        if identity in seen:
            reader.problem(at, f"{address.address!r} stands here twice: {seen[identity]} has it already")
            continue
        seen[identity] = at
        found.append(WantedAddress(address, at))
    return found


def _address(reader: Reader, value: Any, path: str) -> Address | None:
    if isinstance(value, str):
        value = {"address": value}
    elif not isinstance(value, Mapping):
        reader.problem(path, f"{show(value)} is no address such as '10.0.0.1/24', nor a dictionary with one")
        return None
    before = len(reader.problems)
    body = reader.mapping(value, path, _ADDRESS_KEYS)
    at = f"{path}.address" if len(value) > 1 else path
    if "address" not in body:
        if len(reader.problems) == before:
            reader.problem(path, "the key 'address' is missing")
        return None
    text = reader.string(body["address"], at)
    if len(reader.problems) > before:
        return None
    try:
        ip = ipaddress.ip_interface(text)
    except ValueError as error:
        reader.problem(at, f"{text!r} is no IPv4 or IPv6 address with its prefix length ({error})")
        return None
    if "%" in text:
        reader.problem(at, f"{text!r} names an interface, which the place where it stands does already")
        return None
    if "/" not in text:
        length = "24" if ip.version == 4 else "64"
        reader.problem(at, f"{text!r} lacks its prefix length; write '{text}/{length}', or whatever the link's is")
        return None
    if "/" in text and not text.rpartition("/")[2].isdigit():
        reader.problem(at, f"{text!r}: write the prefix length as a number, '{ip.with_prefixlen}'")
        return None
    if ip.ip.is_unspecified or ip.ip.is_multicast or str(ip.ip) == "255.255.255.255" or holds_ipv4(ip.ip):
        reader.problem(at, f"{text!r} is no address that an interface can have")
        return None
    if ip.version == 4 and ip.network.prefixlen < 31 and ip.ip in (ip.network[0], ip.network[-1]):
        what = "network" if ip.ip == ip.network[0] else "broadcast"
        reader.problem(at, f"{text!r} is the {what} address of {ip.network}, no address that an interface can have")
        return None
    return _address_details(reader, ip, body, path)


def _address_details(reader: Reader, ip: Any, body: dict[str, Any], path: str) -> Address:
    # `ip address add` gives 127.0.0.0/8 the scope host; for IPv6 the kernel derives the scope from the address.
    scope = "host" if ip.ip.is_loopback else "global"
    if ip.version == 6:
        scope = "host" if ip.ip.is_loopback else "link" if ip.ip.is_link_local else "global"
        scope = "site" if ip.ip in ipaddress.ip_network("fec0::/10") else scope
    if body.get("scope") is not None:
        wanted = reader.choice(body["scope"], f"{path}.scope", _SCOPES)
        if ip.version == 6 and wanted != scope:
            reader.problem(f"{path}.scope", f"the kernel gives {ip.ip} the scope {scope!r}; leave 'scope' out")
        scope = wanted
    label = ""
    if body.get("label") is not None:
        label = reader.string(body["label"], f"{path}.label")
        if ip.version == 6:
            reader.problem(f"{path}.label", "IPv6 addresses have no label")
        elif not 1 <= len(label.encode()) <= 15:
            reader.problem(f"{path}.label", f"{label!r} is no label: it has 1 to 15 bytes")
    nodad = reader.boolean(body["nodad"], f"{path}.nodad") if body.get("nodad") is not None else False
    if nodad and ip.version == 4:
        reader.problem(f"{path}.nodad", "IPv4 has no duplicate address detection; leave 'nodad' out")
    plain = body.get("noprefixroute")
    noprefixroute = reader.boolean(plain, f"{path}.noprefixroute") if plain is not None else False
    preferred = body.get("preferred_lft")
    if preferred is not None and str(preferred) not in ("0", "forever"):
        reader.problem(
            f"{path}.preferred_lft",
            f"{show(preferred)} is neither 0 (deprecated) nor 'forever'; a lifetime that runs out is no state to keep",
        )
    return Address(
        ip.with_prefixlen,
        scope=scope,
        label=label,
        nodad=nodad,
        noprefixroute=noprefixroute,
        preferred_lft="forever" if preferred is None else str(preferred),
    )


# --- bridges ---------------------------------------------------------------------------------------------------------


def read_bridges(reader: Reader, value: Any, namespace: WantedNamespace) -> None:
    taken: dict[str, str] = {}
    for name, settings in reader.mapping(value, f"{namespace.path}.bridges").items():
        path = f"{namespace.path}.bridges.{name}"
        reader.name_of_interface(name, path)
        if name in namespace.links:
            reader.problem(path, f"{name!r} stands at {namespace.links[name].path} too; a bridge stands here only")
            continue
        link = read_bridge(reader, name, settings, path)
        # A bridge of the lab is its own: up, with nothing on it that the document does not name.
        link.up = True if link.up is None else link.up
        link.purge = True
        namespace.links[name] = link
        if link.bridge:
            link.bridge.purge = True
            for port in link.bridge.ports.values():
                if port.name in taken:
                    reader.problem(
                        port.path, f"{port.name!r} is a port of two bridges: it is at {taken[port.name]} too"
                    )
                taken.setdefault(port.name, port.path)


def read_bridge(reader: Reader, name: str, value: Any, path: str) -> WantedLink:
    """A bridge: what an interface carries, its settings, and its ports. ``path`` may be empty, as for interfaces."""
    body = reader.mapping(value, path, _BRIDGE_KEYS)
    if name == "lo":
        reader.problem(path or "name", "lo is every namespace's own loopback, no bridge")
    link = read_interface(reader, name, {key: body.get(key) for key in _INTERFACE_KEYS}, path)
    link.bridge = WantedBridge(create=True)
    for key in BRIDGE_SETTINGS:
        if body.get(key) is not None:
            link.bridge.settings[key] = _bridge_setting(reader, key, body[key], join(path, key))
    if body.get("vlans") is not None:
        link.bridge.vlans = _vlans(reader, body["vlans"], join(path, "vlans"))
    settings = link.bridge.settings
    delay = settings.get("forward_delay", FORWARD_DELAY[0])
    if settings.get("stp") and not FORWARD_DELAY[0] <= delay <= FORWARD_DELAY[1]:
        reader.problem(join(path, "forward_delay"), "has to be from 2 to 30 (seconds) with 'stp'")
    link.bridge.ports = read_ports(reader, body.get("ports"), join(path, "ports"), name)
    return link


def _bridge_setting(reader: Reader, key: str, value: Any, path: str) -> int:
    kind = BRIDGE_SETTINGS[key][0]
    if kind == "flag":
        return int(reader.boolean(value, path))
    if kind == "time":
        # USER_HZ is 100 on every architecture that matters: the kernel takes hundredths of a second.
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            reader.problem(path, f"{show(value)} is no number of seconds")
        elif not 0 <= value <= 1_000_000 or abs(value * 100 - round(value * 100)) > 1e-6:
            reader.problem(path, f"{value} is none of 0, 0.01, 0.02 and so on up to 1000000 (seconds)")
        else:
            return round(float(value) * 100)
        return 0
    if key == "vlan_default_pvid":
        return reader.integer(value, path, 0, 4094)
    mask = reader.integer(value, path, 0, 0xFFFF)
    # BR_GROUPFWD_RESTRICTED: STP, MAC pause and LACP frames are never forwarded.
    if mask & 0x7:
        reader.problem(
            path, f"{mask:#x} has one of the bits 0 to 2, whose frames the kernel does not let a bridge forward"
        )
    return mask


def read_ports(reader: Reader, value: Any, path: str, bridge: str) -> dict[str, WantedPort]:
    """Ports of a bridge: a dictionary of settings by name, or a list of names and of dictionaries with ``name``."""
    found: dict[str, WantedPort] = {}
    items: list[tuple[Any, Any, str]] = []
    if isinstance(value, Mapping):
        items = [(name, body, join(path, str(name))) for name, body in value.items()]
    else:
        for i, item in enumerate(reader.sequence(value, path)):
            at = f"{path}[{i}]"
            if not isinstance(item, Mapping):
                items.append((item, None, at))
            elif "name" not in item:
                reader.problem(at, "the key 'name' is missing")
            else:
                items.append((item["name"], {key: entry for key, entry in item.items() if key != "name"}, at))
    for name, body, at in items:
        before = len(reader.problems)
        port = reader.name_of_interface(name, at)
        if port in found:
            reader.problem(at, f"{port!r} stands here twice: it is at {found[port].path} already")
        elif port in ("lo", bridge):
            reader.problem(at, f"{port!r} can be no port of the bridge {bridge}")
        settings, vlans = _port_settings(reader, body, at)
        if len(reader.problems) == before:
            found[port] = WantedPort(port, at, settings, vlans)
    if len(found) > MAX_PORTS:
        reader.problem(path, f"has {len(found)} ports; the kernel lets a bridge have {MAX_PORTS}")
    return found


def _port_settings(reader: Reader, value: Any, path: str) -> tuple[dict[str, int], tuple[Vlan, ...] | None]:
    body = {key: item for key, item in reader.mapping(value, path, _PORT_KEYS).items() if item is not None}
    settings: dict[str, int] = {}
    for key in PORT_SETTINGS:
        if key not in body:
            continue
        if key == "cost":
            settings[key] = reader.integer(body[key], f"{path}.{key}", 1, 65535)
        elif key == "priority":
            settings[key] = reader.integer(body[key], f"{path}.{key}", 0, 63)
        else:
            settings[key] = int(reader.boolean(body[key], f"{path}.{key}"))
    return settings, _vlans(reader, body["vlans"], f"{path}.vlans") if "vlans" in body else None


def _vlans(reader: Reader, value: Any, path: str) -> tuple[Vlan, ...]:
    found: dict[int, Vlan] = {}
    for i, item in enumerate(reader.sequence(value, path)):
        at = f"{path}[{i}]"
        vlan = item if isinstance(item, Mapping) else {"vid": item}
        body = {key: entry for key, entry in reader.mapping(vlan, at, _VLAN_KEYS).items() if entry is not None}
        if "vid" not in body:
            reader.problem(f"{at}.vid", "is missing: the number of the VLAN, from 1 to 4094")
            continue
        vid = reader.integer(body["vid"], f"{at}.vid", 1, 4094)
        flags = [reader.boolean(body[key], f"{at}.{key}") if key in body else False for key in ("pvid", "untagged")]
        if vid in found:
            reader.problem(at, f"the VLAN {vid} stands here twice")
        if flags[0] and any(vlan.pvid for vlan in found.values()):
            reader.problem(f"{at}.pvid", "a port has one PVID, the VLAN of what comes in without a tag; another has it")
        found[vid] = Vlan(vid, *flags)
    return tuple(sorted(found.values()))
