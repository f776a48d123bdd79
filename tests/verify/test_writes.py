"""Rung 7, vocabkit/verify/writes.py: clean on what trimm_vocab writes; a ban too many or too few is found."""

import shutil

import pytest
from build import COVERED
from tiny import edit_json

from vocabkit.edit.trim import trim_vocab
from vocabkit.files import read_json
from vocabkit.verify.check import Check
from vocabkit.verify.edited import open_edited
from vocabkit.verify.writes import check_writes
from vocabkit.vocab.plan import FOREIGN


@pytest.fixture
def pair(checkpoint, trimmed, tmp_path):
    """A base and a copy of what it was trimmed to."""
    shutil.copytree(trimmed("qwen2"), tmp_path / "out")
    return checkpoint("qwen2"), tmp_path / "out"


def looked_at(pair) -> Check:
    return check_writes(open_edited(*pair), COVERED)


def bans(out) -> list[int]:
    return read_json(out / "generation_config.json")["suppress_tokens"]


@pytest.mark.slow
@pytest.mark.parametrize("family, tied", [("qwen2", True), ("llama", False), ("gemma2", True), ("t5", False)])
def test_is_clean_and_says_what_is_still_spelled(checkpoint, trimmed, family, tied):
    check = looked_at((checkpoint(family, tied=tied), trimmed(family, tied=tied)))
    assert check.findings == [] and check.numbers["forms"] > 300_000
    if family != "t5":
        assert check.numbers["banned"] and "Han" in check.numbers["spelled"]
        assert "only rare characters of" in check.looked_at and "Han (" in check.looked_at


def test_a_ban_of_what_writing_needs_is_found(pair):
    _, out = pair
    lead = open_edited(*pair).tokenizer.vocab["â"]  # the byte E2, with which → and keycaps begin
    edit_json(out / "generation_config.json", suppress_tokens=[*bans(out), lead])
    found = looked_at(pair).findings
    assert any("banned, but allowed writing needs it: token" in f and "<0xE2>" in f for f in found)
    assert any("cannot be written: " in f for f in found)


def test_a_lost_ban_is_found(pair):
    """The byte E4 begins Chinese characters, and nothing else needs it."""
    _, out = pair
    lead = open_edited(*pair).tokenizer.vocab["ä"]
    edit_json(out / "generation_config.json", suppress_tokens=[at for at in bans(out) if at != lead])
    found = looked_at(pair).findings
    assert len(found) == 1 and "can begin a removed script and nothing needs it" in found[0]
    assert "<0xE4>" in found[0]


def test_a_lost_list_is_found(pair):
    _, out = pair
    edit_json(out / "generation_config.json", suppress_tokens=None)
    assert len(looked_at(pair).findings) > 3


def test_with_all_bytes_nothing_is_promised(checkpoint, tmp_path):
    trim_vocab(checkpoint("qwen2"), tmp_path / "out", allow_all_bytes=True)
    check = looked_at((checkpoint("qwen2"), tmp_path / "out"))
    assert check.findings == [] and "no ban keeps scripts out" in check.looked_at


def test_bans_of_the_base_are_the_bases(checkpoint, tmp_path):
    base = shutil.copytree(checkpoint("qwen2"), tmp_path / "base")
    base.chmod(0o755)
    edit_json(base / "generation_config.json", suppress_tokens=[225])  # a byte of the base's own choice
    trim_vocab(base, tmp_path / "out")
    assert FOREIGN in read_json(tmp_path / "out" / "vocab_edit.json")["suppressed"]
    assert looked_at((base, tmp_path / "out")).findings == []
