"""Choosing words and syllables together: worked by hand, equal to a search without shortcuts, and what is
promised is what the real tokenizers save.
"""

import functools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import ROOT, Folder
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

import build_vi_words
from vocabkit.corpus.lines import HELD_OUT, held_out
from vocabkit.errors import UserError
from vocabkit.text.unicode import nfc
from vocabkit.tokenizer import bpe
from vocabkit.tokenizer.encoder import QWEN2, extended
from vocabkit.tokenizer.tokenizer_json import BYTE_LEVEL_BPE, TokenizerJson
from vocabkit.vocab.word_list import new_token
from vocabkit.words.choose import Choice, choose, chosen_rows
from vocabkit.words.count import WordCounter, without_marks, word_rows
from vocabkit.words.curve import count_tokens
from vocabkit.words.merges import SplitCounter, Splits, merged, pairs, split_pattern
from vocabkit.words.stretches import Savings, StretchCounter, candidates


def splitter() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def hand_made(*tokens: str) -> tuple[TokenizerJson, Tokenizer]:
    """A byte-level tokenizer of single bytes and these tokens, each merged from the left."""
    stored = [bpe.byte_level_token(token.encode()) for token in tokens]
    merges = list(dict.fromkeys((token[:at], token[at]) for token in stored for at in range(1, len(token))))
    vocab = {token: at for at, token in enumerate([*bpe.CHAR_TO_BYTE, *map("".join, merges)])}
    encoder = Tokenizer(models.BPE(vocab, merges))
    encoder.pre_tokenizer = splitter()
    data = json.loads(encoder.to_str())
    return TokenizerJson(Path("tokenizer.json"), data, BYTE_LEVEL_BPE, vocab, {}, merges), encoder


def splits_of(text: str, *tokens: str) -> Splits:
    tokenizer, encoder = hand_made(*tokens)
    return Splits(words_of(text), tokenizer, encoder, QWEN2)


def words_of(text: str) -> Counter[str]:
    counter = SplitCounter(QWEN2)
    counter.add([text])
    return counter.take()


def savings_of(contents: list[str], texts: list[str], encoder) -> Savings:
    counter = StretchCounter(contents)
    counter.add(texts)
    return Savings(contents, counter.take(), encoder)


def shown(picked: list, savings: Savings, splits: Splits) -> list[tuple[str, int]]:
    return [
        (savings.contents[item] if isinstance(item, int) else splits.bytes[item.token].decode(), saved)
        for item, saved in picked
    ]


# By hand


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
        assert shown(choose(choice, words=words, syllables=syllables), savings, splits) == expected
    text += " gian," * 5  # now the merge saves more, 15, and is first
    splits = splits_of(text, *tokens)
    savings = savings_of([" hội gian"], [text], splits._encoder)
    picked = choose(Choice(savings, splits, usable=lambda word: True), words=1, syllables=1)
    assert shown(picked, savings, splits) == [(" gian", 15), (" hội gian", 7)]
    assert picked[0][0].freq == 15 and picked[0][0].replaces == list(picked[0][0].pair)


def test_merges_follow_each_other_and_count_in_every_language():
    splits = splits_of(" thuyết" * 4 + " thuyền" * 3 + " thuyx" * 2, " th", "uy", "ết", "ền")
    taken = []
    while best := splits.best():
        made, changed = splits.merge(best[1])
        assert sum(splits.counts[number] * fewer for number, fewer in changed.items()) == best[0]
        taken.append((splits.bytes[made.token].decode(), best[0]))
    assert taken == [(" thuy", 9), (" thuyết", 4), (" thuyền", 3)]
    assert made.replaces == [splits._encoder.token_to_id(t) for t in ("Ġth", "uy", "á»ģn")]


def test_what_is_no_part_of_a_syllable_is_no_candidate():
    assert splits_of(" strx" * 9 + "(gian" * 2, " s", "tr", "(g", "ian").best() is None
    assert splits_of("(gian" * 2, "g", "ian").best()[0] == 2, '"g" and "ian" after the bracket'
    splits = splits_of(" gian" * 2, " g", "ian")
    splits.merge(splits.best()[1])
    assert splits.best() is None
    assert splits_of(" g ian", " g", "ian").best() is None, "no merge across words"


def test_a_token_that_no_merge_makes_is_not_made_again():
    """Llama-3 has tokens like " việc" that stand whole in the vocabulary only."""
    tokenizer, encoder = hand_made(" g", "ian")
    tokenizer.vocab["Ġgian"] = 9999
    assert Splits({" gian": 5}, tokenizer, encoder, QWEN2).best() is None


def test_full_counters_forget_what_came_once():
    counter = SplitCounter(QWEN2, max_words=2)
    counter.add(["gian gian 12 , hàng"])
    counter.add(["một hai hai", "hai"])
    assert counter.take() == {" hai": 2} and counter.take() == {}


# Equal to a search without shortcuts


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
        ((item, saved),) = choose(choice, words=1, syllables=1, total=1) or [(None, 0)]
        assert saved == max(best, 0)
        if item is None:
            return
        if isinstance(item, int):
            words.append(contents[item])
        else:
            pairs_made.append(tuple(splits.names[part] for part in item.pair))
        assert now - tokens() == saved


@given(st.lists(st.sampled_from("aab"), max_size=12))
def test_places_of_pairs(tokens):
    for pair, places in pairs(tokens).items():
        assert len(tokens) - len(merged(tokens, pair, "x")) == places


# Promises on real text


@pytest.fixture(scope="module")
def lines(assets) -> list[str]:
    found = []
    for path in sorted((assets / "corpora" / "vi").iterdir()):
        found += [nfc(line) for line in path.read_text(encoding="utf-8").split("\n") if line][:700]
    return found


@functools.cache
def chosen_for(folder: Path, lines: tuple[str, ...], words: int, syllables: int) -> list[dict]:
    from vocabkit.tokenizer.encoder import load_encoder
    from vocabkit.tokenizer.tokenizer_json import read_tokenizer_json

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
    return chosen_rows(rows, savings, splits, words=words, syllables=syllables)[0]


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


@pytest.mark.assets
@pytest.mark.parametrize("name", ["qwen2.5-instruct", "llama-3.2-instruct"])
def test_the_promise_is_kept_to_the_token(real, lines, name):
    promised, saved = prediction(real(name), lines, 150, 150)
    assert promised == saved > 5000


@pytest.mark.assets
def test_the_promise_for_whole_text_tokenizers_is_kept_nearly(real, lines):
    promised, saved = prediction(real("gemma-2-it"), lines, 100, 60)
    assert abs(promised - saved) < 0.003 * saved


# The command


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


RUN = """
import functools, sys, time
import build_vi_words
from vocabkit.corpus import counting, files

if __name__ == "__main__":
    files.DOCUMENT_BYTES = 4000  # several blocks a file, saved again and again
    save = counting.save_progress
    def slowly(*args):
        save(*args)
        time.sleep(0.1)
    counting.save_progress = slowly
    counting.count = functools.partial(counting.count, save_every=12_000)
    sys.exit(build_vi_words.main(sys.argv[1:]))
"""


def test_a_killed_run_goes_on_to_the_same_list(tiny, tmp_path):
    """SIGKILL while each of the three countings is under way; the same command ends with the same bytes."""
    corpus, out, whole = write_corpus(tmp_path / "corpus"), tmp_path / "list", tmp_path / "whole"
    (tmp_path / "run.py").write_text(RUN, encoding="utf-8")
    options = [
        "-m",
        str(tiny("qwen").path),
        str(corpus),
        "--choose",
        "4",
        "--syllables",
        "6",
        "--workers",
        "1",
    ]
    command = [sys.executable, str(tmp_path / "run.py"), *options, "-o", str(out)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for step in ("words", "stretches", "splits"):
        process = subprocess.Popen(
            command, env=environment, stderr=subprocess.DEVNULL, start_new_session=True
        )
        progress = tmp_path / f"list.{step}.progress.json"
        deadline = time.monotonic() + 120
        while not progress.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        positions = json.loads(progress.read_text(encoding="utf-8"))["progress"]["positions"]
        assert any(positions) and positions != [None] * 3, "killed too late to prove anything"
        assert not out.exists()
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert again.stderr.count("going on from") == 3
    assert build_vi_words.main([*options, "-o", str(whole)]) == 0
    assert out.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob("*.progress.json"))
