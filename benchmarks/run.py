# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: T201
"""How long the collection takes to build a lab, beside others who build the same one, in one run on one machine.

`make bench` runs this. Everything is built in throw-away hosts. README.md explains each line of the output.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

# What is promised of the routed lab, in seconds.
PLAYBOOK_MORE_THAN_EMPTY = 1.0
ENGINE_CREATE = 0.060
ENGINE_SECOND_RUN = 0.025

# What is promised of the hub through a whole playbook: creating as a multiple of ip -batch, and running again as one of
# creating.
HUB_CREATE = 0.8
HUB_SECOND_RUN = 0.5

# What is promised of a module inside a namespace, as a multiple of the same one on the machine.
INSIDE = 1.3

MOST_NAMESPACES = 4000
# How many ports the kernel lets a bridge have.
MOST_PORTS = 1023

PROGRAMS = {
    "ansible-playbook": "",
    "ifstatecli": "",
    "ip": "iproute2",
    "iptables-legacy-restore": "iptables",
    "nft": "nftables",
    "nsenter": "util-linux",
    "ping": "iputils-ping",
    "sysctl": "procps",
    "unshare": "util-linux",
}
LIBRARIES = ("ansible", "iptc", "pyroute2", "yaml")

LABELS = {
    "engine": "engine in-process",
    "ip_batch": "ip -batch",
    "shell": "shell script of ip",
    "ifstate": "ifstate",
    "nft": "nft -f",
    "iptables": "iptables-restore",
}

Times = dict[str, list[float]]


class Failed(Exception):
    """The text says what is missing or went wrong."""


class Promise(NamedTuple):
    name: str
    measured: float
    limit: float
    unit: str  # s: seconds; x: a ratio


class Runs(NamedTuple):
    fast: int
    slow: int
    playbooks: int


FULL = Runs(fast=15, slow=5, playbooks=3)
QUICK = Runs(fast=5, slow=1, playbooks=1)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks/run.py", description=__doc__)
    parser.add_argument(
        "--namespaces",
        type=int,
        default=None,
        metavar="N",
        help="size of the big lab (100; quick: 20); the hub has five times as many",
    )
    parser.add_argument("--only", choices=PARTS, metavar="PART", help=f"one of {', '.join(PARTS)}")
    parser.add_argument(
        "--quick", action="store_true", help="few runs: shows that all works, and roughly how long it takes"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single time to a file as well")
    options = parser.parse_args()
    runs = QUICK if options.quick else FULL
    size = (20 if options.quick else 100) if options.namespaces is None else options.namespaces
    if not 1 <= size <= MOST_NAMESPACES:
        parser.error(f"--namespaces is a number from 1 to {MOST_NAMESPACES}")
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    require()

    facts = machine()
    print("\n".join(f"{name + ':':14}{fact}" for name, fact in facts.items()), flush=True)

    everything: dict[str, Any] = {"machine": facts}
    promises: list[Promise] = []
    for name, part in PARTS.items():
        if options.only in (None, name):
            everything[name], more = part(runs, size, options.quick)
            promises += more
    print(f"\nload: {os.getloadavg()[0]:.1f} at the end; what else ran meanwhile makes all of this slower")
    everything["promises"] = judge(promises)

    if options.json:
        options.json.write_text(json.dumps(everything, indent=2) + "\n", encoding="utf-8")


def routed(runs: Runs, size: int, _quick: bool) -> tuple[Any, list[Promise]]:
    times = {
        "engine": measure("engine", "routed", size, runs.fast),
        "ip_batch": measure("ip_batch", "routed", size, runs.fast),
        "shell": measure("shell", "routed", size, runs.fast),
        "ifstate": measure("ifstate", "routed", size, runs.slow),
    }
    show("The routed lab: 3 namespaces, 2 veths, 6 addresses, 4 routes, 1 sysctl", times)
    plays = measure("playbooks", "routed", size, runs.playbooks)
    show_plays(plays)
    more = more_than_empty(plays, "topology module, create")
    engine = times["engine"]
    return {**times, "playbooks": plays}, [
        Promise("routed lab: playbook, topology create, more than an empty play", more, PLAYBOOK_MORE_THAN_EMPTY, "s"),
        Promise("routed lab: engine in-process, create", statistics.median(engine["create"]), ENGINE_CREATE, "s"),
        Promise(
            "routed lab: engine in-process, second run", statistics.median(engine["second run"]), ENGINE_SECOND_RUN, "s"
        ),
    ]


def fan(runs: Runs, size: int, _quick: bool) -> tuple[Any, list[Promise]]:
    times = {name: measure(name, "fan", size, runs.slow) for name in ("engine", "ip_batch", "shell")}
    show(f"{size} namespaces, each with a veth to the host, an address, a default route", times)
    return {"namespaces": size, **times}, []


def hub(runs: Runs, size: int, _quick: bool) -> tuple[Any, list[Promise]]:
    size = min(5 * size, MOST_PORTS)
    times = measure("hub_playbooks", "hub", size, runs.playbooks)
    batch, create, again = (
        statistics.median(times[name])
        for name in ("ip -batch, create", "topology module, create", "topology module, second run")
    )
    print(f"\n{size} namespaces on one bridge, each with an address and a default route; seconds")
    print(f"{'':36}{'median':>9}{'fastest':>9}{'runs':>6}{'x ip -batch':>13}{'x create':>10}")
    for name, samples in times.items():
        if not name.startswith("remove"):
            median = statistics.median(samples)
            columns = f"{median:9.2f}{min(samples):9.2f}{len(samples):6}{median / batch:13.2f}{median / create:10.2f}"
            print(f"{name:36}{columns}", flush=True)
    return {"namespaces": size, **times}, [
        Promise("hub: playbook, topology create, of ip -batch", create / batch, HUB_CREATE, "x"),
        Promise("hub: playbook, second run, of the first", again / create, HUB_SECOND_RUN, "x"),
    ]


def rules(runs: Runs, _size: int, quick: bool) -> tuple[Any, list[Promise]]:
    size = 100 if quick else 1000
    found = {}
    for backend, peer in (("nftables", "nft"), ("iptables", "iptables")):
        lab = f"{backend} rules"
        times = {"engine": measure("engine", lab, size, runs.slow), peer: measure(peer, lab, size, runs.slow)}
        show(f"{size} rules of source address translation in one namespace, in {backend}", times, peer)
        found[backend] = times
    return {"rules": size, **found}, []


def inside(runs: Runs, size: int, _quick: bool) -> tuple[Any, list[Promise]]:
    times = measure("pings", "fan", size, runs.playbooks)
    medians = {name: statistics.median(samples) for name, samples in times.items()}
    print(f"\nansible.builtin.ping for {size} hosts, and `true` in {size} namespaces by turns; milliseconds for each")
    print(f"{'':36}{'median':>9}{'fastest':>9}{'runs':>6}{'x plain':>9}{'x ip netns exec':>17}")
    plain = {"ping": "ping, on the machine", "true": "true, nsenter"}
    for name, samples in times.items():
        kind = name.partition(",")[0]
        if kind in plain:
            columns = f"{medians[name] / size * 1000:9.2f}{min(samples) / size * 1000:9.2f}{len(samples):6}"
            columns += f"{medians[name] / medians[plain[kind]]:9.2f}"
            columns += f"{medians[name] / medians['true, ip netns exec']:17.2f}" if kind == "true" else ""
            print(f"{name:36}{columns}", flush=True)
    ratio = medians["ping, inside"] / medians["ping, on the machine"]
    return {"namespaces": size, **times}, [
        Promise(f"ping inside {size} namespaces, of the same on the machine", ratio, INSIDE, "x")
    ]


#: What can be asked for by itself.
PARTS = {"routed": routed, "fan": fan, "hub": hub, "rules": rules, "inside": inside}


def require() -> None:
    """Raise Failed for all that is missing, at once."""
    missing = []
    for program, package in PROGRAMS.items():
        if shutil.which(program) is None:
            missing.append(f"the command {program}" + (f" (Debian package {package})" if package else ""))
    missing += [f"the Python library {name}" for name in LIBRARIES if importlib.util.find_spec(name) is None]
    tree = os.environ.get("ANSIBLE_COLLECTIONS_PATH", "")
    if not tree or not Path(tree, "ansible_collections/nslab/netns").is_dir():
        missing.append("the collection in ANSIBLE_COLLECTIONS_PATH (one folder)")
    if missing:
        raise Failed("These are missing:\n  " + "\n  ".join(missing) + "\n`make bench` brings everything that pip can.")


def machine() -> dict[str, Any]:
    version = importlib.metadata.version
    iproute2 = subprocess.run(["ip", "-V"], capture_output=True, text=True, check=False).stdout.split()
    return {
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "load": f"{os.getloadavg()[0]:.1f} at the start",
        "python": platform.python_version(),
        "pyroute2": version("pyroute2"),
        "ansible-core": version("ansible-core"),
        "ifstate": version("ifstate"),
        "iproute2": iproute2[2].strip(",").replace("iproute2-", ""),
    }


def measure(contestant: str, lab: str, size: int, runs: int) -> Times:
    """The times of a contestant, in a throw-away host of its own."""
    if sys.stderr.isatty():
        print(f"measuring: {contestant}, {lab}", end="\033[K\r", file=sys.stderr, flush=True)
    inside = [sys.executable, str(HERE / "inside.py"), contestant, lab, str(size), str(runs)]
    command = [str(ROOT / "tools/throwaway-host.sh"), *inside]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(done.stderr.strip() or f"{contestant} failed with exit status {done.returncode}")
    times: Times = json.loads(done.stdout)
    return times


# The tables


def show(title: str, contestants: dict[str, Times], peer: str = "ip_batch") -> None:
    beside = f"x {LABELS[peer]}"
    print(f"\n{title}; milliseconds\n{'':36}{'median':>9}{'fastest':>9}{'runs':>6}{'x engine':>10}{beside:>20}")
    for contestant, times in contestants.items():
        for step, samples in times.items():
            median = statistics.median(samples)
            columns = f"{median * 1000:9.1f}{min(samples) * 1000:9.1f}{len(samples):6}"
            for other, width in (("engine", 10), (peer, 20)):
                reference = contestants[other].get(step)
                columns += f"{median / statistics.median(reference):{width}.2f}" if reference else ""
            print(f"{LABELS[contestant]:20}{step:16}{columns}", flush=True)


def show_plays(plays: Times) -> None:
    runs = len(plays["empty play"])
    print(f"\nWhole ansible-playbook, the routed lab; seconds, median of {runs} rounds")
    print(f"{'':36}{'median':>9}{'fastest':>9}{'more than empty':>18}")
    for name, samples in plays.items():
        if not name.startswith("remove"):
            columns = f"{statistics.median(samples):9.2f}{min(samples):9.2f}{more_than_empty(plays, name):18.2f}"
            print(f"{name:36}{columns}", flush=True)


def more_than_empty(plays: Times, name: str) -> float:
    """The median of what a play took more than the empty one of the same round."""
    return statistics.median(time - empty for time, empty in zip(plays[name], plays["empty play"]))


def judge(promises: list[Promise]) -> list[dict[str, Any]]:
    if promises:
        print("\nThe promises")
    found = []
    for promise in promises:
        kept = promise.measured <= promise.limit
        found.append({**promise._asdict(), "kept": kept})
        measured, limit = (
            f"{value:.2f}" if promise.unit == "x" else f"{value * 1000:.0f} ms"
            for value in (promise.measured, promise.limit)
        )
        print(f"{promise.name:64}{measured:>8} of {limit}: {'kept' if kept else 'not kept'}", flush=True)
    return found


if __name__ == "__main__":
    try:
        main()
    except (Failed, OSError) as error:
        sys.exit(f"{error}")
    except KeyboardInterrupt:
        sys.exit(130)
