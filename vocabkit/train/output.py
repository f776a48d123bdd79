"""What a training run leaves behind: an ordinary folder, the source's bytes but for what was trained.

Reads the folder that was trained and its vocab_edit.json; writes a new one: every file copied byte for byte
(tokenizer, settings, chat template), weights in the same shards with the trained tensors, or only the new
rows of them, replaced in place. What was frozen is therefore bit-identical whatever number type the run
computed in, a tied model cannot grow a head, and no wrapper is left.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from vocabkit.checkpoint.card import write_model_card
from vocabkit.checkpoint.numbers import as_stored
from vocabkit.checkpoint.record import EDIT_FILE, EditRecord, Stage, base_name
from vocabkit.checkpoint.shards import (
    Checkpoint,
    Tensor,
    copy_unchanged,
    header_bytes,
    is_zero,
    read_checkpoint,
    read_rows,
    write_all,
)
from vocabkit.checkpoint.vocab_tensors import find_vocab_tensors
from vocabkit.errors import UserError
from vocabkit.files import copy_file, copy_range, inside, read_versioned, write_json

TRAINING_FILE = "training.json"

TRAINING_FORMAT = ("vocab-training", 1)

REPORTS = ("verify_report.json", "README.md")  # of the edit before: they speak of other weights
NOT_COPIED = {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".onnx", ".h5", ".msgpack", ".py", ".jsonl"}


@dataclass(frozen=True)
class Change:
    """New values of a tensor: of its rows from first on, or of all of it where first is None.

    values: called when they are written; float32 of the tensor's shape, or (n, D) for rows.
    """

    values: Callable[[], np.ndarray]
    first: int | None = None


def write_trained(source: Path, part: Path, changes: Mapping[str, Change]) -> None:
    """Copy a folder into part, the named tensors changed; each in its own number type, rounded to nearest."""
    checkpoint = read_checkpoint(source)
    for path in sorted(source.iterdir()):
        wanted = path.suffix not in NOT_COPIED and path.name not in REPORTS and path.name[0] != "."
        if wanted and not path.is_dir():
            copy_file(inside(path), part / path.name)
    copy_unchanged(checkpoint, part, vocabulary=changes.keys())
    for file in _files(checkpoint, changes):
        _write_file(checkpoint, file, part / file.name, changes)


def give_values(source: Path, changes: Mapping[str, Change]) -> None:
    """Ask for all new values in the order in which write_trained() does, so that it gets this one's part."""
    checkpoint = read_checkpoint(source)
    for file in _files(checkpoint, changes):
        for tensor in checkpoint.tensors_in(file):
            if change := changes.get(tensor.name):
                change.values()


def _files(checkpoint: Checkpoint, changes: Mapping[str, Change]) -> list[Path]:
    return sorted({checkpoint.tensors[name].file for name in changes})


def _write_file(checkpoint: Checkpoint, file: Path, target: Path, changes: Mapping[str, Change]) -> None:
    tensors = checkpoint.tensors_in(file)
    with file.open("rb", buffering=0) as reader, target.open("xb", buffering=0) as writer:
        write_all(writer, header_bytes(tensors, checkpoint.metadata[file]))
        for tensor in tensors:
            at, end = tensor.start, tensor.start + tensor.size
            if change := changes.get(tensor.name):
                values = change.values()
                before = (change.first or 0) * tensor.row_bytes
                copy_range(reader, writer, offset=at, count=before)
                raw = as_stored(values.reshape(len(values), -1), tensor)
                write_all(writer, raw.data.cast("B"))
                at += before + raw.nbytes
            copy_range(reader, writer, offset=at, count=end - at)
        os.fsync(writer.fileno())


def check_frozen(source: Path, part: Path, changes: Mapping[str, Change], pad_from: int) -> dict[str, Any]:
    """Compare what was written with what it came from; return what vocab_edit.json records of it.

    For each tensor whose rows were trained: the SHA-256 of the rows before the new ones, which must be the
    source's, and of the new ones. Padding rows (from pad_from on) that were zero must be zero still. Raises
    UserError otherwise: the folder then gets no name.
    """
    before, after = read_checkpoint(source), read_checkpoint(part)
    vocabulary = find_vocab_tensors(before).names
    found: dict[str, Any] = {}
    for name, change in changes.items():
        old, new = before.tensors[name], after.tensors[name]
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            raise UserError(f"{part}: {name} became {new.dtype} {new.shape}; please report it")
        rows = old.shape[0]
        if change.first is not None:
            same = {"frozen": (0, change.first), "padding": (pad_from, rows)}
            facts = {key: sha256_rows(new, *where) for key, where in same.items()}
            if facts != {key: sha256_rows(old, *where) for key, where in same.items()}:
                raise UserError(f"{part}: old rows of {name} moved; the run is not saved; please report it")
            found[name] = {"rows": [change.first, pad_from], "sha256": {
                **facts, "new": sha256_rows(new, change.first, pad_from)}}  # fmt: skip
        elif name in vocabulary and rows > pad_from and is_zero(old, pad_from, rows - 1):
            if not is_zero(new, pad_from, rows - 1):
                raise UserError(f"{part}: padding rows of {name} are no longer zero; please report it")
    for name in before.tensors.keys() - changes.keys():
        old, new = before.tensors[name], after.tensors[name]
        if _sha256(old) != _sha256(new):
            raise UserError(f"{part}: {name} was not trained but differs; please report it")
    return found


def sha256_rows(tensor: Tensor, first: int, stop: int) -> str:
    """Return the hexadecimal SHA-256 of the bytes of the rows first … stop - 1."""
    digest = hashlib.sha256()
    for block in read_rows(tensor, range(first, stop)):
        digest.update(block.data.cast("B"))
    return digest.hexdigest()


def _sha256(tensor: Tensor) -> str:
    digest = hashlib.sha256()
    with tensor.file.open("rb") as file:
        file.seek(tensor.start)
        left = tensor.size
        while left:
            block = file.read(min(left, 1 << 20))
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()


def append_stage(source: Path, part: Path, stage: Mapping[str, Any], *, name: str) -> None:
    """Write the record of a trained folder: the source's with one more stage under "training"; and its card.

    It stands in vocab_edit.json, in training.json where the vocabulary was never edited. name: of the folder.
    """
    record = EditRecord.find(source)
    file = EDIT_FILE if record else TRAINING_FILE
    before = record.training or [] if record else _earlier_stages(source)
    stages = [*before, dict(stage)]
    (part / file).unlink(missing_ok=True)  # a copy that may share the source's blocks
    if record:
        replace(record, training=stages).write(part)
    else:
        kind, version = TRAINING_FORMAT
        write_json(part / file, {"format": kind, "version": version, "training": stages})
    write_trained_card(part, record, stages, name=name)


def _earlier_stages(folder: Path) -> list[dict[str, Any]]:
    path = folder / TRAINING_FILE
    if not path.is_file():
        return []
    name, version = TRAINING_FORMAT
    return read_versioned(path, format=name, version=version, shape=_Training)["training"]


class _Training(TypedDict):
    training: list[Stage]


TRAINED = """{head}

`{base}`, trained with `finetune_qwen.py`{edited}:

| stage | rows | layers | objective | steps | bits per byte of held-out text |
|---|---|---|---|---:|---|
{stages}

`{record}` holds each stage whole: its command, its data, the SHA-256 of the weights it began with and of the
rows that were not to move.

{open}

The terms of the base model and of the texts it was trained on hold for this one too.

## Tiếng Việt

`{base}`, được huấn luyện bằng `finetune_qwen.py`{edited_vi}; bảng trên ghi từng giai đoạn: các hàng và các
lớp được huấn luyện, mục tiêu, số bước, số bit trên mỗi byte của văn bản kiểm tra trước và sau.

`{record}` ghi đầy đủ từng giai đoạn: lệnh đã chạy, dữ liệu, SHA-256 của trọng số ban đầu và của các hàng
không được phép thay đổi.

Mở như mọi checkpoint khác, với đoạn mã ở trên. Điều khoản sử dụng của mô hình gốc và của dữ liệu huấn luyện
vẫn có hiệu lực với mô hình này.
"""

EDITED = {  # what was done to the vocabulary before
    "trimm_vocab": ("trimmed to English and Vietnamese", "được lược về tiếng Anh và tiếng Việt"),
    "extend_vocab": ("given Vietnamese words as tokens", "được thêm từ tiếng Việt làm token"),
}


def write_trained_card(
    folder: Path, record: EditRecord | None, stages: Sequence[Mapping[str, Any]], *, name: str
) -> None:
    """Write FOLDER/README.md of a trained folder; record: of its vocabulary, if that was ever edited."""
    rows = []
    for number, told in enumerate(stages, 1):
        stage = dict.fromkeys(Stage.__annotations__) | dict(told)  # an early stage lacks what came later
        layers = str(stage["finetune_layers"]) + (
            f", LoRA {stage['lora_rank']}" if stage["lora_rank"] else ""
        )
        bits = [stage["bits_per_byte_before"], stage["bits_per_byte_after"]]
        shown = " → ".join(f"{value:.4f}" for value in bits) if None not in bits else "not measured"
        cells = [number, stage["train_rows"], layers, stage["objective"], f"{stage['steps'] or 0:,}", shown]
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    base = record.base_model if record else str(stages[0].get("base_model"))
    before, before_vi = EDITED[record.task] if record else (None, None)
    write_model_card(
        folder,
        TRAINED,
        name=name,
        base_model=base,
        tags="vocabkit",
        base=base_name(base),
        edited=f" after its vocabulary was {before}" if before else "",
        edited_vi=f" sau khi bộ từ vựng {before_vi}" if before_vi else "",
        stages="\n".join(rows),
        record=EDIT_FILE if record else TRAINING_FILE,
    )
