# SPDX-License-Identifier: MIT
"""Building what is stale: the CMake presets and the guest image."""

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

from cairn import packages, paths
from cairn.errors import Failure
from cairn.shell import lock, run, say

# What a preset builds, and the packages that it needs.
PRESETS = {
    "kernel-gcc": (["all"], ["build"]),
    "kernel-clang": (["all"], ["build", "host tests"]),
    "host-asan": (["host_tests"], ["host tests"]),
    "host-tsan": (["host_tests"], ["host tests"]),
    "host-fuzz": (["fuzz_tests"], ["host tests"]),
    "host-tools": (["cairn-config"], ["build"]),
}


def preset(name: str, targets: list[str] | None = None) -> None:
    """Configures build/NAME once and builds TARGETS, by default what PRESETS says; silent when nothing is stale."""
    default_targets, needs = PRESETS[name]
    packages.ensure(*needs)
    folder = paths.BUILD / name
    with lock(paths.BUILD / f".{name}.lock"):
        stamp = folder / "configured"
        if not (folder / "build.ninja").exists() or not stamp.exists() or stamp.read_text() != _presets():
            say(f"configuring {name}")
            shutil.rmtree(folder, ignore_errors=True)  # another compiler would take what is left of this one's for its own
            run(["cmake", "--preset", name], cwd=paths.ROOT, env=compiler_environment())
            stamp.write_text(_presets())
        _ninja(folder, targets or default_targets)


@functools.cache
def _presets() -> str:
    """What CMake reads only once for a folder."""
    digest = hashlib.sha256()
    for file in ("CMakePresets.json", "toolchain/x86_64.cmake"):
        digest.update((paths.ROOT / file).read_bytes())
    return digest.hexdigest()


def compiler_environment() -> dict[str, str]:
    """Has ccache keep what compilers made, under hashes of all that went in, for every checkout. A cache of the user's own
    stays as large as he made it."""
    settings = {"CCACHE_BASEDIR": str(paths.ROOT), "CCACHE_COMPILERCHECK": "content",
                "CCACHE_SLOPPINESS": "pch_defines,time_macros"}
    if "CCACHE_DIR" not in os.environ:
        folder = packages.kept("ccache")
        settings |= {"CCACHE_DIR": str(folder), "CCACHE_MAXSIZE": "2G"} if folder else {"CCACHE_DISABLE": "1"}
    return settings | os.environ


def _ninja(folder: Path, targets: list[str]) -> None:
    command = ["ninja", "-C", str(folder), *targets]
    if sys.stderr.isatty():  # ninja shows its progress
        if subprocess.run(command, stdout=sys.stderr, check=False, env=compiler_environment()).returncode != 0:
            raise Failure(f"{folder.name} does not build")
        return
    with subprocess.Popen([*command, "--quiet"], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=compiler_environment()) as ninja:
        announce = threading.Timer(2.0, say, [f"building {folder.name}"])
        announce.start()
        output = ninja.stdout.read()
        announce.cancel()
    if ninja.returncode != 0:
        raise Failure(f"{folder.name} does not build:\n{output.strip()}")


@functools.cache  # once a run is enough
def hypervisor() -> None:
    """The hypervisor and the payload guests."""
    preset("kernel-gcc")


@functools.cache
def config_tool() -> None:
    preset("host-tools")


@functools.cache
def guest() -> None:
    """The Linux guest image, from the cache where it was built before."""
    _guest_part("build")


@functools.cache
def test_guest() -> None:
    """The boot tests' own root file system, likewise."""
    _guest_part("build_test")


def _guest_part(function: str) -> None:
    packages.ensure("guest")
    module = packages.guest_build()
    with lock(paths.BUILD / ".guest.lock"):
        try:
            getattr(module, function)(paths.GUEST)
        except module.BuildError as error:
            raise Failure(f"the guest image does not build: {error}") from error


def everything() -> None:
    hypervisor()
    config_tool()
    preset("host-asan")
    guest()
