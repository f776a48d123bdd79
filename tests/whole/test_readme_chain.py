"""README.md's way from a model to a finetuned GGUF, each line as it stands there, on the bundled model."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import ROOT

from vocabkit.checkpoint.record import EditRecord
from vocabkit.files import read_jsonl

SHORT = ["--max_steps", "2", "--model_max_length", "64"]  # a stage on this model; the rest is README's


def chain() -> list[str]:
    """The commands of the section, in their order."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## From a model to a finetuned GGUF")[1]
    return re.search(r"```bash\n(.*?)```", section, re.DOTALL)[1].strip().split("\n")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> dict[str, str]:
    """Command → what it printed, all run in one folder beside the model."""
    folder = tmp_path_factory.mktemp("chain")
    work = folder / "work"
    (work / "corpus").mkdir(parents=True)
    shutil.copytree(ROOT / "data" / "demo", folder / "Qwen2.5-1.5B-Instruct")
    for path in [*ROOT.glob("*.py"), *ROOT.glob("*.sh")]:
        (work / path.name).symlink_to(path)
    rows = [row for _, row in read_jsonl(ROOT / "data" / "vi_words_similarity.jsonl")]
    sentences = [text for row in rows for text in row["examples"]]
    (work / "corpus" / "vi.txt").write_text("\n".join(sentences), encoding="utf-8")
    for name, texts in (
        ("vi", sentences[:120]),
        ("en", [t for row in rows[:30] for t in row["examples_en"]]),
    ):
        lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
        (work / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    shutil.copy(ROOT / "data" / "demo" / "train_chats.jsonl", work / "chats.jsonl")
    bin_folder = Path(sys.executable).parent
    found = {}
    for command in chain():
        argv = shlex.split(command)
        argv += ["--", *SHORT] if argv[0].endswith(".sh") and "--" not in argv else []
        done = subprocess.run(
            argv, cwd=work, input="Xin chào\n", capture_output=True, text=True, timeout=600,
            env={"PATH": f"{bin_folder}:/usr/bin:/bin", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        found[command] = done.stdout
    found["folder"] = str(folder)
    return found


@pytest.mark.slow
def test_every_line_of_the_chain_runs_and_the_chat_answers(outputs):
    commands = chain()
    assert len(commands) == 8 and sum(command.startswith("./finetune") for command in commands) == 3
    assert "Bot: " in outputs[commands[-1]]


@pytest.mark.slow
def test_stage_1_teaches_words_and_syllables_in_one_run(outputs):
    folder = Path(outputs["folder"]) / "Qwen2.5-1.5B-Instruct__extend_vocab__1_embeddings_massage"
    record = EditRecord.read(folder)
    assert record.words and record.syllables, "the list has one kind alone: the test shows nothing"
    (stage,) = record.training
    assert stage["objective"] == "both" and {"English", "Vietnamese"} < stage["other_text"].keys()
    assert re.search(r"^contexts +[\d,]+ of [\d,]+ new tokens$", outputs[chain()[3]], re.MULTILINE)
