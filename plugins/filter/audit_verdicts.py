# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: audit_verdicts
short_description: Judge what a check of labs has found on a host
version_added: 0.1.0
author:
  - nslab contributors (@nslab)
description:
  - Takes the result of M(nslab.netns.topology) in check mode, looped over topology documents, and says of each lab how it stands.
  - A lab is V(missing) if nothing is there of its namespaces; if it has none but C(host), nothing of its bridges and links; if it has none
    of these, nothing of the addresses, routes and policy rules that it declares. Sysctls alone are never missing.
positional: _input, documents
options:
  _input:
    description:
      - What the task has registered.
    type: dict
    required: true
  documents:
    description:
      - The topology documents that it was looped over, as the lookup P(nslab.netns.documents#lookup) returns them.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Compare the host with the documents
  nslab.netns.topology:
    topology: "{{ item.document }}"
  when: not item.problem
  loop: "{{ documents }}"
  check_mode: true
  failed_when: false
  ignore_unreachable: true
  register: audit
  vars:
    documents: "{{ query('nslab.netns.documents', 'routed.yml') }}"

- name: Say how each lab stands
  ansible.builtin.debug:
    msg: "{{ audit | nslab.netns.audit_verdicts(query('nslab.netns.documents', 'routed.yml')) }}"
"""

RETURN = r"""
_value:
  description:
    - One entry for each document, with C(lab), C(source) (its file), C(verdict), C(text), C(changes), C(problems), C(findings) and C(persisted).
    - C(verdict) is V(sound), V(outdated) (it is as the document has it, but comes back otherwise after a reboot),
      V(drifted) (changes would repair it, or a device or a container is not there
      that it needs), V(missing) (nothing of it is there), V(foreign) (something of somebody
      else is in its place), V(unreachable) (the host did not answer), or V(failed) (it could not be looked at).
  type: list
  elements: dict
  sample: [{"lab": "routed", "verdict": "sound", "text": "the lab routed is as the document has it"}]
"""

from collections.abc import Mapping, Sequence
from typing import Any, Callable

from ansible.errors import AnsibleFilterError

Result = Mapping[str, Any]


def audit_verdicts(audit: Any, documents: Sequence[Any]) -> list[dict[str, Any]]:
    """How each lab stands on a host, in the order of the documents."""
    if not isinstance(audit, Mapping):
        raise AnsibleFilterError("nslab.netns.audit_verdicts takes what a task with M(nslab.netns.topology) registered")
    results = audit.get("results")
    if not isinstance(results, Sequence) or len(results) != len(documents):
        # A host that cannot be reached may end the loop.
        results = [audit] * len(documents)
    return [_verdict(entry, result) for entry, result in zip(documents, results)]


def _verdict(entry: Result, result: Result) -> dict[str, Any]:
    document, source = entry["document"], str(entry["source"])
    name = str(document.get("name") or "")
    lab = name or f"of {source}"
    changes = list(result.get("changes") or [])
    problems = list(result.get("problems") or [])
    returns = _returning(result.get("persisted"))
    is_here = bool(result.get("host") or not document.get("hosts"))
    message = str(result.get("msg") or "nothing was found out")
    if entry["problem"]:
        verdict, text = "failed", f"the lab {lab} cannot be looked at: {entry['problem']}"
    elif result.get("unreachable"):
        verdict, text = "unreachable", f"the lab {lab} cannot be looked at, the host is unreachable: {message}"
    elif "changes" not in result:
        verdict, text = _refused(lab, {problem.get("code") for problem in problems}, message)
    elif not changes:
        how = "is as the document has it" if is_here else "has nothing for this host, and nothing of it is here"
        verdict, text = ("outdated" if returns else "sound"), f"the lab {lab} {how}"
    else:
        count = "1 change" if len(changes) == 1 else f"{len(changes)} changes"
        if not is_here:
            verdict, text = (
                "drifted",
                f"the lab {lab} has nothing for this host: {count} would remove what is here of it",
            )
        elif _is_missing(changes, *_own(document, str(result.get("host") or ""))):
            verdict, text = "missing", f"the lab {lab} is missing: {count} would make it"
        else:
            verdict, text = "drifted", f"the lab {lab} has drifted: {count} would repair it"
    if returns:
        text += f"; {returns}"
    return {
        "lab": name,
        "source": source,
        "verdict": verdict,
        "text": text,
        "changes": changes,
        "problems": problems,
        "findings": list(result.get("findings") or []),
        "persisted": result.get("persisted"),
    }


#: How many places are named in which documents differ.
_FEW = 5


def _returning(persisted: Any) -> str:
    """How the lab would come back otherwise than it is asked for; empty if it would not, or not come back at all."""
    if not persisted:
        return ""
    if persisted.get("problem"):
        return f"it does not come back as it should: {persisted['problem']}"
    places = persisted.get("differences") or []
    if not places:
        return ""
    more = f" and {len(places) - _FEW} more" if len(places) > _FEW else ""
    return f"the document that is applied in a boot is another one: {', '.join(places[:_FEW])}{more}"


def _refused(lab: str, codes: set[Any], message: str) -> tuple[str, str]:
    if "foreign" in codes:
        return "foreign", f"the lab {lab} has somebody else's things in its place: {message}"
    if codes == {"missing"}:
        return "drifted", f"the lab {lab} has drifted, and something is not there that it needs: {message}"
    return "failed", f"the lab {lab} cannot be looked at: {message}"


def _own(document: Result, host: str) -> tuple[dict[str, Any], list[tuple[str, str, str]]]:
    """The namespaces that a document has for a host, by their names there, and of its links what is added for them."""
    prefix = f"{host}/" if host else ""
    namespaces = {
        name[len(prefix) :]: body
        for name, body in (document.get("namespaces") or {}).items()
        if name.startswith(prefix)
    }
    links = []
    for link in document.get("links") or []:
        ends = [str(end)[len(prefix) :] for end in link["endpoints"] if str(end).startswith(prefix)]
        if ends:
            where, _colon, name = ends[0].partition(":")
            links.append(("veth" if len(ends) == 2 else "vxlan", where, name))
    return namespaces, links


def _is_missing(changes: Sequence[Result], namespaces: Result, links: Sequence[tuple[str, str, str]]) -> bool:
    """Is nothing there of the lab: of its namespaces, else of its links and bridges, else of what it adds to the host?"""
    added = {(change["object"], change["namespace"], change["name"]) for change in changes if change["action"] == "add"}
    own = [("namespace", name, name) for name in namespaces if name != "host"]
    if not own:
        bridges = (namespaces.get("host") or {}).get("bridges") or {}
        own = [*(("bridge", "host", name) for name in bridges), *links]
    if own:
        return added.issuperset(own)
    host = namespaces.get("host") or {}
    interfaces = (host.get("interfaces") or {}).values()
    declared = [
        *(host.get("routes") or []),
        *(host.get("rules") or []),
        *(item for body in interfaces for item in (body or {}).get("addresses") or []),
    ]
    made = [
        change for change in changes if change["action"] == "add" and change["object"] in ("address", "route", "rule")
    ]
    return 0 < len(declared) <= len(made)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"audit_verdicts": audit_verdicts}
