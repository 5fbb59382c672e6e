"""A signature says whose judge it is: anyone else's, a missing one and one of another judge are refused."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("cryptography", reason="pip install 'quality-judge[signing]'")
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from quality_judge.errors import InputError, JudgeError
from quality_judge.judge import SIGNATURE_FILE, load_judge, save_judge
from quality_judge.signing import load_signed_judge, sign_judge

ROOT = Path(__file__).resolve().parents[1]


def keys(folder, name, private=None):
    private = private or ed25519.Ed25519PrivateKey.generate()
    secret, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    secret.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return secret, public


def test_a_signed_judge_loads_for_its_signers_key_and_for_no_other(judge_folder, tmp_path):
    (mine, my_public), (_, other_public) = keys(tmp_path, "mine"), keys(tmp_path, "other")
    before = load_judge(judge_folder)
    with pytest.raises(JudgeError, match="not signed"):
        load_signed_judge(judge_folder, my_public)
    sign_judge(judge_folder, mine)
    assert load_signed_judge(judge_folder, my_public) == load_signed_judge(judge_folder, None) == before
    with pytest.raises(JudgeError, match="not signed by the owner"):
        load_signed_judge(judge_folder, other_public)
    sign_judge(judge_folder, mine)  # again: the earlier one is replaced


def test_a_signature_does_not_fit_another_judge_nor_an_edited_one(judge_folder, tmp_path, make_spec, judge_files):
    secret, public = keys(tmp_path, "mine")
    sign_judge(judge_folder, secret)
    other = Path(save_judge(tmp_path / "other", make_spec(name="other"), judge_files).folder)
    (other / SIGNATURE_FILE).write_bytes((judge_folder / SIGNATURE_FILE).read_bytes())
    with pytest.raises(JudgeError, match="another"):
        load_signed_judge(other, public)


def test_every_flipped_bit_of_a_signature_is_refused_even_without_a_key(judge_folder, tmp_path):
    sign_judge(judge_folder, keys(tmp_path, "mine")[0])
    content = (judge_folder / SIGNATURE_FILE).read_bytes()
    for at in range(len(content)):
        (judge_folder / SIGNATURE_FILE).write_bytes(
            content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :]
        )
        with pytest.raises(JudgeError):
            load_judge(judge_folder)


def test_a_forged_signature_with_a_fitting_checksum_is_refused(judge_folder, tmp_path):
    from quality_judge.judge import checksum_of, spelled

    (forger, _), (_, public) = keys(tmp_path, "forger"), keys(tmp_path, "mine")
    sign_judge(judge_folder, forger)
    said = json.loads((judge_folder / SIGNATURE_FILE).read_text())
    said["public_key"] = "0" * 64
    (judge_folder / SIGNATURE_FILE).write_text(spelled(said | {"checksum": checksum_of(said)}))
    with pytest.raises(JudgeError, match="not signed by the owner"):
        load_signed_judge(judge_folder, public)


def test_a_file_that_holds_no_ed25519_key_is_refused_and_not_quoted(judge_folder, tmp_path):
    (tmp_path / "none.pem").write_text("AKIA-SECRET-IN-A-FILE")
    wrong, _ = keys(tmp_path, "rsa", rsa.generate_private_key(public_exponent=65537, key_size=2048))
    for path in (tmp_path / "none.pem", wrong, tmp_path / "absent.pem", keys(tmp_path, "mine")[1]):
        with pytest.raises(InputError) as caught:
            sign_judge(judge_folder, path)
        assert "SECRET" not in str(caught.value)


def test_the_command_signs_and_the_score_command_requires(judge_folder, tmp_path):
    secret, public = keys(tmp_path, "mine")
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')

    def run(*arguments):
        command = [sys.executable, "-m", "quality_judge", *map(str, arguments)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)

    score = ("score", "--judge", judge_folder, "--input", tmp_path / "rows.jsonl", "--output", tmp_path / "o.parquet")
    refused = run(*score, "--require-signature", public)
    assert (refused.returncode, "not signed" in refused.stderr) == (2, True)
    signed = run("sign", judge_folder, "--key", secret)
    assert len(json.loads(signed.stdout)["public_key"]) == 64
    assert "not signed" not in run(*score, "--require-signature", public).stderr
