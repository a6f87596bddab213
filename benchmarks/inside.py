# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: T201
"""inside.py CONTESTANT LAB SIZE RUNS: build a lab, prove it, and print the times of each step as JSON.

run.py starts it in a throw-away host, one for each contestant. It removes the lab after each round.
"""

from __future__ import annotations

import copy
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import labs
from labs import Document, Lab

LIBRARY = Path(__file__).resolve().parent / "library"

# The kernel takes namespaces apart in the background, which the next step shall not have to wait for.
SETTLE_SECONDS = 0.2
CLEANUP_SECONDS = 30

Steps = dict[str, Callable[[], None]]
Times = dict[str, list[float]]


class Failed(Exception):
    """A contestant did not do what it is measured for."""


# The contestants. Each is the steps of one round, in order; the lab is gone after the last.


def engine(lab: Lab, _folder: Path) -> Steps:
    """The engine in this process, from a module's options to the verified result."""
    sys.path.insert(0, os.environ["ANSIBLE_COLLECTIONS_PATH"])
    rooms = "ansible_collections.nslab.netns.plugins.module_utils"
    run = importlib.import_module(f"{rooms}._engine").run
    read = importlib.import_module(f"{rooms}._options").topology

    def step(state: str, check: bool, changes: bool) -> Callable[[], None]:
        options = {
            "topology": copy.deepcopy(lab.document),
            "state": state,
            "adopt": False,
            "strict": False,
            "lab": None,
        }

        def call() -> None:
            if bool(run(read(options), check=check).changes) != changes:
                raise Failed(f"the engine found {'nothing' if changes else 'something'} to change")

        return call

    return {
        "check": step("present", check=True, changes=True),
        "create": step("present", check=False, changes=True),
        "second run": step("present", check=False, changes=False),
        "remove": step("absent", check=False, changes=True),
    }


def ip_batch(lab: Lab, folder: Path) -> Steps:
    document = lab.document
    create = _ip_batch_create(document)
    read = labs.ip_batch(labs.dumps(document), labs.sysctls(document, write=False), "-json")
    return {
        "create": _script(folder / "create", create),
        "second run": _script(folder / "read", read),
        "remove": _script(folder / "remove", labs.ip_batch(labs.removals(document))),
    }


def _ip_batch_create(document: Document) -> str:
    return labs.ip_batch(labs.calls(document), labs.sysctls(document, write=True), last=labs.last_calls(document))


def nft(lab: Lab, folder: Path) -> Steps:
    return _rules(folder, labs.nft(lab.document), "nft -f", "nft list table inet bench >/dev/null")


def iptables(lab: Lab, folder: Path) -> Steps:
    return _rules(folder, labs.iptables(lab.document), "iptables-legacy-restore", "iptables-legacy-save >/dev/null")


def _rules(folder: Path, rules: str, load: str, read: str) -> Steps:
    """A namespace whose rules a program loads from a file, all at once, and loads again."""
    (folder / "rules").write_text(rules, encoding="utf-8")
    apply = f"nsenter --net=/run/netns/r {load} {folder}/rules"
    return {
        "create": _script(folder / "create", f"set -e\nip netns add r\nip -n r link set lo up\n{apply}\n"),
        "second run": _script(folder / "again", f"set -e\nnsenter --net=/run/netns/r {read}\n{apply}\n"),
        "remove": _script(folder / "remove", "ip netns del r\n"),
    }


def shell(lab: Lab, folder: Path) -> Steps:
    create = labs.ip_commands(labs.calls(lab.document), labs.sysctls(lab.document, write=True))
    remove = labs.ip_commands(labs.removals(lab.document))
    return {
        "create": _script(folder / "create", "\n".join(["set -e", *create, ""])),
        "remove": _script(folder / "remove", "\n".join(["set -e", *remove, ""])),
    }


def ifstate(lab: Lab, folder: Path) -> Steps:
    (folder / "lab.yml").write_text(labs.ifstate(lab.document), encoding="utf-8")
    (folder / "nothing.yml").write_text(labs.IFSTATE_NOTHING, encoding="utf-8")
    apply = _program("ifstatecli", "--config", str(folder / "lab.yml"), "apply")
    remove = _program("ifstatecli", "--config", str(folder / "nothing.yml"), "apply")
    return {"create": apply, "second run": apply, "remove": remove}


def playbooks(lab: Lab, folder: Path) -> Steps:
    """Whole runs of ansible-playbook, one after the other in each round, so that they can be compared by round."""
    topology = {"name": "Build the lab", "nslab.netns.topology": {"topology": lab.document}}
    role = {"name": "Build the lab", "ansible.builtin.import_role": {"name": "nslab.netns.routed"}}
    commands = labs.ip_commands(labs.calls(lab.document), labs.sysctls(lab.document, write=True))
    tasks = [{"name": command, "ansible.builtin.command": command} for command in commands]
    remove = _script(folder / "remove", labs.ip_batch(labs.removals(lab.document)))
    return {
        "empty play": _play(folder, []),
        "a module that imports pyroute2": _play(folder, [{"name": "Import it", "pyroute2_only": {}}], "changed=0 "),
        "topology module, create": _play(folder, [topology], "changed=1 "),
        "topology module, second run": _play(folder, [topology], "changed=0 "),
        "remove 1": remove,
        "routed role, create": _play(folder, [role]),
        "remove 2": remove,
        f"{len(tasks)} command tasks, create": _play(folder, tasks, f"changed={len(tasks)} "),
        "remove": remove,
    }


def hub_playbooks(lab: Lab, folder: Path) -> Steps:
    """Whole runs for a large lab, each beside ip -batch of the same round."""
    file = folder / "hub.json"
    file.write_text(json.dumps(lab.document), encoding="utf-8")
    options = {"topology": f"{{{{ lookup('ansible.builtin.file', '{file}') | from_json }}}}"}
    topology = {"name": "Build the lab", "nslab.netns.topology": options}
    early = [*labs.calls(lab.document), *labs.last_calls(lab.document)]
    remove = _script(folder / "remove", labs.ip_batch(labs.removals(lab.document)))
    return {
        "empty play": _play(folder, []),
        "ip -batch, create": _script(folder / "create", _ip_batch_create(lab.document)),
        "remove 1": remove,
        "ip -batch, create, bridge up early": _script(folder / "early", labs.ip_batch(early)),
        "remove 2": remove,
        "a module that takes the document": _play(folder, [{"name": "Take it", "document_only": options}]),
        "topology module, create": _play(folder, [topology], "changed=1 "),
        "topology module, second run": _play(folder, [topology], "changed=0 "),
        "remove": remove,
    }


def pings(lab: Lab, folder: Path) -> Steps:
    """The same module for as many hosts, on the machine and inside each namespace; and what it takes to get inside."""
    names = [name for name in lab.document["namespaces"] if name != labs.HOST]
    document, inside, beside = folder / "lab.json", folder / "lab.netns.yml", folder / "beside.yml"
    document.write_text(json.dumps(lab.document), encoding="utf-8")
    inside.write_text(json.dumps({"plugin": "nslab.netns.namespaces", "topologies": [str(document)]}), encoding="utf-8")
    connection = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    hosts = {"all": {"hosts": dict.fromkeys(names), "vars": connection}}
    beside.write_text(json.dumps(hosts), encoding="utf-8")
    sys.path.insert(0, os.environ["ANSIBLE_COLLECTIONS_PATH"])
    ours = importlib.import_module("ansible_collections.nslab.netns.plugins.module_utils._entering").inside

    def ping(inventory: Path, *options: str) -> Callable[[], None]:
        def call() -> None:
            said = _run(
                "ansible", "all", "--inventory", str(inventory), "--module-name", "ansible.builtin.ping", *options
            )
            if said.count("pong") != len(names):
                raise Failed(f"not all have answered:\n{said}")

        return call

    def each(command: Callable[[str], list[str]]) -> Callable[[], None]:
        def call() -> None:
            for name in names:
                subprocess.run(command(name), check=True)

        return call

    return {
        "create": _script(folder / "create", _ip_batch_create(lab.document)),
        "ping, on the machine": ping(beside),
        "ping, inside": ping(inside),
        "ping, inside, the machine's /sys": ping(inside, "--extra-vars", "ansible_netns_sysfs=false"),
        "true, nsenter": each(lambda name: ["nsenter", f"--net=/run/netns/{name}", "true"]),
        "true, inside, the machine's /sys": each(lambda name: ours(name, ["true"], sysfs=False)),
        "true, inside": each(lambda name: ours(name, ["true"])),
        "true, ip netns exec": each(lambda name: ["ip", "netns", "exec", name, "true"]),
        "remove": _script(folder / "remove", labs.ip_batch(labs.removals(lab.document))),
    }


def _play(folder: Path, tasks: list[Document], recap: str = "") -> Callable[[], None]:
    book = folder / f"{len(list(folder.iterdir()))}.yml"
    book.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]), encoding="utf-8")

    def call() -> None:
        # The implicit localhost, which is the same Python and need not be searched for one.
        said = _run("ansible-playbook", "--inventory", os.devnull, str(book))
        if recap not in said:
            raise Failed(f"the play did not end with {recap}\n{said}")

    return call


CONTESTANTS = {
    step.__name__: step for step in (engine, ip_batch, nft, iptables, shell, ifstate, playbooks, hub_playbooks, pings)
}


# How they are measured


def measure(steps: Steps, lab: Lab, runs: int) -> Times:
    """One round that is not timed, which warms everything up and proves each new lab; then the timed ones."""
    times: Times = {name: [] for name in steps}
    for run in range(-1, runs):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seconds = time.perf_counter() - start
            if run >= 0:
                times[name].append(seconds)
            elif "create" in name:
                _prove(lab)
            if name.startswith("remove"):
                _settle()
    return times


def _prove(lab: Lab) -> None:
    try:
        _run("sh", "-c", lab.proof)
    except Failed as error:
        raise Failed(f"the lab was not built:\n{error}") from error


def _settle() -> None:
    """Wait until the host is empty."""
    if any(Path("/run/netns").iterdir()):
        raise Failed(f"not everything was removed: {sorted(os.listdir('/run/netns'))}")
    deadline = time.monotonic() + CLEANUP_SECONDS
    while os.listdir("/sys/class/net") != ["lo"]:
        if time.monotonic() > deadline:
            raise Failed(f"not everything was removed: {sorted(os.listdir('/sys/class/net'))}")
        time.sleep(0.02)
    time.sleep(SETTLE_SECONDS)


def _script(path: Path, text: str) -> Callable[[], None]:
    path.write_text(text, encoding="utf-8")
    return _program("sh", str(path))


def _program(*command: str) -> Callable[[], None]:
    def call() -> None:
        _run(*command)

    return call


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise Failed(f"{' '.join(command)}\nfailed with exit status {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def main(contestant: str, lab_name: str, size: str, runs: str) -> None:
    lab = {
        "routed": labs.routed,
        "fan": lambda: labs.fan(int(size)),
        "hub": lambda: labs.hub(int(size)),
        "nftables rules": lambda: labs.rules(int(size), "nftables"),
        "iptables rules": lambda: labs.rules(int(size), "iptables"),
    }[lab_name]()
    # Nobody's own settings.
    for name in [name for name in os.environ if name.startswith("ANSIBLE_") and name != "ANSIBLE_COLLECTIONS_PATH"]:
        del os.environ[name]
    os.environ["ANSIBLE_LIBRARY"] = str(LIBRARY)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        print(json.dumps(measure(CONTESTANTS[contestant](lab, Path(folder)), lab, int(runs))))
        os.chdir("/")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Failed as error:
        sys.exit(f"{sys.argv[1]}: {error}")
