from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.auth.access_token import AccessToken
from shared.auth.token_store import StoredToken, TokenCipher
from shared.errors import SettingsError

KEY = "k" * 32
TOKEN = StoredToken("at-1", 1_000.0, 4_600.0, 2_800.0)


@given(
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=2_000),
    st.floats(0, 1e10),
    st.floats(0, 1e10),
    st.none() | st.floats(0, 1e10),
)
def test_what_was_encrypted_comes_back(
    value: str, issued_at: float, expires_at: float, refresh_at: float | None
) -> None:
    token = StoredToken(value, issued_at, expires_at, refresh_at)
    assert TokenCipher(KEY).decrypt("name", TokenCipher(KEY).encrypt("name", token)) == token


def test_nothing_of_the_token_is_stored_in_the_clear_nor_twice_the_same() -> None:
    cipher = TokenCipher(KEY)
    first, second = cipher.encrypt("name", TOKEN), cipher.encrypt("name", TOKEN)
    assert b"at-1" not in first
    assert first[13:] != second[13:]


@pytest.mark.parametrize(
    "rubbish", [b"", b"\x01", b"\x01" + b"n" * 12, b"\x02" + b"x" * 60, b"hello", b"\x01" + b"x" * 60]
)
def test_rubbish_is_a_value_error(rubbish: bytes) -> None:
    with pytest.raises(ValueError, match="not "):
        TokenCipher(KEY).decrypt("name", rubbish)


def test_another_key_or_name_and_any_changed_bit_are_noticed() -> None:
    stored = TokenCipher(KEY).encrypt("name", TOKEN)
    for key, name in ((KEY + "x", "name"), (KEY, "other")):
        with pytest.raises(ValueError, match="not encrypted with this key"):
            TokenCipher(key).decrypt(name, stored)
    for position in range(len(stored)):
        changed = bytes(byte ^ (position == at) for at, byte in enumerate(stored))
        with pytest.raises(ValueError, match="not "):
            TokenCipher(KEY).decrypt("name", changed)


@pytest.mark.parametrize("moment", [float("nan"), float("inf")])
def test_a_token_that_never_expires_is_not_taken(moment: float) -> None:
    stored = TokenCipher(KEY).encrypt("name", StoredToken("at-1", 0.0, moment))
    with pytest.raises(ValueError, match="no moment of expiry"):
        TokenCipher(KEY).decrypt("name", stored)


def test_a_short_key_is_a_settings_error_that_does_not_show_it() -> None:
    with pytest.raises(SettingsError, match="TOKEN_STORE_KEY must be a random text of at least 32") as caught:
        TokenCipher("hunter2hunter2")
    assert "hunter2" not in str(caught.value)


def test_a_stored_token_is_an_access_token_with_what_is_left_of_its_life() -> None:
    assert TOKEN.at(1_600.0) == AccessToken("at-1", 3_000.0, 1_200.0)
    assert TOKEN.at(3_600.0) == AccessToken("at-1", 1_000.0, 0.0)
    assert StoredToken("at-1", 0.0, 10.0).at(4.0) == AccessToken("at-1", 6.0)


def test_the_repr_shows_no_token() -> None:
    assert "at-1" not in repr(TOKEN)
