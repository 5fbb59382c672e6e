"""Who vouches for a judge: an Ed25519 signature of its judge.json, which holds the hash of everything else in it.

The hashes alone show damage; a signature shows whose judge it is, to everyone who has the signer's public key from
elsewhere. Needs the package `cryptography` (extra `signing`). It knows nothing of weights or scores.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from quality_judge.errors import InputError, JudgeError, MissingExtra
from quality_judge.judge import (
    JUDGE_FILE,
    SIGNATURE_FILE,
    Judge,
    checksum_of,
    load_judge,
    read_signature,
    sha256_of,
    spelled,
)

MAX_KEY_BYTES = 10_000
CONTEXT = b"quality-judge/judge.json/1\n"  # a signature made for anything else is none here


def sign_judge(folder: str | Path, key: str | Path) -> str:
    """Signs the judge in `folder` with the Ed25519 private key in the PEM file `key`; the public key, hexadecimal.

    Verifies the judge first, and takes the place of an earlier signature.
    """
    judge = load_judge(folder)
    private = _key(key, "private")
    digest = sha256_of(judge.path(JUDGE_FILE))
    said = {
        "judge_sha256": digest,
        "public_key": private.public_key().public_bytes_raw().hex(),
        "signature": private.sign(CONTEXT + digest.encode()).hex(),
    }
    beside = judge.path(f".{SIGNATURE_FILE}.partial")
    try:
        beside.write_text(spelled(said | {"checksum": checksum_of(said)}), encoding="utf-8", newline="\n")
        os.replace(beside, judge.path(SIGNATURE_FILE))
    finally:
        beside.unlink(missing_ok=True)
    return said["public_key"]


def load_signed_judge(folder: str | Path, public_key: str | Path | None) -> Judge:
    """The judge in `folder`; when `public_key`, a PEM file, is given, one signed by its owner, or JudgeError."""
    judge = load_judge(folder)
    if public_key is not None:
        refuse_unsigned(judge, public_key)
    return judge


def refuse_unsigned(judge: Judge, public_key: str | Path) -> None:
    """Raises JudgeError unless the owner of the Ed25519 key in the PEM file `public_key` signed this very judge."""
    public = _key(public_key, "public")
    from cryptography.exceptions import InvalidSignature

    if not judge.path(SIGNATURE_FILE).exists():
        raise JudgeError(f"{judge.folder} is not signed and a signature is required; run: quality-judge sign")
    try:
        found = read_signature(Path(judge.folder))
        public.verify(bytes.fromhex(found.signature), CONTEXT + found.judge_sha256.encode())
    except InvalidSignature:
        raise JudgeError(
            f"{judge.folder} is not signed by the owner of {public_key}; take the judge from somebody you trust"
        ) from None
    except InputError as error:
        raise JudgeError(f"{judge.folder} is refused: {error}") from error


def _key(path: str | Path, half: str) -> Any:
    """The Ed25519 key in a PEM file. half: `private` or `public`. Raises InputError; nothing of the key is quoted."""
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise MissingExtra("cryptography", "signing") from error
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_KEY_BYTES)
        key: Any = (
            serialization.load_pem_private_key(content, None)
            if half == "private"
            else serialization.load_pem_public_key(content)
        )
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InputError(
            f"{path} holds no {half} key that can be used ({type(error).__name__}); make one with: openssl genpkey "
            "-algorithm ed25519 -out key.pem; openssl pkey -in key.pem -pubout -out key.pub.pem"
        ) from None
    if not isinstance(key, ed25519.Ed25519PrivateKey | ed25519.Ed25519PublicKey):
        raise InputError(f"{path} holds a key of another kind; only Ed25519 is used")
    return key
