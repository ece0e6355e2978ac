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
_MAGIC = struct.pack("<I", 0xA1B23C4D)
_FILE_HEADER = 24
_PACKET_HEADER = 16


def stream(lines) -> bytes:
    """The bytes that LINES of a console carry."""
    return b"".join(base64.b64decode(match[1]) for line in lines if (match := _LINE.match(line)))


def _whole_packets(data: bytes) -> tuple[int, int]:
    """Of a capture: how many packets are whole, and where the last of these ends."""
    count, end = 0, _FILE_HEADER
    while end + _PACKET_HEADER <= len(data):
        size = struct.unpack_from("<I", data, end + 8)[0]
        if end + _PACKET_HEADER + size > len(data):
            break
        count, end = count + 1, end + _PACKET_HEADER + size
    return count, end


def command(log: Path, out: Path) -> None:
    """`./cairn pcap`: of several captures in a log the last."""
    try:
        text = log.read_bytes()
    except OSError as error:
        raise usage(f"{log}: {error.strerror}") from None
    lines = [Transcript.plain(line) for line in text.split(b"\n")]
    data = stream(lines)
    start = data.rfind(_MAGIC)
    if start < 0 or len(data) - start < _FILE_HEADER:
        raise usage(f"{paths.shown(log)}: there is no capture in it; allowed: a console log with lines of `net capture`")
    count, end = _whole_packets(data[start:])
    try:
        out.write_bytes(data[start:start + end])
    except OSError as error:
        raise usage(f"{out}: {error.strerror}") from None
    say(f"{paths.shown(out)} has {count} packets" + ("" if start + end == len(data) else ", the last one in the log is cut off"))
