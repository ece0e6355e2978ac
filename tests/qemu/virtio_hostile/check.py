# SPDX-License-Identifier: MIT
"""The two VMs say their lines in any order."""


def prepare(folder, case) -> None:
    if case.name == "virtio_hostile/slow":
        config = (case.folder / case.config).read_text()
        (folder / case.config).write_text(config.replace("ram:1M", "disk:nvme0"))
        with (folder / "slow.img").open("wb") as image:
            image.truncate(1 << 20)


def check(session) -> list[str]:
    said = any(line.startswith("[neighbour] smp: 2 CPUs run, 100 IPIs answered") for line in session.lines)
    return [] if said else ["the neighbour did not finish"]
