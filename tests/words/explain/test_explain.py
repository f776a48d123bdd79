"""Rows that explain words: every finding, a model behind a real HTTP server or in a folder, resumed runs."""

import contextlib
import copy
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import build
import pytest
from tiny import ROOT

import build_vi_words
from vocabkit.chat.backends import Sampling
from vocabkit.chat.transformers_backend import TransformersBackend
from vocabkit.errors import UserError
from vocabkit.tokenizer.encoder import load_encoder
from vocabkit.vocab.word_list import read_dictionary
from vocabkit.words.explain import writer as explain_writer
from vocabkit.words.explain.rows import check_rows, read_rows, with_one_token
from vocabkit.words.explain.run import local_chat
from vocabkit.words.explain.server import ChatServer
from vocabkit.words.explain.writer import ATTEMPTS, Writer, in_parallel, parse_answer, question

DATA = ROOT / "data" / "vi_words_similarity.jsonl"
TIME = {
    "word": "thời▁gian",
    "en": ["time", "period"],
    "en_one_token": ["time"],
    "near": ["lúc", "khoảng thời gian"],
    "examples": [
        "Đừng lãng phí thời gian vào những chuyện không đâu.",
        "Nếu có thời gian, cuối tuần này mình về quê nhé!",
        "Chị ấy đã sống một mình trong suốt thời gian…",
    ],
    "examples_en": [
        "Do not waste time on trifles.",
        "If we have time, let's visit home this weekend!",
        "She lived alone during that whole period…",
    ],
}
MARKET = {
    "word": "chợ▁nổi",
    "en": ["floating market"],
    "en_one_token": [],
    "near": ["chợ trên sông", "chợ"],
    "examples": [
        "Bốn giờ sáng, chợ nổi đã rộn tiếng máy ghe.",
        "Du khách tới Cần Thơ thường dậy sớm đi chợ nổi.",
        "Ở chợ nổi, người bán treo hàng lên cây bẹo.",
    ],
    "examples_en": [
        "At four in the morning the market is loud.",
        "Visitors often rise early for the market.",
        "Sellers there hang their goods on poles.",
    ],
}


class OneToken:
    """Stands for a tokenizer that has these words, each with a space before it, as one token."""

    def __init__(self, *words: str) -> None:
        self.words = {f" {word}" for word in words}

    def encode_batch(self, texts: list[str], add_special_tokens: bool) -> list[Any]:
        assert not add_special_tokens
        return [type("Encoding", (), {"ids": [1] if text in self.words else [1, 2]}) for text in texts]


ENCODER = OneToken("time", "market")


def test_good_rows_have_no_finding():
    assert check_rows([TIME, MARKET], words=["thời gian", "chợ▁nổi"], encoder=ENCODER) == []
    assert check_rows([TIME, MARKET]) == []
    bare = [{key: value for key, value in row.items() if key != "en_one_token"} for row in (TIME, MARKET)]
    assert check_rows(bare) == [], "without a tokenizer the key may be missing"


def changed(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(TIME), **changes}


def with_example(number: int, sentence: str) -> dict[str, Any]:
    row = changed()
    row["examples"][number - 1] = sentence
    return row


GOOD, NFD = TIME["examples"], unicodedata.normalize("NFD", "lúc")
FINDINGS: dict[str, tuple[Any, str]] = {
    "no object": ([1], r"is a list, expected an object"),
    "keys": (changed(note=""), r"has the keys \['word'.*'note'\], expected \['word', 'en'"),
    "order of keys": (dict(reversed(TIME.items())), r"has the keys \['examples_en', .*expected \['word'"),
    "missing key": ({k: v for k, v in TIME.items() if k != "en_one_token"}, "has the keys .*en_one_token"),
    "type of word": (changed(word=5), '"word" is 5, expected a string'),
    "joiner": (changed(word="thời gian"), "\"word\" is 'thời gian', expected syllables with one ▁"),
    "empty syllable": (changed(word="thời▁▁gian"), "expected syllables with one ▁"),
    "NFC of word": (changed(word=unicodedata.normalize("NFD", "thời▁gian")), r"\"word\" is 'tho\\u031b.*NFC"),
    "not in the list": (changed(word="bạn▁bè"), "\"word\" is 'bạn▁bè', which is none of the 2 words"),
    "type of list": (changed(en="time"), "\"en\" is 'time', expected a list of strings"),
    "type of entry": (changed(near=["lúc", 3]), r'"near" is \[.lúc., 3\], expected a list of strings'),
    "no en": (changed(en=[], en_one_token=[]), '"en" has 0 entries, expected 1 to 5'),
    "much en": (changed(en=list("abcdef"), en_one_token=[]), '"en" has 6 entries, expected 1 to 5'),
    "twice in en": (changed(en=["time", "Time"]), r'"en" has an entry twice: \["\'time\'", "\'Time\'"\]'),
    "empty en": (changed(en=["time", ""]), "\"en\" has '', expected text with single spaces"),
    "one near": (changed(near=["lúc"]), '"near" has 1 entries, expected 2 to 6'),
    "itself": (changed(near=["lúc", "Thời Gian"]), "\"near\" holds 'Thời Gian', the word itself"),
    "spaces": (changed(near=["lúc", " giờ"]), "\"near\" has ' giờ', expected text with single spaces"),
    "NFC of entry": (changed(near=["giờ", NFD]), r"\"near\" has 'lu\\u0301c', expected its composed form"),
    "two examples": (changed(examples=GOOD[:2]), '"examples" has 2 entries, expected 3'),
    "short": (with_example(1, "Tôi hết thời gian rồi."), r"\"examples\" has .* with 5 words, expected 8"),
    "same twice": (with_example(1, GOOD[1]), r'"examples" has an entry twice'),
    "capital": (with_example(1, GOOD[0].replace("thời", "Thời")), r"example 1 lacks ' thời gian'"),
    "no space before": (
        with_example(2, 'Anh ấy bảo: "thời gian là thứ quý nhất đời".'),
        r"example 2 lacks ' thời gian'",
    ),
    "letter after": (with_example(1, GOOD[0].replace("gian", "giang")), "example 1 lacks ' thời gian'"),
    "mark after": (with_example(1, GOOD[0].replace("gian", "gian\u0301")), "example 1 lacks ' thời gian'"),
    "end": (with_example(3, GOOD[2][:-1]), r"example 3 ends with 'n', expected one of \.!\?…"),
    "place": (
        changed(examples=[" ".join([first, *GOOD[1].split()[1:]]) for first in ("Hễ", "Nếu", "Khi")]),
        "all examples have the word after 2 others",
    ),
    "beginning": (
        changed(
            examples=[
                "Hôm nay thời gian trôi nhanh quá bạn nhỉ?",
                "Hôm qua tôi mất nhiều thời gian để sửa xe.",
                "hôm sau nữa mọi người mới có đủ thời gian.",
            ]
        ),
        "all examples begin with 'hôm', expected different words",
    ),
    "short English": (
        changed(examples_en=["Time flies.", *TIME["examples_en"][1:]]),
        r"\"examples_en\" has 'Time flies.' with 2 words, expected 5",
    ),
    "same English": (changed(examples_en=TIME["examples_en"][:1] * 3), '"examples_en" has an entry twice'),
    "one token": (
        changed(en_one_token=["time", "period"]),
        r"\"en_one_token\" is \['time', 'period'\], expected \['time'\] of \"en\" \['time', 'period'\]",
    ),
    "type of one token": (changed(en_one_token=None), r"\"en_one_token\" is None, expected \['time'\]"),
}


@pytest.mark.parametrize("name", FINDINGS)
def test_every_finding(name):
    row, expected = FINDINGS[name]
    found = check_rows([MARKET, row], words=["thời gian", "chợ nổi"], encoder=ENCODER, name="my.jsonl")
    assert any(re.search(expected, line) for line in found), found
    word = row.get("word") if isinstance(row, dict) else "?"
    assert all(line.startswith(f"my.jsonl:2: {word}: ") and "\n" not in line for line in found)


@pytest.mark.parametrize(
    ("marked", "finding"),
    [(["period"], False), ([], False), (["period", "time"], True), (["day"], True), ("time", True)],
)
def test_one_token_words_without_a_tokenizer_are_some_of_en_in_order(marked, finding):
    found = check_rows([changed(en_one_token=marked)])
    assert [line.split(": ")[2].split(" is ")[0] for line in found] == ['"en_one_token"'] * finding


def test_findings_between_rows():
    again, thief = copy.deepcopy(TIME), copy.deepcopy(MARKET)
    thief["examples"][0] = TIME["examples"][0].upper()
    found = check_rows([TIME, again, thief], name="a")
    assert "a:2: thời▁gian: \"word\" is 'thời▁gian', which has a row already: a:1" in found
    assert any(line.startswith("a:3: chợ▁nổi: example 1 stands in another row, a:1: ") for line in found)


def test_two_words_that_differ_in_capitals_are_two(tmp_path):
    capital = json.loads(json.dumps(MARKET, ensure_ascii=False).replace("chợ▁nổi", "Chợ▁nổi"))
    capital["examples"] = [
        "Sách có chương Chợ nổi miền Tây viết rất hay.",
        "Đây là biển chỉ đường: Chợ nổi cách hai cây số.",
        "Trời mờ sáng. Chợ nổi bắt đầu họp dưới sông.",
    ]
    assert check_rows([MARKET, capital]) == []


# --check_similarity


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


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


def test_a_file_that_cannot_be_checked_is_one_line(tmp_path):
    with pytest.raises(UserError, match="none.jsonl is missing"):
        read_rows(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(UserError, match="empty.jsonl holds no row"):
        read_rows(tmp_path / "empty.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b"\xe9\n")
    with pytest.raises(UserError, match="latin.jsonl is not UTF-8"):
        read_rows(tmp_path / "latin.jsonl")


def test_the_bundled_rows():
    if not DATA.exists():
        pytest.skip(f"{DATA.name} is not there")
    rows = read_rows(DATA)
    asset = os.environ.get("VOCABKIT_ASSETS", "")
    folder = Path(asset) / "tokenizers" / "qwen2.5-instruct"
    encoder = load_encoder(folder) if asset and folder.is_dir() else None
    assert check_rows(rows, encoder=encoder, name=DATA.name) == []
    assert all("en_one_token" in row for row in rows)
    lines = (ROOT / "data" / "vi_words_chosen.jsonl").read_text(encoding="utf-8").splitlines()
    chosen = [row["word"] for row in map(json.loads, lines) if "word" in row][:1024]
    covered = {row["word"] for row in rows} & set(chosen)
    assert len(covered) >= 1000, sorted(set(chosen) - covered)
    assert read_dictionary(DATA)["thời gian"] == next(r["en"] for r in rows if r["word"] == "thời▁gian")


# Answers


def answer_of(row: dict[str, Any]) -> str:
    asked = {key: value for key, value in row.items() if key != "en_one_token"}
    return json.dumps(asked, ensure_ascii=False)


@pytest.mark.parametrize(
    "text",
    [
        answer_of(TIME),
        f"Sure, here it is:\n```json\n{answer_of(TIME)}\n```\nAnything else?",
        f"<think>\nA draft: {answer_of(MARKET)}\n</think>\n{answer_of(TIME)}",
        f"First {{the draft}}: {answer_of(MARKET)} and now {answer_of(TIME)}",
        unicodedata.normalize("NFD", json.dumps({**json.loads(answer_of(TIME)), "note": {"a": 1}}, indent=1)),
        answer_of(TIME).replace("thời▁gian", "thời gian").replace("Đừng lãng", "  Đừng  lãng"),
        answer_of(TIME).replace("Đừng lãng", "Đừng\\nlãng").replace("chuyện không", "chuyện\nkhông"),
    ],
    ids=["plain", "fenced", "thought", "braces", "decomposed", "spaces", "line ends"],
)
def test_answers_are_read_leniently(text):
    assert parse_answer(text) == {key: value for key, value in TIME.items() if key != "en_one_token"}


@pytest.mark.parametrize(
    "text", ["", "no", answer_of(TIME)[:-1], "{}", "[1]", '{"a"', "<think>{", "{" * 9000, "{]" * 3000]
)
def test_answers_without_an_object(text):
    found = parse_answer(text)
    assert found is None or "examples_en" not in found


def test_the_question_tells_the_rules_and_the_dictionary():
    text = question("thời▁gian", ["time", "while"])
    for part in (
        '"thời gian"',
        '"thời▁gian"',
        "1 to 5",
        "2 to 6",
        "exactly 3",
        "8 words",
        "5 words",
        ". ! ? …",
    ):
        assert part in text
    assert text.endswith('A dictionary translates "thời gian" as: time, while.')
    assert "A dictionary translates" not in question("thời▁gian")


class Script:
    """A model that gives prepared answers, and remembers what it was asked."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.asked: list[list[dict[str, str]]] = []

    def __call__(self, messages: list[dict[str, str]], *, schema: dict[str, Any]) -> str:
        self.asked.append(messages)
        return self.answers.pop(0)


WORDS = ["thời▁gian", "chợ▁nổi"]


def test_a_wrong_answer_is_asked_again_with_what_is_wrong():
    short = answer_of(with_example(1, "Tôi hết thời gian rồi."))
    model = Script(short, "xin lỗi", answer_of(MARKET), answer_of(TIME))
    dictionary = {"thời gian": ["while"]}
    writer = Writer(model, words=WORDS, encoder=ENCODER, dictionary=dictionary)
    assert writer.write("thời▁gian") == {"row": TIME}
    first, second, third, fourth = model.asked
    assert [message["role"] for message in second] == ["user", "assistant", "user"]
    assert first == second[:1] == fourth[:1] and first[0]["content"].endswith("as: while.")
    assert second[1]["content"] == short and "with 5 words, expected 8 or more" in second[2]["content"]
    assert "- holds no whole JSON object" in third[2]["content"]
    assert "- \"word\" is 'chợ▁nổi', expected 'thời▁gian'" in fourth[2]["content"]


def test_a_word_is_given_up_after_some_answers():
    model = Script("", '{"word": "thời gian", "en": "time"}', *[answer_of(TIME)[:-9]] * 9)
    result = Writer(model, words=WORDS).write("thời▁gian")
    assert result == {"word": "thời▁gian", "problems": ["holds no whole JSON object"]}
    assert len(model.asked) == ATTEMPTS and model.asked[1][1]["content"] == "{}", "no empty message"
    assert "\"en\" is 'time', expected a list of strings" in model.asked[2][2]["content"]


def test_no_sentence_comes_twice():
    stolen = copy.deepcopy(MARKET)
    stolen["examples"][1] = TIME["examples"][1]
    model = Script(answer_of(TIME), answer_of(stolen), answer_of(MARKET))
    writer = Writer(model, words=WORDS, encoder=ENCODER)
    assert [writer.write(word) for word in WORDS] == [{"row": TIME}, {"row": MARKET}]
    assert "example 2 stands in another row, that of thời▁gian" in model.asked[2][2]["content"]


def test_in_parallel_gives_everything_and_raises_what_is_raised():
    words = [str(number) for number in range(50)]
    for threads in (1, 4):
        found = list(in_parallel(lambda word: {"word": word}, words, threads=threads))
        assert sorted(int(item["word"]) for item in found) == list(range(50))
    with pytest.raises(ZeroDivisionError):
        list(in_parallel(lambda word: {"word": 1 // int(word)}, words, threads=4))


# A server


class Server(ThreadingHTTPServer):
    """Speaks the chat-completions protocol; reply: body of the request → (status, answer, headers)."""

    daemon_threads = True

    def __init__(self, reply: Callable[[dict[str, Any]], tuple[Any, ...]], models: Any = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.reply = reply
        self.models = (200, {"data": [{"id": "tiny-chat"}]}) if models is None else models
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: a client that timed out closed the line."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing, into the output of the tests."""

    def answer(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        self.answer(*(self.server.models if self.path == "/v1/models" else (404, "no such page")))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        self.server.keys.append(self.headers["Authorization"])
        self.answer(*(self.server.reply(body) if self.path == "/v1/chat/completions" else (404, "lost")))


@contextlib.contextmanager
def served(reply: Callable[[dict[str, Any]], tuple[Any, ...]], models: Any = None) -> Iterator[Server]:
    server = Server(reply, models)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def completion(content: Any) -> tuple[int, dict[str, Any]]:
    return 200, {"choices": [{"index": 0, "message": {"role": "assistant", "content": content}}]}


def in_turn(*replies: tuple[Any, ...]) -> Callable[[dict[str, Any]], tuple[Any, ...]]:
    left = list(replies)
    return lambda body: left.pop(0)


QUESTION = [{"role": "user", "content": "Xin chào"}]


def asked_once(server: Server, **options: Any) -> str:
    options = {"pause": 0.01, **options}
    return ChatServer(server.url, **options)(QUESTION, schema=explain_writer.schema("thời▁gian"))


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def test_what_a_server_is_sent(monkeypatch):
    with served(lambda body: completion("Chào!")) as server:
        assert asked_once(server) == "Chào!"
        monkeypatch.setenv("OPENAI_API_KEY", "secret")
        for url in ("", "/", "/v1", "/v1/", "/v1/chat/completions"):
            chat = ChatServer(server.url + url, model_name="other")
            assert chat(QUESTION, schema=explain_writer.schema("thời▁gian")) == "Chào!"
    body, other = server.bodies[:2]
    assert (body["model"], other["model"], body["messages"]) == ("tiny-chat", "other", QUESTION)
    assert body["response_format"]["type"] == "json_schema"
    form = body["response_format"]["json_schema"]["schema"]
    assert form["required"] == ["word", "en", "near", "examples", "examples_en"]
    assert form["properties"]["examples"]["minItems"] == form["properties"]["examples"]["maxItems"] == 3
    assert server.keys == [None] + ["Bearer secret"] * 5


def test_a_server_that_fails_is_tried_again(capsys):
    replies = [(500, "out of memory"), (429, {"error": "slow"}, {"Retry-After": "0"}), completion("Chào!")]
    with served(in_turn(*replies)) as server:
        assert asked_once(server) == "Chào!"
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("/v1/chat/completions: HTTP 500: out of memory; once more in 0.01 s")
    assert second.endswith('HTTP 429: {"error": "slow"}; once more in 0.02 s')


def test_a_server_that_keeps_failing_is_one_line():
    with served(lambda body: (503, "loading")) as server:
        with pytest.raises(
            UserError, match="failed 5 times, at last: HTTP 503: loading; .*same command again"
        ):
            asked_once(server)
        assert len(server.bodies) == 5
    with pytest.raises(UserError, match="failed 5 times, at last: .*refused"):
        asked_once(server)


def test_a_server_that_takes_too_long_is_asked_again(capsys):
    slow = [True]

    def reply(body: dict[str, Any]) -> tuple[Any, ...]:
        if slow and slow.pop():
            time.sleep(1)
        return completion("Chào!")

    with served(reply) as server:
        assert asked_once(server, timeout=0.3) == "Chào!"
    assert "timed out; once more" in capsys.readouterr().err


@pytest.mark.parametrize("status", [400, 422, 500])
@pytest.mark.parametrize(
    ("known", "asked", "how"),
    [
        ({"json_object"}, ["json_schema", "json_object", "json_object"], "as json_object"),
        (set(), ["json_schema", "json_object", None, None], "without it"),
    ],
)
def test_a_server_without_response_format(status, known, asked, how, capsys):
    """500 with the field's name is what llama-cpp-python says to json_schema."""

    def kind(body: dict[str, Any]) -> str | None:
        return body.get("response_format", {}).get("type")

    def reply(body: dict[str, Any]) -> tuple[Any, ...]:
        if kind(body) in {None, *known}:
            return completion("Chào!")
        return status, {"error": f"body, response_format: no {kind(body)}"}

    with served(reply) as server:
        chat = ChatServer(server.url)
        assert [chat(QUESTION, schema={}) for _ in range(2)] == ["Chào!"] * 2
    assert [kind(body) for body in server.bodies] == asked
    assert (
        capsys.readouterr().err == f"{server.url}/v1 refuses response_format as json_schema; asking {how}\n"
    )


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (
            (400, "no such model"),
            "refuses model 'm': HTTP 400: no such model; check --server and --model_name",
        ),
        ((401, "who?"), "HTTP 401: who.; set OPENAI_API_KEY"),
        ((302, "", {"Location": "http://127.0.0.1:9/"}), "refuses model 'm': HTTP 302"),
        ((200, "<html>"), "answers '<html>', expected a chat completion"),
        ((200, {"choices": []}), "answers .*choices.*, expected a chat completion"),
        (completion(["text"]), "answers .*text.*, expected a chat completion"),
    ],
    ids=["400", "401", "redirect", "no JSON", "no choice", "no text"],
)
def test_a_server_that_refuses_is_one_line(reply, message):
    with served(lambda body: reply) as server, pytest.raises(UserError, match=message):
        asked_once(server, model_name="m")


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ((200, {"data": []}), "has 0 models"),
        ((200, {"data": [{"id": "a"}, {"id": "b"}]}), r"has 2 models \(a, b\); choose one: --model_name"),
        ((404, "none"), "does not list the server's models .HTTP 404: none.; check --server, or say which"),
        ((403, "no"), "does not list .*set OPENAI_API_KEY"),
        ((200, {"data": 3}), "does not list the server's models"),
    ],
)
def test_the_model_of_a_server_must_be_clear(models, message):
    with served(lambda body: completion(""), models) as server, pytest.raises(UserError, match=message):
        ChatServer(server.url)


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://a", "http://", "http://a/?q=1", "file:///etc"])
def test_an_address_that_is_none(url):
    with pytest.raises(UserError, match="is no address of a server"):
        ChatServer(url)


# --similarity


def word_asked(body: dict[str, Any]) -> str:
    """The word of the first message."""
    return body["messages"][0]["content"].split('for the word "')[1].split('"')[0].replace(" ", "▁")


def made_up(word: str) -> dict[str, Any]:
    """A row that the checker takes, for any word."""
    text = word.replace("▁", " ")
    return {
        "word": word,
        "en": ["time"],
        "near": ["lúc", "giờ"],
        "examples": [
            f"Hôm nay {text} là chuyện cả nhà cùng bàn.",
            f"Chúng tôi đã nói với nhau rất lâu về {text}.",
            f"Ai cũng biết rằng {text} không hề đơn giản chút nào.",
        ],
        "examples_en": [
            f"Today the family talks about {text}.",
            f"We talked for a long time of {text}.",
            f"Everybody knows that {text} is not simple.",
        ],
    }


def willing(body: dict[str, Any]) -> tuple[Any, ...]:
    return completion(json.dumps(made_up(word_asked(body))))


@pytest.fixture
def words_file(tmp_path) -> Path:
    syllables = ["bạn", "học", "nhà", "sông", "chợ"]
    return write_jsonl(
        tmp_path / "words.jsonl", [{"word": f"{a}▁{b}"} for a in syllables for b in syllables if a != b]
    )


def words_of(path: Path) -> list[str]:
    return [json.loads(line)["word"] for line in path.read_text(encoding="utf-8").splitlines()]


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
    rows = read_rows(out)
    assert check_rows(rows, encoder=load_encoder(folder)) == [] and "en_one_token" in rows[0]
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
    assert all("en_one_token" not in row for row in read_rows(out))
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
    progress = tmp_path / "out.jsonl.progress.jsonl"
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
    assert not out.exists() and (tmp_path / "out.jsonl.progress.jsonl").exists()
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
    path = tmp_path / "out.jsonl.progress.jsonl"
    write_jsonl(path, [json.dumps(head) if line == "HEAD" else line for line in lines])
    before = path.read_bytes()
    with served(willing) as server, pytest.raises(UserError, match=message):
        build_vi_words.main(command(server, words_file, tmp_path / "out.jsonl"))
    assert path.read_bytes() == before and not (tmp_path / "out.jsonl").exists()


def test_progress_that_was_killed_in_its_first_line_counts_for_nothing(words_file, tmp_path):
    (tmp_path / "out.jsonl.progress.jsonl").write_text('{"format": "voc')
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
    assert check_rows(read_rows(tmp_path / "out.jsonl"), encoder=load_encoder(local)) == []


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
