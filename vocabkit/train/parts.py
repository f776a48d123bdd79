"""What a stage trains: new rows, all rows, layers, LoRA in layers; and its values on their way to the disk.

Reads the folder that is trained for the names and number types of its tensors; writes an adapter if asked.
Everything that is not chosen is frozen.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vocabkit.checkpoint.record import NewRows
from vocabkit.checkpoint.shards import Checkpoint, is_zero, read_checkpoint
from vocabkit.errors import UserError
from vocabkit.models.split_rows import clamp_norms_, local, norm_range, rows_of, split_rows, whole
from vocabkit.train.memory import LAYER
from vocabkit.train.options import StageOptions
from vocabkit.train.output import Change

TORCH_DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}
ADAPTER = "default"


@dataclass
class Parts:
    """What moves in a model. ranges: "embed", "head" → bounds of the norms of new rows.

    Where FSDP has given each process a part of a parameter, all of them must ask for changes' values.
    """

    model: Any
    checkpoint: Checkpoint
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    first_new: int | None = None
    n_tokens: int | None = None  # rows from here on are padding
    lora: Any = None  # the LoraConfig

    @property
    def rows(self) -> dict[str, nn.Parameter]:
        """ "embed", "head" → parameter of new rows; the head of a tied model has none of its own."""
        return rows_of(self.model)

    @property
    def rows_alone(self) -> bool:
        """Whether new rows are all that moves: the model's states in other text are then as they were."""
        return bool(self.rows) and len(self.trained()) == len(self.rows)

    @property
    def sharded(self) -> bool:
        """Whether this process holds a part of each parameter alone."""
        return any(hasattr(parameter, "full_tensor") for parameter in self.trained().values())

    def trained(self) -> dict[str, nn.Parameter]:
        """Return name → parameter of all that moves, shared ones once."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def count(self) -> int:
        """Return how many numbers move."""
        return sum(parameter.numel() for parameter in self.trained().values())

    def describe(self) -> str:
        """Return one line that says what moves."""
        kinds = [f"{len(rows):,} new rows ({name})" for name, rows in self.rows.items()]
        names = [name for name in self.trained() if not name.endswith(".rows")]
        layers = sorted({int(m[1]) for name in names if (m := LAYER.search(name))})
        if layers:
            kinds.append(f"layers {' '.join(map(str, layers))}" + (" by LoRA" if self.lora else ""))
        if tables := [name for name in names if not LAYER.search(name)]:
            kinds.append(", ".join(tables))
        return f"trained   {self.count():>13,} parameters: {'; '.join(kinds)}"

    def clamp(self) -> None:
        """Bring the norms of new rows back into the range of the old ones'."""
        for name, bounds in self.ranges.items():
            clamp_norms_(local(self.rows[name].data), *bounds)  # rows are never cut: FSDP cuts between them

    @torch.no_grad()
    def round_to_stored(self) -> None:
        """Round what moved to the numbers that will be on disk, so that they are what is measured."""
        for name, parameter in self.trained().items():
            tensor = self.checkpoint.tensors.get(self._stored_name(name))
            if tensor is not None:
                mine = local(parameter)
                mine.copy_(mine.to(TORCH_DTYPES[tensor.dtype]))

    def changes(self, *, merge: bool) -> dict[str, Change]:
        """Return tensor → its new values. merge: LoRA's products are added to their layers' weights."""
        found: dict[str, Change] = {}
        for name, parameter in self.trained().items():
            if ".lora_" not in name:
                first = self.first_new if name.endswith(".rows") else None
                stored = self._stored_name(name)
                found[stored] = Change(_values(parameter, zero_from=self._zero_from(stored, first)), first)
        if merge and self.lora is not None:
            for name, module in self.model.named_modules():
                if hasattr(module, "get_delta_weight") and ADAPTER in module.lora_A:
                    found[self._stored_name(name + ".weight")] = Change(_merged(module))
        return found

    def _zero_from(self, name: str, first: int | None) -> int | None:
        """Return where the padding rows of a table begin that are zero; None for others, and new rows alone.

        They stay zero: they are no answers, but what an optimizer rounds its states to can move them.
        """
        tensor, rows = self.checkpoint.tensors.get(name), self.model.get_input_embeddings().weight.shape[0]
        if first is not None or tensor is None or tensor.shape[0] != rows or self.n_tokens in (None, rows):
            return None
        assert self.n_tokens is not None
        return self.n_tokens if is_zero(tensor, self.n_tokens, rows - 1) else None

    def _stored_name(self, name: str) -> str:
        """Return the checkpoint's name of a parameter: wrappers taken off, the base model's prefix too."""
        name = name.removesuffix(".rows") + ".weight" if name.endswith(".rows") else name
        name = name.replace(".base_layer.", ".").replace(".module.", ".")
        bare = name.removeprefix(self.model.base_model_prefix + ".")
        return bare if name not in self.checkpoint.tensors and bare in self.checkpoint.tensors else name

    def check_names(self) -> None:
        """Raise UserError if a trained tensor has another name on disk: it could not be put in its place."""
        for name in self.changes(merge=True):
            if name not in self.checkpoint.tensors:
                raise UserError(
                    f"{self.checkpoint.folder} stores {name} under another name or fused with others; this "
                    "architecture cannot be saved tensor by tensor: leave its layers out (--finetune_layers)"
                )

    def write_adapter(self, folder: Path | None, *, base: Path) -> None:
        """Write LoRA alone, in the format of peft. folder: None in a process that only gives its part."""
        from peft import get_peft_model_state_dict
        from safetensors.torch import save_file

        state = get_peft_model_state_dict(self.model, adapter_name=ADAPTER, save_embedding_layers=False)
        state = {f"base_model.model.{name}": whole(t.detach()).cpu().contiguous()
                 for name, t in state.items() if "lora_" in name}  # fmt: skip
        if folder is None:
            return
        folder.mkdir()
        save_file(state, folder / "adapter_model.safetensors")
        self.lora.base_model_name_or_path = str(base)
        self.lora.save_pretrained(str(folder))


def _values(parameter: nn.Parameter, *, zero_from: int | None = None) -> Callable[[], np.ndarray]:
    def values() -> np.ndarray:
        found = whole(parameter.detach()).float().cpu()
        if zero_from is not None:
            found = found.clone()  # not the parameter's own memory
            found[zero_from:] = 0
        return found.numpy()

    return values


def _merged(module: Any) -> Callable[[], np.ndarray]:
    def values() -> np.ndarray:
        weight = whole(module.base_layer.weight.detach()).float()
        return (weight + whole(module.get_delta_weight(ADAPTER).detach()).float()).cpu().numpy()

    return values


def choose_parts(
    model: Any, folder: Path, options: StageOptions, *, new_rows: NewRows | None, n_tokens: int, seed: int = 0
) -> Parts:
    """Freeze a model but for what a stage trains, and return that.

    seed: of LoRA's first values. Raises UserError for a layer that is not there, or where nothing would move.
    """
    parts = Parts(model, read_checkpoint(folder), n_tokens=n_tokens)
    model.requires_grad_(False)
    chosen = options.layers(model.config.get_text_config().num_hidden_layers)
    rank = options.lora_rank
    if rank is not None:
        parts.lora = _add_lora(model, chosen, rank=rank, alpha=options.lora_alpha or 2 * rank, seed=seed)
    tables = [model.get_input_embeddings(), model.get_output_embeddings()]
    for name, parameter in model.named_parameters():
        layer = LAYER.search(name)
        if rank is not None:
            parameter.requires_grad_(".lora_" in name)
        elif layer:
            parameter.requires_grad_(int(layer[1]) in chosen)
        else:
            parameter.requires_grad_(options.finetune_layers == "all")  # the norms around the layers
    for table in tables:
        table.requires_grad_(options.train_rows == "all")
    if options.train_rows == "new":
        assert new_rows is not None
        weights = {"embed": tables[0].weight, "head": tables[1].weight}
        chosen_parameters = parts.trained()
        split_rows(model, first=new_rows.first, stop=new_rows.stop)
        for parameter in chosen_parameters.values():
            parameter.requires_grad_(True)
        parts.first_new = new_rows.first
        if not options.no_clamp_norms:
            parts.ranges = {name: norm_range(weights[name], new_rows.first) for name in parts.rows}
    if not parts.count():
        raise UserError("nothing would be trained: give --train_rows new or all, or --finetune_layers")
    parts.check_names()
    return parts


def _add_lora(model: Any, layers: set[int], *, rank: int, alpha: int, seed: int) -> Any:
    """Put LoRA beside every linear module of these layers, in place; return its configuration."""
    from peft import LoraConfig, inject_adapter_in_model

    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and (m := LAYER.search(name + ".")) and int(m[1]) in layers
    ]
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=names, bias="none", task_type="CAUSAL_LM")
    torch.manual_seed(seed)
    inject_adapter_in_model(config, model, adapter_name=ADAPTER)
    return config
