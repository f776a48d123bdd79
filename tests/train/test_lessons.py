"""--objective distill and both: the loss is that of rows/distill.py, nothing but new rows moves, kills are
survived.
"""

import json

import pytest
import torch
from extending import TEXTS, merges_for, write_list
from training import WORDS, argv_of, finetune, killed_run, refuse, stage, tensors

import finetune_qwen
from vocabkit.checkpoint.record import new_rows
from vocabkit.edit.extend import extend_vocab
from vocabkit.files import sha256_file
from vocabkit.models.load import load_model
from vocabkit.models.split_rows import split_rows
from vocabkit.tokenizer.encoder import load_encoder
from vocabkit.train.lessons import StageLessons, old_and_new_encoder


@pytest.fixture
def source(extended):
    return extended("gemma2", tied=True)


@pytest.fixture
def data(told):
    return told


def test_lessons_fall_and_come_in_an_order_of_their_number(source, data, capsys):
    rows, model = new_rows(source), load_model(source)
    parameter = split_rows(model, first=rows.first, stop=rows.stop)["embed"]
    parameter.data[:] = parameter.data.mean(0)  # all alike: there is something to learn
    lessons = StageLessons(model, source, rows, [str(data)], start=2, seed=1)
    assert len(lessons) > 1 and f" of {len(WORDS)} new tokens" in capsys.readouterr().out
    assert float(lessons.loss(3).detach()) == float(lessons.loss(3).detach())
    epoch = sorted(float(lessons.loss(n).detach()) for n in range(len(lessons)))
    again = sorted(float(lessons.loss(len(lessons) + n).detach()) for n in range(len(lessons)))
    assert epoch == pytest.approx(again), "an epoch leaves batches out"
    optimizer = torch.optim.Adam([parameter], lr=0.05)
    for n in range(3 * len(lessons)):
        optimizer.zero_grad()
        lessons.loss(n).backward()
        optimizer.step()
    assert sum(float(lessons.loss(n).detach()) for n in range(len(lessons))) < 0.9 * sum(epoch)


def test_the_old_tokenizer_is_the_one_before_the_words(source):
    rows = new_rows(source)
    contents, old, new = old_and_new_encoder(source, rows)
    assert contents[0] == " hôm nay"
    assert new.encode("và hôm nay", add_special_tokens=False).ids[-1] == rows.first
    assert max(old.encode("và hôm nay", add_special_tokens=False).ids) < rows.first


def test_syllables_are_taught_beside_words(checkpoint, tmp_path, told):
    base = checkpoint("qwen2")
    merges = merges_for(base, 6)
    out = tmp_path / "extended"
    extend_vocab(base, out, words=write_list(tmp_path / "list.jsonl", merges), init="mean")
    rows = new_rows(out)
    contents, old, new = old_and_new_encoder(out, rows)
    assert len(contents) == len(rows) == len(merges) + 4
    text = "".join(TEXTS[:1])
    plain = load_encoder(base).encode(text, add_special_tokens=False).ids
    assert old.encode(text, add_special_tokens=False).ids == plain
    joined = new.encode(text, add_special_tokens=False).ids
    syllables = range(rows.first, rows.first + len(merges))
    assert set(joined) & set(syllables) and len(joined) < len(plain)
    (tmp_path / "texts.txt").write_text("\n".join(text for n in range(9) for text in TEXTS), encoding="utf-8")
    model = load_model(out)
    split_rows(model, first=rows.first, stop=rows.stop)
    lessons = StageLessons(model, out, rows, [str(tmp_path / "texts.txt")], start=2, seed=0)
    lessons.loss(0).backward()
    moved = model.get_input_embeddings().rows.grad.abs().sum(1) > 0
    assert moved[: len(merges)].any(), "no syllable is taught"


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["distill", "both"])
def test_runs_move_new_rows_alone_and_survive_a_kill(source, data, tmp_path, objective):
    flags = ["--objective", objective, "--max_steps", "4", "--save_steps", "2"]
    flags += ["--gradient_accumulation_steps", "2"]
    whole = finetune(source, data, tmp_path / "whole", *flags)
    before, after, rows = tensors(source), tensors(whole), new_rows(source)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"model.embed_tokens.weight"}
    moved = (before["model.embed_tokens.weight"] != after["model.embed_tokens.weight"]).any(1)
    assert not moved[: rows.first].any() and not moved[rows.stop :].any() and moved.any()
    assert stage(whole)["objective"] == objective
    out = tmp_path / "killed"
    argv = argv_of(source, data, out, *flags)
    killed_run(argv, 4)
    assert finetune_qwen.main(argv) == 0
    assert sha256_file(whole / "model.safetensors") == sha256_file(out / "model.safetensors")


def test_both_ends_of_an_untied_model_are_taught(extended, data, tmp_path):
    source = extended("qwen2", tied=False)
    out = finetune(source, data, tmp_path / "out", "--objective", "both", "--max_steps", "4")
    before, after, rows = tensors(source), tensors(out), new_rows(source)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        moved = (before[name] != after[name]).any(1)
        assert moved[rows.first : rows.stop].all() and not moved[: rows.first].any()


def test_what_cannot_be_distilled(source, data, tmp_path):
    out = tmp_path / "out"
    flags = ["--objective", "distill"]
    refuse("it needs --train_rows new", source, data, out, *flags, "--train_rows", "all")
    refuse("it needs --train_rows new", source, data, out, *flags, "--finetune_layers", "0")
    none = tmp_path / "none.jsonl"
    lines = [json.dumps({"text": f"A text of no such word, the {n}th of some."}) for n in range(8)]
    none.write_text("\n".join(lines), encoding="utf-8")
    refuse("no new token stands in the part", source, none, out, *flags)
