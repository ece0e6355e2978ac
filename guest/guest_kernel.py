# SPDX-License-Identifier: MIT
"""The guest kernel: Debian's source of Linux with the options of linux/*.config, everything else off."""

import os
import re
from pathlib import Path

import guest_debian
from guest_cache import BuildError, Log, Progress, cached, content_key

SOURCE_PACKAGE = "linux-source-6.1"
SOURCE_ARCHIVE = Path("/usr/src/linux-source-6.1.tar.xz")
FRAGMENTS = Path(__file__).resolve().parent / "linux"
PACKAGES = [SOURCE_PACKAGE, "bc", "binutils", "bison", "flex", "gcc", "libc6-dev", "libelf-dev", "make", "perl", "tar",
            "xz-utils"]
COMPILER_PACKAGES = ["gcc-12", "binutils"]

# What the kernel would otherwise take from the machine that builds it.
IDENTITY = ["KBUILD_BUILD_USER=cairn", "KBUILD_BUILD_HOST=cairn", "KBUILD_BUILD_VERSION=1",
            "KBUILD_BUILD_TIMESTAMP=Thu Jan  1 00:00:00 UTC 1970"]
# The largest page that the linker makes room for in the file: with the kernel's own choice of 2 MiB a third of the file is
# holes. Addresses stay as they are, for the linker script aligns them itself.
PAGE_SIZE_FLAG = ("arch/x86/Makefile", "-z max-page-size=0x200000\n", "-z max-page-size=0x1000\n")
CONFIGURE = ["make", "KCONFIG_ALLCONFIG=requested", "allnoconfig"]
COMPILE = ["make", *IDENTITY, "vmlinux"]
STRIP = ["strip", "--strip-all", "-o", "stripped", "vmlinux"]
STEPS = 1680  # lines that a build prints, about: only for showing progress

OPTION = re.compile(r"(CONFIG_\w+)=(\S+)|# (CONFIG_\w+) is not set")


def parse_options(text: str) -> dict[str, str]:
    options = {}
    for line in text.splitlines():
        if match := OPTION.fullmatch(line):
            options[match[1] or match[3]] = match[2] or "n"
    return options


def requested_options() -> dict[str, str]:
    requested = {}
    for path in sorted(FRAGMENTS.glob("*.config")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            option = parse_options(line)
            if not option and line and not line.startswith("# "):
                raise BuildError(f"{path}:{number}: {line!r} is no option; allowed are CONFIG_X=VALUE, "
                                 "# CONFIG_X is not set, comments and blank lines")
            if twice := option.keys() & requested.keys():
                raise BuildError(f"{path}:{number}: {twice.pop()} is requested a second time")
            requested |= option
    return requested


def check_options(requested: dict[str, str], got: dict[str, str]) -> None:
    """Kconfig drops without a word an option whose dependencies are off, or turns one on that another selects."""
    wrong = [f"  {name}: requested {value}, got {got.get(name, 'n')}"
             for name, value in requested.items() if got.get(name, "n") != value]
    if wrong:
        raise BuildError("these kernel options of guest/linux did not stick (what do they depend on?):\n"
                         + "\n".join(wrong))


def key(requested: dict[str, str]) -> str:
    options = [f"{name}={value}" for name, value in sorted(requested.items())]
    versions = [f"{name} {guest_debian.version(name)}" for name in COMPILER_PACKAGES]
    source = guest_debian.installed_version(SOURCE_PACKAGE)
    if source is None or not SOURCE_ARCHIVE.exists():
        raise BuildError(f"the Debian package {SOURCE_PACKAGE} is not installed")
    return content_key([source, *versions, *options, *PAGE_SIZE_FLAG, *CONFIGURE, *COMPILE, *STRIP])


def build() -> Path:
    """The path of the stripped ELF kernel in the cache."""
    requested = requested_options()
    return cached("vmlinux", "", key(requested), lambda work, log, progress: _make(requested, work, log, progress))


def _make(requested: dict[str, str], work: Path, log: Log, progress: Progress) -> Path:
    environment = {**os.environ, "LC_ALL": "C"}
    for name in ("MAKEFLAGS", "MFLAGS", "ARCH", "CROSS_COMPILE", "KCONFIG_CONFIG"):
        environment.pop(name, None)
    progress.show("unpacking the source of Linux", force=True)
    log.run(["tar", "--extract", "--file", str(SOURCE_ARCHIVE), "--strip-components=1"], work, environment)

    _replace(work, *PAGE_SIZE_FLAG)

    progress.show("configuring", force=True)
    lines = [f"{name}={value}" for name, value in requested.items()]
    (work / "requested").write_text("\n".join(lines) + "\n")
    log.run(CONFIGURE, work, environment)
    check_options(requested, parse_options((work / ".config").read_text()))

    jobs = len(os.sched_getaffinity(0))
    progress.show(f"compiling with {jobs} jobs; this takes several minutes, once", force=True)
    done = 0

    def count(line: str) -> None:
        nonlocal done
        if line.startswith("  "):
            done += 1
            progress.show(f"compiling, step {done} of about {max(done, STEPS)}")

    log.run([*COMPILE, f"-j{jobs}"], work, environment, count)
    log.run(STRIP, work, environment)
    return work / "stripped"


def _replace(work: Path, name: str, old: str, new: str) -> None:
    text = (work / name).read_text()
    if text.count(old) != 1:
        raise BuildError(f"{name} of {SOURCE_PACKAGE} does not have the line that guest_kernel.py replaces: {old.strip()}")
    (work / name).write_text(text.replace(old, new))
