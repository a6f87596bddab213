# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a topology document says of a namespace as a host of an inventory: its groups, labels and variables.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ._model import HOST
from ._reader import Reader, join, show

NODE_KEYS = ("groups", "labels", "vars")

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass
class Node:
    """A namespace as a host of an inventory. Nothing of it concerns the machine."""

    groups: list[str] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    variables: dict[str, Any] = field(default_factory=dict)


def read_node(reader: Reader, name: str, body: Mapping[str, Any], path: str) -> Node:
    if name == HOST:
        for key in NODE_KEYS:
            if body.get(key) is not None:
                reader.problem(f"{path}.{key}", "'host' is a host of some inventory already; say it there")
        return Node()
    node = Node()
    for i, group in enumerate(reader.sequence(body.get("groups"), f"{path}.groups")):
        node.groups.append(_identifier(reader, group, f"{path}.groups[{i}]", "a group"))
    for label, value in reader.mapping(body.get("labels"), f"{path}.labels").items():
        name = _identifier(reader, label, f"{path}.labels", "a label")
        node.labels[name] = reader.string(value, join(f"{path}.labels", label))
    for variable, value in reader.mapping(body.get("vars"), f"{path}.vars").items():
        node.variables[_identifier(reader, variable, f"{path}.vars", "a variable")] = value
    return node


def _identifier(reader: Reader, value: Any, path: str, what: str) -> str:
    if isinstance(value, str) and _IDENTIFIER.fullmatch(value):
        return value
    reader.problem(path, f"{show(value)} is no name for {what}: letters, digits and '_', the first no digit")
    return ""
