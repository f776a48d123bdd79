"""Links, FIFOs, devices, private files, and names OUT.part that are not ours: nothing follows them."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import build
import pytest
from killing import files_of

from vocabkit.checkpoint.hub import local_folder, model_folder
from vocabkit.corpus.lines import read_texts
from vocabkit.edit.trim import trim_vocab
from vocabkit.errors import UserError
from vocabkit.files import copy_file, read_json, sha256_file, text_lines
from vocabkit.outputs import new_directory, new_file
from vocabkit.train.output import write_trained


@pytest.fixture
def model(tmp_path) -> Path:
    return build.make_checkpoint(tmp_path / "model", "qwen2")


def rights(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("name", ["LICENSE", "notes.json", "merges.txt"])
def test_a_link_out_of_the_folder_is_refused(model, tmp_path, name):
    (tmp_path / "secret").write_bytes(b"{}" if name == "notes.json" else b"secret")
    if name == "merges.txt":
        (model / name).rename(tmp_path / "secret")
    (model / name).symlink_to(tmp_path / "secret")
    before = files_of(model)
    with pytest.raises(UserError, match=rf"{name} is a link out of its folder, to .*secret; put a copy"):
        trim_vocab(model, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "secret"]
    assert files_of(model) == before
    with pytest.raises(UserError, match=f"{name} is a link out of its folder"):
        (tmp_path / "trained").mkdir()
        write_trained(model, tmp_path / "trained", {})


def test_a_link_inside_the_folder_is_copied_as_what_it_names(model, tmp_path):
    (model / "LICENSE.txt").write_text("terms", encoding="utf-8")
    (model / "LICENSE").symlink_to("LICENSE.txt")
    trim_vocab(model, tmp_path / "out")
    assert (tmp_path / "out" / "LICENSE").read_text(encoding="utf-8") == "terms"
    assert not (tmp_path / "out" / "LICENSE").is_symlink()


def test_private_files_stay_private(model, tmp_path):
    for name, mode in (("LICENSE", 0o600), ("config.json", 0o640), ("model.safetensors", 0o600)):
        (model / name).touch()
        (model / name).chmod(mode)
    model.chmod(0o750)
    trim_vocab(model, out := tmp_path / "out")
    found = {name: rights(out / name) for name in ("LICENSE", "config.json", "model.safetensors")}
    assert found == {"LICENSE": 0o600, "config.json": 0o640, "model.safetensors": 0o600}
    assert rights(out) == 0o750 and rights(out / "tokenizer.json") == rights(model / "tokenizer.json")


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def link_to_zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize(("make", "kind"), [(make_fifo, "FIFO"), (link_to_zero, "device")])
def test_only_regular_files_are_opened(model, tmp_path, make, kind):
    make(path := model / "extra.json")
    for read in (
        lambda: local_folder(str(model)), lambda: model_folder(model), lambda: read_json(path),
        lambda: list(text_lines(path)), lambda: sha256_file(path), lambda: copy_file(path, tmp_path / "copy"),
        lambda: trim_vocab(model, tmp_path / "out"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=rf"extra\.json is a {kind}, expected a file"):
            read()
    make(corpus := tmp_path / "corpus.txt")
    with pytest.raises(UserError, match="corpus.txt"):
        list(read_texts([corpus]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.txt", "model"]


@pytest.mark.parametrize("new", [new_file, new_directory])
@pytest.mark.parametrize("kind", ["link to a file", "link to a folder", "file", "folder", "marked by a link"])
def test_an_out_part_that_is_not_ours_stays(tmp_path, new: Callable, kind):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / ".vocabkit").touch()
    (tmp_path / "thesis" / "text").write_text("precious", encoding="utf-8")
    part = tmp_path / "out.part"
    if kind.startswith("link"):
        part.symlink_to(tmp_path / "thesis" if kind == "link to a folder" else tmp_path / "thesis" / "text")
    elif kind == "file":
        part.write_text("precious", encoding="utf-8")
    else:
        part.mkdir()
        (part / "mine").write_text("precious", encoding="utf-8")
        if kind == "marked by a link":
            (part / ".vocabkit").symlink_to(tmp_path / "thesis" / ".vocabkit")
    before = files_of(tmp_path)
    with pytest.raises(UserError, match=r"out\.part is in the way: no run of this program left it; move it"):
        with new(tmp_path / "out"):
            pytest.fail("it went on")
    assert files_of(tmp_path) == before and part.is_symlink() == kind.startswith("link")
