"""vocabkit/checkpoint/torch_bin.py: .bin files give what safetensors of the same model give, and never run
anything.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import build
import pytest
import torch
from build import load, read_all
from safetensors.torch import load_file
from tiny import ROOT, edit_json
from transformers import AutoTokenizer

from vocabkit.checkpoint.shards import read_checkpoint
from vocabkit.checkpoint.torch_bin import BIN, BIN_INDEX, BinCheckpoint, open_weights, with_bytes
from vocabkit.edit.trim import trim_vocab
from vocabkit.errors import UserError
from vocabkit.files import read_json, write_json
from vocabkit.verify.ladder import verify_edit

TRIM = [sys.executable, str(ROOT / "model_edit.py"), "-t", "trimm_vocab"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def save(folder: Path, state: Any, *, zipped: bool = True) -> Path:
    folder.mkdir(exist_ok=True)
    torch.save(state, folder / BIN, _use_new_zipfile_serialization=zipped)
    return folder


@pytest.fixture
def copy_of(checkpoint, tmp_path) -> Callable[..., Path]:
    """As checkpoint, a copy that the test may change."""
    return lambda *family, **how: Path(shutil.copytree(checkpoint(*family, **how), tmp_path / "base"))


@pytest.fixture(scope="module")
def bins(checkpoint, tmp_path_factory) -> dict[int, Path]:
    """Shards → a complete folder with .bin files only; nobody may change them."""
    place = tmp_path_factory.mktemp("bins")
    folders = {shards: Path(shutil.copytree(checkpoint(), place / str(shards))) for shards in (1, 3)}
    for shards, folder in folders.items():
        build.as_bin(folder, shards=shards)
    return folders


@pytest.fixture
def base(bins, tmp_path) -> Path:
    """A complete folder with a .bin of one file."""
    return Path(shutil.copytree(bins[1], tmp_path / "base"))


@pytest.fixture
def sharded(bins, tmp_path) -> Path:
    return Path(shutil.copytree(bins[3], tmp_path / "base"))


# Trimming


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_rows_are_the_old_rows(copy_of, tmp_path, capsys, tied, shards, dtype):
    """Golden test: old[kept] equals new, then zeros; everything else is as it was, the alias is gone."""
    base = copy_of(tied=tied, dtype=dtype)
    old = build.as_bin(base, shards=shards)
    before = build.fingerprints(base)
    capsys.readouterr()
    trim_vocab(base, tmp_path / "out")
    stderr = capsys.readouterr().err
    assert stderr.count("\n") == 1 and f"{base} has no safetensors: reading pytorch_model" in stderr
    assert stderr.endswith("as safetensors first\n") and ("and 2 more" in stderr) == (shards == 3)
    assert build.fingerprints(base) == before
    assert names(tmp_path) == ["base", "out"]
    assert all(path.is_file() and path.suffix != ".bin" for path in (tmp_path / "out").iterdir())
    weights = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert weights == (
        ["model.safetensors"] if shards == 1 else [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
    )

    edit = read_json(tmp_path / "out" / "vocab_edit.json")
    assert edit["base_model"] == base.name
    new = read_all(read_checkpoint(tmp_path / "out"))
    assert old.keys() - new.keys() == ({"lm_head.weight"} if tied else set()) and new.keys() <= old.keys()
    for name, tensor in new.items():
        wanted = old[name]
        if name in ("model.embed_tokens.weight", "lm_head.weight"):
            wanted = torch.zeros(edit["vocab_size"], build.D, dtype=old[name].dtype)
            wanted[: edit["n_tokens"]] = old[name][edit["new_to_old"]]
        assert tensor.dtype == wanted.dtype and torch.equal(tensor, wanted), name


@pytest.mark.parametrize(
    ("family", "tied", "zipped"), [("qwen2", True, False), ("t5", True, True), ("t5", False, True),
                                   ("opt", True, True), ("opt", False, True)]
)  # fmt: skip
def test_new_model_is_the_old_one_over_the_kept_columns(copy_of, tmp_path, family, tied, zipped):
    """Golden test through both models, transformers reading the .bin; aliases of T5, OPT asked for names."""
    base = copy_of(family, tied=tied)
    build.as_bin(base, zipped=zipped)
    trim_vocab(base, tmp_path / "out")
    edit = read_json(tmp_path / "out" / "vocab_edit.json")
    old_ids, new_ids = (
        torch.tensor([AutoTokenizer.from_pretrained(folder)(build.COVERED[0]).input_ids])
        for folder in (base, tmp_path / "out")
    )
    with torch.no_grad():
        old, new = (
            model(input_ids=ids, **({"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}))
            for model, ids in ((load(base), old_ids), (load(tmp_path / "out"), new_ids))
        )
    assert old.logits.std() > 0.01
    torch.testing.assert_close(
        new.logits[..., : edit["n_tokens"]], old.logits[..., edit["new_to_old"]], atol=1e-5, rtol=0
    )


def test_the_result_is_that_of_safetensors(copy_of, tmp_path):
    """Files named alike, and the same bytes but for the order of the tensors."""
    base = copy_of()
    outs = [tmp_path / name / "out" for name in ("one", "two")]
    outs[0].parent.mkdir()
    trim_vocab(base, outs[0])
    build.as_bin(base)
    outs[1].parent.mkdir()
    trim_vocab(base, outs[1])
    one, two = map(build.fingerprints, outs)
    assert one.keys() == two.keys()
    assert {name for name in one if one[name] != two[name]} <= {"model.safetensors", "verify_report.json"}
    one, two = (load_file(out / "model.safetensors") for out in outs)
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_what_was_read_is_not_listed_as_left_out(base, tmp_path, capsys):
    (base / "training_args.bin").write_bytes(b"never opened")
    trim_vocab(base, tmp_path / "out")
    assert "left out: training_args.bin\n" in capsys.readouterr().out


def test_safetensors_are_used_where_there_are_both(copy_of, tmp_path, capsys):
    base = copy_of()
    (base / BIN).write_bytes(b"never opened")
    assert not isinstance(open_weights(base), BinCheckpoint)
    capsys.readouterr()
    trim_vocab(base, tmp_path / "out")
    assert capsys.readouterr().err == ""


def test_dry_run_writes_nothing(sharded, tmp_path, capsys):
    before = build.fingerprints(tmp_path)
    capsys.readouterr()
    trim_vocab(sharded, tmp_path / "out", dry_run=True)
    dry, stderr = capsys.readouterr()
    assert build.fingerprints(tmp_path) == before and names(tmp_path) == ["base"] and stderr == ""
    trim_vocab(sharded, tmp_path / "out")
    assert capsys.readouterr().out.startswith(dry)


def test_hardlinks_outlive_the_temporary_folder(sharded, tmp_path):
    trim_vocab(sharded, tmp_path / "out", hardlink=True)
    trim_vocab(sharded, tmp_path / "copied")
    one, two = (read_all(read_checkpoint(tmp_path / name)) for name in ("out", "copied"))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_verify_edit_beside_bin_files(sharded, tmp_path, capsys):
    trim_vocab(sharded, tmp_path / "out")
    capsys.readouterr()
    assert verify_edit(sharded, tmp_path / "out")
    assert "as safetensors first" in capsys.readouterr().err
    assert names(tmp_path) == ["base", "out"]
    embed = read_checkpoint(tmp_path / "out").tensors["model.embed_tokens.weight"]
    content = bytearray(embed.file.read_bytes())
    content[embed.start] ^= 1
    embed.file.write_bytes(content)
    assert not verify_edit(sharded, tmp_path / "out")
    assert "model.embed_tokens.weight row differs: 0" in capsys.readouterr().out
    assert names(tmp_path) == ["base", "out"]


# What is written


def converted(folder: Path, parent: Path) -> dict[str, torch.Tensor]:
    with with_bytes(open_weights(folder), parent) as checkpoint:
        assert checkpoint.folder == folder and checkpoint.files[0].parent.parent == parent
        return read_all(checkpoint)


def test_tensors_of_every_kind(tmp_path):
    """Strides, offsets, vectors, scalars, empty tensors, parameters; aliases once, views of a part as own."""
    matrix = torch.randn(4, 6)
    views = {"turned": matrix.t(), "low": matrix[2:], "high": matrix[:2], "flat": matrix.view(-1)}
    views |= {"matrix": matrix, "alias": matrix, "every other": matrix[:, ::2]}
    kinds = {"scalar": torch.tensor(7), "empty": torch.zeros(0, 4), "also empty": torch.zeros(0, 4)}
    kinds |= {"parameter": torch.nn.Parameter(torch.ones(3)), "flags": torch.tensor([True, False])}
    numbers = ("uint8", "int16", "int64", "float8_e4m3fn", "float16", "bfloat16", "float64")
    types = {name: (torch.randn(3, 5) * 9).abs().to(getattr(torch, name)) for name in numbers}
    state = {**views, **kinds, **types}
    new = converted(save(tmp_path / "model", state), tmp_path)
    assert state.keys() - new.keys() == {"alias"}
    for name, tensor in new.items():
        assert tensor.dtype == state[name].dtype and tensor.shape == state[name].shape, name
        assert tensor.tolist() == state[name].tolist(), name


def test_a_tied_head_is_the_alias_wherever_it_stands(tmp_path):
    embed = torch.randn(8, 4)
    state = {"lm_head.weight": embed, "model.embed_tokens.weight": embed, "lm_head.bias": torch.ones(8)}
    new = converted(save(tmp_path / "model", state), tmp_path)
    assert new.keys() == {"model.embed_tokens.weight", "lm_head.bias"}


def test_the_temporary_folder_goes_whatever_happens(tmp_path):
    folder = save(tmp_path / "model", {"a": torch.ones(3)})
    for stop in (KeyboardInterrupt, UserError):
        with pytest.raises(stop), with_bytes(open_weights(folder), tmp_path) as checkpoint:
            assert len(names(tmp_path)) == 2 and checkpoint.files[0].is_file()
            raise stop
        assert names(tmp_path) == ["model"]


@pytest.mark.slow
def test_ctrl_c_while_it_is_converted_leaves_nothing(base, tmp_path):
    size = 400 << 20
    state = torch.load(base / BIN, weights_only=True)
    torch.save({"a.zeros": torch.zeros(size // 4), **state}, base / BIN)
    process = subprocess.Popen([*TRIM, "-m", base, "-o", tmp_path / "out"], stderr=subprocess.PIPE, text=True)
    while process.poll() is None:
        found = list((tmp_path / "out.part").rglob(".safetensors-*/model.safetensors"))
        if found and found[0].stat().st_size > 1 << 20:
            process.send_signal(signal.SIGINT)
            break
    _, stderr = process.communicate(timeout=60)
    assert stderr.splitlines()[-1].startswith("error: interrupted") and process.returncode == 1
    assert names(tmp_path) == ["base"]


# What is refused. Each leaves the source as it was and nothing beside it.


def refused(folder: Path, *wanted: str) -> None:
    out = folder.parent / "out"
    before = build.fingerprints(folder.parent), sorted(folder.parent.rglob("*"))
    with pytest.raises(UserError) as caught:
        trim_vocab(folder, out)
    assert (build.fingerprints(folder.parent), sorted(folder.parent.rglob("*"))) == before
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400, message
    for text in wanted:
        assert text in message, message


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old"])
@pytest.mark.parametrize("shards", [1, 3])
def test_a_pickle_that_runs_a_command_does_not_run_it(copy_of, tmp_path, shards, zipped):
    base = copy_of()
    state = build.as_bin(base, shards=shards, zipped=zipped)
    path = sorted(base.glob("pytorch_model*.bin"))[-1]
    bomb = {**torch.load(path, weights_only=True), next(iter(state)): Bomb(tmp_path / "EXECUTED")}
    torch.save(bomb, path, _use_new_zipfile_serialization=zipped)
    refused(base, f"{path} holds posix.system, expected tensors only", "download this model's safetensors")
    assert not (tmp_path / "EXECUTED").exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / "EXECUTED").exists(), "the bomb was a dud"


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old"])
@pytest.mark.parametrize("left", [0, 3, 100, 0.5, -1])
def test_a_truncated_file(base, zipped, left):
    torch.save(torch.load(base / BIN, weights_only=True), base / BIN, _use_new_zipfile_serialization=zipped)
    size = (base / BIN).stat().st_size
    os.truncate(base / BIN, int(size * left) if left == 0.5 else left % size)
    refused(base, f"{base / BIN} is truncated, or no file of tensors", "download the file again")


@pytest.mark.parametrize(
    "content", [b"version https://git-lfs.github.com/spec/v1\n", b"<!DOCTYPE html>" * 9, bytes(range(256))]
)
def test_a_file_that_is_no_pickle(base, content):
    (base / BIN).write_bytes(content)
    refused(base, f"{base / BIN} is truncated, or no file of tensors", "download the file again")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ([torch.ones(2)], "holds a list, expected a dict of tensors; give a folder of save_pretrained()"),
        (torch.ones(2), "holds a Tensor, expected a dict of tensors"),
        ({}, "holds an empty dict, expected a dict of tensors"),
        ({"model": {"a": torch.ones(2)}}, "'model' is a dict, expected a plain tensor"),
        ({"a": torch.ones(2), "step": 3}, "'step' is a int, expected a plain tensor"),
        ({7: torch.ones(2)}, "7 is a tensor of torch.float32, torch.strided, on cpu"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, "'a' is a tensor of torch.complex64"),
        ({"a": torch.eye(2).to_sparse()}, "'a' is a tensor of torch.float32, torch.sparse_coo"),
        ({"a": torch.ones(2, device="meta")}, "'a' is a tensor of torch.float32, torch.strided, on meta"),
    ],
)  # fmt: skip
def test_a_file_that_holds_no_dict_of_tensors(base, state, message):
    torch.save(state, base / BIN)
    refused(base, f"{base / BIN}", message)


def change_weight_map(folder: Path, **changes: Any) -> None:
    index = read_json(folder / BIN_INDEX)
    index["weight_map"] = {k: v for k, v in (index["weight_map"] | changes).items() if v != "gone"}
    write_json(folder / BIN_INDEX, index)


NORM = "model.norm.weight"
FIRST, SECOND = (f"pytorch_model-0000{n}-of-00003.bin" for n in (1, 2))


def test_an_index_that_names_a_missing_file(sharded):
    change_weight_map(sharded, **{NORM: "pytorch_model-00004-of-00003.bin"})
    refused(sharded, f"{NORM} of", "download both")  # its own file is read before the missing one
    (sharded / SECOND).unlink()
    refused(sharded, f"{sharded / SECOND} is missing; download the file again")


@pytest.mark.parametrize("name", ["../outside.bin", "/etc/passwd", "sub/a.bin", "..", "", 3, None])
def test_an_index_that_names_a_file_outside(sharded, name):
    torch.save({NORM: torch.ones(2)}, sharded.parent / "outside.bin")
    change_weight_map(sharded, **{NORM: name})
    refused(sharded, f"{sharded / BIN_INDEX}: {NORM} lies in {name!r}, expected a file of the folder itself")


def test_an_index_that_is_wrong(sharded):
    holds = read_json(sharded / BIN_INDEX)["weight_map"][NORM]
    change_weight_map(sharded, extra=FIRST)
    refused(sharded, f"{sharded / BIN_INDEX}: extra is not in {sharded / FIRST}; download both")
    change_weight_map(sharded, extra="gone", **{NORM: "gone"})
    refused(sharded, f"{sharded / BIN_INDEX} does not list {NORM} of {sharded / holds}; download both")
    edit_json(sharded / BIN_INDEX, weight_map={})
    refused(sharded, f"{sharded / BIN_INDEX} has no weight_map")


def test_rows_that_are_not_vocab_size(base):
    edit_json(base / "config.json", vocab_size=500)
    refused(base, f"{base / BIN}: model.embed_tokens.weight has 512 rows", "says vocab_size 500")


def test_nothing_reads_a_row_before_it_is_converted(base):
    from vocabkit.checkpoint.shards import read_rows

    with pytest.raises(UserError, match="ends .* bytes early"):
        list(read_rows(open_weights(base).tensors["model.embed_tokens.weight"], [0]))
