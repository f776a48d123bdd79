"""A language model behind HTTP: one conversation in, the answer's text out.

Speaks the chat-completions protocol that llama.cpp's server, vLLM, Ollama and OpenAI share, through OpenAI's
package. The key of a server that wants one is read from OPENAI_API_KEY. Writes nothing.
"""

import asyncio
import importlib.util
import json
import os
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vocabkit.errors import UserError, one_line

KEY = "OPENAI_API_KEY"

TRIES, FIRST_PAUSE = 5, 1.0  # seconds, doubled each time: a server that restarts gets 15
BUSY = {408, 409, 425, 429, 500, 502, 503, 504, 529}  # statuses that a later try may not meet again
REFUSALS = {400, 404, 415, 422, 501}  # statuses of servers that do not know a field or a value of it
FORM, AFTER, OK = "response_format", "Retry-After", 200
COMPLETIONS, MODELS = "/chat/completions", "/models"
MAX_TOKENS = 4096  # of an answer: room for a model that thinks first, an end for one that never stops
MAX_BYTES = 16 << 20  # of an answer, or of a list of models


class ChatServer:
    """A server and one of its models. Calls may come from several threads.

    model_name None: the only model that the server lists. timeout: seconds that one answer may take in all.
    """

    def __init__(
        self, url: str, *, model_name: str | None = None, timeout: float = 600, pause: float = FIRST_PAUSE
    ) -> None:
        self.url, self._key = _address(url), _key()
        self._timeout, self._pause = timeout, pause
        self._form = 0  # of _forms(): the first that the server has not refused
        self._lock = threading.Lock()
        self.model_name = model_name or self._only_model()

    def __call__(self, messages: Sequence[Mapping[str, str]], *, schema: Mapping[str, Any]) -> str:
        """Return the answer; schema: of the JSON asked for, enforced by servers that can do it."""
        body = {"model": self.model_name, "messages": list(messages), "max_tokens": MAX_TOKENS}
        forms = _forms(schema)
        for number in range(self._form, len(forms)):
            status, said = self._ask(COMPLETIONS, {**body, **forms[number]})
            if status not in REFUSALS and (status == OK or FORM not in said):
                break
        answer: str = self._read(
            COMPLETIONS, status, said, lambda found: _text(found["choices"][0]["message"]["content"] or "")
        )
        with self._lock:
            if number > self._form:
                self._form = number
                now = f"as {forms[number][FORM]['type']}" if forms[number] else "without it"
                print(f"{self.url} refuses {FORM} as json_schema; asking {now}", file=sys.stderr)
        return answer

    def _only_model(self) -> str:
        names: list[str] = self._read(
            MODELS, *self._ask(MODELS), lambda found: [_text(entry["id"]) for entry in found["data"]]
        )
        if len(names) != 1:
            shown = ", ".join(name[:60] for name in names[:5]) + (", …" if len(names) > 5 else "")
            raise UserError(f"{self.url} has {len(names)} models ({shown}); choose one: --model_name NAME")
        return names[0]

    def _read(self, path: str, status: int, said: str, take: Callable[[Any], Any]) -> Any:
        """Return what take makes of the JSON that a server said."""
        if status != OK:
            hint = f"set {KEY}" if status in (401, 403) else "check --server and --model_name"
            raise UserError(f"{self.url}{path} refuses: HTTP {status}: {said}; {hint}")
        try:
            return take(json.loads(said))
        except (ValueError, TypeError, LookupError, RecursionError):
            raise UserError(
                f"{self.url}{path} answers {said[:160]!r}, expected what OpenAI's servers say; check --server"
            ) from None

    def _ask(self, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, str]:
        """POST (GET without a body) and return status and text; try again where that may help."""
        if importlib.util.find_spec("openai") is None:
            raise UserError("--server needs the openai package; pip install openai")
        pause = self._pause
        for left in reversed(range(TRIES)):
            try:
                status, said, wanted = asyncio.run(asyncio.wait_for(self._once(path, body), self._timeout))
                if status not in BUSY or FORM in said:  # llama-cpp-python says 500 to a form it lacks
                    return status, said
                reason = f"HTTP {status}: {said}"
                pause = max(pause, min(float(wanted), 60)) if wanted.isdecimal() else pause
            except asyncio.TimeoutError:
                reason = f"timed out after {self._timeout:g} s"
            except UserError:
                raise
            except Exception as error:  # what lies under the package raises more than it documents
                reason = one_line(error.__cause__ or error) or type(error).__name__
            if left:
                print(f"{self.url}{path}: {reason}; once more in {pause:g} s", file=sys.stderr)
                time.sleep(pause)
                pause *= 2
        raise UserError(
            f"{self.url}{path} failed {TRIES} times, at last: {reason}; see to the server, then run the same "
            "command again"
        )

    async def _once(self, path: str, body: Mapping[str, Any] | None) -> tuple[int, str, str]:
        """Return status, text and how long to wait. The package alone would read an answer without end."""
        import openai

        where, key = f"{self.url}{path}", self._key

        class Limited(openai.DefaultAsyncHttpxClient):
            async def send(self, request: Any, **options: Any) -> Any:
                if not key:
                    del request.headers["Authorization"]
                response = await super().send(request, **{**options, "stream": True})
                content = bytearray()
                async for part in response.aiter_bytes():
                    content += part
                    if len(content) > MAX_BYTES:
                        raise UserError(f"{where} answers more than {MAX_BYTES:,} bytes; check --server")
                await response.aclose()
                headers = {AFTER: response.headers.get(AFTER, "")}
                return type(response)(
                    response.status_code, headers=headers, content=bytes(content), request=request
                )

        # A redirect would take the key along to whatever host it names.
        client = Limited(follow_redirects=False, timeout=None)
        async with openai.AsyncOpenAI(
            base_url=self.url, api_key=key or "none", max_retries=0, http_client=client
        ) as api:
            try:
                asked = api.get(path, cast_to=str) if body is None else api.post(path, cast_to=str, body=body)
                return OK, await asked, ""
            except openai.APIStatusError as error:
                said = one_line(error.response.text[:1000])[:300]
                return error.status_code, said, error.response.headers[AFTER]


def _address(url: str) -> str:
    """The server's address up to /v1; UserError, without any password, if it is none."""
    try:
        parts = urllib.parse.urlsplit(url)
        fits = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        fits = False
    if not fits or any(mark in url for mark in "@?#") or not url.isprintable():
        shown = url.rpartition("@")[2].partition("?")[0]
        raise UserError(
            f"--server {shown} is no address of a server; give one such as http://localhost:8080, "
            f"and a key in {KEY}"
        )
    return url.rstrip("/").removesuffix("/chat/completions").removesuffix("/v1") + "/v1"


def _key() -> str:
    """The key, without the line end that a file of it may have; UserError, without the key, if it is none."""
    key = os.environ.get(KEY, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"{KEY} holds a character that no key has; set it again")
    return key


def _text(value: Any) -> str:
    """What a server said; TypeError if it is no text. Half a character can be neither sent nor written."""
    if not isinstance(value, str):
        raise TypeError
    return value.encode(errors="replace").decode()


def _forms(schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The ways to ask for JSON, strictest first: OpenAI's, that of older llama.cpp servers, not at all."""
    strict = {"type": "json_schema", "json_schema": {"name": "row", "strict": True, "schema": schema}}
    return [{FORM: strict}, {FORM: {"type": "json_object", "schema": schema}}, {}]
