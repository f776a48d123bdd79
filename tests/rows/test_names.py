"""vocabkit/rows/names.py: the inits that model_edit.py offers, and which one is meant."""

import pytest

import model_edit
from vocabkit.errors import UserError
from vocabkit.rows import names
from vocabkit.rows.names import INITS, choose_init


def test_the_script_offers_these_inits():
    help_text = " ".join(model_edit.build_parser().format_help().split())
    assert f"--inits {{{','.join(INITS)}}}" in help_text
    assert "weighted: mean in which the last old token weighs most" in help_text


def test_the_default_is_weighted_with_texts_or_without(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(names, "BUNDLED_EXAMPLES", tmp_path / "none.jsonl")
    assert choose_init(None, []) == ("weighted", []) and capsys.readouterr().out == ""
    assert choose_init("mean", []) == ("mean", [])
    assert choose_init("distill", ["a"]) == ("distill", ["a"]) and capsys.readouterr().out == ""
    assert choose_init(None, ["a"]) == ("weighted", [])
    assert "--contexts are read by --init distill alone" in capsys.readouterr().out
    with pytest.raises(UserError, match="--init distill learns from texts: .* --contexts"):
        choose_init("distill", [])
    with pytest.raises(UserError, match="--init mean reads no texts"):
        choose_init("mean", ["a"])
