# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images of Debian for virtual machines, made of its packages alone and kept in .cache/vm.

An image is a folder: the disk, the kernel and the initrd that the machine boots from, and the key that opens it. It is
made again when what it is made from has changed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from environment import CACHE, as_root, find_command, need_commands, say  # noqa: E402 - from the folder named above

HOME = CACHE / "vm"

#: What makes images and runs machines, by its Debian package.
COMMANDS = {
    "mmdebstrap": "mmdebstrap debian-archive-keyring",
    "mke2fs": "e2fsprogs",
    "qemu-img": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86 seabios ipxe-qemu",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
}

SUITES = ("bookworm", "trixie")
MIRROR = "http://deb.debian.org/debian"

#: What a server has anyway, and what the collection asks of it.
_SYSTEM = (
    "systemd-sysv", "udev", "dbus", "kmod", "procps", "sudo", "openssh-server", "iputils-ping", "python3",
    "python3-apt",
)  # fmt: skip
_NEEDED = ("python3-pyroute2", "python3-iptables", "iproute2", "iptables", "nftables")
#: What of that a role installs where it is missing. A machine has no network: these packages are in it, in a folder
#: that apt takes as a source.
_ALSO_PACKED = ("python3-nftables",)
_PACKED_IN = "srv/packages"
#: What ansible-test asks of a target whose coverage it measures.
_MEASURED = ("python3-coverage",)
_KERNEL = ("linux-image-cloud-amd64", "initramfs-tools", "zstd")

#: The disk of a machine. The file is only as large as what is written.
_DISK_SIZE = "3G"

#: The MAC address of the interface that ssh comes by. The others are left to the tests.
MANAGEMENT_MAC = "52:54:00:00:00:01"

_FILES = {
    "etc/fstab": "/dev/vda / ext4 noatime,errors=remount-ro 0 1\n",
    "etc/hostname": "vm\n",
    "etc/hosts": "127.0.0.1 localhost vm\n::1 localhost\n",
    "etc/systemd/network/10-management.network": (
        f"[Match]\nMACAddress={MANAGEMENT_MAC}\n\n[Network]\nAddress=10.0.2.15/24\nLinkLocalAddressing=no\n"
        "IPv6AcceptRA=no\n"
    ),
    "etc/initramfs-tools/conf.d/small.conf": "MODULES=list\nCOMPRESS=zstd\n",
    "etc/initramfs-tools/modules": "virtio_pci\nvirtio_blk\next4\n",
    "etc/ssh/sshd_config.d/fast.conf": "UseDNS no\nMaxStartups 100\n",
    "etc/sudoers.d/admin": "admin ALL=(ALL) NOPASSWD: ALL\n",
    "etc/systemd/journald.conf.d/small.conf": "[Journal]\nStorage=persistent\nSystemMaxUse=32M\n",
}
#: What a test machine has no use for, and takes seconds of an emulated processor.
_MASKED = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service",
    "fstrim.timer", "man-db.timer", "systemd-networkd-wait-online.service", "systemd-networkd-wait-online@.service",
    "getty@tty1.service", "serial-getty@ttyS0.service", "nftables.service",
)  # fmt: skip


class Image(NamedTuple):
    """An image that is ready."""

    suite: str
    folder: Path

    @property
    def disk(self) -> Path:
        return self.folder / "disk.qcow2"

    @property
    def kernel(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.folder / "initrd"


def key() -> Path:
    """The private key that opens all machines; made when it is missing."""
    path = HOME / "key"
    if not path.exists():
        HOME.mkdir(parents=True, exist_ok=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "nslab", "-f", str(path)], check=True)
    return path


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Only one at a time makes images."""
    HOME.mkdir(parents=True, exist_ok=True)
    with open(HOME / "lock", "w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def image(suite: str) -> Image:
    """The image of a suite of Debian, made if it is missing or out of date."""
    if suite not in SUITES:
        raise ValueError(f"there is no image {suite!r}; there are {', '.join(SUITES)}")
    need_commands(COMMANDS)
    recipe = hashlib.sha256(Path(__file__).read_bytes() + key().with_suffix(".pub").read_bytes()).hexdigest()
    found = Image(suite, HOME / "images" / suite)
    stamp = found.folder / "made-from"
    if not stamp.exists() or stamp.read_text() != recipe:
        say(f"Making the image {suite} in .cache/vm/images")
        # An interrupted run has left what is root's.
        subprocess.run(as_root(["rm", "-rf", str(found.folder)]), check=True)
        found.folder.mkdir(parents=True)
        with _log(found) as run:
            _make(found, run)
        stamp.write_text(recipe)
    return found


Run = Callable[..., None]


@contextlib.contextmanager
def _log(target: Image) -> Iterator[Run]:
    path = target.folder / "log"
    with open(path, "w", encoding="utf-8") as log:

        def run(*command: str | Path) -> None:
            answer = subprocess.run(
                as_root([str(word) for word in command]), stdout=log, stderr=log, stdin=subprocess.DEVNULL, check=False
            )
            if answer.returncode:
                last = path.read_text(errors="replace").splitlines()[-20:]
                raise SystemExit("\n".join([f"{command[0]} failed; the end of {path}:", *last]))

        yield run


def _make(target: Image, run: Run) -> None:
    root = target.folder / "root"
    packages = ",".join((*_SYSTEM, *_NEEDED, *_ALSO_PACKED, *_MEASURED, *_KERNEL))
    sources = [f"deb {MIRROR} {target.suite} main", f"deb {MIRROR}-security {target.suite}-security main"]
    run(
        "mmdebstrap", "--variant=minbase", f"--include={packages}", "--skip=check/empty", "--skip=cleanup/apt/cache",
        "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*", target.suite, root, *sources,
    )  # fmt: skip
    inside = [find_command("chroot") or "chroot", str(root)]
    _pack(root, run)
    run(*inside, "dpkg", "--purge", *_ALSO_PACKED)
    for path, text in _FILES.items():
        _write(root / path, text, run)
    _write(root / "root/.ssh/authorized_keys", key().with_suffix(".pub").read_text(), run)
    run(*inside, "useradd", "--create-home", "--shell", "/bin/bash", "admin")
    run("cp", "-r", root / "root/.ssh", root / "home/admin/.ssh")
    run(*inside, "chown", "-R", "admin:admin", "/home/admin/.ssh")
    run(*inside, "systemctl", "mask", *_MASKED)
    run(*inside, "systemctl", "enable", "systemd-networkd.service", "ssh.service")
    run(*inside, "ssh-keygen", "-A")
    _compile_once(root, inside, run)
    run(*inside, "update-initramfs", "-u")
    for name, pattern in (("vmlinuz", "vmlinuz-*"), ("initrd", "initrd.img-*")):
        run("cp", next((root / "boot").glob(pattern)), target.folder / name)
    run("mke2fs", "-q", "-t", "ext4", "-d", root, target.folder / "disk.raw", _DISK_SIZE)
    run("qemu-img", "convert", "-O", "qcow2", target.folder / "disk.raw", target.disk)
    run("rm", "-rf", root, target.folder / "disk.raw")


def _pack(root: Path, run: Run) -> None:
    """Keep the packages that are needed as a source of apt, and none of the others that were downloaded."""
    packed, cache = root / _PACKED_IN, root / "var/cache/apt/archives"
    run("mkdir", "-p", packed)
    index = []
    for name in (*_NEEDED, *_ALSO_PACKED):
        (package,) = cache.glob(f"{name}_*.deb")
        run("cp", package, packed / package.name)
        ask = ["dpkg-deb", "--field", str(package)]
        fields = subprocess.run(ask, capture_output=True, text=True, check=True).stdout
        content = package.read_bytes()
        more = {"Filename": f"./{package.name}", "Size": len(content), "SHA256": hashlib.sha256(content).hexdigest()}
        index.append(fields + "".join(f"{key}: {value}\n" for key, value in more.items()))
    _write(packed / "Packages", "\n".join(index), run)
    run("find", cache, "-name", "*.deb", "-delete")


def _compile_once(root: Path, inside: Sequence[str], run: Run) -> None:
    """Have the Python of the system compile each file only once: its own now, and what Ansible sends it as it comes."""
    run(*inside, "python3", "-m", "compileall", "-q", "/usr/lib/python3", "/usr/lib/python3/dist-packages")
    # Debian's Python has a sitecustomize already, which is for a program that is not there.
    for library in (root / "usr/lib").glob("python3.*"):
        run("rm", "-f", library / "sitecustomize.py")
        run("cp", ROOT / "tests/compiled/sitecustomize.py", library)
        run("mkdir", library / "compiled")


def _write(path: Path, text: str, run: Run) -> None:
    """A file in the new system, which root owns."""
    run("install", "-D", "-m", "0644", "/dev/null", path)
    subprocess.run(as_root(["tee", str(path)]), input=text, text=True, stdout=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    for each in sys.argv[1:] or SUITES:
        say(str(image(each).folder))
