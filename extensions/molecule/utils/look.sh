#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# What a lab may change on a machine, as iproute2, nft and iptables tell it. Interfaces get new numbers as they come home.
# Kept in /root/NAME; with the name of an earlier look as well, it says what is different, and fails if anything is.
# The lock is a file that stays, and so is the note of what was taken back last.
set -eu

look() {
    ip -details address | sed -E 's/^[0-9]+: //; s/valid_lft [0-9a-z]+ preferred_lft [0-9a-z]+//; s/[a-z_]+_timer +[0-9.]+//g'
    # Those of one prefix stand in the order in which their interfaces have come.
    ip route show table all | sort
    ip -6 route show table all | sort
    ip rule
    ip netns list
    nft -s list ruleset 2> /dev/null
    iptables-save | sed '/^#/d; s/\[[0-9]*:[0-9]*\]$//'
    sysctl -a 2> /dev/null | grep '^net\.' | grep -vE 'neigh\.|nf_conntrack_|stable_secret|netfilter\.'
    find /run/netns /etc/netns /run/nslab /run/systemd/system -mindepth 1 ! -name lock ! -name reverted.json 2> /dev/null | sort
}

look > "/root/$1"
test -z "${2:-}" || diff "/root/$2" "/root/$1"
