#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes the assembly source of the symbol table that panics print backtraces with.

usage: symbols.py OUT.S [NM ELF]   (without an ELF: an empty table, for the first of the two links)
"""
import subprocess
import sys

BASE = "image_start"


def functions(nm: str, elf: str) -> list[tuple[int, str]]:
    """(offset from the image's start, demangled name without parameters) of all functions, ascending."""
    lines = subprocess.run([nm, "--demangle", "--defined-only", elf], check=True, capture_output=True, text=True).stdout
    symbols = [line.split(" ", 2) for line in lines.splitlines()]
    base = next(int(address, 16) for address, _, name in symbols if name == BASE)
    found = {}
    for address, kind, name in symbols:
        if kind in "tTwW" and name not in (BASE, "text_end"):
            found.setdefault(int(address, 16) - base, short(name))
    return sorted(found.items())


def short(name: str) -> str:
    """Drops parameter lists, template arguments and our namespace."""
    name = name.replace("(anonymous namespace)::", "").replace("hv::", "")
    depth, out = 0, []
    for character in name:
        if character in "(<[" and not "".join(out).endswith("operator"):
            depth += 1
        if depth == 0:
            out.append(character)
        if character in ")>]" and depth > 0:
            depth -= 1
    return "".join(out).strip()[:64] or name[:64]


def main(out: str, *source: str) -> None:
    table = functions(*source) if source else []
    with open(out, "w", encoding="ascii") as file:
        print('    .section .rodata.zz_symbols, "a"', file=file)
        print("    .globl symbol_count, symbol_offsets, symbol_name_offsets, symbol_names", file=file)
        print(f"    .balign 4\nsymbol_count: .long {len(table)}\nsymbol_offsets:", file=file)
        for offset, _ in table:
            print(f"    .long {offset}", file=file)
        print("symbol_name_offsets:", file=file)
        names = {}  # overloads and instances of a template have one name
        position = 0
        for _, name in table:
            if name not in names:
                names[name] = position
                position += len(name) + 1
            print(f"    .long {names[name]}", file=file)
        print("symbol_names:", file=file)
        for name in names:
            print('    .asciz "%s"' % name.replace("\\", "\\\\").replace('"', '\\"'), file=file)
        print('    .section .note.GNU-stack, "", @progbits', file=file)


main(*sys.argv[1:])
