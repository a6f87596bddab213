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
  - Reads topology documents and makes every namespace in them a host of the inventory. Tasks for it run inside, by the become plugin
    P(nslab.netns.netns#become), over the connection of the machine on which the lab stands.
  - A host is called as its namespace is. If that name is taken, by a namespace of another lab, of another machine, or by something else in
    the inventory, it is called V(lab/namespace@machine).
  - The configuration is a file whose name ends in C(netns.yml) or C(netns.yaml), such as C(lab.netns.yml).
extends_documentation_fragment:
  - ansible.builtin.constructed
options:
  plugin:
    description:
      - The name of this plugin.
    type: str
    required: true
    choices: [nslab.netns.namespaces]
  topologies:
    description:
      - The files with the documents, relative to the configuration.
    type: list
    elements: path
    required: true
  machines:
    description:
      - The machines on which all of these labs stand, by the names or groups that they have in an inventory that was read before.
        V(localhost) need not be in any.
      - A namespace has all variables of its machine that begin with C(ansible_), those of C(group_vars) and C(host_vars) beside the inventory included,
        but for those that say how to become another user. A password for C(sudo) is kept.
    type: list
    elements: str
    default: [localhost]
notes:
  - Each host is in the groups C(lab_NAME) and C(machine_NAME), and in the C(groups) that the document says at its namespace.
    C(keyed_groups) with the key C(netns_labels) makes groups of labels.
  - Its variables are C(netns_lab), C(netns_machine), C(netns_labels) and C(netns_interfaces) (for each interface its addresses), the
    document's C(vars) of the namespace, and those of the connection.
seealso:
  - plugin: nslab.netns.netns
    plugin_type: become
  - module: nslab.netns.topology
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
"""

import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from ansible.errors import AnsibleError, AnsibleParserError
from ansible.inventory.helpers import get_group_vars
from ansible.plugins.inventory import BaseFileInventoryPlugin, Constructable
from ansible.utils.vars import combine_vars
from ansible.vars.plugins import get_vars_from_inventory_sources

from ..module_utils._document import Topology, read_topology
from ..module_utils._errors import InvalidInput

Variables = dict[str, Any]

_LOCALHOST = "localhost"

#: Those of a machine that a namespace does not have.
_OF_BECOMING = {
    "ansible_become",
    "ansible_become_exe",
    "ansible_become_flags",
    "ansible_become_method",
    "ansible_become_user",
}


class _Place(NamedTuple):
    """A namespace of a lab on a machine."""

    lab: str
    namespace: str
    machine: str

    def __str__(self) -> str:
        return f"{self.lab}/{self.namespace}@{self.machine}"


class InventoryModule(BaseFileInventoryPlugin, Constructable):
    NAME = "nslab.netns.namespaces"

    def verify_file(self, path: str) -> bool:
        return bool(super().verify_file(path)) and path.endswith(("netns.yml", "netns.yaml"))

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        machines = {name: self._connection(name) for name in self._machines()}
        labs: dict[str, Topology] = {}
        for file in self.get_option("topologies"):
            topology = self._read(file)
            if topology.wanted.lab in labs:
                raise AnsibleParserError(f"{file}: there is another document of a lab {topology.wanted.lab!r}")
            labs[topology.wanted.lab] = topology
        places = [
            _Place(lab, namespace, machine)
            for machine in machines
            for lab, topology in labs.items()
            for namespace in topology.nodes
        ]
        taken = Counter(place.namespace for place in places) + Counter([*inventory.hosts, *inventory.groups])
        for place in places:
            name = place.namespace if taken[place.namespace] == 1 else str(place)
            self._add(name, place, labs[place.lab], machines[place.machine])

    def _read(self, file: str) -> Topology:
        try:
            # Variables of the document may be templates, as those of any inventory.
            return read_topology(self.loader.load_from_file(file, trusted_as_template=True))
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

    def _connection(self, name: str) -> Variables:
        """The variables by which the machine is reached and entered."""
        host = self.inventory.hosts.get(name)
        if host is None:
            return {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        sources = getattr(self.inventory, "processed_sources", [])
        groups = sorted(host.get_groups(), key=lambda group: (group.depth, group.priority, group.name))
        found: Variables = {"ansible_host": name}
        for variables in (
            get_group_vars(groups),
            get_vars_from_inventory_sources(self.loader, sources, groups, "all"),
            host.vars,
            get_vars_from_inventory_sources(self.loader, sources, [host], "all"),
        ):
            found = combine_vars(found, variables)
        return {key: value for key, value in found.items() if key.startswith("ansible_") and key not in _OF_BECOMING}

    # --- namespaces --------------------------------------------------------------------------------------------------

    def _add(self, name: str, place: _Place, topology: Topology, connection: Mapping[str, Any]) -> None:
        node = topology.nodes[place.namespace]
        links = topology.wanted.namespaces[place.namespace].links.values()
        self.inventory.add_host(name)
        for key, value in {
            **connection,
            "ansible_become": True,
            "ansible_become_method": "nslab.netns.netns",
            "ansible_netns_name": place.namespace,
            "netns_lab": place.lab,
            "netns_machine": place.machine,
            "netns_labels": dict(node.labels),
            "netns_interfaces": {link.name: [item.value.address for item in link.addresses] for link in links},
            **node.variables,
        }.items():
            self.inventory.set_variable(name, key, value)
        for group in (f"lab_{place.lab}", f"machine_{place.machine}", *node.groups):
            self.inventory.add_child(self.inventory.add_group(self._sanitize_group_name(group)), name)
        strict = self.get_option("strict")
        variables = self.inventory.hosts[name].get_vars()
        self._set_composite_vars(self.get_option("compose"), variables, name, strict=strict)
        self._add_host_to_composed_groups(self.get_option("groups"), variables, name, strict=strict)
        self._add_host_to_keyed_groups(self.get_option("keyed_groups"), variables, name, strict=strict)
