# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Between Ansible's module API and the engine: the only room that knows AnsibleModule.

Private to the collection: no stable interface.
"""

from __future__ import annotations

from typing import Any, Callable, NoReturn

from ansible.module_utils.basic import AnsibleModule

from . import _engine as engine
from ._changes import Description
from ._changes import descriptions as describe
from ._errors import NslabError, ProblemsFound
from ._model import Wanted
from ._plan import Plan

Spec = dict[str, Any]

#: The options that every module has that changes something (doc fragment ``common``).
COMMON_OPTIONS: Spec = {
    "lab": {"type": "str"},
    "lock_timeout": {"type": "float", "default": 60.0},
}

#: Those of the modules for address translation (doc fragment ``nat``), and those of each rule that both have.
NAT_OPTIONS: Spec = {
    "namespace": {"type": "str", "default": "host"},
    "backend": {"type": "str", "choices": ["auto", "nftables", "iptables"], "default": "auto"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}
NAT_RULE_OPTIONS: Spec = {
    "family": {"type": "str", "choices": ["ipv4", "ipv6"]},
    "random_fully": {"type": "bool"},
    "persistent": {"type": "bool"},
    "comment": {"type": "str"},
}


def run_module(name: str, options: Spec, read: Callable[[Spec], Wanted], **more: Any) -> None:
    """The whole life of a module that changes something. ``read`` makes a demand of the options, or raises."""
    module = AnsibleModule(argument_spec={**COMMON_OPTIONS, **options}, supports_check_mode=True, **more)
    try:
        wanted = read(module.params)
        plan = engine.run(
            wanted,
            check=module.check_mode,
            purpose=f"nslab.netns.{name}" + (f" for lab {wanted.lab}" if wanted.lab else ""),
            lock_seconds=module.params["lock_timeout"],
            wait_seconds=module.params.get("wait_timeout") if module.params.get("wait") else None,
        )
    except NslabError as error:
        fail(module, error)
    except OSError as error:
        fail(module, NslabError(str(error)))
    exit_with(module, plan, wanted.whole)


def fail(module: AnsibleModule, error: NslabError) -> NoReturn:
    """End with an error in words; problems besides as a list of path and text."""
    more: Spec = {}
    if isinstance(error, ProblemsFound):
        more["problems"] = [problem._asdict() for problem in error.problems]
    module.fail_json(msg=str(error), **more)
    raise AssertionError("fail_json() does not return")


def exit_with(module: AnsibleModule, plan: Plan, whole: bool) -> None:
    for warning in [*plan.warnings, *map(str, plan.findings)]:
        module.warn(warning)
    descriptions = [description for change in plan.changes for description in describe(change)]
    module.exit_json(
        changed=bool(descriptions),
        changes=[description.as_result() for description in descriptions],
        assumptions=[str(problem) for problem in plan.assumptions],
        diff=_diff(descriptions),
        **({"backends": plan.backends} if plan.backends or whole else {}),
        **({"findings": [finding._asdict() for finding in plan.findings]} if whole else {}),
    )


def _diff(descriptions: list[Description]) -> Spec:
    """Before and after, one line for each object that changes, in the order of the plan."""
    return {
        "before": "".join(f"{description.before}\n" for description in descriptions if description.before),
        "after": "".join(f"{description.after}\n" for description in descriptions if description.after),
    }
