"""Shared fixtures: real tokenizers and texts ($VOCABKIT_ASSETS), tiny tokenizer folders, trimmed files.

HYPOTHESIS_PROFILE=thorough runs the property tests with many more examples.
"""

import functools
import os
import random
import runpy
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import build
import pytest
from hypothesis import HealthCheck, settings
from tiny import ASSETS, ROOT, Folder, Trimmed, open_folder, trim_files, write_tiny

from vocabkit.edit.trim import trim_vocab
from vocabkit.files import write_json
from vocabkit.tokenizer.chat_template import render_chat

QUICK = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much]

settings.register_profile(
    "fast", max_examples=40, deadline=None, derandomize=True, suppress_health_check=QUICK
)

settings.register_profile("thorough", max_examples=2000, deadline=None, suppress_health_check=QUICK)

settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background: a shell has its jobs ignore Ctrl-C, and they their children.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """--thorough: the 2,000 inputs of tests/hostile/test_fuzz.py instead of some hundred."""
    parser.addoption("--thorough", action="store_true", help="2,000 damaged files instead of a few")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs real files by the fixtures that it asks for."""
    for item in items:
        if {"assets", "real", "envizh", "documents", "home_texts", "real_trimmed"} & set(
            getattr(item, "fixturenames", ())
        ):
            item.add_marker("assets")


# Real files


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder of real tokenizers, corpora and models."""
    if not ASSETS.is_dir():
        pytest.skip(f"no real tokenizers at {ASSETS}: set $VOCABKIT_ASSETS")
    return ASSETS


@pytest.fixture(scope="session")
def real_source(assets) -> Callable[[str], Path]:
    """name → a real tokenizer's folder as it is."""

    def find(name: str) -> Path:
        source = assets / "tokenizers" / name
        if not source.is_dir():
            pytest.skip(f"no {name} in {source.parent}")
        return source

    return find


@pytest.fixture(scope="session")
def real(real_source, tmp_path_factory) -> Callable[[str], Folder]:
    """name → a real tokenizer's folder, with the config.json that some of them lack; each is read once."""

    @functools.cache
    def open_real(name: str) -> Folder:
        source = real_source(name)
        if (source / "config.json").exists():
            return open_folder(source)
        target = tmp_path_factory.mktemp("real") / name
        shutil.copytree(source, target)
        target.chmod(0o755)
        write_json(
            target / "config.json",
            {
                "model_type": "t5",
                "vocab_size": 32128,
                "eos_token_id": 1,
                "pad_token_id": 0,
                "decoder_start_token_id": 0,
            },
        )
        return open_folder(target)

    return open_real


@pytest.fixture(scope="session")
def envizh(assets, tmp_path_factory) -> Path:
    """The real envizh-lm with all rows of Qwen2.5's vocabulary; nobody may change it."""
    folder = tmp_path_factory.mktemp("envizh") / "base"
    script = assets / "models" / "envizh-lm" / "expand.py"
    with pytest.MonkeyPatch.context() as patch:  # in this process: torch takes long to import
        patch.setattr(sys, "argv", [str(script), str(folder)])
        runpy.run_path(str(script))
    return folder


@pytest.fixture(scope="session")
def documents(assets) -> list[str]:
    """About 300 real texts in English, Vietnamese, both, Chinese and 35 other languages."""
    choose = random.Random(7)
    texts = []
    for folder, count in (("en", 70), ("vi", 70), ("envi", 40), ("zh", 40), ("udhr", 80)):
        pieces = []
        for path in sorted((assets / "corpora" / folder).iterdir()):
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            pieces += ["".join(lines[at : at + 6])[:1200] for at in range(0, len(lines), 6)]
        texts += choose.sample(pieces, min(count, len(pieces)))
    return texts


@pytest.fixture(scope="session")
def home_texts(assets) -> list[str]:
    """English and Vietnamese texts from which the kept tokens of real_trimmed are taken."""
    texts = [(ROOT / "data" / "verify_texts.txt").read_text(encoding="utf-8")]
    texts[0] += "\n# One\n## Two\n#### Four\n#include <stdio.h>\n#define N 3\n việc nhiều Việt hợp\ta\tb"
    for name in ("en/ud_en_ewt-ud.txt", "vi/ud_vi_vtb-ud.txt", "envi/tatoeba.tsv"):
        texts += (assets / "corpora" / name).read_text(encoding="utf-8").splitlines(keepends=True)[:500]
    return texts


@pytest.fixture(scope="session")
def real_trimmed(real, home_texts, tmp_path_factory) -> Callable[[str], Trimmed]:
    """name → a real tokenizer trimmed to what home_texts use (all its files rewritten); each is made once."""

    @functools.cache
    def trim(name: str) -> Trimmed:
        base = real(name)
        texts = [*home_texts, render_chat(base.path) or ""]
        used = {i for e in base.encoder.encode_batch_fast(texts) for i in e.ids}
        return trim_files(base, tmp_path_factory.mktemp("trimmed") / name, base.plan(used))

    return trim


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Iterator[Callable[..., Path]]:
    """family, tied, shards, dtype → a complete tiny checkpoint (build.py); each is made once, nobody may
    change it.
    """
    made: dict[Path, dict[str, str]] = {}

    @functools.cache
    def make(family: str, tied: bool, shards: int, dtype: str) -> Path:
        folder = tmp_path_factory.mktemp(family) / "base"
        build.make_checkpoint(folder, family, tied=tied, shards=shards, dtype=dtype)
        made[folder] = build.fingerprints(folder)
        return folder

    def asked(family="qwen2", *, tied=True, shards=1, dtype="float32") -> Path:
        return make(family, tied, shards, dtype)

    yield asked
    for folder, before in made.items():
        assert build.fingerprints(folder) == before, f"a test changed {folder}"


@pytest.fixture(scope="session")
def trimmed(checkpoint) -> Callable[..., Path]:
    """As checkpoint, trimmed: base__trimm_vocab beside its base; each is made once, nobody may change it."""

    def trim(*family: str, **how: Any) -> Path:
        base = checkpoint(*family, **how)
        out = base.with_name(f"{base.name}__trimm_vocab")
        if not out.exists():
            before = build.fingerprints(base)
            trim_vocab(base, out)
            assert build.fingerprints(base) == before
        return out

    return trim


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Callable[[str], Folder]:
    """kind (TINY_KINDS) → a tiny folder; each is made once, nobody may change it."""

    @functools.cache
    def make(kind: str) -> Folder:
        path = tmp_path_factory.mktemp("tiny") / kind
        write_tiny(path, kind)
        return open_folder(path)

    return make


@pytest.fixture
def tiny_copy(tiny, tmp_path) -> Callable[[str], Path]:
    """kind → a copy of a tiny folder that the test may change."""

    def copy(kind: str) -> Path:
        return Path(shutil.copytree(tiny(kind).path, tmp_path / kind))

    return copy


# Chat models (chatting.py)


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory) -> Path:
    """A tiny Qwen2 with a chat template; nobody may change it."""
    from chatting import save_qwen2  # loads transformers, which few tests need

    return save_qwen2(tmp_path_factory.mktemp("qwen2") / "model")


@pytest.fixture
def chat_copy(chat_model, tmp_path) -> Path:
    """A copy of chat_model that the test may change."""
    return Path(shutil.copytree(chat_model, tmp_path / "model"))
