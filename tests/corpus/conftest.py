"""Fixtures for tests of corpora."""

import pytest
from corpora import TEXTS, put, written

# Hub data sets


@pytest.fixture
def hub(tmp_path, monkeypatch) -> str:
    """A data set in a folder: load_dataset takes its path as a name."""
    datasets = pytest.importorskip("datasets")
    import huggingface_hub

    # The environment is read once, at import, and other tests may need the network settings as they are.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    put(tmp_path, "set/data/train-00000.parquet", written(TEXTS * 3, "parquet"))
    put(tmp_path, "set/data/test-00000.parquet", written(["test", "đề"], "parquet"))
    return f"hf:{tmp_path / 'set'}"
