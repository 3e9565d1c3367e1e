"""Secrets that give themselves away in a text: by the shape of a known token, or by what stands before them.

Every quantifier is bounded and every repeated pattern begins where a word begins, so that the time a text
costs grows with its length and not with its square.
"""

import re
from collections.abc import Callable, Iterator

from portoser.audit.redaction.words import Sensitivity

Span = tuple[int, int]

_TOKENS = re.compile(
    r"""(?x)
    (?<![A-Za-z0-9])(?:
      eyJ[A-Za-z0-9_-]{8,4096}(?:\.[A-Za-z0-9_-]{0,4096}){1,4}          # JWT, JWE
    | (?:AKIA|ASIA|AGPA|AIDA|AROA|ABIA|ACCA)[A-Z0-9]{16}
    | gh[pousr]_[A-Za-z0-9]{16,255}
    | github_pat_[A-Za-z0-9_]{20,255}
    | gl(?:pat|ptt|rt|dt|soat|cbt|oas|ft|imt|agent)-[A-Za-z0-9_.-]{16,255}
    | xox[a-z](?:\.xox[a-z])?-[A-Za-z0-9-]{10,255} | xapp-[A-Za-z0-9-]{10,255}
    | AIza[A-Za-z0-9_-]{30,40} | ya29\.[A-Za-z0-9_-]{20,2048} | GOCSPX-[A-Za-z0-9_-]{20,64}
    | sk-[A-Za-z0-9_-]{16,255} | [srp]k_(?:live|test)_[A-Za-z0-9]{10,255} | whsec_[A-Za-z0-9+/=]{16,255}
    | npm_[A-Za-z0-9]{30,64} | pypi-[A-Za-z0-9_-]{16,1024} | do[opr]_v1_[a-f0-9]{64}
    | SG\.[A-Za-z0-9_-]{16,64}\.[A-Za-z0-9_-]{16,64} | hf_[A-Za-z0-9]{20,100} | dapi[a-f0-9]{32}
    | hv[sbr]\.[A-Za-z0-9_-]{20,512} | glsa_[A-Za-z0-9_]{20,100} | glc_[A-Za-z0-9+/=]{20,512}
    | shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32} | ATATT3[A-Za-z0-9_=-]{20,512} | ntn_[A-Za-z0-9]{30,64}
    | lin_api_[A-Za-z0-9]{30,64} | AGE-SECRET-KEY-1[0-9A-Z]{50,64} | ptk_[A-Za-z0-9_-]{20,64}
    | [0-9]{8,10}:AA[A-Za-z0-9_-]{30,40} | SK[a-f0-9]{32}
    )"""
)

_TOKEN_MARKS = (
    "eyJ", "AKIA", "ASIA", "AGPA", "AIDA", "AROA", "ABIA", "ACCA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_",
    "github_pat_", "glpat-", "glptt-", "glrt-", "gldt-", "glsoat-", "glcbt-", "gloas-", "glft-", "glimt-",
    "glagent-", "glsa_", "glc_", "xox", "xapp-", "AIza", "ya29.", "GOCSPX-", "sk-", "k_live_", "k_test_", "whsec_",
    "npm_", "pypi-", "_v1_", "SG.", "hf_", "dapi", "hvs.", "hvb.", "hvr.", "shpat_", "shpca_", "shppa_", "shpss_",
    "ATATT3", "ntn_", "lin_api_", "AGE-SECRET-KEY-1", "ptk_", ":AA", "SK",
)  # fmt: skip
"""A text without any of these holds no token: looking for them is far cheaper than running the pattern."""

_SHORTEST_TOKEN = 15

_PEM_HEAD = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}(?:PRIVATE KEY|SECRET KEY)[A-Z0-9 ]{0,20}-----")
_PEM_FOOT = re.compile(r"-----END [A-Z0-9 ]{0,60}-----")

_SCHEME = re.compile(r"(?i)(?<![A-Za-z0-9])(?:bearer|basic|negotiate)[ \t]{1,4}([A-Za-z0-9+/=._~:-]{8,4096})")
_USERINFO = re.compile(r"""://(?:[^\s/@:?#"'<>]{0,256}:([^\s/"'<>]{1,256})|([A-Za-z0-9_-]{20,256}))@""")
_ASSIGNED = re.compile(r"""(?<![\w.$-])([\w.$-]{1,80})["'\\]{0,4}\]?[ \t]{0,8}(?:=>|:=|=|:)[ \t]{0,8}""")
_OPTION = re.compile(r"""(?<!\S)--?([A-Za-z][\w-]{1,60})[ \t]{1,4}(?=[^\s-])""")
_LINE = re.compile(r"[^\r\n]{1,4096}")
_VALUE = re.compile(r"""[^\s,;&"'<>(){}\[\]\\]{1,4096}""")

_WHOLE_LINE = re.compile(r"(?i)authorization|cookie")
"""Headers whose value goes on to the end of the line."""

_NO_VALUES = frozenset(
    {
        "str", "string", "int", "integer", "bool", "boolean", "none", "null", "nil", "true", "false", "required",
        "optional", "bytes", "object", "any", "number", "float", "default", "list", "dict", "array", "undefined",
        "missing", "empty", "redacted",
    }
)  # fmt: skip
"""What stands behind a colon in a schema, a signature or a report, and is no secret."""


def spans_of_secrets(text: str, sensitivity_of: Callable[[str], Sensitivity]) -> list[Span]:
    """Where secrets stand in a text, in order and without overlap."""
    found: list[Span] = []
    assigned = "=" in text or ":" in text
    if len(text) >= _SHORTEST_TOKEN and any(mark in text for mark in _TOKEN_MARKS):
        found.extend(match.span() for match in _TOKENS.finditer(text))
    if "-----BEGIN" in text:
        found.extend(_pem_blocks(text))
    if " " in text or "\t" in text:
        lowered = text.lower()
        if any(scheme in lowered for scheme in ("bearer", "basic", "negotiate")):
            found.extend(match.span(1) for match in _SCHEME.finditer(text) if _is_opaque(match[1]))
        if "-" in text:
            found.extend(_option_values(text, sensitivity_of))
    if assigned:
        if "://" in text:
            found.extend(match.span(match.lastindex or 0) for match in _USERINFO.finditer(text))
        found.extend(_assigned_values(text, sensitivity_of))
    return _merged(found) if len(found) > 1 else found


def _pem_blocks(text: str) -> Iterator[Span]:
    place = 0
    while head := _PEM_HEAD.search(text, place):
        foot = _PEM_FOOT.search(text, head.end())
        place = foot.end() if foot else len(text)
        yield head.start(), place


def _is_opaque(value: str) -> bool:
    """Whether what follows ``Basic`` looks like a credential and not like the next word of a sentence."""
    return len(value) >= 24 or not value.isalpha() or not (value.islower() or value.istitle())


def _option_values(text: str, sensitivity_of: Callable[[str], Sensitivity]) -> Iterator[Span]:
    for match in _OPTION.finditer(text):
        if sensitivity_of(match[1]) and (value := _VALUE.match(text, match.end())):
            yield value.span()


def _assigned_values(text: str, sensitivity_of: Callable[[str], Sensitivity]) -> Iterator[Span]:
    done = 0
    for match in _ASSIGNED.finditer(text):
        sensitivity = sensitivity_of(match[1]) if match.start() >= done else Sensitivity.NONE
        if not sensitivity:
            continue
        start, end = _value_at(text, match.end(), whole_line=bool(_WHOLE_LINE.search(match[1])))
        value = text[start:end]
        if not value or value.lower() in _NO_VALUES or value.startswith("[REDACTED"):
            continue
        if sensitivity is Sensitivity.UNLESS_NUMBER and value.replace(".", "").isdigit():
            continue
        done = end
        yield start, end


def _value_at(text: str, start: int, *, whole_line: bool) -> Span:
    quote_at = start
    while quote_at < len(text) and text[quote_at] == "\\" and quote_at < start + 4:
        quote_at += 1
    quote = text[quote_at : quote_at + 1]
    if quote in {'"', "'"}:
        return quote_at + 1, _closing(text, quote_at + 1, text[start : quote_at + 1])
    if text.startswith("[REDACTED]", start):
        return start, start
    match = (_LINE if whole_line else _VALUE).match(text, start)
    return match.span() if match else (start, start)


def _closing(text: str, start: int, quote: str) -> int:
    """Where a quoted value ends: at its closing quote, else at the end of the line."""
    place = start
    while (place := text.find(quote, place)) != -1:
        backslashes = 0
        while place - backslashes - 1 >= start and text[place - backslashes - 1] == "\\":
            backslashes += 1
        if backslashes % 2 == 0:
            return place
        place += 1
    line = _LINE.match(text, start)
    return line.end() if line else start


def _merged(spans: list[Span]) -> list[Span]:
    spans.sort()
    merged = [spans[0]]
    for start, end in spans[1:]:
        last_start, last_end = merged[-1]
        if start <= last_end:
            merged[-1] = (last_start, max(last_end, end))
        else:
            merged.append((start, end))
    return merged
