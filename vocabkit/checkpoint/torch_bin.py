"""pytorch_model.bin and its shards: looked at, and written as safetensors for as long as they are needed.

Reads pytorch_model.bin, or pytorch_model.bin.index.json and its shards; writes model.safetensors, or shards
and their index, into a temporary folder. A .bin is a pickle: it is opened by torch.load(weights_only=True)
alone, which builds tensors and runs no code from the file. One shard is open at a time, mapped and not read
into memory, except in the format of before torch 1.6, which cannot be mapped.
"""

import contextlib
import pickle
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vocabkit.checkpoint.shards import (
    INDEX,
    SINGLE,
    Checkpoint,
    Tensor,
    header_bytes,
    read_checkpoint,
    read_index,
    write_all,
)
from vocabkit.errors import UserError
from vocabkit.files import COPY_BLOCK, Progress, progress_bar, write_json

if TYPE_CHECKING:
    import torch


BIN = "pytorch_model.bin"
BIN_INDEX = "pytorch_model.bin.index.json"
# Name of a number type in torch → in safetensors
DTYPES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "float8_e5m2": "F8_E5M2", "float8_e4m3fn": "F8_E4M3",
    "int16": "I16", "float16": "F16", "bfloat16": "BF16", "int32": "I32", "float32": "F32", "int64": "I64",
    "float64": "F64",
}  # fmt: skip
OUTPUT_HEADS = ("lm_head.", "embed_out.")
ZIP = b"PK\x03\x04"  # how a file of torch 1.6 and later begins


@dataclass(frozen=True)
class BinCheckpoint(Checkpoint):
    """Names, types and shapes of what .bin files hold, without the aliases; with_bytes() makes rows readable.

    A tensor's start is the end of its file, so that nobody reads anything for a row.
    """


def open_weights(folder: Path) -> Checkpoint:
    """Return the checkpoint in a folder: its safetensors, or a BinCheckpoint where it has .bin files only."""
    safetensors, bins = (
        any((folder / name).is_file() for name in names) for names in ((SINGLE, INDEX), (BIN, BIN_INDEX))
    )
    return look_at(folder) if bins and not safetensors else read_checkpoint(folder)


def look_at(folder: Path) -> BinCheckpoint:
    """Return what the .bin files of a folder hold; UserError for what is missing, damaged or no tensor."""
    index_path = folder / BIN_INDEX
    weight_map = read_index(index_path) if index_path.is_file() else None
    files = [folder / name for name in sorted(set(weight_map.values()))] if weight_map else [folder / BIN]
    tensors: dict[str, Tensor] = {}
    for file in files:
        state = _load(file)
        if weight_map is not None:
            _compare(index_path, {name for name in weight_map if weight_map[name] == file.name}, file, state)
        end = file.stat().st_size
        for name, value in _without_aliases(state).items():
            dtype = DTYPES[str(value.dtype).removeprefix("torch.")]
            tensors[name] = Tensor(name, file, dtype, tuple(value.shape), end, value.numel() * value.itemsize)
    return BinCheckpoint(folder, tensors, files, weight_map is not None, {file: {} for file in files})


@contextlib.contextmanager
def with_bytes(checkpoint: Checkpoint, parent: Path) -> Iterator[Checkpoint]:
    """Give a checkpoint whose rows can be read: itself, or a BinCheckpoint written as safetensors.

    These lie in a temporary folder in parent, which is removed at the end, whatever happened; one line on
    stderr says so. The folder of the checkpoint stays what it was: config.json is there.
    """
    if not isinstance(checkpoint, BinCheckpoint):
        yield checkpoint
        return
    first, *others = (file.name for file in checkpoint.files)
    names = f"{first} and {len(others)} more" if others else first
    print(
        f"{checkpoint.folder} has no safetensors: reading {names} with weights_only=True and writing "
        f"{'them' if others else 'it'} as safetensors first",
        file=sys.stderr,
    )
    with tempfile.TemporaryDirectory(dir=parent, prefix=".safetensors-") as scratch:
        with progress_bar(checkpoint.size, "safetensors") as bar:
            _convert(checkpoint, Path(scratch), bar.update)
        yield replace(read_checkpoint(Path(scratch)), folder=checkpoint.folder)


def _convert(checkpoint: BinCheckpoint, target: Path, progress: Progress) -> None:
    weight_map: dict[str, str] = {}
    for number, file in enumerate(checkpoint.files, 1):
        name = SINGLE
        if checkpoint.is_sharded:
            name = f"model-{number:05}-of-{len(checkpoint.files):05}.safetensors"
        tensors = checkpoint.tensors_in(file)
        weight_map |= {tensor.name: name for tensor in tensors}
        state = _load(file)
        with (target / name).open("xb", buffering=0) as writer:
            write_all(writer, header_bytes(tensors, {"format": "pt"}))
            for tensor in tensors:
                data = _bytes_of(state[tensor.name])
                for at in range(0, len(data), COPY_BLOCK):
                    write_all(writer, data[at : at + COPY_BLOCK])
                    progress(len(data[at : at + COPY_BLOCK]))
    if checkpoint.is_sharded:
        metadata = {"total_size": checkpoint.size}
        write_json(target / INDEX, {"metadata": metadata, "weight_map": dict(sorted(weight_map.items()))})


def _bytes_of(value: "torch.Tensor") -> memoryview:
    """The bytes of a tensor in the order of its indices, as safetensors wants them."""
    import torch

    return value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _load(path: Path) -> dict[str, "torch.Tensor"]:
    """Return the tensors of a .bin file by name; UserError if torch refuses it or it holds anything else."""
    import torch

    if not path.is_file():
        raise UserError(f"{path} is missing; download the file again")
    with path.open("rb") as file:
        mapped = file.read(len(ZIP)) == ZIP
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # whatever the bytes of a damaged file lead to
        # torch's own text recommends weights_only=False.
        found = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if found:
            raise UserError(
                f"{path} holds {found[1]}, expected tensors only: torch.load(weights_only=True) refuses it, "
                "as such a file can run any program; download this model's safetensors"
            ) from None
        raise UserError(
            f"{path} is truncated, or no file of tensors (torch.load: {type(error).__name__}); download the "
            "file again, or this model's safetensors"
        ) from None
    if not isinstance(state, dict) or not state:
        kind = "an empty dict" if isinstance(state, dict) else f"a {type(state).__name__}"
        raise UserError(
            f"{path} holds {kind}, expected a dict of tensors; give a folder of save_pretrained()"
        )
    for name, value in state.items():
        if not isinstance(name, str) or not _is_plain(value):
            raise UserError(
                f"{path}: {name!r} is {_kind(value)}, expected a plain tensor; give a folder of "
                "save_pretrained()"
            )
    return state


def _is_plain(value: Any) -> bool:
    import torch

    return (
        isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and str(value.dtype).removeprefix("torch.") in DTYPES
    )


def _kind(value: Any) -> str:
    import torch

    if isinstance(value, torch.Tensor):
        return f"a tensor of {value.dtype}, {value.layout}, on {value.device}"
    return f"a {type(value).__name__}"


def _without_aliases(state: dict[str, "torch.Tensor"]) -> dict[str, "torch.Tensor"]:
    """Return the tensors without those that are the same elements of the same memory as an earlier one.

    A tied output head is such an alias, wherever it stands: what its model looks for is the input matrix.
    """
    names = sorted(state, key=lambda name: name.startswith(OUTPUT_HEADS))
    seen: set[tuple[Any, ...]] = set()
    kept = {}
    for name in names:
        value = state[name]
        place = (value.data_ptr(), value.dtype, value.shape, value.stride())
        if not value.numel() or place not in seen:
            kept[name] = value
        seen.add(place)
    return kept


def _compare(index_path: Path, listed: set[str], file: Path, state: dict[str, "torch.Tensor"]) -> None:
    for name in sorted(listed - state.keys()):
        raise UserError(f"{index_path}: {name} is not in {file}; download both files again")
    for name in sorted(state.keys() - listed):
        raise UserError(f"{index_path} does not list {name} of {file}; download both again")
