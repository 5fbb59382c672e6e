"""Secrets of every well-known form are taken out of what is printed, and plain words and numbers are left alone."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quality_judge.redact import REDACTED, redacted, redacted_values

# Built of halves, so that no scanner takes this file for a leak.
SECRETS = [
    "AKIA" + "IOSFODNN7EXAMPLE", "ASIA" + "Y34FZKBOKMUTVV7A", "hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZ", "ghp_" + "x1" * 18,
    "github_pat_" + "11ABCDEFG0" * 3, "xoxb-" + "123456789012-abcdefABCDEF", "sk-" + "proj-abcdefghijklmnop1234",
    "AIza" + "SyA1234567890abcdefghijklmnopqrstuv", "ya29." + "a0AfH6SMBx1234567890", "glpat-" + "abcdefghij0123456789",
    "eyJ" + "hbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abcDEF123", "npm_" + "abcdefghijklmnopqrstuvwx", "jane.doe@example.org",
    "-----BEGIN " + "PRIVATE KEY-----\nMC4CAQ==\n-----END " + "PRIVATE KEY-----", "Bearer " + "abcdefghijklmnop123456",
    "dckr_pat_" + "abcdefghijklmnopqrst", "sk-" + "ant-api03-AbC_dEf-0123456789", "sk_" + "live_abcdefghijklmnop",
    "sk-" + "0123456789abcdef" * 2, "pk-" + "lf-01234567-89ab-cdef-0123-456789abcdef",
]  # fmt: skip
PLAIN = [
    "s3a://bucket/corpus/part-0.parquet", "judges/mine-1", "a sentence about tokens and passwords", "roc_auc 0.93",
    "the judge has 3 control tokens: none is spelled", "2026-08-01 12:00 UTC", "task-force-of-a-long-hyphenated-name",
    "8 of 10 rows; token_count=12", "hub id org/model-name-with-a-long-tail",
    "sk_wikipedia_2024_clean", "sk_forum_crawl_2024_raw", "sk-wikipedia-2024-clean-2", "hf-fineweb-edu-sample-10BT",
    "hf_fineweb_edu_sample_10BT", "npm-registry-descriptions", "npm_registry_descriptions", "pk_customer_orders_2024",
    "abfss://corpus@acct.dfs.core.windows.net/scored", "/home/anna@corp.example.com/judges/mine-1",
    "/Workspace/Users/li.wei@firm.cn/corpus", "/models/mine@v1.2", "mine@v1.2", "hf://org/mine@v1.rc",
]  # fmt: skip


@pytest.mark.parametrize("secret", SECRETS, ids=lambda secret: secret[:6])
def test_a_secret_is_taken_out_wherever_it_stands(secret):
    path = f"path-of-{secret}" if "@" in secret else f"path/{secret}/x"  # a folder may be named by an address
    for text in (secret, f"before {secret} after", f'"{secret}"', path, f"error: {secret}, got"):
        assert secret not in redacted(text)
        assert REDACTED in redacted(text)


@pytest.mark.parametrize(
    "text",
    ["password=hunter22", "fs.s3a.secret.key: wJalrXUtnFEMI", "s3a://KEY123:SECRET456@bucket/x",
     "api_key = 'abcdef123'", "s3a://jane:hunter22@b.example.org/x", "s3a://jane:SECRET456@hunter22@b.example.org/x",
     "https://abcdef123@dev.example.com/x", "redis://:hunter22@10.0.0.5:6379/0", "https://:abcdef123@localhost/x",
     'AWS_SECRET_ACCESS_KEY="wJalrXUtnFEMI"', "jdbc:x?user=a&password=hunter22&b=c", "token: abcdef123456"],
)  # fmt: skip
def test_the_value_of_a_secret_setting_is_taken_out(text):
    found = redacted(text)
    assert REDACTED in found
    assert not [word for word in ("hunter22", "wJalrXUtnFEMI", "SECRET456", "abcdef123") if word in found]
    assert redacted(found) == found


@pytest.mark.parametrize("secret", SECRETS, ids=lambda secret: secret[:6])
def test_a_secret_is_taken_out_where_chinese_stands_right_before_it(secret):
    assert secret not in redacted(f"密钥是{secret}")
    for text in ("我的password=hunter2222", "password：hunter2222", "password=\u00a0hunter2222"):
        assert "hunter2222" not in redacted(text)


@pytest.mark.parametrize("text", PLAIN)
def test_plain_words_stay(text):
    assert redacted(text) == text


@pytest.mark.parametrize(
    "piece",
    ["a.", "a", "a-", "a_", "a@", "@", "的", "token ", "password", "secret_", "eyJ-", "sk-proj-", "sk-", "hf_", "://a:b",
     "http://", "/a@", "a/", "Bearer ", "\u3000", "-----BEGIN PRIVATE KEY"],
)  # fmt: skip
def test_a_long_text_is_read_in_a_time_that_grows_as_it_does(piece):
    started = time.process_time()
    redacted(piece * (100_000 // len(piece)))
    assert time.process_time() - started < 5  # what was read again from each of its characters took minutes


@settings(max_examples=200)
@given(st.text(max_size=40), st.sampled_from(SECRETS), st.text(max_size=40))
def test_no_surroundings_hide_a_secret(before, secret, after):
    assert secret not in redacted(f"{before} {secret} {after}")


@settings(max_examples=200)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=9), lambda inner: st.lists(inner) |
                    st.dictionaries(st.text(max_size=5), inner), max_leaves=10))  # fmt: skip
def test_what_holds_no_secret_keeps_its_shape(content):
    assert json.loads(json.dumps(redacted_values(content))) == redacted_values(content)
