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
    | \b(?:hf|ghp|gho|ghu|ghs|ghr|glpat|npm|dop_v1|dckr_pat)[_-][A-Za-z0-9_-]{16,}
    | \bgithub_pat_\w{20,}
    | \bxox[a-z]-[A-Za-z0-9-]{10,}
    | \b(?:sk|pk|rk)[-_][A-Za-z0-9_-]{16,}
    | \bAIza[0-9A-Za-z_-]{30,}
    | \bya29\.[0-9A-Za-z_-]{10,}
    | \beyJ[\w-]{8,}\.[\w-]{4,}(?:\.[\w-]*)?
    | (?<=://)[^\s/@:]+:[^\s/@]+(?=@)
    | \b(?:Bearer|Basic)[ ]+[A-Za-z0-9+/_.=-]{12,}
    | (?u:[\w.+-]+@[\w-]+(?:\.[\w-]+)+)
    | (?<=AccountKey=)[A-Za-z0-9+/=]{20,}
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,  # a Chinese character before a key is no letter that the key goes on from
)
SETTINGS = re.compile(
    r"""(?aix) \b ((?:[\w.-]*[_.-])? (?:password|passwd|pwd|secret|secret[_.-]?key|api[_.-]?key|access[_.-]?key
        |auth[_.-]?token|access[_.-]?token|token|credentials?) 
        ["']? [\s\u00a0\u3000]* [=:：] [\s\u00a0\u3000]* ["']?) ([^\s"',;&}\]]{6,})"""
)


def redacted(text: str) -> str:
    """`text` with `[redacted]` in the place of whatever looks like a secret."""
    return SETTINGS.sub(lambda found: found.group(1) + REDACTED, SECRETS.sub(REDACTED, text))


def redacted_values(content: Any) -> Any:
    """The same mapping, list or value, every text in it redacted; keys stay."""
    if isinstance(content, str):
        return redacted(content)
    if isinstance(content, Mapping):
        return {key: redacted_values(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [redacted_values(value) for value in content]
    return content
