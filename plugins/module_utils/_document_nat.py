# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Address translation: from what the user wrote to the model.

One entry may stand for several rules: one in each chain that it is needed in, and one for each address family where it
names no address.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any

from ._model import WantedNatRule
from ._nat import (
    ALL_BITS,
    COMMENT_BYTES,
    FLAGS,
    HAIRPIN,
    OWNER,
    PORT_PROTOCOLS,
    PROTOCOLS,
    NatRule,
    hairpin_of,
    joined_ports,
    mark_text,
    output_of,
    ports_text,
)
from ._reader import Reader, enumeration, show

_SNAT_MATCHES = ("source", "destination", "out_interface", "protocol", "source_ports", "destination_ports", "mark")
_DNAT_MATCHES = ("source", "destination", "in_interface", "mark")

_SNAT_KEYS = (
    *_SNAT_MATCHES,
    *(f"not_{key}" for key in _SNAT_MATCHES),
    *("family", "to_source", "masquerade", *FLAGS, "comment"),
)
_DNAT_KEYS = (
    *_DNAT_MATCHES,
    *(f"not_{key}" for key in _DNAT_MATCHES),
    *("family", "protocol", "port", "ports", "to_destination", "local", "hairpin", *FLAGS, "comment"),
)

BACKENDS = ("auto", "nftables", "iptables")

_ALL_PORTS = "1-65535"

_ALIASES = {"ipv6-icmp": "icmpv6", "icmp6": "icmpv6"}
_FAMILIES = {"ipv4": 4, "ipv6": 6}
_FAMILY_OF_PROTOCOL = {"icmp": 4, "icmpv6": 6}
_TARGET = re.compile(r"(?:\[(?P<six>[^\]]*)\]|(?P<four>[^:\[\]]*))(?::(?P<ports>[^:]*))?\Z")


def read_snat(reader: Reader, value: Any, path: str, lab: str) -> list[WantedNatRule]:
    """Rules that change the source of what leaves a namespace."""
    return _read(reader, value, path, lab, _snat)


def read_dnat(reader: Reader, value: Any, path: str, lab: str) -> list[WantedNatRule]:
    """Rules that change the destination of what comes into a namespace, or of what it sends itself."""
    return _read(reader, value, path, lab, _dnat)


def _read(reader: Reader, value: Any, path: str, lab: str, read: Any) -> list[WantedNatRule]:
    found: list[WantedNatRule] = []
    seen: dict[tuple[NatRule, bool], str] = {}
    for i, item in enumerate(reader.sequence(value, path)):
        at = f"{path}[{i}]"
        if not isinstance(item, Mapping):
            example = "{protocol: tcp, port: 80, to_destination: '10.0.0.2:80'}"
            if read is _snat:
                example = "{source: 10.0.0.0/24, out_interface: eth0, masquerade: true}"
            reader.problem(at, f"{show(item)} is no rule such as {example}")
            continue
        before = len(reader.problems)
        rules = read(_Entry(reader, item, at, lab))
        if len(reader.problems) > before:
            continue
        for rule in rules:
            known = seen.setdefault((rule.value, rule.hairpin), at)
            # Entries for different packets may have the same companion: for what the namespace sends, for neighbours.
            if known != at and rule.value.chain != "output" and not rule.hairpin:
                reader.problem(at, f"says the same as {known}; leave one of them out")
                break
            if known == at:
                found.append(rule)
    return found


class _Entry:
    """One entry of a list of rules, with its keys that say something."""

    def __init__(self, reader: Reader, value: Any, path: str, lab: str) -> None:
        self.reader = reader
        self.path = path
        self.lab = lab
        self._value = value
        self.body: dict[str, Any] = {}

    def open(self, keys: tuple[str, ...]) -> None:
        body = self.reader.mapping(self._value, self.path, keys)
        self.body = {key: item for key, item in body.items() if item is not None}

    def problem(self, key: str, text: str) -> None:
        self.reader.problem(f"{self.path}.{key}" if key else self.path, text)

    def flag(self, key: str) -> bool:
        return self.reader.boolean(self.body[key], f"{self.path}.{key}") if key in self.body else False

    def flags(self) -> dict[str, Any]:
        return {key: self.flag(key) for key in FLAGS}

    def matches(self, keys: tuple[str, ...]) -> dict[str, Any]:
        """The matches as words of NatRule, in their normal form, and which of them are negated."""
        found: dict[str, Any] = {}
        negated = []
        for name in keys:
            key = name
            if f"not_{name}" in self.body:
                key = f"not_{name}"
                if name in self.body:
                    self.problem(key, f"stands beside {name!r}; say one of them")
                negated.append(name)
            if key in self.body:
                found[name] = self._match(name, key)
        for name in negated:
            if found.get(name) == _ALL_PORTS:
                self.problem(f"not_{name}", "is every port, so that nothing is left to match")
        found["negated"] = tuple(name for name in NatRule._fields if name in negated)
        return found

    def _match(self, name: str, key: str) -> str:
        value, path = self.body[key], f"{self.path}.{key}"
        if name in ("source", "destination"):
            return self._prefix(value, path, is_negated=key != name)
        if name in ("in_interface", "out_interface"):
            return self.reader.name_of_interface(value, path)
        if name == "protocol":
            return _protocol(self.reader, value, path)
        if name == "mark":
            return _mark(self.reader, value, path)
        return _ports(self.reader, value, path)

    def _prefix(self, value: Any, path: str, is_negated: bool) -> str:
        text = self.reader.string(value, path)
        if not isinstance(value, str):
            return ""
        prefix = self.reader.prefix(text, path, "prefix such as 10.0.0.0/24, and no address")
        if is_negated and prefix.endswith("/0"):
            self.reader.problem(path, f"{text!r} is every address, so that nothing is left to match")
        return prefix

    def families(self, matches: dict[str, Any], to_key: str, to_address: str) -> tuple[int, ...]:
        """The address families that the entry is for: those of its addresses, or what it says, or both."""
        found: dict[int, str] = {}
        said = self.body.get("family")
        if said is not None and said == self.reader.choice(said, f"{self.path}.family", _FAMILIES):
            found[_FAMILIES[said]] = "family"
        for name in ("source", "destination"):
            if matches.get(name):
                self._agree(found, _family_of(matches[name]), name if name in self.body else f"not_{name}")
        if to_address:
            self._agree(found, _family_of(to_address), to_key)
        protocol = "" if "protocol" in matches["negated"] else matches.get("protocol", "")
        if protocol in _FAMILY_OF_PROTOCOL:
            self._agree(found, _FAMILY_OF_PROTOCOL[protocol], "protocol")
        return tuple(found) or (4, 6)

    def _agree(self, found: dict[int, str], family: int, key: str) -> None:
        if found and family not in found:
            ((other, first),) = found.items()
            text = (
                f"{show(self.body[key])} is of IPv{family}, but {first!r} is of IPv{other}; a rule is for one of them"
            )
            self.problem(key, text)
        else:
            found.setdefault(family, key)

    def target(self, key: str) -> tuple[str, str]:
        """The addresses and the ports that are put in, as NatRule has them."""
        value, path = self.body[key], f"{self.path}.{key}"
        text = self.reader.string(value, path)
        if not isinstance(value, str):
            return "", ""
        if text.count(":") > 1 and not text.startswith("["):
            return self._addresses(text, path), ""
        parts = _TARGET.match(text)
        if not parts or not text:
            self.reader.problem(
                path,
                f"{text!r} is none of: an address, a range of two with '-', either with ':PORT' after it "
                "(for IPv6 '[ADDRESS]:PORT'), or ':PORT'",
            )
            return "", ""
        addresses, ports = parts["six"] or parts["four"] or "", parts["ports"]
        if parts["six"] is not None and ":" not in addresses:
            self.reader.problem(path, f"{addresses!r} in brackets is no IPv6 address")
            return "", ""
        return (
            self._addresses(addresses, path) if addresses else "",
            "" if ports is None else _one_range(self.reader, ports, path),
        )

    def _addresses(self, text: str, path: str) -> str:
        before = len(self.reader.problems)
        first, dash, last = text.partition("-")
        ends = [self.reader.ip(end, path) for end in ([first, last] if dash else [first])]
        if len(self.reader.problems) > before:
            return ""
        addresses = [ipaddress.ip_address(end) for end in ends]
        if any(ip.is_unspecified or ip.is_multicast or str(ip) == "255.255.255.255" for ip in addresses):
            self.reader.problem(path, f"{text!r} is no address that a machine can have")
        elif len({ip.version for ip in addresses}) > 1:
            self.reader.problem(path, f"{text!r} is a range from one address family to the other")
        elif int(addresses[0]) > int(addresses[-1]):
            self.reader.problem(path, f"the range {text!r} is backwards; write '{addresses[-1]}-{addresses[0]}'")
        return "-".join(dict.fromkeys(map(str, addresses)))

    def comment(self) -> str:
        if "comment" not in self.body:
            return ""
        path = f"{self.path}.comment"
        text = self.reader.string(self.body["comment"], path)
        room = COMMENT_BYTES - len(f"{OWNER}{self.lab} ") - len(f"{HAIRPIN} ")
        if not text.isprintable() or '"' in text or text != text.strip():
            self.reader.problem(
                path, f"{show(text)}: double quotes, line breaks and white space around it are not possible here"
            )
        elif len(text.encode()) > room:
            self.reader.problem(path, f"the comment is {len(text.encode())} bytes long; there is room for {room}")
        elif text == HAIRPIN or text.startswith(f"{HAIRPIN} "):
            self.reader.problem(path, f"{text!r}: {HAIRPIN!r} at the beginning is for the rules of published ports")
        return text

    def check_ports(self, matches: dict[str, Any], to_ports: str, port_key: str, to_key: str) -> None:
        protocol = matches.get("protocol", "")
        is_negated = "protocol" in matches["negated"]
        for key, field in ((port_key, "destination_ports"), ("source_ports", "source_ports")):
            ports = matches.get(field)
            if ports and (protocol not in PORT_PROTOCOLS or is_negated):
                text = _needs_ports(f"the ports {ports} need", protocol, is_negated)
                self.problem(key if key in self.body else f"not_{key}", text)
        if to_ports and (protocol not in PORT_PROTOCOLS or is_negated):
            self.problem(to_key, _needs_ports(f"the new ports {to_ports} need", protocol, is_negated))


def _needs_ports(start: str, protocol: str, is_negated: bool) -> str:
    has = f"not_protocol {protocol}" if is_negated else protocol
    other = f", and {has!r} is none" if protocol else ""
    return f"{start} a 'protocol' that has ports: {enumeration(PORT_PROTOCOLS, 'or')}{other}"


def _snat(entry: _Entry) -> list[WantedNatRule]:
    entry.open(_SNAT_KEYS)
    matches = entry.matches(_SNAT_MATCHES)
    masquerade = entry.flag("masquerade")
    to_address, to_ports = entry.target("to_source") if "to_source" in entry.body else ("", "")
    if masquerade and "to_source" in entry.body:
        entry.problem("masquerade", "stands beside 'to_source'; masquerading takes the address of the interface itself")
    elif "to_source" not in entry.body and entry.body.get("masquerade", False) is False:
        entry.problem("to_source", "is missing: the new source address; or say 'masquerade: true'")
    entry.check_ports(matches, to_ports, "destination_ports", "to_source")
    rule = NatRule(
        "postrouting",
        "masquerade" if masquerade else "snat",
        to_address=to_address,
        to_ports=to_ports,
        comment=entry.comment(),
        **entry.flags(),
        **matches,
    )
    families = entry.families(matches, "to_source", to_address)
    return [WantedNatRule(_normal(rule._replace(family=family)), entry.path) for family in families]


def _dnat(entry: _Entry) -> list[WantedNatRule]:
    entry.open(_DNAT_KEYS)
    if "port" in entry.body and "ports" in entry.body:
        entry.problem("ports", "stands beside 'port'; say one of them")
    matches = entry.matches(_DNAT_MATCHES)
    port_key = "ports" if "ports" in entry.body else "port"
    if "protocol" in entry.body:
        matches["protocol"] = _protocol(entry.reader, entry.body["protocol"], f"{entry.path}.protocol")
    if port_key in entry.body:
        matches["destination_ports"] = _ports(entry.reader, entry.body[port_key], f"{entry.path}.{port_key}")
    if "to_destination" not in entry.body:
        entry.problem("to_destination", "is missing: the new destination, such as 10.0.0.2:80")
        return []
    to_address, to_ports = entry.target("to_destination")
    entry.check_ports(matches, to_ports, port_key, "to_destination")
    is_for_all = not any(matches.get(key) for key in ("protocol", "destination", "in_interface", "mark"))
    is_from_all = not matches.get("source") or matches["source"].endswith("/0")
    if is_for_all and is_from_all and port_key not in entry.body and "protocol" not in entry.body:
        what = "'protocol' and 'port', 'destination', 'source' or 'in_interface'"
        entry.problem(
            "", f"says nothing of what it is for, so that it would catch all that comes in: {what} is missing"
        )
    rule = NatRule(
        "prerouting",
        "dnat",
        local=not matches.get("destination") or "destination" in matches["negated"],
        to_address=to_address,
        to_ports=to_ports,
        comment=entry.comment(),
        **entry.flags(),
        **matches,
    )
    local, hairpin = entry.flag("local"), entry.flag("hairpin")
    if hairpin and (not to_address or "-" in to_address):
        entry.problem("hairpin", "needs one address in 'to_destination', whose neighbours it is for")
    if local and "destination" in matches["negated"]:
        # A rule has one match of the destination, and that of what is sent leaves out the loopback addresses.
        entry.problem(
            "not_destination",
            "stands beside 'local', and would then also catch what the namespace sends to its own loopback addresses; "
            "say 'destination', or make it two rules",
        )
    rules = []
    for family in entry.families(matches, "to_destination", to_address):
        one = _normal(rule._replace(family=family))
        rules.append(WantedNatRule(one, entry.path))
        if local:
            rules.append(WantedNatRule(output_of(one), entry.path))
        if hairpin:
            rules.append(WantedNatRule(hairpin_of(one), entry.path, hairpin=True))
    return rules


def _normal(rule: NatRule) -> NatRule:
    """A prefix of all addresses says no more than the family does."""
    return rule._replace(
        source="" if rule.source.endswith("/0") else rule.source,
        destination="" if rule.destination.endswith("/0") else rule.destination,
    )


# --- values ----------------------------------------------------------------------------------------------------------


def _family_of(address: str) -> int:
    return 6 if ":" in address else 4


def _protocol(reader: Reader, value: Any, path: str) -> str:
    text = _ALIASES.get(str(value), str(value))
    names = {number: name for name, number in PROTOCOLS.items()}
    if text in PROTOCOLS:
        return text
    if isinstance(value, bool) or not _is_number(text) or not 1 <= int(text) <= 255:
        reader.problem(path, f"{show(value)} is no protocol: {enumeration(PROTOCOLS, 'or')}, or a number from 1 to 255")
        return ""
    return names.get(int(text), str(int(text)))


def _mark(reader: Reader, value: Any, path: str) -> str:
    parts = str(value).lower().split("/")
    try:
        numbers = [int(part, 0) for part in parts]
    except ValueError:
        numbers = []
    if isinstance(value, bool) or not 1 <= len(numbers) <= 2 or not all(0 <= n <= ALL_BITS for n in numbers):
        reader.problem(path, f"{show(value)} is no mark: a number such as 0x1, or one with a mask such as 0x1/0xff")
        return ""
    mark, mask = numbers[0], numbers[-1] if len(numbers) > 1 else ALL_BITS
    if mask == 0:
        reader.problem(path, f"{show(value)} has an empty mask, with which all packets are alike; leave it out")
    elif mark & ~mask:
        reader.problem(path, f"{show(value)} has bits outside of its mask, so that nothing would match")
    return mark_text(mark, mask)


def _ports(reader: Reader, value: Any, path: str) -> str:
    """Ports and ranges in ascending order, with those that touch made one."""
    items = list(value) if isinstance(value, (list, tuple)) else value.split(",") if isinstance(value, str) else [value]
    if isinstance(value, (list, tuple)) and not items:
        reader.problem(path, "is empty; leave it out for all ports")
    before = len(reader.problems)
    texts = [
        _one_range(reader, item, f"{path}[{i}]" if isinstance(value, (list, tuple)) else path)
        for i, item in enumerate(items)
    ]
    if len(reader.problems) > before or not texts:
        return ""
    return ports_text(joined_ports((int(text.partition("-")[0]), int(text.rpartition("-")[2])) for text in texts))


def _is_number(text: str) -> bool:
    # Python takes no number of thousands of digits.
    return text.isascii() and text.isdigit() and len(text) <= 10


def _one_range(reader: Reader, value: Any, path: str) -> str:
    text = str(value).strip().replace(":", "-")
    ends = text.split("-")
    if isinstance(value, bool) or len(ends) > 2 or not all(map(_is_number, ends)):
        reader.problem(path, f"{show(value)} is no port such as 80, and no range such as 8000-8100")
        return ""
    numbers = [int(end) for end in ends]
    if not all(1 <= number <= 65535 for number in numbers):
        reader.problem(path, f"{show(value)} is out of range: a port is from 1 to 65535")
        return ""
    if numbers[0] > numbers[-1]:
        reader.problem(path, f"the range {show(value)} is backwards; write '{numbers[-1]}-{numbers[0]}'")
        return ""
    return "-".join(dict.fromkeys(map(str, numbers)))
