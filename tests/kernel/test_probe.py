# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Probes on real namespaces and real packets; the topologies are made with iproute2."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import errno
import json
import os
import re
import resource
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible_collections.nslab.netns.plugins.module_utils import _probe_runs, _probe_verdict, _probe_wire
from ansible_collections.nslab.netns.plugins.module_utils._errors import Missing
from ansible_collections.nslab.netns.plugins.module_utils._probe import Evidence, Probe, ProbeResult, explain
from ansible_collections.nslab.netns.plugins.module_utils._probe_wave import run_probes
from throwaway import CLONE_NEWNET, ip_batch, ip_json

_libc = ctypes.CDLL(None, use_errno=True)


# --- Hands ----------------------------------------------------------------------------------------------------


def inside(namespace: str, *arguments: str) -> str:
    """Run a program in a namespace and return what it prints."""
    return subprocess.check_output(["nsenter", f"--net=/run/netns/{namespace}", *arguments], text=True)


def add_namespaces(*names: str) -> None:
    ip_batch("\n".join(f"netns add {name}" for name in names))
    for name in names:
        in_namespace(name, "link set lo up")


def add_veth(namespace: str, name: str, peer_namespace: str, peer: str) -> None:
    ip_batch(f"link add {name} netns {namespace} type veth peer name {peer} netns {peer_namespace}")


def in_namespace(namespace: str, *commands: str) -> None:
    """Run ip commands in a namespace."""
    ip_batch("\n".join(commands), namespace)


@contextlib.contextmanager
def enter(namespace: str) -> Iterator[None]:
    """Stand in for the collection's room of namespace handles."""
    if namespace == "host":
        yield
        return
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        assert _libc.setns(there, CLONE_NEWNET) == 0
        try:
            yield
        finally:
            assert _libc.setns(home, CLONE_NEWNET) == 0
    finally:
        os.close(there)
        os.close(home)


def lookup(namespace: str, to: str) -> dict[str, object]:
    """Stand in for the collection's netlink room."""
    where = [] if namespace == "host" else ["nsenter", f"--net=/run/netns/{namespace}"]
    address, _percent, zone = to.partition("%")
    what = [address, "oif", zone] if zone else [address]
    done = subprocess.run([*where, "ip", "-j", "route", "get", *what], capture_output=True, text=True, check=False)
    if done.returncode:
        error = done.stderr.strip().rpartition(": ")[2]
        numbers = {os.strerror(number): name for number, name in errno.errorcode.items()}
        return {"errno": numbers.get(error, "ENODEV"), "error": error}
    route = json.loads(done.stdout)[0]
    named = {"via": "gateway", "src": "prefsrc"}
    return {
        key: route[named.get(key, key)] for key in ("dst", "via", "dev", "src", "type") if named.get(key, key) in route
    }


def run(*probes: Probe) -> list[ProbeResult]:
    return run_probes(probes, enter, lookup)


def run_one(source: str, to: str, **more: Any) -> ProbeResult:
    return run(Probe(source, to, **more))[0]


@contextlib.contextmanager
def listener(namespace: str, address: str, port: int) -> Iterator[socket.socket]:
    with enter(namespace):
        server = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, port))
        server.listen(4096)
    with server:
        yield server


# --- The routed lab: server -- router -- client, IPv4 and IPv6 ------------------------------------------------


@pytest.fixture
def routed(host: None) -> None:
    add_namespaces("server", "router", "client")
    for namespace in ("server", "router", "client"):
        # Without duplicate address detection IPv6 works from the first packet on.
        inside(namespace, "sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0")
    add_veth("server", "vethS", "router", "veth-srv")
    add_veth("client", "vethC", "router", "veth-cli")
    in_namespace(
        "server",
        "addr add 1.1.1.1/24 dev lo",
        "addr add fd01::1/128 dev lo",
        "addr add 10.0.1.2/24 dev vethS",
        "addr add fd00:1::2/64 dev vethS",
        "link set vethS up",
        "route add default via 10.0.1.1",
        "route add default via fd00:1::1",
    )
    in_namespace(
        "router",
        "addr add 10.0.1.1/24 dev veth-srv",
        "addr add 10.0.2.1/24 dev veth-cli",
        "addr add fd00:1::1/64 dev veth-srv",
        "addr add fd00:2::1/64 dev veth-cli",
        "link set veth-srv up",
        "link set veth-cli up",
        "route add 1.1.1.0/24 via 10.0.1.2",
        "route add 2.2.2.0/24 via 10.0.2.2",
        "route add fd01::/64 via fd00:1::2",
        "route add fd02::/64 via fd00:2::2",
    )
    in_namespace(
        "client",
        "addr add 2.2.2.2/24 dev lo",
        "addr add fd02::2/128 dev lo",
        "addr add 10.0.2.2/24 dev vethC",
        "addr add fd00:2::2/64 dev vethC",
        "link set vethC up",
        "route add default via 10.0.2.1",
        "route add default via fd00:2::1",
    )
    forward(True)


def forward(on: bool) -> None:
    value = int(on)
    # A new namespace may copy the host's values, and no rate limit may eat the ICMP errors that a test waits for.
    inside(
        "router",
        "sysctl",
        "-q",
        "-w",
        f"net.ipv4.conf.all.forwarding={value}",
        f"net.ipv6.conf.all.forwarding={value}",
        "net.ipv4.icmp_ratemask=0",
        "net.ipv6.icmp.ratelimit=0",
    )


# --- Reachable ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", ["1.1.1.1", "10.0.1.2", "10.0.2.1", "2.2.2.2", "fd01::1", "fd00:2::1", "fd02::2"])
def test_an_answer_is_reachable_and_has_a_round_trip_time(routed: None, to: str) -> None:
    result = run_one("client", to, deadline=30)
    assert result.passed
    assert result.outcome == "reachable"
    assert result.evidence.kind == "answer"
    assert result.received == 1
    assert result.rtt_ms is not None
    assert 0 <= result.rtt_ms <= result.elapsed * 1000
    assert result.route is None


def test_the_host_is_a_source(host: None) -> None:
    assert [result.outcome for result in run(Probe("host", "127.0.0.1"), Probe("host", "::1"))] == ["reachable"] * 2


def test_count_wants_so_many_answers(routed: None) -> None:
    result = run_one("client", "1.1.1.1", count=300, deadline=30)
    assert result.passed
    assert result.received == 300
    assert result.sent >= 300


def test_too_few_answers_are_not_reachable(host: None) -> None:
    add_chain(
        "host",
        "inet",
        "type filter hook input priority 0",
        "icmp type echo-request limit rate 1/day burst 2 packets accept",
        "icmp type echo-request drop",
    )
    result = run_one("host", "127.0.0.1", count=3, deadline=0.5)
    assert not result.passed
    assert (result.outcome, result.received) == ("unreachable", 2)
    assert result.evidence == Evidence("silence", "2 of 3 answers within 0.5 s")


def test_a_handshake_is_reachable_and_leaves_nothing(routed: None) -> None:
    with listener("server", "1.1.1.1", 8080) as server, listener("server", "fd01::1", 8081):
        results = run(
            Probe("client", "1.1.1.1", "tcp", 8080, deadline=30), Probe("client", "fd01::1", "tcp", 8081, deadline=30)
        )
        for result in results:
            assert result.passed
            assert result.rtt_ms is not None
            assert 0 < result.rtt_ms <= result.elapsed * 1000
        assert inside("client", "ss", "-Hatn") == ""  # not even TIME-WAIT
        connection, _address = server.accept()
        with connection, pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_a_service_that_closes_at_once_is_reachable(routed: None) -> None:
    code = """
service = listen()
for _ in range(100):
    connection, address = service.accept()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
"""
    with helper("server", code):
        results = run(*[Probe("client", "1.1.1.1", "tcp", 8080, deadline=30)] * 100)
    assert [explain(result) for result in results if not result.passed] == []


def test_a_service_that_is_starting_is_waited_for(routed: None) -> None:
    """The listener comes when the first SYN has been refused."""
    code = """
while counter("Tcp", "OutRsts") == 0:
    pass
service = listen()
sys.stdin.read()
"""
    with helper("server", code):
        result = run_one("client", "1.1.1.1", protocol="tcp", port=8080, deadline=30)
    assert result.passed
    assert result.sent > result.received == 1


@contextlib.contextmanager
def helper(namespace: str, code: str) -> Iterator[None]:
    """Run Python code in a process (threads would keep the throw-away host from being left) until it ends by itself.

    It has begun when the block is entered, and reads the end of its standard input when the block is left.
    """
    process = subprocess.Popen(
        ["nsenter", f"--net=/run/netns/{namespace}", sys.executable, "-c", _HELPER + code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield
        finally:
            process.stdin.close()
    assert process.returncode == 0


_HELPER = """
import os, select, socket, struct, subprocess, sys

def counter(protocol, name):
    with open("/proc/self/net/snmp") as file:
        lines = [line.split() for line in file if line.startswith(protocol + ":")]
    return int(lines[1][lines[0].index(name)])

def listen():
    service = socket.socket()
    service.bind(("1.1.1.1", 8080))
    service.listen(4096)
    return service

def ended():
    return bool(select.select([sys.stdin], [], [], 0)[0])

def checksum(data):
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xffff)
    return ~(total + (total >> 16)) & 0xffff

raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)

def send(to, message):
    try:
        raw.sendto(message[:2] + struct.pack("!H", checksum(message)) + message[4:], (to, 0))
    except OSError:
        pass

print("ready", flush=True)
"""


def test_a_link_local_address_needs_its_zone(routed: None) -> None:
    (link,) = ip_json("router", "-6", "addr", "show", "dev", "veth-cli")
    local = next(address["local"] for address in link["addr_info"] if address["scope"] == "link")
    reached, missed = run(
        Probe("client", f"{local}%vethC", deadline=30), Probe("client", f"{local}%nosuch", path="probes[7]")
    )
    assert reached.passed
    assert missed.outcome == "unreachable"
    assert missed.evidence.errno == "ENODEV"
    assert "probes[7]" in explain(missed)
    assert missed.route is not None


@pytest.mark.parametrize("protocol", ["icmp", "tcp"])
def test_duplicate_address_detection_is_waited_for(host: None, protocol: str) -> None:
    """The first packets have no proper source address and a neighbour that does not answer yet."""
    add_namespaces("a", "b")
    add_veth("a", "va", "b", "vb")
    in_namespace("a", "addr add fd00::1/64 dev va", "link set va up")
    in_namespace("b", "addr add fd00::2/64 dev vb", "link set vb up")
    port = 8080 if protocol == "tcp" else None
    with listener("b", "::", 8080):
        (link,) = ip_json("b", "addr", "show", "dev", "vb")
        assert any(address.get("tentative") for address in link["addr_info"])
        to_global, leak = run(
            Probe("a", "fd00::2", protocol, port, deadline=30),
            Probe("a", "fd00::2", protocol, port, "unreachable", deadline=30),
        )
    assert to_global.passed
    # What is unreachable for a passing reason must not pass for unreachable.
    assert not leak.passed
    assert leak.outcome == "reachable"


def test_a_tentative_address_without_route_does_not_pass_for_unreachable(host: None) -> None:
    """While fd01::9/128 is tentative, its node answers "No route" for it."""
    add_namespaces("a", "b")
    add_veth("a", "va", "b", "vb")
    in_namespace("a", "addr add fd00::1/64 dev va nodad", "link set va up", "route add fd01::/64 via fd00::2")
    in_namespace("b", "addr add fd00::2/64 dev vb nodad", "link set vb up")
    run_one("a", "fd00::2", deadline=30)
    in_namespace("b", "addr add fd01::9/128 dev vb noprefixroute")
    reached, leak = run(Probe("a", "fd01::9", deadline=30), Probe("a", "fd01::9", expect="unreachable", deadline=30))
    assert reached.passed
    assert leak.outcome == "reachable"


# --- Unreachable ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("route", "number"),
    [
        (None, "ENETUNREACH"),
        ("unreachable", "EHOSTUNREACH"),
        ("prohibit", "EACCES"),
        ("blackhole", "EINVAL"),
    ],
)
@pytest.mark.parametrize("to", ["8.8.8.8", "2001:db8::8"])
@pytest.mark.parametrize("protocol", ["icmp", "tcp"])
def test_the_kernel_s_own_refusal_is_unreachable(
    host: None, route: str | None, number: str, to: str, protocol: str
) -> None:
    add_namespaces("a", "b")
    add_veth("a", "va", "b", "vb")
    in_namespace("a", "addr add 10.0.0.1/24 dev va", "addr add fd00::1/64 dev va nodad", "link set va up")
    if route:
        in_namespace("a", f"route add {route} {to}")
    result = run_one("a", to, protocol=protocol, port=80 if protocol == "tcp" else None, expect="unreachable")
    assert result.passed
    assert (result.evidence.kind, result.evidence.errno) == ("errno", number)
    assert result.elapsed < result.probe.deadline
    assert result.sent == 0


def icmp(evidence: Evidence) -> tuple[int | None, int | None, str | None]:
    assert evidence.kind == "icmp"
    return evidence.icmp_type, evidence.icmp_code, evidence.offender


@pytest.mark.parametrize(
    ("route", "code", "words"),
    [
        (None, 0, "Destination Net Unreachable"),
        ("unreachable", 1, "Destination Host Unreachable"),
        ("prohibit", 13, "Packet filtered"),
    ],
)
@pytest.mark.parametrize("protocol", ["icmp", "tcp"])
def test_a_router_s_refusal_names_the_router(
    routed: None, route: str | None, code: int, words: str, protocol: str
) -> None:
    if route:
        in_namespace("router", f"route add {route} 8.8.8.8")
    probe = Probe("client", "8.8.8.8", protocol, 80 if protocol == "tcp" else None, "unreachable", deadline=30)
    result = run(probe)[0]
    assert result.passed
    assert icmp(result.evidence) == (3, code, "10.0.2.1")
    assert result.evidence.text == f"{words} from 10.0.2.1"
    assert result.sent <= 3  # the first error is taken, or the second one to confirm it


@pytest.mark.parametrize(("route", "code"), [(None, 0), ("prohibit", 1)])
@pytest.mark.parametrize("protocol", ["icmp", "tcp"])
def test_an_ipv6_router_s_refusal_names_the_router(routed: None, route: str | None, code: int, protocol: str) -> None:
    in_namespace("router", f"route add {route or 'unreachable'} 2001:db8::8")
    probe = Probe("client", "2001:db8::8", protocol, 80 if protocol == "tcp" else None, "unreachable", deadline=30)
    result = run(probe)[0]
    assert result.passed
    assert icmp(result.evidence) == (1, code, "fd00:2::1")
    assert result.elapsed < probe.deadline


def test_a_silent_neighbour_is_host_unreachable(routed: None) -> None:
    probes = [
        Probe("client", to, protocol, port, "unreachable", deadline=5)
        for to in ("10.0.2.99", "fd00:2::99")
        for protocol, port in (("icmp", None), ("tcp", 80))
    ]
    results = run(*probes)
    assert [result.passed for result in results] == [True] * 4
    assert [icmp(result.evidence) for result in results] == [(3, 1, "10.0.2.2")] * 2 + [(1, 3, "fd00:2::2")] * 2


def test_a_router_that_does_not_forward_is_silent(routed: None) -> None:
    forward(False)
    results = run(
        Probe("client", "1.1.1.1", expect="unreachable", deadline=1),
        Probe("client", "1.1.1.1", "tcp", 80, "unreachable", deadline=1),
        Probe("client", "fd01::1", expect="unreachable", deadline=1),
        Probe("client", "10.0.1.1", deadline=30),
    )
    assert [result.passed for result in results] == [True] * 4
    assert [result.evidence for result in results[:3]] == [Evidence("silence", "no answer within 1 s")] * 3


@pytest.mark.parametrize("protocol", ["icmp", "tcp"])
def test_no_way_back_is_silent(routed: None, protocol: str) -> None:
    in_namespace("server", "route add blackhole 10.0.2.2")
    with listener("server", "10.0.1.2", 80):
        port = 80 if protocol == "tcp" else None
        result = run_one("client", "10.0.1.2", protocol=protocol, port=port, expect="unreachable", deadline=1.5)
    assert result.passed
    assert result.evidence.kind == "silence"
    assert result.sent > 1


def test_a_routing_loop_is_told(routed: None) -> None:
    in_namespace("router", "route add 9.9.9.9 via 10.0.1.2")
    inside("server", "sysctl", "-qw", "net.ipv4.conf.all.forwarding=1")
    result = run_one("client", "9.9.9.9", expect="unreachable", deadline=30)
    assert result.passed
    assert icmp(result.evidence)[:2] == (11, 0)
    assert result.evidence.text.startswith("Time to live exceeded from ")


def test_the_own_firewall_s_drop_is_told(routed: None) -> None:
    add_chain("client", "inet", "type filter hook output priority 0", "ip daddr 1.1.1.1 drop")
    result = run_one("client", "1.1.1.1", expect="unreachable")
    assert result.passed
    assert result.evidence.errno == "EPERM"


def add_chain(namespace: str, family: str, hook: str, *rules: str) -> None:
    nft = shutil.which("nft")
    if nft is None:
        pytest.skip("nft is not installed")
    lines = "\n".join(rules)
    table = f"table {family} t {{\nchain c {{\n{hook}\n{lines}\n}}\n}}\n"
    with enter(namespace):
        subprocess.run([nft, "-f", "-"], input=table, text=True, check=True)


def test_a_neighbour_that_comes_late_is_reachable(routed: None) -> None:
    """The first resolution fails, with an error for all requests that waited; the next one finds the neighbour."""
    code = """
while counter("Icmp", "OutDestUnreachs") == 0:
    pass
command = "nsenter --net=/run/netns/router ip addr add 10.0.2.50/24 dev veth-cli"
subprocess.run(command.split(), check=True)
"""
    with helper("client", code):
        results = run(
            Probe("client", "10.0.2.50", deadline=30),
            Probe("client", "10.0.2.50", expect="unreachable", deadline=30),
        )
    assert [result.outcome for result in results] == ["reachable"] * 2
    assert all(result.sent > 1 for result in results)


# --- Refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", ["1.1.1.1", "fd01::1"])
def test_a_closed_port_is_refused(routed: None, to: str) -> None:
    assert run_one("client", to, deadline=30).passed  # so that the neighbours are known
    as_expected, leak, missing = run(
        Probe("client", to, "tcp", 81, "refused", deadline=30),
        Probe("client", to, "tcp", 81, "unreachable", deadline=30),
        Probe("client", to, "tcp", 81, "reachable", deadline=1),
    )
    assert as_expected.passed
    assert as_expected.evidence.kind == "reset"
    assert as_expected.rtt_ms is None
    assert (leak.outcome, leak.passed) == ("refused", False)
    assert leak.elapsed < leak.probe.deadline
    assert (missing.outcome, missing.passed) == ("refused", False)
    assert missing.sent > 1


def test_a_rejecting_firewall_refuses_too_and_is_named(routed: None) -> None:
    add_chain("router", "inet", "type filter hook forward priority 0", "tcp dport 81 reject", "icmp type 8 reject")
    four, six = run(
        Probe("client", "1.1.1.1", "tcp", 81, "refused", deadline=30),
        Probe("client", "fd01::1", "tcp", 81, "refused", deadline=30),
    )
    assert four.passed
    assert icmp(four.evidence) == (3, 3, "10.0.2.1")
    assert four.evidence.errno == "ECONNREFUSED"
    assert four.evidence.text == "Destination Port Unreachable from 10.0.2.1"
    assert six.passed
    assert icmp(six.evidence) == (1, 4, "fd00:2::1")
    echo = run_one("client", "1.1.1.1", expect="unreachable")
    assert echo.passed
    assert icmp(echo.evidence) == icmp(four.evidence)


def test_an_open_port_is_not_refused(routed: None) -> None:
    with listener("server", "1.1.1.1", 80):
        result = run_one("client", "1.1.1.1", protocol="tcp", port=80, expect="refused", deadline=30)
    assert (result.outcome, result.passed) == ("reachable", False)
    assert result.elapsed < result.probe.deadline


# --- What failed, in words ------------------------------------------------------------------------------------


VIA_ROUTER = "via 10.0.2.1 dev vethC src 10.0.2.2"


@pytest.mark.parametrize(
    ("probe", "words", "route"),
    [
        (
            Probe("client", "8.8.8.8", deadline=0.5),
            "icmp): expected reachable, got unreachable: Destination Net Unreachable from 10.0.2.1 after N s",
            f"8.8.8.8 {VIA_ROUTER}",
        ),
        (
            Probe("client", "8.8.8.8", expect="unreachable"),
            "icmp): unreachable as expected: Destination Net Unreachable from 10.0.2.1 after N s",
            None,
        ),
        (
            Probe("client", "1.1.1.1", expect="unreachable"),
            "icmp): expected unreachable, got reachable: answer in N ms",
            f"1.1.1.1 {VIA_ROUTER}",
        ),
        (
            Probe("client", "1.1.1.1", "tcp", 80, "refused"),
            "tcp port 80): expected refused, got reachable: connected in N ms",
            f"1.1.1.1 {VIA_ROUTER}",
        ),
        (
            Probe("client", "1.1.1.1", "tcp", 81, deadline=0.5),
            "tcp port 81): expected reachable, got refused: Connection refused (TCP reset) after N s",
            f"1.1.1.1 {VIA_ROUTER}",
        ),
        (
            Probe("client", "7.7.7.7", deadline=0.5),
            "icmp): expected reachable, got unreachable: Invalid argument (EINVAL: blackhole route or rule) after N s",
            "Invalid argument (EINVAL)",
        ),
        (Probe("client", "1.1.1.1"), "icmp): reachable as expected: answer in N ms", None),
        (
            Probe("client", "10.0.2.99", deadline=0.5),
            "icmp): expected reachable, got unreachable: no answer within N s",
            "10.0.2.99 dev vethC src 10.0.2.2",
        ),
    ],
)
def test_a_sentence_says_it_all(routed: None, probe: Probe, words: str, route: str | None) -> None:
    in_namespace("client", "route add blackhole 7.7.7.7")
    with listener("server", "1.1.1.1", 80):
        result = run(dataclasses.replace(probe, path="probes[1]"))[0]
    looked_up = f"; route lookup in client: {route}" if route else ""
    without_times = re.sub(r"\d+\.\d+ (?=m?s\b)", "N ", explain(result))
    assert without_times == f"probes[1] (client -> {probe.to}, {words}{looked_up}"


def test_a_route_of_another_type_and_table_is_said() -> None:
    evidence = Evidence("silence", "no answer within 1 s")
    route = {"type": "local", "dst": "10.0.0.1", "dev": "lo", "table": "local"}
    result = ProbeResult(Probe("a", "10.0.0.1"), "unreachable", False, None, 1, 0, 1.0, evidence, route)
    assert explain(result).endswith("; route lookup in a: local 10.0.0.1 dev lo table local")


def test_an_answer_from_another_address_is_told(routed: None) -> None:
    """As of a source translation gone wrong: the reply comes with another source address."""
    rewrite = "ip saddr 10.0.1.2 ip saddr set 10.0.1.77"
    add_chain("router", "ip", "type filter hook prerouting priority -300", rewrite)
    result = run_one("client", "10.0.1.2", deadline=0.5)
    assert result.outcome == "unreachable"
    assert result.evidence == Evidence("stranger", "answer from 10.0.1.77 instead", offender="10.0.1.77")


# --- Many at once ---------------------------------------------------------------------------------------------


def test_many_probes_run_side_by_side(routed: None) -> None:
    entered: list[str] = []

    @contextlib.contextmanager
    def counting_enter(namespace: str) -> Iterator[None]:
        entered.append(namespace)
        with enter(namespace):
            yield

    with listener("server", "1.1.1.1", 80):
        kinds: list[Callable[[str], Probe]] = [
            lambda path: Probe("client", "1.1.1.1", deadline=60, path=path),
            lambda path: Probe("server", "fd02::2", deadline=60, path=path),
            lambda path: Probe("client", "1.1.1.1", "tcp", 80, deadline=60, path=path),
            lambda path: Probe("client", "1.1.1.1", "tcp", 81, "refused", deadline=60, path=path),
            lambda path: Probe("client", "8.8.8.8", expect="unreachable", deadline=2, path=path),
            lambda path: Probe("client", "10.0.2.99", expect="unreachable", deadline=2, path=path),
        ]
        probes = [kinds[i % len(kinds)](f"probes[{i}]") for i in range(240)]
        results = run_probes(probes, counting_enter, lookup)
    assert [result.probe for result in results] == probes
    assert [explain(result) for result in results if not result.passed] == []
    assert entered == ["client", "server"]


def test_one_probe_s_error_is_not_taken_for_another_s(routed: None) -> None:
    """All echo probes of a namespace share a socket, on which the error for one is pending when the next is sent."""
    reject = "ip daddr 1.1.1.9 reject with icmp type net-unreachable"
    add_chain("router", "inet", "type filter hook forward priority 0", reject)
    assert run_one("client", "1.1.1.1", deadline=30).passed  # so that the errors are back before the next send
    results = run(
        *[
            Probe("client", to, expect="unreachable", deadline=30)
            for _number in range(50)
            for to in ("1.1.1.9", "1.1.1.1")
        ]
    )
    assert [result.outcome for result in results] == ["unreachable", "reachable"] * 50


def test_more_probes_than_file_descriptors_run_in_waves(routed: None) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = len(os.listdir("/proc/self/fd"))
    with listener("server", "1.1.1.1", 80):
        resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 80, hard))
        try:
            results = run(*[Probe("client", "1.1.1.1", "tcp", 80, deadline=60)] * 200)
            resource.setrlimit(resource.RLIMIT_NOFILE, (opened, hard))
            with pytest.raises(Missing, match="no file descriptor is free"):
                run(Probe("client", "1.1.1.1"))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [explain(result) for result in results if not result.passed] == []
    assert len(os.listdir("/proc/self/fd")) == opened


def test_a_namespace_that_cannot_be_entered_leaves_nothing_open(routed: None) -> None:
    opened = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        run(Probe("client", "1.1.1.1", "tcp", 80), Probe("client", "1.1.1.1"), Probe("nowhere", "1.1.1.1"))
    assert len(os.listdir("/proc/self/fd")) == opened


def test_two_processes_do_not_mix_their_replies(routed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process uses the same identifiers and sequences, where they are answered and where they are refused."""
    monkeypatch.setattr(_probe_runs, "_random_ident", lambda: 7)
    # Rejected by a firewall, because for want of a route a router sends one error a second and no more.
    add_chain("router", "inet", "type filter hook forward priority 0", "ip daddr 1.1.1.9 reject")
    code = """
while not ended():
    for ident in range(7, 10):
        for sequence in range(8):
            for to in ("1.1.1.1", "10.0.2.1", "1.1.1.9"):
                send(to, struct.pack("!BBHHH", 8, 0, 0, ident, sequence) + bytes(16))
"""
    with helper("client", code):
        silent, answering, refused = run(
            Probe("client", "10.0.2.77", expect="unreachable", deadline=1),
            Probe("client", "1.1.1.1", count=50, deadline=30),
            Probe("client", "1.1.1.9", expect="unreachable", deadline=30),
        )
    assert silent.passed
    assert silent.evidence.kind == "silence"
    assert answering.passed
    assert answering.received == 50
    assert refused.passed
    assert icmp(refused.evidence) == (3, 3, "10.0.2.1")


def test_two_runs_at_once_each_get_their_own(routed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second process runs probes with the same identifiers, to addresses that answer; ours to one that does not."""
    monkeypatch.setattr(_probe_runs, "_random_ident", lambda: 7)
    code = f"""
sys.path[:0] = {sys.path!r}
import contextlib
from ansible_collections.nslab.netns.plugins.module_utils import _probe_runs, _probe_wave
_probe_runs._random_ident = lambda: 7
probe = _probe_wave.Probe("here", "1.1.1.1", count=200, deadline=30)
while not ended():
    for result in _probe_wave.run_probes([probe] * 3, lambda name: contextlib.nullcontext(), lambda name, to: {{}}):
        assert result.passed and result.received == 200, result
"""
    with helper("client", code):
        silent, answering = run(
            Probe("client", "10.0.2.77", expect="unreachable", deadline=1),
            Probe("client", "1.1.1.1", count=500, deadline=30),
        )
    assert silent.evidence.kind == "silence"
    assert answering.received == 500


def test_hostile_packets_are_ignored(routed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The router sends replies and errors that are cut short, or speak of requests that nobody sent."""
    monkeypatch.setattr(_probe_runs, "_random_ident", lambda: 0)
    code = """
addresses = socket.inet_aton("10.0.2.2") + socket.inet_aton("10.0.2.77")
quote = struct.pack("!BBHHHBBH", 0x45, 0, 36, 1, 0, 64, 1, 0) + addresses
echo = struct.pack("!BBHHH", 8, 0, 0, 0, 0) + bytes(8)
while not ended():
    for size in (0, 1, 7, 8, 16, 24, 900):
        tail = os.urandom(size)
        send("10.0.2.2", struct.pack("!BBHHH", 0, 0, 0, 0, 0) + tail)
        send("10.0.2.2", struct.pack("!BBH", 0, 0, 0) + tail)
        send("10.0.2.2", struct.pack("!BBHI", 3, 0, 0, 0) + quote + tail)
        for kind, code in ((3, 0), (3, 200), (12, 9)):
            send("10.0.2.2", struct.pack("!BBHI", kind, code, 0, 0) + quote + echo + tail)
"""
    with helper("router", code):
        silent, answering = run(
            Probe("client", "10.0.2.77", expect="unreachable", deadline=1),
            Probe("client", "1.1.1.1", count=50, deadline=30),
        )
    assert silent.evidence.kind == "silence"
    assert answering.passed


# --- Parsers, fed what no kernel sends ------------------------------------------------------------------------


@pytest.mark.parametrize(("origin", "shortest"), [(0, None), (1, None), (2, 24), (3, 40), (4, None), (255, None)])
def test_extended_errors_of_any_length(origin: int, shortest: int | None) -> None:
    data = struct.pack("=IBBBBII", 111, origin, 3, 1, 0, 0, 0) + bytes(32)
    understood = [size for size in range(len(data) + 1) if _probe_wire._parse_extended_err(data[:size]) is not None]
    assert understood == ([] if shortest is None else list(range(shortest, len(data) + 1)))


def test_unknown_icmp_errors_have_words() -> None:
    error = _probe_wire.IcmpError(socket.AF_INET, 9999, 77, 5, "10.0.0.1")
    assert _probe_verdict.icmp_refusal(error).evidence == Evidence(
        "icmp", "ICMP type 77 code 5 from 10.0.0.1", "9999", 77, 5, "10.0.0.1"
    )
