"""Random models of every family, exported and trimmed once for all tests of GGUF files."""

import functools
from collections.abc import Callable
from pathlib import Path

import build
import pytest
from exporting import FAMILIES, make_exported

from vocabkit.gguf.export import export_gguf
from vocabkit.gguf.trim import trim_gguf


@pytest.fixture(scope="session")
def export_family(tmp_path_factory) -> Callable[[str, bool], Path]:
    """(family, tied) → a folder as make_exported() fills it; each is made once, nobody may change it."""

    @functools.cache
    def make(family: str, tied: bool) -> Path:
        return make_exported(tmp_path_factory.mktemp(family), family, tied=tied)

    return make


@pytest.fixture(params=FAMILIES, ids=lambda case: f"{case[0]}-{'tied' if case[1] else 'untied'}")
def exported(request, export_family) -> tuple[Path, str]:
    return export_family(*request.param), request.param[0]


@pytest.fixture
def trimmed_file(exported) -> tuple[Path, str, Path]:
    """The folder, the family, and base.gguf trimmed as a file."""
    place, family = exported
    out = place / "base__trimm_vocab.gguf"
    if not out.exists():
        trim_gguf(place / "base.gguf")
    return place, family, out


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> Path:
    """base/ and base.gguf, a qwen2; nobody may change them."""
    place = tmp_path_factory.mktemp("small")
    build.make_checkpoint(place / "base", "qwen2")
    export_gguf(place / "base", place / "base.gguf")
    return place
