"""benchmarks/decode.py and its worker: the worker on tiny models, its parts, the table's sums."""

import importlib.util
import json
import sys

import build
import pytest
from tiny import ROOT

from vocabkit.errors import UserError
from vocabkit.files import read_json
from vocabkit.gguf.export import export_gguf


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def worker():
    return script("decode_worker")


@pytest.fixture(scope="module")
def decode():
    script("checkpoints")
    return script("decode")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A tiny folder, and a GGUF of it where llama.cpp can run it."""
    place = tmp_path_factory.mktemp("models")
    folder = build.make_checkpoint(place / "tiny", "qwen2", tied=False, initializer_range=0.02)
    export_gguf(folder, place / "tiny.f32.gguf", outtype="f32")
    return folder, place / "tiny.f32.gguf"


def measure(worker, capsys, model, *options):
    assert worker.main([str(model), "--tokens", "24", "--answers", "8", *options]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "gguf"])
def test_a_worker_measures_a_model(worker, capsys, models, kind):
    if kind == "gguf":
        pytest.importorskip("llama_cpp", reason="no llama-cpp-python: pip install llama-cpp-python")
    model = models[kind == "gguf"]
    plain = measure(worker, capsys, model)
    assert plain["foreign"] > 0 and plain["kind"] in ("float32", "f32") and "cost" not in plain
    config = read_json(models[0] / "config.json")
    matrix = 4 * config["vocab_size"] * config["hidden_size"]
    looked_up_aside = (models[0] / "model.safetensors").stat().st_size - matrix
    padding = matrix if kind == "gguf" else 0  # these rows are left out of a GGUF
    assert looked_up_aside - 5000 - padding < plain["bytes_read"] < looked_up_aside
    masked = measure(worker, capsys, model, "--mask")
    assert masked["foreign"] == 0 and masked["tokens"] > 10 and -1 < masked["cost"] < 10
    avoided = measure(worker, capsys, model, "--avoid")
    assert avoided["hits"] == 0 and avoided["avoid_share"] > 0 and avoided["avoid_share_english"] > 0


def test_what_a_worker_counts(worker):
    assert worker.foreign_share(["ab", "中c"]) == 0.25
    assert worker.foreign_share([]) == 0
    assert len(set(worker.PHRASES)) == 200
    avoider = worker.WatchedAvoider(
        lambda ids: "".join(" delve into growth"[i] for i in ids), iter(range(99)).__next__
    )
    for at in range(18):
        avoider.add(at)
    assert avoider.hits == 1 and len(avoider.times) == 18 and avoider.seconds == 18


def test_ratios_are_taken_within_a_run(decode):
    def runs(*seconds):
        return [
            {"kind": "q8_0", "bytes_read": 1000, "seconds_per_token": each, "seconds_to_first": each,
             "peak_mb": 1, "foreign": 0, "tokens": 3} for each in seconds
        ]  # fmt: skip

    measured = {"base": runs(1, 4, 2), "trimmed": runs(0.5, 1, 2)}
    row = decode.summary(measured, "trimmed", size="0.5B", bandwidth=4000)
    assert (row["times_base"], row["tokens_per_second"], row["bound"], row["tokens"]) == (2, 2, 4, 9)
    assert "times_base" not in decode.summary({"gguf-trimmed": runs(1)}, "gguf-trimmed", size="", bandwidth=1)


def test_a_failing_worker_and_a_missing_tokenizer_are_told(decode, tmp_path):
    with pytest.raises(UserError, match="decode_worker.py .*none.gguf failed: .*none"):
        decode.run([decode.WORKER, tmp_path / "none.gguf"], 1)
    with pytest.raises(UserError, match="has no tokenizer.json; give a Qwen2.5 folder"):
        decode.main(["--tokenizer", str(tmp_path)])
