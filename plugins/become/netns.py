# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: netns
short_description: Run tasks inside a network namespace
version_added: 0.1.0
author:
  - nslab contributors (@nslab)
description:
  - Runs any module of any collection inside a network namespace of the managed host, over any connection plugin for hosts with a POSIX
    shell, with or without pipelining.
  - Inside, all is as with C(ip netns exec). There are the interfaces, addresses, routes, sockets and sysctls of the namespace, its own C(/sys),
    and the files of C(/etc/netns/NAME) in the place of those in C(/etc).
  - Only root can enter a namespace. If the connection is another user's, C(sudo) is used on the way.
requirements:
  - C(nsenter), C(unshare), C(mount), and C(runuser) for other users than root, on the managed host (util-linux)
  - C(sudo) on the managed host, if the connection is not root's
options:
  netns_name:
    description:
      - The namespace, a name in C(/run/netns). V(host) stands for the one that the connection leads to.
      - As a keyword of a task, block or play it is C(become_flags).
    type: str
    required: true
    keyword:
      - name: become_flags
    vars:
      - name: ansible_netns_name
  netns_sysfs:
    description:
      - Whether C(/sys) is the namespace's own. What reads C(/sys/class/net), as M(ansible.builtin.setup) does, needs that.
      - Without it, and without a folder C(/etc/netns/NAME), nothing is mounted, which makes each task a little faster on a host with many mounts.
    type: bool
    default: true
    ini:
      - section: netns_become_plugin
        key: sysfs
    env:
      - name: ANSIBLE_NETNS_SYSFS
    vars:
      - name: ansible_netns_sysfs
  become_user:
    description:
      - The user that tasks run as inside.
    type: str
    default: root
    ini:
      - section: privilege_escalation
        key: become_user
      - section: netns_become_plugin
        key: user
    keyword:
      - name: become_user
    env:
      - name: ANSIBLE_BECOME_USER
      - name: ANSIBLE_NETNS_USER
    vars:
      - name: ansible_become_user
      - name: ansible_netns_user
  become_exe:
    description:
      - The C(sudo) by which a connection that is not root's becomes root. A connection of root's does not need it.
    type: str
    default: sudo
    ini:
      - section: netns_become_plugin
        key: executable
    keyword:
      - name: become_exe
    env:
      - name: ANSIBLE_NETNS_EXE
    vars:
      - name: ansible_netns_exe
  become_pass:
    description:
      - The password for C(sudo).
    type: str
    ini:
      - section: netns_become_plugin
        key: password
    env:
      - name: ANSIBLE_BECOME_PASS
      - name: ANSIBLE_NETNS_PASS
    vars:
      - name: ansible_become_password
      - name: ansible_become_pass
      - name: ansible_netns_pass
notes:
  - The inventory plugin P(nslab.netns.namespaces#inventory) makes a host of each namespace of a topology document, with these variables set.
seealso:
  - plugin: nslab.netns.namespaces
    plugin_type: inventory
"""

EXAMPLES = r"""
- name: Two namespaces to go into
  hosts: localhost
  tasks:
    - name: Build a pair
      nslab.netns.topology:
        topology:
          name: pair
          namespaces:
            left: {interfaces: {eth0: {addresses: [192.0.2.1/24]}}}
            right: {interfaces: {eth0: {addresses: [192.0.2.2/24]}}}
          links:
            - endpoints: ["left:eth0", "right:eth0"]
      become: true

    - name: Look around in one of them
      ansible.builtin.command: ip -brief address
      changed_when: false
      become: true
      become_method: nslab.netns.netns
      vars:
        ansible_netns_name: left

    - name: See from there whether the other one answers
      ansible.builtin.command: ping -c 1 -w 5 192.0.2.2
      changed_when: false
      become: true
      become_method: nslab.netns.netns
      become_flags: left
"""

import shlex
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.become import BecomeBase

from ..module_utils._entering import inside
from ..module_utils._model import HOST
from ..module_utils._reader import name_problem

#: Arguments: a command. Runs it as root.
_AS_ROOT = 'if [ "$(id -u)" = 0 ]; then exec "$@"; fi; exec {sudo} "$@"'

#: Arguments: a user, in the place of $0, and a command as text. Not everybody's PATH has what runuser is in.
_AS_USER = 'PATH="$PATH:/usr/sbin:/sbin"; exec runuser -s /bin/sh "$0" -c "$1"'


class _User(str):
    """A user that is another one for ``!=``.

    Ansible leaves become out where it would lead to the user that the connection has already
    (ActionBase._low_level_execute_command()). Here it is not the user who matters but the place.
    """

    __slots__ = ()
    __hash__ = str.__hash__

    def __ne__(self, other: object) -> bool:
        return True


class BecomeModule(BecomeBase):
    name = "nslab.netns.netns"

    # What sudo says of passwords.
    fail = ("Sorry, try again.",)
    missing = ("Sorry, a password is required to run sudo", "sudo: a password is required")

    def get_option(self, option: str, hostvars: Any = None, playcontext: Any = None) -> Any:
        value = super().get_option(option, hostvars=hostvars, playcontext=playcontext)
        return _User(value or "root") if option == "become_user" else value

    def build_become_command(self, cmd: str, shell: Any) -> str:
        """The command on the managed host that runs another one inside the namespace."""
        super().build_become_command(cmd, shell)
        if not cmd:
            return cmd
        name, user = str(self.get_option("netns_name")), str(self.get_option("become_user"))
        problem = name_problem(name)
        if problem:
            raise AnsibleError(f"nslab.netns.netns: netns_name (ansible_netns_name): {problem}")
        inner = ["/bin/sh", "-c", *([] if user == "root" else [_AS_USER, user])]
        if name != HOST:
            inner = inside(name, inner, sysfs=self.get_option("netns_sysfs"))
        words = ["/bin/sh", "-c", _AS_ROOT.format(sudo=self._sudo()), "nslab", *inner]
        # What is to be run has its quotes already.
        return f"{shlex.join(words)} {self._build_success_command(cmd, shell, noexe=True)}"

    def _sudo(self) -> str:
        words = [self.get_option("become_exe") or "sudo", "-H", "-S"]
        if self.get_option("become_pass"):
            self.prompt = f"[sudo via ansible, key={self._id}] password:"
            words += ["-p", self.prompt]
        else:
            words.append("-n")
        return shlex.join([*words, "--"])
