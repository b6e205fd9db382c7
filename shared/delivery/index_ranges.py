"""Sets of record indices as short text, "0-49,51": a thousand of them fit into a custom status."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def to_ranges(indices: Iterable[int]) -> str:
    """Write the indices in order, a run of them as "first-last"."""
    runs: list[tuple[int, int]] = []
    for index in sorted(set(indices)):
        if runs and index == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], index)
        else:
            runs.append((index, index))
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def from_ranges(text: str) -> set[int]:
    """Read what `to_ranges` wrote."""
    indices: set[int] = set()
    for run in filter(None, text.split(",")):
        first, _, last = run.partition("-")
        indices.update(range(int(first), int(last or first) + 1))
    return indices
