# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Namespaces as hosts: what is run inside them, by any module, over any connection."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from controller import ROOT, Controller, Play, Run
from remote import OPERATOR, PASSWORD, managed
from throwaway import eventually, ip, named_namespaces, own_etc, snapshot, within

ROUTED = yaml.safe_load((ROOT / "playbooks/topologies/routed.yml").read_text())

RunPlays = Callable[..., Run]


def lab(name: str = "routed", **nodes: Any) -> dict[str, Any]:
    """The routed lab, with more said of some of its namespaces."""
    namespaces = {node: {**body, **nodes.get(node, {})} for node, body in ROUTED["namespaces"].items()}
    return {**ROUTED, "name": name, "namespaces": namespaces}


def inventory(folder: Path, document: Any, name: str = "lab", **options: Any) -> str:
    """An inventory of the namespaces of a document; the path of its file."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.yml").write_text(document if isinstance(document, str) else json.dumps(document))
    file = folder / f"{name}.netns.yml"
    file.write_text(json.dumps({"plugin": "nslab.netns.namespaces", "topologies": [f"{name}.yml"], **options}))
    return str(file)


def live(folder: Path, **options: Any) -> str:
    """An inventory of the namespaces that stand; the path of its file."""
    file = folder / "live.netns.yml"
    file.write_text(json.dumps({"plugin": "nslab.netns.namespaces", "live": True, **options}))
    return str(file)


def build(document: Any, hosts: str = "localhost", become: bool = False) -> Play:
    task = {"nslab.netns.topology": {"topology": document}}
    return {"hosts": hosts, "gather_facts": False, "become": become, "tasks": [task]}


def play(hosts: str, *tasks: Any, facts: bool = False) -> Play:
    return {"hosts": hosts, "gather_facts": facts, "tasks": list(tasks)}


def that(*facts: str) -> dict[str, Any]:
    return {"ansible.builtin.assert": {"that": list(facts)}}


@contextlib.contextmanager
def connection(kind: str, ansible: Controller, folder: Path) -> Iterator[tuple[str, RunPlays]]:
    """The machine's name in the inventory, and what runs plays that manage it."""
    if kind == "local":
        yield "localhost", ansible.run
        return
    user = OPERATOR if "sudo" in kind else "root"
    with managed(ansible, folder / "ssh", user) as remote:

        def run(plays: list[Play], *options: str, **variables: Any) -> Run:
            if user == OPERATOR:
                variables.update(ansible_become_password=PASSWORD, ansible_remote_tmp=f"{folder}/ssh/home/.ansible")
            return remote.run_plays(plays, *options, **variables)

        yield "managed", run


SERVER = """
import http.server, sys
with http.server.ThreadingHTTPServer(("1.1.1.1", 80), http.server.SimpleHTTPRequestHandler) as server:
    server.serve_forever()
"""


@pytest.mark.parametrize(
    "kind",
    [
        "local",
        "ssh and sudo",
        *(pytest.param(kind, marks=pytest.mark.once) for kind in ("ssh", "ssh and sudo, without pipelining")),
    ],
)
def test_a_play_of_builtin_modules(ansible: Controller, tmp_path: Path, kind: str) -> None:
    """Facts of the inside and nothing else; a file that goes from one namespace to another over HTTP."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    tmp_path.chmod(0o755)
    ip("link", "add", "of-the-host", "type", "veth", "peer", "name", "of-the-host-too")
    with connection(kind, ansible, tmp_path) as (machine, run):
        document = lab(server={"hostname": "server.example"})
        hosts = inventory(tmp_path / "inventory", document, machines=[machine])
        served = {
            "ansible.builtin.command": {"argv": [sys.executable, "-c", SERVER], "chdir": str(shared)},
            "async": 120,
            "poll": 0,
        }
        plays = [
            build(document, machine, become=True),
            play("lab_routed", facts=True),
            play(
                "server",
                that(
                    "ansible_facts.interfaces | sort == ['lo', 'vethS']",
                    "ansible_facts.nodename == 'server.example'",
                    "ansible_facts.default_ipv4.address == '10.0.1.2'",
                    "ansible_facts.default_ipv4.gateway == '10.0.1.1'",
                    "ansible_facts.all_ipv4_addresses | sort == ['1.1.1.1', '10.0.1.2']",
                ),
                {"ansible.builtin.copy": {"content": "from the server\n", "dest": f"{shared}/page", "mode": "0644"}},
                served,
            ),
            play(
                "client",
                {"ansible.builtin.wait_for": {"host": "1.1.1.1", "port": 80, "timeout": 30}},
                {"ansible.builtin.uri": {"url": "http://1.1.1.1/page", "return_content": True}, "register": "page"},
                {"ansible.builtin.get_url": {"url": "http://1.1.1.1/page", "dest": f"{shared}/got", "mode": "0644"}},
                that("page.content == 'from the server\n'", "ansible_facts.interfaces | sort == ['lo', 'vethC']"),
                that("ansible_facts.nodename != 'server.example'"),
            ),
            play(
                "router",
                {"ansible.builtin.command": "cat /proc/sys/net/ipv4/ip_forward", "register": "forward"},
                {"ansible.builtin.raw": "id -un; ls -1 /sys/class/net", "register": "who", "become_user": "nobody"},
                that(
                    "forward.stdout == '1'",
                    "who.stdout_lines[-4:] == ['nobody', 'lo', 'veth-cli', 'veth-srv']",
                    "ansible_facts.interfaces | length == 3",
                ),
            ),
        ]
        pipelining = "pipelining" not in kind
        run(plays, "--inventory", hosts, ansible_pipelining=pipelining).succeeded()
    assert (shared / "got").read_text() == "from the server\n"


def test_two_services_on_port_80(ansible: Controller, tmp_path: Path) -> None:
    """Each namespace has its own ports; what is asked for in one is not seen in the other."""
    hosts = inventory(tmp_path / "inventory", lab())
    program = "import socket; s = socket.create_server(('', 80)); [s.accept()[0].sendall(b'{}') for _ in range(9)]"
    serve = {
        "ansible.builtin.command": {"argv": [sys.executable, "-c", program.replace("{}", "{{ inventory_hostname }}")]},
        "async": 60,
        "poll": 0,
    }
    ask = {
        "ansible.builtin.command": {
            "argv": [
                sys.executable,
                "-c",
                "import socket, sys; s = socket.create_connection((sys.argv[1], 80), 5); print(s.recv(99).decode())",
                "{{ item }}",
            ]
        },
        "loop": ["1.1.1.1", "2.2.2.2"],
        "register": "answers",
    }
    ready = {"ansible.builtin.wait_for": {"port": 80, "timeout": 20}}
    run = ansible.run(
        [
            build(lab()),
            play("server:client", serve, ready),
            play("router", ask, that("answers.results | map(attribute='stdout') | list == ['server', 'client']")),
        ],
        "--inventory",
        hosts,
    )
    run.succeeded()


def test_files_of_a_namespace_are_in_the_place_of_the_hosts(ansible: Controller, tmp_path: Path) -> None:
    """As with `ip netns exec`: /etc/netns/NAME, and /sys; nothing of it is mounted where others can see it."""
    own_etc(tmp_path)
    folder = Path("/etc/netns/server")
    folder.mkdir(parents=True)
    (folder / "resolv.conf").write_text("nameserver 192.0.2.53\n")
    hosts = inventory(tmp_path / "inventory", lab())
    before = snapshot()["mounts"]
    look = {
        "ansible.builtin.shell": "cat /etc/resolv.conf; ls /sys/class/net; cat /proc/self/mountinfo | wc -l",
        "register": "found",
    }
    run = ansible.run(
        [
            build(lab()),
            play("server", look, that("found.stdout_lines[:3] == ['nameserver 192.0.2.53', 'lo', 'vethS']")),
            play("client", look, that("'192.0.2.53' not in found.stdout", "'vethC' in found.stdout_lines")),
        ],
        "--inventory",
        hosts,
    )
    run.succeeded()
    assert [mount for mount in snapshot()["mounts"] if not mount.startswith("/run/netns")] == before


def test_without_a_sysfs_of_its_own_nothing_is_mounted(ansible: Controller, tmp_path: Path) -> None:
    hosts = inventory(tmp_path / "inventory", lab())
    look = {"ansible.builtin.command": "readlink /proc/self/ns/mnt /proc/self/ns/net", "register": "found"}
    run = ansible.run(
        [build(lab()), play("server", {**look, "vars": {"ansible_netns_sysfs": False}}, look)],
        "--inventory",
        hosts,
        "-v",
    )
    run.succeeded()
    assert within(None, "readlink", "/proc/self/ns/mnt").strip() in run.stdout
    assert run.stdout.count(within("server", "readlink", "/proc/self/ns/net").strip()) >= 2


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"ansible_netns_name": "nowhere"}, "nslab.netns: there is no namespace nowhere on this host"),
        ({"ansible_netns_name": "../x"}, "'../x' is no name for a namespace"),
        ({"ansible_netns_name": "a;reboot"}, "'a;reboot' is no name for a namespace"),
        ({}, "netns_name"),
    ],
    ids=["missing", "a path", "a command", "none"],
)
def test_a_namespace_that_is_not_there(ansible: Controller, variables: dict[str, str], words: str) -> None:
    task = {"ansible.builtin.ping": {}, "become": True, "become_method": "nslab.netns.netns", "vars": variables}
    before = snapshot()
    assert words in ansible.run([play("localhost", task)]).failed().words
    assert snapshot() == before


def test_a_namespace_that_goes_while_tasks_run_in_it(ansible: Controller, tmp_path: Path) -> None:
    """The task that runs ends well, as the namespace lives as long as it does; the next one is told."""
    hosts = inventory(tmp_path / "inventory", lab())
    task = {"ansible.builtin.shell": "umount /run/netns/server; rm /run/netns/server; ls /sys/class/net"}
    run = ansible.run([build(lab()), play("server", task, {"ansible.builtin.ping": {}})], "--inventory", hosts, "-v")
    assert "there is no namespace server on this host" in run.failed().words
    assert "vethS" in run.stdout
    assert "server" not in named_namespaces()


def test_a_shell_for_people(ansible: Controller) -> None:
    ansible.run([build(lab())]).succeeded()
    shell = [sys.executable, str(ROOT / "tools/shell.py")]

    def say(*words: str) -> tuple[int, str]:
        done = subprocess.run([*shell, *words], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    assert say("server", "ls /sys/class/net") == (0, "lo\nvethS\n")
    assert say("server", "sh -c 'exit 7'") == (7, "")
    assert say("srever") == (2, "Say in which namespace: make shell node=NAME; there are client, router, server.\n")


# --- the inventory ----------------------------------------------------------------------------------------------------


def listed(ansible: Controller, *inventories: str) -> dict[str, Any]:
    """What ansible-inventory makes of them."""
    run = ansible.inventory(*inventories)
    assert run.code == 0, str(run)
    found: dict[str, Any] = json.loads(run.stdout)
    return found


def test_groups_labels_and_variables(ansible: Controller, tmp_path: Path) -> None:
    document = lab(
        router={"groups": ["gateways"], "labels": {"role": "gateway"}, "vars": {"answer": 42}},
        server={"labels": {"role": "end"}},
    )
    file = inventory(tmp_path, document, keyed_groups=[{"key": "netns_labels"}], leading_separator=False)
    found = listed(ansible, file)
    assert found["lab_routed"]["hosts"] == ["server", "router", "client"]
    assert found["gateways"]["hosts"] == ["router"]
    assert found["role_gateway"]["hosts"] == ["router"]
    variables = found["_meta"]["hostvars"]["router"]
    assert variables["answer"] == 42
    assert "routed" in str(variables["netns_lab"])


def test_names_that_collide_are_told_apart(ansible: Controller, tmp_path: Path) -> None:
    (tmp_path / "machines").write_text(
        "one ansible_host=192.0.2.1 ansible_port=2222 ansible_become=true\ntwo\nclient\n"
    )
    group_vars = tmp_path / "group_vars"
    group_vars.mkdir()
    (group_vars / "all.yml").write_text("ansible_user: admin\n")
    file = inventory(tmp_path, lab(), machines=["one", "two"])
    hosts = listed(ansible, str(tmp_path / "machines"), file)["_meta"]["hostvars"]
    assert set(hosts) >= {f"routed/{name}@{machine}" for name in ROUTED["namespaces"] for machine in ("one", "two")}
    found = hosts["routed/server@one"]
    assert found["ansible_port"] == 2222
    assert "admin" in str(found["ansible_user"])
    assert "192.0.2.1" in str(found["ansible_host"])
    assert "two" in str(hosts["routed/server@two"]["ansible_host"])


@pytest.mark.parametrize("place", ["group_vars/all.yml", "all.yml"])
def test_templates_of_machines_are_theirs(ansible: Controller, tmp_path: Path, place: str) -> None:
    (tmp_path / "machines.yml").write_text("machines: {hosts: {one: {}, two: {}}}\n")
    said = {"ansible_host": "{{ inventory_hostname }}.example.com"}
    (tmp_path / "group_vars").mkdir()
    (tmp_path / place).write_text(json.dumps(said if "/" in place else {"all": {"vars": said}}))
    inventories = [str(tmp_path / "machines.yml"), inventory(tmp_path, lab(), machines=["machines"])]
    inventories[1:1] = [] if "/" in place else [str(tmp_path / place)]
    task = that("ansible_host == netns_machine ~ '.example.com'", "netns_machine in inventory_hostname")
    run = ansible.run([play("lab_routed", task)], *(word for file in inventories for word in ("--inventory", file)))
    assert run.succeeded().stdout.count(" ok=1 ") == 2 * len(ROUTED["namespaces"])


@pytest.mark.parametrize(
    ("document", "options", "words"),
    [
        (lab(), {"machines": ["nobody"]}, "machines: 'nobody' is no host and no group of an inventory"),
        ("name: [", {}, "lab.yml cannot be read"),
        ({"name": "x", "namespaces": {"a": {"vars": {"no-name": 1}}}}, {}, "namespaces.a.vars: 'no-name' is no name"),
        ({"namespaces": {}}, {}, "name: is missing"),
        (lab(), {"topologies": []}, "topologies: is missing; without documents, say 'live: true'"),
    ],
    ids=["machine", "no YAML", "variable", "no lab", "nothing"],
)
def test_what_is_wrong_is_told(
    ansible: Controller, tmp_path: Path, document: Any, options: dict[str, Any], words: str
) -> None:
    run = ansible.inventory(inventory(tmp_path, document, **options))
    assert words in run.words
    assert "Traceback" not in run.words


# --- live -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["local", pytest.param("ssh", marks=pytest.mark.once), "ssh and sudo"])
def test_what_stands_on_a_machine_are_hosts(ansible: Controller, tmp_path: Path, kind: str) -> None:
    """A lab, a namespace made by hand, and one of a process; a task runs in each of them."""
    tmp_path.chmod(0o755)
    ip("netns", "add", "bare")
    with connection(kind, ansible, tmp_path) as (machine, run):
        if "sudo" in kind:
            # What is given on the command line does not get there.
            beside = tmp_path / "ssh/group_vars"
            beside.mkdir()
            own = {"ansible_become_password": PASSWORD, "ansible_remote_tmp": f"{tmp_path}/ssh/home/.ansible"}
            (beside / "all.yml").write_text(json.dumps(own))
        run([build(lab(server={"hostname": "server.example"}), machine, become=True)]).succeeded()
        look = {"ansible.builtin.command": "ls /sys/class/net", "register": "found", "changed_when": False}
        plays = [
            play(
                "lab_routed:&machine_" + machine,
                look,
                that("'lo' in found.stdout_lines", "netns_interfaces | sort == found.stdout_lines", "not netns_labels"),
            ),
            play(
                "server",
                that(
                    "netns_lab == 'routed'",
                    "netns_hostname == 'server.example'",
                    "netns_interfaces == {'lo': ['1.1.1.1/24'], 'vethS': ['10.0.1.2/24']}",
                    "groups.lab_routed | sort == ['client', 'router', 'server']",
                ),
            ),
            play("bare", look, that("found.stdout == 'lo'", "netns_lab == ''", "netns_hostname == ''")),
        ]
        run(plays, "--inventory", live(tmp_path, machines=[machine])).succeeded()


@pytest.mark.once
def test_the_namespace_of_a_process(ansible: Controller, tmp_path: Path) -> None:
    """By its own word it is nobody's; by that of the lab that has wired it, it is that lab's."""
    process = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE)
    try:
        ours = os.stat("/proc/self/ns/net").st_ino
        eventually(lambda: os.stat(f"/proc/{process.pid}/ns/net").st_ino != ours, "in a namespace of its own")
        document = {
            "name": "edge",
            "namespaces": {"web": {"attach": {"pid": process.pid}, "interfaces": {"e0": {}}}, "host": {}},
            "links": [{"endpoints": ["web:e0", "host:v0"]}],
        }
        ansible.run([build(document)]).succeeded()
        assert listed(ansible, live(tmp_path))["lab_edge"]["hosts"] == ["web"]
    finally:
        process.kill()
        process.communicate()


@pytest.mark.once
def test_documents_and_what_stands_together(ansible: Controller, tmp_path: Path) -> None:
    """One namespace is one host, and is as its document says; the others are told apart as always."""
    ansible.run([build(lab())]).succeeded()
    for name in ("extra", "unmarked"):
        ip("netns", "add", name)
    (tmp_path / "elsewhere.yml").write_text(
        json.dumps({"name": "elsewhere", "namespaces": {name: {} for name in ("client", "unmarked", "planned")}})
    )
    document = lab(server={"hostname": "server.example", "labels": {"role": "end"}, "vars": {"answer": 42}})
    file = inventory(tmp_path, document, live=True)
    options = json.loads(Path(file).read_text())
    options["topologies"].append(str(tmp_path / "elsewhere.yml"))
    Path(file).write_text(json.dumps(options))
    found = listed(ansible, file)
    hosts = found["_meta"]["hostvars"]
    clients = {"routed/client@localhost", "elsewhere/client@localhost"}
    assert set(hosts) == {"server", "router", "extra", "unmarked", "planned", *clients}
    assert hosts["server"]["answer"] == 42
    assert "end" in str(hosts["server"]["netns_labels"])
    assert "server.example" in str(hosts["server"]["netns_hostname"])
    assert found["lab_elsewhere"]["hosts"] == ["elsewhere/client@localhost", "unmarked", "planned"]


@pytest.mark.once
def test_a_machine_that_does_not_answer(ansible: Controller, tmp_path: Path) -> None:
    ip("netns", "add", "bare")
    machines = tmp_path / "machines"
    here = f"here ansible_connection=local ansible_python_interpreter={sys.executable}\n"
    machines.write_text(f"{here}away ansible_host=198.51.100.1\n")
    file = inventory(tmp_path, lab(), live=True, machines=["here", "away"])
    run = ansible.inventory(str(machines), file)
    assert run.code == 0, str(run)
    assert "live: away cannot be reached" in run.words
    hosts = json.loads(run.stdout)["_meta"]["hostvars"]
    assert {"bare", "routed/server@here", "routed/server@away"} <= set(hosts)

    run = ansible.inventory(str(machines), inventory(tmp_path, lab(), live=True, machines=["all"], strict=True))
    assert run.code != 0
    assert "live: away cannot be reached" in run.words
    assert "Traceback" not in run.words


@pytest.mark.once
def test_what_was_found_may_be_kept(ansible: Controller, tmp_path: Path) -> None:
    """For as long as the same machines are asked for, and not if one has not answered."""
    ip("netns", "add", "bare")
    kept = {"cache": True, "cache_plugin": "ansible.builtin.jsonfile", "cache_connection": str(tmp_path / "kept")}
    here = f"ansible_connection=local ansible_python_interpreter={sys.executable}"
    machines = tmp_path / "machines"
    machines.write_text(f"here {here}\naway ansible_host=198.51.100.1\n")

    def names(**options: Any) -> set[str]:
        found = listed(ansible, str(machines), live(tmp_path, **{"machines": ["here"], **options}))
        return set(found["_meta"]["hostvars"]) - {"here", "away"}

    assert names(**{**kept, "machines": ["here", "away"]}) == {"bare"}
    ip("netns", "add", "later")
    assert names(**kept) == {"bare", "later"}
    ip("netns", "del", "bare")
    assert names(**kept) == {"bare", "later"}
    assert names() == {"later"}
    assert names(**{**kept, "machines": ["here", "away"]}) == {"later"}


def test_callbacks_and_tags_of_the_caller_do_not_matter(ansible: Controller, tmp_path: Path) -> None:
    ip("netns", "add", "bare")
    configuration = "[defaults]\nstdout_callback = nowhere.at.all\ncallbacks_enabled = nowhere.at.all\n"
    (ansible.home / "ansible.cfg").write_text(configuration + "[tags]\nrun = nothing\n")
    assert set(listed(ansible, live(tmp_path))["_meta"]["hostvars"]) == {"bare"}


def test_a_collection_beside_the_playbook(ansible: Controller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not where the configuration says, and is found all the same; so is a machine in a folder of inventories."""
    ip("netns", "add", "bare")
    own = ansible.environment["ANSIBLE_COLLECTIONS_PATH"]
    monkeypatch.setitem(ansible.environment, "ANSIBLE_COLLECTIONS_PATH", str(tmp_path / "nowhere"))
    (ansible.home / "collections").symlink_to(own)
    hosts = tmp_path / "inventory"
    hosts.mkdir()
    (hosts / "a.yml").write_text(json.dumps({"all": {"hosts": {"here": {"ansible_connection": "local"}}}}))
    (hosts / "group_vars").mkdir()
    (hosts / "group_vars/all.yml").write_text(json.dumps({"ansible_python_interpreter": sys.executable}))
    live(hosts, machines=["here"])
    ansible.run([play("bare", {"ansible.builtin.ping": {}})], "--inventory", str(hosts)).succeeded()
