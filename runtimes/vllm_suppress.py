"""vLLM: keep a trimmed model from writing removed scripts, which `vllm serve` alone does not.

vLLM takes temperature and the like from generation_config.json, but not suppress_tokens. This logits
processor reads the list from the model's folder and gives these ids −∞ in every request. Reads
MODEL/generation_config.json; writes nothing. Needs vLLM and torch, nothing of vocabkit.

    PYTHONPATH=runtimes vllm serve ../Qwen2.5-1.5B-Instruct__trimm_vocab \
        --logits-processors vllm_suppress:SuppressTokens

vLLM has two interfaces for logits processors: that of version 1 (vllm.v1.sample.logits_processor) and, in
later releases, that of its second model runner (vllm.v1.worker.gpu.sample.logits_processor). The class is of
each that is there. With speculative decoding the first interface is refused by vLLM itself.
"""

import importlib
import json
from pathlib import Path
from typing import Any

import torch

INTERFACES = ("vllm.v1.worker.gpu.sample.logits_processor", "vllm.v1.sample.logits_processor")


def _bases() -> tuple[type, ...]:
    found: list[type] = []
    for name in INTERFACES:
        try:
            found.append(importlib.import_module(name).LogitsProcessor)
        except ModuleNotFoundError:
            continue
    if not found:
        raise ModuleNotFoundError(
            f"none of {', '.join(INTERFACES)} is installed; this vLLM is not known here"
        )
    return tuple(dict.fromkeys(found))


def suppressed_ids(model: str, revision: str | None = None) -> list[int]:
    """Return suppress_tokens of a folder, or of a model on the hub; ValueError where there are none."""
    path = Path(model) / "generation_config.json"
    if not Path(model).is_dir():
        from huggingface_hub import hf_hub_download

        path = Path(hf_hub_download(model, "generation_config.json", revision=revision))
    if not path.is_file():
        raise ValueError(f"{path} is missing; serve the folder that trimm_vocab wrote")
    listed = json.loads(path.read_text(encoding="utf-8")).get("suppress_tokens")
    if not listed:
        raise ValueError(
            f"{path} has no suppress_tokens; leave --logits-processors away, or serve a trimmed model"
        )
    return sorted(set(listed))


class SuppressTokens(*_bases()):  # type: ignore[misc]
    """Gives the ids of suppress_tokens the logit −∞, whatever a request says."""

    def __init__(self, vllm_config: Any, *state: Any) -> None:
        """state: the device and whether memory is pinned, or the state of requests; not needed."""
        model = vllm_config.model_config
        self.ids = torch.tensor(suppressed_ids(model.model, getattr(model, "revision", None)))

    def is_argmax_invariant(self) -> bool:
        """No: the best token may be one of these, so vLLM must ask for greedy requests too."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Every request is treated alike, so there is nothing to remember."""

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """Return that this request's logits are changed."""
        return True

    def apply(self, logits: torch.Tensor, ctx: Any = None) -> torch.Tensor:
        """Change logits (rows, ids) in place; a vocabulary that is padded further has ids that stay."""
        self.ids = self.ids.to(logits.device)
        return logits.index_fill_(1, self.ids, float("-inf"))
