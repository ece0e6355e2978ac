# SPDX-License-Identifier: MIT
"""An initramfs whose init says which timers and interrupts Linux uses, and whether they work."""

import importlib.util
import subprocess
import tempfile
from pathlib import Path

from cairn import packages, paths
from cairn.shell import lock

# In the order in which they are loaded; what the kernel has built in is not among the package's modules.
_MODULES = ("virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_blk")

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
for module in /module-*; do [ ! -e "$module" ] || insmod "$module" || echo "FAILED: $module"; done
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


def prepare(folder: Path) -> None:
    """Leaves initrd.cpio in FOLDER, and for the variant with Debian's kernel that kernel as vmlinuz."""
    foreign = _foreign_linux()
    debian = packages.guest_debian()
    kept = paths.BUILD / "linux_options"
    with lock(paths.BUILD / ".linux_options.lock"):
        kept.mkdir(exist_ok=True)
        if not (kept / "initrd.cpio").exists():
            with tempfile.TemporaryDirectory() as work:
                found = debian.package_files(_kernel_package(), Path(work))
                busybox = next(path for name, path in debian.package_files("busybox-static", Path(work)).items()
                               if name.removeprefix("/usr") == "/bin/busybox")
                files = {"init": _INIT.encode(), "bin/busybox": busybox.read_bytes()}
                (kept / "tiny.cpio").write_bytes(foreign._archive(files))
                modules = {Path(name).name.removesuffix(".ko"): path for name, path in found.items() if name.endswith(".ko")}
                for number, name in enumerate(name for name in _MODULES if name in modules):
                    files[f"module-{number}-{name}"] = modules[name].read_bytes()
                kernel = next(path for name, path in found.items() if name.startswith("/boot/vmlinuz-"))
                (kept / "vmlinuz").write_bytes(kernel.read_bytes())
                (kept / "initrd.cpio").write_bytes(foreign._archive(files))
    for name in ("vmlinuz", "initrd.cpio", "tiny.cpio"):
        (folder / name).symlink_to(kept / name)


def _kernel_package() -> str:
    """The package that linux-image-amd64 stands for: the kernel for clouds does not read MP tables."""
    lines = subprocess.run(["apt-cache", "depends", "linux-image-amd64"], text=True, check=True, capture_output=True).stdout
    return next(line.split()[1] for line in lines.splitlines() if "Depends: linux-image-" in line)


def check(session) -> list[str]:
    """What each VM has to have said; they run at the same time, so in whatever order."""
    wanted = _EXPECTED[session.case.name.partition("/")[2]]
    return [f"{vm} did not say: {line}" for vm, lines in wanted.items() for line in lines if f"[{vm}] {line}" not in session.lines]


def _foreign_linux():
    """The case that packs Debian's kernel knows how."""
    file = Path(__file__).parent.parent / "foreign_linux" / "check.py"
    spec = importlib.util.spec_from_file_location("foreign_linux", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
