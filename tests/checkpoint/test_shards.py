"""vocabkit/checkpoint/shards.py against the safetensors library and torch: headers, rows, whole
checkpoints.
"""

import json
import struct
from pathlib import Path

import build
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import edit_json

from vocabkit.checkpoint import shards as checkpoint_shards
from vocabkit.checkpoint.shards import (
    DTYPE_BITS,
    copy_unchanged,
    is_zero,
    read_checkpoint,
    read_header,
    read_rows,
    write_with_rows,
)
from vocabkit.errors import UserError
from vocabkit.files import read_json, write_json

V, N = 96, 5  # rows of the made-up checkpoints; layers
# safetensors name → torch dtype, of all types that both know
TORCH_DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn, "U16": torch.uint16, "I16": torch.int16, "F16": torch.float16,
    "BF16": torch.bfloat16, "U32": torch.uint32, "I32": torch.int32, "F32": torch.float32,
    "U64": torch.uint64, "I64": torch.int64, "F64": torch.float64, "C64": torch.complex64,
}  # fmt: skip


def save_checkpoint(folder: Path, *, tied: bool, shards: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Write matrices, biases, a scalar and an empty tensor, without a config; return them."""
    folder.mkdir()
    torch.manual_seed(0)
    tensors = {"embed.weight": torch.randn(V, 6).to(dtype), "norm": torch.randn(6), "step": torch.tensor(3)}
    tensors["empty"] = torch.zeros(0, 4)
    tensors |= {f"layers.{n}.weight": torch.randn(7, 5, 3).to(dtype) for n in range(N)}
    if not tied:
        tensors |= {"head.weight": torch.randn(V, 6).to(dtype), "head.bias": torch.randn(V).to(dtype)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt", "note": "đ"})
    if shards > 1:
        build.split(folder, shards)
    return tensors


@pytest.fixture(params=["BF16", "F16", "F32"])
def dtype(request) -> torch.dtype:
    return TORCH_DTYPES[request.param]


# Reading


@pytest.mark.parametrize("shards", [1, 3])
def test_headers_are_what_the_library_says(tmp_path, dtype, shards):
    save_checkpoint(tmp_path / "model", tied=False, shards=shards, dtype=dtype)
    seen = set()
    for file in sorted((tmp_path / "model").glob("*.safetensors")):
        tensors, metadata = read_header(file)
        with safe_open(file, "pt") as opened:
            assert set(tensors) == set(opened.keys()) and metadata == opened.metadata()
            for name, tensor in tensors.items():
                sliced = opened.get_slice(name)
                assert (tensor.dtype, list(tensor.shape)) == (sliced.get_dtype(), sliced.get_shape())
                value = opened.get_tensor(name).contiguous()
                assert tensor.size == value.numel() * value.element_size()
                wanted = value.reshape(-1).view(torch.uint8).numpy().tobytes()
                assert file.read_bytes()[tensor.start : tensor.start + tensor.size] == wanted
        seen |= set(tensors)
    found = read_checkpoint(tmp_path / "model")
    assert found.tensors.keys() == seen and len(found.files) == shards
    assert found.is_sharded == (shards > 1)


def test_dtype_names_and_sizes_are_those_of_the_library(tmp_path):
    tensors = {name: torch.zeros(4, 2, dtype=dtype) for name, dtype in TORCH_DTYPES.items()}
    save_file(tensors, tmp_path / "all.safetensors")
    found, _ = read_header(tmp_path / "all.safetensors")
    for name, dtype in TORCH_DTYPES.items():
        assert found[name].dtype == name and DTYPE_BITS[name] == dtype.itemsize * 8


def test_types_below_one_byte_are_measured_in_bits(tmp_path):
    build.write_safetensors(tmp_path / "x.safetensors", {"a": ("F4", [3, 4], 6), "b": ("F6_E2M3", [4, 3], 9)})
    found, _ = read_header(tmp_path / "x.safetensors")
    assert (found["a"].size, found["b"].size) == (6, 9)


@given(ids=st.sets(st.integers(0, V - 1)), per_block=st.integers(1, V))
def test_rows_in_blocks_of_any_size_are_the_rows(tmp_path_factory, ids, per_block):
    folder = tmp_path_factory.getbasetemp() / "rows"
    if not folder.exists():
        save_checkpoint(folder, tied=True, shards=1, dtype=torch.bfloat16)
    tensor = read_checkpoint(folder).tensors["embed.weight"]
    wanted = load_file(folder / "model.safetensors")["embed.weight"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint_shards, "ROW_BLOCK", per_block * tensor.row_bytes)
        blocks = list(read_rows(tensor, sorted(ids)))
    assert all(len(block) <= per_block for block in blocks)
    rows = np.concatenate(blocks) if blocks else np.empty((0, 12), np.uint8)
    assert rows.tobytes() == wanted[sorted(ids)].view(torch.uint8).numpy().tobytes()


def test_rows_of_a_vector_are_single_numbers(tmp_path):
    tensors = save_checkpoint(tmp_path / "model", tied=False, shards=1, dtype=torch.float32)
    bias = read_checkpoint(tmp_path / "model").tensors["head.bias"]
    assert bias.row_bytes == 4
    rows = np.concatenate(list(read_rows(bias, [0, 5, 95])))
    assert rows.tobytes() == tensors["head.bias"][[0, 5, 95]].numpy().tobytes()


def test_a_file_that_shrinks_while_it_is_read_is_noticed(tmp_path):
    save_checkpoint(tmp_path / "model", tied=True, shards=1, dtype=torch.float32)
    tensor = read_checkpoint(tmp_path / "model").tensors["embed.weight"]
    with tensor.file.open("r+b") as file:
        file.truncate(tensor.start + 10)
    with pytest.raises(UserError, match="ends .* bytes early; download the file again"):
        list(read_rows(tensor, [0, 1]))


# Writing


@pytest.mark.parametrize("block", [12, 100, 32 << 20])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("tied", [True, False])
def test_written_files_open_with_the_library_and_hold_the_rows(
    tmp_path, monkeypatch, dtype, tied, shards, block
):
    """Golden test: old(x)[kept] equals new(x), then zeros; everything else is as it was."""
    monkeypatch.setattr(checkpoint_shards, "ROW_BLOCK", block)
    old = save_checkpoint(tmp_path / "old", tied=tied, shards=shards, dtype=dtype)
    (tmp_path / "new").mkdir()
    kept = [0, 1, 2, 10, 11, 50, 94, 95]
    vocabulary = {"embed.weight"} if tied else {"embed.weight", "head.weight", "head.bias"}
    told = []
    source = read_checkpoint(tmp_path / "old")
    copy_unchanged(source, tmp_path / "new", vocabulary=vocabulary, progress=told.append)
    write_with_rows(
        source, tmp_path / "new", kept, vocab_size=16, vocabulary=vocabulary, progress=told.append
    )
    new = {}
    for file in sorted((tmp_path / "new").glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            assert opened.metadata() == read_header(tmp_path / "old" / file.name)[1]
            new |= {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        assert read_header(file)[0], "we read what we write"
        (length,) = struct.unpack("<Q", file.read_bytes()[:8])
        assert length % 8 == 0, "tensors are aligned as the library aligns them"
    assert new.keys() == old.keys()
    for name, tensor in old.items():
        if name in vocabulary:
            wanted = torch.zeros(16, *tensor.shape[1:], dtype=dtype)
            wanted[:8] = tensor[kept]
        else:
            wanted = tensor
        assert new[name].dtype == wanted.dtype and torch.equal(new[name], wanted), name
    if shards > 1:
        index = read_json(tmp_path / "new" / "model.safetensors.index.json")
        assert index["metadata"]["total_size"] == sum(t.numel() * t.element_size() for t in new.values())
        assert (
            index["weight_map"]
            == (read_json(tmp_path / "old" / "model.safetensors.index.json")["weight_map"])
        )
    else:
        assert [p.name for p in (tmp_path / "new").iterdir()] == ["model.safetensors"]
    zeros = (16 - 8) * sum(read_checkpoint(tmp_path / "new").tensors[name].row_bytes for name in vocabulary)
    written = sum(tensor.numel() * tensor.element_size() for tensor in new.values())
    assert written - zeros <= sum(told) <= sum(f.stat().st_size for f in (tmp_path / "new").iterdir())


@pytest.mark.parametrize("kept", [[], [0], [95], list(range(96))])
def test_extremes_of_what_is_kept(tmp_path, kept):
    old = save_checkpoint(tmp_path / "old", tied=True, shards=1, dtype=torch.float32)
    (tmp_path / "new").mkdir()
    write_with_rows(
        read_checkpoint(tmp_path / "old"),
        tmp_path / "new",
        kept,
        vocab_size=len(kept),
        vocabulary={"embed.weight"},
    )
    new = load_file(tmp_path / "new" / "model.safetensors")
    assert torch.equal(new["embed.weight"], old["embed.weight"][kept])
    if len(kept) == V:
        assert {name: tensor.tolist() for name, tensor in new.items()} == {
            name: tensor.tolist() for name, tensor in old.items()
        }


def test_parameters_in_the_index_are_counted(tmp_path):
    """transformers 5 writes total_parameters beside total_size."""
    save_checkpoint(tmp_path / "old", tied=False, shards=3, dtype=torch.bfloat16)
    index = read_json(tmp_path / "old" / "model.safetensors.index.json")
    index["metadata"]["total_parameters"] = 5000
    write_json(tmp_path / "old" / "model.safetensors.index.json", index)
    (tmp_path / "new").mkdir()
    vocabulary = {"embed.weight", "head.weight", "head.bias"}
    write_with_rows(
        read_checkpoint(tmp_path / "old"),
        tmp_path / "new",
        [3],
        vocab_size=1,
        vocabulary=vocabulary,
    )
    new = read_json(tmp_path / "new" / "model.safetensors.index.json")
    assert new["metadata"]["total_parameters"] == 5000 - 95 * (6 + 6 + 1)


def test_index_without_a_total_gets_the_right_one(tmp_path):
    save_checkpoint(tmp_path / "old", tied=False, shards=3, dtype=torch.bfloat16)
    edit_json(tmp_path / "old" / "model.safetensors.index.json", metadata={})
    (tmp_path / "new").mkdir()
    source = read_checkpoint(tmp_path / "old")
    vocabulary = {"embed.weight", "head.weight", "head.bias"}
    copy_unchanged(source, tmp_path / "new", vocabulary=vocabulary)
    write_with_rows(source, tmp_path / "new", [3], vocab_size=1, vocabulary=vocabulary)
    index = read_json(tmp_path / "new" / "model.safetensors.index.json")
    assert index["metadata"]["total_size"] == read_checkpoint(tmp_path / "new").size


def test_progress_can_stop_the_work(tmp_path):
    save_checkpoint(tmp_path / "old", tied=True, shards=3, dtype=torch.float32)
    (tmp_path / "new").mkdir()

    def stop(_bytes_written: int) -> None:
        raise KeyboardInterrupt

    source, vocabulary = read_checkpoint(tmp_path / "old"), {"embed.weight"}
    with pytest.raises(KeyboardInterrupt):
        copy_unchanged(source, tmp_path / "new", vocabulary=vocabulary, progress=stop)
    with pytest.raises(KeyboardInterrupt):
        write_with_rows(source, tmp_path / "new", [1], vocab_size=1, vocabulary=vocabulary, progress=stop)


def test_zero_rows_are_told_from_others(tmp_path):
    embed = torch.ones(6, 3)
    embed[2:5] = 0
    save_file({"embed": embed}, tmp_path / "model.safetensors")
    tensor = read_checkpoint(tmp_path).tensors["embed"]
    assert is_zero(tensor, 2, 4)
    assert not is_zero(tensor, 1, 4) and not is_zero(tensor, 2, 5)


# Damaged files


def damaged(path: Path, header: object, data: bytes = b"\0" * 24) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


GOOD = {"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}


def changed(**fields: object) -> dict[str, object]:
    return {"a": {**GOOD["a"], **fields}}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"{not json", "the safetensors header is not JSON: Expecting"),
        (b"[" * 5000, "the safetensors header is nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "the safetensors header is damaged"),
        (b"\xff\xff", "the safetensors header is not UTF-8"),
        ([1, 2], "it is .1, 2., expected an object"),
        ({"a": 3}, "'a'. is 3, expected an object"),
        ({"a": {"dtype": "F32"}}, "'a'. has no 'data_offsets'"),
        ({"__metadata__": {"a": 1}}, "__metadata__: .'a'. is 1, expected a string"),
        (b'{"a": 1, "a": 1}', "'a' twice"),
        (changed(dtype="F7"), "the safetensors header is damaged .KeyError: 'F7'"),
        (changed(shape="23"), "'shape'. is '23', expected a list"),
        (changed(shape=[2, 3.0]), "'shape'..1. is 3.0, expected a whole number"),
        (changed(shape=[2, 3, True]), "'shape'..2. is True, expected a whole number"),
        (changed(shape=[10**400]), "1 dimensions, up to 1000"),
        (changed(shape=[1] * 100 + [6]), "101 dimensions, up to 6"),
        (changed(data_offsets=[0]), "the safetensors header is damaged"),
        (changed(data_offsets=[0.0, 24.0]), "expected a whole number"),
        (changed(shape=[2, 4]), r"a has 24 bytes, \(2, 4\) needs 32"),
        (changed(shape=[-2, -3]), "a has 24 bytes"),
        (changed(data_offsets=[24, 0]), "a has -24 bytes"),
        (changed(data_offsets=[4, 28]), "a starts at byte .*, expected"),
        (changed(shape=[2], data_offsets=[0, 8]), "bytes, its header describes"),
        ({**GOOD, "b": {"dtype": "F32", "shape": [2], "data_offsets": [20, 28]}}, "b starts at byte"),
        ({}, "bytes, its header describes"),
    ],
)
def test_a_damaged_header_is_refused(tmp_path, header, message):
    path = tmp_path / "model.safetensors"
    damaged(path, GOOD)
    assert read_header(path)[0]["a"].shape == (2, 3), "the undamaged file is fine"
    damaged(path, header)
    with pytest.raises(UserError, match=message) as caught:
        read_header(path)
    assert str(path) in str(caught.value) and "download the file again" in str(caught.value)


@pytest.mark.parametrize("size", [0, 3, 8, 20, 90, -1])
def test_a_truncated_file_is_refused(tmp_path, size):
    path = tmp_path / "model.safetensors"
    damaged(path, GOOD)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match=r"model.safetensors.*bytes, its header (claims|describes)"):
        read_header(path)


def test_bytes_behind_the_last_tensor_are_refused(tmp_path):
    damaged(tmp_path / "model.safetensors", GOOD, b"\0" * 25)
    with pytest.raises(UserError, match="its header describes"):
        read_header(tmp_path / "model.safetensors")


def test_a_huge_header_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:  # sparse: takes no space
        file.write(struct.pack("<Q", 200 << 20))
        file.truncate(300 << 20)
    with pytest.raises(UserError, match="header claims 209,715,200"):
        read_header(path)


# Damaged folders


@pytest.fixture
def sharded(tmp_path) -> Path:
    save_checkpoint(tmp_path / "model", tied=True, shards=3, dtype=torch.float32)
    return tmp_path / "model"


def change_weight_map(folder: Path, change) -> None:
    index = read_json(folder / "model.safetensors.index.json")
    change(index["weight_map"])
    write_json(folder / "model.safetensors.index.json", index)


@pytest.mark.parametrize(
    "name", ["../outside.safetensors", "/etc/passwd", "sub/model.safetensors", "..", ".", "", 3, None]
)
def test_an_index_names_only_files_of_its_folder(sharded, name):
    change_weight_map(sharded, lambda weights: weights.update(norm=name))
    with pytest.raises(UserError, match="norm lies in .*, expected a file of the folder itself"):
        read_checkpoint(sharded)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.clear(), "has no weight_map"),
        (lambda w: w.pop("norm"), "does not list norm of"),
        (lambda w: w.update(extra=w["norm"]), "extra is not in"),
        (lambda w: w.update(norm="model-00009-of-00003.safetensors"), "model-00009.* is missing"),
        (lambda w: w.update(norm=next(f for f in w.values() if f != w["norm"])), "norm is not in"),
    ],
)
def test_an_index_that_is_wrong_is_refused(sharded, change, message):
    change_weight_map(sharded, change)
    with pytest.raises(UserError, match=message):
        read_checkpoint(sharded)


def test_a_tensor_in_two_files_is_refused(sharded):
    files = sorted(sharded.glob("*.safetensors"))
    first, second = load_file(files[0]), load_file(files[1])
    name = next(iter(first))
    save_file({**second, name: first[name]}, files[1])
    with pytest.raises(UserError, match=f"{name} is both in .* and in"):
        read_checkpoint(sharded)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (None, "has neither model.safetensors nor model.safetensors.index.json"),
        ("pytorch_model.bin", "no safetensors, only pytorch_model.bin; convert it first"),
        ("model.gguf", "no safetensors, only model.gguf"),
    ],
)
def test_a_folder_without_safetensors_says_what_it_has(tmp_path, name, message):
    if name:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match=message):
        read_checkpoint(tmp_path)
