# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a topology document says of a namespace as a machine (host name, files), and as a host of an inventory.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ._model import HOST, HOSTNAME, HOSTS_FILE, RESOLV_CONF, Attach, WantedNamespace
from ._reader import Reader, join, show

_ATTACH_KEYS = ("pid", "path", "replace_symlink")
_INVENTORY_KEYS = ("groups", "labels", "vars")
NODE_KEYS = ("hostname", "resolv_conf", "hosts_file", *_INVENTORY_KEYS)

_HOSTNAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*")
#: What uname(2) has room for.
_HOSTNAME_LENGTH = 64

#: include/linux/threads.h: PID_MAX_LIMIT
_MOST_PIDS = 4 * 1024 * 1024

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass
class Node:
    """A namespace as a host of an inventory. Nothing of it concerns the machine."""

    groups: list[str] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    variables: dict[str, Any] = field(default_factory=dict)


def read_node(reader: Reader, name: str, body: Mapping[str, Any], path: str) -> Node:
    if name == HOST:
        for key in NODE_KEYS:
            if body.get(key) is not None:
                whose = "is a host of some inventory already; say it there"
                text = (
                    whose if key in _INVENTORY_KEYS else "is the machine itself, whose name and files are not changed"
                )
                reader.problem(f"{path}.{key}", f"'host' {text}")
        return Node()
    node = Node()
    for i, group in enumerate(reader.sequence(body.get("groups"), f"{path}.groups")):
        node.groups.append(_identifier(reader, group, f"{path}.groups[{i}]", "a group"))
    for label, value in reader.mapping(body.get("labels"), f"{path}.labels").items():
        name = _identifier(reader, label, f"{path}.labels", "a label")
        node.labels[name] = reader.string(value, join(f"{path}.labels", label))
    for variable, value in reader.mapping(body.get("vars"), f"{path}.vars").items():
        node.variables[_identifier(reader, variable, f"{path}.vars", "a variable")] = value
    return node


def read_attach(reader: Reader, value: Any, path: str) -> Attach | None:
    """Where a namespace comes from that something else has made: a process, or a path."""
    if value is None:
        return None
    body = reader.mapping(value, path, _ATTACH_KEYS)
    said = [key for key in ("pid", "path") if body.get(key) is not None]
    if len(said) != 1:
        text = "say either 'pid' or 'path'" if said else "lacks what it is: 'pid' (a process) or 'path'"
        reader.problem(join(path, said[-1]) if said else path, text)
        return Attach()
    file = ""
    if "path" in said:
        file = reader.string(body["path"], join(path, "path"))
        if not file.startswith("/") or "\0" in file:
            reader.problem(join(path, "path"), f"{show(body['path'])} is no absolute path, such as '/proc/4242/ns/net'")
    pid = reader.integer(body["pid"], join(path, "pid"), 1, _MOST_PIDS) if "pid" in said else 0
    replace = body.get("replace_symlink") is not None and reader.boolean(
        body["replace_symlink"], join(path, "replace_symlink")
    )
    return Attach(pid, file, replace)


def _identifier(reader: Reader, value: Any, path: str, what: str) -> str:
    if isinstance(value, str) and _IDENTIFIER.fullmatch(value):
        return value
    reader.problem(path, f"{show(value)} is no name for {what}: letters, digits and '_', the first no digit")
    return ""


def read_machine(
    reader: Reader, body: Mapping[str, Any], lab: Mapping[str, WantedNamespace], key: str
) -> dict[str, tuple[str, str]]:
    """The host name and the files of a namespace. ``lab`` has all namespaces, with their links and host names."""
    found: dict[str, tuple[str, str]] = {}
    path = lab[key].path
    if HOSTNAME in lab[key].node:
        found[HOSTNAME] = lab[key].node[HOSTNAME]
    if body.get("resolv_conf") is not None:
        text = _resolv_conf(reader, body["resolv_conf"], f"{path}.resolv_conf")
        found[RESOLV_CONF] = (text, f"{path}.resolv_conf")
    if body.get("hosts_file") not in (None, False):
        text = _hosts_file(reader, body["hosts_file"], f"{path}.hosts_file", list(lab.values()), lab[key])
        found[HOSTS_FILE] = (text, f"{path}.hosts_file")
    return found


def read_hostname(reader: Reader, value: Any, path: str) -> dict[str, tuple[str, str]]:
    if value is None:
        return {}
    name = reader.string(value, path)
    if isinstance(value, str) and not (_HOSTNAME.fullmatch(name) and len(name) <= _HOSTNAME_LENGTH):
        text = "1 to 64 letters, digits, '-' and '.', no part beginning or ending with '-'"
        reader.problem(path, f"{name!r} is no host name: {text}")
    return {HOSTNAME: (name, path)}


def _resolv_conf(reader: Reader, value: Any, path: str) -> str:
    if isinstance(value, str):
        return _text(reader, value, path)
    body = reader.mapping(value, path, ("nameservers", "search", "options"))
    lines = []
    for i, item in enumerate(reader.sequence(body.get("nameservers"), f"{path}.nameservers")):
        lines.append(f"nameserver {_address(reader, item, f'{path}.nameservers[{i}]')}")
    for key in ("search", "options"):
        words = [
            _word(reader, item, f"{path}.{key}[{i}]")
            for i, item in enumerate(reader.sequence(body.get(key), f"{path}.{key}"))
        ]
        if words:
            lines.append(" ".join([key, *words]))
    return "".join(f"{line}\n" for line in lines)


def _hosts_file(
    reader: Reader, value: Any, path: str, lab: Sequence[WantedNamespace], namespace: WantedNamespace
) -> str:
    if isinstance(value, str):
        return _text(reader, value, path)
    body = {} if value is True else reader.mapping(value, path, ("nodes", "entries"))
    own = namespace.node.get(HOSTNAME, (namespace.name, ""))[0]
    lines = [f"127.0.0.1 localhost {own}", f"::1 localhost ip6-localhost ip6-loopback {own}"]
    if body.get("nodes") is None or reader.boolean(body["nodes"], f"{path}.nodes"):
        for other in lab:
            if other is not namespace and other.name != HOST:
                known = dict.fromkeys([other.node.get(HOSTNAME, (other.name, ""))[0], other.name])
                lines += [f"{address} {' '.join(known)}" for address in _addresses_of(other)]
    for address, names in reader.mapping(body.get("entries"), f"{path}.entries").items():
        here = join(f"{path}.entries", address)
        words = [_word(reader, item, f"{here}[{i}]") for i, item in enumerate(reader.sequence(names, here))]
        lines.append(" ".join([_address(reader, address, here), *words]))
    return "".join(f"{line}\n" for line in lines)


def _addresses_of(namespace: WantedNamespace) -> list[str]:
    """One address of each family by which the others know a namespace: that of its first interface, or else of lo."""
    links = sorted(namespace.links.values(), key=lambda link: link.name == "lo")
    found: dict[int, str] = {}
    for link in links:
        for item in link.addresses:
            found.setdefault(item.value.family, str(item.value.ip.ip))
    return [found[family] for family in sorted(found)]


def _text(reader: Reader, value: Any, path: str) -> str:
    text = reader.string(value, path)
    return text if not text or text.endswith("\n") else f"{text}\n"


def _word(reader: Reader, value: Any, path: str) -> str:
    word = reader.string(value, path)
    if isinstance(value, str) and (not word or len(word.split()) != 1 or "#" in word):
        reader.problem(path, f"{show(value)} is no single word")
    return word


def _address(reader: Reader, value: Any, path: str) -> str:
    text = reader.string(value, path)
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        if isinstance(value, str):
            reader.problem(path, f"{text!r} is no IPv4 or IPv6 address")
    return text
