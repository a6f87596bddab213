# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The labs L2 and L5 as topology documents, in both families at once: each of their states, the failing ones too."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest
import yaml
from controller import ROOT, Controller, Play, play
from throwaway import (
    differences,
    firewall,
    inside,
    ip_json,
    named_namespaces,
    ping,
    snapshot,
    within,
    without,
    without_bridge_netfilter,
)

pytestmark = pytest.mark.once

Document = dict[str, Any]

#: What stays behind: folders, and the lock of iptables.
KEPT = ("/run/netns", "/run/nslab", "/run/xtables.lock")

by_backend = pytest.mark.parametrize("backend", ["nftables", "iptables"])


def document(name: str, backend: str, translator: str) -> Document:
    """A document of the collection, which says what holds the rules of the namespace that translates."""
    found: Document = yaml.safe_load((ROOT / f"playbooks/topologies/{name}.yml").read_text())
    found["namespaces"][translator]["nat_backend"] = backend
    return found


def apply(topology: Document, title: str = "apply", state: str = "present", **keywords: Any) -> Play:
    task = {"nslab.netns.topology": {"topology": topology, "state": state}}
    return play(title, tasks=[task], diff=True, **keywords)


def changes(ansible: Controller, topology: Document) -> list[str]:
    """Apply a document; return the lines of the diff, which are those that check mode has shown before."""
    run = ansible.run([apply(topology, "predicted", check_mode=True), apply(topology, "made")]).succeeded()
    assert run.play("predicted").diff == run.play("made").diff
    assert len(run.play("made").changed) == 1
    return run.play("made").diff


def nothing_left_to_do(ansible: Controller, topology: Document) -> None:
    run = ansible.run([apply(topology)]).succeeded()
    assert (run.changed, run.diff) == (0, [])


def remove(ansible: Controller, topology: Document) -> None:
    run = ansible.run([apply(topology, title, state="absent") for title in ("remove", "again")]).succeeded()
    assert (len(run.play("remove").changed), run.play("again").changed) == (1, [])


def indexes() -> dict[str, int]:
    places = [None, *named_namespaces()]
    return {f"{place}:{link['ifname']}": link["ifindex"] for place in places for link in ip_json(place, "link", "show")}


# --- packets ---------------------------------------------------------------------------------------------------------

_FAR_END = """
import socket, sys, time
kind, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
type = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, type)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
deadline = time.monotonic() + 10
while True:
    try:
        listener.bind((address, port))
        break
    except OSError:  # The address is tentative.
        assert time.monotonic() < deadline
        time.sleep(0.1)
if kind == "tcp":
    listener.listen()
print("ready", flush=True)
while True:
    connection, peer = listener.accept() if kind == "tcp" else (None, listener.recvfrom(100)[1])
    print(peer[0], flush=True)
    try:
        connection.sendall(b"answer") if connection else listener.sendto(b"answer", peer)
    except OSError:  # There is no way back.
        pass
    if connection:
        connection.close()
"""

_NEAR_END = """
import socket, sys, time
kind, address, port, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
type = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
deadline = time.monotonic() + seconds
while time.monotonic() < deadline:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, type) as near:
        near.settimeout(0.5)
        try:
            near.connect((address, port))
            if kind == "udp":
                near.send(b"request")
            if near.recv(100) == b"answer":
                print("answered")
                break
        except OSError:
            time.sleep(0.1)
"""


def exchange(
    source: str | None, to: str, at: tuple[str | None, str], kind: str = "udp", port: int = 5000, seconds: float = 10
) -> tuple[list[str], bool]:
    """Send from a namespace to an address until it answers: whom the far end has seen, and whether it was heard.

    ``at`` is the namespace and the address at which the far end listens; None is the host. With UDP the far end sees
    also those who never hear of it.
    """
    command = [*inside(at[0]), sys.executable, "-c", _FAR_END, kind, at[1], str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as far:
        try:
            assert far.stdout is not None
            assert far.stdout.readline() == "ready\n"
            near = within(source, sys.executable, "-c", _NEAR_END, kind, to, str(port), str(seconds))
        finally:
            far.kill()
        return sorted({line.strip() for line in far.stdout}), near == "answered\n"


#: For what shall not come through: the links have carried packets before.
NEVER = 1.0


# --- the firewall, by hand -------------------------------------------------------------------------------------------


def translations(namespace: str | None) -> list[str]:
    """The lines of the firewall that translate."""
    words = re.compile(r" ([sd]nat ip6? to|masquerade|-j (SNAT|DNAT|MASQUERADE)\b)")
    return [line for line in firewall(namespace) if words.search(line)]


def tamper(namespace: str | None, backend: str, chain: str, number: int, old: str, new: str) -> None:
    """Put another word into a rule of a chain, where it stands."""
    if backend == "nftables":
        table = next(line.split()[2] for line in firewall(namespace) if "table inet nslab-" in line)
        listed = within(namespace, "nft", "--handle", "list", "chain", "inet", table, chain).splitlines()
        rules = [line.strip() for line in listed if " # handle " in line and "nat ip" in line]
        rule, handle = rules[number].split(" # handle ")
        within(namespace, "nft", "replace", "rule", "inet", table, chain, "handle", handle, rule.replace(old, new))
        return
    command, start = "iptables-legacy" if "." in old else "ip6tables-legacy", f"-A {chain.upper()} "
    saved = within(namespace, f"{command}-save", "-t", "nat").splitlines()
    rule = [line.removeprefix(start) for line in saved if line.startswith(start)][number]
    words = rule.replace('"', "").replace(old, new).split()
    within(namespace, command, "-t", "nat", "-R", chain.upper(), str(number + 1), *words)


def flush(namespace: str | None, backend: str) -> None:
    """Remove every rule of translation, as somebody does who reloads his own firewall."""
    if backend == "nftables":
        within(namespace, "nft", "flush", "ruleset")
        return
    for command in ("iptables-legacy", "ip6tables-legacy"):
        within(namespace, command, "-t", "nat", "-F")


# --- L2 --------------------------------------------------------------------------------------------------------------

#: Where the server sends to, and by which addresses the client may see it: its own one, and the router's.
HIDDEN = (("2.2.2.2", "10.0.1.2", "10.0.2.1"), ("fd02::2", "fd00:1::2", "fd00:2::1"))


def hidden(backend: str, rule: bool = True, way_back: bool = True) -> Document:
    """The lab L2 with IPv6 besides, with or without its rules, and the client's default routes."""
    topology = document("snat", backend, "router")
    server, router, client = (topology["namespaces"][name] for name in ("server", "router", "client"))
    server["interfaces"]["lo"]["addresses"].append("fd01::1/64")
    server["interfaces"]["vethS"]["addresses"].append("fd00:1::2/64")
    server["routes"].append({"to": "default", "via": "fd00:1::1"})
    router["sysctls"]["net.ipv6.conf.all.forwarding"] = 1
    router["interfaces"]["veth-srv"]["addresses"].append("fd00:1::1/64")
    router["interfaces"]["veth-cli"]["addresses"].append("fd00:2::1/64")
    router["routes"].append({"to": "default", "via": "fd00:2::2"})
    router["snat"].append({"source": "fd00:1::/64", "out_interface": "veth-cli", "to_source": "fd00:2::1"})
    client["interfaces"]["lo"]["addresses"].append("fd02::2/64")
    client["interfaces"]["vethC"]["addresses"].append("fd00:2::2/64")
    client["routes"].append({"to": "default", "via": "fd00:2::1"})
    if not rule:
        del router["snat"]
    if not way_back:
        del client["routes"]
    return topology


@by_backend
def test_a_server_behind_its_router(ansible: Controller, backend: str) -> None:
    fresh = without(snapshot(), *KEPT)
    changes(ansible, hidden(backend))
    nothing_left_to_do(ansible, hidden(backend))
    assert len(translations("router")) == 2
    built, whole = indexes(), snapshot()

    # labs.md, L2: the four cases. The rule goes and comes, and so does the client's way back.
    for rule, way_back in ((True, True), (False, True), (False, False), (True, False)):
        if not (rule and way_back):
            kinds = {line[1:].split()[0] for line in changes(ansible, hidden(backend, rule, way_back))}
            assert kinds <= {"snat", "route"}
        for to, server, router in HIDDEN:
            heard = rule or way_back
            found = exchange("server", to, ("client", to), seconds=10 if heard else NEVER)
            assert found == ([router if rule else server], heard), (rule, way_back)
    assert indexes() == built

    # What was changed by hand is named, and is right again without more.
    start = "snat router source fd00:1::/64 out_interface veth-cli to_source"
    flush("router", backend)
    assert {line.split()[0] for line in changes(ansible, hidden(backend))} == {"+route", "+snat"}
    assert differences(whole, snapshot()) == []
    tamper("router", backend, "postrouting", 1 if backend == "nftables" else 0, "fd00:2::1", "fd00:2::9")
    assert exchange("server", "fd02::2", ("client", "fd02::2"), seconds=NEVER) == (["fd00:2::9"], False)
    assert sorted(changes(ansible, hidden(backend))) == [
        f"+{start} fd00:2::1 backend {backend}",
        f"-{start} fd00:2::9 backend {backend}",
    ]
    assert differences(whole, snapshot()) == []
    assert exchange("server", "fd02::2", ("client", "fd02::2")) == (["fd00:2::1"], True)

    remove(ansible, hidden(backend))
    assert differences(fresh, without(snapshot(), *KEPT)) == []


# --- L5 --------------------------------------------------------------------------------------------------------------

#: The two containers, their gateway, and the two ends of the host's way to the internet.
CONTAINED = (
    ("172.18.0.10", "172.18.0.20", "172.18.0.1", "203.0.113.1", "203.0.113.2"),
    ("fd00:18::10", "fd00:18::20", "fd00:18::1", "2001:db8::1", "2001:db8::2"),
)


def contained(backend: str) -> Document:
    """The lab L5 with IPv6 besides."""
    topology = document("containers", backend, "host")
    host = topology["namespaces"]["host"]
    for name, address in (("netns0", "fd00:18::10/64"), ("netns1", "fd00:18::20/64"), ("internet", "2001:db8::2/64")):
        topology["namespaces"][name]["interfaces"]["eth0"]["addresses"].append(address)
    for name in ("netns0", "netns1"):
        topology["namespaces"][name]["routes"].append({"to": "default", "via": "fd00:18::1"})
    host["sysctls"]["net.ipv6.conf.all.forwarding"] = 1
    host["interfaces"]["veth-net"]["addresses"].append("2001:db8::1/64")
    host["bridges"]["br0"]["addresses"].append("fd00:18::1/64")
    host["snat"].append({"source": "fd00:18::/64", "not_out_interface": "br0", "masquerade": True})
    host["dnat"].append({**host["dnat"][0], "to_destination": "[fd00:18::10]:5000"})
    return topology


def lacking(topology: Document, namespaces: Sequence[str], *keys: str) -> Document:
    """A document without these keys of these namespaces."""
    found = copy.deepcopy(topology)
    for name in namespaces:
        for key in keys:
            del found["namespaces"][name][key]
    return found


@by_backend
def test_containers_step_by_step(ansible: Controller, backend: str) -> None:
    for key in ("net.ipv4.ip_forward=0", "net.ipv6.conf.all.forwarding=0"):
        within(None, "sysctl", "-w", key)
    without_bridge_netfilter(None)
    fresh = without(snapshot(), *KEPT)
    complete = contained(backend)
    unpublished = lacking(complete, ["host"], "dnat")
    bare = lacking(unpublished, ["host"], "snat")
    routed = lacking(bare, ["host"], "sysctls")
    bridged = lacking(routed, ["netns0", "netns1"], "routes")

    # 1. to 3.: the bridge. Another address of the host is not reached yet.
    changes(ansible, bridged)
    for first, second, gateway, here, _there in CONTAINED:
        assert ping("netns0", second)[0]
        assert ping("netns1", first)[0]
        assert ping("netns0", gateway)[0]
        answered, said = ping("netns0", here)
        assert not answered
        assert "Network is unreachable" in said
    built = indexes()

    # 4.: the default routes. The host does not forward yet.
    changes(ansible, routed)
    for *_containers, here, there in CONTAINED:
        assert ping("netns0", here)[0]
        assert ping(None, there)[0]
        assert exchange("netns0", there, ("internet", there), seconds=NEVER) == ([], False)

    # 5.: forwarding alone, and then masquerading. Neighbours see each other as they are.
    changes(ansible, bare)
    for first, *_others, there in CONTAINED:
        assert exchange("netns0", there, ("internet", there), seconds=NEVER) == ([first], False)
    changes(ansible, unpublished)
    for first, second, _gateway, here, there in CONTAINED:
        for kind in ("udp", "tcp"):
            assert exchange("netns0", there, ("internet", there), kind) == ([here], True)
        assert exchange("netns1", first, ("netns0", first)) == ([second], True)
        assert exchange("internet", here, ("netns0", first), "tcp", seconds=NEVER) == ([], False)

    # 6.: the published port, for the internet, the host itself, a neighbour, and the one that it belongs to.
    changes(ansible, complete)
    nothing_left_to_do(ansible, complete)
    published()
    assert indexes() == built

    # What was changed by hand is named, and is right again without more.
    whole = snapshot()
    tamper(None, backend, "prerouting", 0, "172.18.0.10:5000", "172.18.0.20:5000")
    within(None, "sysctl", "-w", "net.ipv4.ip_forward=0")
    start = "dnat host chain prerouting protocol tcp destination_ports 5000 local to_destination"
    assert sorted(changes(ansible, complete)) == [
        f"+{start} 172.18.0.10:5000 backend {backend}",
        "+sysctl host net.ipv4.ip_forward = 1",
        f"-{start} 172.18.0.20:5000 backend {backend}",
        "-sysctl host net.ipv4.ip_forward = 0",
    ]
    assert differences(whole, snapshot()) == []
    flush(None, backend)
    assert {line.split()[0] for line in changes(ansible, complete)} == {"+snat", "+dnat"}
    assert differences(whole, snapshot()) == []
    published()

    remove(ansible, complete)
    assert differences(fresh, without(snapshot(), *KEPT)) == []


def published() -> None:
    """The published port answers whoever is meant to reach it."""
    for first, _second, gateway, here, there in CONTAINED:
        at = ("netns0", first)
        assert exchange("internet", here, at, "tcp") == ([there], True)
        assert exchange(None, here, at, "tcp") == ([here], True)
        for neighbour in ("netns1", "netns0"):
            assert exchange(neighbour, here, at, "tcp") == ([gateway], True)
