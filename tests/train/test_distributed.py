"""finetune_qwen.py in two processes (gloo, CPU): the weights of one process with twice the batch, one voice.

Starting processes is slow, so that one start runs all jobs (this file, run as a script) and a second one goes
on with the job that was killed in the first.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

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


def two_processes(*command: str, logs: Path) -> int:
    """Run a script in two processes; logs: rank → stdout and stderr of it. Return the launcher's status."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    if sys.platform == "linux":
        environment["GLOO_SOCKET_IFNAME"] = "lo"  # whatever the machine calls itself
    run = subprocess.run(
        [*launch, "--log-dir", str(logs), "--redirects", "3", *command], env=environment, capture_output=True
    )
    return run.returncode


def log(logs: Path, rank: int, stream: str) -> str:
    (path,) = logs.glob(f"*/attempt_0/{rank}/{stream}.log")
    return path.read_text(encoding="utf-8")


def let_fsdp_run_on_a_cpu() -> None:
    """Keep accelerate from taking --fsdp for DDP where there is no GPU: all else is what runs on GPUs."""
    from accelerate.state import DistributedType, PartialState
    from transformers import TrainingArguments

    made = TrainingArguments.__post_init__

    def pretend(self: Any) -> None:
        made(self)
        if self.fsdp:
            PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU

    TrainingArguments.__post_init__ = pretend


def run_jobs(folder: Path) -> None:
    """What each of the two processes does: all jobs; what came of them goes to rank*.json."""
    import torch

    import finetune_qwen
    from vocabkit.errors import UserError
    from vocabkit.models.split_rows import whole
    from vocabkit.train import processes  # noqa: E402
    from vocabkit.train import run as train_run
    from vocabkit.train.run import _train
    from vocabkit.train.trainer import StageTrainer

    let_fsdp_run_on_a_cpu()
    torch.set_num_threads(1)
    processes.PATIENCE = 0
    rank, job = int(os.environ["RANK"]), ""
    found: dict[str, Any] = {}
    step, write = StageTrainer.training_step, _train

    def meddle(self: Any, *args: Any, **options: Any) -> Any:
        if job.endswith("interrupted") and (rank, self.state.global_step) == (1, 2):
            os.kill(os.getpid(), signal.SIGINT)  # one of the processes alone is told
        if job == "killed" and (rank, self.state.global_step) == (0, 3):
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, *args, **options)

    def weigh(trainer: Any, *args: Any) -> Any:
        result = write(trainer, *args)
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


if __name__ == "__main__":
    run_jobs(Path(sys.argv[1]))
    sys.exit(0)

from training import TEXTS, WORDS, extend, stage, tensors  # noqa: E402

import finetune_qwen  # noqa: E402
from vocabkit.checkpoint.record import new_rows  # noqa: E402
from vocabkit.errors import UserError  # noqa: E402
from vocabkit.files import read_json, sha256_file  # noqa: E402
from vocabkit.train import processes  # noqa: E402
from vocabkit.train.processes import PATIENCE, one_voice  # noqa: E402


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
    assert two_processes(__file__, str(folder), logs=folder / "logs") != 0, "the last job is killed"
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
        assert (alone[key] - together[key]).abs().max() < 1e-5, key
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


def test_a_killed_run_goes_on(folder):
    assert "killed" not in read_json(folder / "rank1.json")
    part = folder / "two_killed.part"
    assert (part / "checkpoint-2" / "rng_state_1.pth").is_file() and not (folder / "two_killed").exists()
    argv = [*argv_of("killed", folder, out="two"), "--per_device_train_batch_size", "2"]
    with pytest.raises(UserError, match="holds another run, its flags differs"):
        finetune_qwen.main(argv)  # one process: the steps would be others
    assert two_processes("finetune_qwen.py", *argv, logs=folder / "again") == 0
    assert f"going on from {part / 'checkpoint-2'}" in log(folder / "again", 0, "stdout")
    whole = sha256_file(folder / "two_all" / "model.safetensors")
    assert sha256_file(folder / "two_killed" / "model.safetensors") == whole


def test_another_process_waits_with_its_error_and_says_nothing_else(monkeypatch, capsys):
    slept: list[float] = []
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setattr(processes.time, "sleep", slept.append)
    with pytest.raises(UserError, match="^process 3: a file is missing$"), one_voice():
        print("hello")
        raise UserError("a file is missing")
    with pytest.raises(SystemExit), one_voice():
        raise KeyboardInterrupt
    assert slept == [PATIENCE] and capsys.readouterr().out == ""


def test_accelerate_on_a_cpu_starts_one_process(monkeypatch):
    """Its launcher sets this, and no rank: what was to be two processes would quietly be one."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(UserError, match="starts one process on a CPU"):
        finetune_qwen.main(["--model_name_or_path", "m", "--data_path", "d", "--output_dir", "o"])
