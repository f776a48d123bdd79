"""The demo model, and the tiny models of tests/chatting.py, loaded once for all tests of chats."""

from pathlib import Path

import pytest
from chatting import DEMO, save_qwen2

from vocabkit.chat.llama_backend import LlamaBackend
from vocabkit.chat.transformers_backend import TransformersBackend
from vocabkit.gguf.export import export_gguf


@pytest.fixture(scope="session")
def demo() -> TransformersBackend:
    return TransformersBackend.open(str(DEMO))


@pytest.fixture(scope="session")
def demo_file(tmp_path_factory) -> Path:
    """The demo model as a GGUF; nobody may change it."""
    pytest.importorskip("llama_cpp", reason="no llama-cpp-python: pip install llama-cpp-python")
    return export_gguf(DEMO, tmp_path_factory.mktemp("gguf") / "demo.gguf", outtype="f32")


@pytest.fixture(scope="session")
def demo_llama(demo_file) -> LlamaBackend:
    return LlamaBackend(str(demo_file), threads=1)  # two of a tiny model only wait for each other


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("chat")
    return [save_qwen2(folder / "one", seed=1), save_qwen2(folder / "two", seed=2)]
