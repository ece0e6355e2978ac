# SPDX-License-Identifier: MIT
"""What ./cairn does: setup, build, run, test, bench, image. Python's standard library alone."""
