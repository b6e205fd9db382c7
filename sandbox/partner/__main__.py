"""Runs the partner alone: `python -m sandbox.partner`."""

from sandbox.partner.command import main

raise SystemExit(main())
