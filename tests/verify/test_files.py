"""vocabkit/verify/files.py finds each damage to an edited folder's files."""

from pathlib import Path

import pytest
from verifying import break_eos

from vocabkit.files import read_json, write_json
from vocabkit.verify.edited import open_edited
from vocabkit.verify.files import check_files


def break_merges_txt(out: Path) -> None:
    lines = (out / "merges.txt").read_text(encoding="utf-8").splitlines()
    (out / "merges.txt").write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")


def break_vocab_json(out: Path) -> None:
    vocab = read_json(out / "vocab.json")
    vocab.popitem()
    write_json(out / "vocab.json", vocab)


@pytest.mark.parametrize(
    "damage, expected",
    [
        (break_eos, "eos_token_id is"),
        (break_merges_txt, "merges.txt has"),
        (break_vocab_json, "vocab.json lacks"),
    ],
)
def test_finds_each_damage(pair, damage, expected):
    source, out = pair
    assert check_files(open_edited(source, out)).findings == []
    damage(out)
    found = check_files(open_edited(source, out)).findings
    assert any(expected in finding for finding in found), found
