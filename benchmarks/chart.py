"""The chart: calls a second of every peer at 64 in flight, as SVG."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from benchmarks.peers import HTTPX, OURS

if TYPE_CHECKING:
    from benchmarks.throughput import Table

IN_FLIGHT = 64
WIDTH, LABEL, BAR, STEP, TOP = 860, 190, 470, 30, 64  # pixels


def chart(table: Table) -> str:
    """Return the chart as an SVG document."""
    row = sorted(table[IN_FLIGHT].items(), key=lambda each: each[1].rate, reverse=True)
    most, httpx = row[0][1].rate, table[IN_FLIGHT][HTTPX.name]
    height = TOP + STEP * len(row) + 16
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">',
        '<g font-family="sans-serif" font-size="13">',
        f"<title>Authorised POSTs a second, {IN_FLIGHT} in flight</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="16" y="28" font-size="17" fill="#1b1f24">Authorised POSTs a second, {IN_FLIGHT} in flight</text>',
        '<text x="16" y="48" fill="#57606a">median of the rounds; × bare httpx with a static header</text>',
    ]
    for number, (peer, series) in enumerate(row):
        top = TOP + STEP * number
        length = max(1, round(BAR * series.rate / most))
        colour = "#0969da" if peer == OURS.name else "#afb8c1"
        value = f"{series.rate:,.0f} ({series.times(httpx):.1f} ×)"
        lines += [
            f'<text x="{LABEL - 10}" y="{top + 16}" text-anchor="end" fill="#1b1f24">{escape(peer)}</text>',
            f'<rect x="{LABEL}" y="{top}" width="{length}" height="{STEP - 8}" fill="{colour}"/>',
            f'<text x="{LABEL + length + 8}" y="{top + 16}" fill="#1b1f24">{value}</text>',
        ]
    return "\n".join([*lines, "</g>", "</svg>", ""])
