# SPDX-License-Identifier: MIT
"""The Debian packages that each part of the work needs, and installing those that are missing."""

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from cairn import paths
from cairn.errors import usage
from cairn.shell import say

# Package: a program of it by which another system than Debian is probed; None: not probed there.
_COMPILE = {"cmake": "cmake", "ninja-build": "ninja", "ccache": "ccache", "g++": "g++", "binutils": "objdump"}
_GRUB = {"grub-common": "grub-mkimage", "grub-pc-bin": None, "grub-efi-amd64-bin": None, "mtools": "mcopy"}
_NEEDS = {
    "build": _COMPILE,
    "host tests": {**_COMPILE, "catch2": None, "clang": "clang++", "libclang-rt-dev": None,
                   "clang-format": "clang-format", "clang-tidy": "clang-tidy"},
    "qemu": {"qemu-system-x86": "qemu-system-x86_64", "seabios": None, "ipxe-qemu": None},
    "uefi": {"ovmf": None},
    "bochs": {"bochs": "bochs-bin", "bochsbios": None, "vgabios": None},
    "iso": {**_GRUB, "xorriso": "xorriso"},
    "usb": _GRUB,
    "pxe": _GRUB,
    "gdb": {"gdb": "gdb"},
}
ALL = (*_NEEDS, "guest")


def _of_guest(name: str):
    """A module of guest/."""
    folder = str(paths.ROOT / "guest")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module(name)


def guest_build():
    return _of_guest("build_guest")


def guest_debian():
    return _of_guest("guest_debian")


def kept(name: str) -> Path | None:
    """The folder NAME of what is kept for every checkout; None where nothing can be kept."""
    folder = _of_guest("guest_cache").cache_dir() / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK | os.X_OK) else None


def _wanted(needs) -> dict[str, str | None]:
    wanted: dict[str, str | None] = {}
    for need in needs:
        wanted.update(dict.fromkeys(guest_build().packages()) if need == "guest" else _NEEDS[need])
    return wanted


def _missing(wanted: dict[str, str | None]) -> list[str]:
    if not shutil.which("dpkg-query"):
        return [package for package, program in wanted.items() if program and not shutil.which(program)]
    query = ["dpkg-query", "-W", "-f", "${db:Status-Status} ${Package}\n", *wanted]
    lines = subprocess.run(query, text=True, capture_output=True, check=False).stdout.splitlines()
    installed = {line.split()[1] for line in lines if line.startswith("installed ")}
    return [package for package in wanted if package not in installed]


def _install(packages: list[str]) -> None:
    command = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y"]
    if os.geteuid() != 0:
        command.insert(0, "sudo")
    # Package lists that are missing or out of date name files that are not there: then, and only then, get new ones.
    install = [*command, "install", "--no-install-recommends", *packages]
    if subprocess.run(install, stdout=sys.stderr, check=False).returncode == 0:
        return
    subprocess.run([*command, "update"], stdout=sys.stderr, check=False)
    if subprocess.run(install, stdout=sys.stderr, check=False).returncode != 0:
        raise usage(f"apt-get could not install: {' '.join(packages)}")


def ensure(*needs: str) -> None:
    """Installs what NEEDS (keys of ALL) lack; returns at once when nothing is missing."""
    missing = _missing(_wanted(needs))
    if not missing:
        return
    if not shutil.which("apt-get") or (os.geteuid() != 0 and not shutil.which("sudo")):
        raise usage(f"install these first (names of Debian packages): {' '.join(missing)}")
    say(f"installing Debian packages: {' '.join(missing)}")
    _install(missing)
    still = _missing(_wanted(needs))
    if still:
        raise usage(f"still missing after apt-get install: {' '.join(still)}")
