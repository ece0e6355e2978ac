# SPDX-License-Identifier: MIT
"""`./cairn bench`: what the hypervisor costs, beside its budgets and the figures of others (bench/rows.toml).

On svm with --icount all figures are exact and repeat: one instruction is one tick. Bochs counts in much the same way,
though not its devices; there the figures are for comparison.
"""

import dataclasses
import functools
import importlib
import json
import re
import shutil
import sys
import tomllib
from pathlib import Path

from cairn import build, config, machine_qemu, media, packages, paths, run, stopping
from cairn.console import Outcome
from cairn.errors import FAILED, OK, Failure
from cairn.machine import Hardware, Nic
from cairn.shell import lock, say
from cairn.shell import run as shell_run

_FOLDER = Path(__file__).resolve().parent / "bench"
_TIMEOUT = 600
_VMS = (1, 8, 64)           # of 16 MB, all but one idle
_MANY_MEMORY = 1536 << 20   # of the host that they are on

_MEASURED = re.compile(r"^\[bench\] bench: (\S+) (\d+) (\d+)$")
_MEASURED_LAST = re.compile(r"^\[bench\] bench: end$")
_FIRST_ENTRY = re.compile(r"^\[cairn\] .*first guest entry after (\d+) ticks")
_BESIDE = re.compile(r"^\[cairn\] .* starts: .* (\d+) KiB beside")
_TO_INIT = re.compile(r"boot-time: ok (\d+) us")
_LASTED = re.compile(r"^\[cairn\] .* lasted for (\d+) ticks")
_IO_MODULES = ("virtio_pci", "virtio_blk", "virtio_net")
_INIT_RUNS = re.compile(r"init: (\d+) ticks")


def command() -> int:
    packages.ensure("qemu", "bochs", "iso")
    columns = {"svm": _svm([*_LIMITED, _bare_guest_boot, _bare_cloud_boot]), "vmx": _exits(_vmx("exits.toml"))}
    rows = _rows()
    print(_table(rows, columns))
    print()
    print(_scaling_table(rows, columns["svm"]))
    return OK


def over_limit() -> list[str]:
    """What costs more on svm than the limit that its row in rows.toml sets; each figure repeats exactly."""
    packages.ensure("qemu")
    figures = _svm(_LIMITED)
    rows = _rows()
    problems = []
    for row in rows["row"]:
        if row.get("unlimited"):
            continue
        problems += _judged(row["title"], figures.get(row["key"]), row["limit"])
    for row in rows["scaling"]:
        for count in _VMS:
            problems += _judged(f"{row['title']} with {count} VMs", figures.get(_of(row["key"], count)), _scaling_limit(row, figures))
    return problems


def _judged(title: str, figure: float | None, limit: float) -> list[str]:
    if figure is None:
        return [f"{title}: not measured"]
    return [f"{title}: {_number(figure)}, the limit is {_number(limit)}"] if figure > limit else []


def _rows() -> dict:
    return tomllib.loads((_FOLDER / "rows.toml").read_text())


# --- what is measured: each function is one run of a machine, and returns the figures of its rows ----------------------------

def _svm(runs: list) -> dict[str, float]:
    """All figures of these runs. They count instructions, so they may share the computer."""
    build.hypervisor()
    build.guest()
    build.config_tool()
    say(f"{len(runs)} runs on svm")
    figures = {}
    with stopping.pool() as pool:
        for one in pool.map(lambda measure: measure(), runs):
            figures |= one
    figures["image"] = media.hypervisor_file().stat().st_size / 1024
    return figures


def _exit_costs() -> dict[str, float]:
    return _exits(_counted(_FOLDER / "exits.toml"))


def _guest_boot() -> dict[str, float]:
    lines = _counted(_FOLDER / "boot.toml")
    return _first(lines, _TO_INIT, "guest-boot") | _first(lines, _BESIDE, "vm-memory")


def _host_boot() -> dict[str, float]:
    lines = _observe(_hardware(), config.demo(headless=True), until=_FIRST_ENTRY)
    return _first(lines, _FIRST_ENTRY, "host-boot", 1e6)


def _cloud_boot() -> dict[str, float]:
    return _first(_counted(_cloud_kernel() / "cloud.toml"), _LASTED, "cloud-boot", 1e6)


def _disk() -> dict[str, float]:
    return _exits(_counted(_io_guest() / "disk.toml", until=_MEASURED_LAST))


def _disk_smp() -> dict[str, float]:
    """The rows of _disk, of a VM with two vCPUs."""
    lines = _counted(_io_guest() / "disk-smp.toml", until=_MEASURED_LAST)
    return {f"{key}-smp": figure for key, figure in _exits(lines).items()}


def _net() -> dict[str, float]:
    return _exits(_counted(_io_guest() / "net.toml", until=_MEASURED_LAST))


def _uplink(kind: str) -> dict[str, float]:
    """The rows of _net, from one NIC of this kind by a cable to another."""
    hardware = dataclasses.replace(_hardware(), nics=(Nic(kind, cable="hub=0"),) * 2)
    lines = _observe(hardware, config.load(_io_guest() / "uplink.toml"), _MEASURED_LAST)
    return {f"{key}-{kind}": figure for key, figure in _exits(lines).items()}


def _many(count: int) -> dict[str, float]:
    """One VM is measured when the others have long begun to idle."""
    folder = paths.BUILD / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"vms-{count}.toml"
    idle, measured = (tomllib.loads((_FOLDER / "many.toml").read_text())["vm"])
    vms = [{**idle, "name": f"{idle['name']}{number}"} for number in range(1, count)] + [measured]
    file.write_text("\n".join(_toml(vm) for vm in vms))
    lines = _counted(file, memory=_MANY_MEMORY, until=_MEASURED_LAST)
    beside = max((int(match[1]) for line in lines if (match := _BESIDE.search(line))), default=None)
    figures = {**_exits(lines), **({"memory": beside} if beside is not None else {})}
    return {_of(key, count): figure for key, figure in figures.items()}


def _bare_guest_boot() -> dict[str, float]:
    """The guest of boot.toml as QEMU's own, with the same virtual disk and no hypervisor in between."""
    vm = tomllib.loads((_FOLDER / "boot.toml").read_text())["vm"][0]
    drive = machine_qemu.virtio_disk(paths.GUEST / "rootfs.erofs")
    return _first(_bare(paths.GUEST / "vmlinux", vm, drive, _TO_INIT), _TO_INIT, "guest-boot-bare")


def _bare_cloud_boot() -> dict[str, float]:
    folder = _cloud_kernel()
    vm = tomllib.loads((folder / "cloud.toml").read_text())["vm"][0]
    lines = _bare(folder / vm["kernel"], vm, ["-initrd", folder / vm["initrd"]], _INIT_RUNS)
    return _first(lines, _INIT_RUNS, "cloud-boot-bare", 1e6)


_LIMITED = [_cloud_boot, *(functools.partial(_uplink, kind) for kind in ("e1000e", "e1000")), _net, _disk, _disk_smp, _exit_costs,
            *(functools.partial(_many, count) for count in reversed(_VMS)), _guest_boot, _host_boot]


# --- how -------------------------------------------------------------------------------------------------------------------

@functools.cache
def _cloud_kernel() -> Path:
    """A folder with cloud.toml and the files that it names: Debian's kernel for clouds, init.c as its first process."""
    foreign = _foreign()
    init = _compiled("init", "-nostdlib", "-ffreestanding", "-fno-stack-protector")
    kernel = foreign.debian_kernel("linux-image-cloud-amd64", "amd64", "", ())["vmlinuz"]
    return _linked("boot", {"vmlinuz": kernel, "initrd.cpio": foreign.initramfs(init), "cloud.toml": _FOLDER / "cloud.toml"})


@functools.cache
def _io_guest() -> Path:
    """A folder with these configs and the files that they name: the same kernel, whose first process runs io.c."""
    files = _foreign().debian_kernel("linux-image-cloud-amd64", "amd64", (_FOLDER / "io.sh").read_text(), _IO_MODULES,
                                     {"bin/io": _compiled("io")})
    return _linked("io", files | {name: _FOLDER / name for name in ("disk.toml", "disk-smp.toml", "net.toml", "uplink.toml")})


def _foreign():
    folder = str(paths.ROOT / "tests" / "qemu")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module("foreign")


def _compiled(name: str, *options: str) -> bytes:
    """The program of NAME.c, which needs nothing beside it."""
    program = paths.BUILD / "bench" / name
    program.parent.mkdir(parents=True, exist_ok=True)
    with lock(program.parent / ".lock"):
        shell_run(["gcc", "-O2", "-static", *options, "-Wl,--build-id=none", "-s", "-o", program, _FOLDER / f"{name}.c"])
        return program.read_bytes()


def _linked(name: str, files: dict[str, Path]) -> Path:
    """A folder in which FILES have these names at any time, for another run may read there."""
    folder = paths.BUILD / "bench" / f"{name}-files"
    with lock(paths.BUILD / "bench" / ".lock"):
        folder.mkdir(exist_ok=True)
        new = folder / ".new"
        for file, path in files.items():
            new.unlink(missing_ok=True)
            new.symlink_to(path)
            new.replace(folder / file)
    return folder


def _of(key: str, count: int) -> str:
    return f"{key} of {count}"


def _toml(vm: dict) -> str:
    return "[[vm]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in vm.items())


def _hardware(memory: int = 1 << 30) -> Hardware:
    return Hardware("svm", icount=True, headless=True, memory=memory)


def _counted(file: Path, memory: int = 1 << 30, until: re.Pattern | None = None) -> list[str]:
    return _observe(_hardware(memory), config.load(file), until)


def _vmx(name: str) -> list[str]:
    say("measuring exits on vmx")
    return _observe(Hardware("vmx", headless=True), config.load(_FOLDER / name))


def _observe(hardware: Hardware, cfg: config.Config, until: re.Pattern | None = None) -> list[str]:
    outcome, lines = run.observe(hardware, cfg, _TIMEOUT, until)
    _require(outcome, lines, f"{cfg.path.name} on {hardware.machine}")
    return lines


def _bare(kernel: Path, vm: dict, more: list, until: re.Pattern) -> list[str]:
    work = run.work_folder()
    try:
        machine = machine_qemu.start_bare(kernel, vm["cmdline"], vm["memory"], more, work)
        outcome, lines = run.watch(machine, work, _TIMEOUT, until)
        _require(outcome, lines, f"{kernel.name} without a hypervisor")
        return lines
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _require(outcome: Outcome, lines: list[str], what: str) -> None:
    if outcome.status != OK:
        raise Failure("\n".join([f"bench: {what}: {outcome.reason}", *lines[-20:]]), FAILED)


def _exits(lines: list[str]) -> dict[str, float]:
    return {match[1]: int(match[3]) for line in lines if (match := _MEASURED.match(line))}


def _first(lines: list[str], pattern: re.Pattern, key: str, unit: float = 1) -> dict[str, float]:
    return next(({key: int(match[1]) / unit} for line in lines if (match := pattern.search(line))), {})


# --- what is shown ---------------------------------------------------------------------------------------------------------


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
    return _aligned(table)


def _scaling_table(data: dict, figures: dict[str, float]) -> str:
    table = [["on svm, with so many VMs of 16 MB, all but one idle", *map(str, _VMS), "limit"]]
    for row in data["scaling"]:
        ours = [figures.get(_of(row["key"], count)) for count in _VMS]
        table.append([row["title"], *map(_number, ours), _number(_scaling_limit(row, figures))])
    return _aligned(table)


def _scaling_limit(row: dict, figures: dict[str, float]) -> float:
    """A limit, or so many per cent above the figure of one VM by itself."""
    return row["limit"] if "limit" in row else figures.get(_of(row["key"], 1), 0) * (1 + row["within"] / 100)


def _aligned(table: list[list[str]]) -> str:
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    return "\n".join("  ".join([line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:]))])
                     for line in table)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:,.1f}"
