#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Builds the guest image: OUT/vmlinux, OUT/rootfs.erofs, and the demo's configurations beside them.

Both parts are built once and kept in ${CAIRN_CACHE:-${XDG_CACHE_HOME:-~/.cache}/cairn} under a hash of all that goes
into them, so another clone of the project does not build them again. docs/guest-image.md tells what is in them.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import guest_cache
import guest_kernel
import guest_rootfs
from guest_cache import BuildError

DEMO = Path(__file__).resolve().parent / "demo" / "demo.toml"


def packages() -> list[str]:
    """The Debian packages that have to be installed for build()."""
    return sorted({*guest_kernel.PACKAGES, *guest_rootfs.PACKAGES})


def build(out_dir: Path | str) -> None:
    """Leaves vmlinux, rootfs.erofs, demo.toml and demo-shell.toml in OUT_DIR; raises BuildError."""
    out = Path(out_dir)
    rootfs = guest_rootfs.build()
    kernel = guest_kernel.build()
    guest_cache.place(kernel, out / "vmlinux")
    guest_cache.place(rootfs, out / "rootfs.erofs")
    _write(out / "demo.toml", DEMO.read_text())
    _write(out / "demo-shell.toml", DEMO.read_text().replace("cairn.end=poweroff", "cairn.end=shell"))


def build_test(out_dir: Path | str) -> None:
    """Leaves test.erofs in OUT_DIR: the root file system of boot tests that need more programs."""
    guest_cache.place(guest_rootfs.build("test", guest_rootfs.TEST_MANIFEST), Path(out_dir) / "test.erofs")


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/guest"), help="folder for the results (build/guest)")
    parser.add_argument("--packages", action="store_true", help="list the Debian packages that a build needs, and end")
    arguments = parser.parse_args()
    if arguments.packages:
        print(*packages(), sep="\n")
        return 0
    try:
        build(arguments.out)
    except BuildError as error:
        print(f"build_guest.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nbuild_guest.py: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
