"""Counting a corpus: all cores, bad records, and runs that are killed and go on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tiny import ROOT, SENTENCES

from vocabkit.corpus import counting
from vocabkit.corpus import workers as corpus_workers
from vocabkit.corpus.counting import save_progress
from vocabkit.corpus.files import find_sources, read_blocks
from vocabkit.corpus.records import parse_block
from vocabkit.counts.tokens import count_corpus
from vocabkit.errors import UserError
from vocabkit.files import read_json
from vocabkit.tokenizer.encoder import load_encoder
from vocabkit.tokenizer.tokenizer_json import read_tokenizer_json


def counted_one_by_one(folder: Path, corpus: list[str]) -> np.ndarray:
    """What counting is defined as: tokenizer(text) of every document."""
    encoder = load_encoder(folder)
    vector = np.zeros(max(read_tokenizer_json(folder).tokens) + 1, np.int64)
    for source in find_sources(corpus):
        for block in read_blocks(source, text_field=None, notes=print):
            for text in parse_block(block, text_field=None)[0]:
                np.add.at(vector, encoder.encode(text).ids, 1)
    return vector


def write_rows(path: Path, rows: int) -> None:
    """Write JSON lines whose texts differ, so that every one of them counts."""
    lines = [
        json.dumps({"text": f"{SENTENCES[n % len(SENTENCES)]} {n}"}, ensure_ascii=False) for n in range(rows)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def corpus(tmp_path) -> list[str]:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name in ("a", "b", "c"):
        write_rows(folder / f"{name}.jsonl", 400)
    (folder / "d.txt").write_text("\n\n".join(SENTENCES) * 3, encoding="utf-8")
    return [str(folder)]


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_counts_equal_those_of_document_by_document(tiny, corpus, tmp_path, monkeypatch, workers):
    """One worker by tokenizers, as for every small corpus, two by gigatoken."""
    folder = tiny("qwen").path
    monkeypatch.setattr("vocabkit.counts.tokens.SMALL", 0 if workers == 2 else 4 << 20)
    progress = count_corpus(
        folder, corpus, progress_file=tmp_path / "p.json", workers=workers, save_every=9000
    )
    assert (progress.vector == counted_one_by_one(folder, corpus)).all()
    assert progress.documents == 1201 and progress.bad == 0
    assert progress.positions == [None] * 4
    assert (tmp_path / "p.json").exists(), "the caller removes it, once the counts are saved"


def test_a_finished_run_is_not_counted_again(tiny, corpus, tmp_path, monkeypatch):
    folder = tiny("qwen").path
    first = count_corpus(folder, corpus, progress_file=tmp_path / "p.json", workers=1)
    monkeypatch.setattr(corpus_workers, "Workers", None)  # no process may start
    again = count_corpus(folder, corpus, progress_file=tmp_path / "p.json", workers=1)
    assert (again.vector == first.vector).all() and again.documents == first.documents


@pytest.mark.slow
@pytest.mark.parametrize("saved", [1, 3, 7])
def test_a_run_that_stopped_anywhere_goes_on_to_the_same_counts(tiny, corpus, tmp_path, monkeypatch, saved):
    """Stop after the first, third and seventh saving; the rest is counted by a second run."""
    folder, path = tiny("qwen").path, tmp_path / "p.json"
    monkeypatch.setattr("vocabkit.corpus.files.BLOCK_BYTES", 4000)
    save, times = save_progress, []

    def stop(*args: object) -> None:
        save(*args)
        times.append(1)
        if len(times) == saved:
            raise KeyboardInterrupt

    monkeypatch.setattr(counting, "save_progress", stop)
    with pytest.raises(KeyboardInterrupt):
        count_corpus(folder, corpus, progress_file=path, workers=2, save_every=8000)
    before = read_json(path)["progress"]["documents"]
    assert 0 < before < 1201
    monkeypatch.setattr(counting, "save_progress", save)
    progress = count_corpus(folder, corpus, progress_file=path, workers=2, save_every=8000)
    assert progress.documents == 1201
    assert (progress.vector == counted_one_by_one(folder, corpus)).all()


COUNT = """
import sys
from pathlib import Path
from vocabkit.counts.tokens import count_corpus

if __name__ == "__main__":
    model, corpus, progress = sys.argv[1:]
    count_corpus(Path(model), [corpus], progress_file=Path(progress), workers=2, save_every=1_000_000)
"""


@pytest.mark.slow
def test_a_killed_run_counts_the_same(assets, tmp_path):
    """SIGKILL between two savings, on real text: nothing is counted twice, nothing is lost."""
    folder, path = assets / "tokenizers" / "qwen2.5-instruct", tmp_path / "p.json"
    script = tmp_path / "count.py"
    script.write_text(COUNT, encoding="utf-8")
    command = [sys.executable, str(script), str(folder), str(assets / "corpora" / "vi"), str(path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)  # into the next stretch
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    saved = read_json(path)["progress"]
    assert any(position is not None for position in saved["positions"]), "killed too late to prove anything"
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "going on from" in again.stderr
    resumed = read_json(path)["progress"]
    whole = count_corpus(
        folder, [str(assets / "corpora" / "vi")], progress_file=tmp_path / "q.json", workers=2
    )
    assert resumed["vector"] == whole.vector.tolist()
    assert resumed["documents"] == whole.documents


def test_progress_of_another_run_is_refused(tiny, corpus, tmp_path):
    folder, path = tiny("qwen").path, tmp_path / "p.json"
    count_corpus(folder, corpus, progress_file=path, workers=1)
    with pytest.raises(UserError, match=r"another run \(text_field differs: null, now \"body\"\).*rm "):
        count_corpus(folder, corpus, progress_file=path, workers=1, text_field="body")
    write_rows(Path(corpus[0]) / "a.jsonl", 401)
    with pytest.raises(UserError, match=r"another run \(sources differs"):
        count_corpus(folder, corpus, progress_file=path, workers=1)
    with pytest.raises(UserError, match=r"another run \(tokenizer_sha256 differs"):
        count_corpus(tiny("llama3").path, corpus, progress_file=path, workers=1)


def test_few_bad_records_are_counted_and_shown(tiny, tmp_path, capsys):
    write_rows(tmp_path / "a.jsonl", 3000)
    with (tmp_path / "a.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"text": 5}\n')
    folder = tiny("qwen").path
    progress = count_corpus(folder, [str(tmp_path / "a.jsonl")], progress_file=tmp_path / "p.json", workers=1)
    assert (progress.records, progress.bad, progress.documents) == (3001, 1, 3000)
    assert f"bad record: {tmp_path / 'a.jsonl'}:3001: " in capsys.readouterr().err


@pytest.mark.slow
def test_many_bad_records_stop_the_run(tiny, tmp_path):
    write_rows(tmp_path / "a.jsonl", 100)
    with (tmp_path / "a.jsonl").open("a", encoding="utf-8") as file:
        file.write("{broken\n")
    options = {"progress_file": tmp_path / "p.json", "workers": 1}
    with pytest.raises(
        UserError, match=r"a.jsonl:101: .*1 of 101 records are bad \(0.99%\).*--max_bad 0.10%"
    ):
        count_corpus(tiny("qwen").path, [str(tmp_path / "a.jsonl")], **options)
    progress = count_corpus(tiny("qwen").path, [str(tmp_path / "a.jsonl")], max_bad=0.02, **options)
    assert progress.bad == 1 and progress.documents == 100


def test_bad_records_stop_long_runs_before_the_end(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(counting, "ENOUGH", 50)
    monkeypatch.setattr("vocabkit.corpus.files.BLOCK_BYTES", 2000)
    (tmp_path / "a.jsonl").write_text("{broken\n" * 100_000, encoding="utf-8")
    with pytest.raises(UserError) as stopped:
        count_corpus(
            tiny("qwen").path, [str(tmp_path / "a.jsonl")], progress_file=tmp_path / "p.json", workers=1
        )
    assert "of 100,000 records" not in str(stopped.value)


def test_what_a_reader_raises_ends_the_run(tiny, tmp_path):
    (tmp_path / "a.csv").write_text("title,body\n1,2\n", encoding="utf-8")
    with pytest.raises(UserError, match="text_field"):
        count_corpus(
            tiny("qwen").path, [str(tmp_path / "a.csv")], progress_file=tmp_path / "p.json", workers=1
        )


def die(block: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_dies_is_one_line(tiny, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("vocabkit.corpus.workers._count_block", die)  # handed over by name
    with pytest.raises(UserError, match="ended from outside.*fewer --workers"):
        count_corpus(tiny("qwen").path, corpus, progress_file=tmp_path / "p.json", workers=1)
