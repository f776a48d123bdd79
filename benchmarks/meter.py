"""Measure the memory and the time of training steps in this process, for memory.py and memory_measured.py.

    peak       most bytes that a step holds, less what the process held beside its model before the first one:
               resident memory on a CPU, torch.cuda.max_memory_allocated on a GPU
    tensors    the same of torch's tensors alone: those there are before a step and, by the profiler, those it
               makes; on a GPU the same number
    seconds    least time of a step: of the processor on a CPU, of the clock on a GPU

On a CPU it needs Linux, whose kernel can begin a new peak of resident memory. Blocks of more than 128 KiB
should go back to the system when they are freed (ENVIRONMENT, for the process that measures): otherwise the
allocator keeps some, and how many depends on the order of the sizes asked for.
"""

import gc
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from vocabkit.errors import UserError, one_line

ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}  # of glibc
STEPS = 5  # one to warm up, the last under the profiler, those between are timed


class Meter:
    """begin() and end() around each of STEPS steps; result() is what this file's docstring names."""

    def __init__(self, model: Any, optimizer: Any = None) -> None:
        self.model, self.optimizer, self.profiler = model, optimizer, None
        self.cuda = next(model.parameters()).is_cuda
        self.seconds: list[float] = []
        self.step = self.peak = self.tensors = 0
        gc.collect()
        self.beside = 0 if self.cuda else resident("VmRSS") - held([model])

    def begin(self) -> None:
        """Begin a step."""
        import torch

        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
        self.held = held([self.model, self.optimizer])
        if self.step == STEPS - 1 and not self.cuda:
            self.profiler = torch.profiler.profile(
                activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
            )
            self.profiler.__enter__()
        self.begun = self._clock()

    def end(self) -> None:
        """End it. The first counts for nothing: it makes the optimizer's states, which the others find."""
        import torch

        seconds = self._clock() - self.begun
        if self.profiler:
            self.profiler.__exit__(None, None, None)
            self.tensors = self.held + most(self.profiler)
        elif self.step:
            self.seconds.append(seconds)
            found = torch.cuda.max_memory_allocated() if self.cuda else resident("VmHWM") - self.beside
            self.peak = max(self.peak, found)
        self.step += 1

    def result(self) -> dict[str, float]:
        """Return bytes and seconds."""
        return {"peak": self.peak, "tensors": self.tensors or self.peak, "seconds": min(self.seconds)}

    def _clock(self) -> float:
        import torch

        if not self.cuda:
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()


def run(command: Sequence[str]) -> dict[str, float]:
    """Run a Python script that measures, in a process of its own; return the JSON of its last line."""
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, env=os.environ | ENVIRONMENT
    )
    if done.returncode:
        raise UserError(f"{' '.join(command)} failed: {one_line(done.stderr[-500:])}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def resident(name: str) -> int:
    """Return VmRSS, the memory that is resident now, or VmHWM, the most since the last begin(), in bytes."""
    found = re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert found
    return int(found[1]) * 1024


def held(owners: Iterable[Any]) -> int:
    """Return the bytes of all tensors of models, gradients with them, and of optimizers; shared ones once."""
    import torch

    tensors: list[Any] = []
    for owner in owners:
        if isinstance(owner, torch.nn.Module):
            tensors += [*owner.parameters(), *owner.buffers()]
            tensors += [p.grad for p in owner.parameters() if p.grad is not None]
        elif owner is not None:
            tensors += [value for state in owner.state.values() for value in state.values()]
    plain = [part for tensor in tensors if isinstance(tensor, torch.Tensor) for part in _inner(tensor)]
    stores = [tensor.untyped_storage() for tensor in plain]
    return sum({store.data_ptr(): store.nbytes() for store in stores}.values())


def _inner(tensor: Any) -> list[Any]:
    """The plain tensors of one: torchao's states of few bits are codes, scales and a table of numbers."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return [tensor]
    return [part for name in tensor.__tensor_flatten__()[0] for part in _inner(getattr(tensor, name))]


def most(profiler: Any) -> int:
    """Return by how many bytes torch's tensors were ever more than when the profiler began."""
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak
