# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documents that nobody should write: they are refused in words, or work; there is no third way."""

from __future__ import annotations

import copy
import os
import random
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from ansible_collections.nslab.netns.plugins.module_utils import _engine as engine
from ansible_collections.nslab.netns.plugins.module_utils import _options
from ansible_collections.nslab.netns.plugins.module_utils._errors import InvalidInput, NslabError
from counting import count
from oracle import look
from throwaway import differences, throwaway_host

#: How many documents there are, in parts that go to several processes.
DOCUMENTS = int(os.environ.get("NSLAB_FUZZED", "5000"))
PARTS = 10

#: As people write it, with the words whose values YAML takes for something else.
TEXT = """
name: fuzz
namespaces:
  a:
    interfaces:
      e0:
        addresses: [10.0.0.1/24, "fd00::1/64", {address: 10.0.1.1/24, label: "e0:x"}]
        mtu: 1400
        mac: "02:00:00:00:00:01"
      lo: {addresses: [192.0.2.1/32]}
    routes:
      - {to: default, via: 10.0.0.2, metric: 7}
      - {to: 198.51.100.0/24, type: blackhole}
      - {to: 203.0.113.0/24, nexthops: [{via: 10.0.0.2, weight: 2}, {via: 10.0.0.3}]}
    sysctls: {net.ipv4.ip_forward: 1, net.ipv4.conf.e0.rp_filter: 2, net.ipv4.ip_local_port_range: "1024 65000"}
    snat:
      - {source: 10.9.0.0/16, out_interface: e0, to_source: "10.0.0.1:1024-2047", protocol: tcp}
      - {masquerade: true, mark: 0x1/0xff}
    dnat: [{protocol: tcp, port: 8080, to_destination: "10.0.0.2:80", local: true, hairpin: true}]
  b:
    interfaces: {e1: {up: true}}
    bridges: {br0: {ports: {e1: {hairpin: true, cost: 7}}, stp: false, ageing_time: 1.5, addresses: [10.0.0.2/24]}}
  host: {}
links:
  - endpoints: ["a:e0", "b:e1"]
probes:
  - {from: a, to: 10.0.0.2, protocol: tcp, port: 80, expect: refused}
"""

#: What YAML makes of words that look harmless, and other values that are no good.
SURPRISES = [
    *map(
        yaml.safe_load,
        ("on", "off", "yes", "no", "1.10", "0x10", "0o17", "010", "1e3", ".inf", ".nan", "~", "", "12:30"),
    ),
    *map(yaml.safe_load, ("2001-01-01", "1_000", "!!binary aGFsbG8=", "{1: 2}", "{true: x}", "[[]]", "{}", "- - - a")),
    *(0, -1, 1, 2**31, 2**32, 2**64, 10**400, -0.0, 1e308, True, False, None),
    *(
        "",
        " ",
        "\0",
        "a\0b",
        "\n",
        "a" * 300,
        "a" * 100_000,
        "../../etc",
        "/",
        ".",
        "..",
        "host",
        "lo",
        "all",
        "default",
    ),
    *(
        "ä",
        "😀",
        "\u202e",
        "\ud800",
        "a\u0301",
        "İ",
        "٣",
        "e0;reboot",
        "$(reboot)",
        "{{ x }}",
        "%d",
        "e%d",
        "*",
        "[",
        "'",
    ),
    *("10.0.0.1", "10.0.0.0/24", "10.0.0.1/33", "::", "::/0", "0.0.0.0/0", "fe80::1%e0", "::ffff:10.0.0.1", "1.2.3"),
    *(
        "default",
        "local",
        "unicast",
        "a:e0",
        "a:e0:x",
        ":",
        "x:",
        ":x",
        "0",
        "-1",
        "65536",
        "1-",
        "-",
        "9-1",
        "0x1/0x0",
    ),
]


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a document."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _paths(item, (*path, key))


def _keys(value: Any) -> set[str]:
    found = {key for key in value if isinstance(key, str)} if isinstance(value, dict) else set()
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        found |= _keys(item)
    return found


#: What is never applied: nothing that is made up here shall be run.
SERVICES = """
name: fuzz
namespaces:
  a:
    services:
      web:
        command: [httpd, -p, 80, 1.5, "a b"]
        user: www-data
        group: 33
        directory: /srv
        environment: {A: "1", C: 3}
        restart: no
      other: {command: "httpd 'a b' $HOME", restart: always}
  host: {services: {third: {command: [/bin/true]}}}
"""

DOCUMENT = yaml.safe_load(TEXT)
KEYS = sorted(_keys(DOCUMENT))


def mutated(chance: random.Random, original: Any = DOCUMENT) -> Any:
    """The document with up to four changes for the worse."""
    document: Any = copy.deepcopy(original)
    for _number in range(chance.choice((1, 1, 1, 2, 4))):
        path = chance.choice(list(_paths(document)))
        if not path:
            if chance.random() < 0.02:
                return chance.choice(SURPRISES)
            continue
        parent = document
        for key in path[:-1]:
            parent = parent[key]
        _mutate(chance, parent, path[-1], document)
    return document


def _mutate(chance: random.Random, parent: Any, key: Any, document: Any) -> None:
    kind = chance.randrange(8)
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(parent, list):
        parent.insert(chance.randrange(len(parent) + 1), copy.deepcopy(parent[key]))
    elif kind == 2 and isinstance(parent, dict):
        parent[chance.choice((*KEYS, *SURPRISES[:8], "\ud800", "x" * 1000))] = parent.pop(key)
    elif kind == 3:
        parent[key] = {chance.choice(KEYS): parent[key]} if chance.random() < 0.5 else [parent[key]]
    elif kind == 4:
        deep: Any = parent[key]
        for _level in range(chance.choice((3, 50, 400))):
            deep = [deep] if chance.random() < 0.5 else {"interfaces": deep}
        parent[key] = deep
    elif kind == 5:
        place = document
        for step in chance.choice(list(_paths(document))):
            place = place[step]
        parent[key] = copy.deepcopy(place)
    else:
        parent[key] = chance.choice(SURPRISES)


@pytest.mark.parametrize("part", range(PARTS))
def test_a_mutated_document_is_refused_or_works(part: int) -> None:
    with throwaway_host():
        empty = look()
        for number in range(DOCUMENTS // PARTS):
            seed = part * 1_000_000 + number
            document = mutated(random.Random(seed))  # noqa: S311
            _refused_or_works(document, empty, f"the document of seed {seed}: {str(document)[:2000]!r}")


def test_mutated_services_are_refused_or_planned() -> None:
    original = yaml.safe_load(SERVICES)
    planned = 0
    with throwaway_host():
        empty = look()
        for seed in range(DOCUMENTS // PARTS):
            document = mutated(random.Random(seed), original)  # noqa: S311
            what = f"the document of seed {seed}: {str(document)[:2000]!r}"
            options = {"topology": document, "state": "present", "lab": None, "adopt": False, "strict": False}
            try:
                wanted = _options.topology(options) if isinstance(document, dict) else _wanted(document)
                found = engine.run(wanted, check=True)
                planned += "service" in str([change.describe() for change in found.changes])
            except NslabError as error:
                if not str(error):
                    raise AssertionError(what) from error
            except Exception as error:
                raise AssertionError(what) from error
            count("mutated documents")
        assert not differences(empty, look())
    assert planned > DOCUMENTS // PARTS // 20


def _refused_or_works(document: Any, empty: dict[str, Any], what: str) -> None:
    options = {"topology": document, "state": "present", "lab": None, "adopt": False, "strict": False}
    try:
        # Ansible's own check of the type comes first.
        wanted = _options.topology(options) if isinstance(document, dict) else _wanted(document)
    except InvalidInput as error:
        if not str(error):
            raise AssertionError(what) from error
        count("mutated documents")
        return
    except Exception as error:
        raise AssertionError(what) from error
    try:
        engine.run(wanted, check=True)
        engine.run(wanted)
        assert engine.run(wanted).changes == [], what
        engine.run(_options.topology({**options, "topology": {"name": wanted.lab}, "state": "absent"}))
    except NslabError:
        pass
    except Exception as error:
        raise AssertionError(what) from error
    assert not differences(empty, look()), what
    count("mutated documents")


def _wanted(document: Any) -> Any:
    from ansible_collections.nslab.netns.plugins.module_utils._document import read_topology

    return read_topology(document).wanted


@pytest.mark.parametrize("text", ["name: x\nnamespaces: {a: {}, a: {interfaces: {}}}", "name: x\nname: y", "&a [*a]"])
def test_what_yaml_itself_makes_of_a_text_is_refused_or_works(text: str) -> None:
    """Of a key that stands twice YAML keeps the last; Ansible warns of it."""
    with throwaway_host():
        _refused_or_works(yaml.safe_load(text), look(), text)
