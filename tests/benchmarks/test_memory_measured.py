"""benchmarks/meter.py, memory.py and memory_measured.py: the meter on allocations of known size, a tiny
model.
"""

import importlib.util
import json
import sys
import types
from types import ModuleType

import pytest
import torch
from tiny import ROOT
from torch.testing._internal.two_tensor import TwoTensor

from vocabkit.errors import UserError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
MIB = 2**20


@pytest.fixture(scope="module")
def benchmark() -> dict[str, ModuleType]:
    """The three files as modules, as they import each other."""
    found = {}
    for name in ("meter", "memory", "memory_measured"):
        spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
        assert spec and spec.loader
        found[name] = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found[name])
    return found


ALLOCATIONS = f"""
import json, sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "benchmarks")!r}]
import torch
import meter as meter_of

side = 4096
model = torch.nn.Linear(side, side // 4, bias=False)  # 16 MiB
optimizer = torch.optim.Adam(model.parameters())
meter = meter_of.Meter(model, optimizer)
for _ in range(meter_of.STEPS):
    model.weight.grad = torch.ones_like(model.weight)
    meter.begin()
    one, other = torch.ones(side, side), torch.ones(side, side)
    del one, other
    after = torch.ones(side, side)
    del after
    optimizer.step()
    optimizer.zero_grad()
    meter.end()
print(json.dumps(dict(meter.result(), held=meter_of.held([model, optimizer]))))
"""


@pytest.mark.slow
def test_the_meter_sees_what_a_step_allocates(benchmark):
    """Two blocks of 64 MiB at once, one after them, and an optimizer's states from the first step.

    In a process of its own, as in the benchmarks: one that has freed much before takes from that.
    """
    found = benchmark["meter"].run(["-c", ALLOCATIONS])
    weight, blocks = 16 * MIB, 2 * 64 * MIB
    assert found["held"] == 3 * weight + 4  # Adam counts its steps in a float
    assert found["tensors"] == pytest.approx(4 * weight + blocks, abs=1000), "the gradient was there before"
    assert abs(found["peak"] - found["tensors"]) < 24 * MIB, "resident memory is about that of the tensors"
    assert found["seconds"] > 0


def test_shared_tensors_are_held_once(benchmark):
    model = torch.nn.Sequential(torch.nn.Linear(10, 10, bias=False), torch.nn.Linear(10, 10, bias=False))
    assert benchmark["meter"].held([model]) == 800
    model[1].weight = model[0].weight
    assert benchmark["meter"].held([model, None]) == 400
    packed = types.SimpleNamespace(state={0: {"exp_avg": TwoTensor(torch.zeros(50), torch.zeros(50))}})
    assert benchmark["meter"].held([model, packed]) == 400 + 2 * 200, "a state of several tensors"


def test_a_run_that_fails_says_why(benchmark):
    with pytest.raises(UserError, match="-c raise SystemExit.* failed: no such thing"):
        benchmark["meter"].run(["-c", "raise SystemExit('no such thing')"])


@pytest.mark.parametrize("plain", [[], ["--plain"]])
def test_steps_of_a_stage(benchmark, checkpoint, capsys, plain):
    """By finetune_qwen.py's own pieces: weights, gradients and both states are there at least."""
    folder = checkpoint()
    here = [str(folder), "--here", "full, AdamW", "--tokens", "32", *plain]
    assert benchmark["memory_measured"].main(here) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    parameters = (folder / "model.safetensors").stat().st_size / 4
    assert found["tensors"] > 0.98 * 16 * parameters
    assert 0.8 < found["tensors"] / found["expected"] < 1.7
    assert benchmark["memory_measured"].format_cell(found).count("/") == 2


def test_configurations_are_those_of_the_flags(benchmark, tmp_path):
    """The account of a 7B and the measured stages name the same things."""
    measured, account = (benchmark[name].CONFIGURATIONS for name in ("memory_measured", "memory"))
    same = {"full, AdamW 8-bit in backward", "full, Adafactor in backward"}
    assert same <= measured.keys() & account.keys()
    for name in same:
        assert account[name]["optim"] in measured[name].split() and account[name]["in_backward"]
        assert "--optim_in_backward" in measured[name]


@pytest.mark.slow
def test_new_rows_are_measured_four_ways(benchmark, capsys, monkeypatch):
    """At a small size: each scheme trains what it says, and the rows of their own hold least."""
    memory = benchmark["memory"]
    monkeypatch.setattr(memory, "T_ROWS", 4096)
    monkeypatch.setattr(memory, "NEW", 64)
    table = 4096 * memory.T_WIDTH * 4
    found = {}
    for scheme in memory.SCHEMES:
        assert memory.main(["--scheme", scheme]) == 0
        found[scheme] = json.loads(capsys.readouterr().out.splitlines()[-1])["tensors"]
    above = {scheme: (size - found["frozen"]) / table for scheme, size in found.items()}
    assert 0 < above["split"] < 0.2 < 1.5 < above["peft"] < 2.5 < 3.5 < above["whole"] < 5
