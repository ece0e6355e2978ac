#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks a hypervisor image: no segment is writable and executable, no instruction touches FPU or SIMD registers.

The registers belong to the guests (docs/architecture.md); what saves and restores them as a whole is allowed.
"""

import re
import subprocess
import sys

_STATE = {"fninit", "fxsave", "fxsave64", "fxrstor", "fxrstor64", "xsave", "xsave64", "xsaveopt", "xsaveopt64", "xsavec",
          "xsavec64", "xsaves", "xsaves64", "xrstor", "xrstor64", "xrstors", "xrstors64", "ldmxcsr", "stmxcsr", "fwait"}
_REGISTER = re.compile(r"%(?:[xyz]?mm\d|st\b|k[0-7]\b)")
_LINE = re.compile(r"^\s*([0-9a-f]+):\t(\S+)\s*(.*)$")


def _objdump(*arguments: str) -> str:
    return subprocess.run(["objdump", *arguments], text=True, check=True, capture_output=True).stdout


def segments_writable_and_executable(image: str) -> list[str]:
    """A line for each such segment: [ELF program header flags]."""
    headers = _objdump("-p", image)
    return [f"{image}: segment with flags {flags}" for flags in re.findall(r"LOAD off.*\n.*flags (\S+)", headers)
            if "w" in flags and "x" in flags]


def floating_instructions(image: str) -> list[str]:
    """A line for each instruction with an FPU or SIMD register, or an x87 mnemonic."""
    found = []
    function = "?"
    for line in _objdump("-d", "--no-show-raw-insn", image).splitlines():
        if line.endswith(">:"):
            function = line.split("<", 1)[1][:-2]
        match = _LINE.match(line)
        if not match or match[2] in _STATE:
            continue
        if _REGISTER.search(match[3]) or (match[2].startswith("f") and match[2] != "fs"):
            found.append(f"{image}: {match[1]} in {function}: {match[2]} {match[3]}")
    return found


def problems(image: str) -> list[str]:
    return segments_writable_and_executable(image) + floating_instructions(image)


if __name__ == "__main__":
    found = [line for image in sys.argv[1:] for line in problems(image)]
    print(*found, sep="\n", end="\n" if found else "")
    sys.exit(1 if found or len(sys.argv) < 2 else 0)
