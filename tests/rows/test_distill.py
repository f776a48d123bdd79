"""vocabkit/models/word_model.py and rows/distill.py: only new rows move, towards what old tokens meant,
bit by bit.
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import build
import numpy as np
import pytest
import torch
from tiny import ROOT
from transformers import AutoModelForCausalLM

import model_edit
from vocabkit.checkpoint.folder import open_folder
from vocabkit.checkpoint.numbers import row_stats, rows_as_float32
from vocabkit.checkpoint.shards import read_checkpoint
from vocabkit.corpus.files import find_sources
from vocabkit.edit.extend import extend_vocab
from vocabkit.errors import UserError
from vocabkit.files import read_json
from vocabkit.models.word_model import WordModel
from vocabkit.rows import contexts, lessons
from vocabkit.rows.contexts import Context, choose_init, find_contexts
from vocabkit.rows.distill import Distilled, Start, distill
from vocabkit.rows.lessons import Settings, Teacher
from vocabkit.rows.make import Origin, make_rows
from vocabkit.tokenizer.encoder import extended as extended_encoder
from vocabkit.tokenizer.encoder import load_encoder
from vocabkit.tokenizer.tokenizer_json import read_tokenizer_json
from vocabkit.verify.ladder import verify_edit

WORDS = ["hôm▁nay", "thanh▁điệu", "Tiếng▁Việt", "hợp▁sức▁cần"]  # the last one stands in no text
CONTENTS = [" " + word.replace("▁", " ") for word in WORDS]
BEGINNINGS = ("Mọi người nói rằng", "Thời gian trôi nhanh và", "We'll see what", "Chúng ta đi chơi,")
ENDS = ("rất đẹp, nhé (maybe rain)!", "giàu và nhỏ: ma, má, mà 13.", "cũng cần nhiều người hợp sức.")
LINES = [
    f"{first} số {number}{content} {last}"
    for number in range(3)
    for content in CONTENTS[:3]
    for first in BEGINNINGS
    for last in ENDS
]
# family, tied: with a cap on the logits and scaled embeddings, a head with a bias, learned positions
FAMILIES = [("qwen2", True), ("llama", False), ("gemma2", True), ("phi", False), ("gpt2", True)]


def write_texts(folder: Path) -> tuple[Path, Path]:
    (folder / "words.txt").write_text("\n".join(WORDS), encoding="utf-8")
    (folder / "texts.txt").write_text("\n".join(LINES), encoding="utf-8")
    return folder / "words.txt", folder / "texts.txt"


def extended(source: Path, out: Path, *, seed: int = 0, init: str | None = "distill") -> Path:
    words, texts = write_texts(out.parent)
    given = [str(texts)] if init == "distill" else []
    extend_vocab(source, out, words=words, init=init, contexts=given, contexts_per_word=6, seed=seed)
    return out


def make(folder: Path, family: str, **how: Any) -> Path:
    more = {"n_positions": 320} if family == "gpt2" else {}
    return build.make_checkpoint(folder / family, family, **more, **how)


@pytest.fixture(
    scope="module", params=FAMILIES, ids=lambda case: f"{case[0]}-{'tied' if case[1] else 'untied'}"
)
def pair(request, tmp_path_factory) -> tuple[Path, Path]:
    """A folder and what it became by distilling."""
    family, tied = request.param
    folder = tmp_path_factory.mktemp(family)
    source = make(folder, family, tied=tied)
    return source, extended(source, folder / "out")


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("qwen2"), "qwen2", tied=True)


def new_tokens(out: Path) -> list[int]:
    return [new for new, old in enumerate(read_json(out / "vocab_edit.json")["new_to_old"]) if old is None]


def matrices(out: Path) -> dict[str, np.ndarray]:
    """The new rows of an edited folder."""
    tensors = read_checkpoint(out).tensors
    rows = read_json(out / "config.json")["vocab_size"]
    vocabulary = [t for t in tensors.values() if t.shape[0] == rows]
    return {t.name: rows_as_float32(t, new_tokens(out)) for t in vocabulary}


def contexts_of(source: Path, texts: Path, **more: Any) -> list[Context]:
    tokenizer = read_tokenizer_json(source)
    encoders = load_encoder(source), extended_encoder(tokenizer, CONTENTS)
    return find_contexts(find_sources([str(texts)]), CONTENTS, *encoders, per_word=6, **more)


# models/word_model.py


def test_the_model_says_what_the_two_folders_say(pair):
    source, out = pair
    rows = matrices(out)
    names = [name for name in rows if rows[name].shape[1] > 1]
    bias = next((values[:, 0] for values in rows.values() if values.shape[1] == 1), None)
    first = new_tokens(out)[0]
    model = WordModel(
        source,
        first_new=first,
        input_rows=rows[[n for n in names if "embed" in n or "wte" in n][0]],
        output_rows=rows["lm_head.weight"] if "lm_head.weight" in rows else None,
        bias=bias,
    )
    contexts = contexts_of(source, out.parent / "texts.txt")[:3]
    contexts[1] = replace(contexts[1], old_ids=contexts[1].old_ids[:5], new_ids=contexts[1].new_ids[:4])
    places = [[0, 3], [4], [2, 4, 3]]
    for folder, kind in ((source, "old_ids"), (out, "new_ids")):
        reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        sequences = [getattr(context, kind) for context in contexts]
        with torch.no_grad():
            states = model.read(sequences, places, words=kind == "new_ids")
            again = model.logits(states.hidden, words=kind == "new_ids")
            logits = [reference(torch.tensor([[model.start, *ids]])).logits[0] for ids in sequences]
        wanted = torch.cat([one[at] for one, at in zip(logits, places, strict=True)])
        torch.testing.assert_close(states.logits, wanted[:, : states.logits.shape[1]], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(again, states.logits, rtol=1e-5, atol=1e-5)
        assert states.logits.shape[1] == first + (4 if kind == "new_ids" else 0)


def test_a_copied_row_is_read_and_written_as_the_row_it_copies(qwen2, tmp_path):
    rows = rows_as_float32(read_checkpoint(qwen2).tensors["model.embed_tokens.weight"], [40, 41])
    tokens = len(read_tokenizer_json(qwen2).tokens)
    model = WordModel(qwen2, first_new=tokens, input_rows=rows)
    with torch.no_grad():
        old = model.read([[7, 40, 9, 41, 5]], [[2, 3, 5]], words=False)
        new = model.read([[7, tokens, 9, tokens + 1, 5]], [[2, 3, 5]])
    assert torch.equal(old.hidden, new.hidden)
    assert torch.equal(old.logits, new.logits[:, :tokens])
    torch.testing.assert_close(new.logits[:, tokens:], old.logits[:, 40:42])


def test_only_the_rows_have_gradients(qwen2):
    model = WordModel(qwen2, first_new=424, input_rows=np.ones((2, build.D), np.float32))
    model.read([[5, 425, 7]], [[3]]).logits.sum().backward()
    having = [p for p in model.model.parameters() if p.grad is not None]
    assert len(having) == 1 and having[0] is model.input_rows
    assert model.tied and model.rows == [model.input_rows]


def test_encoder_decoder_models_are_refused(tmp_path):
    with pytest.raises(UserError, match="encoder-decoder"):
        WordModel(make(tmp_path, "t5"), first_new=9, input_rows=np.ones((1, build.D), np.float32))


# rows/distill.py


def test_distilled_rows_lose_less_and_stay_within_the_old_norms(pair):
    source, out = pair
    facts = read_json(out / "vocab_edit.json")["init"]
    before, after = facts["loss_before"], facts["loss_after"]
    assert facts["name"] == "distill" and facts["contexts"] == [6, 6, 6, 0] and facts["without_contexts"] == 1
    assert facts["steps"] == 10 * 2  # epochs, for there are few contexts, × batches of 16
    assert before.keys() == after.keys() == {"input", "output", "mass"}
    total = {"input": 1, "output": facts["settings"]["output"], "mass": facts["settings"]["mass"]}
    assert sum(total[k] * after[k] for k in total) < 0.95 * sum(total[k] * before[k] for k in total)
    assert after["output"] < before["output"]
    assert "distilled" in (out / "README.md").read_text(encoding="utf-8")
    assert verify_edit(source, out)  # the ladder: old rows bit by bit, norms of the new ones in range
    assert not (out.parent / "out.distill.safetensors").exists()


def test_a_word_without_contexts_keeps_its_first_row(pair, tmp_path):
    source, out = pair
    plain = matrices(extended(source, tmp_path / "plain", init="weighted"))
    for name, rows in matrices(out).items():
        np.testing.assert_array_equal(rows[3], plain[name][3])
        if rows.shape[1] > 1:
            assert (np.abs(rows[:3] - plain[name][:3]).max(1) > 1e-3).all()
        else:
            np.testing.assert_array_equal(rows, plain[name])  # the head's bias has no part in it


def test_the_same_seed_gives_the_same_bytes(qwen2, tmp_path):
    (tmp_path / "b").mkdir()
    first, again = extended(qwen2, tmp_path / "a"), extended(qwen2, tmp_path / "b" / "a")
    assert (first / "model.safetensors").read_bytes() == (again / "model.safetensors").read_bytes()
    other = extended(qwen2, tmp_path / "c", seed=1)
    assert (first / "model.safetensors").read_bytes() != (other / "model.safetensors").read_bytes()


def test_a_killed_run_goes_on_to_the_same_bytes(qwen2, tmp_path):
    unbroken = extended(qwen2, tmp_path / "unbroken")
    out, state = tmp_path / "out", tmp_path / "out.distill.safetensors"
    code = (
        "import sys, time; sys.path[:0] = [sys.argv[4]]\n"
        "from pathlib import Path\n"
        "from vocabkit.rows import distill\n"
        "from vocabkit.edit.extend import extend_vocab\n"
        "distill.SAVE_EVERY, save = 0, distill.Trainer.save\n"
        "def slow(self, *args): save(self, *args); time.sleep(0.3)\n"
        "distill.Trainer.save = slow\n"
        "extend_vocab(Path(sys.argv[1]), Path(sys.argv[2]), words=Path(sys.argv[3]) / 'words.txt',\n"
        "    init='distill', contexts=[sys.argv[3] + '/texts.txt'], contexts_per_word=6)\n"
    )
    one = os.environ | {"OMP_NUM_THREADS": "1"}  # as build.py sets here: sums depend on it
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(qwen2), str(out), str(tmp_path), str(ROOT)], env=one
    )
    deadline = time.monotonic() + 120
    while not state.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert state.exists() and not out.exists()
    with pytest.raises(UserError, match=r"is the state of another run .*; remove it to start anew: rm "):
        extended(qwen2, out, seed=1)
    extended(qwen2, out)
    assert (out / "model.safetensors").read_bytes() == (unbroken / "model.safetensors").read_bytes()
    facts = [read_json(folder / "vocab_edit.json")["init"] for folder in (out, unbroken)]
    assert facts[0] == facts[1] and not state.exists()
    (tmp_path / "more.distill.safetensors").write_bytes(b"no state")
    with pytest.raises(UserError, match=r"more\.distill\.safetensors cannot be read"):
        extended(qwen2, tmp_path / "more")


def learn(source: Path, folder: Path, *, dtype: str | None = None, **settings: Any) -> Distilled:
    """Distil the rows of ids 20 to 23, in place of the words' own, without extending a folder."""
    tensors = read_checkpoint(source).tensors
    old = rows_as_float32(tensors["model.embed_tokens.weight"], range(300))
    stats = row_stats([old])
    start = Start(old[20:24], None, None, [(stats.smallest, stats.largest)], [float(old.std())])
    tokens = len(read_tokenizer_json(source).tokens)
    return distill(
        source,
        contexts_of(source, write_texts(folder)[1]),
        start,
        first_new=tokens,
        state_file=folder / "state",
        settings=Settings(**settings),
        dtype=dtype,
    )


@pytest.mark.parametrize("family", ["qwen2", "gemma2"])
@pytest.mark.parametrize("term", ["input", "output", "mass"])
def test_each_term_alone_can_be_learned(family, term, tmp_path, monkeypatch):
    losses = Teacher.losses

    def only(self, at):
        return {name: value * (name == term) for name, value in losses(self, at).items()}

    monkeypatch.setattr(Teacher, "losses", only)
    facts = learn(make(tmp_path, family), tmp_path, epochs=8, batch=4).facts
    assert facts["loss_after"][term] < 0.85 * facts["loss_before"][term] > 0
    assert facts["steps"] == 8 * 5


def test_the_teacher_reads_each_context_once_unless_memory_is_short(qwen2, tmp_path, monkeypatch):
    read, reads = WordModel.read, []

    def counted(self, sequences, places, *, words=True):
        reads.append(0 if words else len(sequences))
        return read(self, sequences, places, words=words)

    monkeypatch.setattr(WordModel, "read", counted)
    rows = learn(qwen2, tmp_path, epochs=2, batch=5).input
    assert sum(reads) == 18
    reads.clear()
    monkeypatch.setattr(lessons, "CACHE_BYTES", 0)
    again = learn(qwen2, tmp_path, epochs=2, batch=5).input
    assert sum(reads) == 18 * (1 + 2 + 1)  # before, in two epochs, after
    assert np.array_equal(rows, again)


def test_a_model_in_bfloat16_gets_rows_in_float32(tmp_path):
    done = learn(make(tmp_path, "qwen2"), tmp_path, epochs=8, dtype="bfloat16")
    rounded = torch.tensor(done.input).bfloat16().float().numpy()
    assert done.input.dtype == np.float32 and (done.input != rounded).any()
    assert done.facts["loss_after"]["input"] < done.facts["loss_before"]["input"]


def test_no_contexts_leave_the_rows_alone(qwen2, tmp_path):
    start = Start(np.ones((2, build.D), np.float32), None, None, [(0.0, 9.0)], [1.0])
    done = distill(qwen2, [], start, first_new=400, state_file=tmp_path / "state")
    assert done.input is start.input and done.facts == {"steps": 0}


# rows/make.py


def test_the_default_is_weighted_with_texts_or_without(qwen2, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(contexts, "BUNDLED_EXAMPLES", tmp_path / "none.jsonl")
    assert choose_init(None, []) == ("weighted", []) and capsys.readouterr().out == ""
    assert choose_init("mean", []) == ("mean", [])
    assert choose_init("distill", ["a"]) == ("distill", ["a"]) and capsys.readouterr().out == ""
    assert choose_init(None, ["a"]) == ("weighted", [])
    assert "--contexts are read by --init distill alone" in capsys.readouterr().out
    with pytest.raises(UserError, match="--init distill learns from texts: .* --contexts"):
        choose_init("distill", [])
    with pytest.raises(UserError, match="--init mean reads no texts"):
        choose_init("mean", ["a"])
    origin = Origin(open_folder(qwen2))
    with pytest.raises(UserError, match="distill learns from texts"):
        make_rows(origin, CONTENTS, init="distill")


def test_distilling_without_contexts_learns_from_the_bundled_sentences(qwen2, tmp_path, monkeypatch):
    words, _ = write_texts(tmp_path)
    bundled = tmp_path / "bundled.jsonl"
    rows = [{"word": word, "examples": LINES} for word in WORDS[:1]]
    bundled.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    monkeypatch.setattr(contexts, "BUNDLED_EXAMPLES", bundled)
    extend_vocab(qwen2, tmp_path / "out", words=words, init="distill")
    facts = read_json(tmp_path / "out" / "vocab_edit.json")["init"]
    assert facts["name"] == "distill" and facts["texts"][0]["name"] == "bundled.jsonl"
    bundled.write_text(json.dumps({"examples": ["Xin chào."]}), encoding="utf-8")
    with pytest.raises(UserError, match="bundled.jsonl: none of the 4 new tokens .* --init weighted"):
        extend_vocab(qwen2, tmp_path / "none", words=words, init="distill")
    assert not list(tmp_path.glob("none*"))


def test_bad_inputs_write_nothing(qwen2, tmp_path):
    words, texts = write_texts(tmp_path)
    (tmp_path / "other.txt").write_text("Xin chào, hôm nay\n", encoding="utf-8")
    argv = ["-t", "extend_vocab", "-m", str(qwen2), "-o", str(tmp_path / "out"), "--words", str(words)]
    argv += ["--init", "distill"]
    for more, message in (
        (["--contexts", str(tmp_path / "none.txt")], "none.txt is missing"),
        (["--contexts", str(texts), "--init", "mean"], "--init mean reads no texts"),
        (["--contexts", str(tmp_path / "other.txt")], "none of the 4 new tokens stands in"),
        (["--contexts", str(texts), "--contexts_per_word", "0"], "--contexts_per_word is 0"),
    ):
        with pytest.raises(UserError, match=message):
            model_edit.main([*argv, *more])
    assert not list(tmp_path.glob("out*"))
    assert model_edit.main([*argv, "--contexts", str(texts), "--contexts_per_word", "2"]) == 0
    assert read_json(tmp_path / "out" / "vocab_edit.json")["init"]["contexts"] == [2, 2, 2, 0]
