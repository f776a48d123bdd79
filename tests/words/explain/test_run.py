"""--similarity and --check_similarity on the command line: rows in order, killed runs, wrong options."""

import hashlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import build
import pytest
from explaining import (
    MARKET,
    QUESTION,
    TIME,
    Server,
    completion,
    made_up,
    served,
    willing,
    word_asked,
    words_of,
    write_jsonl,
)
from leaving import left_by_a_run
from tiny import ROOT

import build_vi_words
from vocabkit.chat.backends import Sampling
from vocabkit.chat.transformers_backend import TransformersBackend
from vocabkit.errors import UserError
from vocabkit.outputs import part_of
from vocabkit.tokenizer.encoder import load_encoder
from vocabkit.words.explain.rows import check_explanations, read_explanations, with_one_token
from vocabkit.words.explain.run import local_chat
from vocabkit.words.explain.writer import ATTEMPTS


def test_the_command_checks(tmp_path, tiny, capsys):
    folder = tiny("qwen").path
    row = with_one_token(TIME, load_encoder(folder))
    path = write_jsonl(tmp_path / "rows.jsonl", [row])
    words = write_jsonl(tmp_path / "words.txt", ["thời gian", "bạn bè"])
    argv = ["--check_similarity", str(path), "-m", str(folder), "--words", str(words)]
    assert build_vi_words.main(argv) == 0
    assert capsys.readouterr().out == f"{path}: 1 rows, 0 findings; 1 of 2 words have a row\n"
    write_jsonl(path, [row, MARKET, '{"word": '])
    assert build_vi_words.main([*argv, "--num_words", "1"]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"{path}:2: chợ▁nổi: \"word\" is 'chợ▁nổi', which is none of the 1 words of the list"
    assert out[1].startswith(f"{path}:3: ?: is not JSON: Expecting value, at character ")
    assert out[2] == f"{path}: 3 rows, 2 findings; 1 of 1 words have a row"
    write_jsonl(path, [TIME])
    assert build_vi_words.main(["--check_similarity", str(path)]) == 0
    assert capsys.readouterr().out.endswith(
        "0 findings; en_one_token not checked, give a tokenizer: -m MODEL\n"
    )


@pytest.fixture
def words_file(tmp_path) -> Path:
    syllables = ["bạn", "học", "nhà", "sông", "chợ"]
    return write_jsonl(
        tmp_path / "words.jsonl", [{"word": f"{a}▁{b}"} for a in syllables for b in syllables if a != b]
    )


def command(server: Server, words: Path, out: Path, *more: object) -> list[str]:
    return ["--similarity", "--server", server.url, "--words", str(words), "-o", str(out), *map(str, more)]


def test_rows_by_a_server(words_file, tmp_path, tiny, capsys):
    """In the order of the words whatever gets ready first, complete, checked by the tokenizer of -m."""
    out, folder = tmp_path / "out.jsonl", tiny("qwen").path
    dictionary = tmp_path / "d.txt"
    dictionary.write_text("school friend\tbạn học\n", encoding="utf-8")

    def reply(body: dict[str, Any]) -> tuple[Any, ...]:
        time.sleep(0.05 if word_asked(body) == "bạn▁học" else 0)
        return willing(body)

    with served(reply) as server:
        argv = command(server, words_file, out, "-m", folder, "--num_words", 12, "--dictionary", dictionary)
        assert build_vi_words.main([*argv, "--workers", "3"]) == 0
        assert capsys.readouterr().out == f"{out}: 12 rows\n"
        with pytest.raises(UserError, match="out.jsonl already exists"):
            build_vi_words.main(argv)
    assert words_of(out) == words_of(words_file)[:12]
    rows = read_explanations(out)
    assert check_explanations(rows, encoder=load_encoder(folder)) == [] and "en_one_token" in rows[0]
    assert len(server.bodies) == 12
    told = [word_asked(body) for body in server.bodies if "school friend" in str(body["messages"])]
    assert told == ["bạn▁học"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.txt", "out.jsonl", "words.jsonl"]


def test_words_without_a_row_are_listed(words_file, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("vocabkit.words.explain.run.SHOWN", 1)
    bad = {"bạn▁nhà": "{broken", "học▁nhà": json.dumps(made_up("bạn▁nhà"))}

    def reply(body: dict[str, Any]) -> tuple[Any, ...]:
        return completion(bad[word_asked(body)]) if word_asked(body) in bad else willing(body)

    out = tmp_path / "out.jsonl"
    with served(reply) as server:
        assert build_vi_words.main(command(server, words_file, out)) == 1
    assert words_of(out) == [word for word in words_of(words_file) if word not in bad]
    assert all("en_one_token" not in row for row in read_explanations(out))
    printed = capsys.readouterr()
    assert printed.out == f"{out}: 18 rows\n"
    assert printed.err.splitlines() == [
        "without en_one_token, which needs a tokenizer: -m MODEL",
        "no row for 2 of 20 words, after 4 answers each:",
        "  bạn▁nhà: holds no whole JSON object",
        "  and học▁nhà",
    ]
    assert len(server.bodies) == 18 + 2 * ATTEMPTS
    with served(lambda body: completion("?")) as server:
        other = tmp_path / "other.jsonl"
        assert build_vi_words.main(command(server, words_file, other, "--num_words", 2)) == 1
    assert capsys.readouterr().out == f"no row is right, {other} is not written\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "words.jsonl"]


def test_a_killed_run_goes_on(words_file, tmp_path):
    """Killed without warning; what was finished is not asked again, refused words neither."""
    reached, go = threading.Event(), threading.Event()

    def reply(body: dict[str, Any]) -> tuple[Any, ...]:
        if word_asked(body) == "bạn▁học":
            return completion("không")
        if word_asked(body) == "nhà▁học" and not go.is_set():
            reached.set()
            go.wait(20)
        return willing(body)

    out = tmp_path / "out.jsonl"
    progress = part_of(out) / "progress.jsonl"
    with served(reply) as server:
        argv = command(server, words_file, out, "--workers", 1)
        script = [sys.executable, str(ROOT / "build_vi_words.py"), *argv]
        process = subprocess.Popen(script, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert reached.wait(30)
        process.send_signal(signal.SIGKILL)
        process.wait()
        go.set()
        before = len(server.bodies)
        assert not out.exists() and len(progress.read_text(encoding="utf-8").splitlines()) == 1 + 9
        with progress.open("ab") as file:
            file.write('{"row": {"word": "chợ'.encode()[:-1])  # a line that was being written
        assert build_vi_words.main(argv) == 1
    asked = [word_asked(body) for body in server.bodies]
    assert asked[before:] == [w for w in words_of(words_file) if w not in asked[: before - 1]]
    assert words_of(out) == words_of(words_file)[1:] and not progress.exists()


def test_a_server_that_dies_stops_the_run_and_keeps_what_is_done(words_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("vocabkit.words.explain.server.time.sleep", lambda seconds: None)
    out = tmp_path / "out.jsonl"

    def reply(body: dict[str, Any]) -> tuple[Any, ...]:
        return (500, "dead") if word_asked(body) == "học▁chợ" else willing(body)

    with served(reply) as server, pytest.raises(UserError, match="failed 5 times, at last: HTTP 500: dead"):
        build_vi_words.main(command(server, words_file, out))
    assert not out.exists() and (part_of(out) / "progress.jsonl").exists()
    with served(willing) as server:
        assert build_vi_words.main(command(server, words_file, out)) == 0
        assert 1 <= len(server.bodies) <= 20 - 4
    assert words_of(out) == words_of(words_file)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"format": "vocabkit/similarity_progress", "version": 1, "words_sha256": "0"}'], "words_sha256"),
        (['{"format": "other"}'], "belongs to another run .format, version, words_sha256 differs"),
        (["[]"], "belongs to another run"),
        (["HEAD", "{}"], "holds a line that is no progress; remove it"),
        (["HEAD", "nothing"], "holds a line that is no progress; remove it"),
        (["HEAD", json.dumps({"row": TIME})], "has a row that is wrong: .*none of the 20 words"),
    ],
)
def test_progress_of_another_run_is_refused(words_file, tmp_path, lines, message):
    words = [word for word in words_of(words_file)]
    digest = hashlib.sha256("\n".join(words).encode()).hexdigest()
    head = {"format": "vocabkit/similarity_progress", "version": 1, "words_sha256": digest}
    head["tokenizer_sha256"] = None
    path = left_by_a_run(tmp_path / "out.jsonl", "progress.jsonl")
    write_jsonl(path, [json.dumps(head) if line == "HEAD" else line for line in lines])
    before = path.read_bytes()
    with served(willing) as server, pytest.raises(UserError, match=message):
        build_vi_words.main(command(server, words_file, tmp_path / "out.jsonl"))
    assert path.read_bytes() == before and not (tmp_path / "out.jsonl").exists()


def test_progress_that_was_killed_in_its_first_line_counts_for_nothing(words_file, tmp_path):
    left_by_a_run(tmp_path / "out.jsonl", "progress.jsonl", b'{"format": "voc')
    with served(willing) as server:
        assert build_vi_words.main(command(server, words_file, tmp_path / "out.jsonl")) == 0
    assert len(server.bodies) == 20


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> Path:
    return build.make_checkpoint(tmp_path_factory.mktemp("ask") / "model", max_position_embeddings=8192)


def test_answers_of_a_model_that_cannot_write_are_refused(local, words_file, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("vocabkit.words.explain.run.NEW_TOKENS", 12)
    argv = ["--similarity", "-m", str(local), "--words", str(words_file), "--num_words", "2", "-o"]
    assert build_vi_words.main([*argv, str(tmp_path / "out.jsonl")]) == 1
    printed = capsys.readouterr()
    assert printed.out.startswith("no row is right, ") and not (tmp_path / "out.jsonl").exists()
    assert "qwen2, " in printed.err and "no row for 2 of 2 words, after 4 answers each:" in printed.err
    assert printed.err.splitlines()[-2:] == [
        f"  {word}: holds no whole JSON object" for word in words_of(words_file)[:2]
    ]


def test_rows_by_a_model_of_a_folder(local, words_file, tmp_path, monkeypatch):
    """What a good model generates, ids of its tokenizer, becomes rows; generate() is all that is replaced."""
    prompts = []

    def generate(self: TransformersBackend, prompt: list[int], sampling: Sampling) -> Iterator[int]:
        prompts.append(self.tokenizer.decode(prompt))
        assert sampling.max_new_tokens == 1024
        word = prompts[-1].split('for the word "')[1].split('"')[0].replace(" ", "▁")
        return iter(self.tokenizer(json.dumps(made_up(word), ensure_ascii=False))["input_ids"])

    monkeypatch.setattr(TransformersBackend, "generate", generate)
    argv = ["--similarity", "-m", str(local), "--words", str(words_file), "-o", str(tmp_path / "out.jsonl")]
    assert build_vi_words.main(argv) == 0
    assert words_of(tmp_path / "out.jsonl") == words_of(words_file) and len(prompts) == 20
    assert prompts[0].startswith("<|im_start|>") and prompts[0].endswith("<|im_start|>assistant\n")
    assert check_explanations(read_explanations(tmp_path / "out.jsonl"), encoder=load_encoder(local)) == []


def test_answers_of_a_folder_are_the_same_each_time(local):
    chat = local_chat(local)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vocabkit.words.explain.run.NEW_TOKENS", 16)
        first, second = (chat(QUESTION, schema={}) for _ in range(2))
    assert first == second != ""


def test_a_model_that_reads_too_little_is_one_line(words_file, tmp_path):
    short = build.make_checkpoint(tmp_path / "short")
    argv = ["--similarity", "-m", str(short), "--words", str(words_file), "-o", str(tmp_path / "out.jsonl")]
    with pytest.raises(UserError, match=r"short reads 128 tokens, the question has .*reads more"):
        build_vi_words.main(argv)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["short", "words.jsonl"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--similarity"], "--similarity needs a language model; give a folder, -m MODEL, or --server URL"),
        (["--similarity", "-m", "m", "a.txt"], "CORPUS does not go with --similarity; leave it out"),
        (
            ["--similarity", "-m", "m", "--choose", "5"],
            "--choose does not go with --similarity; leave it out",
        ),
        (
            ["--similarity", "-m", "m", "--workers", "5"],
            "--workers does not go .*; give --server URL too, or",
        ),
        (
            ["--similarity", "-m", "m", "--model_name", "n"],
            "--model_name does not go .*; give --server URL too",
        ),
        (["--similarity", "--server", "http://a", "--timeout", "0"], "--timeout is 0, expected a positive"),
        (["--similarity", "--server", "http://a", "--num_words", "-1"], "--num_words is -1, expected a posi"),
        (["--similarity", "--server", "a.b:80", "-o", "o.jsonl"], "--server a.b:80 is no address"),
        (["--similarity", "--server", "http://a", "--words", "none.txt"], "none.txt is missing"),
        (
            ["--check_similarity", "a.jsonl", "--similarity"],
            "--similarity does not go with --check_similarity",
        ),
        (["--check_similarity", "none.jsonl"], "none.jsonl is missing"),
        (
            ["-m", "m", "a.txt", "--server", "http://a"],
            "--server is for explaining words; say so with --simil",
        ),
        (["-m", "m", "a.txt", "--words", "w.txt"], "--words is for explaining words"),
    ],
)
def test_wrong_options_are_one_line(argv, message, monkeypatch, tmp_path):
    monkeypatch.setattr("vocabkit.words.explain.run.WORDS", ROOT / "data" / "vi_words_chosen.jsonl")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        build_vi_words.main(argv)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("argv", [[], ["a.txt"], ["-m", "m"], ["-m", "m", "--choose", "5"]])
def test_counting_needs_a_model_and_texts(argv, capsys):
    with pytest.raises(SystemExit) as stopped:
        build_vi_words.main(argv)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.endswith("the following arguments are required: -m/--model, CORPUS\n")
