"""vocabkit/vocab/rules.py: rules on small tokens, file formats, and the bundled list against the real
inputs.
"""

import json
import lzma
import os
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import ROOT

from vocabkit.errors import UserError
from vocabkit.text.unicode import DEFAULT_SCRIPTS, first_foreign, foreign_script
from vocabkit.tokenizer import bpe
from vocabkit.tokenizer.tokenizer_json import TokenizerJson, fingerprint, read_tokenizer_json
from vocabkit.vocab.lists import find_bundled, read_keep, write_lists
from vocabkit.vocab.rules import (
    ADDED,
    COUNTED_PIECE,
    EAST_ASIAN_FORM,
    EMOJI_PIECE,
    FOREIGN_PIECE,
    OWN_PREFIX,
    RARE,
    RARE_PIECE,
    SURE,
    Decision,
    decide,
)

ASSETS = Path(os.environ.get("VOCABKIT_ASSETS", ROOT.parent / "shared" / "assets"))
BUNDLED = ROOT / "data" / "qwen__1000__20000"


def decide_one(token: str | bytes, count: int | None, **options: object) -> Decision:
    data = token.encode() if isinstance(token, str) else token
    counts = None if count is None else {7: count}
    return decide([(7, data, False)], counts, **options)[0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("token", "count", "kept", "reason"),
    [
        (b"\xe4", 0, True, "single byte"),
        ("字", 10**9, False, "script Han"),
        ("ก", 10**9, False, "script Thai"),
        ("a я", 10**9, False, "script Cyrillic"),
        ("字".encode() + b"\xe4", 10**9, False, "script Han"),
        ("，", 10**9, False, EAST_ASIAN_FORM),
        ("Ａ", 10**9, False, EAST_ASIAN_FORM),
        (b"\xe4\xb8", 10**9, False, FOREIGN_PIECE),
        (b"a\xff", 10**9, False, FOREIGN_PIECE),
        (b"\xf0\x9f\x98", 0, True, EMOJI_PIECE),
        (b"\xe2\x88", 0, True, OWN_PREFIX),
        (b" t\xe1\xbb", 1000, True, COUNTED_PIECE),
        (b" t\xe1\xbb", 999, False, RARE_PIECE),
        (" für", 20000, True, SURE),
        (" für", 19999, False, RARE),
        ("nghễnh", 0, True, "Vietnamese syllable"),
        (" ngoeo", 0, True, "Vietnamese syllable"),
        ("🦒", 0, True, "emoji"),
        (" giraffe", 1, True, "English word in use"),
        (" giraffe", 0, False, RARE),
        (" café", 1, True, "English word in use"),
        ("();", 100, True, "ASCII"),
        ("();", 99, False, RARE),
        ("()", 0, True, "ASCII of 2 characters or less"),
        ("iểu", 1000, True, "piece of a Vietnamese syllable"),
        ("iểu", 999, False, RARE),
        ("“This", 1000, True, "symbols"),
        ("। ॥", 1000, False, RARE),
        ("ß", 1000, True, "single character"),
    ],
)
def test_rules(token: str | bytes, count: int, kept: bool, reason: str) -> None:
    decision = decide_one(token, count)
    assert (decision.keep, decision.reason) == (kept, reason)


def test_added_tokens_stay_whatever_they_say() -> None:
    decision = decide([(3, "<|字|>".encode(), True)], {})[0]
    assert decision.keep and decision.reason == ADDED


def test_thresholds_and_scripts_are_options() -> None:
    assert decide_one(" für", 5, sure_count=5).keep
    assert decide_one("();", 1, min_count=10).keep
    assert decide_one(b" t\xe1\xbb", 10, min_count=10).keep
    cyrillic = DEFAULT_SCRIPTS | {"Cyrillic"}
    assert decide_one("привет", 1000, scripts=cyrillic).keep
    assert not decide_one("привет", 999, scripts=cyrillic).keep
    assert decide_one("，", 20000, scripts=DEFAULT_SCRIPTS | {"Han"}).keep


def test_unknown_script_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match="'Klingon' is no Unicode script.*Cyrillic"):
        decide_one("a", 1, scripts=frozenset({"Latin", "Klingon"}))


@pytest.mark.parametrize(
    ("token", "kept"),
    [
        (" für", True),
        ("ABC", True),
        ("字", False),
        (b"\xe4\xb8", False),
        (b"\xe1\xba", True),
        (b"\xe4", True),
    ],
)
def test_without_counts_the_text_decides(token: str | bytes, kept: bool) -> None:
    assert decide_one(token, None).keep == kept


TOKENS = st.one_of(st.binary(min_size=1, max_size=5), st.text(min_size=1, max_size=4).map(str.encode))
NUMBERS = st.one_of(st.integers(0, 30000), st.sampled_from([0, 1, 99, 100, 999, 1000, 19999, 20000]))


@given(TOKENS, NUMBERS, NUMBERS)
def test_a_higher_count_never_removes(token: bytes, one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert decide_one(token, low).keep <= decide_one(token, high).keep <= decide_one(token, None).keep


@given(st.text(max_size=3), st.characters(exclude_categories=["Cs"]), NUMBERS)
def test_no_foreign_character_is_kept(before: str, char: str, count: int) -> None:
    if foreign_script(char):
        assert not decide_one(before + char, count).keep
        assert not decide_one(before + char, None).keep


# --- writing and reading


@pytest.fixture
def tokens() -> dict[int, bytes]:
    words = [" the", "việc", "🙂", "字", "();", "\u2028", "0"]
    pieces = [b"\xe4", b" t\xe1\xbb", b"\xe4\xb8"]
    return dict(enumerate([*map(str.encode, words), *pieces, b"<|end|>"]))


def choose(tokens: dict[int, bytes]) -> list[Decision]:
    counts = {0: 50, 1: 90, 2: 0, 3: 5, 4: 100, 5: 2000, 6: 90, 8: 3000, 9: 7}
    return decide(((i, data, data == b"<|end|>") for i, data in tokens.items()), counts)


def test_lists_are_read_back_as_they_were_decided(tmp_path: Path, tokens: dict[int, bytes]) -> None:
    decisions = choose(tokens)
    summary = write_lists(tmp_path / "a", decisions, made_from={"fingerprint": "f" * 64})
    kept = read_keep([tmp_path / "a"], token_bytes=tokens, expected_fingerprint="f" * 64)
    assert kept.ids == {d.id for d in decisions if d.keep} - {10} == {0, 1, 2, 4, 5, 6, 7, 8}
    assert (kept.fingerprint, kept.sources) == ("f" * 64, (str(tmp_path / "a"),))
    assert (summary["tokens_kept"], summary["tokens_removed"]) == (8, 2)
    assert summary["categories"]["others"] == {"kept": 3, "removed": 2}
    assert json.loads((tmp_path / "a" / "summary.json").read_text(encoding="utf-8")) == summary
    assert len(list((tmp_path / "a").iterdir())) == 17
    rows = [
        json.loads(line) for line in (tmp_path / "a" / "tokens_kept__others.jsonl").open(encoding="utf-8")
    ]
    assert rows == [[" t<0xE1><0xBB>", 8, 3000], ["\u2028", 5, 2000], ["<0xE4>", 7, 0]]


def test_lists_are_the_same_bytes_every_time(tmp_path: Path, tokens: dict[int, bytes]) -> None:
    for name, some in (("a", choose(tokens)), ("b", choose(tokens)[::-1])):
        write_lists(tmp_path / name, some, made_from={})
    one, other = ([p.read_bytes() for p in sorted((tmp_path / name).iterdir())] for name in "ab")
    assert one == other
    first, second = (read_keep([tmp_path / name], token_bytes=tokens) for name in "ab")
    assert first.sha256 == second.sha256


def test_a_person_may_move_lines(tmp_path: Path, tokens: dict[int, bytes]) -> None:
    write_lists(tmp_path / "a", choose(tokens), made_from={})
    before = read_keep([tmp_path / "a"], token_bytes=tokens)
    removed = tmp_path / "a" / "tokens_removed__others.jsonl"
    with (tmp_path / "a" / "tokens_kept__english.jsonl").open("a", encoding="utf-8") as file:
        file.write("\n" + removed.read_text(encoding="utf-8"))
    after = read_keep([tmp_path / "a"], token_bytes=tokens)
    assert after.ids - before.ids == {3, 9}
    assert after.sha256 != before.sha256


def test_a_folder_that_holds_something_is_refused(tmp_path: Path, tokens: dict[int, bytes]) -> None:
    (tmp_path / "x").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="is not empty"):
        write_lists(tmp_path, choose(tokens), made_from={})


def test_every_kind_of_list(tmp_path: Path, tokens: dict[int, bytes]) -> None:
    files = {
        "spaces.jsonl": '[  " the"       , 0, 50]\n\n["việc", 1, 3]\r\n["việc", 1, 3]\n["\u2028", 5, 0]\n',
        "lossy.jsonl": '["\ufffd", 7, 1]\n[" t\ufffd", 8, 1]\n',
        "ids.txt": "# mine\n3\n\n 4 # why\n",
        "ids.json": "[2, 6]",
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    kept = read_keep([tmp_path / name for name in files], token_bytes=tokens)
    assert kept.ids == {0, 1, 5, 7, 8, 3, 4, 2, 6}
    assert kept.fingerprint is None and len(kept.sources) == 4


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '[" the", 0, 1]\n[" the", 0\n', r"a\.jsonl:2 is not JSON"),
        ("a.jsonl", '{"id": 0}\n', r"a\.jsonl:1: .*is no row"),
        ("a.jsonl", '[" the", "0", 1]\n', r"a\.jsonl:1: .*is no row"),
        ("a.jsonl", '[" the", true, 1]\n', r"a\.jsonl:1: .*is no row"),
        ("a.jsonl", '[" the", 0]\n', r"a\.jsonl:1: .*is no row"),
        ("a.jsonl", '[" the", 11, 1]\n', r"a\.jsonl:1: no token has id 11, ids end at 10"),
        ("a.jsonl", '[" the", -1, 1]\n', r"a\.jsonl:1: no token has id -1"),
        ("a.jsonl", '["cat", 0, 1]\n', r"'cat' in the list and ' the' in the tokenizer.*build_vocab\.py"),
        ("a.jsonl", '["\ufffd", 0, 1]\n', "a kept list of another tokenizer"),
        ("a.txt", "0\nten\n", r"a\.txt:2: 'ten' is no token id"),
        ("a.txt", "-1\n", r"a\.txt:1: '-1' is no token id"),
        ("a.json", '{"0": 1}', "is no list of token ids"),
        ("a.json", "[true]", "is no list of token ids"),
        ("a.json", "[0", "is not JSON"),
        ("a.csv", "0", "has the ending '.csv'"),
        ("a.txt", "# nothing\n", "no id to keep"),
    ],
)
def test_broken_lists(
    tmp_path: Path, tokens: dict[int, bytes], name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_keep([tmp_path / name], token_bytes=tokens)


def test_paths_that_are_no_lists(tmp_path: Path, tokens: dict[int, bytes]) -> None:
    (tmp_path / "latin1.txt").write_bytes(b"# \xe9\n0\n")
    (tmp_path / "empty").mkdir()
    for path, message in (
        ("latin1.txt", "not UTF-8"),
        ("empty", "holds no tokens_kept__"),
        ("no", "missing"),
    ):
        with pytest.raises(UserError, match=message):
            read_keep([tmp_path / path], token_bytes=tokens)
    with pytest.raises(UserError, match="no path: no id to keep"):
        read_keep([], token_bytes=tokens)


def test_a_list_for_another_tokenizer_is_refused(tmp_path: Path, tokens: dict[int, bytes]) -> None:
    write_lists(tmp_path / "a", choose(tokens), made_from={"fingerprint": "a" * 64})
    with pytest.raises(
        UserError, match="summary.json: made for the tokenizer aaaaaaaaaaaa…, this one is bbbb"
    ):
        read_keep([tmp_path / "a"], token_bytes=tokens, expected_fingerprint="b" * 64)


def test_fingerprint_tells_ids_and_merges_apart() -> None:
    vocab, merges = {"a": 0, "b": 1, "ab": 2, "ba": 3}, ["a b", "b a"]
    same = fingerprint(dict(reversed(vocab.items())), [["a", "b"], ("b", "a")])
    assert fingerprint(vocab, merges) == same
    for other in (
        fingerprint(vocab, merges[::-1]),
        fingerprint(vocab, merges[:1]),
        fingerprint({**vocab, "ba": 4}, merges),
        fingerprint({**vocab, "c": 4}, merges),
    ):
        assert other != same


def test_find_bundled_looks_at_fingerprints_only(tmp_path: Path, tokens: dict[int, bytes]) -> None:
    write_lists(tmp_path / "mine", choose(tokens), made_from={"fingerprint": "a" * 64})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "summary.json").write_text('{"fingerprint": "b"}', encoding="utf-8")
    assert find_bundled("a" * 64, tmp_path) == tmp_path / "mine"
    assert find_bundled("b", tmp_path) is None


# --- the bundled list of Qwen; vocab/test_bundled_lists.py tests what holds for every one


@cache
def real_tokenizer(name: str) -> TokenizerJson:
    folder = ASSETS / "tokenizers" / name
    if not folder.is_dir():
        pytest.skip(f"no real tokenizer: {folder} is missing")
    return read_tokenizer_json(folder)


@pytest.mark.assets
def test_bundled_list_is_what_the_rules_make(tmp_path: Path) -> None:
    tokenizer = real_tokenizer("qwen2.5-instruct")
    path = ASSETS / "token_counts" / "qwen2.5" / "counts.json.xz"
    with lzma.open(path, "rt", encoding="utf-8") as file:
        counts = {int(token_id): count for token_id, count in json.load(file).items()}
    added = set(tokenizer.added.values())
    rows = [(token_id, data, token_id in added) for token_id, data in tokenizer.token_bytes.items()]
    write_lists(tmp_path / "again", decide(rows, counts), made_from={})
    for file_made in sorted((tmp_path / "again").glob("*.jsonl")):
        assert file_made.read_bytes() == (BUNDLED / file_made.name).read_bytes(), file_made.name


@pytest.mark.assets
def test_bundled_list_closed_holds_the_words_of_real_english() -> None:
    tokenizer = real_tokenizer("qwen2.5-instruct")
    kept = read_keep([BUNDLED], token_bytes=tokenizer.token_bytes)
    names = [tokenizer.tokens[token_id] for token_id in kept.ids]
    closed = bpe.closure(names, bpe.rank_merges(tokenizer.merges).get)
    assert 85_000 <= len(closed) <= 101_000
    words: Counter[str] = Counter()
    for path in sorted((ASSETS / "corpora" / "en").iterdir()):
        words.update(re.findall(r" ?[A-Za-z]+", path.read_text(encoding="utf-8")))
    tokens = {word: bpe.byte_level_token(word.encode()) for word, count in words.items() if count >= 2}
    lost = {word for word, token in tokens.items() if token in tokenizer.vocab and token not in closed}
    assert len(tokens) > 10_000 and lost == set()


@pytest.mark.assets
def test_reference_lists_can_be_read_and_fit_no_other_tokenizer() -> None:
    folder = ASSETS / "reference_lists"
    tokenizer = real_tokenizer("qwen2.5-instruct")
    kept = read_keep([folder], token_bytes=tokenizer.token_bytes)
    assert len(kept.ids) == 100_959 and kept.fingerprint is None
    with pytest.raises(UserError, match="a kept list of another tokenizer"):
        read_keep([folder], token_bytes=real_tokenizer("llama-3.2-instruct").token_bytes)


@pytest.mark.assets
@pytest.mark.parametrize("name", ["llama-3.2-instruct", "t5-v1_1"])
def test_text_rules_alone_serve_other_tokenizers(name: str) -> None:
    tokenizer = real_tokenizer(name)
    added = set(tokenizer.added.values())
    always = tokenizer.byte_ids() | added
    some = {token_id for token_id in tokenizer.tokens if token_id % 5 == 0} | always
    rows = [(token_id, tokenizer.token_bytes[token_id], token_id in added) for token_id in sorted(some)]
    kept = {d.id for d in decide(rows, None) if d.keep}
    assert always <= kept and len(kept) > len(some) / 4
    for token_id in kept - added:
        assert not first_foreign(tokenizer.token_bytes[token_id].decode("utf-8", "ignore"))
