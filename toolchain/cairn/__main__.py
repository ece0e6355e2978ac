# SPDX-License-Identifier: MIT
"""Entry of ./cairn: makes the package importable and hands over to cairn.cli."""

import sys
from pathlib import Path

if sys.version_info < (3, 11):
    sys.exit("cairn: Python 3.11 or later is needed, this is " + sys.version.split()[0])

sys.dont_write_bytecode = True
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from cairn import cli

sys.exit(cli.main(sys.argv[1:]))
