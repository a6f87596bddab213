# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What iproute2, nft and iptables-save say of the whole host, with few processes: it is asked thousands of times.

One `ip -batch` for each namespace, and nft as the library that it is made of. Nothing here uses the collection's code.
What changes by itself is left out, as in throwaway.snapshot().
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from throwaway import KINDS, NO_NETEM, json_arrays, root_qdiscs

_libc = ctypes.CDLL(None, use_errno=True)
_nft = ctypes.CDLL("libnftables.so.1")
_nft.nft_ctx_new.restype = ctypes.c_void_p
_nft.nft_ctx_get_output_buffer.restype = _nft.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
_CLONE_NEWNET, _CLONE_NEWUTS = 0x40000000, 0x04000000

#: Counters, and what follows the carrier; whether a link takes all packets because a macvlan has lain on it, which the
#: kernel forgets only when the link comes up again (__dev_set_rx_mode()).
_PASSING = {
    "promiscuity",
    "operstate",
    "qdisc",
    "tso_max_size",
    "link_netnsid",
    "stats",
    "stats64",
    "flags",
    "addr_info",
    "linkinfo",
}
#: The identity of links, which a host made anew has others of.
_IDENTITY = {"ifindex", "link_index", "address", "link"}
_CARRIER = {"LOWER_UP", "NO-CARRIER", "M-DOWN"}
_BRIDGE = {"ageing_time", "forward_delay", "group_fwd_mask", "mcast_snooping", "stp_state", "vlan_filtering"}
_PORT = {"cost", "flood", "guard", "hairpin", "isolated", "learning", "mcast_flood", "neigh_suppress", "priority"}
_ADDRESS = {"valid_life_time", "preferred_life_time", "tentative", "dadfailed"}
_SYSCTLS = (
    "ipv4/ip_forward",
    "ipv4/icmp_echo_ignore_all",
    "ipv4/conf/*/forwarding",
    "ipv4/conf/*/rp_filter",
    "ipv6/conf/*/forwarding",
    "ipv6/conf/*/disable_ipv6",
)

#: "route show table all" shows those of IPv6 too, "rule show" does not.
_IP = (["ip", "-json", "-details", "-batch", "-"], "address show\nroute show table all\nrule show\n")
_IP6 = (["ip", "-6", "-json", "-details", "-batch", "-"], "rule show\n")


def look() -> dict[str, Any]:
    """The host and its named namespaces."""
    names = sorted(os.listdir("/run/netns")) if os.path.isdir("/run/netns") else []
    with contextlib.ExitStack() as open_files:
        homes = {None: "/proc/thread-self/ns/net", **{name: f"/run/netns/{name}" for name in names}}
        fds = {name: os.open(path, os.O_RDONLY) for name, path in homes.items()}
        for fd in fds.values():
            open_files.callback(os.close, fd)
        asked = {}
        for name, fd in fds.items():
            with _inside(fd, fds[None]):
                asked[name] = _ask()
        found: dict[str, Any] = {name or "host": _stack(asked[name]) for name in fds}
        inodes = {name: os.fstat(fds[name]).st_ino for name in names}
    return {"stacks": found, "inodes": inodes, "files": _files(), "hostnames": _hostnames()}


def without_identity(found: dict[str, Any]) -> dict[str, Any]:
    """So that two hosts of the same make look the same."""
    stacks = {
        name: {
            **stack,
            "links": {
                link: {key: value for key, value in body.items() if key not in _IDENTITY}
                for link, body in stack["links"].items()
            },
        }
        for name, stack in found["stacks"].items()
    }
    return {"stacks": stacks, "hostnames": found["hostnames"]}


def _hostnames() -> dict[str, str]:
    """What the namespaces are called that have host names of their own."""
    folder = "/run/nslab/uts"
    found = {}
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        with open("/proc/thread-self/ns/uts", "rb") as home, open(f"{folder}/{name}", "rb") as its:
            assert _libc.setns(its.fileno(), _CLONE_NEWUTS) == 0, os.strerror(ctypes.get_errno())
            found[name] = os.uname().nodename
            assert _libc.setns(home.fileno(), _CLONE_NEWUTS) == 0
    return found


@contextlib.contextmanager
def _inside(fd: int, home: int) -> Iterator[None]:
    assert _libc.setns(fd, _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    try:
        yield
    finally:
        assert _libc.setns(home, _CLONE_NEWNET) == 0


class _Asked(NamedTuple):
    """Programs at work in a namespace, and what could be had of it without one."""

    programs: dict[str, subprocess.Popen[str]]
    nft: str
    sysctls: dict[str, str]


def _ask() -> _Asked:
    """Start the programs in the namespace that this thread is in, and read the rest meanwhile."""
    commands = {"ip": _IP, "ip -6": _IP6}
    for family in ("ip", "ip6"):
        # Listing a table that is not there makes it.
        with contextlib.suppress(FileNotFoundError):
            if "nat" in Path(f"/proc/thread-self/net/{family}_tables_names").read_text().split():
                commands[family + "tables"] = ([f"{family}tables-legacy-save", "-t", "nat"], "")
    if not NO_NETEM:
        commands["tc"] = (["tc", "-json", "qdisc", "show"], "")
    programs = {name: _start(command, text) for name, (command, text) in commands.items()}
    top = "/proc/sys/net/"
    values = {path.removeprefix(top): _read(path) for pattern in _SYSCTLS for path in glob.glob(top + pattern)}
    return _Asked(programs, _nft_ruleset(), values)


def _start(command: list[str], text: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    assert process.stdin is not None
    process.stdin.write(text)
    process.stdin.close()
    process.stdin = None
    return process


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read().strip()


def _nft_ruleset() -> str:
    """What `nft list ruleset` prints."""
    context = ctypes.c_void_p(_nft.nft_ctx_new(0))
    try:
        _nft.nft_ctx_buffer_output(context)
        _nft.nft_ctx_buffer_error(context)
        failed = _nft.nft_run_cmd_from_buffer(context, b"list ruleset")
        assert not failed, _nft.nft_ctx_get_error_buffer(context)
        return str(_nft.nft_ctx_get_output_buffer(context), "utf-8")
    finally:
        _nft.nft_ctx_free(context)


def _stack(asked: _Asked) -> dict[str, Any]:
    said = {}
    for name, process in asked.programs.items():
        said[name], error = process.communicate(timeout=60)
        assert process.returncode == 0, f"{name}: {error}"
    links, routes, rules = json_arrays(said["ip"], 3)
    saved = [line for name in ("iptables", "ip6tables") for line in said.get(name, "").splitlines()]
    return {
        "links": {link["ifname"]: _link(link) for link in links},
        "routes": sorted(filter(None, map(_route, routes))),
        "rules": {"IPv4": rules, "IPv6": json_arrays(said["ip -6"], 1)[0]},
        "qdiscs": root_qdiscs(said.get("tc", "[]")),
        "sysctls": asked.sysctls,
        "nft": asked.nft.splitlines(),
        # A table that holds no rules says nothing: it stays until its namespace goes.
        "legacy": [line for line in saved if line.startswith("-A")],
    }


def _link(link: dict[str, Any]) -> dict[str, Any]:
    info = link.get("linkinfo", {})
    data = info.get("info_data", {})
    if data.get("stp_state"):
        # The kernel has another one while the topology changes, and that of the root of the spanning tree.
        del data["ageing_time"], data["forward_delay"]
    return {
        **{key: value for key, value in link.items() if key not in _PASSING},
        "flags": sorted(set(link["flags"]) - _CARRIER),
        "kinds": [info.get("info_kind"), info.get("info_slave_kind")],
        "bridge": {key: value for key, value in data.items() if key in _BRIDGE},
        # What a VXLAN lies on is an index, in another namespace at times.
        "details": {key: value for key, value in data.items() if info.get("info_kind") in KINDS and key != "link"},
        "port": {key: value for key, value in info.get("info_slave_data", {}).items() if key in _PORT},
        "addresses": sorted(
            json.dumps({key: value for key, value in address.items() if key not in _ADDRESS}, sort_keys=True)
            for address in link["addr_info"]
            if not address["local"].startswith("fe80:")
        ),
    }


def _route(route: dict[str, Any]) -> str:
    """As one text; empty for one that comes and goes with the carrier or with duplicate address detection."""
    if str(route["dst"]).startswith(("fe80", "ff00")) or route.get("table") == "local":
        return ""
    for way in (route, *route.get("nexthops", ())):
        way["flags"] = sorted(set(way.get("flags", ())) - {"linkdown"})
    return json.dumps({key: value for key, value in route.items() if key != "expires"}, sort_keys=True)


def _files() -> list[str]:
    """What there is below /run but for the lock, which says nothing of the host."""
    found = []
    for folder, folders, files in os.walk("/run"):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            size = "" if name in folders else f" {os.lstat(path).st_size}"
            found.append(path + size)
    folders_that_stay = ("/run/nslab", "/run/netns", "/run/nslab/lock", "/run/xtables.lock")
    return sorted(path for path in found if path.split(" ")[0] not in folders_that_stay)
