# SPDX-License-Identifier: MIT
"""What others made, for boot tests: kernels out of Debian's packages, and an initramfs of busybox and the kernel's own
modules. What was made is kept below build/foreign, by what it was made of."""

import hashlib
import subprocess
import tempfile
from pathlib import Path

from cairn import packages, paths
from cairn.errors import Failure
from cairn.shell import lock

KEPT = paths.BUILD / "foreign"


def kept(name: str, parts: list[str], make) -> dict[str, Path]:
    """The files that MAKE(work folder) returns as bytes by their names, made once for the same PARTS."""
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    folder = KEPT / f"{name}-{key}"
    with lock(paths.BUILD / ".foreign.lock"):
        if not folder.exists():
            KEPT.mkdir(exist_ok=True)
            with tempfile.TemporaryDirectory(dir=KEPT) as work:
                new = Path(work) / "new"
                new.mkdir()
                for file, data in make(Path(work)).items():
                    (new / file).write_bytes(data)
                new.rename(folder)
    return {path.name: path for path in folder.iterdir()}


class Apt:
    """Debian's packages of one architecture. Of another than this computer's through package lists of its own, so that
    the computer's stay as they are."""

    def __init__(self, architecture: str):
        self._options: list[str] = []
        if architecture == packages.guest_debian().ARCHITECTURE:
            return
        state = KEPT / f"apt-{architecture}"
        for folder in ("lists/partial", "cache/archives/partial"):
            (state / folder).mkdir(parents=True, exist_ok=True)
        self._options = ["-o", f"APT::Architecture={architecture}", "-o", f"APT::Architectures={architecture}",
                         "-o", f"Dir::State::Lists={state}/lists", "-o", f"Dir::Cache={state}/cache",
                         "-o", "Dir::State::status=/dev/null"]
        if not any((state / "lists").glob("*_Packages*")):
            # One list that cannot be had is no harm as long as another names what is wanted.
            subprocess.run(["apt-get", *self._options, "-q", "update"], capture_output=True, check=False)

    def version(self, package: str) -> str:
        lines = self._ask("show", "--no-all-versions", package).splitlines()
        return next(line.removeprefix("Version: ") for line in lines if line.startswith("Version: "))

    def kernel_of(self, package: str) -> str:
        """The package of a kernel that a package without a version stands for."""
        lines = self._ask("depends", package).splitlines()
        return next(line.split()[1] for line in lines if "Depends: linux-image-" in line)

    def unpack(self, package: str, work: Path) -> Path:
        """A folder below WORK with the package's files."""
        root = work / package
        root.mkdir()
        _run(["apt-get", *self._options, "-q", "download", package], root)
        [archive] = root.glob("*.deb")
        _run(["dpkg-deb", "-x", str(archive), str(root)], root)
        return root

    def _ask(self, *words: str) -> str:
        return _run(["apt-cache", *self._options, *words], paths.BUILD)


def debian_kernel(image: str, architecture: str, init: str, modules: tuple[str, ...],
                  more: dict[str, bytes] | None = None) -> dict[str, Path]:
    """`vmlinuz` of the package that IMAGE stands for, and `initrd.cpio`: busybox, the script INIT, MORE files, and the
    MODULES with all that they depend on, to be loaded as /modules/00-NAME.ko, 01..."""
    more = more or {}
    with lock(paths.BUILD / ".apt.lock"):
        apt = Apt(architecture)
    kernel = apt.kernel_of(image)

    def make(work: Path) -> dict[str, bytes]:
        root = apt.unpack(kernel, work)
        files = _init_and_busybox(apt, init.encode(), work) | more
        drivers = {path.name.removesuffix(".ko").replace("-", "_"): path for path in root.rglob("*.ko")}
        for number, name in enumerate(_in_order(modules, drivers)):
            files[f"modules/{number:02}-{name}.ko"] = drivers[name].read_bytes()
        [vmlinuz] = root.glob("boot/vmlinuz-*")
        return {"vmlinuz": vmlinuz.read_bytes(), "initrd.cpio": _archive(files)}

    parts = [kernel, apt.version(kernel), apt.version("busybox-static"), init, *modules,
             *(f"{name} {hashlib.sha256(data).hexdigest()}" for name, data in more.items())]
    return kept(image, parts, make)


def initramfs(init: bytes) -> Path:
    """busybox and the program or script INIT."""
    apt = Apt(packages.guest_debian().ARCHITECTURE)

    def make(work: Path) -> dict[str, bytes]:
        return {"initrd.cpio": _archive(_init_and_busybox(apt, init, work))}

    return kept("initramfs", [apt.version("busybox-static"), hashlib.sha256(init).hexdigest()], make)["initrd.cpio"]


def _init_and_busybox(apt: Apt, init: bytes, work: Path) -> dict[str, bytes]:
    [busybox] = apt.unpack("busybox-static", work).rglob("bin/busybox")
    return {"init": init, "bin/busybox": busybox.read_bytes()}


def _in_order(wanted: tuple[str, ...], drivers: dict[str, Path]) -> list[str]:
    """Names of modules, each behind those that it depends on."""
    order: list[str] = []

    def add(name: str) -> None:
        if name in order:
            return
        information = drivers[name].read_bytes().split(b"\0depends=", 1)[1].split(b"\0", 1)[0].decode()
        for other in filter(None, information.split(",")):
            add(other.replace("-", "_"))
        order.append(name)

    for name in wanted:
        add(name)
    return order


def _archive(files: dict[str, bytes]) -> bytes:
    """A cpio archive in the kernel's `newc` format; folders come before what is in them."""
    folders = sorted({str(parent) for name in files for parent in Path(name).parents} - {"."})
    entries = [(name, 0o40755, b"", 0, 0) for name in ("dev", *folders)] + [("dev/console", 0o20600, b"", 5, 1)]
    entries += [(name, 0o100755, data, 0, 0) for name, data in files.items()] + [("TRAILER!!!", 0, b"", 0, 0)]
    out = bytearray()
    for number, (name, mode, data, major, minor) in enumerate(entries, 1):
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name) + 1, 0)
        out += b"070701" + "".join(f"{field:08x}" for field in fields).encode() + name.encode() + b"\0"
        out += bytes(-len(out) % 4) + data
        out += bytes(-len(out) % 4)
    return bytes(out)


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, text=True, capture_output=True, check=False)
    if done.returncode != 0:
        raise Failure(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
