# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print what stands on this host, one fact a line, as iproute2, sysctl, nft and iptables-legacy-save tell it.

What the kernel does in its own time is left out: carriers, detection of duplicate addresses, link-local addresses of
its own, lifetimes, neighbours.
"""

from __future__ import annotations

import glob
import json
import os
import subprocess
import sys

HOST = "host"
LYING_KINDS = ("vlan", "macvlan", "ipvlan", "vxlan", "vrf")
KERNEL_ROUTES = ("local", "broadcast", "anycast", "multicast")
ADDRESS_WORDS = ("secondary", "nodad", "noprefixroute", "deprecated", "home", "mngtmpaddr")
ROUTE_WORDS = (
    "type",
    "gateway",
    "via",
    "dev",
    "table",
    "protocol",
    "scope",
    "prefsrc",
    "metric",
    "metrics",
    "tos",
    "pref",
)


def main() -> None:
    names = namespaces()
    for name in [HOST, *names]:
        links(name)
        qdiscs(name)
        routes(name)
        rules(name)
        sysctls(name)
        firewall(name)
    for path in sorted([*glob.glob("/run/netns/*"), *glob.glob("/run/nslab/*")]):
        is_namespace = path == f"/run/netns/{os.path.basename(path)}" and os.path.basename(path) in names
        say("file", path, os.stat(path).st_ino if is_namespace else "")


def namespaces() -> list[str]:
    """The names that a namespace is mounted on. `ip netns list` lists stale files, too."""
    found = set()
    with open("/proc/self/mountinfo", encoding="ascii") as mounts:
        for line in mounts:
            fields, _dash, kind = line.partition(" - ")
            path = fields.split()[4]
            folder, name = os.path.split(path)
            # The mounts of the machine are listed, too, although the /run of a throw-away host covers them.
            if kind.startswith("nsfs ") and folder.endswith("/run/netns") and os.path.exists(path):
                found.add(name)
    return sorted(found)


def links(name: str) -> None:
    for link in ip(name, "-details", "address", "show"):
        kind = link.get("linkinfo", {}).get("info_kind", "")
        data = json.dumps(link["linkinfo"].get("info_data"), sort_keys=True) if kind in LYING_KINDS else ""
        state = "up" if "UP" in link["flags"] else "down"
        words = [f"mtu {link['mtu']}", link.get("address", ""), state, kind, f"peer {link.get('link_index')}", data]
        say(name, "link", link["ifindex"], link["ifname"], *words, f"alias {link.get('ifalias', '')!r}")
        for address in link["addr_info"]:
            # The kernel makes it of the MAC address (RFC 4291, appendix A).
            if address["local"].startswith("fe80::") and "ff:fe" in address["local"]:
                continue
            flags = [word for word in ADDRESS_WORDS if address.get(word)]
            label = address.get("label", "")
            text = f"{address['local']}/{address['prefixlen']}"
            say(name, "address", link["ifname"], text, address["scope"], label, *flags)


def qdiscs(name: str) -> None:
    """Those that somebody has set; the kernel's own have no handle."""
    for qdisc in run_json(name, "tc", "qdisc", "show"):
        if qdisc["handle"] != "0:":
            qdisc.get("options", {}).pop("seed", None)
            say(name, "qdisc", json.dumps(qdisc, sort_keys=True))


def routes(name: str) -> None:
    for family in ("-4", "-6"):
        for route in ip(name, family, "route", "show", "table", "all"):
            kernel = route.get("protocol") == "kernel" and route["dst"] in ("fe80::/64", "ff00::/8")
            if route.get("type") in KERNEL_ROUTES or kernel:
                continue
            words = [f"{word} {route[word]}" for word in ROUTE_WORDS if word in route]
            words += ["onlink"] if "onlink" in route["flags"] else []
            for hop in route.get("nexthops", []):
                words.append(f"nexthop {hop.get('gateway')} {hop.get('dev')} {hop.get('weight')}")
            say(name, "route", route["dst"], *words)


def rules(name: str) -> None:
    for family in ("-4", "-6"):
        for rule in ip(name, family, "rule", "show"):
            say(name, "rule", family, json.dumps(rule, sort_keys=True))


def sysctls(name: str) -> None:
    # Keys that cannot be read are told on stderr, and make the exit status 1.
    command = ["sysctl", "--all", "--pattern", r"^net\.(core|ipv4|ipv6|unix)\."]
    answer = subprocess.run([*inside(name), *command], capture_output=True, text=True, check=False)
    for line in answer.stdout.splitlines():
        say(name, "sysctl", " ".join(line.split()))


def firewall(name: str) -> None:
    """What nftables and legacy iptables have. Listing a table of the latter that is not there would make it."""
    ruleset = subprocess.run([*inside(name), "nft", "list", "ruleset"], capture_output=True, text=True, check=True)
    for number, line in enumerate(ruleset.stdout.splitlines()):
        say(name, "nft", number, line)
    for family in ("ip", "ip6"):
        command = [*inside(name), "cat", f"/proc/thread-self/net/{family}_tables_names"]
        if subprocess.run(command, capture_output=True, text=True, check=False).stdout:
            command = [*inside(name), f"{family}tables-legacy-save"]
            saved = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
            for number, line in enumerate(line for line in saved if line.startswith("-A")):
                say(name, "iptables", family, number, line)


def ip(name: str, *arguments: str) -> list[dict]:
    return run_json(name, "ip", *arguments)


def run_json(name: str, program: str, *arguments: str) -> list[dict]:
    command = [*inside(name), program, "-json", *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return [entry for entry in json.loads(answer.stdout or "[]") if entry]


def inside(name: str) -> list[str]:
    """The command that runs another one in a namespace, without the copy of all mounts that ip netns exec makes."""
    return [] if name == HOST else ["nsenter", f"--net=/run/netns/{name}"]


def say(*words: object) -> None:
    sys.stdout.write(" ".join(str(word) for word in words if word != "") + "\n")


if __name__ == "__main__":
    os.environ["PATH"] += os.pathsep + "/usr/sbin" + os.pathsep + "/sbin"
    main()
