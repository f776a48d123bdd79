"""A model behind HTTP, a real server on this machine: what it is sent, its failures, its refusals."""

import contextlib
import socket
import sys
import threading
import time
from typing import Any

import pytest
from explaining import QUESTION, Server, completion, in_turn, served

from vocabkit.errors import UserError
from vocabkit.words.explain.server import ChatServer
from vocabkit.words.explain.writer import schema


def asked_once(server: Server, **options: Any) -> str:
    options = {"pause": 0.01, **options}
    return ChatServer(server.url, **options)(QUESTION, schema=schema("thời▁gian"))


def test_what_a_server_is_sent(monkeypatch):
    with served(lambda body: completion("Chào!")) as server:
        assert asked_once(server) == "Chào!"
        monkeypatch.setenv("OPENAI_API_KEY", "secret")
        for url in ("", "/", "/v1", "/v1/", "/v1/chat/completions"):
            chat = ChatServer(server.url + url, model_name="other")
            assert chat(QUESTION, schema=schema("thời▁gian")) == "Chào!"
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
    with pytest.raises(UserError, match="failed 5 times, at last: All connection attempts failed"):
        asked_once(server)


def test_a_server_that_takes_too_long_is_asked_again(capsys):
    slow = [True]

    def reply(body: dict[str, Any]) -> tuple[Any, ...]:
        if slow and slow.pop():
            time.sleep(1)
        return completion("Chào!")

    with served(reply) as server:
        assert asked_once(server, timeout=0.3) == "Chào!"
    assert "timed out after 0.3 s; once more" in capsys.readouterr().err


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
            "completions refuses: HTTP 400: no such model; check --server and --model_name",
        ),
        ((401, "who?"), "HTTP 401: who.; set OPENAI_API_KEY"),
        ((302, "", {"Location": "http://127.0.0.1:9/"}), "refuses: HTTP 302"),
        ((200, "<html>"), "answers '<html>', expected what OpenAI's servers say"),
        ((200, {"choices": []}), "answers .*choices.*, expected what OpenAI's servers say"),
        (completion(["text"]), "answers .*text.*, expected what OpenAI's servers say"),
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
        ((404, "none"), "/v1/models refuses: HTTP 404: none; check --server and --model_name"),
        ((403, "no"), "/v1/models refuses: HTTP 403: no; set OPENAI_API_KEY"),
        ((200, {"data": 3}), "/v1/models answers .*data.*, expected what OpenAI's servers say"),
        ((200, {"data": [{"id": 5}]}), "expected what OpenAI's servers say"),
    ],
)
def test_the_model_of_a_server_must_be_clear(models, message):
    with served(lambda body: completion(""), models) as server, pytest.raises(UserError, match=message):
        ChatServer(server.url)


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8080", "ftp://a", "http://", "http://a/?q=SECRET", "file:///etc", "http://[::1",
        "http://a:SECRET", "http://you:SECRET@a", "http://you:SEC/RET@a", "you:SECRET@a", "http://a/\x01",
    ],
)  # fmt: skip
def test_an_address_that_is_none_and_its_password_is_not_shown(url):
    with pytest.raises(UserError, match="is no address of a server") as error:
        ChatServer(url)
    assert "RET" not in str(error.value) or url == "http://a:SECRET"  # no password, a bad port


def test_a_host_that_is_none_is_one_line(monkeypatch):
    with pytest.raises(UserError, match="failed 5 times, at last: "):
        ChatServer("http://localhost..:8080", pause=0)


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n", " "])
def test_a_key_that_came_from_a_file_is_taken_without_its_line_end(monkeypatch, end):
    monkeypatch.setenv("OPENAI_API_KEY", "secret" + end)
    with served(lambda body: completion("Chào!")) as server:
        asked_once(server)
    assert server.keys == ["Bearer secret"]


@pytest.mark.parametrize("key", ["sec\rret", "khóa-secret", "\u200bsecret"])
def test_a_key_that_is_none_is_not_shown(monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(UserError, match="OPENAI_API_KEY holds a character that no key has") as error:
        ChatServer("http://localhost:8080", model_name="m")
    assert "ret" not in str(error.value)


# A server that means harm


@pytest.mark.parametrize("status", [200, 400])
def test_an_answer_without_end_is_refused(monkeypatch, status):
    monkeypatch.setattr("vocabkit.words.explain.server.MAX_BYTES", 10_000)
    with served(lambda body: (status, "a" * 20_000)) as server:
        with pytest.raises(UserError, match="completions answers more than 10,000 bytes"):
            asked_once(server)
        assert len(server.bodies) == 1


@pytest.mark.parametrize("place", ["head", "body"])
def test_the_time_limit_is_that_of_the_whole_answer(place):
    """Each byte comes in time; all of them would take a minute."""
    stop = threading.Event()

    def drip(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + (b"\r\n" if place == "body" else b""))
        with contextlib.suppress(OSError):
            while not stop.wait(0.05):
                connection.sendall(b" " if place == "body" else b"X: y\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=drip, args=[listener.accept()[0]], daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        chat = ChatServer(
            f"http://127.0.0.1:{listener.getsockname()[1]}", model_name="m", timeout=0.3, pause=0
        )
        with pytest.raises(UserError, match="failed 5 times, at last: timed out after 0.3 s"):
            chat(QUESTION, schema={})
        stop.set()


@pytest.mark.parametrize("answer", ["[" * 200_000, '{"a":' * 200_000, "9" * 5000, "\x1b]0;x\x07"])
def test_json_that_is_none_or_too_deep_is_one_line(answer):
    with served(lambda body: (200, answer)) as server:
        with pytest.raises(
            UserError, match="answers '.{1,170}', expected what OpenAI's servers say"
        ) as error:
            asked_once(server)
    assert str(error.value).isprintable()


def test_half_a_character_becomes_a_question_mark():
    with served(lambda body: (200, r'{"choices": [{"message": {"content": "\ud800"}}]}')) as server:
        assert asked_once(server) == "?"


def test_a_pause_that_is_no_number_is_left_out():
    with served(in_turn((429, "busy", {"Retry-After": "²"}), completion("Chào!"))) as server:
        assert asked_once(server) == "Chào!"


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(UserError, match="--server needs the openai package; pip install openai"):
        ChatServer("http://localhost:8080")
