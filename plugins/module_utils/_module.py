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
from ._errors import InvalidInput, NslabError, Problem, ProblemsFound
from ._model import Wanted
from ._plan import Plan

Spec = dict[str, Any]

_DAY = 24 * 60 * 60.0

#: The options that every module has that changes something (doc fragment ``common``).
COMMON_OPTIONS: Spec = {
    "lab": {"type": "str"},
    "lock_timeout": {"type": "float", "default": 60.0},
    "verify": {"type": "bool", "default": True},
    "revert_after": {"type": "float"},
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


def run_module(
    name: str,
    options: Spec,
    read: Callable[[Spec], Wanted],
    prove: Callable[[list[Any]], list[Spec]] | None = None,
    remark: Callable[[Wanted, Spec, bool], tuple[Spec, list[str]]] | None = None,
    **more: Any,
) -> None:
    """The whole life of a module that changes something.

    ``read`` makes a demand of the options, or raises; ``prove`` runs the probes of a demand; ``remark`` has more to
    return in the end, and to warn of.
    """
    module = AnsibleModule(argument_spec={**COMMON_OPTIONS, **options}, supports_check_mode=True, **more)
    results: list[Spec] = []
    try:
        wanted = read(module.params)
        check_seconds(module.params)
        wanted.may_cut = module.params["revert_after"] is not None
        purpose = f"nslab.netns.{name}" + (f" for lab {wanted.lab}" if wanted.lab else "")

        def failures() -> list[str]:
            results.extend(prove(wanted.probes) if prove else [])
            return [result["text"] for result in results if not result["passed"]]

        terms = engine.Terms(
            purpose=purpose,
            lock_seconds=module.params["lock_timeout"],
            verify=module.params["verify"],
            prove=failures if wanted.probes else None,
            revert_seconds=module.params["revert_after"],
            wait_seconds=module.params.get("wait_timeout") if module.params.get("wait") else None,
        )
        plan = engine.run(wanted, check=module.check_mode, terms=terms)
        results_besides, warnings = remark(wanted, module.params, module.check_mode) if remark else ({}, [])
        plan.warnings += warnings
    except NslabError as error:
        fail(module, error, **({"probes": results} if results else {}))
    except OSError as error:
        fail(module, NslabError(str(error)))
    exit_with(module, plan, wanted.whole, **({"probes": results} if results else {}), **results_besides)


def check_seconds(options: Spec) -> None:
    """Raise InvalidInput for times that nobody can mean: what is no number, or more than a day."""
    problems = []
    for option, least in (("revert_after", 1.0), ("lock_timeout", 0.0), ("wait_timeout", 0.0)):
        seconds = options.get(option)
        if seconds is not None and not least <= seconds <= _DAY:
            problems.append(Problem(option, f"{seconds:g} is no number of seconds from {least:g} to {_DAY:g}"))
    if problems:
        raise InvalidInput(problems)


def fail(module: AnsibleModule, error: NslabError, **more: Any) -> NoReturn:
    """End with an error in words; problems besides as a list of path, text and code."""
    if isinstance(error, ProblemsFound):
        more["problems"] = [problem._asdict() for problem in error.problems]
    module.fail_json(msg=str(error), **more)
    raise AssertionError("fail_json() does not return")


def exit_with(module: AnsibleModule, plan: Plan, whole: bool, **more: Any) -> None:
    for warning in [*plan.warnings, *map(str, plan.unsaid), *map(str, plan.findings)]:
        module.warn(warning)
    descriptions = [description for change in plan.changes for description in describe(change)]
    module.exit_json(
        changed=bool(descriptions),
        changes=[description.as_result() for description in descriptions],
        assumptions=[str(problem) for problem in plan.assumptions],
        diff=diff_of(descriptions),
        **({"backends": plan.backends} if plan.backends or whole else {}),
        **({"findings": [finding._asdict() for finding in plan.findings]} if whole else {}),
        **({"unconfirmed_until": plan.until} if plan.until else {}),
        **more,
    )


def diff_of(descriptions: list[Description]) -> Spec:
    """Before and after, one line for each object that changes, in the order of the plan."""
    return {
        "before": "".join(f"{description.before}\n" for description in descriptions if description.before),
        "after": "".join(f"{description.after}\n" for description in descriptions if description.after),
    }
