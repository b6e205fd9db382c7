from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from shared.auth.client_authentication import CredentialError
from shared.auth.private_key_jwt import client_certificate_from_pem
from tests.fakes.certificates import certificate_pem, key_pem, rsa_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fakes.certificates import SigningKey


@pytest.fixture(scope="module")
def key() -> SigningKey:
    return rsa_key()


@pytest.mark.parametrize(
    ("signing_key", "algorithm"),
    [
        (rsa_key(), "RS256"),
        (ec.generate_private_key(ec.SECP256R1()), "ES256"),
        (ec.generate_private_key(ec.SECP384R1()), "ES384"),
        (ec.generate_private_key(ec.SECP521R1()), "ES512"),
        (Ed25519PrivateKey.generate(), "EdDSA"),
    ],
    ids=["rsa", "p-256", "p-384", "p-521", "ed25519"],
)
@pytest.mark.parametrize("certified", [True, False])
def test_the_kind_of_the_key_chooses_the_algorithm(signing_key: SigningKey, algorithm: str, *, certified: bool) -> None:
    pem = key_pem(signing_key) + (certificate_pem(signing_key) if certified else b"")
    own = client_certificate_from_pem(pem)
    assert own.algorithm == algorithm
    assert own.key.public_key() == signing_key.public_key()
    assert (own.certificate is not None) == (own.thumbprint is not None) == certified


@pytest.mark.skipif(shutil.which("openssl") is None, reason="only openssl can make such a certificate")
def test_a_certificate_for_rsa_pss_alone_chooses_ps256() -> None:
    # cryptography reads such certificates and makes none.
    command = ["openssl", "req", "-x509", "-newkey", "rsa-pss", "-pkeyopt", "rsa_keygen_bits:2048", "-nodes"]
    made = subprocess.run([*command, "-subj", "/CN=relay", "-keyout", "-"], capture_output=True, check=True).stdout  # noqa: S603 - a constant command
    assert client_certificate_from_pem(made).algorithm == "PS256"


def test_reads_the_older_forms_of_a_key_in_any_order_between_other_text() -> None:
    elliptic = ec.generate_private_key(ec.SECP256R1())
    pem = (
        b"Bag Attributes\n"
        + certificate_pem(elliptic)
        + b"Key Attributes\n"
        + key_pem(elliptic, PrivateFormat.TraditionalOpenSSL)
    )
    assert client_certificate_from_pem(pem).algorithm == "ES256"


def test_the_thumbprint_is_the_sha_256_of_the_certificate(key: SigningKey) -> None:
    pem = certificate_pem(key)
    der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    expected = base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()
    assert client_certificate_from_pem(key_pem(key) + pem).thumbprint == expected


def test_takes_the_certificate_that_belongs_to_the_key_out_of_a_chain(key: SigningKey) -> None:
    pem = certificate_pem(key)
    chain = certificate_pem(Ed25519PrivateKey.generate()) + pem + key_pem(key)
    assert client_certificate_from_pem(chain).certificate == x509.load_pem_x509_certificate(pem)


def test_the_key_block_alone_is_kept_apart(key: SigningKey) -> None:
    own = client_certificate_from_pem(certificate_pem(key) + key_pem(key))
    assert b"CERTIFICATE" not in own.key_pem
    assert load_pem_private_key(own.key_pem, None).public_key() == key.public_key()


def encrypted(key: SigningKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password"))


UNUSABLE: dict[str, tuple[Callable[[SigningKey], bytes], str]] = {
    "nothing": (lambda _key: b"", "0 PEM private keys"),
    "certificate-alone": (certificate_pem, "0 PEM private keys"),
    "two-keys": (lambda key: key_pem(key) + key_pem(key), "2 PEM private keys"),
    "encrypted": (encrypted, "encrypted"),
    "broken-key": (lambda _key: b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "do not hold"),
    "broken-certificate": (
        lambda key: key_pem(key) + b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "do not hold",
    ),
    "foreign-certificate": (
        lambda key: key_pem(key) + certificate_pem(Ed25519PrivateKey.generate()),
        "none of its certificates belongs",
    ),
    "key-for-no-signature": (
        lambda _key: X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        "unusable kind, X25519PrivateKey",
    ),
    "unknown-curve": (lambda _key: key_pem(ec.generate_private_key(ec.BrainpoolP256R1())), "curve brainpoolP256r1"),
    "weak-rsa": (lambda _key: key_pem(rsa_key(1024)), "1024 bits"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_an_unusable_file_says_why_and_shows_nothing_of_the_key(key: SigningKey, kind: str) -> None:
    make, problem = UNUSABLE[kind]
    pem = make(key)
    with pytest.raises(CredentialError, match=problem) as caught:
        client_certificate_from_pem(pem)
    assert not any(line in str(caught.value) for line in pem.decode().splitlines() if len(line) > 3)


def test_the_repr_shows_no_key(key: SigningKey) -> None:
    own = client_certificate_from_pem(key_pem(key) + certificate_pem(key))
    assert "PRIVATE KEY" not in repr(own)
