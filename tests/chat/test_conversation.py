"""model_chat.py as users run it: one shot, piped, two models, at a terminal with Ctrl-C; and its history."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from chatting import DEMO, INTO_CHINESE, TIME_LINE, chat, rewrite, save_qwen2
from tiny import ROOT

from vocabkit.chat.backends import Sampling
from vocabkit.chat.conversation import Conversation, Screen, clean
from vocabkit.errors import UserError
from vocabkit.models.load import load_model, load_tokenizer
from vocabkit.text.unicode import first_foreign

PYTHON = [sys.executable, str(ROOT / "model_chat.py")]
ENV = {**os.environ, "OMP_NUM_THREADS": "1"}  # threads of a tiny model only wait for each other


def run(*args: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [*PYTHON, *map(str, args)]
    return subprocess.run(command, input=stdin, capture_output=True, encoding="utf-8", timeout=120, env=ENV)


def answer(folder: Path, turns: list[str], *, n_tokens: int, system: str | None = None) -> str:
    """What the last question gets, made with transformers alone."""
    model, tokenizer = load_model(folder, dtype="float32"), load_tokenizer(folder)
    messages = [{"role": "system", "content": system}] if system else []
    for question in turns:
        messages.append({"role": "user", "content": question})
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        new = model.generate(ids, do_sample=False, max_new_tokens=n_tokens)[0, ids.shape[1] :]
        messages.append({"role": "assistant", "content": tokenizer.decode(new, skip_special_tokens=True)})
    return messages[-1]["content"]


@pytest.mark.slow
def test_one_shot(models):
    """In a process of its own, where nothing has turned off the progress bars yet."""
    decomposed = "Vie\u0323\u0302t Nam"
    result = run(models[0], "--prompt", decomposed, "--system", "Ngắn", "--greedy", "--max_new_tokens", 12)
    assert result.returncode == 0, result.stderr
    wanted = answer(models[0], ["Việt Nam"], n_tokens=12, system="Ngắn")
    head, line = result.stdout.rstrip("\n").rsplit("\n", 1)
    assert head == f"Bạn: Việt Nam\nBot: {wanted}"
    assert re.fullmatch(TIME_LINE.format(re.escape(str(models[0]))), line)
    assert "\x1b" not in result.stdout
    assert "Loading weights" not in result.stderr and "float32 on cpu" in result.stderr


def test_piped_conversation_with_two_models(models):
    """Each model has its own history; /reset makes the third answer equal to a first one."""
    stdin = "Xin chào\n\nThời gian\n/reset\n/unknown\nThời gian\n/quit\nnever asked\n"
    code, shown, err = chat(*models, "--greedy", "--max_new_tokens", 9, stdin=stdin)
    assert code == 0, err
    expected = ""
    for turns in (["Xin chào"], ["Xin chào", "Thời gian"], ["Thời gian"]):
        expected += f"Bạn: {turns[-1]}\n"
        for model in models:
            expected += f"{model}\nBot: {answer(model, turns, n_tokens=9)}\nTIME {model}\n"
    shown = re.sub(TIME_LINE.format(r"(\S+)"), r"TIME \1", shown)
    assert re.sub(r"Bạn: /\w+\n", "", shown) == expected
    assert "/unknown: no such command" in err and "forgotten" in err


def test_missing_folder(tmp_path):
    code, out, err = chat(tmp_path / "nothing", "--prompt", "hi")
    assert code == 1 and out == "" and err.count("\n") == 1
    assert f"error: {tmp_path}/nothing: no such folder" in err


def test_avoids_and_masks():
    code, out, err = chat(
        DEMO, "--prompt", INTO_CHINESE, "--greedy", "--only_scripts", "Latin", "--avoid", "name is"
    )
    assert code == 0, err
    assert "Bot: " in out and "name is" not in out.split("Bot: ")[1]
    assert first_foreign(out) is None
    assert re.search(r"[\d,]+ tokens that could write another script are never chosen", err)


def test_help_is_fast_and_loads_no_torch():
    code = "import sys, model_chat; model_chat.build_parser().format_help(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
    code = "import sys, vocabkit.chat; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
    times = []
    for _ in range(3):
        before = os.times()
        assert "MODEL2" in run("--help").stdout
        after = os.times()
        # of the processor: what passes on the clock depends on who else is at work
        times.append(
            after.children_user + after.children_system - before.children_user - before.children_system
        )
    assert min(times) < 0.3


@pytest.mark.parametrize("wrong", [["--top_p", "1.5"], ["--max_new_tokens", "0"], ["--temperature", "-1"]])
def test_values_out_of_range(wrong):
    code, _, err = chat("model", *wrong)
    assert code == 2 and f"{wrong[1]} is not between" in err


class Terminal:
    """The program on a pseudo-terminal."""

    def __init__(self, *args: object) -> None:
        self.pid, self.screen = pty.fork()
        if self.pid == 0:
            os.execve(sys.executable, [*PYTHON, *map(str, args)], {**ENV, "TERM": "xterm", "NO_COLOR": ""})
        self.seen = b""

    def write(self, text: str) -> None:
        os.write(self.screen, text.encode())

    def read_until(self, wanted: str, seconds: float = 60.0) -> str:
        """Read up to and including wanted; what came after it stays for the next call."""
        end = time.monotonic() + seconds
        while wanted.encode() not in self.seen:
            ready, _, _ = select.select([self.screen], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"no {wanted!r} within {seconds} seconds in {self.seen.decode(errors='replace')!r}"
            try:
                self.seen += os.read(self.screen, 65536)
            except OSError:  # Linux: the program has closed the terminal
                raise AssertionError(f"ended without {wanted!r}: {self.seen!r}") from None
        before, _, self.seen = self.seen.partition(wanted.encode())
        return before.decode() + wanted

    def exit_status(self, press: str, tries: int = 3, seconds: float = 20.0) -> int:
        """Press a key until the program ends: one that comes while input() is being entered is lost."""
        for _ in range(tries):
            self.write(press)
            end = time.monotonic() + seconds  # torch takes a while to leave, and a second Ctrl-C would kill
            while time.monotonic() < end:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    return os.waitstatus_to_exitcode(status)
                time.sleep(0.1)
        os.kill(self.pid, signal.SIGKILL)
        raise AssertionError(f"{press!r} did not end the program, pressed {tries} times")


@pytest.mark.slow
def test_ctrl_c_stops_the_answer_and_not_the_program(models, tmp_path):
    endless = save_qwen2(tmp_path / "endless", max_position_embeddings=10**6)
    rewrite(endless / "generation_config.json", suppress_tokens=list(range(3)))
    terminal = Terminal(endless, "--max_new_tokens", 500_000)
    for question in ("Xin chào", "Thời gian"):
        terminal.read_until("\x1b[1;32mBạn: \x1b[0m")
        terminal.write(question + "\n")
        terminal.read_until("Bot: ")
        time.sleep(0.5)
        terminal.write("\x03")
        assert re.search(TIME_LINE.format(re.escape(str(endless))), terminal.read_until("tokens/s"))
    terminal.read_until("Bạn: ")
    assert terminal.exit_status(press="\x03") == 0
    os.close(terminal.screen)


def test_demo_model():
    question = "Translate following sentence into Chinese: tôi tên là Lý Quốc Dân"
    _, out, err = chat(DEMO, "--prompt", question, "--greedy")
    assert "Bot: 我的名字是李国民" in out, err


class Echo:
    """A backend without a model: one token for each character, and "aa" for every answer."""

    path, without_template = "m", None

    def __init__(self, context: int | None = None) -> None:
        self.context = context

    def encode(self, messages):
        return [ord(c) for message in messages for c in message["content"]]

    def generate(self, prompt, sampling, **options):
        return iter([ord("a")] * min(2, sampling.max_new_tokens))

    def text(self, ids):
        return map(chr, ids)


def conversation(context: int, **changes: str) -> Conversation:
    return Conversation(Echo(context), Sampling(max_new_tokens=4), **changes)


def test_oldest_turns_are_forgotten_when_the_context_is_full(capsys):
    talk = conversation(context=12, system="s")
    for question in ("1234", "5678", "9"):
        assert "".join(talk.answer(question, threading.Event())) == "aa"
    assert [message["content"] for message in talk.history] == ["5678", "aa", "9", "aa"]
    assert "the oldest turn is forgotten" in capsys.readouterr().err
    talk.reset()
    assert talk.history == [] and talk.system == "s"


def test_question_longer_than_the_context_is_not_remembered():
    talk = conversation(context=4)
    with pytest.raises(UserError, match="the question has 5 tokens, the model reads 4"):
        list(talk.answer("12345", threading.Event()))
    assert talk.history == []


def test_time_line():
    talk = Conversation(Echo(), Sampling(), n_tokens=42, seconds=1.31)
    assert talk.time_line() == "m: timespent 1.31 seconds, 42 tokens, 32.1 tokens/s"


def test_answers_cannot_control_the_terminal(monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert Screen(colour=False).printable("a\x1b[2Jb\r\n\tc") == "a[2Jb\n\tc"


def test_clean():
    assert clean(os.fsdecode(b"caf\xc3\xa9 e\xcc\x81 \xff")) == "café é \ufffd"
