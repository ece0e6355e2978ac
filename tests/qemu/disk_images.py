# SPDX-License-Identifier: MIT
"""Images of disks with GUID partition tables [uefi 5.3 GUID Partition Table (GPT) Disk Layout], right ones and broken ones,
and what a disk holds after a power cut."""

import dataclasses
import struct
import uuid
import zlib
from pathlib import Path

MIB = 1 << 20

_LINUX_DATA = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")
_OURS = uuid.UUID("63616972-6e00-4000-8000-000000000002")
_ENTRIES = 128
_ENTRY_SIZE = 128


@dataclasses.dataclass(frozen=True)
class Partition:
    """Where in the image it lies, in bytes."""

    first: int
    size: int

    def read(self, image: Path) -> bytes:
        with image.open("rb") as file:
            file.seek(self.first)
            return file.read(self.size)


def write(image: Path, size: int, partitions: list[tuple[str, int]], block: int = 512,
          broken: tuple[str, ...] = ()) -> list[Partition]:
    """Writes a disk of SIZE bytes with PARTITIONS, (label, size) each, one behind the other from 1 MiB on. BROKEN names
    what gets a wrong checksum: "primary header", "primary array", "backup header", "backup array"."""
    made = []
    entries = bytearray(_ENTRIES * _ENTRY_SIZE)
    at = MIB
    for number, (label, length) in enumerate(partitions):
        made.append(Partition(at, length))
        struct.pack_into("<16s16sQQQ72s", entries, number * _ENTRY_SIZE, _LINUX_DATA.bytes_le,
                         uuid.uuid5(_OURS, f"{image.name} {number}").bytes_le, at // block, (at + length) // block - 1, 0,
                         label.encode("utf-16-le"))
        at += length
    blocks, array = size // block, -(-len(entries) // block)
    if at > (blocks - 1 - array) * block:
        raise ValueError(f"{image}: its partitions do not fit into {size} bytes")
    disk = uuid.uuid5(_OURS, image.name)
    with image.open("wb") as file:
        file.truncate(size)
        file.write(_protective_mbr(blocks))
        for name, mine, other, table in (("primary", 1, blocks - 1, 2), ("backup", blocks - 1, 1, blocks - 1 - array)):
            header = _header(mine, other, table, (2 + array, blocks - 2 - array), disk, zlib.crc32(entries))
            file.seek(mine * block)
            file.write(_spoilt(header, 24) if f"{name} header" in broken else header)
            file.seek(table * block)
            file.write(_spoilt(entries, 56) if f"{name} array" in broken else entries)
    return made


def _spoilt(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]


def _protective_mbr(blocks: int) -> bytes:
    """[uefi 5.2.3 Protective MBR]"""
    record = struct.pack("<B3sB3sII", 0, b"\0\2\0", 0xee, b"\xff\xff\xff", 1, min(blocks - 1, 0xffffffff))
    return bytes(446) + record + bytes(48) + b"\x55\xaa"


def _header(mine: int, other: int, table: int, usable: tuple[int, int], disk: uuid.UUID, checksum: int) -> bytes:
    """[uefi 5.3.2 GPT Header], its own checksum computed as if that were 0."""
    def packed(own: int) -> bytes:
        return struct.pack("<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, own, 0, mine, other, *usable, disk.bytes_le, table,
                           _ENTRIES, _ENTRY_SIZE, checksum)
    return packed(zlib.crc32(packed(0)))


# --- what a power cut leaves ----------------------------------------------------------------------------------------------

_LOG_MAGIC = 0x6a736677736872  # QEMU's blklogwrites: the format of Linux' dm-log-writes
_LOG_FLUSH, _LOG_FUA, _LOG_DISCARD, _LOG_MARK = 1, 2, 4, 8


def after_power_cut(size: int, log: Path) -> tuple[bytes, int]:
    """A disk of SIZE bytes, all 0 at first, of which LOG is known, if it loses all that was not flushed; and how many
    writes it kept."""
    disk, cache = bytearray(size), []
    kept = 0
    with log.open("rb") as file:
        start = file.read(28)
        if len(start) < 28:
            return bytes(disk), 0  # nothing was written yet
        magic, _version, _entries, sector = struct.unpack("<QQQI", start)
        if magic != _LOG_MAGIC:
            raise ValueError(f"{log} is not a log of writes")
        at = sector
        while True:
            file.seek(at)
            entry = file.read(sector)
            if len(entry) < sector:
                break
            first, count, flags, _length = struct.unpack_from("<QQQQ", entry)
            if count == 0 and not flags & (_LOG_FLUSH | _LOG_MARK):
                break  # the file grows before it is written
            data = b"" if flags & _LOG_DISCARD else file.read(count * sector)
            at += sector + len(data)
            if flags & _LOG_FUA:
                disk[first * sector:first * sector + len(data)] = data
                kept += 1
            elif flags & _LOG_FLUSH:
                for place, written in cache:
                    disk[place:place + len(written)] = written
                kept, cache = kept + len(cache), []
            if data and not flags & _LOG_FUA:
                cache.append((first * sector, data))
    return bytes(disk), kept
