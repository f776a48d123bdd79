"""An edited folder of each kind beside its base; a test may break the edited one."""

import shutil
from pathlib import Path

import pytest

from vocabkit.edit.extend import extend_vocab


@pytest.fixture
def pair(checkpoint, trimmed, tmp_path) -> tuple[Path, Path]:
    """An untied source and the folder trimmed out of it."""
    return checkpoint(tied=False), Path(shutil.copytree(trimmed(tied=False), tmp_path / "out"))


@pytest.fixture(scope="session")
def made_extended(checkpoint, tmp_path_factory) -> tuple[Path, Path]:
    """An untied source and the folder extended out of it; nobody may change them."""
    folder = tmp_path_factory.mktemp("extended")
    source = checkpoint(tied=False)
    (folder / "words.txt").write_text("hôm nay\nthanh điệu\n", encoding="utf-8")
    extend_vocab(source, folder / "out", words=folder / "words.txt")
    return source, folder / "out"


@pytest.fixture
def extended(made_extended, tmp_path) -> tuple[Path, Path]:
    """The same, of which the test may break the second."""
    source, out = made_extended
    return source, Path(shutil.copytree(out, tmp_path / "out"))
