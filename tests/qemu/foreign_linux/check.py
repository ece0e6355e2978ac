# SPDX-License-Identifier: MIT
"""Gets the kernel out of Debian's package and packs an initramfs of one program."""

import subprocess
import tempfile
from pathlib import Path

from cairn import packages, paths
from cairn.shell import lock

_INIT = """#!/bin/busybox sh
/bin/busybox mkdir /proc /sys
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox echo "online: $(/bin/busybox grep -c ^processor /proc/cpuinfo)"
/bin/busybox poweroff -f
"""


def prepare(folder: Path) -> None:
    """Leaves vmlinuz and initrd.cpio in FOLDER."""
    debian = packages.guest_debian()
    kept = paths.BUILD / "foreign"
    with lock(paths.BUILD / ".foreign.lock"):
        kept.mkdir(exist_ok=True)
        if not (kept / "initrd.cpio").exists():
            with tempfile.TemporaryDirectory() as work:
                [kernel] = _files(debian, _kernel_package(), Path(work), "/boot/vmlinuz-")
                [busybox] = _files(debian, "busybox-static", Path(work), "/bin/busybox")
            (kept / "vmlinuz").write_bytes(kernel)
            (kept / "initrd.cpio").write_bytes(_archive({"init": _INIT.encode(), "bin/busybox": busybox}))
    for name in ("vmlinuz", "initrd.cpio"):
        (folder / name).symlink_to(kept / name)


def _files(debian, package: str, work: Path, prefix: str) -> list[bytes]:
    return [path.read_bytes() for name, path in debian.package_files(package, work).items()
            if name.removeprefix("/usr").startswith(prefix)]


def _kernel_package() -> str:
    """The package that linux-image-cloud-amd64 stands for."""
    lines = subprocess.run(["apt-cache", "depends", "linux-image-cloud-amd64"], text=True, check=True, capture_output=True).stdout
    return next(line.split()[1] for line in lines.splitlines() if "Depends: linux-image-" in line)


def _archive(files: dict[str, bytes]) -> bytes:
    """A cpio archive in the kernel's `newc` format; folders come before what is in them."""
    entries = [("dev", 0o40755, b"", 0, 0), ("bin", 0o40755, b"", 0, 0), ("dev/console", 0o20600, b"", 5, 1)]
    entries += [(name, 0o100755, data, 0, 0) for name, data in files.items()] + [("TRAILER!!!", 0, b"", 0, 0)]
    out = bytearray()
    for number, (name, mode, data, major, minor) in enumerate(entries, 1):
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name) + 1, 0)
        out += b"070701" + "".join(f"{field:08x}" for field in fields).encode() + name.encode() + b"\0"
        out += bytes(-len(out) % 4) + data
        out += bytes(-len(out) % 4)
    return bytes(out)
