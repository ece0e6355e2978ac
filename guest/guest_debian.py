# SPDX-License-Identifier: MIT
"""Debian packages: which version there is, and their files.

A package that is installed is used as it is. Any other is downloaded and unpacked, but not installed: the image needs
its files, while the machine that builds it does not need, say, a container runtime.
"""

import subprocess
from pathlib import Path

from guest_cache import BuildError, run

ARCHITECTURE = "amd64"


def installed_version(package: str) -> str | None:
    query = ["dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}\n", package]
    try:
        result = subprocess.run(query, text=True, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise BuildError("the guest image is built from Debian packages: this system has no dpkg") from error
    status, _, version = result.stdout.strip().partition(" ")
    return version if result.returncode == 0 and status == "installed" else None


def available_version(package: str) -> str:
    for line in run(["apt-cache", "show", "--no-all-versions", package]).splitlines():
        if line.startswith("Version: "):
            return line.removeprefix("Version: ")
    raise BuildError(f"apt knows no package {package}: is `apt-get update` missing?")


def version(package: str) -> str:
    name = f"{package}:{ARCHITECTURE}"
    return installed_version(name) or available_version(name)


def versions(packages: list[str]) -> list[str]:
    """`PACKAGE VERSION` of each, as version() tells it; asks for all at once."""
    names = sorted(set(packages))
    query = ["dpkg-query", "-W", "-f", "${db:Status-Status} ${Package} ${Version}\n", *(f"{name}:{ARCHITECTURE}" for name in names)]
    lines = subprocess.run(query, text=True, capture_output=True, check=False).stdout.splitlines()
    found = {name: number for status, name, number in (line.split(" ") for line in lines) if status == "installed"}
    if absent := [f"{name}:{ARCHITECTURE}" for name in names if name not in found]:
        for package in run(["apt-cache", "show", "--no-all-versions", *absent]).split("\n\n"):
            fields = dict(line.split(": ", 1) for line in package.splitlines() if line.startswith(("Package: ", "Version: ")))
            if fields:
                found[fields["Package"]] = fields["Version"]
    if unknown := [name for name in names if name not in found]:
        raise BuildError(f"apt knows no package {unknown[0]}: is `apt-get update` missing?")
    return [f"{name} {found[name]}" for name in names]


def package_files(package: str, work: Path) -> dict[str, Path]:
    """The files of PACKAGE by their path when installed; symbolic links are resolved."""
    name = f"{package}:{ARCHITECTURE}"
    if installed_version(name):
        paths = [Path(line) for line in run(["dpkg-query", "-L", name]).splitlines() if line.startswith("/")]
        return {str(path): path.resolve() for path in paths if path.is_file()}
    folder = work / "packages" / package
    root = folder / "root"
    root.mkdir(parents=True)
    run(["apt-get", "-q", "download", name], cwd=folder)
    [archive] = folder.glob("*.deb")
    run(["dpkg-deb", "-x", str(archive), str(root)])
    files = {}
    for path in sorted(root.rglob("*")):
        # A link that leads out of the package resolves to a file that is not there and is left out.
        target = root / path.readlink().relative_to("/") if _is_absolute_link(path) else path.resolve()
        if target.is_file():
            files["/" + str(path.relative_to(root))] = target
    return files


def _is_absolute_link(path: Path) -> bool:
    return path.is_symlink() and path.readlink().is_absolute()
