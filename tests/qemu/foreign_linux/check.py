# SPDX-License-Identifier: MIT
"""Debian's kernels with their own virtio modules; the variant's name is the package's without `linux-image-`."""

import hashlib

import foreign

_MODULES = ("virtio_pci", "virtio_blk", "virtio_net")
_DISK_SIZE = 1 << 20
# Two network interfaces on one switch: what one sends as a broadcast the other one has to receive.
_INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mkdir -p /proc /sys
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in /modules/*; do insmod $module || echo "FAILED: $module"; done
echo "kernel: $(uname -r)"
echo "online: $(grep -c ^processor /proc/cpuinfo)"
echo "vda: $(md5sum < /dev/vda)"
dd if=/dev/vda of=/dev/vdb bs=64k oflag=direct 2>/dev/null
echo 3 > /proc/sys/vm/drop_caches
echo "vdb: $(md5sum < /dev/vdb)"
ip link set eth0 up
ip link set eth1 up
ip address add 10.0.0.1/24 dev eth0
arping -q -c 1 -w 1 -I eth0 10.0.0.9
echo "eth0: $(cat /sys/class/net/eth0/address)"
[ "$(cat /sys/class/net/eth1/statistics/rx_packets)" -gt 0 ] && echo "eth1 receives"
setsid cttyhack sh
poweroff -f
"""


def prepare(folder, case) -> None:
    """Leaves vmlinuz, initrd.cpio and disk.img in FOLDER."""
    flavour = case.name.split("/")[1]
    architecture = "i386" if "686" in flavour else "amd64"
    for name, path in foreign.debian_kernel(f"linux-image-{flavour}", architecture, _INIT, _MODULES).items():
        (folder / name).symlink_to(path)
    (folder / "disk.img").write_bytes(_disk())


def check(session) -> list[str]:
    digest = hashlib.md5(_disk()).hexdigest()
    return [f"not said: {disk}: {digest}" for disk in ("vda", "vdb")
            if not any(f"{disk}: {digest}" in line for line in session.lines)]


def _disk() -> bytes:
    """Each sector says which it is."""
    return b"".join(f"sector {number:503}\r\n".encode() for number in range(_DISK_SIZE // 512))
