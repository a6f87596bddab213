# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: documents
short_description: Read topology documents, and say of each that cannot be read why
version_added: 0.1.0
author:
  - nslab contributors (@nslab)
description:
  - Reads files of topology documents on the controller. One that cannot be read does not keep the others from being read.
  - What is in a document is not checked any further. M(nslab.netns.topology) does that.
options:
  _terms:
    description:
      - The paths of the files, relative to the folder in which Ansible was started.
    type: list
    elements: str
  documents:
    description:
      - Documents that have been read already, to be treated in the same way.
    type: list
    elements: raw
    default: []
"""

EXAMPLES = r"""
- name: Say which documents are wrong
  ansible.builtin.debug:
    msg: "{{ item.source }}: {{ item.problem }}"
  loop: "{{ query('nslab.netns.documents', 'routed.yml', 'nowhere.yml') | selectattr('problem') }}"
  loop_control:
    label: "{{ item.source }}"
"""

RETURN = r"""
_list:
  description: One entry for each document, in their order.
  type: list
  elements: dict
  contains:
    source:
      description: The file, or the place in O(documents).
      type: str
      sample: routed.yml
    document:
      description: The document; empty if there is a problem with it.
      type: dict
      sample: {"name": "routed", "namespaces": {"server": {}}}
    problem:
      description: Why it is no document, in words; empty if it is one.
      type: str
      sample: ""
"""

import os
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase


class LookupModule(LookupBase):
    def run(self, terms: list[str], variables: Any = None, **kwargs: Any) -> list[dict[str, Any]]:
        self.set_options(var_options=variables, direct=kwargs)
        found = [self._read(str(term)) for term in terms]
        return found + [_entry(f"topologies[{i}]", one) for i, one in enumerate(self.get_option("documents"))]

    def _read(self, file: str) -> dict[str, Any]:
        try:
            return _entry(file, self._loader.load_from_file(os.path.realpath(file), cache="none"))
        except AnsibleError as error:
            mark = getattr(error.__cause__, "problem_mark", None)
            place = f"line {mark.line + 1}: " if mark else ""
            return {"source": file, "document": {}, "problem": place + " ".join(str(error).split())}


def _entry(source: str, document: Any) -> dict[str, Any]:
    if isinstance(document, Mapping):
        return {"source": source, "document": document, "problem": ""}
    kinds = {type(None): "it is empty", list: "it is a list", str: "it is a text"}
    what = next((text for kind, text in kinds.items() if isinstance(document, kind)), "it is a plain value")
    return {"source": source, "document": {}, "problem": f"{what}, and a topology document is a dictionary with 'name'"}
