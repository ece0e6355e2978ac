# SPDX-License-Identifier: MIT
"""Building what is stale: the CMake presets and the guest image."""

import functools
import os
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
        if not (folder / "build.ninja").exists():
            say(f"configuring {name}")
            run(["cmake", "--preset", name], cwd=paths.ROOT, env=_environment())
        _ninja(folder, targets or default_targets)


@functools.cache
def _environment() -> dict[str, str]:
    """Has ccache keep what compilers made, under hashes of all that went in, for every checkout; the user's own settings win."""
    return {"CCACHE_DIR": str(packages.cache_dir() / "ccache"), "CCACHE_MAXSIZE": "2G", "CCACHE_BASEDIR": str(paths.ROOT),
            "CCACHE_COMPILERCHECK": "content", "CCACHE_SLOPPINESS": "pch_defines,time_macros", **os.environ}


def _ninja(folder: Path, targets: list[str]) -> None:
    command = ["ninja", "-C", str(folder), *targets]
    if sys.stderr.isatty():  # ninja shows its progress
        if subprocess.run(command, stdout=sys.stderr, check=False, env=_environment()).returncode != 0:
            raise Failure(f"{folder.name} does not build")
        return
    with subprocess.Popen([*command, "--quiet"], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=_environment()) as ninja:
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
