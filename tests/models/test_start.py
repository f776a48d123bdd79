"""vocabkit/models/start.py: texts begin with the token after which they cost least."""

import math
import shutil

import pytest
import torch
from tiny import ROOT

from vocabkit.checkpoint.folder import start_token
from vocabkit.files import read_json, write_json
from vocabkit.models import start
from vocabkit.models.load import load_model
from vocabkit.models.start import text_start


@pytest.fixture(scope="module")
def demo():
    return load_model(ROOT / "data" / "demo")


def costs(monkeypatch, of: dict[int, float]) -> None:
    """Let texts cost so much after each start."""
    monkeypatch.setattr(start, "_nats", lambda model, first, ids: of[first] * len(ids))


def test_the_cheapest_start_is_taken_and_said(demo, monkeypatch, capsys, tmp_path):
    folder = tmp_path / "demo"
    shutil.copytree(ROOT / "data" / "demo", folder)
    config = read_json(folder / "config.json")
    first, other = 7, 9
    write_json(folder / "config.json", {**config, "bos_token_id": first, "eos_token_id": [other, first]})
    named = start._candidates(folder, first, start.load_encoder(folder))
    assert named[:1] == [first] and other in named
    of = dict.fromkeys(named, 5.0)
    costs(monkeypatch, of)
    assert text_start(demo, folder) == first and capsys.readouterr().out == ""
    costs(monkeypatch, of | {other: 4.97})  # 0.6 % less: chance
    assert text_start(demo, folder) == first
    costs(monkeypatch, of | {other: 4.0})
    assert text_start(demo, folder) == other
    said = capsys.readouterr().out
    assert said.startswith("texts begin with ") and " bits per byte, after " in said
    costs(monkeypatch, {at: 20.0 + (at == first) for at in named})  # worse than guessing
    assert text_start(demo, folder) == first


def test_costs_are_those_of_the_text_after_the_start(demo):
    ids = [40, 41, 42]
    with torch.no_grad():
        log_p = demo(input_ids=torch.tensor([[5, *ids]])).logits[0].log_softmax(1)
    expected = -sum(float(log_p[at, token]) for at, token in enumerate(ids))
    assert start._nats(demo, 5, ids) == pytest.approx(expected, rel=1e-5) and math.isfinite(expected)


def test_the_demo_begins_as_it_was_trained(demo):
    folder = ROOT / "data" / "demo"
    assert text_start(demo, folder) == start_token(folder)
