# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a topology document says of services, and the options of the module in the same words.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from ._model import WantedService
from ._reader import Reader, join, show
from ._service import MARK, RESTARTS, Definition

_KEYS = ("command", "user", "group", "directory", "environment", "restart")

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: What useradd takes (shadow's is_valid_name()), with a number in its place.
_ACCOUNT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}\$?")

#: A unit's name has at most 255 characters: nslab-LAB:NAMESPACE:NAME.service
_MOST_CHARACTERS = 255 - len("nslab-::.service")


def read_services(reader: Reader, value: Any, path: str, namespace: str, lab: str) -> dict[str, WantedService]:
    """The services of a namespace by their names. A value of the environment that is null stays as it is."""
    found = {}
    for name, body in reader.mapping(value, path).items():
        here = join(path, name)
        _check_name(reader, name, here, namespace, lab)
        found[name] = _service(reader, name, reader.mapping(body, here, _KEYS), here)
    return found


def read_service_names(reader: Reader, value: Any, path: str) -> list[str]:
    """The names alone; what is said of the services is checked and not needed."""
    return list(read_services(reader, _commanded(value), path, "", ""))


def _commanded(value: Any) -> Any:
    """What shall go needs no command."""
    if not isinstance(value, Mapping):
        return value
    bodies = ((name, {} if body is None else body) for name, body in value.items())
    return {name: {"command": ["true"], **body} if isinstance(body, Mapping) else body for name, body in bodies}


def _check_name(reader: Reader, name: str, path: str, namespace: str, lab: str) -> None:
    if not _NAME.fullmatch(name):
        text = "1 to 64 letters, digits, '_', '.' and '-', the first no '.' or '-'"
        reader.problem(path, f"{name!r} is no name for a service: {text}")
    elif len(lab) + len(namespace) + len(name) > _MOST_CHARACTERS:
        text = (
            f"the names of the lab, the namespace and the service have at most {_MOST_CHARACTERS} characters together"
        )
        reader.problem(path, f"{name!r} is too long here: {text}")


def _service(reader: Reader, name: str, body: Mapping[str, Any], path: str) -> WantedService:
    environment: dict[str, str] = {}
    kept: list[str] = []
    here = join(path, "environment")
    for variable, value in _variables(reader, body.get("environment"), here).items():
        if not _VARIABLE.fullmatch(variable):
            text = "letters, digits and '_', the first no digit"
            reader.problem(join(here, variable), f"{variable!r} is no name for a variable: {text}")
        elif variable == MARK:
            reader.problem(join(here, variable), "is the name of the service in its environment, and not to be chosen")
        elif value is None:
            kept.append(variable)
        else:
            environment[variable] = _secret(reader, value, join(here, variable))
    definition = Definition(
        command=_command(reader, body.get("command"), join(path, "command")),
        user=_account(reader, body.get("user"), join(path, "user"), "a user"),
        group=_account(reader, body.get("group"), join(path, "group"), "a group"),
        directory=_directory(reader, body.get("directory"), join(path, "directory")),
        environment=tuple(sorted(environment.items())),
        restart=_restart(reader, body.get("restart"), join(path, "restart")),
    )
    return WantedService(name, definition, path, tuple(kept))


def _command(reader: Reader, value: Any, path: str) -> tuple[str, ...]:
    if value is None:
        text = "is missing: the program and its arguments, such as [python3, -m, http.server, '80']"
        reader.problem(path, text)
        return ()
    if isinstance(value, str):
        try:
            words = shlex.split(_text(reader, value, path))
        except ValueError as error:
            reader.problem(path, f"{show(value)} cannot be split into words: {str(error).lower()}")
            return ()
    else:
        items = enumerate(reader.sequence(value, path))
        words = [_value(reader, item, f"{path}[{i}]") for i, item in items]
    if not words or not words[0]:
        if isinstance(value, (str, list, tuple)):
            reader.problem(path, f"{show(value)} names no program")
    elif "/" in words[0] and not words[0].startswith("/"):
        reader.problem(path, f"{words[0]!r} is no absolute path of a program, and no name without '/' either")
    return tuple(words)


def _value(reader: Reader, value: Any, path: str) -> str:
    """A string, or a number as it is written: ports are arguments and values of variables most often."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return _text(reader, value, path)


def _variables(reader: Reader, value: Any, path: str) -> Mapping[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        reader.problem(path, "is no dictionary of variables and their values")
        return {}
    return reader.mapping(value, path)


def _secret(reader: Reader, value: Any, path: str) -> str:
    """The same, without a word of what the value is."""
    silent = Reader()
    text = _value(silent, value, path)
    if silent.problems:
        reader.problem(path, "is no text that a variable can have; true, false and lists are none without quotes")
    return text


def _text(reader: Reader, value: Any, path: str) -> str:
    text = reader.string(value, path)
    if "\0" in text:
        reader.problem(path, f"{show(value)} has the byte 0 in it, with which the kernel sees a text end")
        return ""
    return text


def _account(reader: Reader, value: Any, path: str, what: str) -> str:
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(reader.integer(value, path, 0, 2**32 - 2))
    name = reader.string(value, path)
    if isinstance(value, str) and not _ACCOUNT.fullmatch(name):
        reader.problem(path, f"{show(value)} is no name of {what}")
    return name


def _directory(reader: Reader, value: Any, path: str) -> str:
    if value is None:
        return ""
    text = _text(reader, value, path)
    if isinstance(value, str) and not text.startswith("/"):
        reader.problem(path, f"{show(value)} is no absolute path")
    return text


def _restart(reader: Reader, value: Any, path: str) -> str:
    if value is None:
        return RESTARTS[0]
    # `restart: no` without quotes is a boolean for YAML.
    return reader.choice("no" if value is False else value, path, RESTARTS)
