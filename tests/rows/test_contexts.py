"""vocabkit/rows/contexts.py: snippets with new words, both encodings of one text, the same whatever the
blocks.
"""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from vocabkit.corpus.files import find_sources
from vocabkit.corpus.lines import held_out
from vocabkit.corpus.records import text_of_row
from vocabkit.rows.contexts import TEST_ONE_IN, Context, align, byte_ends, counts_of, find_contexts
from vocabkit.tokenizer.encoder import extended

CONTENTS = [" hôm nay", " thanh điệu", " Tiếng Việt"]
BEGINNINGS = ("Mọi người nói rằng", "Thời gian trôi nhanh và", "We'll see what", "Chúng ta đi chơi,")
ENDS = ("rất đẹp, nhé (maybe rain)!", "giàu và nhỏ: ma, má, mà 13.", "cũng cần nhiều người 🙂 hợp sức.")
LINES = [
    f"{first} số {number}{content} {last}"
    for number in range(8)
    for content in CONTENTS
    for first in BEGINNINGS
    for last in ENDS
]


@pytest.fixture(params=["qwen", "llama3", "gemma"])
def encoders(request, tiny):
    folder = tiny(request.param)
    return folder.encoder, extended(folder.tokenizer, CONTENTS)


@pytest.fixture
def qwen(tiny):
    return tiny("qwen").encoder, extended(tiny("qwen").tokenizer, CONTENTS)


def is_test(line: str) -> bool:
    return held_out(line, one_in=TEST_ONE_IN)


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def find(encoders, *paths: Path, per_word: int = 5, **more) -> list[Context]:
    sources = find_sources([str(path) for path in paths])
    return find_contexts(sources, CONTENTS, *encoders, per_word=per_word, **more)


def test_both_encodings_have_read_the_same_text_at_every_aligned_place(encoders, tmp_path):
    old, new = encoders
    found = find(encoders, write(tmp_path / "a.txt", LINES), tokens=20)
    assert counts_of(found, 3) == [5, 5, 5]
    for context in found:
        assert context.new_ids[context.own_at] == new.token_to_id(CONTENTS[context.word])
        assert context.own_at in context.new_at
        assert old.decode(context.old_ids) == new.decode(context.new_ids) == context.text
        assert any(context.text in line for line in LINES)
        assert len(context.aligned) == len(context.new_ids)
        for at, old_at in enumerate(context.aligned):
            if old_at is not None:
                assert old.decode(context.old_ids[: old_at + 1]) == new.decode(context.new_ids[: at + 1])
        first, end = context.old_span(context.own_at)
        assert old.decode(context.old_ids[first:end]) == CONTENTS[context.word]
        assert context.aligned[-1] == len(context.old_ids) - 1


def test_tokens_that_share_a_character_end_inside_it():
    # 🙂 is F0 9F 99 82: the old tokens cut it behind the second byte, the new ones behind the third too
    old = SimpleNamespace(tokens=["ðŁ", "ĻĤ", "ab"], offsets=[(0, 1), (0, 1), (1, 3)])
    new = SimpleNamespace(tokens=["ðŁ", "Ļ", "Ĥ", "ab"], offsets=[(0, 1), (0, 1), (0, 1), (1, 3)])
    assert align("🙂ab", old, new) == (0, None, 1, 2)
    pieces = ["<0xF0>", "<0x9F>", "<0x99>", "<0x82>", "ab"]  # as SentencePiece names them
    assert byte_ends("🙂ab", pieces, [*[(0, 1)] * 4, (1, 3)]) == [1, 2, 3, 4, 6]
    context = Context(0, "🙂ab", (1, 2, 3), (4, 5, 6, 7), (None, None, 1, 2), (3,), 3)
    assert context.old_span(3) == (2, 3)
    with pytest.raises(ValueError, match="position 2 of '🙂ab' is not a cut"):
        context.old_span(2)


def test_snippets_are_about_as_long_as_asked_and_the_word_stands_anywhere(qwen, tmp_path):
    filler = " ".join(["người"] * 80)
    lines = [f"{filler} {number} hôm nay {number} {filler}" for number in range(60)]
    found = [c for c in find(qwen, write(tmp_path / "a.txt", lines), per_word=30, tokens=40) if c.word == 0]
    assert len(found) == 30
    assert all(36 <= len(context.new_ids) <= 48 for context in found)
    positions = {context.own_at for context in found}
    assert min(positions) >= 4 and max(positions) <= 32 and len(positions) > 8


def test_the_two_parts_share_no_line(qwen, tmp_path):
    path = write(tmp_path / "a.txt", LINES)
    parts = {part: find(qwen, path, per_word=999, part=part, tokens=99) for part in ("train", "test")}
    texts = {part: {context.text for context in found} for part, found in parts.items()}
    assert all(is_test(text) for text in texts["test"]) and not any(map(is_test, texts["train"]))
    assert len(texts["test"]) + len(texts["train"]) == len(LINES)
    assert 0.15 < len(texts["test"]) / len(LINES) < 0.35


def test_found_contexts_depend_on_the_seed_but_not_on_the_blocks(qwen, tmp_path):
    paths = [write(tmp_path / f"{name}.txt", LINES[at::2]) for at, name in enumerate("ab")]
    found = find(qwen, *paths, tokens=12)
    assert found == find(qwen, *paths, tokens=12, block_bytes=100)
    other = find(qwen, *paths, tokens=12, seed=1)
    assert [c.word for c in other] == [c.word for c in found] and other != found


def test_a_repeated_line_counts_once_and_a_word_at_the_end_does_not(qwen, tmp_path):
    lines = ["Chúng ta đi chơi, hôm nay trời đẹp quá!"] * 5 + ["Trời đẹp quá, chúng ta đi chơi hôm nay"] * 2
    found = find(qwen, write(tmp_path / "a.txt", lines), part="test" if is_test(lines[0]) else "train")
    assert counts_of(found, 3) == [1, 0, 0]


def test_reading_stops_when_every_word_has_enough(qwen, tmp_path):
    notes: list[str] = []
    rows = [json.dumps({"text": line}) for line in LINES * 4] + ["{broken"]
    path = write(tmp_path / "a.jsonl", rows)
    find(qwen, path, per_word=2, block_bytes=1000, notes=notes.append)
    assert notes == []
    find(qwen, path, per_word=9999, block_bytes=1000, notes=notes.append)
    assert (
        len(notes) == 1 and f"1 of {len(rows):,} records" in notes[0] and f"a.jsonl:{len(rows)}" in notes[0]
    )
    assert find(qwen, path, per_word=0) == []


def test_sentences_of_a_word_list_are_texts(qwen, tmp_path):
    rows = [
        {"word": "hôm▁nay", "en": ["today"], "examples": LINES[:40]},
        {"word": "a▁b", "examples": LINES[40:]},
    ]
    path = write(tmp_path / "words.jsonl", [json.dumps(row) for row in rows])
    assert find(qwen, path, per_word=99) == find(qwen, write(tmp_path / "a.txt", LINES), per_word=99)
    assert text_of_row(rows[0], "examples") == "\n".join(LINES[:40])


def test_ids_stand_in_for_contents_that_are_not_read_as_their_token(qwen, tmp_path):
    old, new = qwen
    path = write(tmp_path / "a.txt", LINES)
    ids = [new.token_to_id(content) for content in CONTENTS]
    sources = find_sources([str(path)])
    found = find_contexts(sources, ["?", "??", "???"], old, new, per_word=5, ids=ids, tokens=99)
    assert [c.new_ids for c in found] == [c.new_ids for c in find(qwen, path, tokens=99)]
    with pytest.raises(ValueError, match="one token"):
        find_contexts(sources, [" hai ba"], old, new, per_word=5)
    with pytest.raises(ValueError, match="part is 'dev'"):
        find(qwen, path, part="dev")
