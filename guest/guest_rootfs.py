# SPDX-License-Identifier: MIT
"""The root file systems of guests: Debian packages' files and our scripts, as a manifest in rootfs/ lists them, in a
read-only erofs image that does not depend on where and when it was built."""

import json
import os
import re
import shutil
import tomllib
from pathlib import Path

import guest_debian
from guest_cache import BuildError, Log, Progress, cached, content_key, run

GUEST = Path(__file__).resolve().parent
MANIFEST = GUEST / "rootfs" / "manifest.toml"
TEST_MANIFEST = GUEST / "rootfs" / "test.toml"
PACKAGES = ["binutils", "erofs-utils"]
MAKE_IMAGE = ["mkfs.erofs", "--quiet", "--all-root", "-T0", "-x-1", "-U63616972-6e00-4000-8000-000000000001"]
LOADER = "ld-linux-x86-64.so.2"
LIBRARY_FOLDER = "/lib/x86_64-linux-gnu"


def _load(path: Path) -> dict:
    """A manifest; one that `extends` another adds to that one's tables and lists."""
    manifest = tomllib.loads(path.read_text())
    base = manifest.pop("extends", None)
    return _joined(_load(path.parent / base), manifest) if base else manifest


def _joined(base: dict, more: dict) -> dict:
    joined = dict(base)
    for name, value in more.items():
        if name not in base:
            joined[name] = value
        elif isinstance(value, dict):
            joined[name] = _joined(base[name], value)
        elif isinstance(value, list):
            joined[name] = base[name] + value
        else:
            raise BuildError(f"{name} is in both manifests: {base[name]} and {value}")
    return joined


def _sources(manifest: dict) -> dict[str, tuple[Path, int]]:
    """Our own files: path inside the image -> (source, permissions)."""
    found = {}
    for mode, table in ((0o755, "scripts"), (0o644, "files")):
        for target, source in manifest[table].items():
            found[target] = (GUEST / source, mode)
    for target, folders in manifest["folders"].items():
        for folder in folders:
            for source in sorted((GUEST / folder).iterdir()):
                path = f"{target}/{source.name}"
                if path in found:
                    raise BuildError(f"{source} and {found[path][0]} both want to be {path} in the image")
                found[path] = (source, 0o644)
    return found


def _packages(manifest: dict) -> list[str]:
    return [*manifest["programs"].values(), *manifest["libraries"]["packages"]]


def build(name: str = "rootfs", path: Path = MANIFEST) -> Path:
    """The path of the image in the cache, as its NAME and the manifest in PATH say."""
    manifest = _load(path)
    sources = _sources(manifest)
    versions = guest_debian.versions([*_packages(manifest), "erofs-utils"])
    ours = [part for target, (source, mode) in sorted(sources.items())
            for part in (target, oct(mode), source.read_text())]
    recipe = [json.dumps(manifest), Path(__file__).read_text()]
    return cached(name, ".erofs", content_key([*recipe, *versions, *ours]),
                  lambda work, log, progress: _make(manifest, sources, work, log, progress))


def _make(manifest: dict, sources: dict[str, tuple[Path, int]], work: Path, log: Log, progress: Progress) -> Path:
    tree = Tree(work / "tree")
    for path in manifest["directories"]["paths"]:
        tree.directory(path)

    files = {}
    for package in _packages(manifest):
        progress.show(f"taking files from {package}", force=progress.terminal)
        files[package] = guest_debian.package_files(package, work)
    for target, package in manifest["programs"].items():
        if target not in files[package]:
            raise BuildError(f"the package {package} has no {target}")
        tree.file(target, files[package][target], 0o755)
    _add_libraries(manifest, files, tree)

    for target, (source, mode) in sources.items():
        tree.file(target, source, mode)
    for target, source in manifest["hardlinks"].items():
        tree.hardlink(target, source)
    for target, content in manifest["symlinks"].items():
        tree.symlink(target, content)
    applets = run([str(tree.path("/bin/busybox")), "--list"]).split()
    for folder in manifest["applets"]["directories"]:
        for applet in applets:
            if applet not in manifest["applets"]["skip"] and not os.path.lexists(tree.path(f"{folder}/{applet}")):
                tree.symlink(f"{folder}/{applet}", "busybox")

    image = work / "image"
    progress.show("making the file system", force=progress.terminal)
    log.run([*MAKE_IMAGE, str(image), str(tree.root)], work, {**os.environ, "LC_ALL": "C"})
    return image


def _add_libraries(manifest: dict, files: dict[str, dict[str, Path]], tree: "Tree") -> None:
    """Adds each library that a program needs, directly or through another library."""
    candidates = {}
    for package in manifest["libraries"]["packages"]:
        for path, source in files[package].items():
            if re.search(r"/(lib64|x86_64-linux-gnu|ceph)/[^/]*$", path):
                candidates.setdefault(Path(path).name, source)
    pending = [files[package][target] for target, package in manifest["programs"].items()]
    added = set()
    while pending:
        user = pending.pop()
        for name in re.findall(r"\(NEEDED\)\s+Shared library: \[(.*?)\]", run(["readelf", "--dynamic", str(user)])):
            if name in added:
                continue
            if name not in candidates:
                raise BuildError(f"{user.name} needs {name}, which no package of [libraries] has")
            added.add(name)
            pending.append(candidates[name])
            tree.file(f"{LIBRARY_FOLDER}/{name}", candidates[name], 0o755)
    tree.file(f"/lib64/{LOADER}", candidates[LOADER], 0o755)


class Tree:
    """The files of the image in a folder, with permissions that do not depend on the builder's umask."""

    def __init__(self, root: Path):
        self.root = root
        root.mkdir()
        root.chmod(0o755)

    def path(self, target: str) -> Path:
        return self.root / target.lstrip("/")

    def directory(self, target: str) -> None:
        current = self.root
        for part in Path(target.lstrip("/")).parts:
            current /= part
            if not current.is_dir():
                current.mkdir()
                current.chmod(0o755)

    def file(self, target: str, source: Path, mode: int) -> None:
        shutil.copyfile(source, self._new(target))
        self.path(target).chmod(mode)

    def hardlink(self, target: str, source: str) -> None:
        os.link(self.path(source), self._new(target))

    def symlink(self, target: str, content: str) -> None:
        self._new(target).symlink_to(content)

    def _new(self, target: str) -> Path:
        self.directory(str(Path(target).parent))
        return self.path(target)
