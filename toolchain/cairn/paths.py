# SPDX-License-Identifier: MIT
"""Where things are in the tree and in build/."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = ROOT / "build"
GUEST = BUILD / "guest"
KERNEL = BUILD / "kernel-gcc"
HYPERVISOR = KERNEL / "cairn.elf"
PAYLOADS = KERNEL / "guest" / "payloads"
CONFIG_TOOL = BUILD / "host-tools" / "cairn-config"

# What `./cairn run` may boot without the user having built anything: looked through after the config's own folder.
LIBRARY = (GUEST, PAYLOADS)


def shown(path: Path) -> str:
    """PATH as a user types it: relative to the current folder where it lies below."""
    try:
        return str(Path(path).resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
