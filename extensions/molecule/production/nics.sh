#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Fails unless two NICs are in their namespaces, and no longer on the host.
set -eux
ip -n tunnel -details link show wan | grep 'parentbus virtio'
ip -n provider -details link show lan | grep 'parentbus virtio'
test ! -e /sys/class/net/enp0s5
test ! -e /sys/class/net/enp0s6
