"""Makes values small enough for an audit row."""

from typing import Any

import msgspec

RESULT_LIMIT = 8 * 1024
ARGUMENTS_LIMIT = 32 * 1024

_STEPS = (2048, 512, 128, 32)
"""The lengths that texts are cut to, one after the other, until the whole fits."""


def fit(value: Any, limit: int) -> Any:
    """The value, or as much of it as takes at most ``limit`` bytes as JSON.

    What is already redacted may be cut anywhere: nothing appears that was not there.
    """
    size = len(msgspec.json.encode(value))
    if size <= limit:
        return value
    for longest in _STEPS:
        smaller = _cut(value, longest)
        if len(msgspec.json.encode(smaller)) <= limit:
            return smaller
    return f"[CUT: {size} bytes]"


def _cut(value: Any, longest: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= longest else f"{value[:longest]}…[{len(value) - longest} more characters]"
    if isinstance(value, list):
        kept = [_cut(item, longest) for item in value[: longest // 4]]
        return kept if len(kept) == len(value) else [*kept, f"…[{len(value) - len(kept)} more]"]
    if isinstance(value, dict):
        some = {key[:longest]: _cut(item, longest) for key, item in list(value.items())[: longest // 4]}
        return some if len(some) == len(value) else {**some, "…": f"[{len(value) - len(some)} more]"}
    return value
