"""`python -m relay`: the same as the command `relay`."""

from __future__ import annotations

from relay.command import app


def main() -> None:
    """Run the command line."""
    app(prog_name="relay")


if __name__ == "__main__":
    main()
