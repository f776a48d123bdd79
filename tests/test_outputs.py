"""vocabkit/outputs.py: folders and files that appear whole or not at all."""

import errno
import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from leaving import left_by_a_run
from tiny import ROOT

from vocabkit.errors import UserError
from vocabkit.outputs import MARK, NEW, new_directory, new_file


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_new_directory_appears_with_everything_in_it(tmp_path):
    with new_directory(tmp_path / "out") as part:
        (part / "inside").mkdir()
        (part / "inside" / "file").write_text("x", encoding="utf-8")
        assert names(tmp_path) == ["out.part"]
    assert names(tmp_path) == ["out"] and (tmp_path / "out" / "inside" / "file").exists()


@pytest.mark.parametrize("error", [UserError("no"), KeyboardInterrupt(), ZeroDivisionError()])
def test_new_directory_leaves_nothing_after_a_failure(tmp_path, error):
    with pytest.raises(type(error)), new_directory(tmp_path / "out") as part:
        (part / "file").write_text("x", encoding="utf-8")
        raise error
    assert names(tmp_path) == []
    with new_directory(tmp_path / "out"):
        pass
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
def test_new_directory_refuses_what_exists(tmp_path, kind):
    out = tmp_path / "out"
    if kind == "folder":
        out.mkdir()
    elif kind == "file":
        out.write_text("precious", encoding="utf-8")
    else:
        out.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="out already exists; .*rm -r"), new_directory(out):
        pass
    assert names(tmp_path) == ["out"]


def test_new_directory_needs_a_parent(tmp_path):
    with (
        pytest.raises(UserError, match="is not a folder; make it first: mkdir -p"),
        new_directory(tmp_path / "a" / "out"),
    ):
        pass
    assert names(tmp_path) == []


def test_new_directory_removes_what_a_killed_run_left(tmp_path, capsys):
    (left_by_a_run(tmp_path / "out", MARK).parent / NEW / "out").mkdir(parents=True)
    (tmp_path / "out.part" / NEW / "out" / "old").write_text("half", encoding="utf-8")
    with new_directory(tmp_path / "out") as part:
        assert names(part) == []
    assert "removing" in (err := capsys.readouterr().err) and "out.part" in err and "interrupted" in err
    assert names(tmp_path) == ["out"] and names(tmp_path / "out") == []


def test_refused_second_run_does_not_disturb_the_first(tmp_path):
    with new_directory(tmp_path / "out") as part:
        (part / "file").write_text("x", encoding="utf-8")
        with (
            pytest.raises(UserError, match="out.part is being written by another run; wait for it, or"),
            new_directory(tmp_path / "out"),
        ):
            pass
    assert names(tmp_path / "out") == ["file"]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (lambda out, part: shutil.rmtree(part), "out.part is being written by another run"),
        (
            lambda out, part: (shutil.rmtree(part), left_by_a_run(out, MARK)),
            "is being written by another run",
        ),
        (lambda out, part: os.mkdir(out), "out already exists"),
    ],
)
def test_races_with_another_run_end_in_one_error(tmp_path, monkeypatch, what, message):
    """Another program acts right before the lock is taken."""
    call = fcntl.flock

    def after_the_other_run(*args: object) -> object:
        if (tmp_path / "out.part" / MARK).exists():  # not at the lock of the parent
            monkeypatch.undo()
            what(tmp_path / "out", tmp_path / "out.part")
        return call(*args)

    monkeypatch.setattr(fcntl, "flock", after_the_other_run)
    with pytest.raises(UserError, match=message), new_directory(tmp_path / "out"):
        pytest.fail("it went on")


ONE_OF_THREE = """
import sys
from pathlib import Path
from vocabkit.errors import UserError
from vocabkit.outputs import new_directory

print("ready", flush=True)
for line in sys.stdin:
    try:
        with new_directory(Path(line.strip())) as part:
            (part / "file").write_text("x", encoding="utf-8")
        print("made", flush=True)
    except UserError:
        print("refused", flush=True)
"""


def test_runs_that_begin_together_take_nothing_from_each_other(tmp_path):
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-c", ONE_OF_THREE]
    runs = [subprocess.Popen(command, cwd=ROOT, text=True, **pipes) for _ in range(3)]
    for run in runs:
        assert run.stdout.readline() == "ready\n"
    for number in range(100):
        for run in runs:
            run.stdin.write(f"{tmp_path / str(number)}\n")
            run.stdin.flush()
        assert "made\n" in [run.stdout.readline() for run in runs]
    assert [run.communicate(timeout=10)[1] for run in runs] == ["", "", ""], "a folder was taken away"
    assert len(names(tmp_path)) == 100


def test_a_full_disk_is_named_by_the_folder(tmp_path):
    """Writes to an open file fail without a name."""
    with pytest.raises(OSError) as caught, new_directory(tmp_path / "out"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(tmp_path / "out.part")


# Files


def test_new_file_appears_whole_and_only_once(tmp_path):
    out = tmp_path / "out"
    with new_file(out) as part:
        part.write_text("x", encoding="utf-8")
        assert names(tmp_path) == ["out.part"]
        with pytest.raises(UserError, match="out.part is being written by another run"), new_file(out):
            pass
    assert names(tmp_path) == ["out"]
    with pytest.raises(UserError, match="out already exists"), new_file(out):
        pass
    with new_file(out, replace=True) as part:
        part.write_text("y", encoding="utf-8")
    assert names(tmp_path) == ["out"] and out.read_text(encoding="utf-8") == "y"


def test_a_failure_keeps_the_file_that_was_there(tmp_path):
    (tmp_path / "out").write_text("before", encoding="utf-8")
    with pytest.raises(KeyboardInterrupt), new_file(tmp_path / "out", replace=True) as part:
        part.write_text("half", encoding="utf-8")
        raise KeyboardInterrupt
    assert names(tmp_path) == ["out"] and (tmp_path / "out").read_text(encoding="utf-8") == "before"
