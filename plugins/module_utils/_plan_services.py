# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The part of planning that is about services. Pure, as all of planning.

Private to the collection: no stable interface.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from . import _changes as c
from ._errors import FOREIGN, Problem
from ._model import HOST, WantedNamespace, WantedService
from ._service import Definition, Service, ServiceKey

if TYPE_CHECKING:
    from ._plan import Planner


class Services:
    """Plans what runs in namespaces: it ends before anything else changes, and begins when all else is done."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self._wanted = planner.wanted

    def remove(self, going: Collection[str]) -> None:
        """End what goes with namespaces, what has left the document, and what runs in namespaces that are gone."""
        self._check_host()
        self._planner.result.warnings += self._planner.before.unreadable_services.values()
        for key, service in list(self._planner.state.services.items()):
            wanted = self._wanted.namespaces.get(key.namespace)
            if service.state == "foreign":
                if wanted and key.name in wanted.absent_services:
                    self._planner.problem(wanted.absent_services[key.name], _foreign(key, service), FOREIGN)
                continue
            if self._goes_along(key, service, going):
                self._end(key, service, wanted.path if wanted else "")
            elif self._is_surplus(key, service, wanted):
                self._end(key, service, wanted.absent_services.get(key.name, wanted.path) if wanted else "")

    def _check_host(self) -> None:
        text, host = self._planner.state.no_host_services, self._wanted.namespaces.get(HOST)
        if text and host:
            paths = [item.path for item in host.services.values()] or [*host.absent_services.values(), host.path]
            self._planner.problem(paths[0], text)

    def _end(self, key: ServiceKey, service: Service, path: str) -> None:
        self._warn(key, service)
        self._planner.do(c.SetService(*key, None, service, path))

    def _goes_along(self, key: ServiceKey, service: Service, going: Collection[str]) -> bool:
        """Does it end with its namespace, which goes, or is gone?"""
        there = self._planner.state.namespaces.get(key.namespace)
        if there and key.namespace in going and there.inode == service.inode:
            return True
        # What runs in an earlier namespace of that name may be somebody else's.
        is_absent = key.namespace in self._wanted.absent_namespaces
        return is_absent and (there is None or key.namespace in going) and self._may_go(key, service)

    def _warn(self, key: ServiceKey, service: Service) -> None:
        """Say what alters a service and cannot be taken for a thing of this collection's."""
        if service.overrides:
            files = ", ".join(service.overrides)
            text = f"the unit of the service {key} is altered by {files}; it stays so until that is removed"
            self._planner.result.warnings.append(text)

    def _is_surplus(self, key: ServiceKey, service: Service, wanted: WantedNamespace | None) -> bool:
        if wanted and key.name in wanted.services:
            return False
        if self._wanted.prune and self._wanted.lab and service.lab == self._wanted.lab:
            return True
        if wanted is None:
            return False
        # Without a lab, purging is about the services of tasks without one.
        is_purged = wanted.purge_services and service.lab == self._wanted.lab
        return is_purged or (key.name in wanted.absent_services and self._may_go(key, service))

    def _may_go(self, key: ServiceKey, service: Service) -> bool:
        return self._planner.is_of_lab(f"the service {key}", service.lab)

    def set(self) -> None:
        for wanted in self._wanted.namespaces.values():
            for item in wanted.services.values():
                self._set(wanted, item)

    def _set(self, wanted: WantedNamespace, item: WantedService) -> None:
        key = ServiceKey(wanted.name, item.name)
        there = self._planner.state.services.get(key)
        definition = self._completed(item, there)
        if there and there.state == "foreign":
            self._planner.problem(item.path, _foreign(key, there), FOREIGN)
            return
        if there and self._planner.refuse_foreign(item.path, f"the service {key}", there.lab):
            return
        # Without a lab, what is there keeps the mark that it has.
        lab = self._wanted.lab or (there.lab if there else "")
        inode = self._planner.state.namespaces[wanted.name].inode
        service = Service(lab, definition, inode)
        if there:
            self._warn(key, there)
            service = service._replace(overrides=there.overrides)
        if there != service or inode == 0:
            self._planner.do(c.SetService(*key, service, there, item.path))

    def _completed(self, item: WantedService, there: Service | None) -> Definition:
        """The definition with the values of the environment that shall stay as they are."""
        known = dict(there.definition.environment) if there else {}
        kept = {}
        for variable in item.kept:
            if variable in known:
                kept[variable] = known[variable]
            else:
                # That it is missing is to be seen all the same, beside what else is to be done.
                kept[variable] = ""
                text = "has no value, and there is none that could stay; say it"
                self._planner.result.unsaid.append(Problem(f"{item.path}.environment.{variable}", text))
        environment = {**dict(item.definition.environment), **kept}
        return item.definition._replace(environment=tuple(sorted(environment.items())))


def _foreign(key: ServiceKey, service: Service) -> str:
    if service.overrides:
        files = ", ".join(service.overrides)
        return f"{files} would alter the unit of the service {key}, which is not there yet; remove it"
    return f"there is a unit of systemd for the service {key} that this collection has not made; remove it"
