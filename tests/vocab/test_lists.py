"""Lists of kept tokens: written, read back in every form, refused where they fit no tokenizer."""

import json
from pathlib import Path

import pytest

from vocabkit.errors import UserError
from vocabkit.tokenizer.tokenizer_json import BYTE_LEVEL_BPE, TokenizerJson
from vocabkit.vocab.lists import find_bundled, read_keep, write_lists
from vocabkit.vocab.rules import Decision, decide


@pytest.fixture
def tokens() -> dict[int, bytes]:
    words = [" the", "việc", "🙂", "字", "();", "\u2028", "0"]
    pieces = [b"\xe4", b" t\xe1\xbb", b"\xe4\xb8"]
    return dict(enumerate([*map(str.encode, words), *pieces, b"<|end|>"]))


def one(fingerprint: str) -> TokenizerJson:
    """A tokenizer of this fingerprint alone."""

    class One(TokenizerJson):
        def fingerprint(self) -> str:
            return fingerprint

        def has_fingerprint(self, wanted: str) -> bool:
            return wanted == fingerprint

    return One(Path("tokenizer.json"), {}, BYTE_LEVEL_BPE, {}, {}, [])


def choose(tokens: dict[int, bytes]) -> list[Decision]:
    counts = {0: 50, 1: 90, 2: 0, 3: 5, 4: 100, 5: 2000, 6: 90, 8: 3000, 9: 7}
    return decide(tokens, counts, added={i for i, data in tokens.items() if data == b"<|end|>"})


def test_lists_are_read_back_as_they_were_decided(tmp_path: Path, tokens: dict[int, bytes]) -> None:
    decisions = choose(tokens)
    (tmp_path / "a").mkdir()
    summary = write_lists(tmp_path / "a", decisions, made_from={"fingerprint": "f" * 64})
    kept, _ = read_keep([tmp_path / "a"], token_bytes=tokens, tokenizer=one("f" * 64))
    assert kept == {d.id for d in decisions if d.keep} - {10} == {0, 1, 2, 4, 5, 6, 7, 8}
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
        (tmp_path / name).mkdir()
        write_lists(tmp_path / name, some, made_from={})
    one, other = ([p.read_bytes() for p in sorted((tmp_path / name).iterdir())] for name in "ab")
    assert one == other
    first, second = (read_keep([tmp_path / name], token_bytes=tokens) for name in "ab")
    assert first == second


def test_a_person_may_move_lines(tmp_path: Path, tokens: dict[int, bytes]) -> None:
    (tmp_path / "a").mkdir()
    write_lists(tmp_path / "a", choose(tokens), made_from={})
    before, sha256_before = read_keep([tmp_path / "a"], token_bytes=tokens)
    removed = tmp_path / "a" / "tokens_removed__others.jsonl"
    with (tmp_path / "a" / "tokens_kept__english.jsonl").open("a", encoding="utf-8") as file:
        file.write("\n" + removed.read_text(encoding="utf-8"))
    after, sha256_after = read_keep([tmp_path / "a"], token_bytes=tokens)
    assert after - before == {3, 9}
    assert sha256_after != sha256_before


def test_every_kind_of_list(tmp_path: Path, tokens: dict[int, bytes]) -> None:
    files = {
        "spaces.jsonl": '[  " the"       , 0, 50]\n\n["việc", 1, 3]\r\n["việc", 1, 3]\n["\u2028", 5, 0]\n',
        "lossy.jsonl": '["\ufffd", 7, 1]\n[" t\ufffd", 8, 1]\n',
        "ids.txt": "# mine\n3\n\n 4 # why\n",
        "ids.json": "[2, 6]",
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    kept, _ = read_keep([tmp_path / name for name in files], token_bytes=tokens)
    assert kept == {0, 1, 5, 7, 8, 3, 4, 2, 6}


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


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("k.txt", "\ufeff0 # one\r\n\r\n# all\r 1\t\r\n"),
        ("k.json", "\ufeff[0, 1]\r\n"),
        ("k.jsonl", '\ufeff# all\r\n["A", 0, 1]\r\n["B", 1, 1]'),
    ],
)
def test_lists_as_editors_write_them(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_bytes(content.encode())
    assert read_keep([tmp_path / name], token_bytes={0: b"A", 1: b"B"})[0] == {0, 1}


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
    (tmp_path / "a").mkdir()
    write_lists(tmp_path / "a", choose(tokens), made_from={"fingerprint": "a" * 64})
    with pytest.raises(
        UserError, match="summary.json: made for the tokenizer aaaaaaaaaaaa…, this one is bbbb"
    ):
        read_keep([tmp_path / "a"], token_bytes=tokens, tokenizer=one("b" * 64))


def test_find_bundled_looks_at_fingerprints_only(tmp_path: Path, tokens: dict[int, bytes]) -> None:
    (tmp_path / "mine").mkdir()
    write_lists(tmp_path / "mine", choose(tokens), made_from={"fingerprint": "a" * 64})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "summary.json").write_text('{"fingerprint": "b"}', encoding="utf-8")
    assert find_bundled(one("a" * 64), tmp_path) == tmp_path / "mine"
    assert find_bundled(one("b"), tmp_path) is None
