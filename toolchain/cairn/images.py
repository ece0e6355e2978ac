# SPDX-License-Identifier: MIT
"""Boot media, made with GRUB's tools and without root: a hybrid ISO, a USB stick with one FAT partition, a PXE tree."""

import hashlib
import shutil
import struct
import tempfile
from pathlib import Path

from cairn import media, paths
from cairn.errors import Failure
from cairn.media import Payload
from cairn.shell import run

GRUB = Path("/usr/lib/grub")
SECTOR = 512
MIB = 1 << 20
_PARTITION_START = MIB
# The largest core image that the gap before the first partition takes.
_GAP_SECTORS = _PARTITION_START // SECTOR - 1
_COMMON_MODULES = ("normal configfile multiboot2 serial terminal test true echo regexp sleep halt reboot minicmd "
                   "search_fs_uuid all_video ls cat").split()


def iso(payload: Payload, out: Path) -> None:
    """Boots from CD and, written to a stick, as a disk; BIOS and UEFI."""
    with tempfile.TemporaryDirectory(prefix="cairn-iso-") as work:
        media.tree(payload, Path(work))
        # grub-mkrescue's own script asks for every kind of partition table.
        tables = sorted(path.stem for path in (GRUB / "i386-pc").glob("part_*.mod"))
        modules = " ".join([*_COMMON_MODULES, *tables, "iso9660", "fat"])
        run(["grub-mkrescue", "--compress=no", "--locales=", "--fonts=", "--themes=", f"--install-modules={modules}",
             "-o", out, work])


def pxe(payload: Payload, out: Path) -> None:
    """A folder to serve by TFTP; boot files cairn.pxe (BIOS) and cairn.efi (UEFI). Replaces OUT where it is such a folder."""
    if out.exists():
        if not (out / "cairn.pxe").exists() and any(out.iterdir()):
            raise Failure(f"{paths.shown(out)} is not empty and no PXE tree")
        shutil.rmtree(out)
    out.mkdir(parents=True)
    media.tree(payload, out)
    _grub_image("i386-pc-pxe", out / "cairn.pxe", ["pxe", "tftp"])
    _grub_image("x86_64-efi", out / "cairn.efi", ["efinet", "tftp"])


def usb(payload: Payload, out: Path) -> None:
    """A raw disk image: GRUB for BIOS in front of one FAT32 partition that has GRUB for UEFI and all files.

    The partition is of an ordinary type, so that every system shows its files and /cairn.toml can be edited in place.
    """
    with tempfile.TemporaryDirectory(prefix="cairn-usb-") as folder:
        work = Path(folder)
        files = work / "files"
        files.mkdir()
        media.tree(payload, files, find_modules=True)
        serial = _serial_number(files)
        early = work / "early.cfg"
        early.write_text(f"search.fs_uuid {serial[:4]}-{serial[4:]} root\nset prefix=($root)/boot/grub\n")
        (files / "EFI/BOOT").mkdir(parents=True)
        _grub_image("x86_64-efi", files / "EFI/BOOT/BOOTX64.EFI", ["part_msdos", "fat"], early)
        _grub_image("i386-pc", work / "core.img", ["biosdisk", "part_msdos", "fat"], early)
        _write_stick(out, files, serial, (work / "core.img").read_bytes())


def _serial_number(files: Path) -> str:
    """The file system's serial number, by which GRUB finds it: eight hexadecimal digits made from what the stick says."""
    digest = hashlib.sha256()
    for name in ("boot/cairn.elf", "boot/grub/grub.cfg", "cairn.toml"):
        digest.update((files / name).read_bytes())
    return digest.hexdigest()[:8].upper()


def _write_stick(out: Path, files: Path, serial: str, core: bytes) -> None:
    content = sum(path.stat().st_size for path in files.rglob("*") if path.is_file())
    sectors = -(-(content + content // 16 + 64 * MIB) // MIB) * MIB // SECTOR
    with out.open("wb") as image:
        image.write(_boot_sectors(core, sectors))
        image.truncate(_PARTITION_START + sectors * SECTOR)
    partition = f"{out}@@{_PARTITION_START}"
    run(["mformat", "-i", partition, "-F", "-T", sectors, "-h", "255", "-s", "63", "-H", _PARTITION_START // SECTOR,
         "-N", serial, "-v", "CAIRN", "::"])
    run(["mcopy", "-i", partition, "-s", "-Q", *sorted(files.iterdir()), "::"])


def _boot_sectors(core: bytes, partition_sectors: int) -> bytes:
    """The master boot record and GRUB's core image behind it, as grub-bios-setup would place them.

    GRUB's images assume by themselves that the core image begins at sector 1 and is contiguous.
    """
    core += bytes(-len(core) % SECTOR)
    if len(core) > _GAP_SECTORS * SECTOR:
        raise Failure(f"GRUB's core image has {len(core)} bytes: too many for the gap before the partition")
    boot = bytearray((GRUB / "i386-pc/boot.img").read_bytes())
    boot[0x66:0x68] = b"\x90\x90"  # trust no drive number from the BIOS that is not one of a disk
    entry = struct.pack("<B3sB3sII", 0x80, b"\xfe\xff\xff", 0x0c, b"\xfe\xff\xff", _PARTITION_START // SECTOR,
                        partition_sectors)
    boot[0x1be:0x1fe] = entry + bytes(48)
    return bytes(boot) + core


def _grub_image(target: str, out: Path, modules: list[str], early: Path | None = None) -> None:
    script = ["-c", early] if early else []
    run(["grub-mkimage", "-O", target, "-p", "/boot/grub", *script, "-o", out, *modules, *_COMMON_MODULES])
