"""Several processes as one run: what the first does for all, in whose turn, and that it alone speaks.

Reads the environment that torchrun and `accelerate launch` set; writes nothing. Without it, every function
does what one process needs: nothing.
"""

import contextlib
import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from vocabkit.errors import UserError

T = TypeVar("T")
PATIENCE = 5.0  # seconds in which a launcher has ended the other processes when the first one failed


class _Nowhere(io.TextIOBase):
    """What is written here is gone; it is never closed, so that a logger may keep it."""

    def write(self, text: str) -> int:
        return len(text)


def _connected() -> bool:
    """Whether torchrun or mpirun started this process."""
    return any(
        name in os.environ for name in ("RANK", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
    )


@contextlib.contextmanager
def one_voice() -> Iterator[None]:
    """Let the first process alone print. A UserError of another waits for the first to have the same."""
    if os.environ.get("ACCELERATE_USE_CPU") == "True" and "MASTER_ADDR" in os.environ and not _connected():
        raise UserError(
            "accelerate launch starts one process on a CPU, whatever --num_processes says; start several by "
            "python3 -m torch.distributed.run --nproc_per_node=2 finetune_qwen.py …"
        )
    rank = os.environ.get("RANK", "0")
    if rank == "0":
        yield
        return
    try:
        with contextlib.redirect_stdout(_Nowhere()), contextlib.redirect_stderr(_Nowhere()):
            yield
    except UserError as error:
        time.sleep(PATIENCE)  # where the first failed too, its launcher ends this process here
        raise UserError(f"process {rank}: {error}") from None
    except KeyboardInterrupt:
        sys.exit(1)


def _several() -> Any:
    """torch.distributed where it connects this process to others, else None."""
    import torch.distributed as dist

    return dist if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1 else None


def from_first(make: Callable[[], T]) -> T:
    """Return, in all processes, what make() returns in the first, where alone it is called."""
    dist = _several()
    if dist is None:
        return make()
    box: list[Any] = [make() if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(box)
    return box[0]


def check_same(value: object, *, of: str) -> None:
    """Raise UserError unless all processes have the same value."""
    dist = _several()
    if dist is None:
        return
    values: list[object] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    if odd := [rank for rank, other in enumerate(values) if other != values[0]]:
        raise UserError(f"process {odd[0]} does not have the {of} of process 0; every machine needs the same")


@contextlib.contextmanager
def in_turn() -> Iterator[None]:
    """Run the body in the first process, then in the first of each machine, then in the others.

    So a file that the body makes is there for the later ones, whether the machines share a disk or not.
    """
    dist = _several()
    if dist is None:
        yield
        return
    mine = 0 if dist.get_rank() == 0 else 1 if os.environ.get("LOCAL_RANK", "0") == "0" else 2
    for turn in range(3):
        if turn == mine:
            yield
        dist.barrier()
