from __future__ import annotations

import gzip
import random
import time
import zlib

import pytest

from shared.errors import BodyTooLargeError, ContentEncodingError
from shared.rules.content_encoding import decoded_body

MEBIBYTE = 1024 * 1024


@pytest.mark.parametrize("length", [0, 4_030, 4_070, 4_090, 9_000])
def test_members_of_gzip_are_joined_wherever_they_end(length: int) -> None:
    noise = random.Random(length).randbytes(length)  # noqa: S311, it encodes to its own length and some bytes
    body = gzip.compress(b"one ") + gzip.compress(noise) + gzip.compress(b"three") + b"\0\0\0"

    assert decoded_body(body, "gzip", MEBIBYTE) == b"one " + noise + b"three"


@pytest.mark.parametrize("end", [1, 10, 20, -1])
def test_a_body_that_ends_in_the_middle_is_refused(end: int) -> None:
    with pytest.raises(ContentEncodingError, match="ends in the middle"):
        decoded_body(gzip.compress(b"one two three")[:end], "gzip", MEBIBYTE)


def test_a_mebibyte_of_empty_members_takes_less_than_a_second() -> None:
    body = gzip.compress(b"", mtime=0) * (MEBIBYTE // 20)
    began = time.process_time()

    assert decoded_body(body, "gzip", MEBIBYTE) == b""

    assert time.process_time() - began < 1.0


def test_a_body_that_is_longer_than_its_limit_before_decompression_is_refused() -> None:
    with pytest.raises(BodyTooLargeError):
        decoded_body(gzip.compress(b"", mtime=0) * MEBIBYTE, "gzip", MEBIBYTE)


def test_what_does_not_compress_may_be_as_long_as_the_limit() -> None:
    noise = bytes(byte * 7919 % 251 for byte in range(MEBIBYTE))
    stored = zlib.compress(noise, 0)

    assert decoded_body(stored, "deflate", MEBIBYTE) == noise


@pytest.mark.parametrize("encoding", ["gzip, gzip", "br", "gzip;q=1", "compress", "x-gzip, deflate", "zstd"])
def test_another_coding_or_two_are_refused(encoding: str) -> None:
    with pytest.raises(ContentEncodingError):
        decoded_body(gzip.compress(b"{}"), encoding, MEBIBYTE)


def test_a_bomb_is_refused_within_its_limit() -> None:
    bomb = zlib.compress(b"\0" * (64 * MEBIBYTE))

    with pytest.raises(BodyTooLargeError):
        decoded_body(bomb, "deflate", MEBIBYTE)
