"""README.md's way from a model to a finetuned GGUF, each line as it stands there, on the bundled model."""

import re
import shutil
from pathlib import Path

import chain
import pytest
from tiny import ROOT

from vocabkit.checkpoint.record import EditRecord


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> dict[str, str]:
    """Command → what it printed, all run in one folder beside the model."""
    folder = tmp_path_factory.mktemp("chain")
    work = chain.make_work(folder)
    shutil.copytree(ROOT / "data" / "demo", folder / chain.MODEL)
    return {command: chain.run(command, work) for command in chain.commands()} | {"folder": str(folder)}


@pytest.mark.slow
def test_every_line_of_the_chain_runs_and_the_chat_answers(outputs):
    commands = chain.commands()
    assert len(commands) == 8 and sum(command.startswith("./finetune") for command in commands) == 3
    assert "Bot: " in outputs[commands[-1]]


@pytest.mark.slow
def test_stage_1_teaches_words_and_syllables_in_one_run(outputs):
    folder = Path(outputs["folder"]) / f"{chain.MODEL}__extend_vocab__1_embeddings_massage"
    record = EditRecord.read(folder)
    assert record.words and record.syllables, "the list has one kind alone: the test shows nothing"
    (stage,) = record.training
    assert stage["objective"] == "both" and {"English", "Vietnamese"} < stage["other_text"].keys()
    assert re.search(r"^contexts +[\d,]+ of [\d,]+ new tokens$", outputs[chain.commands()[3]], re.MULTILINE)
