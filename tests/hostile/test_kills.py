"""Whatever call a run is killed at, the same command leaves what an undisturbed run does, nothing else."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import build
import pytest
from exporting import split_in_two
from killing import CALLS, THOROUGH, check_all_kills
from tiny import ROOT, SENTENCES
from training import FAST, RUN, TEXTS, extend

import build_vocab
import finetune_qwen
from vocabkit.edit.extend import extend_vocab
from vocabkit.edit.trim import trim_vocab
from vocabkit.files import sha256_file, write_jsonl
from vocabkit.gguf.export import export_gguf
from vocabkit.gguf.trim import trim_gguf

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="/proc says what a handle is of"),
]

FEW = CALLS if THOROUGH else ("replace", "rmdir")  # of runs that take longer; they share their writing


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return build.make_checkpoint(tmp_path_factory.mktemp("kills") / "base", "qwen2")


def test_trimming_a_folder(base, tmp_path):
    calls = check_all_kills(lambda place: trim_vocab(base, place / "out"), tmp_path, calls=FEW)
    assert "replace out.part/new/out" in calls


def test_extending_a_folder(base, tmp_path):
    (words := tmp_path / "words.txt").write_text("xin chào\ncảm ơn\n", encoding="utf-8")

    def run(place: Path) -> None:
        extend_vocab(base, place / "out", words=words, init="mean")

    calls = check_all_kills(run, tmp_path)
    assert {"mkdir out.part", "replace out.part/new/out", "rmdir out.part"} < {*calls}, calls


def test_trimming_a_split_gguf(base, tmp_path):
    export_gguf(base, tmp_path / "base.gguf")
    first = split_in_two(tmp_path / "base.gguf", tmp_path / "m")
    calls = check_all_kills(lambda place: trim_gguf(first, place / "out.gguf"), tmp_path, calls=FEW)
    names = [f"out-0000{number}-of-00002.gguf" for number in (2, 1)]  # the first part comes last
    assert [call for call in calls if call.startswith("replace")] == [
        f"replace {names[1]}.part/new/{name}" for name in names
    ]


def test_exporting_a_gguf(base, tmp_path):
    calls = check_all_kills(lambda place: export_gguf(base, place / "out.gguf"), tmp_path, calls=FEW)
    assert [call for call in calls if call.startswith("replace")] == [
        f"replace out.gguf.part/new/out.{ending}" for ending in ("Modelfile", "gguf")
    ]


def test_counting_a_corpus(base, tmp_path):
    (corpus := tmp_path / "corpus.txt").write_text("\n".join(SENTENCES[:6]), encoding="utf-8")
    command = ["-m", str(base), str(corpus), "--count_only", "--workers", "1", "-o"]
    calls = check_all_kills(lambda place: build_vocab.main([*command, str(place / "out.json")]), tmp_path)
    assert "replace out.json.part/progress.json.part/new/progress.json" in calls
    assert "replace out.json.part/new/out.json" in calls


def test_a_training_run(tmp_path):
    source, data = extend(tmp_path, "qwen2", tied=True), tmp_path / "data.jsonl"
    write_jsonl(data, [{"text": text} for text in TEXTS])
    command = ["--model_name_or_path", str(source), "--data_path", str(data), *FAST, *RUN]

    def weights(place: Path) -> dict[str, Any]:
        return {path.name: sha256_file(path) for path in (place / "out").glob("*.safetensors")}

    def run(place: Path) -> None:
        finetune_qwen.main([*command, "--output_dir", str(place / "out")])

    calls = check_all_kills(run, tmp_path, found=weights, calls=CALLS if THOROUGH else ("replace",))
    assert "replace out.part/new/out" in calls


def test_counting_processes_end_with_their_parent(base, tmp_path):
    """Killed alone, as the kernel does for want of memory, while it waits for text."""
    command = [sys.executable, ROOT / "build_vocab.py", "-m", base, "-", "--count_only", "--workers", "2"]
    parent = subprocess.Popen([*command, "-o", tmp_path / "out.json"], stdin=subprocess.PIPE)
    listed, deadline = Path(f"/proc/{parent.pid}/task/{parent.pid}/children"), time.monotonic() + 60
    while len(children := listed.read_text(encoding="ascii").split()) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)  # two, and one of multiprocessing's own
    time.sleep(1)
    parent.kill()
    parent.communicate()
    while (left := [pid for pid in children if _runs(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(children) == 3 and not left


def _runs(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
