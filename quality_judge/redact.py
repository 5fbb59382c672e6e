"""Takes out what looks like a secret, wherever the package prints or writes something that is not a row.

Keys of well-known services, tokens, passwords in addresses and settings, private keys and e-mail addresses are known by
their form. It is the last net and not the first: nothing that is printed should hold one. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

REDACTED = "[redacted]"
SECRETS = re.compile(
    r"""
      -----BEGIN[ ][A-Z ]*PRIVATE[ ]KEY-----.*?(?:-----END[ ][A-Z ]*PRIVATE[ ]KEY-----|\Z)
    | \b(?:AKIA|ASIA|AGPA|AIDA|AROA|ANPA)[A-Z0-9]{12,}
    | \b(?:hf|npm)_[A-Za-z0-9]{24,}                   # hf_sample_10BT and npm-descriptions are names
    | \bgh[pousr]_[A-Za-z0-9]{36,}
    | \b(?:glpat|dop_v1|dckr_pat)[_-][A-Za-z0-9_-]{16,}
    | \bgithub_pat_\w{20,}
    | \bxox[a-z]-[A-Za-z0-9-]{10,}
    | \b[spr]k-(?:proj|svcacct|admin|ant|or|lf)-(?=[A-Za-z_-]{0,200}\d)[A-Za-z0-9_-]{16,}
    | \b[spr]k_(?:live|test)_[A-Za-z0-9]{16,}
    | \b[spr]k[-_](?=[A-Za-z]*\d)[A-Za-z0-9]{20,}      # unbroken: sk_wikipedia_2024_clean is Slovak
    | \bAIza[0-9A-Za-z_-]{30,}
    | \bya29\.[0-9A-Za-z_-]{10,}
    | \beyJ[\w-]{8,2000}\.[\w-]{4,}(?:\.[\w-]*)?
    | (?<=://)[^\s/@:]*:[^\s/@]+(?:@[^\s/@"'?\#,]+)*(?=@)
    | (?:(?<=http://)|(?<=https://))[^\s/@:]+(?=@)     # a token that stands for user and password
    | \b(?:Bearer|Basic)[ ]+[A-Za-z0-9+/_.=-]{12,}
    | (?<=AccountKey=)[A-Za-z0-9+/=]{20,}
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,  # a Chinese character before a key is no letter that the key goes on from
)
# Behind a slash it is a folder of somebody, a judge with its tag, or a container (abfss://container@account); bounds
# keep a long run without an @ from being read again from each of its characters.
MAILS = re.compile(r"(/[\w.+%~-]+@)|[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){0,8}\.[^\W\d_][\w-]{1,62}")
SETTINGS = re.compile(
    r"""(?aix) (?<![a-z0-9]) ((?:password|passwd|pwd|secret|secret[_.-]?key|api[_.-]?key|access[_.-]?key
        |auth[_.-]?token|access[_.-]?token|token|credentials?)
        ["']? [\s\u00a0\u3000]* [=:：] [\s\u00a0\u3000]* ["']?) ((?!\[redacted\])[^\s"',;&}\]]{6,})"""
)


def redacted(text: str) -> str:
    """`text` with `[redacted]` in the place of whatever looks like a secret."""
    found = SETTINGS.sub(lambda setting: setting.group(1) + REDACTED, SECRETS.sub(REDACTED, text))
    return MAILS.sub(lambda mail: mail.group(1) or REDACTED, found)


def redacted_values(content: Any) -> Any:
    """The same mapping, list or value, every text in it redacted; keys stay."""
    if isinstance(content, str):
        return redacted(content)
    if isinstance(content, Mapping):
        return {key: redacted_values(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [redacted_values(value) for value in content]
    return content
