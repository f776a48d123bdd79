"""vocabkit/edit/write.py: OUT appears whole and verified, or not at all (kills: test_bad_input.py)."""

import os
import shutil
from pathlib import Path

import build
import pytest

from vocabkit.checkpoint.folder import open_folder
from vocabkit.edit.trim import trim_vocab
from vocabkit.edit.write import record_of, writing
from vocabkit.errors import UserError
from vocabkit.files import read_json
from vocabkit.vocab.plan import make_plan


@pytest.fixture
def source(checkpoint, tmp_path) -> Path:
    return Path(shutil.copytree(checkpoint(), tmp_path / "source"))


@pytest.mark.parametrize("error", [KeyboardInterrupt, UserError])
def test_what_the_body_raises_leaves_nothing(source, tmp_path, error):
    with pytest.raises(error), writing(open_folder(source), tmp_path / "out"):
        assert (tmp_path / "out.part").is_dir()
        raise error("stop")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_body_that_decides_nothing_is_a_mistake(source, tmp_path):
    with (
        pytest.raises(RuntimeError, match="ended without finish"),
        writing(open_folder(source), tmp_path / "o"),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_rows_that_are_not_the_old_ones_are_not_published(source, tmp_path, capsys):
    """The plan says one thing, the record another: the third check finds every moved row."""
    folder = open_folder(source)
    plan = make_plan(folder.tokenizer, folder.tokenizer.tokens, required_ids=folder.required)
    record = record_of(folder, plan, task="trimm_vocab", made_by="a test", keep={"source": "all"})
    record.new_to_old[:2] = [1, 0]
    with pytest.raises(UserError, match="was not written: the checks above found differences"):
        with writing(folder, tmp_path / "out") as edit:
            edit.finish(plan, record)
    printed = capsys.readouterr().out
    assert "FAILED 3 rows" in printed and "model.embed_tokens.weight row differs: 0" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_verify_report_holds_the_checks_that_were_made(trimmed):
    report = read_json(trimmed() / "verify_report.json")
    assert (report["format"], report["version"], report["passed"]) == ("verify-report", 1, True)
    assert [check["name"] for check in report["checks"]] == ["1 files", "2 tokenizer", "3 rows"]
    assert report["model"] == trimmed().name


def test_report_names_no_folder_that_is_gone(trimmed):
    assert ".part" not in (trimmed() / "verify_report.json").read_text(encoding="utf-8")


def test_other_files_are_copied_and_dangerous_ones_left_out(source, tmp_path, capsys):
    (source / "LICENSE").write_text("terms\n", encoding="utf-8")
    (source / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    (source / "modeling_x.py").write_text("raise SystemExit", encoding="utf-8")
    (source / "pytorch_model.bin").write_bytes(b"old weights")
    trim_vocab(source, tmp_path / "out")
    assert (tmp_path / "out" / "LICENSE").read_text(encoding="utf-8") == "terms\n"
    assert (tmp_path / "out" / "chat_template.jinja").exists()
    assert not list((tmp_path / "out").glob("*.py")) and not list((tmp_path / "out").glob("*.bin"))
    assert "left out: modeling_x.py, pytorch_model.bin" in capsys.readouterr().out


def test_hardlink_shares_files_without_vocabulary_rows(checkpoint, tmp_path):
    source = Path(shutil.copytree(checkpoint(shards=3), tmp_path / "base"))
    before = build.fingerprints(source)
    trim_vocab(source, tmp_path / "out", hardlink=True)
    trim_vocab(source, tmp_path / "copied")
    shared, own = [], []
    for file in source.glob("*.safetensors"):
        (shared if os.path.samefile(file, tmp_path / "out" / file.name) else own).append(file.name)
        assert not os.path.samefile(file, tmp_path / "copied" / file.name)
        assert (
            build.fingerprints(tmp_path / "copied")[file.name]
            == (build.fingerprints(tmp_path / "out")[file.name])
        )
    index = read_json(source / "model.safetensors.index.json")
    assert own == [index["weight_map"]["model.embed_tokens.weight"]] and len(shared) == 2
    shutil.rmtree(tmp_path / "out")
    assert build.fingerprints(source) == before


def test_a_wrong_output_is_not_published(source, tmp_path):
    """Checks stand between OUT.part and OUT: files that contradict each other never get through."""
    text = (source / "merges.txt").read_text(encoding="utf-8").split("\n")
    (source / "merges.txt").write_text("\n".join([text[0], text[2], text[1], *text[3:]]), encoding="utf-8")
    with pytest.raises(UserError, match="merges.txt.*differ"):
        trim_vocab(source, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]
