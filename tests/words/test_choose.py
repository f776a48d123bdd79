"""vocabkit/words/choose.py: words and syllables together, by hand, equal to a search without shortcuts,
and what is promised is what the real tokenizers save.
"""

import contextlib
import functools
import json
import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from choosing import hand_made, savings_of, splits_of, splitter, words_of
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import Folder
from tokenizers import Tokenizer, models

import build_vi_words
from vocabkit.corpus import counting, files
from vocabkit.corpus.lines import HELD_OUT, held_out
from vocabkit.errors import UserError
from vocabkit.text.unicode import nfc
from vocabkit.tokenizer.encoder import QWEN2, extended, load_encoder
from vocabkit.tokenizer.tokenizer_json import read_tokenizer_json
from vocabkit.vocab.word_list import new_token
from vocabkit.words.choose import Choice, Wanted, choose, chosen_rows
from vocabkit.words.count import WordCounter, without_marks, word_rows
from vocabkit.words.curve import count_tokens
from vocabkit.words.merges import SplitCounter, Splits, split_pattern
from vocabkit.words.stretches import Savings, candidates


def shown(picked: list, savings: Savings, splits: Splits) -> list[tuple[str, int]]:
    return [
        (savings.contents[item] if isinstance(item, int) else splits.bytes[item.token].decode(), saved)
        for item, saved in picked
    ]


def test_a_word_and_its_syllable_share_text():
    """ " gian" is two tokens. Seven times in " hội gian", three times alone: the word saves 2 × 7, and then
    the merge 3; after the merge (10) the word would save 7.
    """
    text = " hội gian." * 7 + " gian," * 3
    tokens = (" hội", " g", "ian")
    for words, syllables, expected in (
        (1, 1, [(" hội gian", 14), (" gian", 3)]),
        (1, 0, [(" hội gian", 14)]),
        (0, 1, [(" gian", 10)]),
    ):
        splits = splits_of(text, *tokens)
        savings = savings_of([" hội gian"], [text], splits._encoder)
        choice = Choice(savings, splits, usable=lambda word: True)
        assert shown(choose(choice, Wanted(words, syllables)), savings, splits) == expected
    text += " gian," * 5  # now the merge saves more, 15, and is first
    splits = splits_of(text, *tokens)
    savings = savings_of([" hội gian"], [text], splits._encoder)
    picked = choose(Choice(savings, splits, usable=lambda word: True), Wanted(1, 1))
    assert shown(picked, savings, splits) == [(" gian", 15), (" hội gian", 7)]
    assert picked[0][0].freq == 15 and picked[0][0].replaces == list(picked[0][0].pair)


@settings(max_examples=min(25, settings().max_examples))
@given(seed=st.integers(0, 10**6))
def test_every_pick_saves_most(seed):
    """After each pick the whole text is encoded again with every candidate; none saves more than the pick."""
    draw = random.Random(seed)
    syllables = ["gian", "gia", "gianh", "hội", "thuyền", "thuy", "nghe"]
    contents = [" hội gian", " gia hội gian", " thuyền gia"]
    text = "".join(
        draw.choice([" ", " ", ", "]) + draw.choice(syllables) + draw.choice(["", "", "x"]) for _ in range(60)
    )
    tokenizer, encoder = hand_made(" g", "ian", " th", "uy", "ền", " h", "ội", "ngh")
    splits = Splits(words_of(text), tokenizer, encoder, QWEN2)
    savings = savings_of(contents, [text], encoder)
    choice = Choice(savings, splits, usable=lambda word: True)
    words: list[str] = []
    pairs_made: list[tuple[str, str]] = []

    def tokens(more_words=(), more_pairs=()) -> int:
        vocab, merges = dict(tokenizer.vocab), [*tokenizer.merges, *pairs_made, *more_pairs]
        for left, right in merges:
            vocab.setdefault(left + right, len(vocab))
        made = Tokenizer(models.BPE(vocab, merges))
        made.pre_tokenizer = splitter()
        made.add_tokens([*words, *more_words])
        return len(made.encode(text).ids)

    for _ in range(8):
        now = tokens()
        best = max(
            [now - tokens([word]) for word in contents if choice._compatible.fits(word) and word not in words]
            + [
                now - tokens((), [(splits.names[a], splits.names[b])])
                for a, b in sorted(splits._allowed)
                if splits.names[a] + splits.names[b] not in splits._known
            ],
            default=0,
        )
        ((item, saved),) = choose(choice, Wanted(1, 1, 1)) or [(None, 0)]
        assert saved == max(best, 0)
        if item is None:
            return
        if isinstance(item, int):
            words.append(contents[item])
        else:
            pairs_made.append(tuple(splits.names[part] for part in item.pair))
        assert now - tokens() == saved


@pytest.fixture(scope="module")
def lines(assets) -> list[str]:
    found = []
    for path in sorted((assets / "corpora" / "vi").iterdir()):
        found += [nfc(line) for line in path.read_text(encoding="utf-8").split("\n") if line][:700]
    return found


@functools.cache
def chosen_for(folder: Path, lines: tuple[str, ...], words: int, syllables: int) -> list[dict]:

    tokenizer, encoder = read_tokenizer_json(folder), load_encoder(folder)
    counter = WordCounter()
    counter.add(lines)
    rows = word_rows(without_marks(counter.take(), phrases=False), tokenizer, encoder, min_freq=4)
    contents = candidates(rows, tokenizer)
    pattern = split_pattern(tokenizer, encoder)
    whole = SplitCounter(pattern)
    whole.add(lines)
    splits = Splits(whole.take(), tokenizer, encoder, pattern)
    savings = savings_of(contents, list(lines), encoder)
    return chosen_rows(rows, savings, splits, wanted=Wanted(words, syllables))[0]


def prediction(folder: Folder, lines: list[str], words: int, syllables: int) -> tuple[int, int]:
    """Choose; return what is promised and what the tokenizers library saves."""
    training = [line for line in lines if not held_out(line, one_in=HELD_OUT)]
    rows = chosen_for(folder.path, tuple(training), words, syllables)
    found = [new_token(row) for row in rows]
    merges = [item for item in found if not isinstance(item, str)]
    assert (len(found) - len(merges), len(merges)) == (words, syllables)
    encoder = extended(folder.tokenizer, [item for item in found if isinstance(item, str)], merges)
    counts = Counter(training)
    return sum(row["saved"] for row in rows), count_tokens(folder.encoder, counts) - count_tokens(
        encoder, counts
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen2.5-instruct", "llama-3.2-instruct"])
def test_the_promise_is_kept_to_the_token(real, lines, name):
    promised, saved = prediction(real(name), lines, 150, 150)
    assert promised == saved > 5000


@pytest.mark.slow
def test_the_promise_for_whole_text_tokenizers_is_kept_nearly(real, lines):
    promised, saved = prediction(real("gemma-2-it"), lines, 100, 60)
    assert abs(promised - saved) < 0.003 * saved


def write_corpus(folder: Path) -> Path:
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.txt").write_text(
            "\n".join(
                f"{name} {n}: học sinh chọn công nghệ thông tin, trung tâm giao cho thuyền trưởng Trung gian."
                for n in range(200)
            ),
            encoding="utf-8",
        )
    return folder


@pytest.mark.slow
def test_words_and_syllables_on_the_command_line(tiny, tmp_path, capsys):
    corpus = write_corpus(tmp_path / "corpus")
    argv = ["-m", str(tiny("qwen").path), str(corpus), "--choose", "4", "--workers", "1", "-o"]
    plot = tmp_path / "curve.png"
    assert build_vi_words.main([*argv, str(tmp_path / "a"), "--syllables", "6", "--plot", str(plot)]) == 0
    rows = [json.loads(line) for line in (tmp_path / "a").read_text(encoding="utf-8").splitlines()]
    syllables = [row for row in rows if "syllable" in row]
    assert len(rows) == 10 and len(syllables) == 6
    assert list(syllables[0]) == ["syllable", "merge", "qwen_tokens", "freq", "saved"]
    assert "".join(syllables[0]["qwen_tokens"]) == syllables[0]["syllable"]
    assert [row["saved"] for row in rows] == sorted((row["saved"] for row in rows), reverse=True)
    printed = capsys.readouterr().out
    assert "a: 4 of" in printed and "6 syllables" in printed and "    10          6" in printed
    assert plot.read_bytes()[:4] == b"\x89PNG"
    assert build_vi_words.main([*argv, str(tmp_path / "b"), "--syllables", "auto"]) == 0
    first = (tmp_path / "b").read_text(encoding="utf-8").splitlines()
    assert len(first) == 4 and [json.loads(line) for line in first] == rows[:4]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "corpus", "curve.png"]


def test_unigram_has_no_merges_to_continue(tiny, tmp_path):
    argv = ["-m", str(tiny("t5").path), str(write_corpus(tmp_path / "corpus")), "--choose", "4"]
    with pytest.raises(UserError, match="is Unigram, which has no merges to continue; choose words only"):
        build_vi_words.main([*argv, "--syllables", "2", "-o", str(tmp_path / "out")])
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


@contextlib.contextmanager
def saved_often() -> Iterator[None]:
    """Count blocks of a file one by one, save after each few, and take long for that: time for a kill."""
    save, count = counting.save_progress, counting.count

    def slowly(*args: Any) -> None:
        save(*args)
        time.sleep(0.1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "DOCUMENT_BYTES", 4000)
        patch.setattr(counting, "save_progress", slowly)
        patch.setattr(counting, "count", functools.partial(count, save_every=12_000))
        yield


def run_apart(argv: list[str]) -> None:
    """What a fork of this process does: a run that can be killed together with its own workers."""
    os.setsid()
    with saved_often():
        build_vi_words.main(argv)


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_list(tiny, tmp_path, capsys):
    """SIGKILL while each of the three countings is under way; the same command ends with the same bytes."""
    corpus, out, whole = write_corpus(tmp_path / "corpus"), tmp_path / "list", tmp_path / "whole"
    options = ["-m", str(tiny("qwen").path), str(corpus), "--choose", "4", "--syllables", "6"]
    argv = [*options, "--workers", "1", "-o"]
    for step in ("words", "stretches", "splits"):
        process = multiprocessing.get_context("fork").Process(target=run_apart, args=([*argv, str(out)],))
        process.start()
        progress = tmp_path / "list.part" / f"{step}.progress.json"
        deadline = time.monotonic() + 120
        while not progress.exists() and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
        positions = json.loads(progress.read_text(encoding="utf-8"))["progress"]["positions"]
        assert any(positions) and positions != [None] * 3, "killed too late to prove anything"
        assert not out.exists()
    capsys.readouterr()
    with saved_often():
        assert build_vi_words.main([*argv, str(out)]) == 0
    assert capsys.readouterr().err.count("going on from") == 3
    assert build_vi_words.main([*argv, str(whole)]) == 0
    assert out.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.slow
def test_choose_on_the_command_line(tiny, tmp_path, capsys):
    lines = [f"{n} học sinh chọn công nghệ thông tin và tất cả các học sinh đi chơi." for n in range(120)]
    (tmp_path / "a.txt").write_text("\n".join(lines), encoding="utf-8")
    out, plot = tmp_path / "chosen.jsonl", tmp_path / "curve.png"
    argv = ["-m", str(tiny("qwen").path), str(tmp_path / "a.txt"), "--choose", "3", "--workers", "1", "-o"]
    assert build_vi_words.main([*argv, str(out), "--phrases", "--plot", str(plot)]) == 0
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 3 and list(rows[0])[-1] == "saved" and rows[0]["saved"] >= rows[1]["saved"]
    printed = capsys.readouterr().out
    assert "chosen.jsonl: 3 of" in printed and "plain" in printed and plot.read_bytes()[:4] == b"\x89PNG"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "chosen.jsonl", "curve.png"]
    (tmp_path / "b.txt").write_text("Một học sinh khác\n", encoding="utf-8")
    other = tmp_path / "other.jsonl"
    assert build_vi_words.main([*argv, str(other), "--held_out", str(tmp_path / "b.txt")]) == 0
    assert json.loads(other.read_text(encoding="utf-8").splitlines()[0])["freq"] == 240
