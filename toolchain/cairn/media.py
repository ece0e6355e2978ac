# SPDX-License-Identifier: MIT
"""What goes onto a boot medium, the same for all: the hypervisor, the config, the files that it names, GRUB's script.

    /boot/cairn.elf   /boot/grub/grub.cfg   /cairn.toml   /cairn/NAME   /boot/modules/N

A file named NAME in the config becomes the boot module NAME. It lies at /cairn/NAME where GRUB, which looks into that folder
on a medium that people edit, would find it under just this name; any other lies in /boot/modules, and the script names it.
"""

import dataclasses
import re
import shutil
import tarfile
from pathlib import Path, PurePosixPath

from cairn import paths
from cairn.config import Config
from cairn.errors import Failure, usage
from cairn.shell import run

_CONFIG = "cairn.toml"
_LARGEST = (1 << 32) - 1  # bytes of a module, whose ends are 32-bit addresses [multiboot2 3.6.6 Modules]


@dataclasses.dataclass(frozen=True)
class Payload:
    """What a medium carries. `words` is the hypervisor's command line; `patient` media are for people: GRUB shows a menu."""

    config: Config
    words: str = ""
    patient: bool = False


def hypervisor_file() -> Path:
    """The hypervisor without symbols, which a boot loader would only have to read."""
    small = paths.KERNEL / "cairn.boot.elf"
    if not small.exists() or small.stat().st_mtime < paths.HYPERVISOR.stat().st_mtime:
        run(["objcopy", "--strip-all", paths.HYPERVISOR, small])
    return small


def module_places(config: Config) -> dict[str, str]:
    """Module name: its path on the medium."""
    _check_modules(config)
    places = {}
    taken: dict[str, str] = {}
    for index, name in enumerate(config.files):
        if not re.fullmatch(r"[A-Za-z0-9._/+,=@%~-]+", name):  # none of them means anything to GRUB's script
            raise _unfit(config, name, "allowed in a boot module's name: ASCII letters, digits and . _ / + , = @ % ~ -")
        places[name] = f"/cairn/{name}" if _is_found(name, taken) else f"/boot/modules/{index}"
    return places


def _check_modules(config: Config) -> None:
    """Refuses files that no medium can carry to the hypervisor."""
    for name, file in config.files.items():
        if PurePosixPath(name) == PurePosixPath(_CONFIG):
            raise _unfit(config, name, f"{_CONFIG} is what a medium calls the config itself; allowed: any other name")
        if file.stat().st_size > _LARGEST:
            raise _unfit(config, name, "a boot module has less than 4 GiB, for it lies below that in memory")
        try:
            tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT)
        except ValueError as error:
            raise _unfit(config, name, "too long; allowed: 100 characters, or up to 155, a slash, and up to 100") from error


def _unfit(config: Config, name: str, why: str) -> Failure:
    return usage(f"{paths.shown(config.path)}: file {name!r}: {why}")


def _is_found(name: str, taken: dict[str, str]) -> bool:
    """Whether _FIND_MODULES has the file /cairn/NAME under this name. TAKEN is what lies there already, folders with a slash
    at their end, by names in small letters: FAT takes A and a for one."""
    parts = name.split("/")
    if len(parts) > 2 or not all(map(_is_kept, parts)):
        return False
    ways = [f"{parts[0]}/", name] if len(parts) == 2 else [name]
    return all(taken.setdefault(way.rstrip("/").lower(), way) == way for way in ways)


def _is_kept(part: str) -> bool:
    """Whether GRUB finds PART of a path on a FAT as it was written there."""
    # GRUB's * leaves out names with a dot in front, FAT forgets one at the end, and mtools writes no names of DOS' devices.
    if part.startswith(".") or part.endswith(".") or re.fullmatch(r"|con|prn|aux|nul|(com|lpt)\d", part, re.IGNORECASE):
        return False
    # A short name whose base and extension have no letters of both kinds is stored in capitals, and GRUB makes all small.
    base, _, extension = part.partition(".")
    short = len(base) <= 8 and len(extension) <= 3 and "." not in extension
    return not short or all(piece == piece.lower() or piece != piece.upper() for piece in (base, extension))


def bundle(config: Config, out: Path) -> None:
    """One archive with the config and its files, for a loader that passes a single module."""
    _check_modules(config)
    with tarfile.open(out, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, source in {_CONFIG: config.path, **config.files}.items():
            entry = tarfile.TarInfo(name)
            entry.size = source.stat().st_size
            with source.open("rb") as file:
                archive.addfile(entry, file)


def tree(payload: Payload, folder: Path, find_modules: bool = False) -> None:
    """The medium's files below FOLDER, which is new."""
    sources = {"/boot/cairn.elf": hypervisor_file(), f"/{_CONFIG}": payload.config.path}
    for name, place in module_places(payload.config).items():
        sources[place] = payload.config.files[name]
    for place, source in sources.items():
        target = folder / place.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    script = folder / "boot/grub/grub.cfg"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(_grub_script(payload, find_modules))


# On a medium that people edit, GRUB takes every file in /cairn, so a file copied there can be named in /cairn.toml.
_FIND_MODULES = """\
    for file in /cairn/* /cairn/*/*; do
        if [ -f "$file" ]; then
            regexp --set=1:name '^/cairn/(.*)$' "$file"
            module2 --nounzip "$file" "$name"
        fi
    done
"""


def _grub_script(payload: Payload, find_modules: bool) -> str:
    modules = [f"    module2 --nounzip {place} {name}\n" for name, place in module_places(payload.config).items()
               if not (find_modules and place.startswith("/cairn/"))]
    if find_modules:
        modules.append(_FIND_MODULES)
    # A loader that fails says so and stops the machine that is being watched, or waits for the person in front of it.
    failed = "sleep --interruptible 60" if payload.patient else "halt"
    return f"""\
set timeout={3 if payload.patient else 0}
insmod all_video
serial --unit=0 --speed=115200
terminal_input console serial
terminal_output console serial
function boot_cairn {{
    if multiboot2 /boot/cairn.elf {payload.words}; then true; else return 1; fi
    module2 --nounzip /{_CONFIG} {_CONFIG}
{''.join(modules)}    boot
}}
function start {{
    boot_cairn
    echo "GRUB could not start Cairn."
    {failed}
}}
{'menuentry "Cairn" { start }' if payload.patient else 'start'}
"""
