# SPDX-License-Identifier: MIT
"""`./cairn test`: the host tests here, the boot tests in tests/qemu/runner.py."""

import sys

from cairn import paths, tests_host
from cairn.report import Report, verdict

GROUPS = ("host", "qemu", "all")


def command(group: str, pattern: str) -> int:
    """Runs the tests whose name holds PATTERN; the exit status."""
    report = Report()
    if group in ("host", "all"):
        tests_host.run(pattern, report)
    if group in ("qemu", "all"):
        sys.path.insert(0, str(paths.ROOT / "tests" / "qemu"))
        import runner
        runner.run(pattern, report)
        _bench(pattern, report)
    return report.finish()


def _bench(pattern: str, report: Report) -> None:
    name = "bench limits [svm]"
    if pattern in name:
        from cairn import bench
        report.add(verdict(name, bench.over_limit))
