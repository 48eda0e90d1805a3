"""Answers as JSON, which every reader of JSON takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from aquipu.cli.streams.console import readable

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def as_json(answer: DataclassInstance | dict[str, Any] | Sequence[Any]) -> str:
    """Return it as JSON that every reader of JSON takes, whatever the path of the store is."""
    plain = answer if isinstance(answer, (dict, Sequence)) else asdict(answer)
    return json.dumps(_readable(plain), indent=2)


def _readable(value: Any) -> Any:
    if isinstance(value, str):
        return readable(value)
    if isinstance(value, dict):
        return {_readable(key): _readable(one) for key, one in value.items()}
    return [_readable(one) for one in value] if isinstance(value, (list, tuple)) else value
