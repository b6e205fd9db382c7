from __future__ import annotations

import base64
import html
import json
import time
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.auth.redaction import Redactor, safe_words

if TYPE_CHECKING:
    from collections.abc import Callable

SECRETS = (
    "s3cr3t/+ <&>'\"é\\x=",
    "eyJhbGciOiJ.eyJ-_~.sig==",
    "correct horse battery",
    "a%41bcdefgh%2Fi",
    "\U0001f600-secret",
)
USUAL: dict[str, Callable[[str], str]] = {
    "raw": lambda secret: secret,
    "unpadded": lambda secret: secret.rstrip("="),
    "percent": lambda secret: quote(secret, safe=""),
    "partly": quote,
    "form": quote_plus,
    "html": html.escape,
    "json": json.dumps,
    "json-utf-8": lambda secret: json.dumps(secret, ensure_ascii=False),
    "repr": repr,
    "base64": lambda secret: base64.b64encode(secret.encode()).decode(),
    "base64url": lambda secret: base64.urlsafe_b64encode(secret.encode()).decode().rstrip("="),
}
OTHERS: dict[str, Callable[[str], str]] = {
    "wholly": lambda secret: "".join(f"%{octet:02x}" for octet in secret.encode()),
    "twice": lambda secret: quote(quote_plus(secret)),
    "references": lambda secret: "".join(f"&#{ord(char)};" for char in secret),
    "hex-references": lambda secret: "".join(f"&#x{ord(char):X};" for char in secret),
    "json-in-json": lambda secret: json.dumps({"error": json.dumps({"got": secret})}),
    "repr-of-bytes": lambda secret: repr(secret.encode()),
    "line-break": lambda secret: f"{secret[:7]}\r\n {secret[7:]}",
    "tag": lambda secret: f"{secret[:7]}<br/>{secret[7:]}",
    "spaces": lambda secret: f"{secret[:4]}\u00a0{secret[4:9]}\u200b{secret[9:]}",
    "escaped-break": lambda secret: json.dumps(f"{secret[:7]}\n{secret[7:]}"),
}


@pytest.mark.parametrize("form", USUAL)
@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_in_a_usual_form_is_cut_out(secret: str, form: str) -> None:
    redacted = Redactor([secret]).redact(f"not {USUAL[form](secret)}! é")
    assert "[redacted]" in redacted
    assert redacted.startswith("not ")
    assert redacted.endswith("! é")
    assert not any(secret[at : at + 4] in redacted for at in range(len(secret) - 3))


@pytest.mark.parametrize("form", OTHERS)
@pytest.mark.parametrize("secret", SECRETS)
def test_no_words_keep_a_secret_in_another_form(secret: str, form: str) -> None:
    redacted = Redactor([secret]).redact(f"not {OTHERS[form](secret)}! é")
    assert "[redacted]" in redacted
    assert not any(secret[at : at + 4] in redacted for at in range(len(secret) - 3))


def test_what_is_no_secret_stays_as_it_is() -> None:
    words = "100% of a\\b &amp; c+d were%20refused\r\n"
    assert Redactor(["s3cr3t-value", "abc", ""]).redact(words) == words


def test_a_short_secret_is_not_looked_for() -> None:
    assert Redactor(["ted", "redac", "e"]).redact("redacted") == "redacted"


def test_of_two_secrets_the_longer_one_is_cut_out_whole() -> None:
    assert Redactor(["s3cret", "s3cret-and-more"]).redact("a s3cret-and-more, s3cret") == "a [redacted], [redacted]"


@given(st.text(), st.text(min_size=6, alphabet="abc1%4\\\n&;+ "))
def test_no_secret_survives(noise: str, secret: str) -> None:
    assert secret not in Redactor([secret]).redact(noise + secret + noise)


@pytest.mark.parametrize("piece", ["a", " ", "%61", "\\", "&amp;", "\\u0061", "%", "&a", "\\n", "é"])
def test_a_hostile_text_costs_no_more_than_its_length(piece: str) -> None:
    redactor = Redactor(["a" * 2000 + "b", "ab" * 1000])
    times = []
    for length in (4_096, 65_536):
        began = time.perf_counter()
        redactor.redact(piece * (length // len(piece)))
        times.append(time.perf_counter() - began)
    assert times[0] < 0.5
    assert times[1] < 5


@pytest.mark.parametrize(
    ("words", "safe"),
    [
        ("two\r\nlines\x1b[31m\u202e and\u2028more\x00", "two lines [31m and more"),
        ("x" * 300, "x" * 300),
        ("x" * 301, "x" * 299 + "…"),
        ("s3cr3t-value!", "[redacted]!"),
        ("\x00\x01", None),
        (None, None),
        (["a"], None),
    ],
)
def test_a_servers_words_lose_control_characters_and_end(words: object, safe: str | None) -> None:
    assert safe_words(words, Redactor(["s3cr3t-value"])) == safe
