"""vocabkit/verify/tokenizer.py finds each damage to the tokenizer of a trimmed and of an extended folder."""

from pathlib import Path
from typing import Any

import pytest
from tiny import edit_json
from verifying import NEW, break_merges

from vocabkit.corpus.lines import read_texts
from vocabkit.files import SELF_TEST_TEXTS, read_json, write_json
from vocabkit.verify.edited import open_edited
from vocabkit.verify.tokenizer import check_tokenizer


def findings(source: Path, out: Path) -> list[str]:
    return check_tokenizer(open_edited(source, out), read_texts([SELF_TEST_TEXTS])).findings


def break_token(out: Path) -> None:
    data = read_json(out / "tokenizer.json")
    vocab = data["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    write_json(out / "tokenizer.json", data)


def break_template(out: Path) -> None:
    edit_json(
        out / "tokenizer_config.json", chat_template="{% for m in messages %}{{ m.content }}{% endfor %}"
    )


def other_words(out: Path) -> None:
    edit_json(out / "vocab_edit.json", words=["hôm▁kia", "thanh▁điệu"])


def change_added(out: Path, **changes: Any) -> None:
    """Change the entry of " hôm nay"."""
    data = read_json(out / "tokenizer.json")
    data["added_tokens"][-2].update(changes)
    write_json(out / "tokenizer.json", data)


def other_token(out: Path) -> None:
    change_added(out, content=" hôm qua")


def not_normalized(out: Path) -> None:
    change_added(out, normalized=False)


def swallow_space(out: Path) -> None:
    """rstrip swallows the space after the word, which then does not come back."""
    change_added(out, rstrip=True)


@pytest.mark.parametrize(
    "kind, damage, expected",
    [
        ("pair", break_merges, "encodes differently"),
        ("pair", break_token, "token moved: 'b'"),
        ("pair", break_template, "chat template"),
        ("extended", other_words, "new token: ' hôm kia' has the ids"),
        ("extended", other_token, "new token: ' hôm nay' has the ids"),
        ("extended", not_normalized, f"expected {NEW}"),
        ("extended", swallow_space, "decodes differently"),
    ],
)
def test_finds_each_damage(request, kind, damage, expected):
    source, out = request.getfixturevalue(kind)
    assert findings(source, out) == []
    damage(out)
    found = findings(source, out)
    assert any(expected in finding for finding in found), found
