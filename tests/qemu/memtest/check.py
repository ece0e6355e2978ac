# SPDX-License-Identifier: MIT
"""Gets memtest86+ out of Debian's package."""

import foreign

_FILE = "memtest86+x64.bin"


def prepare(folder, _case) -> None:
    """Leaves memtest86+x64.bin in FOLDER."""
    apt = foreign.Apt("amd64")

    def make(work) -> dict[str, bytes]:
        return {_FILE: (apt.unpack("memtest86+", work) / "boot" / _FILE).read_bytes()}

    (folder / _FILE).symlink_to(foreign.kept("memtest", [apt.version("memtest86+")], make)[_FILE])
