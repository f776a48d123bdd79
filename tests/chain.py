"""README.md's way from a model to a finetuned GGUF: its commands, a folder for them, a run."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from tiny import ROOT

from vocabkit.files import read_jsonl

SHORT = ["--max_steps", "2", "--model_max_length", "64"]  # a stage in seconds; the rest is README's
MODEL = "Qwen2.5-1.5B-Instruct"


def commands() -> list[str]:
    """The commands of the section, in their order."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## From a model to a finetuned GGUF")[1]
    return re.search(r"```bash\n(.*?)```", section, re.DOTALL)[1].strip().split("\n")


def make_work(folder: Path) -> Path:
    """Return folder/work with the scripts, corpus/ and the data that the stages are given."""
    work = folder / "work"
    (work / "corpus").mkdir(parents=True)
    for path in [*ROOT.glob("*.py"), *ROOT.glob("*.sh")]:
        (work / path.name).symlink_to(path)
    rows = [row for _, row in read_jsonl(ROOT / "data" / "vi_words_similarity.jsonl")]
    texts = {
        name: [t for row in rows for t in row[key]]
        for name, key in (("vi", "examples"), ("en", "examples_en"))
    }
    (work / "corpus" / "vi.txt").write_text("\n".join(texts["vi"]), encoding="utf-8")
    for name, some in texts.items():
        lines = [json.dumps({"text": text}, ensure_ascii=False) for text in some[:100]]
        (work / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    shutil.copy(ROOT / "data" / "demo" / "train_chats.jsonl", work / "chats.jsonl")
    return work


def run(command: str, work: Path, *, said: str = "Xin chào\n") -> str:
    """Run one command there and return what it printed on stdout; said: what the user types."""
    argv = shlex.split(command)
    argv += ["--", *SHORT] if argv[0].endswith(".sh") and "--" not in argv else []
    done = subprocess.run(
        argv, cwd=work, input=said, capture_output=True, text=True, timeout=900,
        env={
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        },
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout
