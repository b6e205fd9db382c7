from __future__ import annotations

import gzip
import time
import zlib

import pytest

from shared.errors import BodyTooLargeError, ContentEncodingError
from shared.rules.content_encoding import decoded_body

MEBIBYTE = 1024 * 1024
GZIPPED = gzip.compress(b"{}", mtime=0)


def test_members_of_gzip_are_joined() -> None:
    body = gzip.compress(b"one ") + gzip.compress(b"two ") + gzip.compress(b"three") + b"\0\0\0"

    assert decoded_body(body, "gzip", 100) == b"one two three"


def test_each_record_of_a_batch_may_be_a_member_of_its_own() -> None:
    record = b'{"parcelId":"P-1"}\n'

    assert decoded_body(gzip.compress(record) * 1_000, "gzip", MEBIBYTE) == record * 1_000


def test_a_mebibyte_of_empty_members_is_refused_in_no_time() -> None:
    body = gzip.compress(b"", mtime=0) * (MEBIBYTE // 20)
    began = time.process_time()

    with pytest.raises(ContentEncodingError, match="members"):
        decoded_body(body, "gzip", MEBIBYTE)

    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("body", [GZIPPED[:-1], GZIPPED + b"{}", b"{}", b"\x1f"])
def test_what_is_not_gzip_or_not_all_of_it_is_refused(body: bytes) -> None:
    with pytest.raises(ContentEncodingError):
        decoded_body(body, "gzip", MEBIBYTE)


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
