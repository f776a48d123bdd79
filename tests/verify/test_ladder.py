"""verify_edit: clean on what trimm_vocab writes, and every rung fails when its input is broken."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from corpora import PACK, as_jsonl, put
from tiny import ROOT, edit_json

from vocabkit.checkpoint.shards import read_checkpoint
from vocabkit.edit.extend import extend_vocab
from vocabkit.errors import UserError
from vocabkit.files import read_json, write_json
from vocabkit.verify import ladder
from vocabkit.verify.check import SHOWN
from vocabkit.verify.ladder import verify_edit


@pytest.fixture
def pair(checkpoint, trimmed, tmp_path) -> tuple[Path, Path]:
    """An untied source and the folder trimmed out of it, which the test may break."""
    return checkpoint(tied=False), Path(shutil.copytree(trimmed(tied=False), tmp_path / "out"))


def findings(source: Path, out: Path, texts: Path | None = None) -> list[str]:
    """Run the ladder and return its findings as recorded; the return value must agree with them."""
    passed = verify_edit(source, out, texts=[texts] if texts else None)
    report = read_json(out / "verify_report.json")
    found = [finding for check in report["checks"] for finding in check["findings"]]
    assert passed == report["passed"] == (not found)
    return found


def overwrite(out: Path, name: str, data: bytes, *, row: int = 0) -> None:
    """Write bytes at the beginning of one row of a tensor."""
    tensor = read_checkpoint(out).tensors[name]
    with tensor.file.open("r+b") as file:
        file.seek(tensor.start + row * tensor.row_bytes)
        file.write(data)


@pytest.mark.parametrize("family, tied", [("qwen2", True), ("llama", False), ("gemma2", True), ("t5", False)])
def test_is_clean_after_trimming(checkpoint, trimmed, tmp_path, family, tied):
    shutil.copytree(trimmed(family, tied=tied), tmp_path / "out")
    assert findings(checkpoint(family, tied=tied), tmp_path / "out") == []
    report = read_json(tmp_path / "out" / "verify_report.json")
    numbers = {name: value for check in report["checks"] for name, value in check["numbers"].items()}
    assert numbers["positions"] > 50 and numbers["same_argmax"] == numbers["positions"]
    assert numbers["covered_bits_per_byte"] < numbers["covered_bits_per_byte_base"]  # competitors are gone
    assert 0 < numbers["removed_probability_mean"] < numbers["removed_probability_max"] < 1


def break_row(out: Path) -> None:
    overwrite(out, "model.embed_tokens.weight", b"\x01\x02\x03\x04", row=7)


def break_head_row(out: Path) -> None:
    overwrite(out, "lm_head.weight", b"\x01\x02\x03\x04", row=7)


def break_padding(out: Path) -> None:
    n_tokens = read_json(out / "vocab_edit.json")["n_tokens"]
    overwrite(out, "lm_head.weight", b"\x01", row=n_tokens)


def break_layer(out: Path) -> None:
    overwrite(out, "model.layers.0.mlp.up_proj.weight", np.full(8, 3.0, np.float32).tobytes())


def break_rows_count(out: Path) -> None:
    edit_json(out / "config.json", vocab_size=read_json(out / "config.json")["vocab_size"] + 64)


def break_eos(out: Path) -> None:
    edit_json(out / "generation_config.json", eos_token_id=read_json(out / "vocab_edit.json")["n_tokens"])


def break_merges_txt(out: Path) -> None:
    lines = (out / "merges.txt").read_text(encoding="utf-8").splitlines()
    (out / "merges.txt").write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")


def break_vocab_json(out: Path) -> None:
    vocab = read_json(out / "vocab.json")
    vocab.popitem()
    write_json(out / "vocab.json", vocab)


def break_merges(out: Path) -> None:
    data = read_json(out / "tokenizer.json")
    data["model"]["merges"] = data["model"]["merges"][50:]
    write_json(out / "tokenizer.json", data)
    (out / "merges.txt").unlink()


def break_token(out: Path) -> None:
    data = read_json(out / "tokenizer.json")
    vocab = data["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    write_json(out / "tokenizer.json", data)
    (out / "vocab.json").unlink()


def break_template(out: Path) -> None:
    edit_json(
        out / "tokenizer_config.json", chat_template="{% for m in messages %}{{ m.content }}{% endfor %}"
    )


@pytest.mark.parametrize(
    "damage, expected",
    [
        (break_row, "model.embed_tokens.weight row differs: 7"),
        (break_head_row, "lm_head.weight row differs: 7"),
        (break_padding, "are not all zero"),
        (break_layer, "max |Δ logit|"),
        (break_rows_count, "says vocab_size"),
        (break_eos, "eos_token_id is"),
        (break_merges_txt, "merges.txt has"),
        (break_vocab_json, "vocab.json lacks"),
        (break_merges, "encodes differently"),
        (break_token, "token moved: 'b'"),
        (break_template, "chat template"),
    ],
)
def test_each_rung_finds_its_damage(pair, damage, expected):
    source, out = pair
    damage(out)
    if expected == "says vocab_size":  # the checkpoint is not opened any further
        with pytest.raises(UserError, match=expected):
            verify_edit(source, out)
        return
    assert any(expected in finding for finding in findings(source, out)), findings(source, out)


def test_many_findings_of_a_kind_are_counted(pair):
    source, out = pair
    for row in range(20):
        overwrite(out, "lm_head.weight", b"\x01\x02\x03\x04", row=row)
    found = [finding for finding in findings(source, out) if "row differs" in finding]
    assert len(found) <= SHOWN + 1


@pytest.mark.slow
def test_exit_status_and_table(pair):
    source, out = pair
    command = [
        sys.executable,
        str(ROOT / "model_edit.py"),
        "-b",
        str(source),
        "-m",
        str(out),
        "-t",
        "verify_edit",
    ]
    good = subprocess.run(command, capture_output=True, text=True)
    assert good.returncode == 0, good.stderr
    assert all(
        f"ok     {step}" in good.stdout for step in ("1 files", "2 tokenizer", "3 rows", "4 logits", "5 cost")
    )
    break_row(out)
    bad = subprocess.run(command, capture_output=True, text=True)
    assert bad.returncode == 1
    assert "FAILED 3 rows" in bad.stdout


def test_another_base_is_refused(pair, checkpoint):
    source, out = pair
    other = checkpoint("llama")
    with pytest.raises(UserError, match="was made from"):
        verify_edit(other, out)
    with pytest.raises(UserError, match="vocab_edit.json is missing"):
        verify_edit(source, other)


def test_texts_without_a_covered_one_prove_nothing(pair, tmp_path):
    source, out = pair
    (tmp_path / "foreign.txt").write_text("天气\n" * 5, encoding="utf-8")
    assert any("no text is covered" in finding for finding in findings(source, out, tmp_path / "foreign.txt"))
    (tmp_path / "empty.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="nothing to measure"):
        verify_edit(source, out, texts=[tmp_path / "empty.jsonl"])


def test_texts_are_all_that_a_corpus_may_be_and_are_looked_at_first(pair, tmp_path, monkeypatch):
    source, out = pair
    chat = [{"role": "user", "content": "Xin chào!"}, {"role": "assistant", "content": "Chào bạn."}]
    path = put(tmp_path, "chats.jsonl.zst", PACK[".zst"](as_jsonl([{"messages": chat}] * 3)))
    assert findings(source, out, path) == []
    monkeypatch.setattr(ladder, "open_edited", None)
    bad = put(tmp_path, "bad.jsonl", b'{"text": "x"}\n{"body": "y"}\n')
    with pytest.raises(UserError, match='bad.jsonl:2: no "text"'):
        verify_edit(source, out, texts=[bad])


# Extended folders (tests/edit/test_extend.py has the clean ones)


@pytest.fixture(scope="module")
def made_extended(checkpoint, tmp_path_factory) -> tuple[Path, Path]:
    """An untied source and the folder extended out of it, made once."""
    folder = tmp_path_factory.mktemp("extended")
    source = checkpoint(tied=False)
    (folder / "words.txt").write_text("hôm nay\nthanh điệu\n", encoding="utf-8")
    extend_vocab(source, folder / "out", words=folder / "words.txt")
    return source, folder / "out"


@pytest.fixture
def extended(made_extended, tmp_path) -> tuple[Path, Path]:
    """The same, of which the test may break the second."""
    source, out = made_extended
    return source, Path(shutil.copytree(out, tmp_path / "out"))


NEW = 424  # the id of " hôm nay"


def new_row(out: Path, values: np.ndarray) -> None:
    overwrite(out, "lm_head.weight", values.astype(np.float32).tobytes(), row=NEW)


def other_words(out: Path) -> None:
    edit_json(out / "vocab_edit.json", words=["hôm▁kia", "thanh▁điệu"])


def other_token(out: Path) -> None:
    data = read_json(out / "tokenizer.json")
    data["added_tokens"][-2]["content"] = " hôm qua"
    write_json(out / "tokenizer.json", data)


def not_normalized(out: Path) -> None:
    data = read_json(out / "tokenizer.json")
    data["added_tokens"][-2]["normalized"] = False
    write_json(out / "tokenizer.json", data)


def swallow_space(out: Path) -> None:
    """rstrip swallows the space after the word, which then does not come back."""
    data = read_json(out / "tokenizer.json")
    data["added_tokens"][-2]["rstrip"] = True
    write_json(out / "tokenizer.json", data)


@pytest.mark.parametrize(
    "damage, expected",
    [
        (lambda out: new_row(out, np.full(32, 1e6)), "lm_head.weight new row: 424 (' hôm nay') has the norm"),
        (lambda out: new_row(out, np.zeros(32)), "lm_head.weight new row: 424 (' hôm nay') has the norm 0"),
        (lambda out: new_row(out, np.full(32, np.nan)), "new row: 424 (' hôm nay') is not finite"),
        (lambda out: overwrite(out, "lm_head.weight", b"\1\2\3\4", row=7), "lm_head.weight row differs: 7"),
        (lambda out: overwrite(out, "lm_head.weight", b"\1", row=NEW + 2), "are not all zero"),
        (break_layer, "max |Δ logit|"),
        (other_words, "new token: ' hôm kia' has the ids"),
        (other_token, "new token: ' hôm nay' has the ids"),
        (not_normalized, f"expected {NEW}"),
        (swallow_space, "decodes differently"),
    ],
)
def test_each_rung_finds_the_damage_of_an_extended_folder(extended, damage, expected):
    source, out = extended
    damage(out)
    assert any(expected in finding for finding in findings(source, out)), findings(source, out)


def test_zeros_must_be_zeros(extended):
    source, out = extended
    edit_json(out / "vocab_edit.json", init={"name": "zeros"})
    assert any("expected 0 to 0" in finding for finding in findings(source, out))


def test_new_tokens_that_nobody_names(extended):
    source, out = extended
    edit_json(out / "vocab_edit.json", words=["hôm▁nay"])
    with pytest.raises(UserError, match="names 1 words and 0 syllables, but 2 tokens are new"):
        verify_edit(source, out)


def test_text_with_new_tokens_only_has_a_cost_but_no_logits(extended, tmp_path):
    source, out = extended
    (tmp_path / "new.txt").write_text("Xin chào, hôm nay\n", encoding="utf-8")
    found = findings(source, out, tmp_path / "new.txt")
    assert found == [next(f for f in found if "no text is covered" in f)]
    cost = read_json(out / "verify_report.json")["checks"][-1]["numbers"]
    assert cost["bits_per_byte"] > 0 and cost["covered_bits_per_byte"] is None
    assert cost["tokens_per_char"] < cost["tokens_per_char_base"] < 1
