"""Takes secrets and personal data out of text that is about to be kept: keys, e-mail addresses, phone numbers.

A net, not a promise: what looks like a secret is removed; one that looks like a plain word is not.
"""

from __future__ import annotations

import re

_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    # A password inside an address: https://user:password@host
    (re.compile(r"(?<=://)[^\s/@:]{1,200}:[^\s/@]{1,200}(?=@)"), "[secret]"),
    (
        re.compile(
            r"(?i)(\b[\w-]{0,40}(?:api[_-]?key|access[_-]?key|token|secret|passw(?:or)?d|authorization)[\"']?\s{0,3}[=:]"
            r"\s{0,3}[\"']?(?:(?:Bearer|Basic)\s{1,3})?)(?!\[|Bearer\b|Basic\b|None\b|null\b|SecretStr)[^\s\"',;&)}\]]{4,}"
        ),
        r"\1[secret]",
    ),
    (re.compile(r"(openai-insecure-api-key\.)[\w.~+/=-]{4,}"), r"\1[secret]"),
    (re.compile(r"(?i)\b(Bearer|Basic)\s{1,3}[\w.~+/=-]{8,}"), r"\1 [secret]"),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"), "[secret]"),
    (
        re.compile(
            r"\b(?:sk|ek|pk|rk|gsk|hf|xai|ghp|gho|ghs|github_pat|glpat|xox[abprs])[-_][\w-]{12,}"
        ),
        "[secret]",
    ),
    (re.compile(r"\b(?:AKIA|ASIA|AIza)[\w-]{12,}"), "[secret]"),
    # Exactly 32 hexadecimal digits: tokens and account ids of telephony providers. Digests of files are longer.
    (re.compile(r"\b(?:AC|SK|CA)?[0-9a-fA-F]{32}\b"), "[secret]"),
    (re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}"), "[e-mail]"),
    (re.compile(r"(?<![\w.])(?:\+|00)[1-9](?:[ ().-]{0,2}\d){6,14}(?![\w.]?\d)"), "[phone]"),
    (re.compile(r"(?<![\w.])\(?[2-9]\d{2}\)?[ .-]\d{3}[ .-]\d{4}(?![\w-])"), "[phone]"),
    (re.compile(r"(?<![\w.:-])0[1-9]\d{1,3}[ /-]\d{3,8}(?:[ -]\d{2,5})?(?![\w.:-])"), "[phone]"),
)


def redact(text: str) -> str:
    """`text` with everything that looks like a secret, an e-mail address or a phone number replaced by a word."""
    for pattern, instead in _RULES:
        text = pattern.sub(instead, text)
    return text
