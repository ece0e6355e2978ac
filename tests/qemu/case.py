# SPDX-License-Identifier: MIT
"""A boot test as its folder describes it: case.toml, vm.toml and perhaps check.py. docs/testing.md explains the keys."""

import dataclasses
import importlib.util
import socket
import tomllib
from pathlib import Path

from cairn.errors import Failure
from cairn.machine import Disk, Hardware, Nic, parse_size

FOLDER = Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True)
class Case:
    """One run of one case on one machine."""

    name: str
    machine: str
    folder: Path
    config: str = "vm.toml"
    timeout: float = 60
    cpus: int | None = None
    memory: str = "1G"
    disks: tuple[str | dict, ...] = ()
    nics: tuple[str, ...] = ()
    boot: str | None = None
    firmware: str = "bios"
    icount: bool = False
    instruction_ns: int = 0
    stopped: bool = False
    status: int = 0
    expect: tuple[str, ...] = ()
    forbid: tuple[str, ...] = ()
    until: str = ""
    words: tuple[str, ...] = ()
    input: tuple[dict, ...] = ()
    long: bool = False
    skip: str = ""

    @property
    def title(self) -> str:
        return f"{self.name} [{self.machine}]"

    def hardware(self, files: Path) -> Hardware:
        """With the disks' files in FILES. A case that types is at a terminal; any other is headless."""
        return Hardware(machine=self.machine, boot=self.boot, firmware=self.firmware, cpus=self.cpus, icount=self.icount, instruction_ns=self.instruction_ns,
                        stopped=self.stopped, memory=parse_size(self.memory), headless=not self.input,
                        disks=tuple(_disk(disk, files) for disk in self.disks), nics=tuple(map(_nic, self.nics)))

    def hooks(self):
        """The functions of check.py, or None; each call loads them anew, so what they keep is of one run."""
        file = self.folder / "check.py"
        if not file.exists():
            return None
        spec = importlib.util.spec_from_file_location(f"check_{self.folder.name}", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


def _disk(disk: str | dict, files: Path) -> Disk:
    if isinstance(disk, str):
        kind, _, name = disk.partition(":")
        return Disk.parse(f"{kind}:{files / name}")
    drive = disk.get("drive", "").replace("FOLDER", str(files))
    return Disk(disk["kind"], files / disk["file"], disk.get("device", ""), drive, disk.get("port", False))


def _nic(text: str) -> Nic:
    """A port 0 of the host, forwarded or of a cable, becomes one that is free."""
    nic = Nic.parse(text)
    cable = nic.cable.removesuffix(":0") + f":{free_port()}" if nic.cable.endswith(":0") else nic.cable
    return Nic(nic.kind, tuple(rule.replace(":0-", f":{free_port()}-") for rule in nic.forwards), cable)


_ports: set[int] = set()  # that free_port() returned


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on, and that no other case was given."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
            if port not in _ports:  # nor does another thread look at it while it is bound here
                _ports.add(port)
                return port


_KEYS = {field.name for field in dataclasses.fields(Case)} - {"name", "machine", "folder", "skip"}


def load_all(machines: tuple[str, ...]) -> list[Case]:
    """Every case on every one of MACHINES, quick ones and slow ones mixed as their names fall."""
    return [case for file in sorted(FOLDER.glob("*/case.toml")) for case in _load(file, machines)]


def _load(file: Path, machines: tuple[str, ...]) -> list[Case]:
    table = tomllib.loads(file.read_text())
    skip = table.pop("skip", {})
    variants = table.pop("variant", [{}])
    of_machine = {machine: table.pop(machine, {}) for machine in ("svm", "vmx", "kvm")}
    cases = []
    for variant in variants:
        variant = dict(variant)
        own_name, own_skip = variant.pop("name", ""), variant.pop("skip", {})
        name = f"{file.parent.name}/{own_name}" if own_name else file.parent.name
        for machine in machines:
            keys = {**table, **of_machine[machine], **variant}
            unknown = keys.keys() - _KEYS
            if unknown:
                raise Failure(f"{file}: unknown key {sorted(unknown)[0]}; allowed: {' '.join(sorted(_KEYS))}")
            for key in ("expect", "forbid", "input", "words", "disks", "nics"):
                keys[key] = tuple(keys.get(key, ()))
            cases.append(Case(name=name, machine=machine, folder=file.parent, skip={**skip, **own_skip}.get(machine, ""), **keys))
    return cases
