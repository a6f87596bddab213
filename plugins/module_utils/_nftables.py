# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rules of address translation in nftables, in the namespace that the calling thread is in.

A lab has one table of its own in each namespace, which is read as a whole and replaced as a whole, in one transaction.
No other table is ever touched: ``ip nat`` belongs to iptables-nft, and others to Docker, firewalld and so on.
Both directions go through nftables' JSON (libnftables-json(5)), by the Python binding or the ``nft`` program.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import ipaddress
import json
import os
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ._errors import KernelError, Missing, NslabError
from ._model import IPAddress, IPNetwork
from ._nat import (
    ALL_BITS,
    COMMENT_BYTES,
    OWNER,
    PORT_PROTOCOLS,
    PROTOCOLS,
    NatRule,
    joined_ports,
    mark_text,
    ports_text,
)
from ._netlink.session import Session, attributes

_Json = dict[str, Any]

_TABLE = "nslab"

#: The chains, in the order in which they are read: the hook of each has its name.
_PRIORITIES = {"prerouting": -100, "output": -100, "postrouting": 100}

_ACTIONS = ("dnat", "snat", "masquerade")
_FAMILIES = {4: "ipv4", 6: "ipv6"}
_PACKETS = {4: "ip", 6: "ip6"}
_PREFIXES = {"source": "saddr", "destination": "daddr"}
_INTERFACES = {"in_interface": "iifname", "out_interface": "oifname"}
_PORTS = {"source_ports": "sport", "destination_ports": "dport"}
_FLAGS = {"random_fully": "fully-random", "persistent": "persistent"}
_LOCAL = {"fib": {"result": "type", "flags": ["daddr"]}}


def available() -> bool:
    """Whether this machine has a way to nftables. Whether its kernel has it too shows with the first call."""
    return has_binding() or has_program()


def has_binding() -> bool:
    return _binding() is not None


def has_program() -> bool:
    return _program() is not None


def read(lab: str) -> list[NatRule] | None:
    """The rules of the lab's table, chain by chain in the kernel's order; None if there is no such table.

    What cannot be said in the words of NatRule stands in its place as one with ``unknown``. Raises NslabError.
    """
    if not _is_there(lab):
        return None
    failed, output, error = _ask([{"list": {"table": _table(lab)}}])
    if failed:
        if _says(error, errno.ENOENT) or _kernel_has_none(error):
            return None
        raise NslabError(f"nftables: {error}")
    try:
        found = _entries(output)
    except NslabError:
        # nft before 1.1.0 prints memory that it has freed for the flags of a table (json.c: table_flags_json).
        return [_unknown("", "table that nft cannot list")]
    rules = [_unknown("", "table with flags") for kind, entry in found if _is_changed(kind, entry)]
    rules += [_unknown("", f"{kind} {entry.get('name', '')}") for kind, entry in found if _is_foreign(kind, entry)]
    for chain, priority in _PRIORITIES.items():
        for kind, entry in found:
            if kind == "chain" and entry["name"] == chain and not _is_our_chain(entry, priority):
                rules.append(_unknown(chain, _chain_words(entry)))
            elif kind == "rule" and entry["chain"] == chain:
                rules.append(_rule(entry, lab))
    return rules


def replace(lab: str, rules: Sequence[NatRule]) -> None:
    """Let the lab's table hold exactly these rules, in one transaction; without rules there is no table.

    Raises NslabError, with nothing changed.
    """
    table = _table(lab)
    # A table that is not there cannot be deleted, but one that is may be added.
    commands: list[_Json] = [{"add": {"table": table}}, {"delete": {"table": table}}]
    if rules:
        commands.append({"add": {"table": table}})
    for chain, priority in _PRIORITIES.items():
        if any(rule.chain == chain for rule in rules):
            commands.append({"add": {"chain": _chain(table, chain, priority)}})
    in_table = {"family": table["family"], "table": table["name"]}
    for rule in rules:
        if rule.chain not in _PRIORITIES or rule.unknown:
            raise NslabError(f"nftables: not a rule of translation: {rule.unknown or rule}")
        entry = {**in_table, "chain": rule.chain, "expr": _expressions(rule), "comment": _comment(lab, rule)}
        commands.append({"add": {"rule": entry}})
    failed, _output, error = _ask(commands)
    if failed:
        raise NslabError(f"nftables: {error}{_missing_modules(error, rules)}")


def save(lab: str) -> str:
    """The lab's table as it is, whatever is in it, for ``restore``; empty without one. Raises NslabError."""
    if not _is_there(lab):
        return ""
    failed, output, error = _run(f"list table {_table_words(lab)}\n", as_json=False)
    if failed:
        raise NslabError(f"nftables: {error}")
    return output.decode("utf-8", "surrogateescape")


def restore(lab: str, saved: str) -> None:
    """Put back what ``save`` found, in one transaction. Raises NslabError, with nothing changed."""
    table = _table_words(lab)
    failed, _output, error = _run(f"add table {table}\ndelete table {table}\n{saved}", as_json=False)
    if failed:
        raise NslabError(f"nftables: {error}")


def others_translate(lab: str) -> bool:
    """Whether a table that is not the lab's translates addresses here as well. Raises NslabError."""
    failed, output, error = _ask([{"list": {"chains": None}}])
    if failed:
        if _kernel_has_none(error):
            return False
        raise NslabError(f"nftables: {error}")
    for kind, entry in _entries(output):
        if kind != "chain" or entry.get("type") != "nat" or _is_the_labs(lab, entry["family"], entry["table"]):
            continue
        chain = {"family": entry["family"], "table": entry["table"], "name": entry["name"]}
        # A chain that has gone meanwhile translates nothing.
        failed, output, _error = _ask([{"list": {"chain": chain}}])
        if not failed and any(kind == "rule" for kind, _rule in _entries(output)):
            return True
    return False


# --- the table and its chains ----------------------------------------------------------------------------------------


def _table(lab: str) -> _Json:
    return {"family": "inet", "name": f"{_TABLE}-{lab}" if lab else _TABLE}


def _table_words(lab: str) -> str:
    return "{family} {name}".format(**_table(lab))


def _is_there(lab: str) -> bool:
    """Whether the lab's table is there, asked of the kernel itself: that takes a twentieth of what libnftables takes.

    Raises KernelError.
    """
    try:
        session = Session(_NETLINK_NETFILTER)
    except OSError:
        # Neither nfnetlink nor any table.
        return False
    try:
        name = _table(lab)["name"].encode() + b"\0"
        attribute = struct.pack("=HH", 4 + len(name), _NFTA_TABLE_NAME) + name
        session.get(_NFT_MSG_GETTABLE, struct.pack("=BBH", _NFPROTO_INET, 0, 0) + attribute)
    except KernelError as error:
        if error.number in (errno.ENOENT, errno.EINVAL):  # The second where the kernel is without nf_tables.
            return False
        raise
    finally:
        session.close()
    return True


def labs() -> set[str]:
    """The labs that have a table here; "" for the table that is ours and no lab's. Raises KernelError."""
    try:
        session = Session(_NETLINK_NETFILTER)
    except OSError:
        return set()
    try:
        bodies = session.dump(_NFT_MSG_GETTABLE, struct.pack("=BBH", _NFPROTO_INET, 0, 0))
    except KernelError as error:
        if error.number in (errno.ENOENT, errno.EINVAL):
            return set()
        raise
    finally:
        session.close()
    names = {
        value.rstrip(b"\0").decode("utf-8", "replace")
        for body in bodies
        for kind, value in attributes(body, 4)
        if kind == _NFTA_TABLE_NAME
    }
    return {name[len(_TABLE) :].lstrip("-") for name in names if _is_a_labs("inet", name)}


def _is_the_labs(lab: str, family: str, table: str) -> bool:
    return {"family": family, "name": table} == _table(lab)


def _is_a_labs(family: str, table: str) -> bool:
    return family == "inet" and (table == _TABLE or table.startswith(f"{_TABLE}-"))


def _chain(table: _Json, name: str, priority: int) -> _Json:
    where = {"family": table["family"], "table": table["name"], "name": name}
    return {**where, "type": "nat", "hook": name, "prio": priority, "policy": "accept"}


def _is_our_chain(entry: _Json, priority: int) -> bool:
    table = {"family": entry["family"], "name": entry["table"]}
    return _chain(table, entry["name"], priority).items() <= entry.items()


def _chain_words(entry: _Json) -> str:
    words = [f"{word} {entry[key]}" for word, key in _CHAIN_WORDS.items() if key in entry]
    return f"chain with {', '.join(words) or 'no hook'}"


_CHAIN_WORDS = {"type": "type", "hook": "hook", "priority": "prio", "policy": "policy"}


def _is_changed(kind: str, entry: _Json) -> bool:
    """Whether the table has a flag, as ``dormant``; which one nft before 1.1.0 cannot say."""
    return kind == "table" and "flags" in entry


def _is_foreign(kind: str, entry: _Json) -> bool:
    """Whether somebody has put something beside our chains: another chain, a set, a map, a flowtable."""
    if kind == "chain":
        return entry["name"] not in _PRIORITIES
    return kind not in ("table", "rule")


def _unknown(chain: str, text: str) -> NatRule:
    return NatRule(chain, action="", unknown=text)


# --- a rule, from our words into nftables' ---------------------------------------------------------------------------


def _comment(lab: str, rule: NatRule) -> str:
    """The comment of a rule in the kernel: its owner's name, and the user's words."""
    comment = f"{OWNER}{lab} {rule.comment}" if rule.comment else f"{OWNER}{lab}"
    if '"' in comment or not comment.isprintable():
        # nft prints comments as they are, so that its listing could not be loaded again.
        raise NslabError(f"nftables: a comment cannot have double quotes or unprintable characters: {rule.comment!r}")
    if len(comment.encode()) > COMMENT_BYTES:
        room = COMMENT_BYTES - len(f"{OWNER}{lab} ")
        raise NslabError(f"nftables: a comment can have {room} bytes here, and this one has more: {rule.comment}")
    return comment


def _expressions(rule: NatRule) -> list[_Json]:
    """The matches and the statement of a rule. Raises NslabError for a rule that makes no sense."""
    try:
        return [*_matches(rule), _statement(rule)]
    except ValueError as error:
        raise NslabError(f"nftables: not a rule of translation: {error}: {rule}") from error


def _matches(rule: NatRule) -> Iterator[_Json]:
    def match(field: str, left: _Json, right: object) -> _Json:
        return {"match": {"op": "!=" if field in rule.negated else "==", "left": left, "right": right}}

    # Always first: nft adds what else a payload depends on, and leaves out in its listing what follows from the rest.
    yield match("family", _meta("nfproto"), _FAMILIES[rule.family])
    for field, name in _PREFIXES.items():
        prefix = getattr(rule, field)
        if prefix:
            yield match(field, _payload(_PACKETS[rule.family], name), _prefix(prefix, rule.family))
    for field, name in _INTERFACES.items():
        interface = getattr(rule, field)
        if interface:
            yield match(field, _meta(name), _interface(interface))
    if rule.local:
        yield match("local", _LOCAL, "local")
    if rule.mark:
        value, mask = _mark(rule.mark)
        left = _meta("mark") if mask == ALL_BITS else {"&": [_meta("mark"), mask]}
        yield match("mark", left, value)
    has_ports = bool(rule.source_ports or rule.destination_ports)
    if has_ports and (rule.protocol not in PORT_PROTOCOLS or "protocol" in rule.negated):
        raise ValueError("ports need one protocol that has them")
    if rule.protocol and not has_ports:
        yield match("protocol", _meta("l4proto"), PROTOCOLS.get(rule.protocol) or int(rule.protocol))
    for field, name in _PORTS.items():
        ports = getattr(rule, field)
        if ports:
            yield match(field, _payload(rule.protocol, name), _port_set(_port_ranges(ports)))


def _statement(rule: NatRule) -> _Json:
    if rule.action not in _ACTIONS or (rule.action == "masquerade" and rule.to_address):
        raise ValueError("no such translation")
    words: _Json = {}
    if rule.to_address:
        first, last = _address_range(rule.to_address, rule.family)
        words["family"] = _PACKETS[rule.family]
        words["addr"] = str(first) if first == last else {"range": [str(first), str(last)]}
    if rule.to_ports:
        (ports,) = _port_ranges(rule.to_ports)
        words["port"] = _ports(ports)
    flags = [flag for field, flag in _FLAGS.items() if getattr(rule, field)]
    if flags:
        words["flags"] = flags
    return {rule.action: words or None}


def _meta(key: str) -> _Json:
    return {"meta": {"key": key}}


def _payload(protocol: str, field: str) -> _Json:
    return {"payload": {"protocol": protocol, "field": field}}


def _prefix(text: str, family: int) -> object:
    # What is no address would be a host name for nft, which it looks up.
    network = ipaddress.IPv4Network(text) if family == 4 else ipaddress.IPv6Network(text)
    address = str(network.network_address)
    if network.prefixlen == network.max_prefixlen:
        return address
    return {"prefix": {"addr": address, "len": network.prefixlen}}


def _interface(name: str) -> str:
    # At the end a star stands for anything and is one itself with a backslash before it, for which nft takes the first
    # that it finds (evaluate.c: expr_evaluate_string); with @ at the start JSON names a set (parser_json.c).
    if name.startswith("@") or (name.endswith("*") and "\\" in name):
        raise ValueError(f"nftables' JSON has no way to say the interface name {name}")
    return f"{name[:-1]}\\*" if name.endswith("*") else name


def _mark(text: str) -> tuple[int, int]:
    value, _slash, mask = text.partition("/")
    return int(value, 0), int(mask, 0) if mask else ALL_BITS


def _address_range(text: str, family: int) -> tuple[IPAddress, IPAddress]:
    first, _dash, last = text.partition("-")
    kind: type[IPAddress] = ipaddress.IPv4Address if family == 4 else ipaddress.IPv6Address
    return kind(first), kind(last or first)


def _port_ranges(text: str) -> list[tuple[int, int]]:
    parts = [part.partition("-") for part in text.split(",")]
    return joined_ports([(int(first), int(last or first)) for first, _dash, last in parts])


def _ports(ports: tuple[int, int]) -> object:
    first, last = ports
    return first if first == last else {"range": [first, last]}


def _port_set(ranges: list[tuple[int, int]]) -> object:
    return _ports(ranges[0]) if len(ranges) == 1 else {"set": [_ports(ports) for ports in ranges]}


# --- a rule, from nftables' words into ours --------------------------------------------------------------------------


def _rule(entry: _Json, lab: str) -> NatRule:
    """A rule in our table. One that we cannot have written so is an unknown one."""
    try:
        rule = _decoded(entry["chain"], entry["expr"])
        if not _is_writable(rule):
            raise ValueError(_short(entry["expr"]))
        return rule._replace(comment=_users_comment(entry.get("comment", ""), lab))
    except ValueError as error:
        return _unknown(entry["chain"], f"rule with handle {entry['handle']}: {error}")


def _is_writable(rule: NatRule) -> bool:
    """Whether a rule that was read would be written so."""
    try:
        return _decoded(rule.chain, _expressions(rule)) == rule
    except (NslabError, ValueError):
        return False


def _users_comment(comment: str, lab: str) -> str:
    owner, space, users = comment.partition(" ")
    if owner != f"{OWNER}{lab}" or (space and not users):
        raise ValueError(f"comment {comment!r} is not ours")
    return users


def _decoded(chain: str, expressions: list[_Json]) -> NatRule:
    """A rule without its comment. Raises ValueError, with the expression that we would not write."""
    words: _Json = {}
    negated: set[str] = set()
    families: set[int] = set()
    protocols: set[str] = set()
    for expression in expressions:
        try:
            found = _translation(expression) if expression is expressions[-1] else _match(expression)
        except (AttributeError, KeyError, TypeError, ValueError):
            # Any other expression of nftables, in whatever shape.
            raise ValueError(_short(expression)) from None
        families |= found.families
        protocols |= found.protocols
        if found.words.keys() & words.keys():
            raise ValueError(f"matched twice: {_short(expression)}")
        words.update(found.words)
        if found.negated:
            negated |= found.words.keys()
    if protocols:
        # nft leaves the protocol out where ports say it.
        protocols |= {words.get("protocol", min(protocols))}
        if len(protocols) != 1:
            raise ValueError("not for one protocol")
        (words["protocol"],) = protocols
    if not families and "protocol" not in negated:
        # nft leaves the family out where one of these says it.
        families |= {"icmp": {4}, "icmpv6": {6}}.get(words.get("protocol", ""), set())
    if len(families) != 1:
        raise ValueError("not for one family")
    words["negated"] = tuple(field for field in NatRule._fields if field in negated)
    return NatRule(chain, family=families.pop(), **words)


class _Found(NamedTuple):
    """What an expression says: words of NatRule, and the family and the protocol that it is only good for."""

    words: _Json
    negated: bool = False
    families: frozenset[int] = frozenset()
    protocols: frozenset[str] = frozenset()


def _match(expression: _Json) -> _Found:
    ((kind, match),) = expression.items()
    negated = {"==": False, "!=": True}[match["op"]]
    left, right = match["left"], match["right"]
    if kind != "match":
        raise ValueError
    ((kind, what),) = left.items()
    if kind == "payload":
        return _payload_match(what, right, negated)
    if kind == "fib":
        # Newer versions write a list of one as that one.
        if what["result"] != "type" or what["flags"] not in ("daddr", ["daddr"]) or right != "local" or negated:
            raise ValueError
        return _Found({"local": True})
    if kind == "&":
        meta, mask = what
        if meta != _meta("mark"):
            raise ValueError
        return _Found({"mark": mark_text(right, mask)}, negated)
    key = what["key"]
    if key == "nfproto" and not negated:
        return _Found({}, families=_family(_FAMILIES, right))
    if key == "mark":
        return _Found({"mark": mark_text(*_mark_prefix(right))}, negated)
    if key == "l4proto":
        return _Found({"protocol": _PROTOCOL_NAMES.get(right) or str(int(right))}, negated)
    return _Found({_INTERFACE_FIELDS[key]: _interface_name(right)}, negated)


def _payload_match(what: _Json, right: Any, negated: bool) -> _Found:
    protocol, name = what["protocol"], what["field"]
    if protocol in PORT_PROTOCOLS:
        ranges = joined_ports([_port_range(ports) for ports in (right["set"] if _is("set", right) else [right])])
        return _Found({_PORT_FIELDS[name]: ports_text(ranges)}, negated, protocols=frozenset((protocol,)))
    families = _family(_PACKETS, protocol)
    prefix = f"{right['prefix']['addr']}/{right['prefix']['len']}" if _is("prefix", right) else right
    return _Found({_PREFIX_FIELDS[name]: str(_network(prefix, families))}, negated, families)


def _translation(expression: _Json) -> _Found:
    ((action, what),) = expression.items()
    what = what or {}
    if action not in _ACTIONS or what.keys() - {"family", "addr", "port", "flags"}:
        raise ValueError
    words: _Json = {"action": action}
    families: frozenset[int] = frozenset()
    if "addr" in what:
        families = _family(_PACKETS, what["family"])
        words["to_address"] = _address_text(what["addr"], families)
    if "port" in what:
        words["to_ports"] = ports_text([_port_range(what["port"])])
    flags = what.get("flags", [])
    for flag in [flags] if isinstance(flags, str) else flags:
        words[_FLAG_FIELDS[flag]] = True
    return _Found(words, families=families)


_PREFIX_FIELDS = {name: field for field, name in _PREFIXES.items()}
_INTERFACE_FIELDS = {name: field for field, name in _INTERFACES.items()}
_PORT_FIELDS = {name: field for field, name in _PORTS.items()}
_FLAG_FIELDS = {name: field for field, name in _FLAGS.items()}
_PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}


def _family(names: dict[int, str], name: object) -> frozenset[int]:
    (family,) = (family for family, known in names.items() if known == name)
    return frozenset((family,))


def _network(prefix: str, families: frozenset[int]) -> IPNetwork:
    return ipaddress.IPv4Network(prefix) if 4 in families else ipaddress.IPv6Network(prefix)


def _is(kind: str, value: object) -> bool:
    return isinstance(value, dict) and value.keys() == {kind}


def _mark_prefix(value: Any) -> tuple[int, int]:
    """The value and the mask of a mark; nft 1.0.6 writes a mask of leading ones as a prefix, as of an address."""
    if _is("prefix", value):
        prefix = value["prefix"]
        return prefix["addr"], ALL_BITS ^ (ALL_BITS >> prefix["len"])
    return value, ALL_BITS


def _interface_name(name: str) -> str:
    if name.endswith("\\*"):
        return f"{name[:-2]}*"
    if name.endswith("*"):
        # Every interface whose name starts so.
        raise ValueError
    return name


def _address_text(value: Any, families: frozenset[int]) -> str:
    if _is("prefix", value):
        # nft writes a range that is just a prefix as one.
        prefix = f"{value['prefix']['addr']}/{value['prefix']['len']}"
        network = _network(prefix, families)
        first, last = str(network[0]), str(network[-1])
    else:
        text = "-".join(value["range"]) if _is("range", value) else value
        first, last = (str(address) for address in _address_range(text, *families))
    return first if first == last else f"{first}-{last}"


def _port_range(value: Any) -> tuple[int, int]:
    first, last = value["range"] if _is("range", value) else (value, value)
    return int(first), int(last)


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


# --- the way there ---------------------------------------------------------------------------------------------------

_LIBRARY = "libnftables.so.1"

_PROGRAM_SECONDS = 60

_PAUSES_SECONDS = (0.01, 0.1)

_NETLINK_NETFILTER = 12
#: include/uapi/linux/netfilter.h, netfilter/nfnetlink.h (NFNL_SUBSYS_NFTABLES) and netfilter/nf_tables.h
_NFPROTO_INET = 1
_NFT_MSG_GETTABLE = 10 << 8 | 1
_NFTA_TABLE_NAME = 1
_NO_SOCKET = "Unable to initialize Netlink socket"

#: What the two ways print before nft's words about a command that came as JSON.
_PREAMBLES = ("internal:0:0-0: ", "netlink: ", "Error: ")

#: libnftables keeps some of its state in the process, whatever the context.
_binding_lock = threading.Lock()


@functools.lru_cache(maxsize=1)
def _binding() -> Any:
    """The module of nftables' Python binding; None if Python or the library that it loads is without it."""
    try:
        import nftables

        # It loads the library when it is used, not when it is imported.
        ctypes.CDLL(_LIBRARY)
    except (ImportError, OSError):
        return None
    return nftables if hasattr(nftables, "Nftables") else None


@functools.lru_cache(maxsize=1)
def _program() -> str | None:
    # The path of a user's, or of a service's, shell need not have the administrator's folders.
    return shutil.which("nft", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


def _ask(commands: list[_Json]) -> tuple[bool, bytes, str]:
    """Let nftables do these, all or none; returns whether it failed, what it printed, and its words about the error."""
    return _run(json.dumps({"nftables": commands}), as_json=True)


def _run(commands: str, as_json: bool) -> tuple[bool, bytes, str]:
    """As ``_ask``. libnftables fails without a word at times on a busy machine, for no fault of what it was asked.

    All that it is asked here is one transaction, and asking it twice makes what asking once does.
    """
    for pause in (*_PAUSES_SECONDS, 0):
        status, output, error = _run_once(commands, as_json)
        if status == 0 or error.strip():
            break
        time.sleep(pause)
    return status != 0, output, _first_line(error)


def _run_once(commands: str, as_json: bool) -> tuple[int, bytes, bytes]:
    text = commands.encode("utf-8", "surrogateescape")
    binding, program = _binding(), _program()
    if binding is not None:
        return _ask_binding(binding, text, as_json)
    if program is not None:
        return _ask_program(program, text, as_json)
    raise Missing(
        "nftables: neither its Python binding nor the program nft is on the managed host; the role "
        "nslab.netns.bootstrap installs both, and so do the distribution's packages nftables and python3-nftables"
    )


def _ask_binding(binding: Any, text: bytes, as_json: bool) -> tuple[int, bytes, bytes]:
    # Where there is no such socket, libnftables ends the process (netlink.c: netlink_init_error).
    try:
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER).close()
    except OSError as error:
        return 1, b"", f"{_NO_SOCKET}: {error.strerror}".encode()
    with _binding_lock:
        # The context has a socket that stays in the namespace where it was opened, so each call has its own.
        context = binding.Nftables()
        context.set_json_output(as_json)
        # The names of protocols come from the machine's /etc/protocols.
        context.set_numeric_proto_output(True)
        answer: tuple[int, bytes, bytes] = context.cmd(text)
        return answer


def _ask_program(program: str, text: bytes, as_json: bool) -> tuple[int, bytes, bytes]:
    command = [program, *(["--json"] if as_json else []), "--numeric-protocol", "--file", "-"]
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        # run_command() is AnsibleModule's, which this room knows nothing of.
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            command, input=text, capture_output=True, check=False, env=environment, timeout=_PROGRAM_SECONDS
        )
    except OSError as error:
        raise NslabError(f"nftables: {program} could not be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise NslabError(f"nftables: {program} has not answered within {_PROGRAM_SECONDS} s") from error
    return done.returncode, done.stdout, done.stderr


def _entries(output: bytes) -> list[tuple[str, _Json]]:
    """The objects in a listing, each with its kind."""
    try:
        listing = json.loads(output.decode("utf-8", "replace"))["nftables"]
    except ValueError as error:
        raise NslabError(f"nftables: what nft lists is no JSON: {error}") from error
    return [(kind, value) for entry in listing for kind, value in entry.items() if kind != "metainfo"]


def _first_line(error: bytes) -> str:
    line = error.decode("utf-8", "replace").strip().partition("\n")[0]
    for preamble in _PREAMBLES:
        line = line.removeprefix(preamble)
    return line or "it failed without a word"


def _says(error: str, number: int) -> bool:
    # The binding speaks the language that Ansible has set for its module.
    return os.strerror(number) in error or _ENGLISH[number] in error


_ENGLISH = {
    errno.ENOENT: "No such file or directory",
    errno.EINVAL: "Invalid argument",
    errno.EPROTONOSUPPORT: "Protocol not supported",
}


def _kernel_has_none(error: str) -> bool:
    """Whether the kernel is without nf_tables (nfnetlink_rcv_msg() says EINVAL), or even without nfnetlink.

    Then there are no tables either.
    """
    if _NO_SOCKET in error:
        return _says(error, errno.EPROTONOSUPPORT)
    return error.startswith("cache initialization failed") and _says(error, errno.EINVAL)


def _missing_modules(error: str, rules: Sequence[NatRule]) -> str:
    """A hint where the kernel's errno says only that it has not found something."""
    if _kernel_has_none(error):
        return "; is the kernel module nf_tables missing?"
    if not _says(error, errno.ENOENT):
        return ""
    modules = ["nf_tables", "nft_chain_nat"]
    if any(rule.action != "masquerade" for rule in rules):
        modules.append("nft_nat")
    if any(rule.action == "masquerade" for rule in rules):
        modules.append("nft_masq")
    if any(rule.local for rule in rules):
        modules.append("nft_fib_inet")
    return f"; is one of the kernel modules {', '.join(modules)} missing?"
