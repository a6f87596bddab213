#!/bin/sh
# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Run a command on a throw-away host: network and mount namespaces of its own with a private /run and /sys, lo up. Nothing that the
# command does to the network can reach the machine, and all of it is gone when the last process ends.
# Without root it does the same in a user namespace, where the kernel and its administrator allow one.
set -eu

as_root=
[ "$(id -u)" -eq 0 ] || as_root='--user --map-root-user'

# shellcheck disable=SC2016,SC2086 # the inner shell expands; $as_root is two words or none
exec unshare $as_root --net --mount sh -euc '
    PATH="$PATH:/usr/sbin:/sbin"
    mount -t tmpfs -o mode=0755 tmpfs /run
    # /sys/class/net shows the network namespace in which it was mounted.
    mount -t sysfs sysfs /sys
    ip link set lo up
    exec "$@"
' throwaway-host "$@"
