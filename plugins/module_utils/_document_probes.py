# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Probes: from what the user wrote to what is sent.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from ._document_hosts import Hosts, Part
from ._model import HOST
from ._reader import Reader, enumeration, is_link_local, show, suggestion

if TYPE_CHECKING:
    from ._probe import Listen, Probe

_PROBE_KEYS = (
    "from", "to", "protocol", "port", "path", "status", "body", "expect", "source_seen", "listen", "count", "deadline",
)  # fmt: skip
_LISTEN_KEYS = ("namespace", "address", "port")
_PROTOCOLS = ("icmp", "tcp", "udp", "http")
_EXPECTATIONS = ("reachable", "unreachable", "refused")
#: A path of a URL with its query: what may stand in a request line.
_URL_PATH = re.compile(r"/[!-~]*\Z")
_MAX_URL_PATH = 2048

_ON_ONE_HOST = "and a probe listens on its own; leave this out, and have a service answer there"


def read_probes(
    reader: Reader, value: Any, path: str, hosts: Hosts, namespaces: Collection[str] | None = None
) -> list[tuple[str, Probe]]:
    """Reachability probes, each with the host that it is sent from, empty for the one that there is.

    ``namespaces``: those that the topology has; None if any may be meant.
    """
    from ._probe import Probe

    names = _Names(reader, hosts, namespaces)
    found: list[tuple[str, Probe]] = []
    for i, item in enumerate(reader.sequence(value, path)):
        at = f"{path}[{i}]"
        before = len(reader.problems)
        if not isinstance(item, Mapping):
            reader.problem(at, f"{show(item)} is no probe such as {{from: server, to: 10.0.0.1}}")
            continue
        body = {key: entry for key, entry in reader.mapping(item, at, _PROBE_KEYS).items() if entry is not None}
        for key in ("from", "to"):
            if key not in body:
                reader.problem(f"{at}.{key}", "is missing")
        host, source = names.place(body["from"], f"{at}.from") if "from" in body else ("", HOST)
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
        more["listen"] = _listen(reader, body, at, to, protocol, names.of(host))
        if len(reader.problems) == before:
            found.append((host, Probe(source, to, protocol, port, expect, path=at, **more)))
    return found


class _Names:
    """Namespaces by the names that a document has for them."""

    def __init__(self, reader: Reader, hosts: Hosts, known: Collection[str] | None, only: str | None = None) -> None:
        self._reader = reader
        self._hosts = hosts
        self._known = known
        self._only = only

    def of(self, host: str) -> _Names:
        """Those of one host."""
        return _Names(self._reader, self._hosts, self._known, host)

    def place(self, value: Any, path: str) -> tuple[str, str]:
        """The host of a namespace, and its name there."""
        text = self._reader.string(value, path)
        placed = self._hosts.place(self._reader, text, path) if isinstance(value, str) else None
        if placed is None:
            return "", HOST
        host, name = placed
        before = len(self._reader.problems)
        self._reader.name_of_namespace(name, path)
        known = self._known
        if known is not None and name != HOST and text not in known and len(self._reader.problems) == before:
            near = suggestion(text, known)
            self._reader.problem(path, f"there is no namespace {text!r} in the topology{near}")
        if self._only is not None and host != self._only and len(self._reader.problems) == before:
            self._reader.problem(path, f"{text!r} is on another host than 'from', {_ON_ONE_HOST}")
        return host, name


def check_listeners(reader: Reader, parts: Mapping[str, Part]) -> None:
    """A probe has its own listener on the host that it is sent from."""
    owners: dict[str, dict[str, str]] = {}
    for host, part in parts.items():
        for namespace in part.wanted.namespaces.values():
            for item in (item for link in namespace.links.values() for item in link.addresses):
                owners.setdefault(str(item.value.ip.ip), {})[host] = f"{host}/{namespace.name}"
    for host, part in parts.items():
        for probe in part.probes:
            there = owners.get(probe.to, {})
            if probe.listen and not probe.listen.namespace and there and host not in there:
                path = f"{probe.path}.{'source_seen' if probe.source_seen else 'listen'}"
                text = f"{probe.to} is on another host than 'from', at {enumeration(sorted(there.values()), 'and')}"
                reader.problem(path, f"{text}, {_ON_ONE_HOST}")


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
                f"{show(url_path)} is no path of a URL: it begins with '/', has ASCII characters without white space "
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


def _listen(reader: Reader, body: Mapping[str, Any], at: str, to: str, protocol: str, names: _Names) -> Listen | None:
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
        reader.problem(path, f"{show(value)} is neither true nor a dictionary of {enumeration(_LISTEN_KEYS, 'and')}")
        return None
    where = {key: entry for key, entry in reader.mapping(value, path, _LISTEN_KEYS).items() if entry is not None}
    return _listen_place(reader, where, path, to, protocol, names)


def _listen_place(reader: Reader, where: Mapping[str, Any], path: str, to: str, protocol: str, names: _Names) -> Listen:
    from ._probe import Listen

    namespace = address = ""
    port = 0
    if "namespace" in where:
        _host, namespace = names.place(where["namespace"], f"{path}.namespace")
    if protocol == "icmp":
        for key in ("address", "port"):
            if key in where:
                reader.problem(f"{path}.{key}", "ICMP has no ports, and is seen at any address; leave it out")
        return Listen(namespace)
    if "address" in where:
        address = reader.ip(where["address"], f"{path}.address")
        if is_link_local(address):
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
    if is_link_local(ip) and not percent:
        reader.problem(path, f"{ip} is link-local: say on which interface, such as '{ip}%eth0'")
    return ip + percent + zone
