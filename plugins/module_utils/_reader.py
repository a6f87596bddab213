# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every reader of user input needs: checked values, and the words for what is wrong with the others.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping
from typing import Any

from ._errors import InvalidInput, Problem, did_you_mean
from ._model import IPAddress

_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")
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
            self.problem(path, f"{show(value)} is no dictionary" + (f" of {enumeration(keys, 'and')}" if keys else ""))
            return {}
        result = {}
        for key, item in value.items():
            if not isinstance(key, str):
                self.problem(path, f"the key {show(key)} is no string; put it in quotes")
            elif keys is not None and key not in keys:
                self.problem(join(path, key), f"there is no such key here{suggestion(key, keys)}")
            else:
                result[key] = item
        return result

    def sequence(self, value: Any, path: str) -> list[Any]:
        if value is None:
            return []
        if not isinstance(value, (list, tuple)):
            self.problem(path, f"{show(value)} is no list")
            return []
        return list(value)

    def string(self, value: Any, path: str, errors: str = "strict") -> str:
        """A text. With ``errors`` as ``surrogateescape`` it may hold bytes that are no UTF-8."""
        if not isinstance(value, str):
            self.problem(path, f"{show(value)} is no string; put it in quotes if it is meant as one")
            return ""
        try:
            value.encode("utf-8", errors)
        except UnicodeEncodeError:
            # Half of a surrogate pair, which JSON can say and nothing can store.
            self.problem(path, f"{show(value)} is no text")
            return ""
        return str(value)

    def boolean(self, value: Any, path: str) -> bool:
        if not isinstance(value, bool):
            self.problem(path, f"{show(value)} is neither true nor false")
            return False
        return value

    def integer(self, value: Any, path: str, low: int, high: int) -> int:
        # Python takes no number of thousands of digits.
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 20:
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            self.problem(path, f"{show(value)} is no whole number")
            return low
        number = int(value)
        if not low <= number <= high:
            self.problem(path, f"{number} is out of range: it has to be from {low} to {high}")
            return low
        return number

    def number(self, value: Any, path: str, low: float, high: float) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.problem(path, f"{show(value)} is no number")
            return low
        if not low < value <= high:
            self.problem(path, f"{value} is out of range: it has to be above {low:g} and at most {high:g} (seconds)")
            return high
        return float(value)

    def choice(self, value: Any, path: str, choices: Collection[str]) -> str:
        if isinstance(value, str) and value in choices:
            return str(value)
        near = suggestion(str(value), choices, listed=False)
        self.problem(path, f"{show(value)} is not one of {enumeration(choices, 'and')}{near}")
        return next(iter(choices))

    def name_of_namespace(self, value: Any, path: str) -> str:
        name = self.string(value, path)
        problem = name_problem(name) if isinstance(value, str) else ""
        if problem:
            self.problem(path, problem)
        return name

    def name_of_interface(self, value: Any, path: str, is_second: bool = False) -> str:
        """The name of an interface, or one of its second ones (altname), which may be longer."""
        name = self.string(value, path, "surrogateescape")
        if not isinstance(value, str) or name != value:
            return name
        length = len(name.encode("utf-8", "surrogateescape"))
        longest, constant = (127, "ALTIFNAMSIZ") if is_second else (15, "IFNAMSIZ")
        if not 1 <= length <= longest:
            self.problem(path, f"{name!r} is {length} bytes long; an interface name has 1 to {longest} ({constant})")
        elif name in (".", ".."):
            self.problem(path, f"{name!r} is no name for an interface")
        elif any(c in "/:%\0" or c.isspace() for c in name):
            # The kernel takes % for a template: "a%d" would silently become "a0" (dev_alloc_name()). With the byte 0 it
            # sees the name end.
            self.problem(path, f"{name!r} is no name for an interface: it must not hold '/', ':', '%' or white space")
        elif name in ("all", "default"):
            self.problem(path, f"{name!r} is no name for an interface: sysctls use it for something else")
        return name

    def ip(self, value: Any, path: str, zone_hint: str = "") -> str:
        """An address without prefix, in its canonical spelling; empty after a problem.

        ``zone_hint``: where else the interface may be said.
        """
        text = self.string(value, path)
        if not isinstance(value, str):
            return ""
        if "%" in text:
            self.problem(path, f"{text!r} names an interface; leave out {text[text.index('%') :]!r}{zone_hint}")
            return ""
        try:
            ip = ipaddress.ip_address(text)
            if holds_ipv4(ip):
                self.problem(path, f"{text!r} is an IPv6 spelling of an IPv4 address, which no packet carries")
            return str(ip)
        except ValueError:
            hint = f"; leave out {text[text.index('/') :]!r}" if is_prefix(text) else ""
            self.problem(path, f"{text!r} is no IPv4 or IPv6 address{hint}")
            return ""

    def prefix(self, text: str, path: str, what: str) -> str:
        """A prefix, or an address as the prefix of itself, in its canonical spelling; empty if it is none.

        ``what``: what is asked for, as in "is no ...".
        """
        if "%" in text:
            zone = text[text.index("%") :].partition("/")[0]
            self.problem(path, f"{text!r} names an interface; leave out {zone!r}")
            return ""
        try:
            network = ipaddress.ip_network(text)
        except ValueError:
            try:
                hint = f"has host bits set; write '{ipaddress.ip_network(text, strict=False)}'"
            except ValueError:
                hint = f"is no {what}"
            self.problem(path, f"{text!r} {hint}")
            return ""
        if network.prefixlen >= 96 and holds_ipv4(network.network_address):
            self.problem(path, f"{text!r} is an IPv6 spelling of IPv4 addresses, which no packet carries")
        return str(network)


# --- words -----------------------------------------------------------------------------------------------------------


def join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def show(value: Any) -> str:
    """A value as the user wrote it, cut short."""
    text = {True: "true", False: "false", None: "null"}.get(value) if isinstance(value, (bool, type(None))) else None
    text = repr(value) if text is None else text
    return text if len(text) <= 60 else text[:57] + "..."


def enumeration(words: Collection[str] | None, last: str) -> str:
    items = list(words or ())
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + f" {last} {items[-1]}"


def suggestion(word: str, words: Collection[str], listed: bool = True) -> str:
    return did_you_mean(word, words) or (f"; there are {enumeration(sorted(words), 'and')}" if listed and words else "")


def holds_ipv4(ip: IPAddress) -> bool:
    return int(ip) > 1 and any(ip in network for network in _EMBEDDED_IPV4)


def is_prefix(text: str) -> bool:
    try:
        ipaddress.ip_interface(text)
    except ValueError:
        return False
    return "/" in text


def name_problem(name: str) -> str:
    """What is wrong with a namespace's name; empty if nothing is."""
    if not _NAMESPACE.match(name):
        return f"{name!r} is no name for a namespace: letters, digits, '_', '.' and '-', the first no '.' or '-'"
    if len(name.encode()) > 255:
        return f"the name is {len(name)} characters long; a file name has at most 255"
    return ""


def is_link_local(address: str) -> bool:
    return ":" in address and ipaddress.ip_address(address).is_link_local
