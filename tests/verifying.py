"""Damage done to edited folders, for tests of the checks that must find it."""

from pathlib import Path

import numpy as np
from tiny import edit_json

from vocabkit.checkpoint.shards import read_checkpoint
from vocabkit.files import read_json, write_json

NEW = 424  # the id of " hôm nay" in the fixture `extended`


def overwrite(out: Path, name: str, data: bytes, *, row: int = 0) -> None:
    """Write bytes at the beginning of one row of a tensor."""
    tensor = read_checkpoint(out).tensors[name]
    with tensor.file.open("r+b") as file:
        file.seek(tensor.start + row * tensor.row_bytes)
        file.write(data)


def break_row(out: Path) -> None:
    overwrite(out, "model.embed_tokens.weight", b"\x01\x02\x03\x04", row=7)


def break_layer(out: Path) -> None:
    overwrite(out, "model.layers.0.mlp.up_proj.weight", np.full(8, 3.0, np.float32).tobytes())


def break_eos(out: Path) -> None:
    edit_json(out / "generation_config.json", eos_token_id=read_json(out / "vocab_edit.json")["n_tokens"])


def break_merges(out: Path) -> None:
    data = read_json(out / "tokenizer.json")
    data["model"]["merges"] = data["model"]["merges"][50:]
    write_json(out / "tokenizer.json", data)
    (out / "merges.txt").unlink()
