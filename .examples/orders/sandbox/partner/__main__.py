"""Runs the partners alone: `python -m sandbox.partner`."""

import sys

from sandbox.__main__ import main

raise SystemExit(main(["partner", *sys.argv[1:]]))
