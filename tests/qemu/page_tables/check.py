# SPDX-License-Identifier: MIT
"""Reads the live page table through `info tlb`: address, frame and nine flags, X for no-execute, U, W, of each page."""

import re
import time

_PAGE = re.compile(r"^([0-9a-f]{16}): [0-9a-f]{16} (.{9})$", re.MULTILINE)
_KERNEL_HALF = 1 << 63


def during(session, lines) -> list[str]:
    if not any(re.search(session.case.until, line) for line in lines):
        return []
    time.sleep(1)  # the VM is being taken down
    pages = _PAGE.findall(session.monitor("info tlb"))
    problems = [f"page {address} has flags {flags}: writable and executable" for address, flags in pages
                if "W" in flags and "X" not in flags]
    problems += [f"page {address} has flags {flags}: for user mode" for address, flags in pages if "U" in flags]
    problems += [f"page {address} is mapped in the lower half" for address, _ in pages if int(address, 16) < _KERNEL_HALF]
    if not any("X" not in flags for _, flags in pages) or not any("W" in flags for _, flags in pages):
        problems.append(f"{len(pages)} pages are mapped: this cannot be the hypervisor's page table")
    return problems[:20]
