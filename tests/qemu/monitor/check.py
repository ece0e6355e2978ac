# SPDX-License-Identifier: MIT
"""The monitor's capture is the pcap file of the guest's ping."""

import disk_images

from cairn import pcap

_ECHO_REQUEST, _ECHO_REPLY = 8, 0


def prepare(folder, case) -> None:
    disk_images.write(folder / "disk.img", 8 * disk_images.MIB, [])


def check(session) -> list[str]:
    frames, _ = pcap.whole_packets(pcap.stream(session.lines))
    pings = [frame[34] for frame in frames if frame[12:14] == b"\x08\x00" and frame[23] == 1]
    if len(frames) != 4 or _ECHO_REQUEST not in pings or _ECHO_REPLY not in pings:
        return [f"captured {len(frames)} frames, ICMP types {pings}"]
    return []
