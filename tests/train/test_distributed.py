"""finetune_qwen.py in two processes (gloo, CPU): the weights of one process with twice the batch, one voice.

Starting Python is slow, so that two forks of this process run all jobs; torchrun's launcher, told to fork,
then goes on with the job that was killed there.
"""

import hashlib
import json
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState, DistributedType, PartialState
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from training import TEXTS, WORDS, extend, stage, tensors
from transformers import TrainingArguments

import finetune_qwen
from vocabkit.checkpoint.record import new_rows
from vocabkit.errors import UserError
from vocabkit.files import read_json, sha256_file
from vocabkit.models.split_rows import whole
from vocabkit.train import processes
from vocabkit.train import run as train_run
from vocabkit.train.trainer import StageTrainer

pytestmark = pytest.mark.slow

LOOPBACK = "lo" if sys.platform == "linux" else "lo0"  # whatever the machine calls itself
HARSH = ["--weight_decay", "0.1", "--learning_rate", "1e-3", "--warmup_steps", "0", "--max_steps", "4"]
ALL = [*HARSH, "--train_rows", "all", "--finetune_layers", "all"]
SAVING = [*ALL, "--save_steps", "2"]
LORA = [*HARSH, "--train_rows", "new", "--finetune_layers", "all", "--lora_rank", "2", "--no_merge_lora"]
JOBS = {
    "new rows": HARSH,
    "all": ALL,
    "distill": [*HARSH, "--objective", "distill"],
    "both": [*HARSH, "--objective", "both"],
    "no such layer": ["--finetune_layers", "7"],
    "other data": HARSH,
    "interrupted": SAVING,
    "interrupted again": SAVING,
    "fsdp new rows": [*HARSH, "--fsdp"],
    "fsdp all": [*SAVING, "--eval_strategy", "steps", "--eval_steps", "2", "--fsdp"],
    "fsdp lora": [*LORA, "--fsdp"],
    "fsdp both": [*HARSH, "--objective", "both", "--fsdp"],
    "fsdp interrupted": [*SAVING, "--fsdp"],
    "fsdp interrupted again": [*SAVING, "--fsdp"],
    "killed": SAVING,
}
ALONE = {"new rows": HARSH, "all": ALL, "lora": LORA, "distill": JOBS["distill"], "both": JOBS["both"]}


def argv_of(job: str, folder: Path, *, out: str) -> list[str]:
    """The command line of a job, its batch and its output left out."""
    name = job.removesuffix(" again").replace(" ", "_")
    data = "other.jsonl" if job == "other data" and os.environ.get("RANK") == "1" else "texts.jsonl"
    given = ["--model_name_or_path", str(folder / "extended"), "--data_path", str(folder / data)]
    given += ["--output_dir", str(folder / f"{out}_{name}"), "--eval_path", str(folder / "held_out.jsonl")]
    flags = ALONE[job] if out == "one" else JOBS[job]
    return [*given, "--packing", "none", "--model_max_length", "64", "--seed", "3", *flags]


def two_processes(run: Callable[[], None], *, logs: Path) -> list[int | None]:
    """Call run() in two forks of this process that torch.distributed connects; return their exit codes.

    logs: RANK.stdout and RANK.stderr of each. A process that waits for one that is gone is ended.
    """
    logs.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    started = [context.Process(target=one_of_two, args=(run, rank, port, logs)) for rank in (0, 1)]
    for process in started:
        process.start()
    wait([process.sentinel for process in started])  # for the first that ends
    time.sleep(1)
    for process in started:
        if any(other.exitcode for other in started):
            process.kill()
        process.join()
    return [process.exitcode for process in started]


def one_of_two(run: Callable[[], None], rank: int, port: int, logs: Path) -> None:
    """What torchrun does for a process: its rank, and where the first one listens."""
    for number, stream in ((1, "stdout"), (2, "stderr")):
        with (logs / f"{rank}.{stream}").open("wb") as file:
            os.dup2(file.fileno(), number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ["GLOO_SOCKET_IFNAME"] = LOOPBACK
    AcceleratorState._reset_state(reset_partial_state=True)  # this process has trained alone before
    run()


def log(logs: Path, rank: int, stream: str) -> str:
    return (logs / f"{rank}.{stream}").read_text(encoding="utf-8")


def let_fsdp_run_on_a_cpu() -> None:
    """Keep accelerate from taking --fsdp for DDP where there is no GPU: all else is what runs on GPUs."""
    made = TrainingArguments.__post_init__

    def pretend(self: Any) -> None:
        made(self)
        if self.fsdp:
            PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU

    TrainingArguments.__post_init__ = pretend


def run_jobs(folder: Path) -> None:
    """What each of the two processes does: all jobs; what came of them goes to rank*.json."""
    let_fsdp_run_on_a_cpu()
    torch.set_num_threads(1)
    processes.PATIENCE = 0
    rank, job = int(os.environ["RANK"]), ""
    found: dict[str, Any] = {}
    step, train = StageTrainer.training_step, train_run._train

    def meddle(self: Any, *args: Any, **options: Any) -> Any:
        if job.endswith("interrupted") and (rank, self.state.global_step) == (1, 2):
            os.kill(os.getpid(), signal.SIGINT)  # one of the processes alone is told
        if job == "killed" and (rank, self.state.global_step) == (0, 3):
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, *args, **options)

    def weigh(trainer: Any, *args: Any, **options: Any) -> Any:
        result = train(trainer, *args, **options)
        assert trainer.parts.sharded == job.startswith("fsdp"), "not what the job is named after"
        found[job] = digest(trainer)
        return result

    def digest(trainer: Any) -> str:
        digest = hashlib.sha256()
        for parameter in trainer.parts.trained().values():
            digest.update(whole(parameter.detach()).numpy().tobytes())
        return digest.hexdigest()

    StageTrainer.training_step, train_run._train = meddle, weigh  # type: ignore[method-assign]
    for job in JOBS:
        try:
            finetune_qwen.main([*argv_of(job, folder, out="two"), "--per_device_train_batch_size", "2"])
        except UserError as error:
            found[job] = str(error)
        except SystemExit as error:
            found[job] = error.code
        (folder / f"rank{rank}.json").write_text(json.dumps(found), encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What the jobs left, and "one_NAME": the same in one process with the batch of both."""
    folder = tmp_path_factory.mktemp("distributed")
    extend(folder, "qwen2", tied=False)
    texts = [f"{text} {n} hôm nay và thanh điệu là một việc." for n, text in enumerate(TEXTS)]
    # Five held-out texts: two processes with batches of 4 get some of them twice, to have as many.
    for name, lines in (("texts", texts), ("other", texts[1:]), ("held_out", texts[:5])):
        rows = [json.dumps({"text": text}, ensure_ascii=False) for text in lines]
        (folder / f"{name}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    assert two_processes(lambda: run_jobs(folder), logs=folder / "logs")[0] == -signal.SIGKILL, "the last job"
    for job in ALONE:
        batch = ["--per_device_train_batch_size", "4"]
        if job in ("distill", "both"):  # one process hears one lesson a forward(), two hear two
            batch = ["--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "2"]
        finetune_qwen.main([*argv_of(job, folder, out="one"), *batch])
    return folder


@pytest.fixture(scope="module")
def found(folder) -> list[dict[str, Any]]:
    return [read_json(folder / f"rank{rank}.json") for rank in (0, 1)]


BOTH_WAYS = ["new rows", "all", "distill", "both", "fsdp new rows", "fsdp all", "fsdp lora", "fsdp both"]


@pytest.mark.parametrize("job", BOTH_WAYS)
def test_two_processes_are_one_with_twice_the_batch(folder, found, job):
    name = job.replace(" ", "_")
    one, two = folder / f"one_{name.removeprefix('fsdp_')}", folder / f"two_{name}"
    before, alone, together = tensors(folder / "extended"), tensors(one), tensors(two)
    assert before.keys() == together.keys()
    assert any(not (before[key] == together[key]).all() for key in before), "nothing moved"
    for key in before:
        # Of some 4e-3 that a number moved: Adam makes much of the rounding of gradients near its eps.
        assert (alone[key] - together[key]).abs().max() < 2e-5, key
    for key in ("bits_per_byte_before", "bits_per_byte_after"):
        assert stage(two)[key] == pytest.approx(stage(one)[key], rel=1e-6)
    assert found[0][job] == found[1][job], "the processes do not agree on what they trained"
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in two.iterdir())
    assert not two.with_name(two.name + ".part").exists()
    if job == "fsdp lora":
        mine, theirs = tensors(one / "adapter"), tensors(two / "adapter")
        assert mine.keys() == theirs.keys() and mine
        assert all((mine[key] - theirs[key]).abs().max() < 1e-5 for key in mine)
    if not job.endswith("all"):
        first = new_rows(folder / "extended").first
        for key in ("model.embed_tokens.weight", "lm_head.weight"):
            assert (before[key][:first] == together[key][:first]).all()
            assert stage(two)["rows"][key]["rows"] == [first, first + len(WORDS)]


def test_the_first_process_alone_speaks(folder):
    first, second = (log(folder / "logs", rank, "stdout") for rank in (0, 1))
    assert first.count("bits per byte ") == first.count("written; try") == 10
    assert second == ""
    assert "packing none" in log(folder / "logs", 0, "stderr")
    assert "packing none" not in log(folder / "logs", 1, "stderr")


def test_errors_name_the_other_process(found):
    first, second = (each["no such layer"] for each in found)
    assert first.startswith("--finetune_layers '7': 7 is no layer") and second == f"process 1: {first}"
    assert found[0]["other data"].startswith("process 1 does not have the data of process 0")


@pytest.mark.parametrize("kind", ["", "fsdp "])
def test_all_end_after_the_same_step_and_go_on_to_the_same_weights(folder, found, kind):
    message = "interrupted after step 3 of 4; the same command goes on from there"
    assert [each[f"{kind}interrupted"] for each in found] == [message, 1]
    names = [f"two_{kind}{name}".replace(" ", "_") for name in ("all", "interrupted")]
    whole, again = (sha256_file(folder / name / "model.safetensors") for name in names)
    assert whole == again


def resume(argv: list[str]) -> None:
    """What torchrun has each of its two processes do."""
    os.environ["GLOO_SOCKET_IFNAME"] = LOOPBACK
    torch.set_num_threads(1)
    AcceleratorState._reset_state(reset_partial_state=True)
    finetune_qwen.main(argv)


def test_a_killed_run_goes_on(folder):
    assert "killed" not in read_json(folder / "rank1.json")
    part = folder / "two_killed.part"
    assert (part / "checkpoint-2" / "rng_state_1.pth").is_file() and not (folder / "two_killed").exists()
    argv = [*argv_of("killed", folder, out="two"), "--per_device_train_batch_size", "2"]
    with pytest.raises(UserError, match="holds another run, its flags differs"):
        finetune_qwen.main(argv)  # one process: the steps would be others
    logs = folder / "torchrun"
    elastic_launch(
        LaunchConfig(
            min_nodes=1, max_nodes=1, nproc_per_node=2, rdzv_backend="c10d", rdzv_endpoint="localhost:0",
            start_method="fork", logs_specs=DefaultLogsSpecs(str(logs), redirects=Std.ALL),
        ),
        resume,
    )(argv)  # fmt: skip
    first, second = (path.read_text(encoding="utf-8") for path in sorted(logs.rglob("stdout.log")))
    assert (first + second).count(f"going on from {part / 'checkpoint-2'}") == 1
    whole = sha256_file(folder / "two_all" / "model.safetensors")
    assert sha256_file(folder / "two_killed" / "model.safetensors") == whole
