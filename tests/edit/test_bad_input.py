"""What goes wrong on a user's machine: one line that says what to do, the source untouched, no half output.

Broken inputs run in this process through run_cli(); signals, full disks and races run the script itself.
"""

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import build
import pytest
from safetensors.torch import load_file, save_file
from tiny import ROOT, edit_json

import model_edit
from vocabkit.checkpoint.shards import read_checkpoint
from vocabkit.errors import run_cli
from vocabkit.files import read_json, write_json

INDEX = "model.safetensors.index.json"
SECOND = "model-00002-of-00003.safetensors"
COMMAND = [sys.executable, str(ROOT / "model_edit.py"), "-t", "trimm_vocab"]
EMBED = "model.embed_tokens.weight"


@pytest.fixture(scope="session")
def checkpoints(checkpoint) -> dict[str, Path]:
    """One checkpoint in one file and the same in three; nobody may change them."""
    return {"single": checkpoint(), "sharded": checkpoint(shards=3)}


@pytest.fixture
def work(tmp_path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def trim(capfd, *argv: object) -> tuple[int, str]:
    """Run the script's main() as run_cli() runs it; return the exit status and stderr."""
    capfd.readouterr()
    with pytest.raises(SystemExit) as stopped:
        run_cli(lambda: model_edit.main(["-t", "trimm_vocab", *map(str, argv)]))
    return int(stopped.value.code or 0), capfd.readouterr().err


# Each case spoils a copy of a checkpoint; returned are more arguments. "{m}" in a message is the model.


def spoil_json(name: str, **changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / name, **changes)


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def overwrite(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def cut(name: str, size: int) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size - size)


def in_header(name: str, old: bytes, new: bytes) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        content = (folder / name).read_bytes()
        assert len(old) == len(new) and old in content
        (folder / name).write_bytes(content.replace(old, new, 1))

    return spoil


def in_index(tensor: str, file: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        index = read_json(folder / INDEX)
        index["weight_map"][tensor] = file
        write_json(folder / INDEX, index)

    return spoil


def with_list(name: str, content: object) -> Callable[[Path], list[object]]:
    def spoil(folder: Path) -> list[object]:
        path = folder.parent / name
        text = content if isinstance(content, str) else "".join(json.dumps(row) + "\n" for row in content)
        path.write_text(text, encoding="utf-8")
        return ["--keep", path]

    return spoil


def list_of_another_tokenizer(folder: Path) -> list[object]:
    target = folder.parent / "other__1000__20000"
    target.mkdir()
    write_json(target / "summary.json", {"format": "vocab-lists", "version": 1, "fingerprint": "f" * 64})
    (target / "tokens_kept__others.jsonl").write_text('["!", 0, 7]\n', encoding="utf-8")
    return ["--keep", target]


def tensor_twice(folder: Path) -> None:
    tensors = load_file(folder / SECOND)
    first = load_file(folder / "model-00001-of-00003.safetensors")
    save_file({**tensors, **dict([next(iter(first.items()))])}, folder / SECOND)


def quantized(folder: Path) -> None:
    import torch

    tensors = load_file(folder / "model.safetensors")
    rows = tensors[EMBED].shape[0]
    tensors["model.embed_tokens.scales"] = torch.ones(rows)
    save_file({**tensors, EMBED: tensors[EMBED].to(torch.int8)}, folder / "model.safetensors")


def pickled(folder: Path) -> None:
    """The weights as a pickle that makes a folder when it is loaded."""
    import torch

    (folder / "model.safetensors").unlink()
    torch.save({EMBED: Bomb(str(folder.parent / "EXECUTED"))}, folder / "pytorch_model.bin")


class Bomb:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (self.path,)


def other_pickled(folder: Path) -> None:
    """Weights under a name that nobody reads: they are not even opened."""
    pickled(folder)
    (folder / "pytorch_model.bin").rename(folder / "consolidated.00.pth")


def custom_code(folder: Path) -> None:
    """An architecture that transformers does not know, with code that makes a file when it is imported."""
    code = f"import os\nos.mkdir({str(folder.parent / 'EXECUTED')!r})\n"
    for name in ("configuration_evil.py", "modeling_evil.py"):
        (folder / name).write_text(code, encoding="utf-8")
    auto_map = {
        "AutoConfig": "configuration_evil.EvilConfig",
        "AutoModelForCausalLM": "modeling_evil.EvilModel",
    }
    edit_json(folder / "config.json", model_type="evil", architectures=["EvilModel"], auto_map=auto_map)


def own_out(kind: str) -> Callable[[Path], list[object]]:
    def spoil(folder: Path) -> list[object]:
        if kind == "exists":
            (folder.parent / "out").mkdir()
            return ["-o", folder.parent / "out"]
        return ["-o", folder.parent / "no" / "such" / "out"]

    return spoil


TOKENIZER_MERGE = ["Ġ", "zz"]


def merge_of_nothing(folder: Path) -> None:
    data = read_json(folder / "tokenizer.json")
    data["model"]["merges"].append(TOKENIZER_MERGE)
    write_json(folder / "tokenizer.json", data)


def unknown_kind(folder: Path) -> None:
    data = read_json(folder / "tokenizer.json")
    data["model"]["type"] = "WordPiece"
    write_json(folder / "tokenizer.json", data)


def more_ids_than_rows(folder: Path) -> None:
    data = read_json(folder / "tokenizer.json")
    data["added_tokens"].append({**data["added_tokens"][0], "id": 700, "content": "<|far|>"})
    write_json(folder / "tokenizer.json", data)


CASES: dict[str, tuple[str, Callable[[Path], object], list[str]]] = {
    "no folder": ("single", shutil.rmtree, ["{m} is not a folder", "give the folder of a Hugging Face"]),
    "no tokenizer.json": (
        "single",
        remove("tokenizer.json"),
        ["{m}/tokenizer.json is missing", "AutoTokenizer", "save_pretrained"],
    ),
    "no config.json": (
        "single",
        remove("config.json"),
        ["{m}/config.json is missing", "complete checkpoint"],
    ),
    "config.json cut short": ("single", cut("config.json", 40), ["{m}/config.json:", "is not JSON", "again"]),
    "config.json is a list": (
        "single",
        overwrite("config.json", b"[]"),
        ["holds a list, expected an object"],
    ),
    "tokenizer.json cut short": (
        "single",
        cut("tokenizer.json", 99),
        ["{m}/tokenizer.json", "download the file again"],
    ),
    "tokenizer.json is empty": ("single", overwrite("tokenizer.json", b""), ["{m}/tokenizer.json:1"]),
    "merge of no token": (
        "single",
        merge_of_nothing,
        ["{m}/tokenizer.json", "'Ġ' 'zz' needs", "download the file again"],
    ),
    "unknown kind of tokenizer": (
        "single",
        unknown_kind,
        ["{m}/tokenizer.json", "'WordPiece', expected 'BPE' or 'Unigram'"],
    ),
    "no weights": ("single", remove("model.safetensors"), ["{m} has neither model.safetensors nor"]),
    "weights cut short": (
        "single",
        cut("model.safetensors", 5),
        ["{m}/model.safetensors has", "its header describes", "again"],
    ),
    "weights are empty": (
        "single",
        overwrite("model.safetensors", b""),
        ["{m}/model.safetensors has 0 bytes", "truncated"],
    ),
    "weights are garbage": (
        "single",
        overwrite("model.safetensors", os.urandom(5000)),
        ["{m}/model.safetensors has 5,000 bytes"],
    ),
    "weights are a web page": (
        "single",
        overwrite("model.safetensors", b"<!DOCTYPE html>" * 9),
        ["{m}/model.safetensors", "again"],
    ),
    "weights are a git-lfs pointer": (
        "single",
        overwrite("model.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        ["{m}/model.safetensors", "again"],
    ),
    "header is damaged": (
        "single",
        in_header("model.safetensors", b'"dtype"', b'"dtyqe"'),
        ["{m}/model.safetensors: ['model.embed_tokens.weight'] has no 'dtype'"],
    ),
    "shape is damaged": (
        "single",
        in_header("model.safetensors", b"[512,32]", b"[992,32]"),
        ["{m}/model.safetensors: ", "has 65,536 bytes, (992, 32) needs 126,976"],
    ),
    "shard is missing": ("sharded", remove(SECOND), [f"{{m}}/{SECOND} is missing; download"]),
    "index names a missing file": (
        "sharded",
        in_index(EMBED, "model-00004-of-00003.safetensors"),
        ["{m}/model-00004-of-00003.safetensors"],
    ),
    "index names a file outside": (
        "sharded",
        in_index(EMBED, "../outside.safetensors"),
        [f"{{m}}/{INDEX}: {EMBED}", "'../outside.safetensors', expected a file of the folder itself"],
    ),
    "index names the wrong file": (
        "sharded",
        in_index(EMBED, "model-00003-of-00003.safetensors"),
        [f"{{m}}/{INDEX}: {EMBED} is not in {{m}}/model-00003-of-00003.safetensors", "download both"],
    ),
    "tensor in two files": (
        "sharded",
        tensor_twice,
        ["is both in {m}/model-00001", f"and in {{m}}/{SECOND}"],
    ),
    "rows are not vocab_size": (
        "single",
        spoil_json("config.json", vocab_size=500),
        [
            f"{{m}}/model.safetensors: {EMBED} has 512 rows",
            "{m}/config.json says vocab_size 500",
            "download both",
        ],
    ),
    "more ids than rows": (
        "single",
        more_ids_than_rows,
        ["{m}/tokenizer.json: the added token '<|far|>' has id 700", "makes it 424", "give it this id"],
    ),
    "id without a token": (
        "single",
        spoil_json("generation_config.json", eos_token_id=480),
        ["{m}/generation_config.json: eos_token_id is 480", "424 tokens"],
    ),
    "vocab.json of another tokenizer": (
        "single",
        spoil_json("vocab.json", the=3),
        ["{m}/vocab.json: 'the' has id 3", "download both"],
    ),
    "merges.txt of another tokenizer": (
        "single",
        overwrite("merges.txt", b"#version: 0.2\nt h\n"),
        ["{m}/merges.txt has 1 merges", "download both"],
    ),
    "quantized embeddings": (
        "single",
        quantized,
        [f"{{m}}/model.safetensors: {EMBED} is quantized", "embed_tokens.scales"],
    ),
    "untied without a head": (
        "single",
        spoil_json("config.json", tie_word_embeddings=False),
        ["{m}/config.json says tie_word_embeddings false, but {m} has no output head", "lm_head.weight"],
    ),
    "pickle that runs code": (
        "single",
        pickled,
        ["{m}/pytorch_model.bin holds posix.mkdir, expected tensors only", "this model's safetensors"],
    ),
    "pickle of another name": (
        "single",
        other_pickled,
        ["{m} has no safetensors, only consolidated.00.pth", "convert it"],
    ),
    "custom code": (
        "single",
        custom_code,
        ["{m}/config.json: model_type 'evil'", "never run here", "another model"],
    ),
    "list of another tokenizer": (
        "single",
        list_of_another_tokenizer,
        ["summary.json", "ffffffffffff…", "build_vocab.py"],
    ),
    "list with another token": (
        "single",
        with_list("kept.jsonl", [["!", 0, 1], ["?", 1, 1]]),
        ["kept.jsonl:2", "'?'", "'\"'"],
    ),
    "list with an id out of range": (
        "single",
        with_list("kept.txt", "0\n424\n"),
        ["kept.txt:2", "no token has id 424", "end at 423"],
    ),
    "list with a negative id": ("single", with_list("kept.json", "[0, -1]"), ["kept.json", "-1"]),
    "list with a line that is no number": (
        "single",
        with_list("kept.txt", "0\nx7\n"),
        ["kept.txt:2", "'x7'"],
    ),
    "list with a line that is no JSON": (
        "single",
        with_list("kept.jsonl", '["!", 0, 1]\n["!", 0,\n'),
        ["kept.jsonl:2", "not JSON"],
    ),
    "list with a row of two": (
        "single",
        with_list("kept.jsonl", '["!", 0]\n'),
        ["kept.jsonl:1", "token_id, count"],
    ),
    "list that is an object": (
        "single",
        with_list("kept.json", '{"a": 1}'),
        ["kept.json is no list of token ids"],
    ),
    "list that is empty": ("single", with_list("kept.txt", "# none\n"), ["kept.txt: no id to keep"]),
    "list of an unknown kind": (
        "single",
        with_list("kept.csv", "0"),
        ["kept.csv", "'.csv'", ".jsonl, .txt or .json"],
    ),
    "list that is missing": ("single", lambda m: ["--keep", m.parent / "no.txt"], ["no.txt is missing"]),
    "list folder without lists": ("single", lambda m: ["--keep", m], ["{m} holds no tokens_kept__*.jsonl"]),
    "OUT exists": ("single", own_out("exists"), ["out already exists", "-o", "rm -r"]),
    "OUT has no parent": ("single", own_out("no parent"), ["such is not a folder", "mkdir -p"]),
    "pad_multiple of 0": (
        "single",
        lambda m: ["--pad_multiple", 0],
        ["--pad_multiple is 0, expected a number from 1 to 65536"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_clear_line(checkpoints, work, capfd, case):
    kind, spoil, wanted = CASES[case]
    model = Path(shutil.copytree(checkpoints[kind], work / "model"))
    argv = spoil(model)
    argv = argv if isinstance(argv, list) else []
    before = build.fingerprints(work), sorted(work.rglob("*"))
    status, stderr = trim(capfd, "-m", model, *argv)
    assert status == 1
    assert stderr.startswith("error: ") and stderr.count("\n") == 1 and stderr.endswith("\n"), stderr
    for text in wanted:
        assert text.replace("{m}", str(model)) in stderr, stderr
    assert (build.fingerprints(work), sorted(work.rglob("*"))) == before, "something was written or changed"


@pytest.mark.parametrize("kind", ["single", "sharded"])
def test_the_copies_are_fine_before_they_are_spoiled(checkpoints, work, capfd, kind):
    assert trim(capfd, "-m", checkpoints[kind], "-o", work / "out") == (0, "")


@pytest.mark.slow
def test_errors_of_the_script_itself(checkpoints, work):
    """The same through the interpreter: nothing of a library's chatter on stderr."""
    model = Path(shutil.copytree(checkpoints["single"], work / "model"))
    custom_code(model)
    result = subprocess.run([*COMMAND, "-m", model], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert sorted(path.name for path in work.iterdir()) == ["model"]


# Where files come from


def test_read_only_source_folder(checkpoints, work, capfd):
    model = Path(shutil.copytree(checkpoints["sharded"], work / "model"))
    before = build.fingerprints(model)
    for path in model.iterdir():
        path.chmod(0o444)
    model.chmod(0o555)
    try:
        assert trim(capfd, "-m", model, "-o", work / "out")[0] == 0
    finally:
        model.chmod(0o755)
    assert build.fingerprints(model) == before
    writable = [stat.S_IMODE(path.stat().st_mode) & stat.S_IWUSR for path in (work / "out").iterdir()]
    assert all(writable), "the output is the user's to change"


@pytest.mark.parametrize("options", [[], ["--hardlink"]])
def test_symlinked_files_of_the_hub_cache(checkpoints, work, capfd, options):
    """snapshots/REVISION/NAME → ../../blobs/SHA, as huggingface_hub lays them out."""
    blobs, model = work / "blobs", work / "snapshots" / "abc"
    blobs.mkdir()
    model.mkdir(parents=True)
    for path in (checkpoints["sharded"]).iterdir():
        shutil.copy(path, blobs / f"blob-of-{path.name}".replace(".", "-"))
        (model / path.name).symlink_to(Path("../../blobs") / f"blob-of-{path.name}".replace(".", "-"))
    before = build.fingerprints(work)
    status, stderr = trim(capfd, "-m", model, "-o", work / "out", *options)
    assert status == 0, stderr
    assert not [path for path in (work / "out").iterdir() if path.is_symlink()]
    after = build.fingerprints(work)
    assert {name: after[name] for name in before} == before
    assert read_checkpoint(work / "out").size < read_checkpoint(model).size


def test_default_output_stands_beside_the_model(checkpoints, work, capfd):
    model = Path(shutil.copytree(checkpoints["single"], work / "model"))
    assert trim(capfd, "-m", f"{model}/")[0] == 0
    assert sorted(path.name for path in work.iterdir()) == ["model", "model__trimm_vocab"]


# Full disks


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["single", "sharded", "bin"])
def test_a_full_disk_leaves_nothing(checkpoints, work, small_disk, kind):
    model, notice = checkpoints.get(kind, work / "model"), ""
    if kind == "bin":
        model = Path(shutil.copytree(checkpoints["single"], work / "model"))
        build.as_bin(model)
        notice = (
            f"{model} has no safetensors: reading pytorch_model.bin with weights_only=True and writing it "
        )
        notice += "as safetensors first\n"
    command = [*COMMAND, "-m", model, "-o", small_disk / "out"]
    filler = small_disk / "filler"
    filler.write_bytes(bytes(960_000))  # less is left than the weights need
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    stderr = result.stderr.removeprefix(notice)
    assert stderr.startswith("error: ") and stderr.count("\n") == 1, stderr
    assert str(small_disk / "out.part") in stderr
    assert "No space left on device; free some space, then run the same command again" in result.stderr
    assert [path.name for path in small_disk.iterdir()] == ["filler"]
    filler.unlink()
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, notice)


# Interrupted runs. The body of the model is zeros that take no space to read and much time to write.


def big_model(folder: Path, template: Path, *, size: int, sharded: bool) -> Path:
    """Copy a checkpoint and add size bytes of zeros to it: to its only file, or as a shard of their own."""
    shutil.copytree(template, folder)
    tensors = load_file(folder / "model.safetensors")
    body = ("F32", [size // 4], size)
    rows, width = tensors[EMBED].shape
    embed = ("F32", [rows, width], tensors[EMBED].numpy().tobytes())
    if not sharded:
        build.write_safetensors(folder / "model.safetensors", {"a.zeros": body, EMBED: embed})
        return folder
    (folder / "model.safetensors").unlink()
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    build.write_safetensors(folder / names[0], {"a.zeros": body})
    build.write_safetensors(folder / names[1], {EMBED: embed})
    write_json(
        folder / INDEX,
        {
            "metadata": {"total_size": size + len(embed[2])},
            "weight_map": {"a.zeros": names[0], EMBED: names[1]},
        },
    )
    return folder


def interrupt_in_the_middle(process: subprocess.Popen, part: Path, number: int, *, size: int) -> None:
    """Send a signal as soon as some, and not all, of the weights are in OUT.part."""
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(FileNotFoundError):
            written = sum(path.stat().st_size for path in part.rglob("*.safetensors"))
            if written > 1 << 20:
                process.send_signal(number)
                assert written < size, "too late: the weights were all there"
                return
        time.sleep(0.001)
    pytest.fail("the run ended before its weights could be seen")


@pytest.mark.slow
@pytest.mark.parametrize("sharded", [False, True], ids=["one file", "shards"])
def test_ctrl_c_leaves_nothing(checkpoints, work, sharded):
    size = 300 << 20
    model = big_model(work / "model", checkpoints["single"], size=size, sharded=sharded)
    process = subprocess.Popen(
        [*COMMAND, "-m", model, "-o", work / "out"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    interrupt_in_the_middle(process, work / "out.part", signal.SIGINT, size=size)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert stderr.startswith("error: interrupted") and stderr.count("\n") == 1, stderr
    assert sorted(path.name for path in work.iterdir()) == ["model"]


@pytest.mark.slow
@pytest.mark.parametrize("sharded", [False, True], ids=["one file", "shards"])
def test_a_killed_run_never_looks_finished_and_the_next_one_starts_clean(checkpoints, work, sharded):
    size = 300 << 20
    model = big_model(work / "model", checkpoints["single"], size=size, sharded=sharded)
    process = subprocess.Popen(
        [*COMMAND, "-m", model, "-o", work / "out"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    interrupt_in_the_middle(process, work / "out.part", signal.SIGKILL, size=size)
    assert process.wait(60) == -signal.SIGKILL
    assert sorted(path.name for path in work.iterdir()) == ["model", "out.part"]
    result = subprocess.run([*COMMAND, "-m", model, "-o", work / "out"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert f"removing {work / 'out.part'}, left by a run that was interrupted" in result.stderr
    assert sorted(path.name for path in work.iterdir()) == ["model", "out"]
    assert read_json(work / "out" / "verify_report.json")["passed"]


@pytest.mark.slow
def test_two_runs_with_one_output(checkpoints, work):
    model = big_model(work / "model", checkpoints["single"], size=100 << 20, sharded=False)
    runs = [
        subprocess.Popen(
            [*COMMAND, "-m", model, "-o", work / "out"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    errors = [run.communicate(timeout=120)[1] for run in runs]
    statuses = [run.returncode for run in runs]
    assert sorted(statuses) == [0, 1, 1], errors
    for status, stderr in zip(statuses, errors, strict=True):
        if status:
            assert stderr.startswith("error: ") and stderr.count("\n") == 1, stderr
            assert "another run" in stderr or "already exists" in stderr, stderr
        else:
            assert "removing" not in stderr, "a run took away what another was writing"
    assert sorted(path.name for path in work.iterdir()) == ["model", "out"]
    assert read_json(work / "out" / "verify_report.json")["passed"]
    assert read_checkpoint(work / "out").tensors.keys() == read_checkpoint(model).tensors.keys()
