# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From what the user wrote to the model: the topology document, and the options of the modules in the same words.

Everything is checked here that can be checked without looking at the host. All problems are collected and told at
once, each with the path of the key that it stands at.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from ._errors import InvalidInput, Problem, did_you_mean
from ._model import (
    BRIDGE_SETTINGS,
    DEFAULT_METRIC_V6,
    DEFAULT_MTU,
    HOST,
    IPV6_MIN_MTU,
    LOCAL_TABLE,
    LOOPBACK_MTU,
    MAIN_TABLE,
    MAX_PORTS,
    PORT_SETTINGS,
    Address,
    Endpoint,
    IPAddress,
    NextHop,
    Route,
    Vlan,
    Wanted,
    WantedAddress,
    WantedBridge,
    WantedLink,
    WantedNamespace,
    WantedPort,
    WantedRoute,
    WantedSysctl,
    Wire,
)
from ._sysctl_keys import key_of, normal

if TYPE_CHECKING:
    from ._probe import Listen, Probe

_TOPOLOGY_KEYS = ("name", "namespaces", "links", "probes")
_NAMESPACE_KEYS = ("interfaces", "bridges", "routes", "sysctls")
_INTERFACE_KEYS = ("addresses", "mtu", "mac", "up")
_BRIDGE_KEYS = (*_INTERFACE_KEYS, *BRIDGE_SETTINGS, "ports")
_PORT_KEYS = (*PORT_SETTINGS, "vlans")
_VLAN_KEYS = ("vid", "pvid", "untagged")
_ADDRESS_KEYS = ("address", "nodad", "noprefixroute", "label", "scope", "preferred_lft")
_ROUTE_KEYS = ("to", "via", "dev", "src", "metric", "table", "scope", "onlink", "mtu", "type", "nexthops")
_NEXTHOP_KEYS = ("via", "dev", "weight", "onlink")
_PROBE_KEYS = (
    "from", "to", "protocol", "port", "path", "status", "body", "expect", "source_seen", "listen", "count", "deadline",
)  # fmt: skip
_LISTEN_KEYS = ("namespace", "address", "port")

ROUTE_TYPES = ("unicast", "blackhole", "unreachable", "prohibit")
_SCOPES = ("global", "site", "link", "host")
_TABLES = {"main": MAIN_TABLE, "default": 253}
_PROTOCOLS = ("icmp", "tcp", "udp", "http")
_EXPECTATIONS = ("reachable", "unreachable", "refused")

_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")
#: A path of a URL with its query: what may stand in a request line.
_URL_PATH = re.compile(r"/[!-~]*\Z")
_MAX_URL_PATH = 2048
_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}\Z")
_MAX_U32 = 2**32 - 1
#: The bounds that the kernel's veth and loopback set (ETH_MIN_MTU, ETH_MAX_MTU); lo takes no more either.
_MIN_MTU, _MAX_MTU = 68, 65535
#: A larger one is cut to this (fib_metrics.c: 65535 - 15).
_MAX_ROUTE_MTU = 65520
#: IPv6 addresses that hold an IPv4 one (RFC 4291, 2.5.5); no packet may carry them.
_EMBEDDED_IPV4 = (ipaddress.ip_network("::ffff:0:0/96"), ipaddress.ip_network("::/96"))


class Reader:
    """Reads untrusted values, and collects what is wrong with them. What it returns after a problem is harmless."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def problem(self, path: str, text: str) -> None:
        self.problems.append(Problem(path, text))

    def done(self) -> None:
        """Raise InvalidInput if there was any problem."""
        if self.problems:
            raise InvalidInput(self.problems)

    def mapping(self, value: Any, path: str, keys: Collection[str] | None = None) -> dict[str, Any]:
        """A dictionary with string keys, and if ``keys`` are given, with no others than these."""
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            self.problem(path, f"{_show(value)} is no dictionary" + (f" of {_or(keys, 'and')}" if keys else ""))
            return {}
        result = {}
        for key, item in value.items():
            if not isinstance(key, str):
                self.problem(path, f"the key {_show(key)} is no string; put it in quotes")
            elif keys is not None and key not in keys:
                self.problem(_join(path, key), f"there is no such key here{_did_you_mean(key, keys)}")
            else:
                result[key] = item
        return result

    def sequence(self, value: Any, path: str) -> list[Any]:
        if value is None:
            return []
        if not isinstance(value, (list, tuple)):
            self.problem(path, f"{_show(value)} is no list")
            return []
        return list(value)

    def string(self, value: Any, path: str) -> str:
        if not isinstance(value, str):
            self.problem(path, f"{_show(value)} is no string; put it in quotes if it is meant as one")
            return ""
        return str(value)

    def boolean(self, value: Any, path: str) -> bool:
        if not isinstance(value, bool):
            self.problem(path, f"{_show(value)} is neither true nor false")
            return False
        return value

    def integer(self, value: Any, path: str, low: int, high: int) -> int:
        if isinstance(value, str) and value.isascii() and value.isdigit():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            self.problem(path, f"{_show(value)} is no whole number")
            return low
        number = int(value)
        if not low <= number <= high:
            self.problem(path, f"{number} is out of range: it has to be from {low} to {high}")
            return low
        return number

    def number(self, value: Any, path: str, low: float, high: float) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.problem(path, f"{_show(value)} is no number")
            return low
        if not low < value <= high:
            self.problem(path, f"{value} is out of range: it has to be above {low:g} and at most {high:g} (seconds)")
            return high
        return float(value)

    def choice(self, value: Any, path: str, choices: Collection[str]) -> str:
        if value in choices:
            return str(value)
        near = _did_you_mean(str(value), choices, listed=False)
        self.problem(path, f"{_show(value)} is not one of {_or(choices, 'and')}{near}")
        return next(iter(choices))

    def name_of_namespace(self, value: Any, path: str) -> str:
        name = self.string(value, path)
        problem = _name_problem(name) if isinstance(value, str) else ""
        if problem:
            self.problem(path, problem)
        return name

    def name_of_interface(self, value: Any, path: str) -> str:
        name = self.string(value, path)
        if not isinstance(value, str):
            return name
        length = len(name.encode("utf-8", "surrogateescape"))
        if not 1 <= length <= 15:
            self.problem(path, f"{name!r} is {length} bytes long; an interface name has 1 to 15 (IFNAMSIZ)")
        elif name in (".", "..") or any(c in "/:%" or c.isspace() for c in name):
            # The kernel takes % for a template: "a%d" would silently become "a0" (dev_alloc_name()).
            self.problem(path, f"{name!r} is no name for an interface: it must not hold '/', ':', '%' or white space")
        elif name in ("all", "default"):
            self.problem(path, f"{name!r} is no name for an interface: sysctls use it for something else")
        return name

    def ip(self, value: Any, path: str) -> str:
        """An address without prefix, in its canonical spelling; empty after a problem."""
        text = self.string(value, path)
        if not isinstance(value, str):
            return ""
        if "%" in text:
            self.problem(
                path, f"{text!r} names an interface; leave out {text[text.index('%') :]!r} and say it in 'dev'"
            )
            return ""
        try:
            ip = ipaddress.ip_address(text)
            if _holds_ipv4(ip):
                self.problem(path, f"{text!r} is an IPv6 spelling of an IPv4 address, which no packet carries")
            return str(ip)
        except ValueError:
            hint = f"; leave out {text[text.index('/') :]!r}" if _is_prefix(text) else ""
            self.problem(path, f"{text!r} is no IPv4 or IPv6 address{hint}")
            return ""


# --- the topology document -------------------------------------------------------------------------------------------


class Topology:
    """A document that was read: the demand on the host, and the probes that shall pass on it."""

    def __init__(self, wanted: Wanted, probes: list[Probe]) -> None:
        self.wanted = wanted
        self.probes = probes


def read_topology(document: Any, absent: bool = False) -> Topology:
    """Read and check a topology document. ``absent``: what carries its name's mark shall go, and nothing else.

    Raises InvalidInput.
    """
    reader = Reader()
    top = reader.mapping(document, "", _TOPOLOGY_KEYS)
    if not isinstance(document, Mapping):
        reader.done()
    wanted = Wanted(prune=True, whole=True)
    wanted.lab = read_lab_name(reader, top.get("name"), "name")
    if top.get("name") is None:
        reader.problems = [Problem("name", "is missing: a topology has the name of its lab, such as 'name: routed'")]
    for name, value in reader.mapping(top.get("namespaces"), "namespaces").items():
        path = f"namespaces.{name}"
        reader.name_of_namespace(name, path)
        wanted.namespaces[name] = _namespace(reader, name, value, path)
    readable = isinstance(top.get("namespaces") or {}, Mapping)
    if readable:
        _wires(reader, top.get("links"), wanted)
    for end in (end for wire in wanted.wires for end in wire.ends):
        _complete_end(wanted.namespaces[end.namespace], end)
    probes = read_probes(reader, top.get("probes"), "probes", wanted.namespaces if readable else None)
    if not reader.problems:
        check_layer2(reader, wanted)
    reader.done()
    if absent:
        wanted = Wanted(lab=wanted.lab, prune=True, whole=True)
    return Topology(wanted, probes)


def read_lab_name(reader: Reader, value: Any, path: str) -> str:
    """The name of a lab, as it goes into the marks; empty for none."""
    if value is None:
        return ""
    name = reader.string(value, path)
    if isinstance(value, str) and (_name_problem(name) or len(name) > 64):
        reader.problem(
            path,
            f"{name!r} is no name for a lab: 1 to 64 letters, digits, '_', '.' and '-', the first no '.' or '-'",
        )
    return name


def _namespace(reader: Reader, name: str, value: Any, path: str) -> WantedNamespace:
    body = reader.mapping(value, path, _NAMESPACE_KEYS)
    wanted = WantedNamespace(name, path, create=name != HOST)
    for interface, settings in reader.mapping(body.get("interfaces"), f"{path}.interfaces").items():
        reader.name_of_interface(interface, f"{path}.interfaces.{interface}")
        wanted.links[interface] = read_interface(reader, interface, settings, f"{path}.interfaces.{interface}")
    _bridges(reader, body.get("bridges"), wanted)
    if wanted.create:
        # A namespace of the lab has its lo, up, with nothing on it that the document does not name.
        loopback = wanted.links.setdefault("lo", WantedLink("lo", path))
        loopback.up = True if loopback.up is None else loopback.up
        loopback.mtu = LOOPBACK_MTU if loopback.mtu is None else loopback.mtu
        loopback.purge = True
    wanted.routes = read_routes(reader, body.get("routes"), f"{path}.routes")
    wanted.sysctls = read_sysctls(reader, body.get("sysctls"), f"{path}.sysctls")
    _check_ipv6(reader, wanted)
    return wanted


def _check_ipv6(reader: Reader, namespace: WantedNamespace) -> None:
    """No IPv6 address goes where a sysctl of the same namespace takes IPv6 away."""
    for link in namespace.links.values():
        # lo is there before the default is set, and does not take it.
        names = ("all", link.name) if link.name == "lo" else ("all", "default", link.name)
        keys = [f"net/ipv6/conf/{name}/disable_ipv6" for name in names]
        off = next((namespace.sysctls[key] for key in keys if key in namespace.sysctls), None)
        for item in link.addresses:
            if off and off.value != "0" and item.value.family == 6:
                text = f"{item.value.address!r} is an IPv6 address, but {off.path} takes IPv6 away from {link.name}"
                reader.problem(item.path, text)


def read_interface(reader: Reader, name: str, value: Any, path: str) -> WantedLink:
    """What an interface carries: ``{addresses, mtu, mac, up}``. ``path`` may be empty: the keys are options then."""
    body = reader.mapping(value, path, _INTERFACE_KEYS)
    link = WantedLink(name, path)
    if body.get("mtu") is not None:
        link.mtu = reader.integer(body["mtu"], _join(path, "mtu"), _MIN_MTU, LOOPBACK_MTU if name == "lo" else _MAX_MTU)
    if body.get("mac") is not None:
        link.mac = _mac(reader, body["mac"], _join(path, "mac"))
    if body.get("up") is not None:
        link.up = reader.boolean(body["up"], _join(path, "up"))
    link.addresses = read_addresses(reader, body.get("addresses"), _join(path, "addresses"))
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


def _bridges(reader: Reader, value: Any, namespace: WantedNamespace) -> None:
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
            link.bridge.settings[key] = _bridge_setting(reader, key, body[key], _join(path, key))
    settings = link.bridge.settings
    # The kernel holds forward_delay to these limits only where the spanning tree is on (br_set_forward_delay()).
    if settings.get("stp") and "forward_delay" in settings and not 200 <= settings["forward_delay"] <= 3000:
        reader.problem(_join(path, "forward_delay"), "has to be from 2 to 30 (seconds) with 'stp'")
    link.bridge.ports = read_ports(reader, body.get("ports"), _join(path, "ports"), name)
    return link


def _bridge_setting(reader: Reader, key: str, value: Any, path: str) -> int:
    kind = BRIDGE_SETTINGS[key][0]
    if kind == "flag":
        return int(reader.boolean(value, path))
    if kind == "time":
        # USER_HZ is 100 on every architecture that matters: the kernel takes hundredths of a second.
        seconds = 0.0 if value == 0 and not isinstance(value, bool) else reader.number(value, path, 0, 1_000_000)
        return round(seconds * 100)
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
        items = [(name, body, _join(path, str(name))) for name, body in value.items()]
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
        reader.problem(path, f"{_show(value)} is no address such as '10.0.0.1/24', nor a dictionary with one")
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
    if ip.ip.is_unspecified or ip.ip.is_multicast or str(ip.ip) == "255.255.255.255" or _holds_ipv4(ip.ip):
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
            f"{_show(preferred)} is neither 0 (deprecated) nor 'forever'; a lifetime that runs out is no state to keep",
        )
    return Address(
        ip.with_prefixlen,
        scope=scope,
        label=label,
        nodad=nodad,
        noprefixroute=noprefixroute,
        preferred_lft="forever" if preferred is None else str(preferred),
    )


# --- routes ----------------------------------------------------------------------------------------------------------


def read_routes(reader: Reader, value: Any, path: str, only_keys: bool = False) -> list[WantedRoute]:
    """Routes in the words of ``ip route``. ``only_keys``: routes that shall go, of which ``to`` says enough."""
    found: list[WantedRoute] = []
    seen: dict[Any, str] = {}
    for i, item in enumerate(reader.sequence(value, path)):
        at = f"{path}[{i}]"
        before = len(reader.problems)
        route = _route(reader, item, at, only_keys)
        if route is None or len(reader.problems) > before:
            continue
        if route.key in seen:
            reader.problem(
                f"{at}.to",
                f"{item['to']!r} has the same destination, table and metric as {seen[route.key]}; "
                "give one of them another 'metric', or make one route of both with 'nexthops'",
            )
            continue
        seen[route.key] = at
        found.append(WantedRoute(route, at))
    return found


def _route(reader: Reader, value: Any, path: str, only_keys: bool) -> Route | None:
    if not isinstance(value, Mapping):
        reader.problem(path, f"{_show(value)} is no route such as {{to: default, via: 10.0.0.1}}")
        return None
    body = {key: item for key, item in reader.mapping(value, path, _ROUTE_KEYS).items() if item is not None}
    kind = reader.choice(body["type"], f"{path}.type", ROUTE_TYPES) if "type" in body else "unicast"
    via = reader.ip(body["via"], f"{path}.via") if "via" in body else ""
    dev = reader.name_of_interface(body["dev"], f"{path}.dev") if "dev" in body else ""
    src = reader.ip(body["src"], f"{path}.src") if "src" in body else ""
    hops = _nexthops(reader, body.get("nexthops"), f"{path}.nexthops") if "nexthops" in body else ()
    to = _destination(reader, body, path, [via, src, *(hop.via for hop in hops)])
    if not to:
        return None
    family = 6 if ":" in to else 4
    table = _table(reader, body["table"], f"{path}.table") if "table" in body else MAIN_TABLE
    metric = reader.integer(body["metric"], f"{path}.metric", 0, _MAX_U32) if "metric" in body else 0
    onlink = reader.boolean(body["onlink"], f"{path}.onlink") if "onlink" in body else False
    mtu = reader.integer(body["mtu"], f"{path}.mtu", _MIN_MTU, _MAX_ROUTE_MTU) if "mtu" in body else 0
    if not only_keys:
        _check_ways(reader, path, kind, body, via, onlink)
    for key, address in (("via", via), ("src", src)):
        if address and (":" in address) != (family == 6):
            reader.problem(f"{path}.{key}", f"{address!r} is of another address family than the destination {to}")
    for i, hop in enumerate(hops):
        if hop.via and (":" in hop.via) != (family == 6):
            at = f"{path}.nexthops[{i}].via"
            reader.problem(at, f"{hop.via!r} is of another address family than the destination {to}")
    route = Route(
        to, kind, via, dev, src, metric or (DEFAULT_METRIC_V6 if family == 6 else 0), table, "global", onlink, mtu, hops
    )
    scope = route.default_scope
    if "scope" in body:
        scope = reader.choice(body["scope"], f"{path}.scope", ("global", "link", "host"))
        if family == 6 and scope != "global":
            reader.problem(f"{path}.scope", "IPv6 routes have no scope; leave it out")
        if scope != "global" and (via or hops):
            reader.problem(f"{path}.scope", f"a route through a gateway has the scope global, not {scope!r}")
    return route._replace(scope=scope)


def _destination(reader: Reader, body: dict[str, Any], path: str, others: list[str]) -> str:
    at = f"{path}.to"
    if "to" not in body:
        reader.problem(at, "is missing: the destination of the route, a prefix or 'default'")
        return ""
    text = reader.string(body["to"], at)
    if text == "default":
        family6 = any(":" in other for other in others)
        return "::/0" if family6 else "0.0.0.0/0"
    if not text:
        return ""
    if "%" in text:
        reader.problem(at, f"{text!r} names an interface; leave out {text[text.index('%') :]!r} and say it in 'dev'")
        return ""
    try:
        network = ipaddress.ip_network(text)
        if network.prefixlen >= 96 and _holds_ipv4(network.network_address):
            reader.problem(at, f"{text!r} is an IPv6 spelling of IPv4 addresses, which no packet carries")
        return str(network)
    except ValueError:
        pass
    try:
        network = ipaddress.ip_network(text, strict=False)
        reader.problem(at, f"{text!r} has host bits set; write '{network}'")
    except ValueError:
        reader.problem(at, f"{text!r} is no destination: a prefix such as 10.0.0.0/24, an address, or 'default'")
    return ""


def _check_ways(reader: Reader, path: str, kind: str, body: dict[str, Any], via: str, onlink: bool) -> None:
    ways = [key for key in ("via", "dev", "nexthops") if key in body]
    if kind != "unicast":
        if ways:
            reader.problem(f"{path}.{ways[0]}", f"a route of type {kind!r} leads nowhere; leave {ways[0]!r} out")
        return
    if "nexthops" in ways and len(ways) > 1:
        reader.problem(f"{path}.nexthops", "stands beside 'via' or 'dev'; say either those or 'nexthops'")
    if not ways:
        reader.problem(path, "says no way: 'via', 'dev' or 'nexthops' is missing, or a 'type' such as blackhole")
    if onlink and not ("via" in ways and "dev" in ways):
        reader.problem(f"{path}.onlink", "needs 'via' and 'dev': it says that the gateway is on that link")
    if "dev" not in ways and _is_link_local(via):
        reader.problem(f"{path}.dev", f"is missing: the link-local gateway {via} is on every link; say which one")


def _is_link_local(address: str) -> bool:
    return ":" in address and ipaddress.ip_address(address).is_link_local


def _nexthops(reader: Reader, value: Any, path: str) -> tuple[NextHop, ...]:
    hops: list[NextHop] = []
    items = reader.sequence(value, path)
    if isinstance(value, (list, tuple)) and len(items) < 2:
        reader.problem(path, "has to name two ways or more; for one, use 'via' and 'dev'")
    for i, item in enumerate(items):
        at = f"{path}[{i}]"
        if not isinstance(item, Mapping):
            reader.problem(at, f"{_show(item)} is no way such as {{via: 10.0.0.1, weight: 2}}")
            continue
        body = {key: entry for key, entry in reader.mapping(item, at, _NEXTHOP_KEYS).items() if entry is not None}
        hop = NextHop(
            reader.ip(body["via"], f"{at}.via") if "via" in body else "",
            reader.name_of_interface(body["dev"], f"{at}.dev") if "dev" in body else "",
            reader.integer(body["weight"], f"{at}.weight", 1, 256) if "weight" in body else 1,
            reader.boolean(body["onlink"], f"{at}.onlink") if "onlink" in body else False,
        )
        if not hop.via and not hop.dev:
            reader.problem(at, "says no way: 'via' or 'dev' is missing")
        if hop.onlink and not (hop.via and hop.dev):
            reader.problem(f"{at}.onlink", "needs 'via' and 'dev': it says that the gateway is on that link")
        if any((hop.via, hop.dev) == (other.via, other.dev) for other in hops):
            reader.problem(at, "stands here twice; use 'weight' to give a way a larger share")
        hops.append(hop)
    return tuple(sorted(hops))


def _table(reader: Reader, value: Any, path: str) -> int:
    if isinstance(value, str) and value in _TABLES:
        return _TABLES[value]
    if value in (LOCAL_TABLE, str(LOCAL_TABLE), "local"):
        reader.problem(path, "the table local is the kernel's own; use main or a number")
        return MAIN_TABLE
    return reader.integer(value, path, 1, _MAX_U32)


# --- sysctls ---------------------------------------------------------------------------------------------------------


def read_sysctls(reader: Reader, value: Any, path: str) -> dict[str, WantedSysctl]:
    """Sysctls by key, in any spelling that sysctl(8) takes."""
    found: dict[str, WantedSysctl] = {}
    for name, item in reader.mapping(value, path).items():
        at = f"{path}.{name}" if "." not in name else f"{path}[{name!r}]"
        key = key_of(name)
        if not re.match(r"net/[^/\s]+(/[^/\s]+)+\Z", key) or "/../" in key or "/./" in key:
            reader.problem(
                at, f"{name!r} is no sysctl of the network: it begins with 'net.', such as net.ipv4.ip_forward"
            )
        elif key in found:
            reader.problem(at, f"{name!r} is another spelling of {found[key].path}")
        elif isinstance(item, bool):
            found[key] = WantedSysctl(key, str(int(item)), at)
        elif isinstance(item, (int, str)) and normal(str(item)):
            found[key] = WantedSysctl(key, normal(str(item)), at)
        else:
            reader.problem(at, f"{_show(item)} is no value for a sysctl: a number, a string, true or false")
    _check_forwarding(reader, found)
    return found


def _check_forwarding(reader: Reader, sysctls: dict[str, WantedSysctl]) -> None:
    """Two names of one switch (devinet_sysctl_forward()) must not contradict each other."""
    short, long = (sysctls.get(key) for key in ("net/ipv4/ip_forward", "net/ipv4/conf/all/forwarding"))
    if short and long and short.value != long.value:
        reader.problem(long.path, f"{long.value!r} contradicts {short.path}, which is the same switch")


# --- links -----------------------------------------------------------------------------------------------------------


def _wires(reader: Reader, value: Any, wanted: Wanted) -> None:
    used: dict[Endpoint, str] = {}
    for i, item in enumerate(reader.sequence(value, "links")):
        path = f"links[{i}]"
        body = reader.mapping(item, path, ("endpoints",))
        if not isinstance(item, Mapping):
            continue
        ends = reader.sequence(body.get("endpoints"), f"{path}.endpoints")
        if len(ends) != 2:
            if "endpoints" in body and isinstance(body["endpoints"], (list, tuple)):
                reader.problem(f"{path}.endpoints", f"a link has two ends, not {len(ends)}")
            elif "endpoints" not in body:
                reader.problem(f"{path}.endpoints", 'is missing: the two ends, such as ["a:eth0", "b:eth0"]')
            continue
        read = [_endpoint(reader, end, f"{path}.endpoints[{j}]", wanted, used) for j, end in enumerate(ends)]
        if read[0] and read[1]:
            wanted.wires.append(Wire((read[0], read[1]), path))


def _endpoint(reader: Reader, value: Any, path: str, wanted: Wanted, used: dict[Endpoint, str]) -> Endpoint | None:
    text = reader.string(value, path)
    if not isinstance(value, str):
        return None
    namespace, colon, interface = text.partition(":")
    if not colon or not namespace or not interface:
        reader.problem(path, f"{text!r} is no endpoint: write namespace:interface, such as server:eth0")
        return None
    before = len(reader.problems)
    reader.name_of_namespace(namespace, path)
    reader.name_of_interface(interface, path)
    if len(reader.problems) > before:
        return None
    if interface == "lo":
        reader.problem(path, f"{text!r}: lo is every namespace's own loopback, no end of a link")
        return None
    if namespace == HOST:
        wanted.namespaces.setdefault(HOST, WantedNamespace(HOST, "namespaces.host"))
    if namespace not in wanted.namespaces:
        reader.problem(
            path, f"there is no namespace {namespace!r} in the topology{_did_you_mean(namespace, wanted.namespaces)}"
        )
        return None
    end = Endpoint(namespace, interface)
    if end in used:
        reader.problem(path, f"{text!r} is an end of two links: it is at {used[end]} already")
        return None
    bridge = wanted.namespaces[namespace].links.get(interface)
    if bridge and bridge.bridge:
        reader.problem(path, f"{text!r} is a bridge, at {bridge.path}, and no end of a link; links end in its ports")
        return None
    used[end] = path
    return end


def _complete_end(namespace: WantedNamespace, end: Endpoint) -> None:
    """An end of a link is the lab's own: up, with the kernel's MTU and no addresses, unless the document says more."""
    path = f"{namespace.path}.interfaces.{end.interface}"
    link = namespace.links.setdefault(end.interface, WantedLink(end.interface, path))
    link.up = True if link.up is None else link.up
    link.mtu = DEFAULT_MTU if link.mtu is None else link.mtu
    link.purge = True


def check_layer2(reader: Reader, wanted: Wanted) -> None:
    """Two ends of one wire must not have the same address, nor one namespace the same address twice."""
    for wire in wanted.wires:
        links = [wanted.namespaces[end.namespace].links[end.interface] for end in wire.ends]
        first = {item.value.ip.ip: item.path for item in links[0].addresses}
        for item in links[1].addresses:
            if item.value.ip.ip in first:
                reader.problem(
                    item.path,
                    f"{item.value.ip.ip} is on both ends of {wire.path}, at {first[item.value.ip.ip]} too; "
                    "an address is there once per network segment",
                )


# --- probes ----------------------------------------------------------------------------------------------------------


def read_probes(reader: Reader, value: Any, path: str, namespaces: Collection[str] | None = None) -> list[Probe]:
    """Reachability probes. ``namespaces``: those that the topology has; None if any may be meant."""
    from ._probe import Probe

    found: list[Probe] = []
    for i, item in enumerate(reader.sequence(value, path)):
        at = f"{path}[{i}]"
        before = len(reader.problems)
        if not isinstance(item, Mapping):
            reader.problem(at, f"{_show(item)} is no probe such as {{from: server, to: 10.0.0.1}}")
            continue
        body = {key: entry for key, entry in reader.mapping(item, at, _PROBE_KEYS).items() if entry is not None}
        for key in ("from", "to"):
            if key not in body:
                reader.problem(f"{at}.{key}", "is missing")
        source = _probe_namespace(reader, body["from"], f"{at}.from", namespaces) if "from" in body else HOST
        to = _probe_target(reader, body["to"], f"{at}.to") if "to" in body else ""
        protocol = reader.choice(body["protocol"], f"{at}.protocol", _PROTOCOLS) if "protocol" in body else "icmp"
        port = _probe_port(reader, body.get("port"), f"{at}.port", protocol)
        expect = reader.choice(body["expect"], f"{at}.expect", _EXPECTATIONS) if "expect" in body else "reachable"
        if expect == "refused" and protocol == "icmp":
            reader.problem(f"{at}.expect", "'refused' is an answer of a port; say 'protocol: tcp' and a 'port'")
        more: dict[str, Any] = _probe_http(reader, body, at, protocol)
        if "count" in body:
            more["count"] = reader.integer(body["count"], f"{at}.count", 1, 1000)
        if "deadline" in body:
            more["deadline"] = reader.number(body["deadline"], f"{at}.deadline", 0, 3600)
        if "source_seen" in body:
            more["source_seen"] = _source_seen(reader, body["source_seen"], f"{at}.source_seen", to, protocol, expect)
        more["listen"] = _listen(reader, body, at, to, protocol, namespaces)
        if len(reader.problems) == before:
            found.append(Probe(source, to, protocol, port, expect, path=at, **more))
    return found


def _probe_namespace(reader: Reader, value: Any, path: str, namespaces: Collection[str] | None) -> str:
    before = len(reader.problems)
    name = reader.name_of_namespace(value, path)
    if namespaces is not None and name != HOST and name not in namespaces and len(reader.problems) == before:
        near = _did_you_mean(name, namespaces)
        reader.problem(path, f"there is no namespace {name!r} in the topology{near}")
    return name


def _probe_port(reader: Reader, value: Any, path: str, protocol: str) -> int | None:
    if value is None:
        if protocol in ("tcp", "udp"):
            reader.problem(path, f"is missing: a {protocol} probe needs one")
        return 80 if protocol == "http" else None
    if protocol == "icmp":
        reader.problem(path, "ICMP has no ports; say 'protocol: tcp', or leave it out")
    return reader.integer(value, path, 1, 65535)


def _probe_http(reader: Reader, body: Mapping[str, Any], at: str, protocol: str) -> dict[str, Any]:
    """What is asked of an HTTP service."""
    found: dict[str, Any] = {}
    if protocol != "http":
        for key in ("path", "status", "body"):
            if key in body:
                reader.problem(f"{at}.{key}", f"a probe of protocol {protocol} has none; say 'protocol: http'")
        return found
    if "path" in body:
        found["url_path"] = url_path = reader.string(body["path"], f"{at}.path")
        if isinstance(body["path"], str) and not (_URL_PATH.match(url_path) and len(url_path) <= _MAX_URL_PATH):
            reader.problem(
                f"{at}.path",
                f"{_show(url_path)} is no path of a URL: it begins with '/', has ASCII characters without white space "
                f"(others as %XX), and at most {_MAX_URL_PATH}",
            )
    if "status" in body:
        found["status"] = reader.integer(body["status"], f"{at}.status", 100, 599)
        if found["status"] != 200 and body.get("listen", False) is not False:
            reader.problem(f"{at}.status", "the probe's own listener always says 200; leave out 'status' or 'listen'")
    if "body" in body:
        found["body"] = reader.string(body["body"], f"{at}.body")
        if body["body"] == "":
            reader.problem(f"{at}.body", "is empty, and every body holds that; leave it out")
    return found


def _source_seen(reader: Reader, value: Any, path: str, to: str, protocol: str, expect: str) -> str:
    """The address that the far end has to see."""
    text = reader.string(value, path)
    if not isinstance(value, str):
        return ""
    if "%" in text:
        rest = text[text.index("%") :]
        reader.problem(path, f"{text!r} names an interface; leave out {rest!r}: the far end's has a name of its own")
        return ""
    ip = reader.ip(text, path)
    if ip and to and (":" in ip) != (":" in to):
        reader.problem(path, f"{ip} is of another family than {to}, to which the packets go")
    if protocol == "http":
        reader.problem(path, "is not looked at with HTTP; say 'protocol: tcp', whose listener sees the same source")
    elif expect == "refused":
        reader.problem(path, "who refuses has seen nothing; expect 'reachable', or leave it out")
    elif protocol == "tcp" and expect == "unreachable":
        reader.problem(path, "a TCP service sees who connects, and nobody else; say 'protocol: icmp' or 'udp'")
    return ip


def _listen(
    reader: Reader, body: Mapping[str, Any], at: str, to: str, protocol: str, namespaces: Collection[str] | None
) -> Listen | None:
    """Where the probe's own listener shall be; None if it has none."""
    from ._probe import Listen

    value, path, source_seen = body.get("listen"), f"{at}.listen", "source_seen" in body
    if protocol == "icmp" and value not in (None, False) and not source_seen:
        reader.problem(path, "echo requests are answered by the kernel; with ICMP only 'source_seen' needs a listener")
    if value is False and source_seen:
        reader.problem(path, "'source_seen' needs a listener; leave out one of the two")
    if value is None or value is True:
        return Listen() if value or source_seen else None
    if value is False:
        return None
    if not isinstance(value, Mapping):
        reader.problem(path, f"{_show(value)} is neither true nor a dictionary of {_or(_LISTEN_KEYS, 'and')}")
        return None
    where = {key: entry for key, entry in reader.mapping(value, path, _LISTEN_KEYS).items() if entry is not None}
    return _listen_place(reader, where, path, to, protocol, namespaces)


def _listen_place(
    reader: Reader, where: Mapping[str, Any], path: str, to: str, protocol: str, namespaces: Collection[str] | None
) -> Listen:
    from ._probe import Listen

    namespace = address = ""
    port = 0
    if "namespace" in where:
        namespace = _probe_namespace(reader, where["namespace"], f"{path}.namespace", namespaces)
    if protocol == "icmp":
        for key in ("address", "port"):
            if key in where:
                reader.problem(f"{path}.{key}", "ICMP has no ports, and is seen at any address; leave it out")
        return Listen(namespace)
    if "address" in where:
        address = reader.ip(where["address"], f"{path}.address")
        if _is_link_local(address):
            reader.problem(f"{path}.address", f"{address} is link-local; name the 'namespace' alone")
        elif address and to and (":" in address) != (":" in to):
            reader.problem(f"{path}.address", f"{address} is of another family than {to}, to which the packets go")
    if "port" in where:
        port = reader.integer(where["port"], f"{path}.port", 1, 65535)
    return Listen(namespace, address, port)


def _probe_target(reader: Reader, value: Any, path: str) -> str:
    text = reader.string(value, path)
    address, percent, zone = text.partition("%")
    if percent:
        reader.name_of_interface(zone, path)
    if not isinstance(value, str):
        return ""
    ip = reader.ip(address, path)
    if _is_link_local(ip) and not percent:
        reader.problem(path, f"{ip} is link-local: say on which interface, such as '{ip}%eth0'")
    return ip + percent + zone


# --- words -----------------------------------------------------------------------------------------------------------


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _show(value: Any) -> str:
    """A value as the user wrote it, cut short."""
    text = {True: "true", False: "false", None: "null"}.get(value) if isinstance(value, (bool, type(None))) else None
    text = repr(value) if text is None else text
    return text if len(text) <= 60 else text[:57] + "..."


def _or(words: Collection[str] | None, last: str) -> str:
    items = list(words or ())
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + f" {last} {items[-1]}"


def _did_you_mean(word: str, words: Collection[str], listed: bool = True) -> str:
    return did_you_mean(word, words) or (f"; there are {_or(sorted(words), 'and')}" if listed and words else "")


def _holds_ipv4(ip: IPAddress) -> bool:
    return int(ip) > 1 and any(ip in network for network in _EMBEDDED_IPV4)


def _is_prefix(text: str) -> bool:
    try:
        ipaddress.ip_interface(text)
    except ValueError:
        return False
    return "/" in text


def _name_problem(name: str) -> str:
    """What is wrong with a namespace's name; empty if nothing is."""
    if not _NAMESPACE.match(name):
        return f"{name!r} is no name for a namespace: letters, digits, '_', '.' and '-', the first no '.' or '-'"
    if len(name.encode()) > 255:
        return f"the name is {len(name)} characters long; a file name has at most 255"
    return ""
