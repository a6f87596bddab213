# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the report says of a topology."""

from __future__ import annotations

from ansible_collections.nslab.netns.plugins.filter.report import report


def test_services_stand_with_their_namespaces() -> None:
    services = {"web": {"command": ["httpd", "-p", 80, "a b"], "user": "www"}, "ticker": {"command": "sleep 1000"}}
    told = report({"name": "lab", "namespaces": {"a": {"services": services}, "b": None}})
    assert told.splitlines() == [
        "Lab lab",
        "",
        "a",
        "  services        web: httpd -p 80 'a b'",
        "                  ticker: sleep 1000",
        "",
        "b",
    ]


def test_an_impairment_of_a_link_is_at_both_ends() -> None:
    link = {"endpoints": ["a:e0", "b:e0"], "impairment": {"rate": "1mbit"}}
    told = report(
        {"name": "lab", "namespaces": {"a": {"interfaces": {"e0": {"mtu": 1400}}}, "b": None}, "links": [link]}
    )
    assert told.splitlines()[3::3] == [
        "  e0              mtu 1400, impaired by rate 1mbit  ------ b:e0",
        "  e0              impaired by rate 1mbit  ------ a:e0",
    ]


def test_what_interfaces_are_and_do_is_told() -> None:
    interfaces = {
        "eth0": {"addresses": ["10.0.0.1/24"], "impairment": {"delay": "10ms", "loss": "1%"}},
        "eth0.7": {"vlan": {"link": "eth0", "id": 7}, "addresses": ["10.7.0.1/24"]},
        "far": {"vxlan": {"id": 9, "remote": "192.0.2.2", "learning": False}, "up": False},
        "any": {"dummy": True},
        "red": {"vrf": {"table": 10, "interfaces": ["eth0", "far"]}},
    }
    rules = [
        {"priority": 9, "table": "main", "suppress_prefixlength": 0},
        {"priority": 10, "from": "10.7.0.0/24", "table": 10},
        {"priority": 11, "fwmark": "0x1", "type": "blackhole"},
    ]
    told = report({"name": "lab", "namespaces": {"a": {"interfaces": interfaces, "rules": rules}}})
    assert told.splitlines()[2:] == [
        "a",
        "  eth0            10.0.0.1/24, impaired by delay 10ms loss 1%",
        "  eth0.7          10.7.0.1/24, vlan link eth0 id 7",
        "  far             down, vxlan id 9 remote 192.0.2.2 learning off",
        "  any             dummy",
        "  red             vrf table 10 interfaces eth0,far",
        "  rules           priority 9 table main suppress_prefixlength 0",
        "                  priority 10 from 10.7.0.0/24 table 10",
        "                  priority 11 fwmark 0x1 type blackhole",
    ]
