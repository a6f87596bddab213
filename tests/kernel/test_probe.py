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
from ansible_collections.nslab.netns.plugins.module_utils._errors import Missing, Refused
from ansible_collections.nslab.netns.plugins.module_utils._probe import Evidence, Listen, Probe, ProbeResult, explain
from ansible_collections.nslab.netns.plugins.module_utils._probe_wave import run_probes
from ansible_collections.nslab.netns.plugins.module_utils._probing import probe
from throwaway import CLONE_NEWNET, eventually, ip_batch, ip_json

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


def settle() -> None:
    """Wait until the neighbours hear each other: a new link loses all packets until its carrier is reported."""
    pairs = [("server", "10.0.1.1"), ("server", "fd00:1::1"), ("client", "10.0.2.1"), ("client", "fd00:2::1")]
    results = run(*[Probe(source, to, deadline=30) for source, to in pairs])
    assert [explain(result) for result in results if not result.passed] == []


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


@pytest.mark.once
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
    settle()
    if route:
        in_namespace("router", f"route add {route} 8.8.8.8")
    probe = Probe("client", "8.8.8.8", protocol, 80 if protocol == "tcp" else None, "unreachable", deadline=30)
    result = run(probe)[0]
    assert result.passed
    assert icmp(result.evidence) == (3, code, "10.0.2.1")
    assert result.evidence.text == f"{words} from 10.0.2.1"
    assert result.sent <= 3  # the first error is taken, or the second one to confirm it


@pytest.mark.once
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


@pytest.mark.once
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
    """Add a chain at a hook, and no second one at the same hook."""
    nft = shutil.which("nft")
    if nft is None:
        pytest.skip("nft is not installed")
    lines = "\n".join(rules)
    name = hook.split()[3] if "hook" in hook else hook
    table = f"table {family} t {{\nchain {name} {{\n{hook}\n{lines}\n}}\n}}\n"
    with enter(namespace):
        subprocess.run([nft, "-f", "-"], input=table, text=True, check=True)


@pytest.mark.once
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


# --- UDP ------------------------------------------------------------------------------------------------------

_UDP_SERVICE = """
family = socket.AF_INET6 if ":" in ADDRESS else socket.AF_INET
service = socket.socket(family, socket.SOCK_DGRAM)
service.bind((ADDRESS, 5300))
while not ended():
    if select.select([service], [], [], 0.01)[0]:
        data, sender = service.recvfrom(2048)
        ANSWER
"""


@contextlib.contextmanager
def udp_service(address: str, answer: str) -> Iterator[None]:
    """Do this with each datagram that comes to the server's port 5300."""
    code = _UDP_SERVICE.replace("ADDRESS", repr(address)).replace("ANSWER", answer)
    with helper("server", code):
        eventually(lambda: inside("server", "ss", "-Haun") != "", "the service is there")
        settle()
        yield


@pytest.mark.once
@pytest.mark.parametrize("address", ["1.1.1.1", "fd01::1"])
@pytest.mark.parametrize("answer", ["data", "b'something else'", "b''"])
def test_a_datagram_that_is_answered_is_reachable(routed: None, address: str, answer: str) -> None:
    with udp_service(address, f"service.sendto({answer}, sender)"):
        (result, counted, leak) = run(
            Probe("client", address, "udp", 5300, deadline=30),
            Probe("client", address, "udp", 5300, count=20, deadline=30),
            Probe("client", address, "udp", 5300, "unreachable", deadline=30),
        )
    assert result.passed
    assert result.evidence.kind == "answer"
    assert result.received == 1
    assert counted.received == 20
    assert result.source_seen is None
    assert (leak.outcome, leak.passed) == ("reachable", False)
    assert leak.elapsed < leak.probe.deadline
    if answer == "data":
        assert result.rtt_ms is not None
        assert 0 < result.rtt_ms <= result.elapsed * 1000


@pytest.mark.once
@pytest.mark.parametrize("to", ["1.1.1.1", "fd01::1"])
def test_a_closed_udp_port_is_refused(routed: None, to: str) -> None:
    settle()
    as_expected, leak, missing = run(
        Probe("client", to, "udp", 81, "refused", deadline=30),
        Probe("client", to, "udp", 81, "unreachable", deadline=30),
        Probe("client", to, "udp", 81, deadline=1),
    )
    assert as_expected.passed
    assert icmp(as_expected.evidence) == ((1, 4, to) if ":" in to else (3, 3, to))
    assert (leak.outcome, leak.passed) == ("refused", False)
    assert leak.elapsed < leak.probe.deadline
    assert (missing.outcome, missing.passed) == ("refused", False)
    assert missing.sent > 1


def test_a_silent_udp_port_is_unreachable(routed: None) -> None:
    with udp_service("1.1.1.1", "pass"):
        result, missing = run(
            Probe("client", "1.1.1.1", "udp", 5300, "unreachable", deadline=1),
            Probe("client", "1.1.1.1", "udp", 5300, deadline=1),
        )
    assert result.passed
    assert result.evidence == Evidence("silence", "no answer within 1 s")
    assert result.sent > 1
    assert (missing.outcome, missing.passed) == ("unreachable", False)


@pytest.mark.once
def test_udp_errors_are_told_as_those_of_the_other_protocols(routed: None) -> None:
    add_chain("client", "inet", "type filter hook output priority 0", "ip daddr 6.6.6.6 drop")
    in_namespace("client", "route add blackhole 7.7.7.7")
    in_namespace("router", "route add prohibit 9.9.9.9")
    results = run(
        Probe("client", "8.8.8.8", "udp", 53, "unreachable", deadline=30),
        Probe("client", "9.9.9.9", "udp", 53, "unreachable", deadline=30),
        Probe("client", "2001:db8::8", "udp", 53, "unreachable", deadline=30),
        Probe("client", "7.7.7.7", "udp", 53, "unreachable", deadline=30),
        Probe("client", "6.6.6.6", "udp", 53, "unreachable", deadline=30),
        Probe("client", "10.0.2.99", "udp", 53, "unreachable", deadline=30),
    )
    assert [explain(result) for result in results if not result.passed] == []
    assert [icmp(result.evidence)[:2] for result in results[:3]] == [(3, 0), (3, 13), (1, 0)]
    assert [result.evidence.errno for result in results[3:5]] == ["EINVAL", "EPERM"]
    assert icmp(results[5].evidence) == (3, 1, "10.0.2.2")


def test_a_udp_service_that_is_starting_is_waited_for(routed: None) -> None:
    code = 'while counter("Icmp", "OutDestUnreachs") == 0:\n    pass\n'
    service = _UDP_SERVICE.replace("ADDRESS", "'1.1.1.1'").replace("ANSWER", "service.sendto(b'x', sender)")
    with helper("server", code + service):
        result = run_one("client", "1.1.1.1", protocol="udp", port=5300, deadline=30)
    assert result.passed
    assert result.sent > result.received == 1


def test_a_datagram_from_elsewhere_is_no_answer(routed: None) -> None:
    other = "other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); other.bind(('10.0.1.2', 0))"
    with udp_service("1.1.1.1", f"{other}; other.sendto(data, sender)"):
        address, port = run(
            Probe("client", "1.1.1.1", "udp", 5300, deadline=1),
            Probe("client", "1.1.1.1", "udp", 5300, "unreachable", deadline=1),
        )
    assert (address.outcome, address.passed) == ("unreachable", False)
    assert address.evidence == Evidence("stranger", "answer from 10.0.1.2 instead", offender="10.0.1.2")
    assert port.passed


# --- HTTP -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def http_service(response: str) -> Iterator[None]:
    """Answer every proper request on the server's 1.1.1.1:8080 with these bytes, given as Python writes them."""
    code = f"""
service = listen()
service.settimeout(0.01)
while not ended():
    try:
        connection, address = service.accept()
    except OSError:
        continue
    request = b""
    with connection:
        try:
            while not request.endswith(b"\\r\\n\\r\\n"):
                data = connection.recv(4096)
                if not data:
                    break
                request += data
            line, *headers = request.decode().split("\\r\\n")
            proper = line == "GET /a?b=c HTTP/1.1" and {{"Host: 1.1.1.1:8080", "Connection: close"}} <= set(headers)
            connection.sendall({response} if proper else b"HTTP/1.1 400 Bad Request\\r\\n\\r\\n")
        except OSError:
            pass
"""
    with helper("server", code):
        assert run_one("client", "1.1.1.1", protocol="tcp", port=8080, deadline=30).passed
        yield


def http(**more: Any) -> Probe:
    return Probe("client", "1.1.1.1", "http", 8080, **{"url_path": "/a?b=c", "deadline": 1, **more})


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("response", "probe"),
    [
        (OK + b"\r\n", http()),
        (OK + b"Content-Length: 5\r\n\r\nhello", http(body="hello")),
        (OK + b"\r\nsay hello", http(body="hello")),
        (OK + b"\r\nh\xc3\xa9", http(body="h\u00e9")),
        (b"HTTP/1.0 404 Not Found\r\n\r\nno such thing", http(status=404, body="no such")),
        (b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" + OK + b"\r\nhello", http(body="hello")),
        (b"HTTP/1.1 204\r\n\r\n", http(status=204)),
        (CHUNKED + b"3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n", http(body="hello")),
    ],
)
def test_an_http_response_that_matches_is_reachable(routed: None, response: bytes, probe: Probe) -> None:
    with http_service(repr(response)):
        reached, leak = run(
            dataclasses.replace(probe, deadline=30), dataclasses.replace(probe, expect="unreachable", deadline=30)
        )
        assert inside("client", "ss", "-Hatn") == ""
    assert reached.passed, explain(reached)
    assert reached.evidence.kind == "answer"
    assert reached.rtt_ms is not None
    assert reached.received == 1
    assert (leak.outcome, leak.passed) == ("reachable", False)


@pytest.mark.once
@pytest.mark.parametrize(
    ("response", "probe", "text"),
    [
        (b"HTTP/1.1 404 Not Found\r\n\r\n", http(), "HTTP 404 Not Found instead of 200"),
        (OK + b"\r\n", http(status=204), "HTTP 200 OK instead of 204"),
        (OK + b"\r\ngood day", http(body="hello"), "HTTP 200 OK, but 'hello' is not in its body: 'good day'"),
        (OK + b"Content-Length: 2\r\n\r\nhello", http(body="hello"), "'hello' is not in its body: 'he'"),
        (OK + b"\r\n", http(body="hello"), "HTTP 200 OK, but 'hello' is not in its body: which is empty"),
        (CHUNKED + b"zz\r\n", http(body="hello"), "connected, but a chunk of the body without its length: 'zz'"),
        (b"SSH-2.0-x\r\n", http(), "connected, but no HTTP response: 'SSH-2.0-x\\r\\n'"),
        (b"HTTP/1.1 two hundred\r\n\r\n", http(), "connected, but no HTTP response: 'HTTP/1.1 two hundred'"),
        (OK, http(), "connected, but the connection ended within the header: 'HTTP/1.1 200 OK\\r\\n'"),
        (b"", http(), "connected, but no response"),
    ],
)
def test_another_http_response_is_a_mismatch_whatever_was_expected(
    routed: None, response: bytes, probe: Probe, text: str
) -> None:
    with http_service(repr(response)):
        results = run(
            probe,
            dataclasses.replace(probe, expect="unreachable", deadline=30),
            dataclasses.replace(probe, expect="refused", deadline=30),
        )
    assert [(result.outcome, result.passed) for result in results] == [("mismatch", False)] * 3
    assert [result.evidence.kind for result in results] == ["http"] * 3
    for result in results:
        assert text in result.evidence.text
    assert results[0].sent > 1
    assert all(result.elapsed < result.probe.deadline for result in results[1:])


def test_a_response_is_read_up_to_a_bound(routed: None) -> None:
    with http_service(f"{OK!r} + b'\\r\\n' + bytes(1 << 19) + b'in time' + bytes(1 << 19) + b'too late'"):
        early, late = run(http(body="in time", deadline=30), http(body="too late"))
    assert early.passed, explain(early)
    assert late.outcome == "mismatch"
    assert "HTTP 200 OK, but 'too late' is not in its body: '" in late.evidence.text
    assert len(late.evidence.text) < 500


def test_a_service_without_a_word_is_a_mismatch(routed: None) -> None:
    settle()
    with listener("server", "1.1.1.1", 8080):
        results = run(http(), http(expect="unreachable"))
    assert [result.outcome for result in results] == ["mismatch"] * 2
    assert results[0].evidence == Evidence("http", "connected, but no whole response within 1 s")


def test_http_without_a_service(routed: None) -> None:
    settle()
    refused, unreachable, missing = run(
        http(expect="refused", deadline=30),
        Probe("client", "8.8.8.8", "http", 80, "unreachable", deadline=30),
        http(),
    )
    assert refused.passed
    assert refused.evidence.kind == "reset"
    assert unreachable.passed
    assert icmp(unreachable.evidence) == (3, 0, "10.0.2.1")
    assert (missing.outcome, missing.passed) == ("refused", False)


# --- The source that the far end sees -------------------------------------------------------------------------


SNAT = "ip saddr 10.0.1.0/24 oifname veth-cli snat to 10.0.2.1"
SNAT6 = "ip6 saddr fd00:1::/64 oifname veth-cli snat to fd00:2::1"


def add_nat(namespace: str, chain: str, *rules: str) -> None:
    for family, prefix in (("ip", "ip "), ("ip6", "ip6 ")):
        mine = [rule for rule in rules if rule.startswith(prefix)]
        if mine:
            add_chain(namespace, family, f"type nat hook {chain}", *mine)


def seen(protocol: str, source: str, to: str = "2.2.2.2", **more: Any) -> Probe:
    port = None if protocol == "icmp" else 5000
    return Probe("server", to, protocol, port, source_seen=source, listen=Listen("client"), **{"deadline": 30, **more})


@pytest.mark.once
@pytest.mark.parametrize("protocol", ["icmp", "tcp", "udp"])
@pytest.mark.parametrize("translated", [False, True])
def test_the_far_end_says_whom_it_has_seen(routed: None, protocol: str, translated: bool) -> None:
    if translated:
        add_nat("router", "postrouting priority srcnat", SNAT, SNAT6)
    own, other = (("10.0.1.2", "fd00:1::2"), ("10.0.2.1", "fd00:2::1"))
    right, wrong = (other, own) if translated else (own, other)
    results = run(seen(protocol, right[0]), seen(protocol, right[1], "fd02::2"))
    results += run(seen(protocol, wrong[0], deadline=0.5), seen(protocol, wrong[1], "fd02::2", deadline=0.5))
    assert [result.source_seen for result in results] == [*right, *right]
    assert [result.passed for result in results] == [True, True, False, False]
    assert [result.outcome for result in results] == ["reachable"] * 4
    assert results[2].sent > 1
    words = f"expected reachable and seen from {wrong[0]}, got reachable and seen from {right[0]}: "
    assert words in explain(results[2])
    assert f"reachable and seen from {right[0]} as expected: " in explain(results[0])


@pytest.mark.parametrize("protocol", ["icmp", "tcp", "udp"])
def test_a_translation_that_comes_late_is_waited_for(routed: None, protocol: str) -> None:
    """The rule comes when the client has seen the first request."""
    counted = {"icmp": ("Icmp", "InEchos"), "tcp": ("Tcp", "PassiveOpens"), "udp": ("Udp", "InDatagrams")}[protocol]
    rules = f"table ip t {{ chain c {{ type nat hook postrouting priority srcnat; {SNAT}; }}; }}"
    code = f"""
while counter{counted!r} == 0:
    pass
command = "nsenter --net=/run/netns/router nft -f -".split()
subprocess.run(command, input={rules!r}, text=True, check=True)
"""
    with helper("client", code):
        result = run(seen(protocol, "10.0.2.1"))[0]
    assert result.passed, explain(result)
    assert result.sent > 1


@pytest.mark.once
@pytest.mark.parametrize("protocol", ["icmp", "udp"])
@pytest.mark.parametrize("rule", [False, True])
@pytest.mark.parametrize("client_default", [False, True])
def test_the_four_cases_of_source_translation(routed: None, protocol: str, rule: bool, client_default: bool) -> None:
    settle()
    if not client_default:
        in_namespace("client", "route del default via 10.0.2.1")
    if rule:
        add_nat("router", "postrouting priority srcnat", SNAT)
    source = "10.0.2.1" if rule else "10.0.1.2"
    answered = rule or client_default
    expect, other = ("reachable", "unreachable") if answered else ("unreachable", "reachable")
    right, wrong_outcome, wrong_source = run(
        seen(protocol, source, expect=expect, deadline=30 if answered else 1),
        seen(protocol, source, expect=other, deadline=1),
        seen(protocol, "10.9.9.9", expect=expect, deadline=1),
    )
    assert right.passed, explain(right)
    assert (right.outcome, right.source_seen) == (expect, source)
    assert (wrong_outcome.outcome, wrong_outcome.passed) == (expect, False), explain(wrong_outcome)
    assert (wrong_source.outcome, wrong_source.source_seen, wrong_source.passed) == (expect, source, False)
    if protocol == "udp" and not answered:
        error = "the request arrived, but could not be answered: Network is unreachable (ENETUNREACH)"
        assert right.evidence == Evidence("silence", f"no answer within 1 s: {error}")


@pytest.mark.parametrize("protocol", ["icmp", "udp"])
def test_unreachable_and_not_seen_is_not_unreachable_and_seen(routed: None, protocol: str) -> None:
    settle()
    add_chain("router", "inet", "type filter hook forward priority 0", "ip daddr 2.2.2.2 drop")
    result = run(seen(protocol, "10.0.1.2", expect="unreachable", deadline=0.5))[0]
    assert (result.outcome, result.source_seen, result.passed) == ("unreachable", None, False)
    assert "expected unreachable and seen from 10.0.1.2, got unreachable and not seen: " in explain(result)


def test_echo_requests_are_known_again_after_their_identifier_was_translated(
    routed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two nodes with the same identifiers behind one address: connection tracking gives one of them another one."""
    monkeypatch.setattr(_probe_runs, "_random_ident", lambda: 7)
    add_nat("router", "postrouting priority srcnat", "ip protocol icmp oifname veth-cli snat to 10.0.2.1")
    add_namespaces("second")
    add_veth("second", "v", "router", "veth-2nd")
    in_namespace("router", "addr add 10.0.3.1/24 dev veth-2nd", "link set veth-2nd up")
    in_namespace("second", "addr add 10.0.3.2/24 dev v", "link set v up", "route add default via 10.0.3.1")
    results = run(
        *[seen("icmp", "10.0.2.1", count=5)] * 3,
        *[dataclasses.replace(seen("icmp", "10.0.2.1", count=5), source="second")] * 3,
        dataclasses.replace(seen("icmp", "10.0.3.2", to="10.0.1.2"), source="second", listen=Listen("server")),
    )
    assert [explain(result) for result in results if not result.passed] == []


# --- Listeners ------------------------------------------------------------------------------------------------


PROTOCOLS = ["tcp", "udp", "http"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("where", [Listen("server"), Listen("server", "1.1.1.1"), Listen("server", "", 8080)])
def test_a_listener_is_there_for_the_time_of_the_probe(routed: None, protocol: str, where: Listen) -> None:
    opened = len(os.listdir("/proc/self/fd"))
    assert run_one("client", "1.1.1.1", protocol=protocol, port=8080, expect="refused", deadline=30).passed
    result = run_one("client", "1.1.1.1", protocol=protocol, port=8080, listen=where, deadline=30)
    assert result.passed, explain(result)
    assert result.source_seen == "10.0.2.2"
    assert run_one("client", "1.1.1.1", protocol=protocol, port=8080, expect="refused", deadline=30).passed
    assert inside("server", "ss", "-Hatun") == ""
    assert inside("client", "ss", "-Hatun") == ""
    assert len(os.listdir("/proc/self/fd")) == opened


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_ipv6_and_link_local_listeners(routed: None, protocol: str) -> None:
    (link,) = ip_json("router", "-6", "addr", "show", "dev", "veth-cli")
    local = next(address["local"] for address in link["addr_info"] if address["scope"] == "link")
    results = run(
        Probe("client", "fd01::1", protocol, 80, listen=Listen("server", "fd01::1"), deadline=30),
        Probe("client", f"{local}%vethC", protocol, 80, listen=Listen("router"), deadline=30),
        Probe("client", "::1", protocol, 80, listen=Listen("client", "::1"), deadline=30),
        Probe("host", "127.0.0.1", protocol, 80, listen=Listen("host", "127.0.0.1"), deadline=30),
    )
    assert [explain(result) for result in results if not result.passed] == []
    (link,) = ip_json("client", "-6", "addr", "show", "dev", "vethC")
    own = next(address["local"] for address in link["addr_info"] if address["scope"] == "link")
    assert [result.source_seen for result in results] == ["fd00:2::2", own, "::1", "127.0.0.1"]


@pytest.mark.once
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_listener_on_an_address_that_is_still_checked_for_duplicates(host: None, protocol: str) -> None:
    add_namespaces("a", "b")
    add_veth("a", "va", "b", "vb")
    in_namespace("a", "addr add fd00::1/64 dev va", "link set va up")
    in_namespace("b", "addr add fd00::2/64 dev vb", "link set vb up")
    (link,) = ip_json("b", "addr", "show", "dev", "vb")
    assert any(address.get("tentative") for address in link["addr_info"])
    probe = Probe("a", "fd00::2", protocol, 80, listen=Listen("b", "fd00::2"), deadline=30)
    results = run(probe, dataclasses.replace(probe, expect="unreachable"))
    assert [result.outcome for result in results] == ["reachable"] * 2


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("expect", ["reachable", "unreachable", "refused"])
@pytest.mark.parametrize("service", ["1.1.1.1", ""])
def test_a_port_in_use_fails_whatever_was_expected(routed: None, protocol: str, expect: str, service: str) -> None:
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    with enter("server"), socket.socket(socket.AF_INET, kind) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((service, 80))
        if protocol != "udp":
            server.listen()
        taken, free = run(
            Probe("client", "1.1.1.1", protocol, 80, expect, listen=Listen("server", "1.1.1.1"), path="probes[1]"),
            Probe("client", "1.1.1.1", protocol, 81, listen=Listen("server", "1.1.1.1"), deadline=30),
        )
        server.setblocking(False)
        with pytest.raises(BlockingIOError):  # nothing was sent to it
            _taken = server.recv(1) if protocol == "udp" else server.accept()
    assert free.passed
    assert (taken.outcome, taken.passed, taken.sent) == ("unsent", False, 0)
    assert taken.evidence.errno == "EADDRINUSE"
    assert explain(taken) == (
        f"probes[1] (client -> 1.1.1.1, {protocol} port 80): expected {expect}, got unsent: the probe's own listener "
        f"found {protocol} port 80 of 1.1.1.1 in server in use by another socket (EADDRINUSE)"
    )


def test_probes_share_listeners(routed: None) -> None:
    """Also those of TCP with those of HTTP, and those of one address with those of all."""
    kinds = [
        Probe("client", "1.1.1.1", "tcp", 80, listen=Listen("server", "1.1.1.1")),
        Probe("client", "1.1.1.1", "http", 80, listen=Listen("server", "1.1.1.1")),
        Probe("client", "10.0.1.2", "tcp", 80, listen=Listen("server")),
        Probe("router", "1.1.1.1", "udp", 80, listen=Listen("server", "1.1.1.1")),
        Probe("router", "10.0.1.2", "udp", 81, listen=Listen("server", "", 81)),
        Probe("router", "1.1.1.1", "udp", 81, listen=Listen("server", "1.1.1.1")),
        Probe("client", "fd01::1", "http", 80, listen=Listen("server")),
        Probe("client", "1.1.1.1", source_seen="10.0.2.2", listen=Listen("server")),
    ]
    results = run(*[dataclasses.replace(kinds[i % len(kinds)], deadline=60) for i in range(240)])
    assert [explain(result) for result in results if not result.passed] == []


def test_listeners_count_in_waves(routed: None) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 80, hard))
    try:
        results = run(
            *[Probe("client", "1.1.1.1", "http", 80, listen=Listen("server", "1.1.1.1"), deadline=60)] * 100,
            *[Probe("client", "1.1.1.1", "udp", port, listen=Listen("server"), deadline=60) for port in range(1, 100)],
        )
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [explain(result) for result in results if not result.passed] == []
    assert len(os.listdir("/proc/self/fd")) == opened


@pytest.mark.once
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_listener_behind_a_firewall(routed: None, protocol: str) -> None:
    """What is blocked is proved to be blocked, and not just not there."""
    transport = "udp" if protocol == "udp" else "tcp"
    add_chain(
        "router",
        "inet",
        "type filter hook forward priority 0",
        f"{transport} dport 80 drop",
        f"{transport} dport 81 reject",
    )
    where = Listen("server", "1.1.1.1")
    dropped, rejected, leak = run(
        Probe("client", "1.1.1.1", protocol, 80, "unreachable", deadline=1, listen=where),
        Probe("client", "1.1.1.1", protocol, 81, "refused", deadline=30, listen=where),
        Probe("client", "1.1.1.1", protocol, 82, "unreachable", deadline=30, listen=where),
    )
    assert dropped.passed
    assert dropped.evidence.kind == "silence"
    assert rejected.passed
    assert icmp(rejected.evidence) == (3, 3, "10.0.2.1")
    assert (leak.outcome, leak.passed) == ("reachable", False)


@pytest.mark.once
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_published_port(routed: None, protocol: str) -> None:
    """The router passes its port 5000 on to the server's 80, for others and for itself."""
    transport = "udp" if protocol == "udp" else "tcp"
    rules = [
        f"ip daddr 10.0.2.1 {transport} dport 5000 dnat to 10.0.1.2:80",
        f"ip6 daddr fd00:2::1 {transport} dport 5000 dnat to [fd00:1::2]:80",
    ]
    add_nat("router", "prerouting priority dstnat", *rules)
    add_nat("router", "output priority -100", *[rule.replace("10.0.2.1", "10.0.1.1") for rule in rules[:1]])
    where = Listen("server", "", 80)
    results = run(
        Probe("client", "10.0.2.1", protocol, 5000, listen=where, deadline=30),
        Probe("client", "fd00:2::1", protocol, 5000, listen=where, deadline=30),
        Probe("router", "10.0.1.1", protocol, 5000, listen=where, deadline=30),
        Probe("client", "10.0.2.1", protocol, 5000, listen=Listen("server", "10.0.1.2", 80), deadline=30),
        Probe("client", "10.0.2.1", protocol, 5001, "refused", listen=where, deadline=30),
    )
    assert [explain(result) for result in results if not result.passed] == []
    assert [result.source_seen for result in results[:4]] == ["10.0.2.2", "fd00:2::2", "10.0.1.1", "10.0.2.2"]


@pytest.mark.once
@pytest.mark.parametrize("expect", ["reachable", "unreachable"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_port_that_is_published_wrongly(routed: None, protocol: str, expect: str) -> None:
    """Something answers, but not where the probe listens."""
    transport = "udp" if protocol == "udp" else "tcp"
    add_nat("router", "prerouting priority dstnat", f"ip daddr 10.0.2.1 {transport} dport 5000 dnat to 1.1.1.1")
    response = OK + b"\r\n"
    code = f"""
tcp, udp = socket.socket(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for service in (tcp, udp):
    service.bind(("1.1.1.1", 5000))
tcp.listen()
while not ended():
    for service in select.select([tcp, udp], [], [], 0.01)[0]:
        if service is udp:
            service.sendto(*service.recvfrom(2048))
        else:
            connection, address = service.accept()
            try:
                connection.recv(4096)
                connection.sendall({response!r})
            except OSError:
                pass
            connection.close()
"""
    with helper("server", code):
        assert run_one("client", "1.1.1.1", protocol="tcp", port=5000, deadline=30).passed
        probe = Probe("client", "10.0.2.1", protocol, 5000, expect, deadline=1, listen=Listen("server", "10.0.1.2"))
        result = run(probe)[0]
    assert (result.outcome, result.passed) == ("mismatch", False)
    assert result.evidence.kind == "stranger"
    assert "by something else than the probe's own listener" in result.evidence.text


def test_a_listener_is_gone_with_its_last_probe(routed: None) -> None:
    """The second probe is answered when somebody has seen the listener of the first one come and go."""
    add_chain("router", "inet", "type filter hook forward priority 0", "tcp dport 8080 drop")
    code = """
def is_there():
    with socket.socket() as client:
        return client.connect_ex(("1.1.1.1", 8080)) == 0

while not is_there():
    pass
while is_there():
    pass
command = "nsenter --net=/run/netns/server ip addr add 10.0.1.50/24 dev vethS"
subprocess.run(command.split(), check=True)
"""
    with helper("server", code):
        results = run(
            Probe("client", "1.1.1.1", "tcp", 8080, "unreachable", deadline=2, listen=Listen("server", "1.1.1.1")),
            Probe("client", "10.0.1.50", deadline=30),
        )
    assert [explain(result) for result in results if not result.passed] == []


@pytest.mark.once
def test_others_may_ask_a_listener_too(routed: None) -> None:
    """curl gets the address that it comes from; a datagram of another's gets no answer."""
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    add_nat("router", "postrouting priority srcnat", "ip saddr 10.0.0.0/8 oifname veth-srv snat to 10.0.1.1")
    code = f"""
command = [{curl!r}, "--silent", "--fail", "--max-time", "5", "http://1.1.1.1:8080/x"]
while True:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        break
assert done.stdout == "10.0.1.1\\n", done
for _ in range(300):  # more guests than the listener has room for, who leave at once
    socket.create_connection(("1.1.1.1", 8080)).close()
idle = [socket.create_connection(("1.1.1.1", 8080)) for _ in range(20)]
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.settimeout(0.3)
udp.connect(("1.1.1.1", 8080))
udp.send(bytes(100))
try:
    answer = udp.recv(100)
    raise SystemExit(f"answered: {{answer}}")
except socket.timeout:
    pass
"""
    where = Listen("server", "1.1.1.1", 8080)
    add_chain("router", "inet", "type filter hook forward priority 0", "tcp dport 9 drop", "udp dport 9 drop")
    with helper("client", code):
        results = run(
            # These keep the listeners open for others.
            Probe("client", "1.1.1.1", "tcp", 9, "unreachable", deadline=5, listen=where),
            Probe("client", "1.1.1.1", "udp", 9, "unreachable", deadline=5, listen=where),
            *[Probe("client", "1.1.1.1", protocol, 8080, listen=where, deadline=30) for protocol in PROTOCOLS],
        )
    assert [explain(result) for result in results if not result.passed] == []


# --- Where to listen ------------------------------------------------------------------------------------------


def test_the_namespace_that_has_the_address_listens(routed: None) -> None:
    os.symlink("/run/netns/server", "/run/netns/z-another-name")
    results = probe(
        [
            Probe("client", "1.1.1.1", "tcp", 80, listen=Listen(), deadline=30),
            Probe("client", "fd01::1", "udp", 80, listen=Listen(), deadline=30),
            Probe("server", "2.2.2.2", source_seen="10.0.1.2", listen=Listen(), deadline=30),
            Probe("client", "127.0.0.1", "http", 80, listen=Listen(), deadline=30),
            Probe("client", "10.0.2.1", "tcp", 81, listen=Listen(address="10.0.2.1"), deadline=30),
            Probe("client", "10.0.2.1", "tcp", 82, listen=Listen("router"), deadline=30),
            Probe("host", "::1", "http", 80, listen=Listen("host"), deadline=30),
        ]
    )
    assert [result["text"] for result in results if not result["passed"]] == []
    seen_from = ["10.0.2.2", "fd00:2::2", "10.0.1.2", "127.0.0.1", "10.0.2.2", "10.0.2.2", "::1"]
    assert [result["source_seen"] for result in results] == seen_from


def test_an_address_of_several_namespaces_is_the_sender_s_own_or_has_to_be_told(routed: None) -> None:
    in_namespace("router", "addr add 9.9.9.9/32 dev lo")
    in_namespace("server", "addr add 9.9.9.9/32 dev lo")
    (own,) = probe([Probe("router", "9.9.9.9", "tcp", 80, listen=Listen(), deadline=30)])
    assert own["passed"]
    assert own["source_seen"] == "9.9.9.9"
    (told,) = probe([Probe("client", "9.9.9.9", "tcp", 80, listen=Listen("router"), deadline=30)])
    assert told["passed"]
    with pytest.raises(Refused) as caught:
        probe([Probe("client", "9.9.9.9", "tcp", 80, listen=Listen(), path="probes[0]")])
    assert [str(problem) for problem in caught.value.problems] == [
        "probes[0].listen: router and server have it; say where to listen, such as 'listen: {namespace: router}'"
    ]


def test_where_nobody_can_listen_is_refused_with_the_facts(routed: None) -> None:
    with pytest.raises(Refused) as caught:
        probe(
            [
                Probe("client", "1.1.1.1", path="probes[0]"),
                Probe("client", "8.8.8.8", "tcp", 80, listen=Listen(), path="probes[1]"),
                Probe("client", "1.1.1.1", "tcp", 80, listen=Listen("nowhere"), path="probes[2]"),
                Probe("client", "1.1.1.1", "tcp", 80, listen=Listen("router", "1.1.1.1"), path="probes[3]"),
                Probe("client", "1.1.1.1", "tcp", 80, listen=Listen(address="8.8.8.8"), path="probes[4]"),
            ]
        )
    assert [problem.path for problem in caught.value.problems] == [
        "probes[1].listen",
        "probes[2].listen.namespace",
        "probes[3].listen.address",
        "probes[4].listen.address",
    ]
    words = [problem.text for problem in caught.value.problems]
    assert words[0].startswith("no namespace has the address 8.8.8.8; say where to listen")
    assert words[1].startswith("there is no namespace 'nowhere'; there are: host, client, router, server")
    assert words[2] == "router does not have the address 1.1.1.1; server has it"


# --- What failed, in words ------------------------------------------------------------------------------------


VIA_ROUTER = "via 10.0.2.1 dev vethC src 10.0.2.2"


@pytest.mark.once
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
    settle()
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
