# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Throw-away hosts, and what iproute2 and /proc/sys say about them.

A throw-away host is a network and a mount namespace of the test's own, with a private /run and a fresh /sys, entered
by the process (the thread) that runs the test: whatever it starts from then on runs there. Nothing can leak to the
machine, tests run in parallel, and all vanishes with the last process inside. Nothing here uses the collection's code.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
MS_BIND = 0x1000
MS_REC_PRIVATE = 0x4000 | 0x40000

# What the lock leaves behind, as any lock file does; it says nothing about the host.
_LOCK_FILE = "/run/nslab/lock"
_SYSCTL_PATTERN = r"^net\.(core|ipv4|ipv6)\."
#: A name with a dot has a slash in its place.
_SYSCTL_SEPARATORS = str.maketrans("/.", "./")
_LINK_KEYS = (
    "ifindex", "ifname", "flags", "mtu", "address", "broadcast", "ifalias", "altnames", "master",
    "group", "txqlen", "promiscuity", "inet6_addr_gen_mode",
)  # fmt: skip
_ADDRESS_KEYS = ("family", "local", "peer", "prefixlen", "broadcast", "anycast", "scope", "label", "metric", "protocol")
_ADDRESS_FLAGS = ("secondary", "dynamic", "noprefixroute", "nodad", "deprecated", "home", "mngtmpaddr", "temporary")

_BRIDGE_KEYS = ("ageing_time", "forward_delay", "group_fwd_mask", "mcast_snooping", "stp_state", "vlan_filtering")
_PORT_KEYS = (
    "cost", "flood", "guard", "hairpin", "isolated", "learning", "mcast_flood", "neigh_suppress", "priority",
)  # fmt: skip

# What a service writes about its process: numbers, which are longer or shorter.
_OF_A_PROCESS = re.compile("/run/nslab/services/.*/(state|pid)")

# What comes with the carrier.
_WITH_CARRIER = ("fe80:", "ff00:")
_CARRIER_FLAGS = {"LOWER_UP", "NO-CARRIER", "M-DOWN"}

#: Between two looks: others want the processor as well.
_PAUSE_SECONDS = 0.02

_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def throwaway_host() -> Iterator[None]:
    """Move this thread to a throw-away host with lo up, and back afterwards."""
    homes = _namespaces_of_this_thread()
    # Entering a mount namespace moves to its root.
    folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        _check(_libc.unshare(CLONE_NEWNET | CLONE_NEWNS))
        try:
            _check(_libc.mount(b"none", b"/", None, MS_REC_PRIVATE, None))
            _check(_libc.mount(b"tmpfs", b"/run", b"tmpfs", 0, b"mode=0755"))
            # /sys/class/net shows the network namespace in which it was mounted.
            _check(_libc.mount(b"sysfs", b"/sys", b"sysfs", 0, None))
            ip("link", "set", "lo", "up")
            yield
        finally:
            _enter(homes)
            os.fchdir(folder)
    finally:
        for fd in (folder, *(home for home, _flag in homes)):
            os.close(fd)


class Machine:
    """A throw-away host beside the one that this thread is on, for it to go there and back."""

    def __init__(self) -> None:
        with throwaway_host():
            self._namespaces = _namespaces_of_this_thread()

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        homes = _namespaces_of_this_thread()
        folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            _enter(self._namespaces)
            yield
        finally:
            _enter(homes)
            os.fchdir(folder)
            for fd in (folder, *(home for home, _flag in homes)):
                os.close(fd)

    def wire(self, name: str) -> None:
        """Move an interface of the present host there."""
        ip("link", "set", name, "netns", self._paths()[0])

    def command(self) -> list[str]:
        """What runs another command there, as long as this process is."""
        network, mounts = self._paths()
        return ["nsenter", f"--net={network}", f"--mount={mounts}"]

    def _paths(self) -> list[str]:
        return [f"/proc/{os.getpid()}/fd/{fd}" for fd, _flag in self._namespaces]

    def close(self) -> None:
        for fd, _flag in self._namespaces:
            os.close(fd)


def _namespaces_of_this_thread() -> list[tuple[int, int]]:
    kinds = (("net", CLONE_NEWNET), ("mnt", CLONE_NEWNS))
    return [(os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY), flag) for kind, flag in kinds]


def _enter(namespaces: list[tuple[int, int]]) -> None:
    for fd, flag in namespaces:
        _check(_libc.setns(fd, flag))


def own_etc(folder: Path) -> None:
    """Give the throw-away host that this thread is on an /etc of its own: a copy."""
    shutil.copytree("/etc", folder / "etc", symlinks=True)
    _check(_libc.mount(str(folder / "etc").encode(), b"/etc", None, MS_BIND, None))


def own_local_lib() -> None:
    """Give it a /usr/local/lib of its own, with nothing in it."""
    _check(_libc.mount(b"tmpfs", b"/usr/local/lib", b"tmpfs", 0, b"mode=0755"))


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


# iproute2


def ip(*arguments: str) -> str:
    """Run ip; return what it prints. A failure says what ip said. ``-n NAME`` goes first, and is done by nsenter."""
    namespace, arguments = (arguments[1], arguments[2:]) if arguments[0] == "-n" else (None, arguments)
    done = subprocess.run([*inside(namespace), "ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: exit status {done.returncode}: {done.stderr.strip()}"
    return done.stdout


def within(namespace: str | None, *command: str, text: str = "") -> str:
    """Run any command in a namespace, None for the host; return what it prints."""
    whole = [*inside(namespace), *command]
    done = subprocess.run(whole, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: exit status {done.returncode}: {done.stderr.strip()}"
    return done.stdout


def ip_batch(lines: str, namespace: str | None = None) -> None:
    """Run many ip commands, one a line, in one go."""
    command = [*inside(namespace), "ip", "-batch", "-"]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip -batch: exit status {done.returncode}: {done.stderr.strip()}"


def ip_json(namespace: str | None, *arguments: str) -> list[dict[str, Any]]:
    """What ip shows in a namespace, None for the host. Nothing shown is an empty list."""
    command = [*inside(namespace), "ip", "-json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: exit status {done.returncode}: {done.stderr.strip()}"
    # Some dumps have an empty object for each thing that a filter has left out.
    return [entry for entry in json.loads(done.stdout or "[]") if entry]


def without_bridge_netfilter(namespace: str | None) -> None:
    """Have its firewall see only what is routed: where br_netfilter is loaded, neighbours are translated as well."""
    for name in ("iptables", "ip6tables"):
        path = f"/proc/sys/net/bridge/bridge-nf-call-{name}"
        within(namespace, "sh", "-c", f"if [ -e {path} ]; then echo 0 > {path}; fi")


def inside(namespace: str | None) -> list[str]:
    """The command that runs another one in a namespace.

    ip -n and ip netns exec do it too, but copy all mounts of the host each time, of which every namespace is one.
    """
    return [] if namespace is None else ["nsenter", f"--net=/run/netns/{namespace}"]


def named_namespaces() -> list[str]:
    """The names that `ip netns` lists."""
    return sorted(line.split()[0] for line in ip("netns", "list").splitlines())


def sysctls(namespace: str | None, pattern: str = _SYSCTL_PATTERN) -> dict[str, str]:
    """The sysctls of a namespace whose name matches a regular expression, as sysctl spells them."""
    wanted = re.compile(pattern)
    found = {}
    with entered(namespace):
        for folder, _folders, files in os.walk("/proc/sys/net"):
            for path in (os.path.join(folder, name) for name in files):
                key = path.removeprefix("/proc/sys/").translate(_SYSCTL_SEPARATORS)
                if wanted.search(key):
                    # Some cannot be read, and an interface may go between the listing and the look.
                    with contextlib.suppress(OSError), open(path, encoding="ascii") as file:
                        found[key] = file.read().rstrip("\n")
    return found


@contextlib.contextmanager
def entered(namespace: str | None) -> Iterator[None]:
    """Have this thread itself in a namespace, None for the host."""
    if namespace is None:
        yield
        return
    with open("/proc/thread-self/ns/net", "rb") as home, open(f"/run/netns/{namespace}", "rb") as there:
        _check(_libc.setns(there.fileno(), CLONE_NEWNET))
        try:
            yield
        finally:
            _check(_libc.setns(home.fileno(), CLONE_NEWNET))


def firewall(namespace: str | None) -> list[str]:
    """The rules of nftables and of legacy iptables in a namespace, line by line, without handles and counters.

    A table of legacy iptables that holds no rules says nothing: it stays until its namespace goes.
    """
    with entered(namespace):
        found = within(None, "nft", "list", "ruleset").splitlines()
        for family in ("ip", "ip6"):
            # Listing a table that is not there makes it. Without the kernel's module there is no such file.
            names = Path(f"/proc/thread-self/net/{family}_tables_names")
            if names.exists() and names.read_text():
                saved = within(None, f"{family}tables-legacy-save").splitlines()
                found += [f"{family} {line}" for line in saved if line.startswith("-A")]
    return found


# Containers of sorts


class Containers:
    """Processes in network namespaces of their own, which something else than the collection has made."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> int:
        process = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE)
        self._processes.append(process)
        eventually(lambda: inode_of(process.pid) != os.stat("/proc/self/ns/net").st_ino, "in a namespace of its own")
        return process.pid

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()


def inode_of(pid: int) -> int:
    """The network namespace of a process."""
    return os.stat(f"/proc/{pid}/ns/net").st_ino


# Facts to wait for


def eventually(
    fact: Callable[[], bool], what: str, seconds: float = 30, seen: Callable[[], object] | None = None
) -> None:
    """Look again and again until a fact is there. What the kernel does in the background takes its time.

    ``seen`` says what is there instead.
    """
    deadline = time.monotonic() + seconds
    while not fact():
        if time.monotonic() > deadline:
            instead = f"; there is {seen()}" if seen else ""
            raise AssertionError(f"waited {seconds:g} s for this: {what}{instead}")
        time.sleep(_PAUSE_SECONDS)


@contextlib.contextmanager
def deadline(what: str, seconds: float = 60) -> Iterator[None]:
    """End what would wait for something that never comes."""

    def end(_number: int, _frame: object) -> None:
        raise AssertionError(f"after {seconds:g} s this was still not done: {what}")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def ping(namespace: str | None, to: str, wait_seconds: int = 5) -> tuple[bool, str]:
    """Whether an address answers, and what ping said.

    With -w it asks again until the first answer or error: a link that has just come up drops what it is to send until
    the kernel has taken note of its carrier, up to a second later.
    """
    command = [*inside(namespace), "ping", "-n", "-i", "0.2", "-c", "1", "-w", str(wait_seconds), to]
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    return done.returncode == 0, done.stdout + done.stderr


# Who sees whom

_SERVER = """
import socket, sys
listener = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True)
print("ready", flush=True)
while True:
    connection, peer = listener.accept()
    connection.sendall(peer[0].removeprefix("::ffff:").encode())
    connection.close()
"""

_CLIENT = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2) as connection:
        print(connection.recv(100).decode())
except OSError:
    pass
"""


@contextlib.contextmanager
def served(namespace: str | None, port: int) -> Iterator[None]:
    """A server in a namespace that tells each client by which address it sees it."""
    command = [*inside(namespace), sys.executable, "-c", _SERVER, str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            yield
        finally:
            server.kill()


def seen(source: str | None, to: str, port: int) -> str:
    """By which address the server at the other end sees a client; empty if they do not come together."""
    command = [*inside(source), sys.executable, "-c", _CLIENT, to, str(port)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


# What kernels lack


def _lack_of_netem() -> str:
    """What the kernel says to netem, in a namespace that ends at once; empty if it has it."""
    command = ["unshare", "--net", "tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr.strip()


#: Why there are no impairments; empty if there are.
NO_NETEM = _lack_of_netem()


def qdiscs(namespace: str | None) -> list[dict[str, Any]]:
    """The root queueing disciplines that somebody has set, as tc shows them, where the kernel has impairments."""
    return root_qdiscs("[]" if NO_NETEM else within(namespace, "tc", "-json", "qdisc", "show"))


def root_qdiscs(said: str) -> list[dict[str, Any]]:
    return [_qdisc(entry) for entry in json.loads(said) if entry.get("root") and entry["handle"] != "0:"]


def _qdisc(entry: dict[str, Any]) -> dict[str, Any]:
    """Without how often it is referred to, and the seed of what is random."""
    options = {key: value for key, value in entry["options"].items() if key != "seed"}
    return {**{key: value for key, value in entry.items() if key != "refcnt"}, "options": options}


# Snapshots


def snapshot() -> dict[str, Any]:
    """All there is on the host and in its named namespaces, for a comparison of before and after.

    What changes by itself is left out: lifetimes, neighbours, the carrier, of which the kernel takes note up to a
    second late, and the link-local addresses and routes that come with it. For the other addresses the end of duplicate
    address detection is waited for, since the kernel adds the local route of an address then.
    """
    found: dict[str, Any] = {"host": _stack(None)}
    for name in named_namespaces():
        found[f"namespace {name}"] = {"inode": os.stat(f"/run/netns/{name}").st_ino, **_stack(name)}
    found["files"] = dict(_files("/run"))
    found["mounts"] = _mounts("/run")
    return found


def without(found: dict[str, Any], *paths: str) -> dict[str, Any]:
    """A snapshot without these files and folders themselves (not what they hold)."""
    files = {path: file for path, file in found["files"].items() if path not in paths}
    return {**found, "files": files, "mounts": [mount for mount in found["mounts"] if mount not in paths]}


#: How to try whether the kernel has links of a kind; what lies on another one lies on v0.
KINDS = {
    "dummy": "dummy",
    "vlan": "vlan id 5",
    "macvlan": "macvlan",
    "ipvlan": "ipvlan",
    "vxlan": "vxlan id 5 dstport 4789",
    "vrf": "vrf table 5",
}


@functools.cache
def kernel_has(kind: str) -> bool:
    """Whether links of a kind can be made here."""
    lower = "link v0" if kind in ("vlan", "macvlan", "ipvlan") else ""
    tried = f"ip link add v0 type veth peer name v1 && ip link add {lower} name x type {KINDS[kind]}"
    return subprocess.run(["unshare", "--net", "sh", "-c", tried], capture_output=True, check=False).returncode == 0


def kinds_here() -> tuple[str, ...]:
    return tuple(filter(kernel_has, KINDS))


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Where two snapshots differ, short enough to read."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted({*one, *other})
        return [line for key in keys for line in differences(one.get(key), other.get(key), f"{path}/{key}")]
    if isinstance(one, list) and isinstance(other, list):
        only = [f"{path}: only before: {item}" for item in one if item not in other]
        return only + [f"{path}: only after: {item}" for item in other if item not in one]
    return [] if one == other else [f"{path}: {one!r} became {other!r}"]


def _stack(namespace: str | None) -> dict[str, Any]:
    """The links, addresses, routes, rules and sysctls of a namespace."""
    with entered(namespace):
        deadline = time.monotonic() + 5
        while True:
            links = _settled_links()
            routes6, rules6 = _ip_batch_json("-6", "route show table all", "rule show")
            if _have_local_routes(links, routes6) or time.monotonic() >= deadline:
                break
            time.sleep(_PAUSE_SECONDS)
        routes4, rules4 = _ip_batch_json("-4", "route show table all", "rule show")
        return {
            "links": {link["ifname"]: _link(link) for link in links},
            "IPv4 routes": _sorted(routes4),
            "IPv6 routes": _sorted(route for route in routes6 if not route["dst"].startswith(_WITH_CARRIER)),
            "IPv4 rules": lasting_rules(rules4),
            "IPv6 rules": lasting_rules(rules6),
            "sysctls": sysctls(None),
            "firewall": firewall(None),
            "qdiscs": qdiscs(None),
        }


def lasting_rules(rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Policy rules without the one that the kernel makes with the first VRF of a namespace, and never takes away."""
    return [rule for rule in rules if not ("l3mdev" in rule and rule.get("protocol") == "kernel")]


def _ip_batch_json(family: str, *lines: str) -> list[list[dict[str, Any]]]:
    """What ip shows for each of some lines, in the namespace that this thread is in."""
    command = ["ip", family, "-json", "-details", "-batch", "-"]
    said = within(None, *command, text="".join(f"{line}\n" for line in lines))
    return json_arrays(said, len(lines))


def json_arrays(text: str, number: int) -> list[list[dict[str, Any]]]:
    """The answers of one `ip -batch`, one after the other. Some hold an empty object for what a filter left out."""
    decoder, found, position = json.JSONDecoder(), [], 0
    while position < len(text):
        if text[position].isspace():
            position += 1
            continue
        array, position = decoder.raw_decode(text, position)
        found.append([entry for entry in array if entry])
    assert len(found) == number, text
    return found


def _have_local_routes(links: list[dict[str, Any]], routes: list[dict[str, Any]]) -> bool:
    """Has the kernel added the local route of each IPv6 address? A worker of it does that (addrconf_dad_work())."""
    usable = {
        address["local"]
        for link in links
        if link["operstate"] in {"UP", "UNKNOWN"} and "UP" in link["flags"]
        for address in link["addr_info"]
        if address["family"] == "inet6" and not (address.get("tentative") or address.get("dadfailed"))
    }
    local = {route["dst"] for route in routes if route.get("type") == "local"}
    return {address for address in usable if not address.startswith(_WITH_CARRIER)} <= local


def _settled_links() -> list[dict[str, Any]]:
    """Those of the namespace that this thread is in."""
    deadline = time.monotonic() + 10
    while True:
        links = ip_json(None, "-details", "address", "show")
        tentative = any(
            address.get("tentative") and not address.get("dadfailed")
            for link in links
            if link["operstate"] in {"UP", "UNKNOWN"} and "UP" in link["flags"]
            for address in link["addr_info"]
            if not address["local"].startswith(_WITH_CARRIER)
        )
        # There is a carrier, and the kernel has not taken note of it (linkwatch): addresses get their routes then.
        unnoticed = any("LOWER_UP" in link["flags"] and link["operstate"] not in {"UP", "UNKNOWN"} for link in links)
        if not (tentative or unnoticed) or time.monotonic() >= deadline:
            return links
        time.sleep(_PAUSE_SECONDS)


def _link(link: dict[str, Any]) -> dict[str, Any]:
    kept = {key: link[key] for key in _LINK_KEYS if key in link}
    info = link.get("linkinfo", {})
    kept["kind"] = info.get("info_kind")
    kept["bridge"] = {key: value for key, value in info.get("info_data", {}).items() if key in _BRIDGE_KEYS}
    kept["port"] = {key: value for key, value in info.get("info_slave_data", {}).items() if key in _PORT_KEYS}
    # Where the peer is another namespace its index is known, but no name.
    kept["peer"] = link.get("link", link.get("link_index"))
    kept["flags"] = sorted(set(link["flags"]) - _CARRIER_FLAGS)
    addresses = (address for address in link["addr_info"] if not address["local"].startswith(_WITH_CARRIER))
    kept["addresses"] = sorted((_address(address) for address in addresses), key=json.dumps)
    return kept


def _address(address: dict[str, Any]) -> dict[str, Any]:
    return {key: address[key] for key in (*_ADDRESS_KEYS, *_ADDRESS_FLAGS) if key in address}


def _sorted(dump: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    entries = [{key: value for key, value in entry.items() if key != "expires"} for entry in dump]
    for entry in entries:
        for way in (entry, *entry.get("nexthops", ())):
            way["flags"] = sorted(set(way.get("flags", ())) - {"linkdown"})
    return sorted(entries, key=lambda entry: json.dumps(entry, sort_keys=True))


def _files(top: str) -> Iterator[tuple[str, tuple[str, str, int | None]]]:
    for folder, folders, files in os.walk(top):
        for path in (os.path.join(folder, name) for name in (*folders, *files)):
            if path == _LOCK_FILE:
                continue
            # A namespace that is going takes its file away between the listing and the look.
            with contextlib.suppress(FileNotFoundError):
                status = os.lstat(path)
                size = None if stat.S_ISDIR(status.st_mode) or _OF_A_PROCESS.fullmatch(path) else status.st_size
                yield path, (stat.filemode(status.st_mode)[0], oct(stat.S_IMODE(status.st_mode)), size)


def _mounts(top: str) -> list[str]:
    """The mount points below a folder, as often as each is mounted on.

    The kernel also lists what the host's own /run covers: the mounts of the machine, such as that of ip netns.
    """
    found = []
    for fields in map(str.split, Path("/proc/thread-self/mountinfo").read_text().splitlines()):
        device, point = fields[2], fields[4]
        with contextlib.suppress(FileNotFoundError):
            seen = os.stat(point).st_dev if point.startswith(f"{top}/") else 0
            if device == f"{os.major(seen)}:{os.minor(seen)}":
                found.append(point)
    return sorted(found)
