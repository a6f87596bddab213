# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Address translation through the engine: what nft and iptables-legacy-save say, and who sees whom with packets."""

from __future__ import annotations

import contextlib
import copy
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.nslab.netns.plugins.module_utils import _apply, _facts, _observe, _options
from ansible_collections.nslab.netns.plugins.module_utils import _engine as engine
from ansible_collections.nslab.netns.plugins.module_utils._document import read_topology
from ansible_collections.nslab.netns.plugins.module_utils._errors import NslabError, Refused, StepFailed
from ansible_collections.nslab.netns.tests.unit.topologies import Document
from applying import fail_each_call, host_without_lab_traces, kill_at, module, netns, outcome, refused, run, words
from throwaway import (
    differences,
    eventually,
    firewall,
    ip,
    ping,
    seen,
    served,
    within,
    without,
    without_bridge_netfilter,
)

#: pytest-xdist has a thread of its own; a module has none.
pytestmark = [
    pytest.mark.usefixtures("host"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

BACKENDS = ("nftables", "iptables")
both_backends = pytest.mark.parametrize("backend", BACKENDS)


def six(text: str) -> Document:
    return {"address": text, "nodad": True}


def lab(backend: str = "nftables", **router: Any) -> Document:
    """Two neighbours on a bridge of the router, and somebody far away who knows no way back to them."""
    near = [{"to": "default", "via": "10.0.1.1"}, {"to": "default", "via": "fd00:1::1"}]
    return {
        "name": "nat",
        "namespaces": {
            "a": {"interfaces": {"eth0": {"addresses": ["10.0.1.2/24", six("fd00:1::2/64")]}}, "routes": near},
            "b": {"interfaces": {"eth0": {"addresses": ["10.0.1.3/24", six("fd00:1::3/64")]}}, "routes": near},
            "router": {
                "sysctls": {"net.ipv4.ip_forward": 1, "net.ipv6.conf.all.forwarding": 1},
                "interfaces": {"out": {"addresses": ["10.0.2.1/24", six("fd00:2::1/64")]}},
                "bridges": {"br0": {"addresses": ["10.0.1.1/24", six("fd00:1::1/64")], "ports": ["port-a", "port-b"]}},
                "nat_backend": backend,
                **router,
            },
            "far": {"interfaces": {"eth0": {"addresses": ["10.0.2.2/24", six("fd00:2::2/64")]}}},
        },
        "links": [
            {"endpoints": ["a:eth0", "router:port-a"]},
            {"endpoints": ["b:eth0", "router:port-b"]},
            {"endpoints": ["router:out", "far:eth0"]},
        ],
    }


SNAT: list[Document] = [
    {"source": "10.0.1.2/32", "out_interface": "out", "to_source": "10.0.2.1"},
    {"source": "10.0.1.0/24", "not_out_interface": "br0", "masquerade": True},
    {"source": "fd00:1::/64", "out_interface": "out", "masquerade": True},
]
DNAT: list[Document] = [
    {"protocol": "tcp", "port": 5000, "to_destination": "10.0.1.2:80", "local": True, "hairpin": True},
    {"protocol": "tcp", "port": 5000, "to_destination": "[fd00:1::2]:80", "local": True, "hairpin": True},
]


def translating(backend: str = "nftables") -> Document:
    return lab(backend, snat=copy.deepcopy(SNAT), dnat=copy.deepcopy(DNAT))


def sh(*command: str, namespace: str = "router", text: str = "") -> str:
    return within(namespace or None, *command, text=text)


def legacy_tables(namespace: str = "router") -> list[str]:
    names = ("/proc/thread-self/net/ip_tables_names", "/proc/thread-self/net/ip6_tables_names")
    return sh("cat", *names, namespace=namespace).split()


# --- packets ----------------------------------------------------------------------------------------------------------


def awake() -> None:
    """Wait until the lab's links carry packets, which a new one takes up to a second for."""
    for source, to in (("a", "10.0.1.1"), ("b", "10.0.1.1"), ("router", "10.0.2.2"), ("a", "fd00:1::1")):
        eventually(lambda s=source, t=to: ping(s, t)[0], f"{source} reaches {to}")
    eventually(lambda: ping("router", "fd00:2::2")[0], "router reaches fd00:2::2")
    without_bridge_netfilter("router")


@both_backends
def test_who_sees_whom(backend: str) -> None:
    run(lab(backend))
    awake()
    with served("far", 80):
        assert seen("a", "10.0.2.2", 80) == ""  # far knows no way back
        run(translating(backend))
        assert seen("a", "10.0.2.2", 80) == "10.0.2.1"
        assert seen("b", "10.0.2.2", 80) == "10.0.2.1"
        assert seen("a", "fd00:2::2", 80) == "fd00:2::1"
    with served("a", 80):
        for source, to, address in (
            ("far", "10.0.2.1", "10.0.2.2"),
            ("far", "fd00:2::1", "fd00:2::2"),
            ("router", "10.0.2.1", "10.0.2.1"),
            ("router", "fd00:2::1", "fd00:2::1"),
            ("b", "10.0.2.1", "10.0.1.1"),
            ("b", "fd00:2::1", "fd00:1::1"),
        ):
            assert seen(source, to, 5000) == address, source
        assert seen("router", "127.0.0.1", 5000) == ""
        assert seen("router", "10.0.2.1", 5001) == ""
    with served("router", 5000):
        assert seen("router", "127.0.0.1", 5000) == "127.0.0.1"
    run(lab(backend))
    with served("far", 80):
        assert seen("a", "10.0.2.2", 80) == ""


@pytest.mark.once
@both_backends
def test_without_local_and_hairpin_only_others_reach_a_published_port(backend: str) -> None:
    run(lab(backend, dnat=[{"protocol": "tcp", "ports": ["5000-5009", 8080], "to_destination": "10.0.1.2:80"}]))
    awake()
    with served("a", 80):
        assert seen("far", "10.0.2.1", 5007) == "10.0.2.2"
        assert seen("far", "10.0.2.1", 8080) == "10.0.2.2"
        assert seen("far", "10.0.2.1", 5010) == ""
        assert seen("router", "10.0.2.1", 5000) == ""
        assert seen("b", "10.0.2.1", 5000) == ""


_SOURCE = """
import socket, sys, time
listener = socket.create_server(("0.0.0.0", 80))
print("ready", flush=True)
connection, _peer = listener.accept()
number = 0
while True:
    number += 1
    connection.sendall(b"%d\\n" % number)
    time.sleep(0.02)
"""

_SINK = """
import socket
connection = socket.create_connection(("10.0.2.2", 80), timeout=10)
for line in connection.makefile():
    print(line.strip(), flush=True)
"""


@contextlib.contextmanager
def stream() -> Iterator[Any]:
    """A TCP connection from a to far that never ends; yields what reads the next of its numbers."""
    inside = ["nsenter", "--net=/run/netns/far", sys.executable, "-c", _SOURCE]
    with subprocess.Popen(inside, stdout=subprocess.PIPE, text=True) as source:
        assert source.stdout is not None
        assert source.stdout.readline() == "ready\n"
        inside = ["nsenter", "--net=/run/netns/a", sys.executable, "-c", _SINK]
        with subprocess.Popen(inside, stdout=subprocess.PIPE, text=True) as sink:
            assert sink.stdout
            lines = iter(sink.stdout)
            try:
                yield lambda: int(next(lines))
            finally:
                sink.kill()
                source.kill()


@both_backends
def test_an_established_connection_lives_through_changes(backend: str) -> None:
    other = next(name for name in BACKENDS if name != backend)
    run(translating(backend))
    awake()
    with stream() as following:
        last = following()
        more = translating(backend)
        more["namespaces"]["router"]["snat"].insert(0, {"source": "10.0.1.77", "to_source": "10.0.2.1"})
        fewer = translating(backend)
        del fewer["namespaces"]["router"]["dnat"]
        for document in (translating(backend), more, fewer, translating(other), translating(backend)):
            run(document)
            for _number in range(20):
                last, before = following(), last
                assert last == before + 1


# --- drift ------------------------------------------------------------------------------------------------------------

_FIRST = "source 10.0.1.2/32 out_interface out"
_NFT_FIRST = "add rule inet nslab-nat postrouting ip saddr 10.0.1.2 oifname out snat ip to"
_COMMENT = 'comment "nslab:nat"'
_LEGACY_FIRST = "POSTROUTING -s 10.0.1.2/32 -o out -m comment --comment nslab:nat -j SNAT --to-source"
_MASQUERADE = "POSTROUTING -s 10.0.1.0/24 ! -o br0 -m comment --comment nslab:nat -j MASQUERADE"


def nft(script: str) -> None:
    sh("nft", "-f", "-", text=script)


def legacy(*lines: str) -> None:
    for line in lines:
        sh("iptables-legacy", "-t", "nat", *line.split())


def handle(part: str) -> str:
    """The handle of the first rule of our postrouting chain that has these words."""
    listed = sh("nft", "--handle", "list", "chain", "inet", "nslab-nat", "postrouting").splitlines()
    return next(line for line in listed if part in line).rpartition("handle ")[2]


def delete(part: str) -> None:
    nft(f"delete rule inet nslab-nat postrouting handle {handle(part)}")


def reorder() -> None:
    delete("snat ip to 10.0.2.1")
    nft(f"{_NFT_FIRST} 10.0.2.1 {_COMMENT}")


def retarget() -> None:
    nft(f"insert{_NFT_FIRST[3:]} 10.0.2.7 {_COMMENT}")
    delete("snat ip to 10.0.2.1")


_SNAT_LINE = f"snat router {_FIRST} to_source"
DRIFT: dict[str, tuple[str, Any, list[str]]] = {
    "nftables deleted": (
        "nftables",
        lambda: delete("snat ip to 10.0.2.1"),
        [f"add {_SNAT_LINE} 10.0.2.1 backend nftables"],
    ),
    "nftables reordered": (
        "nftables",
        reorder,
        [f"move {_SNAT_LINE} 10.0.2.1 backend nftables position 3 -> 2"],
    ),
    "nftables doubled": (
        "nftables",
        lambda: nft(f"{_NFT_FIRST} 10.0.2.1 {_COMMENT}"),
        [f"remove {_SNAT_LINE} 10.0.2.1 backend nftables"],
    ),
    "nftables retargeted": (
        "nftables",
        retarget,
        [f"remove {_SNAT_LINE} 10.0.2.7 backend nftables", f"add {_SNAT_LINE} 10.0.2.1 backend nftables"],
    ),
    "nftables foreign rule": (
        "nftables",
        lambda: nft("insert rule inet nslab-nat postrouting ip saddr 10.0.1.2 counter accept"),
        ["remove snat router [rule with handle "],
    ),
    "nftables dormant": (
        "nftables",
        lambda: nft("add table inet nslab-nat { flags dormant; }"),
        ["remove dnat router [table with flags] backend nftables"],
    ),
    "iptables deleted": (
        "iptables",
        lambda: legacy(f"-D {_LEGACY_FIRST} 10.0.2.1"),
        [f"add {_SNAT_LINE} 10.0.2.1 backend iptables"],
    ),
    "iptables reordered": (
        "iptables",
        lambda: legacy(f"-D {_LEGACY_FIRST} 10.0.2.1", f"-A {_LEGACY_FIRST} 10.0.2.1"),
        [f"move {_SNAT_LINE} 10.0.2.1 backend iptables position 3 -> 2"],
    ),
    "iptables doubled": (
        "iptables",
        lambda: legacy(f"-A {_LEGACY_FIRST} 10.0.2.1"),
        [f"remove {_SNAT_LINE} 10.0.2.1 backend iptables"],
    ),
    "iptables retargeted": (
        "iptables",
        lambda: legacy(f"-R {_LEGACY_FIRST.replace('POSTROUTING', 'POSTROUTING 2')} 10.0.2.7"),
        [f"remove {_SNAT_LINE} 10.0.2.7 backend iptables", f"add {_SNAT_LINE} 10.0.2.1 backend iptables"],
    ),
    "iptables foreign target": (
        "iptables",
        lambda: legacy(f"-R {_MASQUERADE.replace('POSTROUTING', 'POSTROUTING 3').replace('MASQUERADE', 'RETURN')}"),
        [
            "remove snat router [",
            "add snat router source 10.0.1.0/24 not_out_interface br0 masquerade backend iptables",
        ],
    ),
}


@pytest.mark.once
@pytest.mark.parametrize("name", DRIFT)
def test_drift_is_named_and_repaired(name: str) -> None:
    backend, spoil, changes = DRIFT[name]
    run(translating(backend))
    right = host_without_lab_traces()
    spoil()
    found = run(translating(backend), check=True)
    assert len(found) == len(changes)
    assert all(line.startswith(start) for line, start in zip(found, changes)), found
    assert run(translating(backend)) == found
    assert run(translating(backend)) == []
    assert not differences(right, host_without_lab_traces())


@pytest.mark.once
@both_backends
def test_a_flushed_table_is_filled_again(backend: str) -> None:
    run(translating(backend))
    right = firewall("router")
    if backend == "nftables":
        nft("flush table inet nslab-nat")
    else:
        legacy("-F")
    found = run(translating(backend), check=True)
    assert all(line.startswith("add ") for line in found)
    assert len(found) == (9 if backend == "nftables" else 5)
    assert run(translating(backend)) == found
    assert firewall("router") == right


@pytest.mark.once
def test_a_deleted_table_is_made_again_and_an_emptied_one_goes() -> None:
    run(translating())
    right = firewall("router")
    nft("delete table inet nslab-nat")
    assert len(run(translating())) == 9
    assert firewall("router") == right
    nft("flush table inet nslab-nat")
    assert run(lab()) == ["remove nat router in nftables: 0 rules"]
    assert firewall("router") == []
    assert run(lab()) == []


# --- what is somebody else's ------------------------------------------------------------------------------------------

_FIREWALLD = """
table inet firewalld {
    set addresses { type ipv4_addr; elements = { 192.0.2.1, 192.0.2.2 } }
    chain nat_POSTROUTING {
        type nat hook postrouting priority srcnat + 10; policy accept;
        ip saddr @addresses counter packets 7 bytes 700 masquerade comment "zone public"
    }
    chain filter_FORWARD {
        type filter hook forward priority filter + 10; policy accept;
        ct state established counter packets 8 bytes 800 accept
    }
}
"""


@both_backends
def test_foreign_rules_stay_as_they_are(backend: str) -> None:
    run(lab())
    nft(_FIREWALLD)
    for line in (
        "-N DOCKER",
        "-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
        "-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
        "-A DOCKER ! -i docker0 -p tcp -m tcp --dport 9 -j DNAT --to-destination 172.17.0.2:9",
    ):
        sh("iptables", "-t", "nat", *line.split())  # the one that writes nftables
    for command in ("iptables-legacy", "ip6tables-legacy"):
        theirs = "-o eth7 -m comment --comment byhand -j MASQUERADE"
        sh(command, "-t", "nat", "-A", "POSTROUTING", *theirs.split())
        sh(command, "-t", "filter", "-A", "FORWARD", "-i", "eth7", "-j", "DROP")
    awake()
    found_before = firewall("router")
    counted = [sh(command, "-c", "-t", "nat") for command in ("iptables-legacy-save", "ip6tables-legacy-save")]

    def foreign() -> list[str]:
        """The firewall without what is ours."""
        table = False
        found = []
        for line in firewall("router"):
            table = (table or line == "table inet nslab-nat {") and line != "}"
            if not table and "nslab:nat" not in line:
                found.append(line)
        return [line for i, line in enumerate(found) if not (line == "}" and found[i - 1 : i] == ["}"])]

    for document in (translating(backend), translating(backend), lab(backend, snat=SNAT[:1]), lab(backend)):
        run(document)
        assert foreign() == found_before
    assert firewall("router") == found_before
    again = [sh(command, "-c", "-t", "nat") for command in ("iptables-legacy-save", "ip6tables-legacy-save")]
    assert [text.splitlines()[-3:-1] for text in again] == [text.splitlines()[-3:-1] for text in counted]


@pytest.mark.once
def test_counters_live_through_a_run_that_changes_nothing() -> None:
    run(translating("iptables"))
    awake()
    with served("far", 80):
        assert seen("a", "10.0.2.2", 80)
    counted = [line for line in sh("iptables-legacy-save", "-c", "-t", "nat").splitlines() if line.startswith("[")]
    assert any(not line.startswith("[0:0]") for line in counted)
    assert run(translating("iptables")) == []
    after = [line for line in sh("iptables-legacy-save", "-c", "-t", "nat").splitlines() if line.startswith("[")]
    assert after == counted


@both_backends
def test_two_labs_in_one_namespace(backend: str) -> None:
    ip("netns", "add", "shared")
    one = {"name": "one", "namespaces": {"host": {"snat": SNAT[1:2], "nat_backend": backend}}}
    two = {"name": "two", "namespaces": {"host": {"snat": SNAT[1:2], "dnat": DNAT[:0], "nat_backend": backend}}}
    run(one)
    alone = firewall(None)
    run(two)
    assert run(one) == run(two) == []
    module(
        _options.ns_snat, namespace="shared", rules=[SNAT[1]], purge=True, backend=backend, state="present", lab="two"
    )
    assert firewall("shared")
    # The name of the lab is enough, also for what is in a namespace that is not the lab's.
    assert sorted(run({"name": "two"}, absent=True)) == sorted(
        f"remove snat {name} source 10.0.1.0/24 not_out_interface br0 masquerade backend {backend}"
        for name in ("host", "shared")
    )
    assert firewall("shared") == []
    assert firewall(None) == alone
    run({"name": "one"}, absent=True)
    assert firewall(None) == []


# --- the backend ------------------------------------------------------------------------------------------------------


def backends(document: Document, check: bool = False) -> tuple[dict[str, str], list[str]]:
    planned = engine.run(read_topology(document).wanted, check=check)
    return planned.backends, planned.warnings


@pytest.mark.once
def test_auto_takes_nftables_and_keeps_what_holds_the_rules() -> None:
    run(lab("auto"))
    backends(translating("iptables"), check=True)
    assert backends(translating("auto"), check=True) == ({"router": "nftables"}, [])
    assert legacy_tables() == []
    assert backends(translating("auto")) == ({"router": "nftables"}, [])
    assert legacy_tables() == []
    run(translating("iptables"))
    assert backends(translating("auto")) == ({"router": "iptables"}, [])
    run(translating("nftables"))
    # The table of legacy iptables stays, empty; what holds the rules counts.
    assert legacy_tables() == ["nat", "nat"]
    assert backends(translating("auto")) == ({"router": "nftables"}, [])


def test_auto_takes_iptables_where_it_is_in_use() -> None:
    run(lab("auto"))
    legacy("-A POSTROUTING -o eth7 -j MASQUERADE")
    chosen, warnings = backends(translating("auto"))
    assert chosen == {"router": "iptables"}
    assert all("translation both" not in text for text in warnings)


@pytest.mark.once
def test_others_rules_in_the_other_backend_are_told() -> None:
    run(lab())
    legacy("-A POSTROUTING -o eth7 -j MASQUERADE")
    (warning,) = backends(translating("nftables"))[1]
    assert (
        "rules of translation both in nftables, which are this lab's, and in the table nat of legacy iptables"
        in warning
    )
    legacy("-F")
    assert backends(translating("nftables"))[1] == []
    nft(_FIREWALLD)
    assert any("and in a table of nftables that is not" in text for text in backends(translating("iptables"))[1])


@pytest.mark.once
@pytest.mark.parametrize(
    ("lacking", "asked", "path", "text"),
    [
        (
            ("nftables",),
            "nftables",
            "namespaces.router.nat_backend",
            "'nftables' cannot be used: the managed host lacks",
        ),
        (
            ("iptables",),
            "iptables",
            "namespaces.router.nat_backend",
            "'iptables' cannot be used: the managed host lacks",
        ),
        (
            BACKENDS,
            "auto",
            "namespaces.router.snat[0]",
            "the managed host can translate no addresses: it lacks nftables",
        ),
    ],
)
def test_a_missing_backend_is_told_before_anything_is_touched(
    monkeypatch: pytest.MonkeyPatch, lacking: tuple[str, ...], asked: str, path: str, text: str
) -> None:
    for name in lacking:
        monkeypatch.setattr(getattr(_observe, name), "available", lambda: False)
    assert f"{path}: {text}" in refused(translating(asked))


@pytest.mark.once
def test_auto_takes_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_observe.nftables, "available", lambda: False)
    assert backends(translating("auto"))[0] == {"router": "iptables"}


@pytest.mark.once
def test_what_a_backend_cannot_do_is_refused_with_its_path() -> None:
    rule = {"protocol": "tcp", "port": 1, "to_destination": "10.0.1.2:80", "random_fully": True}
    document = lab("iptables", dnat=[DNAT[0], rule])
    assert "namespaces.router.dnat[1]: iptables has no random_fully for dnat" in refused(document)


# --- failures ---------------------------------------------------------------------------------------------------------


def prepared() -> dict[str, Any]:
    """The host, with the file that any iptables command locks."""
    return without(host_without_lab_traces(), "/run/xtables.lock")


@pytest.mark.once
@pytest.mark.parametrize("way", ["create", "change", "remove", "switch", "tampered"])
@both_backends
def test_every_failing_call_leaves_the_host_as_it_was(monkeypatch: pytest.MonkeyPatch, backend: str, way: str) -> None:
    document = translating(backend)
    if way != "create":
        run(translating(backend))
        # What fails comes after the rules, in the order of a plan.
        document = translating(backend if way != "switch" else next(name for name in BACKENDS if name != backend))
    if way == "change":
        document["namespaces"]["router"]["snat"] = SNAT[1:]
        document["namespaces"]["far"]["snat"] = [{"masquerade": True}]
    elif way == "remove":
        document = {"name": "nat"}
    elif way == "tampered":
        if backend == "nftables":
            nft("insert rule inet nslab-nat postrouting ip saddr 10.0.1.2 counter accept")
        else:
            DRIFT["iptables foreign target"][1]()
        document["namespaces"]["far"]["snat"] = [{"masquerade": True}]
    # Made by the first change in legacy iptables; before it, so that it is no difference.
    sh("touch", "/run/xtables.lock", namespace="")
    assert fail_each_call(monkeypatch, document) > 1
    assert run(document) == []


@pytest.mark.once
@both_backends
@pytest.mark.parametrize("first", range(1, 5))
def test_kill_at_any_step_then_one_run_converges(backend: str, first: int) -> None:
    run(translating(backend))
    right = firewall("router")
    count = first
    while run({"name": "nat"}, absent=True) and kill_at(count, translating(backend)):
        run(translating(backend))
        assert run(translating(backend)) == []
        assert firewall("router") == right
        count += 4
    assert count > 20


def test_a_run_that_was_killed_between_the_backends_converges() -> None:
    run(translating("nftables"))
    assert kill_at(1, translating("iptables"))
    text = "\n".join(firewall("router"))
    assert "table inet nslab-nat" in text
    assert "nslab:nat" in text.partition("\nip -A")[2]
    run(translating("iptables"))
    assert not any(line.startswith("table") for line in firewall("router"))
    assert run(translating("iptables")) == []


@pytest.mark.once
def test_what_the_kernel_refuses_is_an_error_with_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_lab: str, _rules: Any) -> None:
        raise NslabError("nftables: Could not process rule: Operation not supported")

    before = host_without_lab_traces()
    with monkeypatch.context() as patch:
        patch.setattr(_apply.nftables, "replace", refuse)
        failed = outcome(translating())
    assert isinstance(failed, StepFailed)
    assert str(failed).startswith("namespaces.router.snat[0]: add nat router in nftables: 9 rules: nftables: Could not")
    assert not differences(before, host_without_lab_traces())


# --- the modules ------------------------------------------------------------------------------------------------------


def snat(rules: list[Document], **more: Any) -> list[str]:
    options = {"namespace": "router", "rules": rules, "purge": False, "backend": "nftables", "state": "present", **more}
    return module(_options.ns_snat, **options)


def dnat(rules: list[Document], **more: Any) -> list[str]:
    options = {"namespace": "router", "rules": rules, "purge": False, "backend": "nftables", "state": "present", **more}
    return module(_options.ns_dnat, **options)


def numbered(*numbers: int) -> list[Document]:
    return [{"source": f"10.7.{number}.0/24", "to_source": "192.0.2.1"} for number in numbers]


def order(backend: str = "nftables") -> list[int]:
    marks = ("ip saddr 10.7.", "-s 10.7.")
    lines = [line for line in firewall("router") if any(mark in line for mark in marks)]
    return [int(line.split("10.7.")[1].split(".")[0]) for line in lines]


@pytest.mark.once
@both_backends
def test_rules_that_are_not_named_stay_and_the_order_is_kept(backend: str) -> None:
    netns("router")
    assert len(snat(numbered(1, 2, 4), backend=backend)) == 3
    assert snat(numbered(1, 4), backend=backend) == []
    assert len(snat(numbered(2, 3, 4), backend=backend)) == 1
    assert order() == [1, 2, 3, 4]
    snat(numbered(0, 1), backend=backend)
    assert order() == [0, 1, 2, 3, 4]
    snat(numbered(9), backend=backend)
    assert order() == [0, 1, 2, 3, 4, 9]
    snat(numbered(4, 1), backend=backend)
    assert order() == [0, 2, 3, 9, 4, 1]
    snat(numbered(3, 8), backend=backend, state="absent")
    assert order() == [0, 2, 9, 4, 1]
    assert len(snat(numbered(1, 2), backend=backend, purge=True)) >= 3
    assert order() == [1, 2]
    assert len(snat([], backend=backend, purge=True)) == 2
    assert firewall("router") == []


@both_backends
def test_each_module_keeps_to_its_own_rules(backend: str) -> None:
    run(lab(backend))
    more = {"backend": backend, "purge": True}
    snat(SNAT, **more)
    dnat(DNAT, **more)
    whole = firewall("router")
    assert snat(SNAT, **more) == dnat(DNAT, **more) == []
    snat([], **more)
    dnat([], **more)
    assert firewall("router") == []
    dnat(DNAT, **more)
    snat(SNAT, **more)
    assert firewall("router") == whole
    # A lab's rules, and those without one, do not see each other.
    assert snat([], **more, lab="nat") == []
    assert firewall("router") == whole
    assert dnat(DNAT[:1], backend=backend, state="absent")
    assert len(dnat([], **more)) == 3


@pytest.mark.once
def test_a_missing_namespace_is_an_assumption_and_an_error_when_it_counts() -> None:
    options = {"namespace": "n", "rules": SNAT[:1], "purge": False, "backend": "auto", "state": "present", "lab": None}
    planned = engine.run(_options.ns_snat(options), check=True)
    assert words(planned) == [f"add snat n {_FIRST} to_source 10.0.2.1 backend nftables"]
    assert [str(problem) for problem in planned.assumptions] == ["namespace: there is no namespace 'n'"]
    with pytest.raises(Refused, match="there is no namespace 'n'"):
        engine.run(_options.ns_snat(options))
    assert module(_options.ns_snat, **{**options, "state": "absent"}) == []


@pytest.mark.once
def test_a_hairpin_needs_neighbours() -> None:
    rule = {"protocol": "tcp", "port": 5000, "to_destination": "172.18.0.10:80", "hairpin": True}
    text = "namespaces.router.dnat[0].hairpin: no interface of the namespace router has the prefix of 172.18.0.10"
    assert text in refused(lab(dnat=[rule]))


@both_backends
def test_the_captured_topology_applied_again_changes_nothing(backend: str) -> None:
    document = translating(backend)
    rules = document["namespaces"]["router"]["snat"]
    rules.append({"masquerade": True, "mark": "0x1/0xff", "comment": "it's both", "random_fully": True})
    rules.append({"protocol": "udp", "source_ports": [53, "60-70"], "family": "ipv6", "masquerade": True})
    rules.append({"protocol": "tcp", "not_destination_ports": ["80"], "to_source": "10.0.2.1:1024-2047"})
    run(document)
    captured = _facts.gather(None, [], "nat")["topology"]
    router = captured["namespaces"]["router"]
    assert [rule.get("comment") for rule in router["snat"]] == [None, None, "it's both", None, None, None] or router[
        "snat"
    ]
    assert all(rule["local"] and rule["hairpin"] for rule in router["dnat"])
    assert run(captured) == []
    run({"name": "nat"}, absent=True)
    router["nat_backend"] = backend
    run(captured)
    assert run(document) == []
