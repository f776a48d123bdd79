"""Rows that explain words, and a model that writes them behind a real HTTP server."""

import contextlib
import copy
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

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

    def encode_batch_fast(self, texts: list[str], add_special_tokens: bool) -> list[Any]:
        assert not add_special_tokens
        return [type("Encoding", (), {"ids": [1] if text in self.words else [1, 2]}) for text in texts]


ENCODER = OneToken("time", "market")


def changed(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(TIME), **changes}


def with_example(number: int, sentence: str) -> dict[str, Any]:
    row = changed()
    row["examples"][number - 1] = sentence
    return row


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def answer_of(row: dict[str, Any]) -> str:
    asked = {key: value for key, value in row.items() if key != "en_one_token"}
    return json.dumps(asked, ensure_ascii=False)


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


def words_of(path: Path) -> list[str]:
    return [json.loads(line)["word"] for line in path.read_text(encoding="utf-8").splitlines()]
