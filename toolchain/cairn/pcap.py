# SPDX-License-Identifier: MIT
"""What the monitor's `net capture` shows, as a pcap file."""

import base64
import re
import struct
from pathlib import Path

from cairn import paths
from cairn.console import Transcript
from cairn.errors import usage
from cairn.shell import say

# Behind a prompt that was wiped out, or the hypervisor's prefix; never behind a VM's.
_LINE = re.compile(r"^(?:\[cairn\] |cairn> .*)?pcap ((?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?)$")
# Nanoseconds, version 2.4, up to 65535 bytes of a packet, Ethernet.
_FILE_HEADER = struct.pack("<IHHIIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 1)
_PACKET_HEADER = 16


def stream(lines) -> bytes:
    """The bytes of the last capture that LINES of a console carry."""
    pieces = []
    for line in lines:
        if match := _LINE.match(line):
            piece = base64.b64decode(match[1])
            if piece.startswith(_FILE_HEADER):
                pieces.clear()
            pieces.append(piece)
    return b"".join(pieces)


def whole_packets(data: bytes) -> tuple[list[bytes], int]:
    """Of a capture: the frames that are whole, and where the last of these ends."""
    frames, end = [], len(_FILE_HEADER)
    while end + _PACKET_HEADER <= len(data):
        size = struct.unpack_from("<I", data, end + 8)[0]
        begin = end + _PACKET_HEADER
        if begin + size > len(data):
            break
        frames.append(data[begin:begin + size])
        end = begin + size
    return frames, end


def command(log: Path, out: Path) -> None:
    """`./cairn pcap`: of several captures in a log the last."""
    try:
        text = log.read_bytes()
    except OSError as error:
        raise usage(f"{log}: {error.strerror}") from None
    lines = [Transcript.plain(line) for line in text.split(b"\n")]
    data = stream(lines)
    if not data.startswith(_FILE_HEADER):
        raise usage(f"{paths.shown(log)}: there is no capture in it; allowed: a console log with lines of `net capture`")
    frames, end = whole_packets(data)
    try:
        out.write_bytes(data[:end])
    except OSError as error:
        raise usage(f"{out}: {error.strerror}") from None
    say(f"{paths.shown(out)} has {len(frames)} packets" + ("" if end == len(data) else ", the last one in the log is cut off"))
