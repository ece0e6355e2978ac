# SPDX-License-Identifier: MIT
"""`./cairn bench`: what the hypervisor costs, beside its budgets and the figures of others (bench/rows.toml).

On svm with --icount all figures are exact and repeat: one instruction is one tick. Bochs counts in much the same way,
though not its devices; there the figures are for comparison.
"""

import re
import shutil
import sys
import tomllib
from pathlib import Path

from cairn import build, config, machine_qemu, media, packages, paths, run
from cairn.console import Outcome
from cairn.errors import FAILED, OK, Failure
from cairn.machine import Hardware
from cairn.shell import say

_FOLDER = Path(__file__).resolve().parent / "bench"
_TIMEOUT = 600

_MEASURED = re.compile(r"^\[bench\] bench: (\S+) (\d+) (\d+)$")
_FIRST_ENTRY = re.compile(r"^\[cairn\] .*first guest entry after (\d+) ticks")
_BESIDE = re.compile(r"^\[cairn\] .*linux starts: .* (\d+) KiB beside")
_TO_INIT = re.compile(r"boot-time: ok (\d+) us")


def command() -> int:
    packages.ensure("qemu", "bochs", "iso")
    build.hypervisor()
    build.guest()
    columns = {"svm": _svm(), "vmx": _vmx()}
    print(_table(tomllib.loads((_FOLDER / "rows.toml").read_text()), columns))
    return OK


def over_limit() -> list[str]:
    """What costs more on svm than the limit that its row in rows.toml sets; each figure repeats exactly."""
    packages.ensure("qemu")
    build.hypervisor()
    build.guest()
    figures = _svm()
    problems = []
    for row in tomllib.loads((_FOLDER / "rows.toml").read_text())["row"]:
        figure = figures.get(row["key"])
        if figure is None:
            problems.append(f"{row['title']}: not measured")
        elif figure > row.get("limit", sys.maxsize):
            problems.append(f"{row['title']}: {_number(figure)}, the limit is {_number(row['limit'])}")
    return problems


def _svm() -> dict[str, float]:
    hardware = Hardware("svm", icount=True, headless=True)
    say("measuring exits on svm")
    figures = _exits(_lines(hardware, "exits.toml"))
    say("measuring boots on svm")
    lines = _lines(hardware, "boot.toml")
    figures |= _first(lines, _TO_INIT, "guest-boot") | _first(lines, _BESIDE, "vm-memory")
    figures |= {"host-boot": ticks / 1e6 for ticks in _first(_demo(hardware), _FIRST_ENTRY, "ticks").values()}
    figures |= _first(_bare(), _TO_INIT, "guest-boot-bare")
    figures["image"] = media.hypervisor_file().stat().st_size / 1024
    return figures


def _vmx() -> dict[str, float]:
    say("measuring exits on vmx")
    return _exits(_lines(Hardware("vmx", headless=True), "exits.toml"))


def _lines(hardware: Hardware, name: str) -> list[str]:
    return _observe(hardware, config.load(_FOLDER / name))


def _demo(hardware: Hardware) -> list[str]:
    return _observe(hardware, config.demo(headless=True))


def _observe(hardware: Hardware, cfg: config.Config) -> list[str]:
    outcome, lines = run.observe(hardware, cfg, _TIMEOUT)
    _require(outcome, lines, f"{cfg.path.name} on {hardware.machine}")
    return lines


def _bare() -> list[str]:
    """The guest of boot.toml as QEMU's own, with the same virtual disk and no hypervisor in between."""
    words = tomllib.loads((_FOLDER / "boot.toml").read_text())["vm"][0]["cmdline"]
    work = run.work_folder()
    try:
        outcome, lines = run.watch(machine_qemu.start_bare(paths.GUEST / "vmlinux", words, paths.GUEST / "rootfs.erofs", work),
                                   work, _TIMEOUT, until=_TO_INIT)
        _require(outcome, lines, "vmlinux without a hypervisor")
        return lines
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _require(outcome: Outcome, lines: list[str], what: str) -> None:
    if outcome.status != OK:
        raise Failure("\n".join([f"bench: {what}: {outcome.reason}", *lines[-20:]]), FAILED)


def _exits(lines: list[str]) -> dict[str, float]:
    return {match[1]: int(match[3]) for line in lines if (match := _MEASURED.match(line))}


def _first(lines: list[str], pattern: re.Pattern, key: str) -> dict[str, float]:
    return next(({key: int(match[1])} for line in lines if (match := pattern.search(line))), {})


def _table(data: dict, columns: dict[str, dict[str, float]]) -> str:
    """Medians of ours, the budget (marked where svm is over it), the peers."""
    peers = data["peers"]
    table = [["round trip, instructions (median)", *columns, "budget", *peers.values()]]
    for row in data["row"]:
        ours = [column.get(row["key"]) for column in columns.values()]
        over = ours[0] is not None and ours[0] > row.get("budget", sys.maxsize)
        budget = row.get("budget")
        table.append([row["title"], *map(_number, ours), _number(budget) + (" OVER" if over else ""),
                      *(_number(row.get(peer)) for peer in peers)])
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    return "\n".join("  ".join([line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:]))])
                     for line in table)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:,.1f}"
