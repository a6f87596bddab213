# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What another user has planted where root writes is not followed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ansible_collections.nslab.netns.plugins.module_utils._errors import NslabError
from ansible_collections.nslab.netns.tests.unit.topologies import Document
from applying import run
from counting import count
from throwaway import ip, throwaway_host

#: Somebody who is not root.
USER = 65534

DOCUMENT: Document = {"name": "lab", "namespaces": {"a": {}, "host": {"sysctls": {"net.ipv4.ip_forward": 1}}}}


@pytest.fixture(autouse=True)
def victim(tmp_path: Path) -> Iterator[Path]:
    """A file of root's that somebody would like to see written to, on a throw-away host."""
    with throwaway_host():
        file = Path("/run/victim")
        file.write_text("untouched")
        yield file
        assert file.read_text() == "untouched"
        assert os.stat(file).st_mode & 0o777 == 0o644
        assert os.stat(file).st_nlink <= 2
        count("plants of another user that were not followed")


def _link(name: str) -> Callable[[Path], None]:
    def plant(victim: Path) -> None:
        os.makedirs("/run/nslab", 0o700, exist_ok=True)
        Path(f"/run/nslab/{name}").symlink_to(victim)

    return plant


def _folder(path: str) -> Callable[[Path], None]:
    """A folder of the user's own in the place of root's, with a link in it."""

    def plant(victim: Path) -> None:
        os.mkdir(path, 0o755)
        for name in ("lock", "lab-lab.jsonl", ".lab-lab.jsonl.new", "a", "pending.sock"):
            Path(f"{path}/{name}").symlink_to(victim)
        os.chown(path, USER, USER)

    return plant


def _folder_by_symlink(path: str) -> Callable[[Path], None]:
    def plant(victim: Path) -> None:
        os.mkdir("/run/theirs", 0o777)
        (Path("/run/theirs") / "a").symlink_to(victim)
        Path(path).symlink_to("/run/theirs")

    return plant


def _open_folder(path: str) -> Callable[[Path], None]:
    def plant(_victim: Path) -> None:
        os.mkdir(path)
        os.chmod(path, 0o777)  # noqa: S103 - as it must not be

    return plant


REFUSED = {
    "a symlink in the place of the lock": _link("lock"),
    "a symlink in the place of the memory": _link("lab-lab.jsonl"),
    "a folder of the user's for ours": _folder("/run/nslab"),
    "a symlink for our folder": _folder_by_symlink("/run/nslab"),
    "our folder open to all": _open_folder("/run/nslab"),
    "a folder of the user's for that of ip netns": _folder("/run/netns"),
    "a symlink for the folder of ip netns": _folder_by_symlink("/run/netns"),
    "the folder of ip netns open to all": _open_folder("/run/netns"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_refused_in_words_and_nothing_is_done(victim: Path, what: str) -> None:
    REFUSED[what](victim)
    before = {path: os.lstat(path).st_ino for path in Path("/run").rglob("*")}
    with pytest.raises(NslabError):
        run(DOCUMENT)
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == "0\n"
    after = {path: os.lstat(path).st_ino for path in Path("/run").rglob("*")}
    made = {path for path in after if path not in before} - {Path("/run/nslab"), Path("/run/nslab/lock")}
    assert not made
    assert all(after.get(path) == inode for path, inode in before.items())


def test_a_symlink_in_the_place_of_a_namespace_is_no_namespace(victim: Path) -> None:
    ip("netns", "add", "other")
    Path("/run/netns/a").symlink_to(victim)
    with pytest.raises(NslabError, match="is a symlink to /run/victim, which is no namespace"):
        run(DOCUMENT)
    assert os.path.islink("/run/netns/a")


def test_a_hard_link_in_the_place_of_a_namespace_is_only_unlinked(victim: Path) -> None:
    """It looks like a stale file; what it is a link to stays as it is."""
    os.mkdir("/run/netns", 0o755)
    os.link(victim, "/run/netns/a")
    assert run(DOCUMENT)
    assert run(DOCUMENT) == []
    run({"name": "lab"}, absent=True)


def test_a_hard_link_in_the_place_of_the_memory_or_the_lock_is_not_written(victim: Path) -> None:
    os.makedirs("/run/nslab", 0o700)
    for name in ("lock", "lab-lab.jsonl"):
        Path(f"/run/nslab/{name}").unlink(missing_ok=True)
        os.link(victim, f"/run/nslab/{name}")
        with pytest.raises(NslabError, match="has more than one name"):
            run(DOCUMENT)
        os.unlink(f"/run/nslab/{name}")
