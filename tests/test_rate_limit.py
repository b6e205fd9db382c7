from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.rules.rate_limit import MAX_SECONDS, Quota, read_quota

DATE = "Tue, 14 Nov 2023 22:13:20 GMT"  # 1,700,000,000 s after the epoch


@pytest.mark.parametrize(
    ("headers", "quota"),
    [
        ({"ratelimit": '"default";r=50;t=30'}, Quota(50, 30)),
        ({"ratelimit": '"day";r=50;t=30', "ratelimit-policy": '"day";q=100;w=60'}, Quota(50, 30, 100, 60)),
        (
            {"ratelimit": '"a,b;r=1";r=50;t=30, "c";r=3;t=1', "ratelimit-policy": '"c";q=5;w=1;pk=:c2Ri:'},
            Quota(3, 1, 5, 1),
        ),
        ({"ratelimit": '"c";r=3', "ratelimit-policy": '"c";q=5;w=4'}, Quota(3, 4, 5, 4)),
        ({"ratelimit": "limit=100, remaining=50, reset=5"}, Quota(50, 5)),
        (
            {"ratelimit-limit": "100, 100;w=10", "ratelimit-remaining": "5", "ratelimit-reset": "7"},
            Quota(5, 7, 100, 10),
        ),
        ({"x-ratelimit-limit": "60", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "12.5"}, Quota(0, 12.5, 60)),
        ({"x-ratelimit-remaining": "5", "x-ratelimit-reset": "1700000010", "date": DATE}, Quota(5, 10)),
        ({"x-ratelimit-remaining": "5", "x-ratelimit-reset": "1700000010500", "date": DATE}, Quota(5, 10.5)),
        ({"x-ratelimit-remaining": "5", "x-ratelimit-reset": "1600000000", "date": DATE}, Quota(5, 0)),
        ({"x-ratelimit-remaining": "5", "x-ratelimit-reset": "999999999"}, Quota(5, MAX_SECONDS)),
    ],
)
def test_reads_every_family_of_headers(headers: dict[str, str], quota: Quota) -> None:
    assert read_quota(headers) == quota


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"ratelimit": ""},
        {"ratelimit": "limit=5, reset=3"},
        {"ratelimit": '"d";r=-1'},
        {"ratelimit": '"d";r=1e3'},
        {"x-ratelimit-remaining": "5"},
        {"x-ratelimit-remaining": "nan", "x-ratelimit-reset": "1"},
        {"x-ratelimit-remaining": "5", "x-ratelimit-reset": "1700000010"},
        {"x-ratelimit-remaining": "5", "x-ratelimit-reset": "1700000010", "date": "yesterday"},
    ],
)
def test_does_not_guess_what_headers_leave_out(headers: dict[str, str]) -> None:
    assert read_quota(headers) is None


@given(
    st.dictionaries(
        st.sampled_from(["ratelimit", "ratelimit-policy", "x-ratelimit-remaining", "x-ratelimit-reset"]), st.text()
    )
)
def test_no_header_breaks_it(headers: dict[str, str]) -> None:
    quota = read_quota(headers)

    assert quota is None or 0 <= quota.seconds <= MAX_SECONDS
