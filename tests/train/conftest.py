"""Fixtures of the tests of training."""

import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from training import TEXTS, extend


@pytest.fixture(scope="session", autouse=True)
def frozen() -> None:
    """What was imported is no garbage: each run of the Trainer would look through all of it several times."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def extended(tmp_path_factory) -> Callable[..., Path]:
    """family, settings → an extended checkpoint; each is made once, nobody may change it."""
    made: dict[str, Path] = {}

    def get(family: str = "qwen2", **options: Any) -> Path:
        key = repr((family, sorted(options.items())))
        if key not in made:
            made[key] = extend(tmp_path_factory.mktemp("extended"), family, **options)
        return made[key]

    return get


def write_texts(path: Path, texts: list[str]) -> Path:
    rows = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    path.write_text("".join(rows), encoding="utf-8")
    return path


@pytest.fixture
def data(tmp_path) -> Path:
    return write_texts(tmp_path / "texts.jsonl", TEXTS)


@pytest.fixture
def told(tmp_path) -> Path:
    """Texts with new words in each, which lessons need."""
    texts = [f"{text} {n} hôm nay và thanh điệu là một việc." for n, text in enumerate(TEXTS)]
    return write_texts(tmp_path / "told.jsonl", texts)
