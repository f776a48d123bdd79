"""A language model behind HTTP: one conversation in, the answer's text out.

Speaks the chat-completions protocol that llama.cpp's server, vLLM, Ollama and OpenAI share: POST
URL/v1/chat/completions. The key of a server that wants one is read from OPENAI_API_KEY. Writes nothing.
"""

import http.client
import json
import os
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

from vocabkit.errors import UserError, one_line

KEY = "OPENAI_API_KEY"

TRIES, FIRST_PAUSE = 5, 1.0  # seconds, doubled each time: a server that restarts gets 15
BUSY = {408, 409, 425, 429, 500, 502, 503, 504, 529}  # statuses that a later try may not meet again
REFUSALS = {400, 404, 415, 422, 501}  # statuses of servers that do not know a field or a value of it
FORM = "response_format"
MAX_TOKENS = 4096  # of an answer: room for a model that thinks first, an end for one that never stops


class _Refused(Exception):
    """The server understood and said no: its status and words."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"HTTP {status}: {text}")
        self.status = status


class _StayHere(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: urllib would take the key along to whatever host it names."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        return None


class ChatServer:
    """A server and one of its models. Calls may come from several threads.

    model_name None: the only model that the server lists. timeout: seconds that one answer may take.
    """

    def __init__(
        self, url: str, *, model_name: str | None = None, timeout: float = 600, pause: float = FIRST_PAUSE
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise UserError(
                f"--server {url} is no address of a server; give one such as http://localhost:8080"
            )
        self.url = url.rstrip("/").removesuffix("/chat/completions").removesuffix("/v1") + "/v1"
        self._timeout, self._pause = timeout, pause
        self._open = urllib.request.build_opener(_StayHere).open
        self._form = 0  # of _forms(): the first that the server has not refused
        self._lock = threading.Lock()
        self.model_name = model_name or self._only_model()

    def __call__(self, messages: Sequence[Mapping[str, str]], *, schema: Mapping[str, Any]) -> str:
        """Return the answer; schema: of the JSON asked for, enforced by servers that can do it."""
        path = "/chat/completions"
        body = {"model": self.model_name, "messages": list(messages), "max_tokens": MAX_TOKENS}
        forms = _forms(schema)
        for number in range(self._form, len(forms)):
            try:
                answer = self._request(path, {**body, **forms[number]})
            except _Refused as error:
                if number + 1 < len(forms) and (error.status in REFUSALS or FORM in str(error)):
                    continue
                raise self._refusal(path, error) from None
            with self._lock:
                if number > self._form:
                    self._form = number
                    now = f"as {forms[number][FORM]['type']}" if forms[number] else "without it"
                    print(f"{self.url} refuses {FORM} as json_schema; asking {now}", file=sys.stderr)
            break
        try:
            content = answer["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            raise self._stranger(path, answer) from None
        if not isinstance(content, str | None):
            raise self._stranger(path, answer)
        return content or ""

    def _only_model(self) -> str:
        try:
            names = [entry["id"] for entry in self._request("/models")["data"]]
        except (_Refused, KeyError, TypeError) as error:
            raise UserError(
                f"{self.url}/models does not list the server's models ({one_line(error)[:160]}); "
                + (
                    f"set {KEY}"
                    if _is_forbidden(error)
                    else "check --server, or say which: --model_name NAME"
                )
            ) from None
        if len(names) != 1:
            shown = ", ".join(map(str, names[:5])) + (", …" if len(names) > 5 else "")
            raise UserError(f"{self.url} has {len(names)} models ({shown}); choose one: --model_name NAME")
        return str(names[0])

    def _request(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """POST (GET without a body) and return the JSON that comes; try again where that may help."""
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(KEY):
            headers["Authorization"] = f"Bearer {key}"
        data = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        request = urllib.request.Request(self.url + path, data, headers)
        pause = self._pause
        for left in reversed(range(TRIES)):
            try:
                with self._open(request, timeout=self._timeout) as response:
                    text = response.read()
                break
            except urllib.error.HTTPError as error:
                said = one_line(error.read().decode(errors="replace"))[:300]
                reason = f"HTTP {error.code}: {said}"
                if error.code not in BUSY or FORM in said:  # llama-cpp-python says 500 to a form it lacks
                    raise _Refused(error.code, said) from None
                wanted = error.headers.get("Retry-After", "")
                pause = max(pause, min(float(wanted), 60)) if wanted.isdigit() else pause
            except (OSError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
                reason = one_line(getattr(error, "reason", None) or error) or type(error).__name__
            if not left:
                raise UserError(
                    f"{self.url}{path} failed {TRIES} times, at last: {reason}; see to the server, then run "
                    "the same command again"
                )
            print(f"{self.url}{path}: {reason}; once more in {pause:g} s", file=sys.stderr)
            time.sleep(pause)
            pause *= 2
        try:
            return json.loads(text)
        except ValueError:
            raise self._stranger(path, text) from None

    def _refusal(self, path: str, error: _Refused) -> UserError:
        hint = f"set {KEY}" if _is_forbidden(error) else "check --server and --model_name"
        return UserError(f"{self.url}{path} refuses model {self.model_name!r}: {error}; {hint}")

    def _stranger(self, path: str, answer: object) -> UserError:
        shown = one_line(answer.decode(errors="replace") if isinstance(answer, bytes) else answer)[:160]
        return UserError(
            f"{self.url}{path} answers {shown!r}, expected a chat completion with choices; give the address "
            "of an OpenAI-compatible server"
        )


def _forms(schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The ways to ask for JSON, strictest first: OpenAI's, that of older llama.cpp servers, not at all."""
    strict = {"type": "json_schema", "json_schema": {"name": "row", "strict": True, "schema": schema}}
    return [{FORM: strict}, {FORM: {"type": "json_object", "schema": schema}}, {}]


def _is_forbidden(error: Exception) -> bool:
    return isinstance(error, _Refused) and error.status in (401, 403)
