"""Logging of the host and its worker process: to stderr, each line with its time, level and logger."""

from __future__ import annotations

import logging
import sys

# These say at INFO what each invocation, request or pull of a work item does.
NOISY_LOGGERS = ("azure.functions", "durabletask", "uvicorn")


def configure_logging(*, verbose: bool = False) -> None:
    """Log to stderr at INFO, in both processes; `verbose` adds what the libraries of the host say."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", force=True
    )
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.INFO if verbose else logging.WARNING)
