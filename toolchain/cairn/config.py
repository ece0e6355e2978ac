# SPDX-License-Identifier: MIT
"""A CONFIG and the files that it names. The hypervisor's own parser (cairn-config) judges it; nothing is parsed here."""

import dataclasses
import subprocess
from pathlib import Path

from cairn import build, paths
from cairn.errors import USAGE, Failure, usage

GUEST_FILES = ("vmlinux", "rootfs.erofs")  # what the guest image build leaves in paths.GUEST


@dataclasses.dataclass(frozen=True)
class Config:
    """A config that is right: its path, and each file it names, by the name that it has there."""

    path: Path
    files: dict[str, Path]


def load(path: Path) -> Config:
    """Checks PATH and finds the files it names, building the guest image when one of them comes from there."""
    if not path.is_file():
        raise usage(f"{paths.shown(path)}: no such file")
    build.config_tool()
    done = subprocess.run([paths.CONFIG_TOOL, "check", path], text=True, capture_output=True, check=False)
    if done.returncode != 0:
        raise Failure((done.stderr + done.stdout).strip(), USAGE)
    names = dict.fromkeys(line.split(" ", 1)[1] for line in done.stdout.splitlines())
    return Config(path, {name: _find(name, path) for name in names})


def demo(headless: bool) -> Config:
    """The demo: it powers off by itself when headless, and else leaves a shell in each VM."""
    build.guest()
    return load(paths.GUEST / ("demo.toml" if headless else "demo-shell.toml"))


def _find(name: str, config: Path) -> Path:
    if name in GUEST_FILES and not (config.parent / name).exists():
        build.guest()
    folders = [config.parent, *paths.LIBRARY]
    for folder in folders:
        if (folder / name).is_file():
            return (folder / name).resolve()
    where = ", ".join(paths.shown(folder) for folder in folders)
    raise usage(f"{paths.shown(config)}:{_line_of(name, config)}: no file {name}: looked in {where}")


def _line_of(name: str, config: Path) -> int:
    for number, line in enumerate(config.read_text().splitlines(), 1):
        if name in line:
            return number
    return 1
