# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Address translation in legacy iptables, through python-iptables, in the namespace that the calling thread is in.

Our rules stand in the built-in chains of the table ``nat`` and are known by their comment: ``nslab:LAB``, or
``nslab:LAB COMMENT``. There are no chains of our own: a flush or a deleted rule leaves nothing behind that would have
to be told from what is meant, and the last rule that goes takes everything with it. The first rule of a lab goes after
the rules of others; the later ones go where the lab's rules are.

python-iptables is only ever used in a child process that lives for one look at, or one commit to, one family in one
namespace. In one process its tables keep pointing at the namespace that they were opened in, IPv6 fails after IPv4,
threads crash, and so does what libxtables refuses (a longjmp() over Python's frames).

Private to the collection: no stable interface.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import fcntl
import functools
import importlib.util
import io
import ipaddress
import json
import os
import re
import select
import shlex
import shutil
import signal
import socket
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any, Callable, NamedTuple, NoReturn

from ._errors import Busy, Missing, NslabError
from ._nat import CHAINS, OWNER, PORT_PROTOCOLS, PROTOCOLS, NatRule

#: How long others may hold the lock of the iptables commands, and how long a child may take besides.
LOCK_SECONDS = 30.0
CHILD_SECONDS = 60.0

_LOCK_FILE = "/run/xtables.lock"
_POLL_SECONDS = 0.05

_TABLES_FILE = {4: "/proc/thread-self/net/ip_tables_names", 6: "/proc/thread-self/net/ip6_tables_names"}


class Placed(NamedTuple):
    """A rule of ours: its chain, what iptables-save says after the chain, and the bytes that the kernel has, in hex.

    ``position``: where it stood in the chain, among those of others.
    """

    chain: str
    arguments: list[str]
    raw: str
    position: int = 0


#: All rules of a lab, by family, as they were before a change. Only good for ``restore``.
Before = dict[int, list[Placed]]


def require() -> None:
    """Raise Missing if python-iptables is not there. Cheap: it does not import it."""
    if not available():
        raise Missing(
            "the Python library python-iptables (1.0.1 or newer) is not installed for this Python on the managed host; "
            "the role nslab.netns.bootstrap installs it where the distribution has a package of it, and so do that "
            "package (Debian, Ubuntu: python3-iptables) and 'pip install python-iptables' with gcc"
        )


def available() -> bool:
    return importlib.util.find_spec("iptc") is not None


def in_use() -> bool:
    """Whether this namespace has the table ``nat`` of legacy iptables, of either family. To list it would create it."""
    return any(map(_in_use, _TABLES_FILE))


def _in_use(family: int) -> bool:
    try:
        with open(_TABLES_FILE[family], encoding="ascii") as file:
            return "nat" in file.read().split()
    except FileNotFoundError:  # The kernel's module is not loaded.
        return False


def others_translate(lab: str) -> bool:
    """Whether rules that are not the lab's translate addresses here as well. Raises NslabError."""
    return bool(_owners() - {lab})


def labs() -> set[str]:
    """The labs that have rules here; "" for rules that are ours and no lab's. Raises NslabError."""
    return _owners() - {None}  # type: ignore[return-value]


def _owners() -> set[str | None]:
    """The labs of all rules that are here; None for that of others."""
    found: set[str | None] = set()
    for family in _TABLES_FILE:
        for placed in _in_child(family, functools.partial(_all_owners, family)) if _in_use(family) else ():
            found.add(placed.arguments[0] if placed.arguments else None)
    return found


def flavour_note() -> str:
    """What the administrator has to know where ``iptables`` is the one that writes nftables; empty where it is not."""
    command = shutil.which("iptables", path=os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin")))
    if command is None or "nft" not in os.path.basename(os.path.realpath(command)):
        return ""
    return (
        "iptables on this host is the one that writes nftables, which does not show the rules of legacy iptables; "
        "iptables-legacy-save and ip6tables-legacy-save do"
    )


def read(lab: str) -> list[NatRule] | None:
    """The rules of a lab, chain by chain, IPv4 before IPv6; None if there are none. No table comes to be by this."""
    found = [
        _rule(lab, family, placed.chain, placed.arguments)
        for family in _TABLES_FILE
        if _in_use(family)
        for placed in _in_child(family, functools.partial(_work, family, lab, None))
    ]
    return sorted(found, key=lambda rule: _ORDER.get(rule.chain, len(_ORDER))) or None


def replace(lab: str, rules: Sequence[NatRule]) -> Before:
    """Have exactly these rules of a lab, in this order within each chain and family, in one commit per family.

    What others made keeps its counters and its order, and so do those of the lab's first and last rules that stay.
    Raises NslabError, and nothing has changed then. Returns what was there, for ``restore``.
    """
    wanted: Before = {family: [] for family in _TABLES_FILE}
    for number, rule in enumerate(rules, 1):
        try:
            wanted[rule.family].append(Placed(rule.chain.upper(), _arguments(lab, rule), ""))
        except ValueError as error:
            raise NslabError(
                f"rule {number}, {rule.action or 'of no action'} in {rule.chain}, cannot be one of iptables: {error}"
            ) from error
    return _write(lab, wanted)


def restore(lab: str, before: Before) -> None:
    """Put back what ``replace`` found, also what cannot be said as a NatRule. Raises NslabError."""
    _write(lab, before)


def _write(lab: str, wanted: Before) -> Before:
    before: Before = {}
    for family, rules in wanted.items():
        try:
            work = functools.partial(_work, family, lab, rules)
            before[family] = _in_child(family, work) if rules or _in_use(family) else []
        except NslabError as error:
            for done in before:
                try:
                    if before[done] or _in_use(done):
                        _in_child(done, functools.partial(_work, done, lab, before[done]))
                except NslabError as second:
                    raise NslabError(f"{error}; the rules of IPv{done} could not be put back: {second}") from error
            raise
    return before


# --- a rule in the words of iptables-save ----------------------------------------------------------------------------

_TARGETS = {"dnat": "DNAT", "snat": "SNAT", "masquerade": "MASQUERADE"}
_ACTIONS = {target: action for action, target in _TARGETS.items()}
_CHAINS = {"dnat": ("prerouting", "output"), "snat": ("postrouting",), "masquerade": ("postrouting",)}
_ORDER = {chain: position for position, chain in enumerate(CHAINS)}

_PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}
#: Those with ports for NAT (portok in libxt_NAT.c); for a match there are more (check_proto() in libxt_multiport.c).
_WITH_TO_PORTS = ("tcp", "udp", "dccp", "sctp")

#: xt_multiport has room for so many ports, of which a range takes two (XT_MULTI_PORTS).
_PORT_SLOTS = 15
#: The comment of a rule, with the byte that ends it (XT_MAX_COMMENT_LEN).
_COMMENT_SIZE = 256
_INTERFACE_SIZE = 16
#: How much is told of a rule that is unknown.
_TEXT_SIZE = 200

#: The matches that can be negated, in the order of NatRule's fields, and what stands for them in iptables-save.
_NEGATABLE = {
    "source": ("-s",),
    "destination": ("-d",),
    "in_interface": ("-i",),
    "out_interface": ("-o",),
    "protocol": ("-p",),
    "source_ports": ("--sport", "--sports"),
    "destination_ports": ("--dport", "--dports"),
    "mark": ("--mark",),
}
_WITHOUT_VALUE = ("--random-fully", "--persistent")


def _arguments(lab: str, rule: NatRule) -> list[str]:
    """What iptables-save says of a rule after its chain. Raises ValueError if iptables has no such rule."""
    if objection := next(_objections(lab, rule), ""):
        raise ValueError(objection)
    arguments = [
        *_option(rule, "source", "-s", _kernel_address(rule.source)),
        *_option(rule, "destination", "-d", _kernel_address(rule.destination)),
        *_option(rule, "in_interface", "-i", rule.in_interface),
        *_option(rule, "out_interface", "-o", rule.out_interface),
        *_option(rule, "protocol", "-p", rule.protocol),
        *(["-m", "addrtype", "--dst-type", "LOCAL"] if rule.local else []),
        *_port_arguments(rule),
    ]
    if rule.mark:
        arguments += ["-m", "mark", *_option(rule, "mark", "--mark", rule.mark)]
    arguments += ["-m", "comment", "--comment", _comment(lab, rule), "-j", _TARGETS[rule.action]]
    to = "-".join(map(_kernel_address, rule.to_address.split("-")))
    if to and rule.to_ports:
        to = f"[{to}]:{rule.to_ports}" if rule.family == 6 else f"{to}:{rule.to_ports}"
    elif rule.to_ports:
        to = rule.to_ports if rule.action == "masquerade" else f":{rule.to_ports}"
    if to:
        arguments += [{"dnat": "--to-destination", "snat": "--to-source"}.get(rule.action, "--to-ports"), to]
    if rule.random_fully:
        arguments.append("--random-fully")
    if rule.persistent:
        arguments.append("--persistent")
    return arguments


def _option(rule: NatRule, field: str, word: str, value: str) -> list[str]:
    return [*(["!"] if field in rule.negated else []), word, value] if value else []


def _port_arguments(rule: NatRule) -> list[str]:
    one: list[str] = []
    several: list[str] = []
    for field, word, value in (
        ("source_ports", "--sport", rule.source_ports),
        ("destination_ports", "--dport", rule.destination_ports),
    ):
        ports = value.replace("-", ":")
        # The match of tcp saves a range of all ports as nothing.
        if "," in ports or ports == "0:65535" or rule.protocol not in {"tcp", "udp"}:
            option = _option(rule, field, f"{word}s", ports)
            several += ["-m", "multiport", *option] if option else []
        else:
            one += _option(rule, field, word, ports)
    return [*(["-m", rule.protocol, *one] if one else []), *several]


def _comment(lab: str, rule: NatRule) -> str:
    return f"{OWNER}{lab} {rule.comment}" if rule.comment else f"{OWNER}{lab}"


def _kernel_address(text: str) -> str:
    """An address or prefix as the C library writes it, which has other words than Python for ``::ffff:10.0.0.1``."""
    address, slash, length = text.partition("/")
    if ":" in address:
        address = socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, address))
    return address + slash + length


def _python_address(text: str) -> str:
    address, slash, length = text.partition("/")
    return (str(ipaddress.ip_address(address)) if ":" in address else address) + slash + length


def _rule(lab: str, family: int, chain: str, arguments: list[str]) -> NatRule:
    """The rule that iptables-save says this of; an unknown one if it is not what ``_arguments`` would have made."""
    chain = chain.lower()
    options: dict[str, str] = {}
    negated: set[str] = set()
    words = iter(arguments)
    for word in words:
        option = word
        if word == "!":
            option = next(words, "")
            negated.add(option)
        options[option] = "" if option in _WITHOUT_VALUE else next(words, "")
    to_address, to_ports = _to(family, options.get("--to-source") or options.get("--to-destination") or "")
    try:
        rule = NatRule(
            chain=chain,
            action=_ACTIONS[options["-j"]],
            family=family,
            source=_python_address(options.get("-s", "")),
            destination=_python_address(options.get("-d", "")),
            in_interface=options.get("-i", ""),
            out_interface=options.get("-o", ""),
            protocol=options.get("-p", ""),
            source_ports=options.get("--sports", options.get("--sport", "")).replace(":", "-"),
            destination_ports=options.get("--dports", options.get("--dport", "")).replace(":", "-"),
            mark=options.get("--mark", ""),
            negated=tuple(field for field, words in _NEGATABLE.items() if negated.intersection(words)),
            local="--dst-type" in options,
            to_address="-".join(map(_python_address, to_address.split("-"))),
            to_ports=options.get("--to-ports", to_ports),
            random_fully="--random-fully" in options,
            persistent="--persistent" in options,
            comment=options["--comment"].partition(" ")[2],
        )
        if _arguments(lab, rule) == arguments:
            return rule
    except (KeyError, ValueError):
        pass
    text = shlex.join(arguments)
    return NatRule(chain, "", family, unknown=text if len(text) <= _TEXT_SIZE else f"{text[: _TEXT_SIZE - 3]}...")


def _to(family: int, text: str) -> tuple[str, str]:
    """The addresses and the ports of ``--to-source`` and ``--to-destination``."""
    if text.startswith("["):
        address, _end, ports = text[1:].partition("]:")
        return address, ports
    if family == 4 or re.match(r":\d", text):
        address, _end, ports = text.partition(":")
        return address, ports
    return text, ""


def _objections(lab: str, rule: NatRule) -> Iterator[str]:
    """Why a rule cannot be one of iptables, or is not said in the normal way, in which it would be read again."""
    if rule.unknown:
        yield f"it is not known ({rule.unknown})"
    if rule.action not in _TARGETS:
        yield f"there is no action {rule.action!r}"
    if rule.chain not in _CHAINS.get(rule.action, ()):
        yield f"{rule.action} is not possible in {rule.chain}"
    for field in (field for field in rule.negated if not getattr(rule, field, "")):
        yield f"{field} is negated and empty"
    if rule.negated != tuple(field for field in _NEGATABLE if field in rule.negated):
        yield f"what is negated has to be matches in their order, and is {', '.join(rule.negated)}"
    yield from _objections_to_matches(rule)
    yield from _objections_to_ports(rule)
    yield from _objections_to_action(rule)
    comment = _comment(lab, rule)
    size = len(comment.encode("utf-8", "surrogateescape"))
    if size >= _COMMENT_SIZE:
        yield f"its comment has {size} bytes with the mark of the lab, and may have {_COMMENT_SIZE - 1}"
    if not comment.isprintable():
        yield "its comment has characters that cannot be printed"


def _objections_to_matches(rule: NatRule) -> Iterator[str]:
    for prefix in filter(None, (rule.source, rule.destination)):
        network = ipaddress.ip_network(prefix)  # Raises ValueError in words.
        if network.version != rule.family or str(network) != prefix or not network.prefixlen:
            yield f"{prefix} is not a prefix of IPv{rule.family} that tells anything apart, with its length"
    for name in filter(None, (rule.in_interface, rule.out_interface)):
        if len(name.encode("utf-8", "surrogateescape")) >= _INTERFACE_SIZE:
            yield f"the name of the interface {name} is too long"
        if name.endswith("+"):
            yield f"iptables takes {name} for a pattern, as every interface that ends in +"
    if rule.in_interface and rule.chain != "prerouting":
        yield f"nothing has come in by an interface in {rule.chain}"
    if rule.out_interface and rule.chain == "prerouting":
        yield "it is not known yet in prerouting by which interface something goes out"
    if rule.mark:
        values = [int(word, 16) for word in rule.mark.split("/")]
        normal = "/".join(f"{value:#x}" for value in values)
        if rule.mark != normal or max(values) > 0xFFFFFFFF or len(values) > 2 or values[1:] == [0xFFFFFFFF]:
            yield f"{rule.mark} is not a mark such as 0x1 or 0x1/0xff"


def _objections_to_ports(rule: NatRule) -> Iterator[str]:
    protocol = rule.protocol
    if protocol and protocol not in PROTOCOLS:
        if not _is_number(protocol, 255) or protocol == "0":
            yield f"the protocol {protocol} is neither a number from 1 to 255 nor one of {', '.join(PROTOCOLS)}"
        elif int(protocol) in _PROTOCOL_NAMES:
            yield f"the protocol {protocol} is called {_PROTOCOL_NAMES[int(protocol)]}"
    for ports in filter(None, (rule.source_ports, rule.destination_ports)):
        if rule.protocol not in PORT_PROTOCOLS or "protocol" in rule.negated:
            yield f"the ports {ports} need one of the protocols {', '.join(PORT_PROTOCOLS)}"
        before = -1
        for part in ports.split(","):
            if not _is_port_or_range(part) or int(part.partition("-")[0]) <= before:
                yield f"{ports} are not ports and ranges in ascending order"
                break
            before = int(part.rpartition("-")[2])
        if "," in ports and (slots := 1 + ports.count(",") + ports.count("-")) > _PORT_SLOTS:
            yield f"{ports} takes {slots} places, a port one and a range two; iptables has {_PORT_SLOTS}"
    if rule.to_ports:
        if rule.protocol not in _WITH_TO_PORTS or "protocol" in rule.negated:
            yield f"the new ports {rule.to_ports} need one of the protocols {', '.join(_WITH_TO_PORTS)}"
        if not _is_port_or_range(rule.to_ports):
            yield f"{rule.to_ports} is neither a port nor a range of ports"


def _objections_to_action(rule: NatRule) -> Iterator[str]:
    addresses = [ipaddress.ip_address(text) for text in rule.to_address.split("-") if rule.to_address]
    if any(address.version != rule.family for address in addresses):
        yield f"{rule.to_address} is not of IPv{rule.family}"
    elif "-".join(map(str, addresses)) != rule.to_address or len(addresses) > 2:
        yield f"{rule.to_address} is neither an address nor the first and the last of a range"
    elif len(addresses) == 2 and int(addresses[0]) >= int(addresses[1]):
        yield f"{rule.to_address} does not end after it begins"
    if rule.action == "masquerade" and (rule.to_address or rule.persistent):
        yield "masquerade chooses the address itself, each time"
    if rule.action != "masquerade" and not (rule.to_address or rule.to_ports):
        yield f"{rule.action} has to say what to put in"
    if rule.action == "dnat" and rule.random_fully:
        yield "dnat of iptables knows no random_fully"


def _is_number(text: str, largest: int) -> bool:
    return text.isdigit() and text == str(int(text)) and int(text) <= largest


def _is_port_or_range(text: str) -> bool:
    ends = text.split("-")
    return (
        len(ends) <= 2
        and all(_is_number(end, 65535) for end in ends)
        and (len(ends) == 1 or int(ends[0]) < int(ends[1]))
    )


# --- a child process for one family ----------------------------------------------------------------------------------


def _in_child(family: int, work: Callable[[], list[Placed]]) -> list[Placed]:
    """What ``work`` finds, done in a process of its own. Raises NslabError."""
    reading, writing = os.pipe()
    try:
        pid = os.fork()
    except OSError as error:
        os.close(reading)
        os.close(writing)
        raise NslabError(f"cannot start a process for iptables: {error.strerror}") from error
    if pid == 0:
        _child(writing, work)
    os.close(writing)
    try:
        answer = _all_of(reading, LOCK_SECONDS + CHILD_SECONDS)
    finally:
        os.close(reading)
        status = _end(pid)
    if answer is None:
        raise NslabError(f"the process for iptables had not ended after {LOCK_SECONDS + CHILD_SECONDS:g} s")
    try:
        kind, result = json.loads(answer)
    except ValueError:
        how = f"was killed by {signal.Signals(status).name}" if status else "ended without an answer"
        raise NslabError(f"the process for iptables (python-iptables, IPv{family}) {how}") from None
    if kind:
        raise {"Missing": Missing, "Busy": Busy}.get(kind, NslabError)(result)
    return [Placed(*placed) for placed in result]


def _all_of(fd: int, seconds: float) -> bytes | None:
    """All that comes until the other end is closed; None if it is not closed in time."""
    # Not select(), which only takes descriptors below 1024, and an engine holds one for each namespace.
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    deadline = time.monotonic() + seconds
    parts: list[bytes] = []
    while (left := deadline - time.monotonic()) > 0:
        if poll.poll(left * 1000):
            part = os.read(fd, 65536)
            if not part:
                return b"".join(parts)
            parts.append(part)
    return None


def _end(pid: int) -> int:
    """Have a child end, which normally it does by itself; return the number of the signal that ended it, or 0."""
    deadline = time.monotonic() + 1
    try:
        while True:
            gone, status = os.waitpid(pid, os.WNOHANG)
            if gone:
                return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
            if time.monotonic() >= deadline:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.001)
    except ChildProcessError:  # The caller does not want to know of its children (SIGCHLD is ignored).
        return 0


def _child(writing: int, work: Callable[[], list[Placed]]) -> NoReturn:
    """What a child does: it answers and goes, without anything of what the parent does on its way out."""
    try:
        writing = fcntl.fcntl(writing, fcntl.F_DUPFD_CLOEXEC, 3)
        # python-iptables has libxtables print to descriptor 1 and reads it from there. What the parent had in its
        # buffers is the parent's to print.
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        ctypes.CDLL(None).fflush(None)
        sys.stdout = sys.stderr = io.StringIO()
        answer: list[object]
        try:
            answer = ["", work()]
        except NslabError as error:
            answer = [type(error).__name__, str(error)]
        except BaseException as error:  # noqa: BLE001 - whatever it is, it has to reach the parent
            answer = ["NslabError", f"python-iptables failed: {type(error).__name__}: {_words(error)}"]
        data = json.dumps(answer).encode()
        while data:
            data = data[os.write(writing, data) :]
    finally:
        os._exit(0)


def _words(error: BaseException) -> str:
    """What an exception says. python-iptables says some things as bytes: ``can't commit: b'Invalid argument'``."""
    return re.sub(r"""b(['"])(.*?)\1""", r"\2", str(error))


# --- what the child does, with python-iptables -----------------------------------------------------------------------

#: include/uapi/linux/netfilter_ipv4/ip_tables.h and netfilter_ipv6/ip6_tables.h
_INVERSE = {"-s": 0x08, "-d": 0x10, "-i": 0x01, "-o": 0x02, "-p": 0x40}
_IP6T_F_PROTO = 0x01

#: The matches whose parameters are asked of libxtables, besides the comment.
_MATCHES = ("addrtype", "mark", "multiport", "tcp", "udp")
#: In xt_entry_match and xt_entry_target: where the name stands, how long it may be, and where the data begins.
_NAME_AT, _NAME_SIZE, _HEADER_SIZE = 2, 29, 32


def _work(family: int, lab: str, wanted: list[Placed] | None) -> list[Placed]:
    """The rules of a lab as they are, or, with ``wanted``, as they were before they became that."""
    iptc = _import()
    if wanted is not None:
        _lock()
    table = _Table(iptc, family, lab)
    found = {chain: table.ours(chain) for chain in table.chains()}
    if wanted is not None:
        if lost := {placed.chain for placed in wanted} - found.keys():
            raise NslabError(f"the table nat of IPv{family} has no chain {', '.join(sorted(lost))}")
        changes = [
            table.change(chain, rules, [rule for rule in wanted if rule.chain == chain])
            for chain, rules in found.items()
        ]
        if any(changes):
            table.commit()
    return [placed for rules in found.values() for _position, placed in rules]


def _all_owners(family: int) -> list[Placed]:
    """All rules, without their words; the lab of one that is a lab's in the place of its arguments."""
    table = _Table(_import(), family, "")
    return [Placed(chain, owner, "") for chain in table.chains() for owner in table.owners(chain)]


def _import() -> Any:
    # python-iptables looks for its own wrapper among the libraries of the system first, which has ctypes run gcc and
    # ld several times where they are installed.
    find_library = ctypes.util.find_library
    vars(ctypes.util)["find_library"] = lambda name: None if "xtwrapper" in name else find_library(name)
    # Where setuptools is installed, distutils is a part of it that takes longer to import than all else takes; from
    # Python 3.12 on there is no other, which python-iptables 1.0.1 minds.
    vars(sysconfig)["get_python_lib"] = functools.partial(sysconfig.get_path, "purelib")
    sys.modules.update({"distutils": ModuleType("distutils"), "distutils.sysconfig": sysconfig})
    try:
        import iptc
    except ImportError as error:
        raise Missing(f"python-iptables cannot be used on this host: {error}") from error
    except Exception as error:
        raise Missing(
            f"python-iptables cannot be used on this host: {_words(error)}; it needs libxtables, libip4tc and libip6tc "
            "(Debian's package iptables)"
        ) from error
    return iptc


def _lock() -> None:
    """Hold the lock of the iptables commands until this process ends. Raises Busy after LOCK_SECONDS."""
    try:
        fd = os.open(_LOCK_FILE, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise NslabError(f"cannot open {_LOCK_FILE}: {error.strerror}") from error
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise Busy(
                    f"{_holder(fd)} has been holding {_LOCK_FILE}, the lock of iptables, for over {LOCK_SECONDS:g} s"
                ) from None
            time.sleep(_POLL_SECONDS)


def _holder(fd: int) -> str:
    """Who holds a lock, by /proc/locks: ``1: FLOCK  ADVISORY  WRITE 4711 00:1b:42 0 EOF``."""
    found = os.fstat(fd)
    file = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    try:
        with open("/proc/locks", encoding="ascii") as locks:
            pid = next(words[4] for words in map(str.split, locks) if file in words and "->" not in words)
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as name:
            return f"process {pid} ({name.read().strip()})"
    except (OSError, StopIteration):
        return "another process"


class _Table:
    """The table ``nat`` of one family, and the rules of one lab in it."""

    def __init__(self, iptc: Any, family: int, lab: str) -> None:
        self._iptc = iptc
        self._family = family
        self._mark = f"{OWNER}{lab}".encode()
        rule = iptc.Rule6 if family == 6 else iptc.Rule
        # python-iptables 1.0.1 opens, and so creates, all tables of the namespace to see whether SNAT is the name of a
        # chain in one of them; later versions still do for targets that they do not know.
        self._new_rule = type("Rule", (rule,), {"tables": []})
        try:
            self._table = (iptc.Table6 if family == 6 else iptc.Table)("nat", autocommit=False)
        except iptc.IPTCError as error:
            raise NslabError(f"cannot open the table nat of IPv{family}: {_words(error)}") from error
        #: The revision and the size that libxtables has of an extension.
        self._known: dict[str, tuple[int, int]] = {}
        #: What libxtables has said of a target's bytes, and what it has made of the words of a rule behind its base.
        self._said: dict[bytes, list[str]] = {}
        self._made: dict[tuple[str, ...], bytes] = {}
        #: Only to look through, at one rule after the other.
        self._lens = self._new_rule()

    def chains(self) -> list[str]:
        return [chain.name for chain in self._table.chains]

    def commit(self) -> None:
        try:
            self._table.commit()
        except self._iptc.IPTCError as error:
            why = _words(error).rpartition("can't commit: ")[2]
            raise NslabError(f"the kernel refused the rules of IPv{self._family}: {why}") from error

    def ours(self, chain: str) -> list[tuple[int, Placed]]:
        """The rules of the lab in a chain with their positions. Those of others are not decoded: nobody knows how."""
        return [
            (position, Placed(chain, self._arguments(entry), self._raw(entry), position))
            for position, entry in enumerate(self._entries(chain))
            if self._is_ours(entry)
        ]

    def change(self, chain: str, found: list[tuple[int, Placed]], wanted: list[Placed]) -> bool:
        """Have the wanted rules in the place of those found, with the next commit. False if they are the same."""
        if wanted and all(placed.raw for placed in wanted):
            return self._put_back(chain, found, wanted)
        have = [placed.arguments for _position, placed in found]
        want = [placed.arguments for placed in wanted]
        if have == want:
            return False
        first = _common(have, want)
        last = _common(have[first:][::-1], want[first:][::-1])
        going = found[first : len(found) - last]
        coming = wanted[first : len(wanted) - last]
        positions = [position for position, _placed in found] or [len(self._entries(chain))]
        at = positions[first] if first < len(positions) else positions[-1] + 1
        for position, _placed in reversed(going):
            self._delete(chain, position)
        for placed in reversed(coming):
            self._insert(chain, placed, at)
        return True

    def _put_back(self, chain: str, found: list[tuple[int, Placed]], wanted: list[Placed]) -> bool:
        """Have rules that were there before where they stood, among those of others."""
        if [placed._replace(raw="") for _position, placed in found] == [placed._replace(raw="") for placed in wanted]:
            return False
        for position, _placed in reversed(found):
            self._delete(chain, position)
        others = len(self._entries(chain))
        for number, placed in enumerate(wanted):
            self._insert(chain, placed, min(placed.position, others + number))
        return True

    def _insert(self, chain: str, placed: Placed, at: int) -> None:
        raw = bytes.fromhex(placed.raw) or self._build(placed.arguments)
        self._table.insert_entry(chain, (ctypes.c_ubyte * len(raw)).from_buffer_copy(raw), at)

    def _delete(self, chain: str, position: int) -> None:
        # Table.delete_entry() goes by what a rule says and takes the first of two that say the same.
        table = self._table
        if table._iptc.iptc_delete_num_entry(chain.encode(), position, table._handle) != 1:  # noqa: SLF001
            raise NslabError(f"cannot delete rule {position + 1} of {chain}: {_words(Exception(table.strerror()))}")

    def _entries(self, chain: str) -> list[Any]:
        """The rules of a chain as libiptc has them, which stay where they are in memory until they are deleted."""
        entries = []
        entry = self._table.first_rule(chain)
        while entry:
            entries.append(entry)
            entry = self._table.next_rule(entry)
        return entries

    # from the kernel's bytes to words

    def owners(self, chain: str) -> Iterator[list[str]]:
        """For each rule of a chain the lab, or nothing if it is no lab's."""
        owner = OWNER.encode()
        for entry in self._entries(chain):
            comments = [self._comment(at) for name, at in self._matches(entry) if name == "comment"]
            ours = [comment for comment in comments if comment.startswith(owner)]
            yield [comment[len(owner) :].partition(b" ")[0].decode("utf-8", "replace") for comment in ours[:1]]

    def _is_ours(self, entry: Any) -> bool:
        if self._mark not in ctypes.string_at(ctypes.addressof(entry), entry.next_offset):
            return False
        comments = (self._comment(address) for name, address in self._matches(entry) if name == "comment")
        return any(comment == self._mark or comment.startswith(self._mark + b" ") for comment in comments)

    def _matches(self, entry: Any) -> Iterator[tuple[str, int]]:
        """The names of the matches of a rule, and where they stand in memory."""
        address = ctypes.addressof(entry) + ctypes.sizeof(entry)
        end = ctypes.addressof(entry) + entry.target_offset
        while address < end:
            match = self._iptc.xtables.xt_entry_match.from_address(address)
            yield match.u.user.name.decode("ascii", "replace"), address
            address += match.u.match_size

    def _comment(self, address: int) -> bytes:
        return ctypes.string_at(address + _HEADER_SIZE, _COMMENT_SIZE).partition(b"\0")[0]

    def _arguments(self, entry: Any) -> list[str]:
        """What iptables-save says of a rule after its chain; in other words where it is none of those that we make."""
        rule = self._lens
        ctypes.memmove(ctypes.addressof(rule.entry), ctypes.addressof(entry), ctypes.sizeof(entry))
        arguments = self._base_arguments(rule.get_ip())
        for name, address in self._matches(entry):
            match = self._iptc.xtables.xt_entry_match.from_address(address)
            arguments += ["-m", name]
            if name == "comment":
                arguments += ["--comment", self._comment(address).decode("utf-8", "surrogateescape")]
            elif name in _MATCHES and self._knows(self._iptc.Match, name, match.u.user.revision, match.u.match_size):
                arguments += _parameters(self._iptc.Match(rule, match=match))
            else:
                arguments += _hidden(address, match.u.match_size)
        address = ctypes.addressof(entry) + entry.target_offset
        target = self._iptc.xtables.xt_entry_target.from_address(address)
        # Of the targets that libiptc itself knows (ACCEPT, another chain) the name does not stand in the rule.
        name = (self._table.get_target(entry) or b"").decode("ascii", "replace")
        arguments += ["-j", name]
        if name in _ACTIONS and self._knows(self._iptc.Target, name, target.u.user.revision, target.u.target_size):
            data = ctypes.string_at(address, target.u.target_size)
            if data not in self._said:
                self._said[data] = _parameters(self._iptc.Target(rule, target=target))
            arguments += self._said[data]
        elif target.u.user.name:
            arguments += _hidden(address, target.u.target_size)
        return arguments

    def _base_arguments(self, ip: Any) -> list[str]:
        arguments = []
        inverse = ip.invflags
        number = ip.proto
        for word, value in (
            ("-s", _prefix(bytes(ip.src), bytes(ip.smsk))),
            ("-d", _prefix(bytes(ip.dst), bytes(ip.dmsk))),
            ("-i", _interface(ip.iniface, ip.iniface_mask)),
            ("-o", _interface(ip.outiface, ip.outiface_mask)),
            ("-p", _PROTOCOL_NAMES.get(number, str(number)) if number else ""),
        ):
            if value:
                arguments += ["!", word, value] if inverse & _INVERSE[word] else [word, value]
                inverse &= ~_INVERSE[word]
        flags = ip.flags ^ (_IP6T_F_PROTO if self._family == 6 and number else 0)
        if flags or inverse:  # fragments, TOS, goto instead of jump
            arguments += ["--flags", f"{flags:#x}/{inverse:#x}"]
        return arguments

    def _knows(self, kind: Any, name: str, revision: int, size: int) -> bool:
        """Whether an extension is of the revision that libxtables takes it for: python-iptables does not look."""
        if name not in self._known:
            part = kind(self._new_rule(), name)
            if kind is self._iptc.Match:
                self._known[name] = part.match.u.user.revision, part.match.u.match_size
            else:
                self._known[name] = part.target.u.user.revision, part.target.u.target_size
        return self._known[name] == (revision, size)

    def _raw(self, entry: Any) -> str:
        """The bytes of a rule, with the name of its target in them, by which libiptc takes it in again."""
        raw = bytearray(ctypes.string_at(ctypes.addressof(entry), entry.next_offset))
        name = self._table.get_target(entry) or b""
        at = entry.target_offset + _NAME_AT
        raw[at : at + _NAME_SIZE] = name.ljust(_NAME_SIZE, b"\0")
        return raw.hex()

    # from words to the kernel's bytes

    def _build(self, arguments: list[str]) -> bytes:
        """The bytes of a rule. Those of many differ in their base alone, which stands at the beginning."""
        base, rest = _base_and_rest(arguments)
        # What libxtables makes of the rest depends on the protocol as well.
        sort = (*(word for option in base if "-p" in option[:-1] for word in option), *rest)
        if sort not in self._made:
            try:
                self._made[sort] = self._built(arguments)
            except (self._iptc.IPTCError, self._iptc.XTablesError, ValueError) as error:
                raise NslabError(f"libxtables does not take {shlex.join(arguments)}: {_words(error)}") from error
            return self._made[sort]
        raw = bytearray(self._made[sort])
        ip = type(self._lens.get_ip()).from_buffer(raw)
        ctypes.memset(ctypes.addressof(ip), 0, ctypes.sizeof(ip))
        for *inverse, option, value in base:
            _set_base(ip, self._family, option, value, bool(inverse))
        return bytes(raw)

    def _built(self, arguments: list[str]) -> bytes:
        rule = self._new_rule()
        ip = rule.get_ip()
        part: Any = None
        words = iter(arguments)
        for word in words:
            inverse = word == "!"
            option = next(words) if inverse else word
            if option == "-m":
                part = self._iptc.Match(rule, next(words))
                rule.add_match(part)
            elif option == "-j":
                part = self._iptc.Target(rule, next(words))
                rule.target = part
            elif option == "--comment":
                # Rule.final_check() and the parameters of python-iptables change a comment with quotes in it.
                comment = next(words).encode("utf-8", "surrogateescape")
                ctypes.memmove(ctypes.addressof(part.match_buf) + _HEADER_SIZE, comment, len(comment))
            elif option in _INVERSE:
                _set_base(ip, self._family, option, next(words), inverse)
            else:
                values = [] if option in _WITHOUT_VALUE else [next(words)]
                part.set_parameter(option[2:], ["!", *values] if inverse else values)
        # It is the last check that puts --random-fully into the target. The public one, of the rule, decodes each part
        # before, and so loses what is not in it yet.
        rule.target._final_check()  # noqa: SLF001
        return bytes(rule.rule)


def _base_and_rest(arguments: list[str]) -> tuple[list[list[str]], list[str]]:
    """The options for addresses, interfaces and protocol, each with its value, and all that comes after them."""
    base = []
    while arguments[arguments[0] == "!"] in _INVERSE:
        size = 3 if arguments[0] == "!" else 2
        base.append(arguments[:size])
        arguments = arguments[size:]
    return base, arguments


def _common(one: list[list[str]], other: list[list[str]]) -> int:
    """How many rules two lists have in common at the beginning."""
    for count, (left, right) in enumerate(zip(one, other)):
        if left != right:
            return count
    return min(len(one), len(other))


def _parameters(part: Any) -> list[str]:
    arguments = []
    for name, values in part.get_all_parameters().items():
        arguments += ["!", f"--{name}", *values[1:]] if values[:1] == ["!"] else [f"--{name}", *values]
    return arguments


def _hidden(address: int, size: int) -> list[str]:
    return ["--data", ctypes.string_at(address + _HEADER_SIZE, size - _HEADER_SIZE).hex()]


def _prefix(address: bytes, mask: bytes) -> str:
    if not any(mask) and not any(address):
        return ""
    try:
        network = ipaddress.ip_network((address, bin(int.from_bytes(mask, "big")).count("1")))
        if network.netmask.packed == mask:
            return _kernel_address(str(network))
    except ValueError:  # The address has bits behind its mask.
        pass
    return f"{ipaddress.ip_address(address)}/{ipaddress.ip_address(mask)}"


def _interface(name: bytes, mask: bytes) -> str:
    """The name of an interface, whose mask also has the byte that ends it unless it is a pattern."""
    if not mask:
        return ""
    return name.decode("utf-8", "surrogateescape") + ("" if len(mask) > len(name) else "+")


def _set_base(ip: Any, family: int, option: str, value: str, inverse: bool) -> None:
    ip.invflags |= _INVERSE[option] if inverse else 0
    if option in {"-s", "-d"}:
        network = ipaddress.ip_network(value)
        fields = ("src", "smsk") if option == "-s" else ("dst", "dmsk")
        for field, address in zip(fields, (network.network_address, network.netmask)):
            place = ctypes.addressof(ip) + getattr(type(ip), field).offset
            ctypes.memmove(place, address.packed, len(address.packed))
    elif option == "-p":
        ip.proto = PROTOCOLS.get(value) or int(value)
        if family == 6:  # Rule6.protocol leaves this out where the protocol is negated, which then matches everything.
            ip.flags |= _IP6T_F_PROTO
    else:
        name = value.encode("utf-8", "surrogateescape")
        field = "iniface" if option == "-i" else "outiface"
        setattr(ip, field, name)
        setattr(ip, f"{field}_mask", b"\xff" * (len(name) + 1))
