# SPDX-License-Identifier: MIT
"""A CONFIG and the files that it names. The hypervisor's own parser (cairn-config) judges it; nothing is parsed here."""

import dataclasses
import subprocess
from pathlib import Path

from cairn import build, paths
from cairn.errors import ConfigError, usage

# What each guest build leaves in paths.GUEST.
GUEST_FILES = {"vmlinux": build.guest, "rootfs.erofs": build.guest, "test.erofs": build.test_guest}


@dataclasses.dataclass(frozen=True)
class Config:
    """A config that is right: its path, each file it names by the name that it has there, the bytes of memory it takes."""

    path: Path
    files: dict[str, Path]
    memory: int


def load(path: Path) -> Config:
    """Checks PATH and finds the files it names, building the guest image when it names a part of that."""
    if not path.is_file():
        raise usage(f"{paths.shown(path)}: no such file")
    text = path.read_text(errors="replace")
    for name, make in GUEST_FILES.items():
        if not (path.parent / name).exists() and (f'"{name}"' in text or f":{name}" in text):
            make()
    build.config_tool()
    folders = [path.parent, *paths.LIBRARY]
    done = subprocess.run([paths.CONFIG_TOOL, "check", path, *folders[1:]], text=True, capture_output=True, check=False)
    if done.returncode != 0:
        raise ConfigError((done.stderr + done.stdout).strip())
    facts = [line.partition(" ") for line in done.stdout.splitlines()]
    names = [rest for word, _, rest in facts if word in ("kernel", "initrd", "module")]
    memory = next(int(rest) for word, _, rest in facts if word == "memory")
    return Config(path, {name: _find(name, folders) for name in names}, memory)


def demo(headless: bool) -> Config:
    """The demo: it powers off by itself when headless, and else leaves a shell in each VM."""
    build.guest()
    return load(paths.GUEST / ("demo.toml" if headless else "demo-shell.toml"))


def _find(name: str, folders: list[Path]) -> Path:
    return next((folder / name).resolve() for folder in folders if (folder / name).is_file())
