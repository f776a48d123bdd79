"""Safetensors checkpoints as they lie on disk: headers, shards, index; rows gathered without loading a
matrix.

Reads model.safetensors, or model.safetensors.index.json and its shards; writes the same names into another
folder. A safetensors file is: 8 bytes little-endian header length, the header (JSON: tensor name → dtype,
shape, data_offsets), the tensors' bytes one after another. Source: github.com/huggingface/safetensors,
"Format". Bytes are never converted: a bfloat16 row is copied as the bytes it is.
"""

import json
import math
import os
import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, TypedDict

import numpy as np

from vocabkit.errors import UserError, reading
from vocabkit.files import Progress, copy_file, copy_range, parse_json, read_json_object, write_json
from vocabkit.shapes import check_shape

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
# Bits per element; safetensors 0.6 added types below one byte.
DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "U16": 16, "I16": 16, "F16": 16,
    "BF16": 16, "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64, "F4": 4,
    "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip

MAX_DIMS = 64  # more than any tensor has: the product of a million takes minutes
MAX_HEADER = 100 << 20  # bytes; the limit of the safetensors library
ROW_BLOCK = 4 << 20  # bytes of source rows held at a time: larger ones leave the cache and cost new pages
COPY_THREADS = 2  # one copies while another waits for the disk; more gain nothing


@dataclass(frozen=True)
class Tensor:
    """Where one tensor lies: its file, its bytes (from start on, size of them), its dtype name and shape."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, the slice at one index of the first dimension."""
        return self.size // self.shape[0] if self.shape and self.shape[0] else 0


@dataclass(frozen=True)
class Checkpoint:
    """All tensors of a model by name, its files in the order of their names, their metadata.

    folder: where its config.json is. is_sharded: there is an index file beside the files.
    """

    folder: Path
    tensors: dict[str, Tensor]
    files: list[Path]
    is_sharded: bool
    metadata: dict[Path, dict[str, str]]

    @property
    def size(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.size for tensor in self.tensors.values())

    def tensors_in(self, file: Path) -> list[Tensor]:
        """The tensors of one of its files, in the order of their bytes."""
        return [tensor for tensor in self.tensors.values() if tensor.file == file]


class _Entry(TypedDict):
    dtype: str
    shape: list[int]
    data_offsets: list[int]


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError(
            f"{next(name for name, count in Counter(n for n, _ in pairs).items() if count > 1)!r} twice"
        )
    return found


def read_header(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of one file in the order of their bytes, and its metadata; UserError if it is
    damaged.
    """
    again = "download the file again"
    with reading(f"{path}: the safetensors header"):
        total = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if total < 8 or length > min(total - 8, MAX_HEADER):
                raise UserError(
                    f"{path} has {total:,} bytes, its header claims {length:,}: truncated; {again}"
                )
            header = parse_json(file.read(length).decode("utf-8"), object_pairs_hook=_without_doubles)
        check_shape(header, dict[str, Any], path)
        metadata = header.pop("__metadata__", None) or {}
        check_shape(metadata, dict[str, str], f"{path}: __metadata__")
        check_shape(header, dict[str, _Entry], path)
        tensors = {}
        for name, entry in header.items():
            start, end = entry["data_offsets"]
            shape = tuple(entry["shape"])
            if len(shape) > MAX_DIMS or any(abs(size) >> 63 for size in shape):
                raise UserError(f"{path}: {name} has {len(shape)} dimensions, up to {max(shape)}; {again}")
            bits = math.prod(shape) * DTYPE_BITS[entry["dtype"]]
            if min((start, end - start, *shape)) < 0 or bits != (end - start) * 8:
                raise UserError(
                    f"{path}: {name} has {end - start:,} bytes, {shape} needs {bits // 8:,}; {again}"
                )
            tensors[name] = Tensor(name, path, entry["dtype"], shape, 8 + length + start, end - start)
    ordered = dict(sorted(tensors.items(), key=lambda item: (item[1].start, item[1].size)))
    end = 8 + length
    for tensor in ordered.values():
        if tensor.start != end:
            raise UserError(
                f"{path}: {tensor.name} starts at byte {tensor.start:,}, expected {end:,}; {again}"
            )
        end += tensor.size
    if end != total:
        raise UserError(f"{path} has {total:,} bytes, its header describes {end:,}; {again}")
    return ordered, metadata


def read_checkpoint(folder: Path) -> Checkpoint:
    """Return the checkpoint in a folder, every header checked; UserError for what is missing or wrong."""
    index_path, single = folder / INDEX, folder / SINGLE
    weight_map: dict[str, str] | None = None
    if index_path.is_file():
        weight_map = read_index(index_path)
        files = [folder / name for name in sorted(set(weight_map.values()))]
    elif single.is_file():
        files = [single]
    else:
        raise UserError(_no_weights(folder))
    tensors: dict[str, Tensor] = {}
    metadata = {}
    for file in files:
        found, metadata[file] = read_header(file)
        for name in found.keys() & tensors.keys():
            raise UserError(
                f"{name} is both in {tensors[name].file} and in {file}; download the checkpoint again"
            )
        tensors |= found
    if weight_map is not None:
        for name, file_name in weight_map.items():
            if name not in tensors or tensors[name].file.name != file_name:
                raise UserError(
                    f"{index_path}: {name} is not in {folder / file_name}; download both files again"
                )
        for name in tensors.keys() - weight_map.keys():
            raise UserError(f"{index_path} does not list {name} of {tensors[name].file}; download both again")
    return Checkpoint(folder, tensors, files, weight_map is not None, metadata)


def read_index(path: Path) -> dict[str, str]:
    """Return tensor → file of an index file; UserError if there is none, or a file outside the folder."""
    weight_map = read_json_object(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{path} has no weight_map; download the file again")
    for name, file_name in weight_map.items():
        if (
            not isinstance(file_name, str)
            or Path(file_name).name != file_name
            or file_name in ("", "..", ".")
        ):
            raise UserError(f"{path}: {name} lies in {file_name!r}, expected a file of the folder itself")
    return weight_map


def _no_weights(folder: Path) -> str:
    other = sorted(
        p.name for p in folder.glob("*") if p.suffix in (".bin", ".pth", ".gguf", ".pt", ".h5", ".msgpack")
    )
    if not other:
        return f"{folder} has neither {SINGLE} nor {INDEX}; give the folder of a complete checkpoint"
    convert = f"from transformers import AutoModelForCausalLM as A; A.from_pretrained('{folder}')"
    return (
        f"{folder} has no safetensors, only {other[0]}; convert it first: "
        f"python3 -c \"{convert}.save_pretrained('{folder}')\""
    )


def read_rows(tensor: Tensor, ids: Sequence[int]) -> Iterator[np.ndarray]:
    """Yield (block, row_bytes) uint8 arrays: the rows at these ascending ids, a few megabytes at a time."""
    rows_per_block = max(1, ROW_BLOCK // max(1, tensor.row_bytes))
    wanted = np.asarray(ids, dtype=np.int64)
    with tensor.file.open("rb", buffering=0) as file:
        at = 0
        while at < len(wanted):
            first = int(wanted[at])
            stop = int(np.searchsorted(wanted, first + rows_per_block))
            count = int(wanted[stop - 1]) - first + 1
            file.seek(tensor.start + first * tensor.row_bytes)
            block = np.empty((count, tensor.row_bytes), np.uint8)
            _read_into(file, block.data.cast("B"))
            yield block[wanted[at:stop] - first]
            at = stop


def _read_into(file: IO[bytes], buffer: memoryview) -> None:
    while buffer:
        count = file.readinto(buffer)  # type: ignore[attr-defined]
        if not count:
            raise UserError(f"{file.name} ends {len(buffer)} bytes early; download the file again")
        buffer = buffer[count:]


def copy_unchanged(
    source: Checkpoint,
    target: Path,
    *,
    vocabulary: Set[str],
    hardlink: bool = False,
    progress: Progress = lambda bytes_written: None,
) -> None:
    """Copy (or link) the files without a tensor named in vocabulary, the part that needs no plan.

    progress is told the bytes written every few megabytes, from several threads; what it raises ends the
    work.
    """
    changed = {source.tensors[name].file for name in vocabulary}

    def copy(file: Path) -> None:
        copy_file(file, target / file.name, hardlink=hardlink, progress=progress)

    with ThreadPoolExecutor(COPY_THREADS) as pool:
        list(pool.map(copy, [file for file in source.files if file not in changed]))


def write_with_rows(
    source: Checkpoint,
    target: Path,
    new_to_old: Sequence[int],
    *,
    vocab_size: int,
    vocabulary: Set[str],
    new_rows: Mapping[str, np.ndarray] | None = None,
    progress: Progress = lambda bytes_written: None,
) -> None:
    """Write the files with a tensor named in vocabulary, its rows now new_to_old and then zeros; the index
    too.

    new_rows: tensor → (count, row_bytes) uint8, rows between the old ones and the zeros. Each tensor is
    copied or gathered in its old place. With copy_unchanged the checkpoint is complete. progress: as there.
    Memory: one block of rows a thread, whatever the model's size.
    """

    def write(file: Path) -> None:
        tensors = source.tensors_in(file)
        resized = [_with_rows(t, vocab_size) if t.name in vocabulary else t for t in tensors]
        header = header_bytes(resized, source.metadata[file])
        with file.open("rb", buffering=0) as reader, (target / file.name).open("xb", buffering=0) as writer:
            write_all(writer, header)
            for tensor in tensors:
                if tensor.name in vocabulary:
                    for block in read_rows(tensor, new_to_old):
                        write_all(writer, block.data.cast("B"))
                        progress(block.nbytes)
                    added = (new_rows or {}).get(tensor.name, np.empty((0, tensor.row_bytes), np.uint8))
                    write_all(writer, added.tobytes())
                    write_zeros(writer, (vocab_size - len(new_to_old) - len(added)) * tensor.row_bytes)
                else:
                    copy_range(reader, writer, offset=tensor.start, count=tensor.size, progress=progress)
            os.fsync(writer.fileno())

    with ThreadPoolExecutor(COPY_THREADS) as pool:
        list(pool.map(write, sorted({source.tensors[name].file for name in vocabulary})))
    if source.is_sharded:
        _write_index(source, target, vocab_size, vocabulary)


def write_all(writer: IO[bytes], data: Any) -> None:
    """Write all of data, bytes or their like: an unbuffered file may take a part of it."""
    view = memoryview(data)
    while view:
        view = view[writer.write(view) :]


def write_zeros(writer: IO[bytes], count: int) -> None:
    """Write so many zero bytes; few are in memory."""
    block = bytes(min(count, ROW_BLOCK))
    for at in range(0, count, ROW_BLOCK):
        write_all(writer, block[: count - at])


def _with_rows(tensor: Tensor, rows: int) -> Tensor:
    return replace(tensor, shape=(rows, *tensor.shape[1:]), size=rows * tensor.row_bytes)


def header_bytes(tensors: Sequence[Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return how a file begins that holds these tensors in this order; where they lie now does not matter."""
    entries: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    at = 0
    for tensor in tensors:
        shape, end = list(tensor.shape), at + tensor.size
        entries[tensor.name] = {"dtype": tensor.dtype, "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)  # the library aligns the tensors to 8 bytes
    return struct.pack("<Q", len(text)) + text


def _write_index(source: Checkpoint, target: Path, vocab_size: int, vocabulary: Set[str]) -> None:
    index = read_json_object(source.files[0].with_name(INDEX))
    metadata = index["metadata"] = index.get("metadata") or {}
    removed = 0  # parameters; bytes follow from the size of one
    for name in vocabulary:
        tensor = source.tensors[name]
        metadata["total_size"] = (metadata.get("total_size") or source.size) - (
            (tensor.shape[0] - vocab_size) * tensor.row_bytes
        )
        removed += (tensor.shape[0] - vocab_size) * math.prod(tensor.shape[1:])
    if "total_parameters" in metadata:  # written by transformers 5
        metadata["total_parameters"] -= removed
    write_json(target / INDEX, index)


def is_zero(tensor: Tensor, first: int, last: int) -> bool:
    """Say whether the rows from first to last, both included, are all zero bytes."""
    return not any(block.any() for block in read_rows(tensor, range(first, last + 1)))
