"""runtimes/vllm_suppress.py, with stand-ins for vLLM's two base classes."""

import importlib
import sys
from abc import ABC, abstractmethod
from types import ModuleType, SimpleNamespace

import pytest
import torch
from tiny import ROOT

from vocabkit.files import write_json

V1, V2 = "vllm.v1.sample.logits_processor", "vllm.v1.worker.gpu.sample.logits_processor"


class First(ABC):
    """What vLLM's first interface asks of a class (vllm/v1/sample/logits_processor/interface.py, 0.32.0)."""

    @abstractmethod
    def __init__(self, vllm_config, device, is_pin_memory): ...
    @abstractmethod
    def apply(self, logits): ...
    @abstractmethod
    def is_argmax_invariant(self): ...
    @abstractmethod
    def update_state(self, batch_update): ...


class Second(ABC):
    """… and its second (vllm/v1/worker/gpu/sample/logits_processor/interface.py, 0.32.0)."""

    def add_request(self, req_idx, sampling_params):
        return True

    @abstractmethod
    def apply(self, logits, ctx): ...


@pytest.fixture
def vllm(monkeypatch):
    """Names of interfaces → the script, imported beside stand-ins of these alone."""

    def load(**interfaces):
        for name in (V1, V2):
            parts = name.split(".")
            for at in range(1, len(parts) + 1):
                monkeypatch.setitem(sys.modules, ".".join(parts[:at]), ModuleType(parts[at - 1]))
        for name, base in interfaces.items():
            sys.modules[{"v1": V1, "v2": V2}[name]].LogitsProcessor = base
        for name in {V1, V2} - {{"v1": V1, "v2": V2}[name] for name in interfaces}:
            monkeypatch.setitem(sys.modules, name, None)  # importing it fails
        monkeypatch.syspath_prepend(ROOT / "runtimes")
        monkeypatch.delitem(sys.modules, "vllm_suppress", raising=False)
        return importlib.import_module("vllm_suppress")

    yield load
    sys.modules.pop("vllm_suppress", None)


def config(folder):
    return SimpleNamespace(model_config=SimpleNamespace(model=str(folder), revision=None))


@pytest.mark.parametrize("interfaces", [{"v1": First}, {"v2": Second}, {"v1": First, "v2": Second}])
def test_the_listed_ids_are_never_chosen(vllm, tmp_path, interfaces):
    write_json(tmp_path / "generation_config.json", {"suppress_tokens": [5, 2, 5]})
    module = vllm(**interfaces)
    cls = module.SuppressTokens
    assert all(issubclass(cls, base) for base in interfaces.values())
    state = (SimpleNamespace(device="cpu"),) if "v2" in interfaces else (torch.device("cpu"), False)
    processor = cls(config(tmp_path), *state)
    assert processor.is_argmax_invariant() is False
    assert processor.add_request(0, SimpleNamespace()) is True
    processor.update_state(None)
    logits = torch.arange(24, dtype=torch.float32).reshape(3, 8)
    before = logits.clone()
    after = processor.apply(logits, SimpleNamespace()) if "v2" in interfaces else processor.apply(logits)
    assert after is logits
    assert torch.isinf(after[:, [2, 5]]).all() and (after[:, [2, 5]] < 0).all()
    others = [0, 1, 3, 4, 6, 7]
    assert torch.equal(after[:, others], before[:, others])


def test_a_trimmed_folder_is_read(vllm, trimmed):
    """The list that trimm_vocab writes, out of a real folder."""
    processor = vllm(v1=First).SuppressTokens(config(trimmed("qwen2")), torch.device("cpu"), False)
    assert len(processor.ids) > 1


@pytest.mark.parametrize("settings", [None, {}, {"suppress_tokens": []}])
def test_a_folder_without_a_list_is_refused(vllm, tmp_path, settings):
    """A server that was meant to keep scripts out must not start without doing so."""
    if settings is not None:
        write_json(tmp_path / "generation_config.json", settings)
    cls = vllm(v1=First).SuppressTokens
    with pytest.raises(ValueError, match=r"generation_config\.json (is missing|has no suppress_tokens)"):
        cls(config(tmp_path), torch.device("cpu"), False)


def test_without_vllm_it_says_so(vllm):
    with pytest.raises(ModuleNotFoundError, match="vllm"):
        vllm()
