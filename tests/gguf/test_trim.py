"""GGUF files trimmed directly: as the folder's detour gives them, whatever the matrices; what is refused."""

import dataclasses
import os
from pathlib import Path

import build
import numpy as np
import pytest
from exporting import rewrite, split_in_two

import model_edit
from vocabkit.errors import UserError
from vocabkit.files import read_json, write_json
from vocabkit.gguf.export import export_gguf
from vocabkit.gguf.files import (
    INT32,
    STRING,
    UINT32,
    NewTensor,
    array,
    number,
    read_gguf,
    string,
    unchanged,
    write_gguf,
)
from vocabkit.gguf.model import NEW_TO_OLD, open_gguf
from vocabkit.gguf.trim import default_file, trim_gguf
from vocabkit.gguf.verify import verify_gguf
from vocabkit.gguf.vocab import GGML
from vocabkit.tasks import run_task
from vocabkit.tokenizer.tokenizer_json import read_tokenizer_json
from vocabkit.vocab.lists import read_keep, write_lists
from vocabkit.vocab.rules import decide


def test_a_trimmed_file_is_the_export_of_the_trimmed_folder(trimmed_file):
    """Same tokens, same types, same rows: whichever way one goes."""
    place, family, out = trimmed_file
    direct, detour = open_gguf(out), open_gguf(place / "trimmed.gguf")
    assert direct.value(GGML + "tokens") == detour.value(GGML + "tokens")
    assert direct.types == detour.types
    assert direct.value(GGML + "merges") == detour.value(GGML + "merges")
    for name, tensor in direct.tensors.items():
        other = detour.tensors[name]
        assert (tensor.dims, tensor.type) == (other.dims, other.type)
        with tensor.file.open("rb") as one, other.file.open("rb") as two:
            one.seek(tensor.start), two.seek(other.start)
            assert one.read(tensor.size) == two.read(other.size), name


def test_a_vector_with_a_value_for_each_token_is_trimmed_too(small, tmp_path):
    """output.bias, as Phi-2 has it: one dimension, so its rows are single numbers."""
    source = read_gguf(small / "base.gguf")
    count = source.tensors["token_embd.weight"].rows
    values = np.arange(count, dtype=np.float32)
    bias = NewTensor("output.bias", (count,), 0, values.nbytes, lambda file, _: file.write(values.tobytes()))
    tensors = [*map(unchanged, source.tensors.values()), bias]
    write_gguf(tmp_path / "m.gguf", fields=source.fields, tensors=tensors)
    trim_gguf(tmp_path / "m.gguf")
    trimmed = open_gguf(tmp_path / "m__trimm_vocab.gguf")
    tensor = trimmed.tensors["output.bias"]
    data = trimmed.path.read_bytes()[tensor.start : tensor.start + tensor.size]
    assert tensor.dims == (len(trimmed.types),) and len(trimmed.types) < count
    assert np.frombuffer(data, np.float32).tolist() == trimmed.value(NEW_TO_OLD)


def test_a_split_model(tmp_path, small):
    first = split_in_two(small / "base.gguf", tmp_path / "m")
    trim_gguf(first)
    out = tmp_path / "m__trimm_vocab-00001-of-00002.gguf"
    assert verify_gguf(first, out)
    trim_gguf(small / "base.gguf", tmp_path / "whole.gguf")
    parts, whole = open_gguf(out), open_gguf(tmp_path / "whole.gguf")
    assert parts.tensors.keys() == whole.tensors.keys() and len(parts.parts) == 2
    for name, tensor in parts.tensors.items():
        other = whole.tensors[name]
        data, expected = tensor.file.read_bytes(), other.file.read_bytes()
        assert data[tensor.start :][: tensor.size] == expected[other.start :][: other.size], name


def test_dry_run_writes_nothing(small, tmp_path, capsys):
    trim_gguf(small / "base.gguf", tmp_path / "out.gguf", dry_run=True)
    assert list(tmp_path.iterdir()) == []
    assert "added by closure" in capsys.readouterr().out


def test_commands_of_the_readme(small, tmp_path, capsys):
    os.symlink(small / "base.gguf", tmp_path / "m.gguf")
    assert model_edit.main(["-m", str(tmp_path / "m.gguf"), "-t", "trimm_vocab"]) == 0
    out = tmp_path / "m__trimm_vocab.gguf"
    assert model_edit.main(["-b", str(tmp_path / "m.gguf"), "-m", str(out), "-t", "verify_edit"]) == 0
    assert "every check holds" in capsys.readouterr().out
    assert (
        model_edit.main(["-m", str(small / "base"), "-t", "export_gguf", "-o", str(tmp_path / "x.gguf")]) == 0
    )
    assert (tmp_path / "x.Modelfile").read_text().startswith("FROM ./x.gguf\n")


def test_vocabularies_that_cannot_be_trimmed_are_refused(small, tmp_path):
    tokens = read_gguf(small / "base.gguf").fields[GGML + "tokens"].value()
    per_token = array([0] * len(tokens), items=INT32)
    cases = {
        "kind": (
            {GGML + "model": string("bert")},
            "tokenizer.ggml.model is 'bert', expected one of gpt2, llama",
        ),
        "none": ({GGML + "tokens": None}, "cannot be trimmed"),
        "types": ({GGML + "token_type": array([1], items=INT32)}, "has 1 entries for"),
        "fewer": (
            {GGML + "tokens": array(tokens[:-1], items=STRING), GGML + "token_type": None},
            "rows, the file",
        ),
        "merge": ({GGML + "merges": array(["! zz"], items=STRING)}, "needs '!zz', no token"),
        "other": ({GGML + "mystery": per_token}, "mystery has an entry for each"),
        "twice": (
            {GGML + "tokens": array([*tokens[:-1], tokens[0]], items=STRING)},
            "has the token '.*' twice",
        ),
        "bytes": (
            {GGML + "tokens": array(["\udcff", *tokens[1:]], items=STRING)},
            "is damaged .KeyError",
        ),
        "eos": ({GGML + "eos_token_id": string("5")}, "eos_token_id is '5', not of the type"),
        "size": ({"qwen2.vocab_size": string("x")}, "qwen2.vocab_size is 'x', not of the type"),
        "scalar": ({GGML + "token_type": number(0, type=UINT32)}, "token_type is 0, not of the type"),
    }
    for name, (fields, message) in cases.items():
        path = rewrite(small / "base.gguf", tmp_path / f"{name}.gguf", fields)
        with pytest.raises(UserError, match=message):
            trim_gguf(path, tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists() and not (tmp_path / "out.gguf.part").exists()


def test_tasks_that_do_not_fit_a_file(small):
    def run(*argv: str) -> None:
        args = model_edit.build_parser().parse_args(list(argv))
        run_task(args, args.task, made_by="")

    gguf = str(small / "base.gguf")
    with pytest.raises(UserError, match="is a GGUF file already"):
        run("-m", gguf, "-t", "export_gguf")
    with pytest.raises(UserError, match="is no GGUF file"):
        run("-m", gguf, "-t", "verify_edit", "-b", str(small / "base"))
    with pytest.raises(UserError, match="takes the folder of a checkpoint"):
        run("-m", gguf, "-t", "view_embeddings")
    with pytest.raises(UserError, match="already exists"):
        run("-m", gguf, "-t", "trimm_vocab", "-o", gguf)


def test_default_names():
    assert default_file(Path("a/b.gguf")) == Path("a/b__trimm_vocab.gguf")


def test_the_estimate_is_the_size_of_the_file(trimmed_file, tmp_path, capsys):
    """With the fields that trimming adds, such as the old id of each row."""
    place, _, out = trimmed_file
    trim_gguf(place / "base.gguf", tmp_path / "new.gguf", dry_run=True)
    assert f"→ {out.stat().st_size:>13,}  (" in capsys.readouterr().out


@pytest.mark.parametrize("special_in_vocab", [True, False])
def test_a_list_of_a_folder_fits_the_gguf_of_the_model_and_back(tmp_path, special_in_vocab):
    """A GGUF does not say whether special tokens stand in the vocabulary too (SmolLM2) or not (Qwen)."""
    base = build.make_checkpoint(tmp_path / "base", "qwen2")
    if special_in_vocab:
        data = read_json(base / "tokenizer.json")
        data["model"]["vocab"] |= {entry["content"]: entry["id"] for entry in data["added_tokens"]}
        write_json(base / "tokenizer.json", data)
    export_gguf(base, tmp_path / "base.gguf")
    folder, file = read_tokenizer_json(base), open_gguf(tmp_path / "base.gguf").tokenizer
    assert (folder.fingerprint() == file.fingerprint()) != special_in_vocab
    for tokenizer, name in ((folder, "of_folder"), (file, "of_file")):
        (tmp_path / name).mkdir()
        decisions = decide(tokenizer.token_bytes, None, added=set(tokenizer.added.values()))
        write_lists(tmp_path / name, decisions, made_from={"fingerprint": tokenizer.fingerprint()})
        trim_gguf(
            tmp_path / "base.gguf", tmp_path / f"{name}.gguf", keep_paths=[tmp_path / name], dry_run=True
        )
        for other in (folder, file):
            assert read_keep([tmp_path / name], token_bytes=other.token_bytes, tokenizer=other)[0]
    for other in (dataclasses.replace(file, merges=file.merges[:-1]), dataclasses.replace(folder, merges=[])):
        with pytest.raises(UserError, match="made for the tokenizer"):
            read_keep([tmp_path / "of_folder"], token_bytes=other.token_bytes, tokenizer=other)
