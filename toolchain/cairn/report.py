# SPDX-License-Identifier: MIT
"""What `./cairn test` prints: a line a test, and the count at the end."""

import dataclasses
import threading
import time
import traceback

from cairn.errors import FAILED, OK, Failure


@dataclasses.dataclass(frozen=True)
class Result:
    """Of one test; `detail` follows the line of a test that failed."""

    verdict: str  # PASS, FAIL or SKIP
    name: str
    reason: str = ""
    detail: str = ""


class Report:
    """Prints results as they come, from any thread."""

    def __init__(self):
        self._lock = threading.Lock()
        self._counts = {"PASS": 0, "FAIL": 0, "SKIP": 0}

    def add(self, result: Result) -> None:
        with self._lock:
            self._counts[result.verdict] += 1
            print(f"{result.verdict} {result.name}" + (f" {result.reason}" if result.reason else ""), flush=True)
            for line in result.detail.splitlines():
                print(f"    {line}", flush=True)

    def finish(self) -> int:
        """The last line, and the exit status: a run in which nothing passed is no success."""
        passed, failed, skipped = self._counts.values()
        print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""), flush=True)
        return OK if failed == 0 and passed > 0 else FAILED


def excerpt(text: str) -> str:
    """What fits on a screen or two: where it begins, and how it ends."""
    lines = text.splitlines()
    return "\n".join(lines if len(lines) <= 60 else [*lines[:30], "...", *lines[-30:]])


def verdict(name: str, test) -> Result:
    """TEST returns the problems that it found, or raises Failure; if it raises anything else, it is at fault itself."""
    began = time.monotonic()
    try:
        problems = test()
    except Failure as failure:
        problems = str(failure).splitlines()
    except Exception:
        problems = traceback.format_exc().splitlines()
    seconds = f"{time.monotonic() - began:.1f} s"
    return Result("FAIL", name, seconds, excerpt("\n".join(problems))) if problems else Result("PASS", name, seconds)
