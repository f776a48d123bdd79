"""A model behind HTTP, a real server on this machine: what it is sent, its failures, its refusals."""

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
