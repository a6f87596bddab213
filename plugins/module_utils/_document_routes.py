# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Routes and sysctls: from what the user wrote to the model.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ._model import DEFAULT_METRIC_V6, LOCAL_TABLE, MAIN_TABLE, MIN_MTU, NextHop, Route, WantedRoute, WantedSysctl
from ._reader import Reader, is_link_local, show
from ._sysctl_keys import key_of, normal

_ROUTE_KEYS = ("to", "via", "dev", "src", "metric", "table", "scope", "onlink", "mtu", "type", "nexthops")
_NEXTHOP_KEYS = ("via", "dev", "weight", "onlink")
ROUTE_TYPES = ("unicast", "blackhole", "unreachable", "prohibit")
_TABLES = {"main": MAIN_TABLE, "default": 253}
_MAX_U32 = 2**32 - 1
#: A larger one is cut to this (fib_metrics.c: 65535 - 15).
_MAX_ROUTE_MTU = 65520


def read_routes(reader: Reader, value: Any, path: str, only_keys: bool = False) -> list[WantedRoute]:
    """Routes in the words of ``ip route``. ``only_keys``: routes that shall go, of which ``to`` says enough."""
    found: list[WantedRoute] = []
    seen: dict[Any, str] = {}
    for i, item in enumerate(reader.sequence(value, path)):
        at = f"{path}[{i}]"
        before = len(reader.problems)
        route = _route(reader, item, at, only_keys)
        if route is None or len(reader.problems) > before:
            continue
        if route.key in seen:
            reader.problem(
                f"{at}.to",
                f"{item['to']!r} has the same destination, table and metric as {seen[route.key]}; "
                "give one of them another 'metric', or make one route of both with 'nexthops'",
            )
            continue
        seen[route.key] = at
        found.append(WantedRoute(route, at))
    return found


def _route(reader: Reader, value: Any, path: str, only_keys: bool) -> Route | None:
    if not isinstance(value, Mapping):
        reader.problem(path, f"{show(value)} is no route such as {{to: default, via: 10.0.0.1}}")
        return None
    body = {key: item for key, item in reader.mapping(value, path, _ROUTE_KEYS).items() if item is not None}
    kind = reader.choice(body["type"], f"{path}.type", ROUTE_TYPES) if "type" in body else "unicast"
    via = reader.ip(body["via"], f"{path}.via", " and say it in 'dev'") if "via" in body else ""
    dev = reader.name_of_interface(body["dev"], f"{path}.dev") if "dev" in body else ""
    src = reader.ip(body["src"], f"{path}.src") if "src" in body else ""
    hops = _nexthops(reader, body.get("nexthops"), f"{path}.nexthops") if "nexthops" in body else ()
    to = _destination(reader, body, path, [via, src, *(hop.via for hop in hops)])
    if not to:
        return None
    family = 6 if ":" in to else 4
    table = _table(reader, body["table"], f"{path}.table") if "table" in body else MAIN_TABLE
    metric = reader.integer(body["metric"], f"{path}.metric", 0, _MAX_U32) if "metric" in body else 0
    onlink = reader.boolean(body["onlink"], f"{path}.onlink") if "onlink" in body else False
    mtu = reader.integer(body["mtu"], f"{path}.mtu", MIN_MTU, _MAX_ROUTE_MTU) if "mtu" in body else 0
    if not only_keys:
        _check_ways(reader, path, kind, body, via, onlink)
    for key, address in (("via", via), ("src", src)):
        if address and (":" in address) != (family == 6):
            reader.problem(f"{path}.{key}", f"{address!r} is of another address family than the destination {to}")
    for i, hop in enumerate(hops):
        if hop.via and (":" in hop.via) != (family == 6):
            at = f"{path}.nexthops[{i}].via"
            reader.problem(at, f"{hop.via!r} is of another address family than the destination {to}")
    route = Route(
        to, kind, via, dev, src, metric or (DEFAULT_METRIC_V6 if family == 6 else 0), table, "global", onlink, mtu, hops
    )
    scope = route.default_scope
    if "scope" in body:
        scope = reader.choice(body["scope"], f"{path}.scope", ("global", "link", "host"))
        if family == 6 and scope != "global":
            reader.problem(f"{path}.scope", "IPv6 routes have no scope; leave it out")
        if scope != "global" and (via or hops):
            reader.problem(f"{path}.scope", f"a route through a gateway has the scope global, not {scope!r}")
    return route._replace(scope=scope)


def _destination(reader: Reader, body: dict[str, Any], path: str, others: list[str]) -> str:
    at = f"{path}.to"
    if "to" not in body:
        reader.problem(at, "is missing: the destination of the route, a prefix or 'default'")
        return ""
    text = reader.string(body["to"], at)
    if text == "default":
        family6 = any(":" in other for other in others)
        return "::/0" if family6 else "0.0.0.0/0"
    if not isinstance(body["to"], str):
        return ""
    if "%" in text:
        reader.problem(at, f"{text!r} names an interface; leave out {text[text.index('%') :]!r} and say it in 'dev'")
        return ""
    return reader.prefix(text, at, "destination: a prefix such as 10.0.0.0/24, an address, or 'default'")


def _check_ways(reader: Reader, path: str, kind: str, body: dict[str, Any], via: str, onlink: bool) -> None:
    ways = [key for key in ("via", "dev", "nexthops") if key in body]
    if kind != "unicast":
        if ways:
            reader.problem(f"{path}.{ways[0]}", f"a route of type {kind!r} leads nowhere; leave {ways[0]!r} out")
        return
    if "nexthops" in ways and len(ways) > 1:
        reader.problem(f"{path}.nexthops", "stands beside 'via' or 'dev'; say either those or 'nexthops'")
    if not ways:
        reader.problem(path, "says no way: 'via', 'dev' or 'nexthops' is missing, or a 'type' such as blackhole")
    if onlink and not ("via" in ways and "dev" in ways):
        reader.problem(f"{path}.onlink", "needs 'via' and 'dev': it says that the gateway is on that link")
    if "dev" not in ways and is_link_local(via):
        reader.problem(f"{path}.dev", f"is missing: the link-local gateway {via} is on every link; say which one")


def _nexthops(reader: Reader, value: Any, path: str) -> tuple[NextHop, ...]:
    hops: list[NextHop] = []
    items = reader.sequence(value, path)
    if isinstance(value, (list, tuple)) and len(items) < 2:
        reader.problem(path, "has to name two ways or more; for one, use 'via' and 'dev'")
    for i, item in enumerate(items):
        at = f"{path}[{i}]"
        if not isinstance(item, Mapping):
            reader.problem(at, f"{show(item)} is no way such as {{via: 10.0.0.1, weight: 2}}")
            continue
        body = {key: entry for key, entry in reader.mapping(item, at, _NEXTHOP_KEYS).items() if entry is not None}
        hop = NextHop(
            reader.ip(body["via"], f"{at}.via", " and say it in 'dev'") if "via" in body else "",
            reader.name_of_interface(body["dev"], f"{at}.dev") if "dev" in body else "",
            reader.integer(body["weight"], f"{at}.weight", 1, 256) if "weight" in body else 1,
            reader.boolean(body["onlink"], f"{at}.onlink") if "onlink" in body else False,
        )
        if not hop.via and not hop.dev:
            reader.problem(at, "says no way: 'via' or 'dev' is missing")
        if hop.onlink and not (hop.via and hop.dev):
            reader.problem(f"{at}.onlink", "needs 'via' and 'dev': it says that the gateway is on that link")
        if any((hop.via, hop.dev) == (other.via, other.dev) for other in hops):
            reader.problem(at, "stands here twice; use 'weight' to give a way a larger share")
        hops.append(hop)
    return tuple(sorted(hops))


def _table(reader: Reader, value: Any, path: str) -> int:
    if isinstance(value, str) and value in _TABLES:
        return _TABLES[value]
    if value in (LOCAL_TABLE, str(LOCAL_TABLE), "local"):
        reader.problem(path, "the table local is the kernel's own; use main or a number")
        return MAIN_TABLE
    return reader.integer(value, path, 1, _MAX_U32)


# --- sysctls ---------------------------------------------------------------------------------------------------------


def read_sysctls(reader: Reader, value: Any, path: str) -> dict[str, WantedSysctl]:
    """Sysctls by key, in any spelling that sysctl(8) takes."""
    found: dict[str, WantedSysctl] = {}
    for name, item in reader.mapping(value, path).items():
        at = f"{path}.{name}" if "." not in name else f"{path}[{name!r}]"
        key = key_of(name)
        if not re.match(r"net/[^/\s]+(/[^/\s]+)+\Z", key) or "/../" in key or "/./" in key:
            reader.problem(
                at, f"{name!r} is no sysctl of the network: it begins with 'net.', such as net.ipv4.ip_forward"
            )
        elif key in found:
            reader.problem(at, f"{name!r} is another spelling of {found[key].path}")
        elif isinstance(item, bool):
            found[key] = WantedSysctl(key, str(int(item)), at)
        elif isinstance(item, str) and not (normal(item).isascii() and normal(item).isprintable()):
            reader.problem(at, f"{show(item)} is no value for a sysctl: it has characters that none has")
        elif isinstance(item, (int, str)) and normal(str(item)):
            found[key] = WantedSysctl(key, normal(str(item)), at)
        else:
            reader.problem(at, f"{show(item)} is no value for a sysctl: a number, a string, true or false")
    _check_forwarding(reader, found)
    return found


def _check_forwarding(reader: Reader, sysctls: dict[str, WantedSysctl]) -> None:
    """Two names of one switch (devinet_sysctl_forward()) must not contradict each other."""
    short, long = (sysctls.get(key) for key in ("net/ipv4/ip_forward", "net/ipv4/conf/all/forwarding"))
    if short and long and short.value != long.value:
        reader.problem(long.path, f"{long.value!r} contradicts {short.path}, which is the same switch")
