"""vocabkit/errors.py: what a script's user sees, and what its exit status says."""

import errno
import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vocabkit.errors import REQUIREMENTS, UserError, check_installed, one_line, reading, run_cli

ROOT = Path(__file__).resolve().parent.parent


def run(main, capsys) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        run_cli(main)
    out, err = capsys.readouterr()
    return stopped.value.code, out, err


def fail(error: BaseException):
    def main() -> int:
        raise error

    return main


@pytest.mark.parametrize("status", [0, 1, 3])
def test_status_of_main_is_the_exit_status(status, capsys):
    assert run(lambda: status, capsys) == (status, "", "")


def test_user_error_is_one_line_whatever_is_in_it(capsys):
    status, out, err = run(fail(UserError("model/x.json is\n  broken;\tdownload it\r\nagain")), capsys)
    assert (status, out, err) == (1, "", "error: model/x.json is broken; download it again\n")


def test_packages_that_are_too_old_are_named(tmp_path, monkeypatch, capsys):
    check_installed(REQUIREMENTS.read_text(encoding="utf-8").splitlines())
    check_installed(["numpy>=1.9", "torch>=2.4", "nobody-has-this>=7"])  # 2.13.0+cpu is above 2.4
    with pytest.raises(
        UserError, match=r"^numpy [\d.]+ is installed, 99\.1 or newer is needed: pip install -U"
    ):
        check_installed(["# numpy", "", "numpy>=99.1  # rows"])
    for version in ("1.2.2", "1.1.3"):
        (tmp_path / f"scikit_learn-{version}.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    line = "error: scikit-learn 1.2.2 is installed, 1.4 or newer is needed: pip install -U scikit-learn\n"
    assert run(lambda: 0, capsys) == (1, "", line)


def test_packages_that_are_missing_are_named(capsys):
    status, _, err = run(fail(ModuleNotFoundError("No module named 'torch'", name="torch.nn")), capsys)
    assert (status, err) == (1, f"error: torch is not installed: pip install -r {REQUIREMENTS}\n")
    missing = ModuleNotFoundError("No module named 'vocabkit.no'", name="vocabkit.no")
    assert "a fault of the toolkit" in run(fail(missing), capsys)[2]


def test_ctrl_c_is_one_line(capsys):
    status, _, err = run(fail(KeyboardInterrupt()), capsys)
    assert status == 1 and err.startswith("error: interrupted") and err.count("\n") == 1


def test_full_disk_says_what_to_do(capsys):
    status, _, err = run(fail(OSError(errno.ENOSPC, "No space left on device", "out/x")), capsys)
    assert status == 1
    assert err == (
        "error: out/x: No space left on device; free some space, then run the same command again\n"
    )


PRINTS = """
import os, sys
sys.path[:0] = [sys.argv[1]]
from vocabkit.errors import run_cli

def main():
    print("→ " + sys.argv[2])
    print(os.open(sys.argv[1], os.O_RDONLY), file=sys.stderr)
    return 0

run_cli(main)
"""


@pytest.mark.parametrize(
    ("encoding", "written"),
    [("cp1252", b"\\u2192 caf\\udce9 \\u1ea1"), ("utf-8", "→ caf\\udce9 ạ".encode())],
)
def test_standard_output_takes_every_line(encoding, written):
    """cp1252 is Windows' for files and pipes; a name of bytes that are no UTF-8 is of Linux."""
    found = subprocess.run(
        [sys.executable, "-c", PRINTS, ROOT, b"caf\xe9 \xe1\xba\xa1"],
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
    )
    assert (found.returncode, found.stdout.rstrip()) == (0, written), found.stderr


def test_closed_standard_output_is_no_error_and_no_file_gets_its_number():
    command = f'exec {sys.executable} -c "$0" {ROOT} x >&-'
    found = subprocess.run(["bash", "-c", command, PRINTS], capture_output=True, text=True)
    assert found.returncode == 0 and int(found.stderr) > 2, found.stderr


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied", "a/b"), OSError("strange")])
def test_errors_of_the_system_are_one_line(error, capsys):
    status, _, err = run(fail(error), capsys)
    assert status == 1 and err.startswith("error: ") and err.count("\n") == 1
    assert (error.filename or "strange") in err


def test_a_bug_is_one_line_that_says_so_and_how_to_see_its_traceback(capsys, monkeypatch):
    status, _, err = run(fail(ZeroDivisionError("a\nb")), capsys)
    assert status == 1 and err.count("\n") == 1 and "ZeroDivisionError" in err
    assert "a fault of the toolkit" in err and "VOCABKIT_DEBUG=1" in err
    monkeypatch.setenv("VOCABKIT_DEBUG", "1")
    status, _, err = run(fail(ZeroDivisionError("a\nb")), capsys)
    assert status == 1 and err.startswith("Traceback") and err.splitlines()[-1].startswith("error: ")


class PanicException(BaseException):  # as pyo3 names what a library in Rust raises
    pass


@pytest.mark.parametrize(
    "error",
    [RecursionError("deep"), MemoryError(), PanicException("index out of bounds"), "\ud800".encode],
    ids=["deep", "memory", "panic", "half a character"],
)
def test_whatever_is_raised_is_one_line(error, capsys):
    status, _, err = run(error if callable(error) else fail(error), capsys)
    assert status == 1 and err.startswith("error: ") and err.count("\n") == 1 and len(err) < 600


def test_what_is_no_error_of_ours_passes():
    with pytest.raises(GeneratorExit):
        run_cli(fail(GeneratorExit()))


def test_an_error_of_megabytes_keeps_its_beginning_and_its_end(capsys):
    _, _, err = run(fail(UserError("a.json holds " + "x" * 10_000_000 + "; download it again")), capsys)
    assert (
        len(err) < 1100 and err.startswith("error: a.json holds x") and err.endswith("; download it again\n")
    )


def test_what_a_terminal_would_obey_is_escaped(capsys):
    _, _, err = run(fail(UserError("a\x1b]0;title\x07b \u202e \x9b31m tiếng Việt \ud800")), capsys)
    assert err == "error: a\\x1b]0;title\\x07b \\u202e \\x9b31m tiếng Việt \\ud800\n"


def test_reading_names_the_file_the_fault_and_the_place():
    for error, said in {
        UnicodeDecodeError("utf-8", b"\xff", 7, 8, "invalid"): "a.json is not UTF-8 text (byte 7); mend it",
        RecursionError("maximum"): "a.json is nested too deeply; mend it",
        MemoryError(): "a.json needs more memory than there is; mend it",
        OverflowError("too large"): "a.json is damaged (OverflowError: too large); mend it",
        PanicException("index 5"): "a.json is damaged (PanicException: index 5); mend it",
        FileNotFoundError(2, "No such file", "a.json"): "a.json is missing; mend it",
        gzip.BadGzipFile("CRC"): "a.json is a broken archive (CRC); mend it",
        UserError("b.json: 7"): "b.json: 7",
    }.items():
        with pytest.raises(UserError) as found, reading(Path("a.json"), again="mend it"):
            raise error
        assert str(found.value) == said
    for error in (PermissionError(13, "Permission denied"), KeyboardInterrupt()):
        with pytest.raises(type(error)), reading("a.json"):
            raise error


def test_a_closed_pipe_ends_the_program_quietly():
    """As `python3 model_edit.py … | head -1` does."""
    code = (
        "from vocabkit.errors import run_cli\n"
        "def main():\n    for i in range(100_000): print('line', i)\n    return 0\nrun_cli(main)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(30) == 1


def test_one_line_takes_any_object():
    assert one_line(ValueError("a\n b")) == "a b"
