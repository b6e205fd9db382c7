from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.host.paths import decoded_path


@pytest.mark.parametrize(
    ("raw", "decoded"),
    [
        (b"/", "/"),
        (b"/a/b", "/a/b"),
        (b"/a%20b", "/a b"),
        (b"/a?b=/c", "/a"),
        (b"/%E2%82%AC", "/€"),
        (b"/a%2Fb%2fc", "/a%2Fb%2fc"),
        (b"/%41%2F%42", "/A%2FB"),
        (b"/%252F", "/%2F"),
        (b"/%FF%41", "/%FFA"),
        (b"/%ff", "/%ff"),
        (b"/%E2%82", "/%E2%82"),
        (b"/100%", "/100%"),
        (b"/%zz", "/%zz"),
        (b"/a/./b", "/a/b"),
        (b"/a/../b", "/b"),
        (b"/../../a", "/a"),
        (b"/a/..", "/"),
        (b"/a/b/.", "/a/b/"),
        (b"/a/%2e%2E/b", "/b"),
        (b"/a/..b/c..", "/a/..b/c.."),
        (b"//a", "//a"),
    ],
)
def test_decodes_a_path(raw: bytes, decoded: str) -> None:
    assert decoded_path(raw) == decoded


@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1))
def test_gives_back_every_segment_that_was_encoded(segment: str) -> None:
    # "%2F" typed by a user is the one text that cannot be told from an encoded slash, and dots are resolved.
    if segment in {".", ".."}:
        segment += "x"
    assert decoded_path(f"/a/{quote(segment, safe='')}".encode()) == f"/a/{segment}"


@given(st.binary(max_size=60))
def test_never_leaves_a_dot_segment_and_always_begins_with_a_slash(raw: bytes) -> None:
    path = decoded_path(b"/" + raw)
    assert path.startswith("/")
    assert not {".", ".."} & set(path.split("/"))
