"""Fixtures of the tests of training."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from training import TEXTS, extend


@pytest.fixture(scope="module")
def extended(tmp_path_factory) -> Callable[..., Path]:
    """family, settings → an extended checkpoint; each is made once, nobody may change it."""
    made: dict[str, Path] = {}

    def get(family: str = "qwen2", **options: Any) -> Path:
        key = repr((family, sorted(options.items())))
        if key not in made:
            made[key] = extend(tmp_path_factory.mktemp("extended"), family, **options)
        return made[key]

    return get


@pytest.fixture
def data(tmp_path) -> Path:
    path = tmp_path / "texts.jsonl"
    rows = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in TEXTS)
    path.write_text("".join(rows), encoding="utf-8")
    return path
