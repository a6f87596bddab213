# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What cannot be meant or cannot work is refused in words, before anything is touched."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from controller import DEADLINE_SECONDS, Controller, Run, apply_role, play
from throwaway import ip, snapshot, without

PAIR: dict[str, Any] = {
    "name": "pair",
    "namespaces": {
        "left": {"interfaces": {"eth0": {"addresses": ["192.0.2.1/24"]}}},
        "right": {"interfaces": {"eth0": {"addresses": ["192.0.2.2/24"]}}},
    },
    "links": [{"endpoints": ["left:eth0", "right:eth0"]}],
}


def pair_with(**namespaces: Any) -> dict[str, Any]:
    return {"lab_topology": {**PAIR, "namespaces": {**PAIR["namespaces"], **namespaces}}}


# Role, variables, and what the message has to say.
REFUSED: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "routed: an address without its prefix": (
        "routed",
        {"routed_server_address": "10.0.1.2"},
        ("addresses[0]", "10.0.1.2", "prefix"),
    ),
    "routed: a name that is too long": (
        "routed",
        {"routed_client_interface": "an-interface-name-too-long"},
        ("name", "an-interface-name-too-long", "15"),
    ),
    "routed: a namespace that is no name": (
        "routed",
        {"routed_router_name": "../router"},
        ("namespaces.../router", "the name of a namespace has no '/'"),
    ),
    "routed: an MTU in words": ("routed", {"routed_mtu": "large"}, ("routed_mtu", "large")),
    "routed: an MTU that no veth has": ("routed", {"routed_mtu": 7}, ("mtu", "7")),
    "routed: a state that does not exist": ("routed", {"routed_state": "gone"}, ("routed_state", "present, absent")),
    "host_link: no address": ("host_link", {"host_link_host_address": "veth-a"}, ("addresses[0]", "veth-a")),
    "host_link: white space in a name": (
        "host_link",
        {"host_link_interface": "veth b"},
        ("namespaces.nstest.interfaces.veth b", "white space"),
    ),
    "host_link: the host as the namespace": ("host_link", {"host_link_namespace": "host"}, ("name", "host")),
    "lab: no topology": ("lab", {}, ("lab_topology",)),
    "lab: a topology that is none": ("lab", {"lab_topology": "routed.yml"}, ("lab_topology", "dict")),
    "lab: an unknown key": (
        "lab",
        pair_with(left={"interfaces": {"eth0": {"adresses": ["192.0.2.1/24"]}}}),
        ("namespaces.left.interfaces.eth0", "adresses", "addresses"),
    ),
    "lab: a gateway that nothing makes reachable": (
        "lab",
        pair_with(left={**PAIR["namespaces"]["left"], "routes": [{"to": "default", "via": "198.51.100.1"}]}),
        ("namespaces.left.routes[0]", "198.51.100.1"),
    ),
    "lab: an endpoint that is used twice": (
        "lab",
        {"lab_topology": {**PAIR, "links": [*PAIR["links"], {"endpoints": ["left:eth0", "right:eth1"]}]}},
        ("links[1].endpoints[0]", "left:eth0"),
    ),
    "lab: a sysctl that does not exist": (
        "lab",
        pair_with(left={**PAIR["namespaces"]["left"], "sysctls": {"net.ipv4.ip_froward": 1}}),
        ("namespaces.left.sysctls", "net.ipv4.ip_froward"),
    ),
}


#: Refused by Ansible, and by the collection: those that depend on how ansible-core says it.
FOR_EACH_ANSIBLE = {"routed: a state that does not exist", "host_link: no address", "lab: an unknown key"}


@pytest.mark.parametrize(
    ("role", "variables", "says"),
    [
        pytest.param(*case, id=name, marks=() if name in FOR_EACH_ANSIBLE else pytest.mark.once)
        for name, case in REFUSED.items()
    ],
)
def test_wrong_input(ansible: Controller, role: str, variables: dict[str, Any], says: tuple[str, ...]) -> None:
    before = snapshot()
    run = ansible.run([apply_role(role)], **variables).failed()
    # The message, and not the options that are shown beside it.
    assert [word for word in says if word not in run.words.partition("fatal: ")[0]] == []
    assert "MODULE FAILURE" not in run.words
    folders = ("/run/netns", "/run/nslab")
    assert without(snapshot(), *folders) == without(before, *folders)


@pytest.mark.once
def test_what_belongs_to_somebody_else_is_refused(ansible: Controller) -> None:
    ip("netns", "add", "router")
    ip("link", "add", "veth-a", "type", "bridge")
    before = snapshot()
    routed = ansible.run([apply_role("routed")]).failed()
    assert "router" in routed.words.partition("fatal: ")[0]
    document = ansible.run("playbooks/lab.yml").failed()
    assert "namespaces.router" in document.words.partition("fatal: ")[0]
    ansible.run([apply_role("host_link")]).failed()
    for state in ("routed", "host_link"):
        ansible.run([apply_role(state)], **{f"{state}_state": "absent"})
    assert without(snapshot(), "/run/nslab") == without(before, "/run/nslab")


@pytest.mark.once
def test_a_failed_step_leaves_the_host_as_it_was(ansible: Controller) -> None:
    """Only the kernel knows which algorithms it has."""
    before = snapshot()
    left = {**PAIR["namespaces"]["left"], "sysctls": {"net.ipv4.tcp_congestion_control": "no-such"}}
    said = ansible.run([apply_role("lab")], **pair_with(left=left)).failed().words.partition("fatal: ")[0]
    for word in ("namespaces.left.sysctls", "tcp_congestion_control", "No such file or directory", "was taken back"):
        assert word in said
    folders = ("/run/netns", "/run/nslab")
    assert without(snapshot(), *folders) == without(before, *folders)


# --- Not root -------------------------------------------------------------------------------------------------

NOBODY = 65534
# Reading is left to nobody, so that it finds a Python and a checkout in root's home. It is no power over networks.
AS_NOBODY = (
    "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all,+dac_read_search",
    "--ambient-caps=-all,+dac_read_search",
)  # fmt: skip


@pytest.mark.parametrize("options", [(), ("--check",)], ids=["run", "check mode"])
def test_who_is_not_root_is_told_what_to_do(ansible: Controller, tmp_path: Path, options: tuple[str, ...]) -> None:
    try:
        subprocess.run([*AS_NOBODY, "true"], check=True, capture_output=True, text=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"cannot become nobody here: {getattr(error, 'stderr', error)}")
    # What root's runs share is not nobody's to write.
    archives = ansible.home / "archives"
    archives.mkdir()
    ansible.environment["NSLAB_ARCHIVES"] = str(archives)
    for path in (ansible.home, *ansible.home.iterdir()):
        os.chown(path, NOBODY, NOBODY)
    before = snapshot()
    plays = [play("build", tasks=[{"nslab.netns.netns": {"name": "server"}}])]
    process = ansible.start(plays, *options, prefix=AS_NOBODY)
    run = Run(0, *process.communicate(timeout=DEADLINE_SECONDS))
    run = Run(process.returncode, run.stdout, run.stderr).failed()
    assert "network namespaces can be managed only as root; use 'become: true'" in run.words
    assert snapshot() == before
