# SPDX-License-Identifier: MIT
"""An initramfs whose init says which timers and interrupts Linux uses, and whether they work."""

from pathlib import Path

import foreign

_MODULES = ("virtio_pci", "virtio_blk")
_DISK = "disk: ok"
_EXPECTED = {
    "tiny": {
        "noapic": ["cpus: 1", _DISK, "virtio0: XT-PIC virtio0, interrupts", "ttyS0: XT-PIC ttyS0"],
        "timer": ["cpus: 1", _DISK, "timer: IO-APIC 2-edge, ticks", "ttyS0: IO-APIC 4-edge"],
        "hpet": ["clocksource: hpet", _DISK, "timer: IO-APIC 2-edge, ticks"],
        "plain": [_DISK, "timer: XT-PIC timer, ticks", "virtio0: XT-PIC virtio0, interrupts"],
    },
    "mp-table": {
        "mp": ["cpus: 2", _DISK, "virtio0: IO-APIC 17-fasteoi, interrupts", "ttyS0: IO-APIC 4-edge"],
    },
}

_INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mkdir /proc /sys
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
echo 1 >/proc/sys/kernel/printk
for module in /modules/*; do [ ! -e "$module" ] || insmod "$module" || echo "FAILED: $module"; done
irq() { # of a device: number, how often, controller and kind
    awk -v name="$1" '$NF == name || $NF ~ ("^" name "-req") { n = 0; for (i = 2; $i ~ /^[0-9]+$/; i++) n += $i; print $1, n, $i, $(i + 1) }' /proc/interrupts
}
echo "cpus: $(grep -c ^processor /proc/cpuinfo)"
echo "clocksource: $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
for attempt in 1 2 3 4 5; do [ -b /dev/vda ] || sleep 1; done
dd if=/dev/urandom of=/tmp.data bs=64k count=16 2>/dev/null
dd if=/tmp.data of=/dev/vda bs=64k conv=fsync 2>/dev/null
echo 3 >/proc/sys/vm/drop_caches
[ "$(md5sum </tmp.data)" = "$(dd if=/dev/vda bs=64k count=16 2>/dev/null | md5sum)" ] && echo "disk: ok" || echo "FAILED: disk"
set -- $(irq timer)
before=${2:-0}
sleep 1
set -- $(irq timer)
echo "timer: $3 $4, $([ $((${2:-0} - before)) -gt 0 ] && echo ticks || echo silent)"
set -- $(irq virtio0)
echo "virtio0: $3 $4, $([ "${2:-0}" -gt 0 ] && echo interrupts || echo silent)"
set -- $(irq ttyS0)
echo "ttyS0: $3 $4"
echo "end: $(grep -c . /proc/interrupts) kinds of interrupts"
printf '\\000' | dd of=/dev/port bs=1 seek=244 conv=notrunc 2>/dev/null
"""


def prepare(folder: Path, case) -> None:
    """Leaves initrd.cpio in FOLDER, and for MP tables Debian's kernel as vmlinuz: that for clouds does not read them."""
    if case.name.endswith("mp-table"):
        for name, path in foreign.debian_kernel("linux-image-amd64", "amd64", _INIT, _MODULES).items():
            (folder / name).symlink_to(path)
    else:
        (folder / "initrd.cpio").symlink_to(foreign.initramfs(_INIT.encode()))


def check(session) -> list[str]:
    """What each VM has to have said; they run at the same time, so in whatever order."""
    wanted = _EXPECTED[session.case.name.partition("/")[2]]
    return [f"{vm} did not say: {line}" for vm, lines in wanted.items() for line in lines if f"[{vm}] {line}" not in session.lines]

