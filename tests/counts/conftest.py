"""Fixtures for tests of counting: tokenizers with their counters."""

import functools
from collections.abc import Callable

import pytest
from counted import Opened, edited, like_gpt2, open_counter
from tiny import write_tiny


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Callable[[str], Opened]:
    """kind (SMALL) → a tiny tokenizer and its counter; each is made once."""

    @functools.cache
    def make(kind: str) -> Opened:
        path = tmp_path_factory.mktemp("small") / kind
        write_tiny(path, "qwen" if kind == "gpt2" else kind)
        return edited(path, like_gpt2) if kind == "gpt2" else open_counter(path)

    return make


@pytest.fixture(scope="module")
def opened(assets) -> Callable[[str], Opened]:
    """name (NAMES) → a real tokenizer and its counter; each is read once: the large ones take seconds."""

    @functools.cache
    def open_one(name: str) -> Opened:
        folder = assets / ("models" if name == "stories260K" else "tokenizers") / name
        if not folder.is_dir():
            pytest.skip(f"no {name} in {folder.parent}")
        return open_counter(folder)

    return open_one
