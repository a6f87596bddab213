# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which namespaces stand on machines now, by the word of netns_info there.

An inventory is read before there is a play, and nothing in Ansible that is meant for others runs a module then. So an
`ansible-playbook` of its own does it, and prints the results as one word, which every callback leaves as it is. The
option `--tree` of `ansible` would do the same, but goes with ansible-core 2.23.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible import constants

from ..module_utils._model import HOST
from ..module_utils._reader import name_problem

#: What netns_info returned, by machine; or, with `failed` or `unreachable`, why it did not.
Results = dict[str, dict[str, Any]]

#: A namespace that stands: `lab` (empty if it is of none), `hostname` (the same), `interfaces` (their addresses).
#: Plain data, as it is cached.
Standing = dict[str, Any]

_REGISTERED = "nslab_netns_found"

#: What would have the playbook run in part, or mix something into what it prints.
_NOT_INHERITED = {"ANSIBLE_FORCE_COLOR", "ANSIBLE_RUN_TAGS", "ANSIBLE_SKIP_TAGS"}
_SET = {
    "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
    # There is no word for none; this one is there anyway.
    "ANSIBLE_CALLBACKS_ENABLED": "ansible.builtin.minimal",
    "ANSIBLE_LOG_PATH": os.devnull,
    "ANSIBLE_NOCOLOR": "true",
    "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.minimal",
}


class LiveError(Exception):
    """Nothing was found out of any machine. The text says why."""


def ask(machines: Sequence[str], sources: Iterable[str], become: bool, timeout: int) -> Results:
    """Run netns_info on machines of the inventory that the ``sources`` make.

    A machine that the sources do not have is not in the results; `localhost` need not be in them. Raises LiveError.
    """
    mark = f"nslab-{secrets.token_hex(16)}:"
    # Without any source, that of the configuration would be read.
    inventories = [word for source in (list(sources) or [os.devnull]) for word in ("--inventory", source)]
    with tempfile.TemporaryDirectory(prefix="nslab-netns-") as folder:
        playbook = Path(folder, "playbook.json")
        playbook.write_text(json.dumps([_play(machines, become, timeout, mark)]), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "ansible", "playbook", *inventories, str(playbook)],
            env=_environment(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    handed_over = re.search(f"{mark}([A-Za-z0-9+/=]*)", done.stdout)
    if handed_over:
        found: Results = json.loads(base64.b64decode(handed_over.group(1)))
        return found
    if done.returncode == 0:
        return {}
    raise LiveError(f"ansible-playbook ended with exit status {done.returncode}: {' '.join(done.stdout.split())}")


def _play(machines: Sequence[str], become: bool, timeout: int, mark: str) -> dict[str, Any]:
    of_all = f"ansible_play_hosts_all | zip(ansible_play_hosts_all | map('extract', hostvars, '{_REGISTERED}'))"
    return {
        "name": "Look into namespaces",
        "hosts": list(machines),
        "gather_facts": False,
        "strategy": "ansible.builtin.linear",
        "ignore_errors": True,
        "ignore_unreachable": True,
        "tags": ["always"],
        "tasks": [
            {
                "name": "Look",
                "nslab.netns.netns_info": {},
                "register": _REGISTERED,
                "become": become,
                "timeout": timeout,
            },
            {
                "name": "Hand over what was found",
                # However a line is printed, this is a word in it.
                "ansible.builtin.debug": {"msg": mark + "{{ dict(" + of_all + ") | to_json | b64encode }}"},
                "run_once": True,
            },
        ],
    }


def _environment(inherited: Mapping[str, str]) -> dict[str, str]:
    # This very collection may have been found beside a playbook, and then it is not where the configuration says.
    folders: list[str] = [str(Path(__file__).parents[5]), *constants.config.get_config_value("COLLECTIONS_PATHS")]
    collections = {"ANSIBLE_COLLECTIONS_PATH": os.pathsep.join(folders)}
    return {
        **{name: value for name, value in inherited.items() if name not in _NOT_INHERITED},
        **collections,
        **_SET,
    }


# --- what it says ----------------------------------------------------------------------------------------------------


def problem_of(machine: str, results: Mapping[str, Mapping[str, Any]]) -> str:
    """Why nothing is known of a machine; empty if something is."""
    if machine not in results:
        return f"{machine} is no host of the inventories that were read before this one"
    result = results[machine]
    if not (result.get("failed") or result.get("unreachable")):
        return ""
    said = " ".join(str(result.get("msg", "no reason was given")).split())
    return f"{machine} {'cannot be reached' if result.get('unreachable') else 'has not told'}: {said}"


def standing(result: Mapping[str, Any]) -> dict[str, Standing]:
    """The namespaces of a machine, by their names, without its own and without those that no task can be run in."""
    return {
        name: {
            "lab": _lab_of(facts),
            "hostname": facts["hostname"] or "",
            "interfaces": {
                link["name"]: [address["address"] for address in link["addresses"] if not address["kernel"]]
                for link in facts["links"]
            },
        }
        for name, facts in result["namespaces"].items()
        if name != HOST and not name_problem(name)
    }


def _lab_of(facts: Mapping[str, Any]) -> str:
    """The lab of a namespace; of one that something else has made, the one that has wired it."""
    if facts["lab"]:
        return str(facts["lab"])
    labs = {link["lab"] for link in facts["links"] if link["lab"]}
    return str(labs.pop()) if facts["attached"] and len(labs) == 1 else ""
