"""The scripts' command lines: documented commands parse, --help is quick, every task runs."""

import json
import resource
import shlex
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from safetensors.torch import load_file, save_file
from tiny import ROOT

import build_vi_words
import build_vocab
import model_chat
import model_edit
from vocabkit.errors import UserError, run_cli
from vocabkit.files import read_json

SCRIPTS = {
    "build_vocab.py": build_vocab,
    "build_vi_words.py": build_vi_words,
    "model_edit.py": model_edit,
    "model_chat.py": model_chat,
}
HEAVY = ("torch", "transformers", "numpy", "tokenizers", "tqdm", "regex")


@pytest.fixture(scope="session")
def model(checkpoint) -> Path:
    return checkpoint()


@pytest.fixture(scope="session")
def trimmed(model, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "trimmed"
    assert model_edit.main(["-m", str(model), "-t", "trimm_vocab", "-o", str(out)]) == 0
    return out


def documented_commands(script: ModuleType) -> list[str]:
    return [line.strip() for line in (script.__doc__ or "").splitlines() if line.startswith("    ")]


@pytest.mark.parametrize("name", SCRIPTS)
def test_commands_of_the_docstring_parse(name):
    commands = documented_commands(SCRIPTS[name])
    assert len(commands) >= 2
    for command in commands:
        python, script, *argv = shlex.split(command)
        assert (python, script) == ("python3", name), command
        SCRIPTS[name].build_parser().parse_args(argv)


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_begins_with_examples_and_shows_defaults(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        SCRIPTS[name].build_parser().parse_args(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert text.index(documented_commands(SCRIPTS[name])[0]) < text.index("options:")
    assert "default" in text and "%(" not in text


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_is_quick(name):
    """In seconds of the processor: other work on the machine makes them no more."""
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, name, "--help"], cwd=ROOT, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert statistics.median(seconds) < 0.3


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_loads_nothing_heavy(name):
    code = (
        "import runpy, sys\n"
        f"sys.argv = [{name!r}, '--help']\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        f"except SystemExit:\n    print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.stderr == "[]\n"


@pytest.mark.parametrize("name", SCRIPTS)
def test_wrong_options_are_refused(name, capsys):
    for argv in ([], ["--no_such_option"], ["-m", "x", "-t", "no_such_task"], ["-m", "x", "-t", "trim"]):
        if argv == [] or name == "model_edit.py" or argv[0].startswith("--"):
            with pytest.raises(SystemExit) as stopped:
                SCRIPTS[name].main(argv)
            assert stopped.value.code == 2 and "error:" in capsys.readouterr().err


def test_options_are_not_guessed_from_their_beginnings():
    with pytest.raises(SystemExit):
        model_edit.build_parser().parse_args(["-m", "x", "-t", "trimm_vocab", "--dry"])


# Tasks


@pytest.mark.parametrize("task", ["trimm_vocab", "trim_vocab"])
def test_both_spellings_of_the_task(model, tmp_path, task, capsys):
    copy = Path(shutil.copytree(model, tmp_path / "model"))
    assert model_edit.main(["-m", str(copy), "-t", task]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "model__trimm_vocab"]
    edit = read_json(tmp_path / "model__trimm_vocab" / "vocab_edit.json")
    assert edit["task"] == "trimm_vocab" and edit["made_by"].startswith("model_edit.py")
    assert f"python3 model_chat.py {tmp_path / 'model__trimm_vocab'}" in capsys.readouterr().out


def test_options_reach_the_task(model, tmp_path):
    kept = tmp_path / "kept.json"
    kept.write_text(json.dumps([0, 1, 2]), encoding="utf-8")
    argv = ["-m", model, "-t", "trimm_vocab", "-o", tmp_path / "out", "--keep", kept, kept]
    argv += ["--pad_multiple", 1, "--allow_all_bytes", "--hardlink"]
    assert model_edit.main([str(arg) for arg in argv]) == 0
    edit = read_json(tmp_path / "out" / "vocab_edit.json")
    assert (edit["pad_rows"], edit["suppressed"], edit["keep"]["requested"]) == (None, {}, 3)
    assert model_edit.main([*map(str, argv[:4]), "-o", str(tmp_path / "not"), "--dry_run"]) == 0
    assert not (tmp_path / "not").exists()


def test_results_go_to_stdout_and_a_log_gets_no_progress_bar(model, tmp_path):
    command = [sys.executable, ROOT / "model_edit.py", "-t", "trimm_vocab", "-m", model, "-o"]
    result = subprocess.run([*command, tmp_path / "out"], capture_output=True, text=True)
    assert result.returncode == 0 and result.stderr == ""
    assert "91.5% kept" in result.stdout and "ok     3 rows" in result.stdout


def test_verify_edit(model, trimmed, tmp_path, capsys):
    argv = ["-b", str(model), "-t", "verify_edit", "-m"]
    assert model_edit.main([*argv, str(trimmed)]) == 0
    printed = capsys.readouterr().out
    assert "every check holds" in printed
    for rung in ("1 files", "2 tokenizer", "3 rows", "4 logits", "5 cost"):
        assert f"ok     {rung}" in printed
    broken = Path(shutil.copytree(trimmed, tmp_path / "broken"))
    tensors = load_file(broken / "model.safetensors")
    tensors["model.embed_tokens.weight"][7] += 1
    save_file(tensors, broken / "model.safetensors")
    assert model_edit.main([*argv, str(broken)]) == 1
    assert "FAILED 3 rows" in capsys.readouterr().out


def test_view_and_compare(model, trimmed, capsys):
    assert model_edit.main(["-m", str(trimmed), "-b", str(model), "-t", "view_embeddings"]) == 0
    assert "embed_tokens" in capsys.readouterr().out
    assert model_edit.main(["-m", str(trimmed), "-b", str(model), "-t", "compare_vocab"]) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize("task", ["verify_edit", "compare_vocab"])
def test_tasks_on_two_folders_ask_for_the_second(model, task):
    with pytest.raises(UserError, match=f"{task} compares two folders: give the other one with -b"):
        model_edit.main(["-m", str(model), "-t", task])


@pytest.mark.parametrize("argv", [["-t", "verify_edit"], ["-t", "view_embeddings"], ["-t", "compare_vocab"]])
def test_errors_of_every_task_are_one_line(model, tmp_path, capsys, argv):
    argv = ["-m", str(tmp_path / "nothing"), "-b", str(model), *argv]
    with pytest.raises(SystemExit) as stopped:
        run_cli(lambda: model_edit.main(argv))
    out, err = capsys.readouterr()
    assert stopped.value.code == 1 and out == ""
    assert err.startswith("error: ") and str(tmp_path / "nothing") in err and err.count("\n") == 1


def test_verify_edit_refuses_another_base(model, trimmed, tmp_path):
    other = Path(shutil.copytree(model, tmp_path / "other"))
    text = (other / "tokenizer.json").read_text(encoding="utf-8")
    (other / "tokenizer.json").write_text(text + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"tokenizer.json has sha256 .*was made from .*give that base: -b"):
        model_edit.main(["-m", str(trimmed), "-b", str(other), "-t", "verify_edit"])
