from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.auth.access_token import AccessToken, HeldToken, hold

seconds = st.floats(min_value=0.001, max_value=1e9)


@pytest.mark.parametrize("value", ["", "a b", "a\r\nb", "tökén", "a\x00", "a\x7f"])
def test_a_value_that_cannot_stand_in_a_header_is_no_token_and_is_not_shown(value: str) -> None:
    with pytest.raises(ValueError, match="visible ASCII") as caught:
        AccessToken(value)
    assert not value or value not in str(caught.value)


def held(
    expires_in: float | None, refresh_in: float | None = None, *, leeway: float = 60.0, jitter: float = 0.0
) -> HeldToken:
    token = AccessToken("token-1", expires_in, refresh_in)
    return hold(token, 1000.0, leeway=leeway, default_lifetime=300.0, jitter=jitter)


@pytest.mark.parametrize(
    ("expires_in", "refresh_in", "leeway", "jitter", "old_after", "expires_after"),
    [
        (3600.0, None, 60.0, 0.0, 3540.0, 3600.0),
        (3600.0, None, 60.0, 1.0, 3525.0, 3600.0),
        (3600.0, None, 0.0, 1.0, 3600.0, 3600.0),
        (None, None, 60.0, 0.0, 240.0, 300.0),
        (100.0, None, 60.0, 0.0, 60.0, 100.0),
        (100.0, None, 60.0, 1.0, 50.0, 100.0),
        (86400.0, 43200.0, 60.0, 0.0, 43200.0, 86400.0),
        (86400.0, 43200.0, 60.0, 1.0, 43185.0, 86400.0),
        (3600.0, 7200.0, 60.0, 0.0, 3540.0, 3600.0),
        (3600.0, 0.0, 60.0, 0.0, 360.0, 3600.0),
        (3600.0, -5.0, 60.0, 1.0, 360.0, 3600.0),
        # A time of day instead of a duration, and more than a clock can count: 30 days.
        (1_795_476_117.0, None, 60.0, 0.0, 2_591_940.0, 2_592_000.0),
        (1e300, None, 60.0, 0.0, 2_591_940.0, 2_592_000.0),
    ],
)
def test_a_token_is_old_a_leeway_before_it_expires(  # noqa: PLR0913, PLR0917 - the columns of the table
    expires_in: float | None,
    refresh_in: float | None,
    leeway: float,
    jitter: float,
    old_after: float,
    expires_after: float,
) -> None:
    token = held(expires_in, refresh_in, leeway=leeway, jitter=jitter)
    assert token.requested_at == 1000
    assert token.old_at - 1000 == pytest.approx(old_after)
    assert token.expires_at - 1000 == pytest.approx(expires_after)


@given(
    expires_in=seconds,
    refresh_in=st.none() | st.floats(min_value=-1e9, max_value=1e9),
    leeway=st.floats(min_value=0, max_value=1e9),
    jitter=st.floats(min_value=0, max_value=1, exclude_max=True),
)
def test_every_token_is_fresh_first_then_old_and_then_expired(
    expires_in: float, refresh_in: float | None, leeway: float, jitter: float
) -> None:
    token = held(expires_in, refresh_in, leeway=leeway, jitter=jitter)
    lifetime = min(expires_in, 30 * 86_400)
    least_leeway = min(leeway, lifetime * 0.4)
    assert token.requested_at <= token.old_at <= token.expires_at
    assert token.old_at - token.requested_at >= lifetime * 0.1 - 1e-6
    assert token.expires_at - token.old_at >= least_leeway - 1e-6
    assert token.expires_at - token.requested_at == pytest.approx(lifetime, abs=1e-6)
