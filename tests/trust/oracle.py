# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What iproute2, nft and iptables-save say of the whole host, with few processes: it is asked thousands of times.

Nothing here uses the collection's code. What changes by itself is left out, as in throwaway.snapshot().
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000

#: Counters, and what follows the carrier; the identity of links, which a host made anew has others of.
_PASSING = {"operstate", "qdisc", "tso_max_size", "link_netnsid", "stats", "stats64", "flags", "addr_info", "linkinfo"}
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

_COMMANDS = {
    "ip": (["ip", "-json", "-details", "-batch", "-"], "address show\nroute show table all\nrule show\n"),
    "ip -6": (["ip", "-6", "-json", "-details", "-batch", "-"], "route show table all\nrule show\n"),
    "nft": (["nft", "list", "ruleset"], ""),
}


def look(identity: bool = True) -> dict[str, Any]:
    """The host and its named namespaces. Without ``identity`` two hosts of the same make look the same."""
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
        found: dict[str, Any] = {name or "host": _stack(*asked[name], identity) for name in fds}
        if identity:
            found["inodes"] = {name: os.fstat(fds[name]).st_ino for name in names}
            found["files"] = _files()
    return found


@contextlib.contextmanager
def _inside(fd: int, home: int) -> Iterator[None]:
    assert _libc.setns(fd, _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    try:
        yield
    finally:
        assert _libc.setns(home, _CLONE_NEWNET) == 0


def _ask() -> tuple[dict[str, subprocess.Popen[str]], dict[str, str]]:
    """Start all programs in the namespace that this thread is in, and read its sysctls meanwhile."""
    started = {}
    commands = dict(_COMMANDS)
    for family in ("ip", "ip6"):
        # Listing a table that is not there makes it.
        with contextlib.suppress(FileNotFoundError):
            if "nat" in Path(f"/proc/thread-self/net/{family}_tables_names").read_text().split():
                commands[family + "tables"] = ([f"{family}tables-legacy-save", "-t", "nat"], "")
    for name, (command, text) in commands.items():
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started[name] = process
        assert process.stdin is not None
        process.stdin.write(text)
        process.stdin.close()
        process.stdin = None
    top = Path("/proc/sys/net")
    values = {
        str(path.relative_to(top)): path.read_text().strip() for pattern in _SYSCTLS for path in top.glob(pattern)
    }
    return started, values


def _stack(started: dict[str, subprocess.Popen[str]], sysctls: dict[str, str], identity: bool) -> dict[str, Any]:
    said = {}
    for name, process in started.items():
        said[name], error = process.communicate(timeout=60)
        assert process.returncode == 0, f"{name}: {error}"
    links, routes, rules = _arrays(said["ip"], 3)
    routes6, rules6 = _arrays(said["ip -6"], 2)
    saved = [line for name in ("iptables", "ip6tables") for line in said.get(name, "").splitlines()]
    return {
        "links": {link["ifname"]: _link(link, identity) for link in links},
        "routes": sorted(filter(None, map(_route, [*routes, *routes6]))),
        "rules": [*rules, *rules6],
        "sysctls": sysctls,
        "nft": said["nft"].splitlines(),
        # A table that holds no rules says nothing: it stays until its namespace goes.
        "legacy": [line for line in saved if line.startswith("-A")],
    }


def _arrays(text: str, number: int) -> list[list[dict[str, Any]]]:
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


def _link(link: dict[str, Any], identity: bool) -> dict[str, Any]:
    info = link.get("linkinfo", {})
    data = info.get("info_data", {})
    if data.get("stp_state") and data.get("topology_change"):
        # The kernel has another one meanwhile.
        del data["ageing_time"]
    left_out = _PASSING if identity else _PASSING | _IDENTITY
    return {
        **{key: value for key, value in link.items() if key not in left_out},
        "flags": sorted(set(link["flags"]) - _CARRIER),
        "kinds": [info.get("info_kind"), info.get("info_slave_kind")],
        "bridge": {key: value for key, value in data.items() if key in _BRIDGE},
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
