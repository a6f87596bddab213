# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: namespaces
short_description: The namespaces of labs as hosts of the inventory
version_added: 0.1.0
author:
  - nslab contributors (@nslab)
description:
  - Reads topology documents, or looks into machines, and makes every namespace that it finds a host of the inventory. Tasks for it run inside,
    by the become plugin P(nslab.netns.netns#become), over the connection of the machine on which the namespace stands.
  - A host is called as its namespace is. If that name is taken, by a namespace of another lab, of another machine, or by something else in
    the inventory, it is called V(lab/namespace@machine), or V(namespace@machine) if it is of no lab.
  - The configuration is a file whose name ends in C(netns.yml) or C(netns.yaml), such as C(lab.netns.yml).
extends_documentation_fragment:
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
options:
  plugin:
    description:
      - The name of this plugin.
    type: str
    required: true
    choices: [nslab.netns.namespaces]
  topologies:
    description:
      - The files with the documents, relative to the configuration. Without O(live) there has to be one.
    type: list
    elements: path
    default: []
  machines:
    description:
      - The machines on which all of these labs stand, by the names or groups that they have in an inventory that was read before.
        V(localhost) need not be in any. Of a document that has C(hosts), each machine has the namespaces of the host of its name, or
        of that in its variable C(lab_host).
      - A namespace has all variables of its machine that begin with C(ansible_), those of C(group_vars) and C(host_vars) beside the inventory included,
        but for those that say how to become another user. A password for C(sudo) is kept.
      - Such a variable that is a template stays one of the machine, whose C(inventory_hostname) it means.
    type: list
    elements: str
    default: [localhost]
  live:
    description:
      - Look into O(machines), with M(nslab.netns.netns_info), and make hosts of the namespaces that stand there now as well, whoever has made
        them. One that a document names too is one host, and is as the document says.
      - C(ansible-playbook) is run for that, each time that the inventory is read, with the inventories that were read before this one. It has the
        environment and the configuration of whoever reads the inventory, but not the options of the command line, such as C(--user),
        C(--ask-become-pass) or C(--extra-vars), and can ask for nothing. Variables that stand beside a playbook are not seen.
      - A machine that does not answer is a warning, and its namespaces are missing, unless a document names them. With O(strict) it is an error.
      - With O(cache) what was found is kept for a time, if all machines have answered.
    type: bool
    default: false
  live_become:
    description:
      - Whether to become root for that, as tasks with C(become) do on the machine. Its variables, such as C(ansible_become), go before.
      - If it is another user's connection, nothing can be seen without.
    type: bool
    default: true
  live_timeout:
    description:
      - How many seconds a machine has to answer with O(live).
    type: int
    default: 60
notes:
  - Each host is in the groups C(lab_NAME) and C(machine_NAME), and in the C(groups) that the document says at its namespace.
    C(keyed_groups) with the key C(netns_labels) makes groups of labels.
  - Its variables are C(netns_lab), C(netns_machine), C(netns_hostname), C(netns_labels) and C(netns_interfaces) (for each interface its
    addresses), the document's C(vars) of the namespace, and those of the connection. C(netns_lab) and C(netns_hostname) are empty for a
    namespace without.
  - What a document says of groups, labels and variables is not on the machine. A namespace that O(live) has found, and no document, has none of
    these. Its addresses are those that somebody has set, without the kernel's own.
seealso:
  - plugin: nslab.netns.netns
    plugin_type: become
  - module: nslab.netns.topology
  - module: nslab.netns.netns_info
"""

EXAMPLES = r"""
# lab.netns.yml, beside routed.yml, which has a topology document.
# Then: ansible-inventory -i lab.netns.yml --graph
#       ansible -i lab.netns.yml server -m ansible.builtin.setup -a gather_subset=network
plugin: nslab.netns.namespaces
topologies: [routed.yml]

---
# The same lab on each machine of a group, with a group for each label.
# ansible -i hosts.ini -i labs.netns.yml role_gateway -m ansible.builtin.ping
plugin: nslab.netns.namespaces
topologies: [routed.yml]
machines: [labs]
keyed_groups:
  - key: netns_labels
leading_separator: false

---
# Whatever stands on these machines now, asked for at most every ten minutes.
# ansible -i hosts.ini -i standing.netns.yml machine_edge1 -m ansible.builtin.command -a "ip -brief address"
plugin: nslab.netns.namespaces
machines: [labs]
live: true
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.cache/netns-inventory
cache_timeout: 600
"""

import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ansible.errors import AnsibleError, AnsibleParserError
from ansible.inventory.helpers import get_group_vars
from ansible.plugins.inventory import BaseFileInventoryPlugin, Cacheable, Constructable
from ansible.template import trust_as_template
from ansible.utils.vars import combine_vars
from ansible.vars.plugins import get_vars_from_inventory_sources

from ..module_utils._document import Topology, read_parts
from ..module_utils._errors import InvalidInput
from ..module_utils._model import HOSTNAME
from ..plugin_utils._live import LiveError, Standing, ask, problem_of, standing

Variables = dict[str, Any]

_LOCALHOST = "localhost"
_ENDINGS = ("netns.yml", "netns.yaml")

#: Those of a machine that a namespace does not have.
_OF_BECOMING = {
    "ansible_become",
    "ansible_become_exe",
    "ansible_become_flags",
    "ansible_become_method",
    "ansible_become_user",
}


class _Place(NamedTuple):
    """A namespace of a lab, or of none, on a machine."""

    lab: str
    namespace: str
    machine: str

    def __str__(self) -> str:
        return f"{self.lab}/{self.namespace}@{self.machine}".lstrip("/")


class _Known(NamedTuple):
    """What is known of a namespace."""

    hostname: str
    interfaces: dict[str, list[str]]
    groups: Sequence[str] = ()
    labels: Mapping[str, str] = {}
    variables: Mapping[str, Any] = {}


class InventoryModule(BaseFileInventoryPlugin, Constructable, Cacheable):
    NAME = "nslab.netns.namespaces"

    def verify_file(self, path: str) -> bool:
        return bool(super().verify_file(path)) and path.endswith(_ENDINGS)

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        if not (self.get_option("topologies") or self.get_option("live")):
            raise AnsibleParserError("topologies: is missing; without documents, say 'live: true'")
        variables = {name: self._variables(name) for name in self._machines()}
        machines = {name: self._connection(name, known) for name, known in variables.items()}
        hosts = {name: self._host_of_documents(name, known) for name, known in variables.items()}
        labs: dict[str, dict[str, Topology]] = {}
        folder = os.path.dirname(os.path.abspath(path))
        for file in self.get_option("topologies"):
            # Ansible would look for it beside the playbook.
            parts = self._read(os.path.join(folder, file))
            lab = next(iter(parts.values())).wanted.lab
            if lab in labs:
                raise AnsibleParserError(f"{file}: there is another document of a lab {lab!r}")
            labs[lab] = parts
            strange = sorted(set(parts) - set(hosts.values()) - {""})
            if strange:
                text = f"{file}: the hosts {', '.join(strange)} of the lab {lab} are none of the 'machines'"
                self.display.warning(f"nslab.netns.namespaces: {text}, so that their namespaces are missing")
        places = {
            _Place(lab, namespace, machine): _described(topology, namespace)
            for machine in machines
            for lab, parts in labs.items()
            for topology in [parts.get("") or parts.get(hosts[machine])]
            if topology
            for namespace in topology.nodes
        }
        if self.get_option("live"):
            self._add_standing(places, self._look(list(machines), path, cache))
        taken = Counter(place.namespace for place in places) + Counter([*inventory.hosts, *inventory.groups])
        for place, known in places.items():
            name = place.namespace if taken[place.namespace] == 1 else str(place)
            self._add(name, place, known, machines[place.machine])

    def _read(self, file: str) -> dict[str, Topology]:
        """What a document has for each of its hosts; that of one without hosts is for all machines."""
        try:
            # Variables of the document may be templates, as those of any inventory.
            return read_parts(self.loader.load_from_file(file, trusted_as_template=True))
        except InvalidInput as error:
            raise AnsibleParserError(f"{file}: {error}") from error
        except AnsibleError as error:
            raise AnsibleParserError(f"{file} cannot be read: {error}") from error

    # --- machines ----------------------------------------------------------------------------------------------------

    def _machines(self) -> list[str]:
        found: dict[str, None] = {}
        for name in self.get_option("machines"):
            if name in self.inventory.groups:
                found.update(dict.fromkeys(host.name for host in self.inventory.groups[name].get_hosts()))
            elif name in self.inventory.hosts or name == _LOCALHOST:
                found[name] = None
            else:
                raise AnsibleParserError(
                    f"machines: {name!r} is no host and no group of an inventory that was read before this one"
                )
        return list(found)

    def _variables(self, name: str) -> Variables:
        """All that the inventory and the folders beside it say of a machine."""
        host = self.inventory.hosts.get(name)
        if host is None:
            return {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        sources = getattr(self.inventory, "processed_sources", [])
        # A group of an inventory is under "all" only when all inventories have been read.
        groups = sorted(
            {self.inventory.groups["all"], *host.get_groups()},
            key=lambda group: (group.depth, group.priority, group.name),
        )
        found: Variables = {"ansible_host": name}
        for variables in (
            get_group_vars(groups),
            get_vars_from_inventory_sources(self.loader, sources, groups, "all"),
            host.vars,
            get_vars_from_inventory_sources(self.loader, sources, [host], "all"),
        ):
            found = combine_vars(found, variables)
        return found

    def _connection(self, name: str, variables: Variables) -> Variables:
        """The variables by which the machine is reached and entered."""
        return {
            key: self._of_machine(name, key, value)
            for key, value in variables.items()
            if key.startswith("ansible_") and key not in _OF_BECOMING
        }

    def _host_of_documents(self, name: str, variables: Variables) -> str:
        """Which of a document's hosts the machine is, as the roles and playbooks say it."""
        known = {**variables, "inventory_hostname": name}
        templar = self.templar.copy_with_new_env(available_variables=known)
        try:
            return str(templar.template(variables.get("lab_host", name)))
        except AnsibleError as error:
            raise AnsibleParserError(f"machines: the lab_host of {name} cannot be told: {error}") from error

    def _of_machine(self, machine: str, key: str, value: Any) -> Any:
        """A template is of the machine: what it says of an ``inventory_hostname`` means that one, and no namespace."""
        if self.templar.is_template(value):
            return trust_as_template(f"{{{{ hostvars[{machine!r}][{key!r}] }}}}")
        return value

    # --- what stands -------------------------------------------------------------------------------------------------

    def _look(self, machines: list[str], path: str, cache: bool) -> dict[str, dict[str, Standing]]:
        """The namespaces of those machines that have answered, from the cache or from themselves."""
        key = self.get_cache_key(path)
        if cache and self.get_option("cache"):
            kept = self._cache.get(key)
            if kept and set(kept) == set(machines):
                return dict(kept)
        # Further namespaces are no machines, and would be looked for once more by each reader.
        sources = [s for s in dict.fromkeys(self.inventory.processed_sources) if not s.endswith(_ENDINGS)]
        try:
            results = ask(machines, sources, self.get_option("live_become"), self.get_option("live_timeout"))
        except LiveError as error:
            raise AnsibleParserError(f"live: {error}") from error
        problems = [problem for machine in machines if (problem := problem_of(machine, results))]
        if problems and self.get_option("strict"):
            raise AnsibleParserError("live: " + "; ".join(problems))
        for problem in problems:
            self.display.warning(f"nslab.netns.namespaces: live: {problem}")
        found = {machine: standing(results[machine]) for machine in machines if not problem_of(machine, results)}
        if self.get_option("cache") and not problems:
            self._cache[key] = found
        return found

    def _add_standing(self, places: dict[_Place, _Known], found: Mapping[str, Mapping[str, Standing]]) -> None:
        """Add those that no document names. One without a mark is the one that a document has by its name."""
        described = {(place.namespace, place.machine) for place in places}
        for machine, namespaces in found.items():
            for name, facts in namespaces.items():
                if facts["lab"] or (name, machine) not in described:
                    place = _Place(facts["lab"], name, machine)
                    places.setdefault(place, _Known(facts["hostname"], facts["interfaces"]))

    # --- namespaces --------------------------------------------------------------------------------------------------

    def _add(self, name: str, place: _Place, known: _Known, connection: Mapping[str, Any]) -> None:
        self.inventory.add_host(name)
        for key, value in {
            **connection,
            "ansible_become": True,
            "ansible_become_method": "nslab.netns.netns",
            "ansible_netns_name": place.namespace,
            "netns_lab": place.lab,
            "netns_machine": place.machine,
            "netns_hostname": known.hostname,
            "netns_labels": dict(known.labels),
            "netns_interfaces": known.interfaces,
            **known.variables,
        }.items():
            self.inventory.set_variable(name, key, value)
        labs = [f"lab_{place.lab}"] if place.lab else []
        for group in (*labs, f"machine_{place.machine}", *known.groups):
            self.inventory.add_child(self.inventory.add_group(self._sanitize_group_name(group)), name)
        strict = self.get_option("strict")
        variables = self.inventory.hosts[name].get_vars()
        self._set_composite_vars(self.get_option("compose"), variables, name, strict=strict)
        self._add_host_to_composed_groups(self.get_option("groups"), variables, name, strict=strict)
        self._add_host_to_keyed_groups(self.get_option("keyed_groups"), variables, name, strict=strict)


def _described(topology: Topology, name: str) -> _Known:
    node, wanted = topology.nodes[name], topology.wanted.namespaces[name]
    hostname = wanted.node[HOSTNAME][0] if HOSTNAME in wanted.node else ""
    interfaces = {link.name: [item.value.address for item in link.addresses] for link in wanted.links.values()}
    return _Known(hostname, interfaces, node.groups, node.labels, node.variables)
