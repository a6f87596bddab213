#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# What a lab may change on a machine, as iproute2, nft and iptables tell it. Interfaces get new numbers as they come home.
set -eu
ip -details address | sed -E 's/^[0-9]+: //; s/valid_lft [0-9a-z]+ preferred_lft [0-9a-z]+//'
ip route show table all
ip -6 route show table all
ip rule
ip netns list
nft list ruleset
iptables-save | grep -v '^#' || true
sysctl -a 2> /dev/null | grep '^net\.' | grep -vE 'neigh\.|nf_conntrack_count|stable_secret|netfilter\.'
find /run/netns /etc/netns /run/nslab -mindepth 1 ! -name lock 2> /dev/null | sort
