# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab of containers comes and goes a thousand times in one process, and nothing grows."""

from __future__ import annotations

import gc
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.nslab.netns.plugins.module_utils._model import _interface
from ansible_collections.nslab.netns.tests.unit.topologies import Document
from applying import run
from counting import count
from oracle import look
from throwaway import differences, eventually, throwaway_host

CYCLES = int(os.environ.get("NSLAB_CYCLES", "1000"))
#: After so many the allocator has what it needs for one.
_WARM = 100
#: What is seen once is no growth; what comes back in each of so many parts is.
_PARTS = 3

_CONTAINERS = Path(__file__).parent.parent.parent / "playbooks/topologies/containers.yml"


def resources() -> dict[str, Any]:
    """What could grow: in this process, and in the kernel."""
    nsids = subprocess.run(["ip", "netns", "list-id"], capture_output=True, text=True, check=True).stdout
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    return {
        "file descriptors": len(os.listdir("/proc/self/fd")),
        "mounts": len(Path("/proc/thread-self/mountinfo").read_text().splitlines()),
        "nsids": sorted(line for line in nsids.splitlines() if "name" in line),
        "nft tables": tables.split("\n"),
        "files": sorted(os.path.join(top, name) for top, _folders, names in os.walk("/run") for name in names),
        "etc": sorted(os.listdir("/etc")) + sorted(os.listdir("/etc/netns") if os.path.isdir("/etc/netns") else []),
    }


def allocated() -> int:
    """How many blocks of memory Python's objects take."""
    gc.collect()
    return sys.getallocatedblocks()


def memory_kib() -> int:
    """What the process holds, without files that are mapped."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon:")))


def test_a_thousand_times_there_and_back() -> None:
    """In a process of its own: what other tests have left in the allocator is no measure."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        pool.submit(_cycles).result()
    count("cycles of present and absent of the lab of containers", CYCLES)


def _cycles() -> None:
    document: Document = yaml.safe_load(_CONTAINERS.read_text())
    with throwaway_host():
        before = look()
        for _cycle in range(_WARM):
            _there_and_back(document)
        found, blocks = resources(), allocated()
        part = (CYCLES - _WARM) // _PARTS
        held = [memory_kib()]
        for _part in range(_PARTS):
            for _cycle in range(part):
                _there_and_back(document)
            held.append(memory_kib())
        assert resources() == found
        # One object that is left each time would show.
        grown = allocated() - blocks
        assert grown < part, f"{grown} objects more after {_PARTS * part} cycles"
        # So would two kilobytes of a library in C. Python's own allocator takes a whole megabyte at a time, now
        # and then.
        grown = min(after - earlier for earlier, after in zip(held, held[1:]))
        assert grown < 2 * part, f"at least {grown} KiB more after {part} cycles: {held}"
        eventually(lambda: not differences(before, look()), "the host is as before")


def _there_and_back(document: Document) -> None:
    # Up to 4,096 addresses that were read are kept, and each veth has new ones: it would take hundreds of cycles to see
    # that there are no more.
    _interface.cache_clear()
    assert run(document)
    assert run({"name": document["name"]}, absent=True)
