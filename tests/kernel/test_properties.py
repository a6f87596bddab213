# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds for every pair of topologies, on the real kernel, by iproute2's own words."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from ansible_collections.nslab.netns.plugins.module_utils import _engine as engine
from ansible_collections.nslab.netns.plugins.module_utils._document import read_topology
from ansible_collections.nslab.netns.tests.unit.topologies import Document, documents
from applying import visible
from hypothesis import HealthCheck, Phase, given, settings
from throwaway import (
    NO_NETEM,
    differences,
    firewall,
    ip_json,
    kinds_here,
    lasting_rules,
    named_namespaces,
    qdiscs,
    sysctls,
    throwaway_host,
)

KINDS = kinds_here()
EXAMPLES = int(os.environ.get("NSLAB_EXAMPLES", "25"))

#: The random parts of a link, what follows from them, and the carrier, which the kernel reports a little late.
_RANDOM = {"ifindex", "link_index", "address", "permaddr", "link_netnsid", "link", "operstate", "qdisc", "tso_max_size"}
#: What there is to say of a bridge and of a port of one; the rest is identity, timers and the spanning tree's doing.
_BRIDGE = {"ageing_time", "forward_delay", "group_fwd_mask", "mcast_snooping", "stp_state", "vlan_filtering"}
_PORT = {"cost", "flood", "guard", "hairpin", "isolated", "learning", "mcast_flood", "neigh_suppress", "priority"}
_CARRIER = {"LOWER_UP", "NO-CARRIER", "M-DOWN"}


def shape() -> dict[str, Any]:
    """The host and its namespaces as iproute2 shows them, without what is random or only passing."""
    return {name or "host": _stack(name) for name in (None, *named_namespaces())}


def _stack(name: str | None) -> dict[str, Any]:
    links = {}
    for link in ip_json(name, "-details", "address", "show"):
        info = link.pop("linkinfo", {})
        link["kinds"] = info.get("info_kind"), info.get("info_slave_kind")
        if link["kinds"][0] in KINDS:
            # What a VXLAN lies on is an index in another namespace at times.
            link["details"] = {key: value for key, value in info.get("info_data", {}).items() if key != "link"}
        if info.get("info_data", {}).get("stp_state"):
            # The kernel has another one while the topology changes, and that of the root of the spanning tree.
            info["info_data"] |= {"ageing_time": None, "forward_delay": None}
        link["bridge"] = {key: value for key, value in info.get("info_data", {}).items() if key in _BRIDGE}
        link["port"] = {key: value for key, value in info.get("info_slave_data", {}).items() if key in _PORT}
        addresses = [_plain(address) for address in link.pop("addr_info") if not _is_link_local(address)]
        links[link["ifname"]] = {
            **{key: value for key, value in link.items() if key not in _RANDOM},
            "flags": sorted(set(link["flags"]) - _CARRIER),
            "addresses": sorted(json.dumps(address, sort_keys=True) for address in addresses),
        }
    routes = []
    for family in ("-4", "-6"):
        for route in ip_json(name, family, "-details", "route", "show", "table", "all"):
            if not str(route["dst"]).startswith(("fe80", "ff00")) and route.get("table") != "local":
                for way in (route, *route.get("nexthops", ())):
                    way["flags"] = sorted(set(way.get("flags", ())) - {"linkdown"})
                routes.append(json.dumps(route, sort_keys=True))
    rules = {family: lasting_rules(ip_json(name, family, "-details", "rule", "show")) for family in ("-4", "-6")}
    watched = sysctls(
        name, r"^net\.ipv[46]\.(ip_forward|icmp_echo_ignore_all|conf\.(all|lo|[eh]\d)\.(forwarding|rp_filter))$"
    )
    return {
        "links": links,
        "routes": sorted(routes),
        "rules": rules,
        "qdiscs": qdiscs(name),
        "sysctls": watched,
        "firewall": firewall(name),
    }


def _is_link_local(address: dict[str, Any]) -> bool:
    return str(address["local"]).startswith("fe80")


def _plain(address: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in address.items() if key not in ("valid_life_time", "tentative")}


def run(document: Document, check: bool = False, absent: bool = False, after: Document | None = None) -> list[str]:
    """The changes; ``after`` is the document that stands: its spanning trees may start to hide something meanwhile."""
    planned = engine.run(read_topology(document, absent=absent).wanted, check=check)
    # What the administrator has to know of legacy iptables is said where it is used, and what a spanning tree hides at
    # times, when it does: slow machines see more of that.
    foreseen = ["legacy iptables"]
    for namespace, body in document.get("namespaces", {}).items():
        trees = [name for name, bridge in body.get("bridges", {}).items() if bridge.get("stp")]
        foreseen += [f"of the bridge {namespace}:{name} cannot be seen while" for name in trees]
    assert not [text for text in planned.warnings if not any(words in text for words in foreseen)]
    return visible(planned, after)


#: Each example is real kernel work, so that shrinking a failing one would take longer than reading it.
_SETTINGS = {
    "deadline": None,
    "phases": [Phase.explicit, Phase.reuse, Phase.generate],
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}


@pytest.mark.once
@settings(max_examples=EXAMPLES, **_SETTINGS)
@given(first=documents(kinds=KINDS, impairments=not NO_NETEM), second=documents(kinds=KINDS, impairments=not NO_NETEM))
def test_any_topology_leads_to_any_other(first: Document, second: Document) -> None:
    """apply(A), apply(B) equals a fresh B; check predicts apply and touches nothing; nothing is left behind."""
    with throwaway_host():
        empty = shape()
        predicted = run(first, check=True)
        assert not differences(empty, shape())
        assert run(first) == predicted
        assert run(first) == []

        between = shape()
        predicted = run(second, check=True, after=first)
        assert not differences(between, shape())
        assert run(second, after=first) == predicted
        assert run(second) == []
        reached = shape()

        run(second, absent=True)
        assert run(second, absent=True) == []
        assert not differences(empty, shape())
        run(second)
        assert not differences(reached, shape())


@pytest.mark.parametrize("absent", [False, True])
@settings(max_examples=max(1, EXAMPLES // 10), **_SETTINGS)
@given(document=documents(impairments=not NO_NETEM))
def test_a_second_lab_is_not_touched(absent: bool, document: Document) -> None:
    """Two labs on one host live side by side."""
    other = {
        "name": "other",
        "namespaces": {"x": {"interfaces": {"eth0": {"addresses": ["10.250.0.1/24"]}}}},
        "links": [{"endpoints": ["x:eth0", "host:veth-x"]}],
    }
    with throwaway_host():
        run(other)
        before = shape()
        run(document)
        assert run(other) == []
        run(document, absent=True)
        assert not differences(before, shape())
