# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role persist, and what others say of labs that come back."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from controller import ROOT, Controller, apply_role, play
from throwaway import ip, named_namespaces, own_etc, own_local_lib, ping

pytestmark = pytest.mark.once

AUDIT = "playbooks/audit.yml"
PAIR: dict[str, Any] = {
    "name": "pair",
    "namespaces": {
        "left": {"interfaces": {"eth0": {"addresses": ["192.0.2.1/24"]}}},
        "right": {"interfaces": {"eth0": {"addresses": ["192.0.2.2/24"]}}},
    },
    "links": [{"endpoints": ["left:eth0", "right:eth0"]}],
    "probes": [{"from": "left", "to": "192.0.2.2"}],
}


@pytest.fixture(autouse=True)
def own_files(host: None, tmp_path: Path) -> None:
    own_etc(tmp_path)
    own_local_lib()


def role(**variables: Any) -> list[dict[str, Any]]:
    return [apply_role("persist", variables={"persist_topology": PAIR, **variables})]


def boot() -> None:
    """All that a reboot does, as far as this collection can see: what is in the kernel goes, and units run."""
    for name in named_namespaces():
        ip("netns", "delete", name)
    for path in ("/run/nslab", "/run/netns"):
        subprocess.run(["umount", "--quiet", path], check=False)
        subprocess.run(["rm", "-rf", path], check=True)
    for unit in Path("/etc/systemd/system/multi-user.target.wants").glob("nslab-*"):
        (command,) = re.findall(r"^ExecStart=(.*)$", unit.read_text(), re.MULTILINE)
        subprocess.run(command.split(" "), check=True, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, cwd="/")


def test_a_lab_that_comes_back_and_is_audited(ansible: Controller, tmp_path: Path) -> None:
    predicted = ansible.run(role(), "--check", "--diff").succeeded()
    assert named_namespaces() == []
    assert not Path("/etc/nslab").exists()
    run = ansible.run(role(), "--diff").succeeded()
    assert run.diff == predicted.diff
    assert run.changed == predicted.changed == 2
    for options in ((), ("--check",)):
        assert ansible.run(role(), *options).succeeded().changed == 0

    boot()
    assert ping("left", "192.0.2.2")[0]
    file = tmp_path / "pair.yml"
    file.write_text(json.dumps(PAIR))
    assert "1 sound" in ansible.run(AUDIT, topology_file=str(file)).succeeded().words

    # Somebody changes the lab and forgets that it comes back.
    changed = json.loads(json.dumps(PAIR))
    changed["namespaces"]["left"]["sysctls"] = {"net.ipv4.ip_forward": 1}
    file.write_text(json.dumps(changed))
    ansible.run("playbooks/lab.yml", topology_file=str(file)).succeeded()
    report = tmp_path / "report.json"
    run = ansible.run(AUDIT, topology_file=str(file), report_file=str(report)).failed()
    assert (
        "the document that is applied in a boot is another one: namespaces.left.sysctls.net.ipv4.ip_forward"
        in run.words
    )
    (found,) = json.loads(report.read_text())["hosts"]["localhost"]
    assert found["verdict"] == "outdated"
    assert found["persisted"]["differences"] == ["namespaces.left.sysctls.net.ipv4.ip_forward"]
    assert ansible.run(role(persist_topology=changed)).succeeded().changed == 1
    ansible.run(AUDIT, topology_file=str(file)).succeeded()
    document = Path("/etc/nslab/labs/pair.json")
    document.write_text(document.read_text().replace('"version": "', '"version": "9.'))
    assert f"it does not come back as it should: {document} is not as it was: its content" in (
        ansible.run(AUDIT, topology_file=str(file)).failed().words
    )


def test_who_removes_a_lab_that_comes_back_is_told(ansible: Controller) -> None:
    ansible.run(role()).succeeded()
    for options in ({"lab": "pair", "state": "absent"}, {"gc": []}):
        for more in (("--check",), ()):
            run = ansible.run([play("remove", tasks=[{"nslab.netns.topology": options}])], *more).succeeded()
            assert "the lab pair is persisted, and comes back with the next boot" in run.words
    tasks = [
        {"nslab.netns.netns_info": {"namespaces": []}, "register": "info"},
        {"ansible.builtin.debug": {"msg": "{{ info.persisted | to_json }} {{ info.requirements.python }}"}},
    ]
    words = ansible.run([play("look", tasks=tasks)]).succeeded().words
    assert '"name": "pair"' in words
    assert sys.executable in words
    ansible.run(role()).succeeded()
    run = ansible.run(role(persist_state="absent", persist_topology={"name": "pair"})).succeeded()
    assert run.changed == 2
    assert "is persisted, and comes back" not in run.words
    assert ansible.run(role(persist_state="absent")).succeeded().changed == 0
    assert not Path("/etc/nslab").exists()
    boot()
    assert named_namespaces() == []


def test_what_cannot_come_back_is_refused_before_the_lab_is_touched(ansible: Controller) -> None:
    attached = {**PAIR, "namespaces": {**PAIR["namespaces"], "app": {"attach": {"pid": 1}}}}
    words = ansible.run(role(persist_topology=attached)).failed().words
    assert "namespaces.app.attach: is a process, which is gone after a boot" in words
    assert named_namespaces() == []


def test_the_version_is_that_of_the_collection() -> None:
    (version,) = re.findall(r"^version: (\S+)$", (ROOT / "galaxy.yml").read_text(), re.MULTILINE)
    assert f'VERSION = "{version}"' in (ROOT / "plugins/module_utils/_version.py").read_text()
