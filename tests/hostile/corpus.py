"""Reads the corpus: each entry of its files is a family, and each of the family's texts becomes one case."""

from __future__ import annotations

import gzip
import tomllib
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Case:
    """One hostile input; `id` is the same in each run, and can stand in a URL."""

    id: str
    family: str
    fields: dict[str, Any]

    def body(self) -> bytes:
        """Return the body as it goes over the wire."""
        fields = self.fields
        if "hex" in fields:
            plain: bytes = bytes.fromhex(fields["hex"]) * fields.get("times", 1)
        elif "unit" in fields:
            plain = (fields.get("before", "") + fields["unit"] * fields["times"] + fields.get("after", "")).encode()
        else:
            plain = fields.get("body", "").encode()
        for encoding in filter(None, fields.get("as", "").split(", ")):
            if encoding == "gzip":
                plain = gzip.compress(plain, 6)
            elif encoding == "deflate":
                plain = zlib.compress(plain)
            else:
                plain = plain.decode().encode(encoding)
        return plain


def cases(name: str) -> list[Case]:
    """Return the cases in a file of the corpus."""
    content = tomllib.loads((HERE / f"{name}.toml").read_text())
    found: list[Case] = []
    for entry in next(iter(content.values())):
        for text in entry.get("each", [""]):
            id_ = f"{name}-{len(found)}".replace("_", "-")
            unit, times = entry.get("repeat", ["", 0])
            places = {"{each}": text, "{repeat}": unit * times, "{number}": str(len(found))}
            fields = {key: _filled(value, places) for key, value in entry.items() if key != "each"}
            found.append(Case(id_, entry["family"], fields | {"text": text}))
    return found


def _filled(value: Any, places: dict[str, str]) -> Any:  # noqa: ANN401, it is any TOML
    if isinstance(value, str):
        for place, text in places.items():
            value = value.replace(place, text)
        return value
    if isinstance(value, list):
        return [_filled(each, places) for each in value]
    if isinstance(value, dict):
        return {key: _filled(each, places) for key, each in value.items()}
    return value
