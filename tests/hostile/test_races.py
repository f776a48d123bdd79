"""Two runs on one OUT: one has it, the other says so in one line, and OUT is whole."""

import contextlib
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import build
import pytest
from killing import files_of, in_a_fork
from tiny import SENTENCES

import build_vi_words
import build_vocab
from vocabkit import outputs
from vocabkit.edit.trim import trim_vocab
from vocabkit.errors import UserError
from vocabkit.gguf.export import export_gguf
from vocabkit.gguf.trim import trim_gguf
from vocabkit.outputs import new_file, publication


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A folder with a model, its GGUF and a corpus; nobody may change it."""
    folder = tmp_path_factory.mktemp("races")
    export_gguf(build.make_checkpoint(folder / "base", "qwen2"), folder / "base.gguf")
    (folder / "corpus.txt").write_text("\n".join(SENTENCES[:6]), encoding="utf-8")
    return folder


def _count(source: Path, out: Path) -> None:
    command = ["-m", str(source / "base"), str(source / "corpus.txt"), "--workers", "1", "-o", str(out)]
    build_vocab.main([*command, "--count_only"])


def _words(source: Path, out: Path) -> None:
    build_vi_words.main(["-m", str(source / "base"), str(source / "corpus.txt"), "-o", str(out)])


RUNS: dict[str, Callable[[Path, Path], object]] = {
    "out": lambda source, out: trim_vocab(source / "base", out),
    "trimmed.gguf": lambda source, out: trim_gguf(source / "base.gguf", out),
    "exported.gguf": lambda source, out: export_gguf(source / "base", out),
    "counts.json": _count,
    "words.jsonl": _words,
}


@pytest.mark.parametrize("name", RUNS)
def test_a_second_run_is_refused_before_its_work(source, tmp_path, name):
    with publication([tmp_path / name], resume=True) as first:
        with pytest.raises(
            UserError, match=rf"{name}\.part is being written by another run; wait for it, or"
        ):
            RUNS[name](source, tmp_path / name)
        first.places[0].write_text("of the first", encoding="utf-8")
    assert files_of(tmp_path) == {name: b"of the first"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["out", "trimmed.gguf", "counts.json"])
def test_of_runs_that_begin_together_one_wins(source, tmp_path, name):
    (alone := tmp_path / "alone").mkdir()
    assert in_a_fork(lambda place: RUNS[name](source, place / name), alone) == ("", "")
    (place := tmp_path / "together").mkdir()
    ready = multiprocessing.get_context("fork").Barrier(3)

    def run(told: multiprocessing.SimpleQueue) -> None:
        def begin(place: Path) -> None:
            ready.wait(60)
            RUNS[name](source, place / name)

        told.put(in_a_fork(begin, place).said)

    context = multiprocessing.get_context("fork")
    told = context.SimpleQueue()
    runs = [context.Process(target=run, args=(told,)) for _ in range(3)]
    for process in runs:
        process.start()
    for process in runs:
        process.join()
    said = sorted(told.get() for _ in runs)
    assert said[0] == "" and all("another run" in line or "already exists" in line for line in said[1:]), said
    assert files_of(place) == files_of(alone)


def test_a_run_that_opened_the_lock_before_the_first_one_ended_writes_nothing(tmp_path, monkeypatch):
    """As on NFS, which locks no folders: the second run opens the file, then the first gives OUT its name."""
    monkeypatch.setattr(outputs, "_turn_in", contextlib.nullcontext)
    out, opened = tmp_path / "out", os.open
    with contextlib.ExitStack() as first:
        first.enter_context(new_file(out)).write_text("whole", encoding="utf-8")

        def open_late(path: Path, *args: int) -> int:
            handle = opened(path, *args)
            if str(path).endswith(outputs.MARK) and args[0] & os.O_CREAT:
                monkeypatch.setattr(os, "open", opened)
                first.close()
            return handle

        monkeypatch.setattr(os, "open", open_late)
        with pytest.raises(UserError, match="is being written by another run"), new_file(out):
            pytest.fail("it went on")
    assert files_of(tmp_path) == {"out": b"whole"}


def test_an_out_that_appears_meanwhile_stays(tmp_path):
    with pytest.raises(UserError, match="out already exists"), new_file(tmp_path / "out") as part:
        part.write_text("ours", encoding="utf-8")
        (tmp_path / "out").write_text("theirs", encoding="utf-8")
    assert files_of(tmp_path) == {"out": b"theirs"}
