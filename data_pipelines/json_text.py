"""JSON that somebody else wrote."""

import json
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """As `json.loads`, but every fault is a ValueError: also nesting that is too deep to read."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("brackets nested too deep") from None
