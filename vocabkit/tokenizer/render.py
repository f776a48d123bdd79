"""The process that renders chat templates: they are programs of whoever made the checkpoint.

Started by chat_template.py with one JSON object on stdin; writes one on stdout, {"texts"} or {"error"}. A
template may take TIME and MEMORY, and what it does here harms no other process. The environment is that of
transformers (utils/chat_template_utils.py), which would cost seconds to import. Imports nothing of vocabkit.
"""

import datetime
import json
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any

TIME, MEMORY, LENGTH = 10, 1 << 30, 1 << 24  # seconds of work, bytes, characters of one conversation


class OutOfBounds(Exception):
    """A template takes more than that."""


def render(job: Mapping[str, Any]) -> list[str]:
    """Return a job's conversations as its template writes them; raises whatever the template raises.

    job: template, conversations, variables (name → value), now (of strftime_now, in ISO's form).
    """
    import jinja2
    from jinja2 import ext, nodes, parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(ext.Extension):
        """{% generation %} marks what the assistant says, for those who train; its text is its body."""

        tags = {"generation"}

        def parse(self, parser: parser.Parser) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

        def _body(self, caller: Callable[[], str]) -> str:
            return caller()

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(
            value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, ext.loopcontrols]
    )
    environment.filters["tojson"] = tojson
    now = datetime.datetime.fromisoformat(job["now"])
    environment.globals.update(raise_exception=refuse, strftime_now=now.strftime)
    template = environment.from_string(job["template"])
    return [_checked(template.render(messages=chat, **job["variables"])) for chat in job["conversations"]]


def _checked(text: str) -> str:
    if len(text) > LENGTH:
        raise OutOfBounds(f"it writes {len(text):,} characters, expected {LENGTH:,} at most")
    text.encode()  # half a character is no text
    return text


def _limit() -> None:
    """Give this process TIME and MEMORY; on Windows only the process that waits for it limits the time."""
    try:
        import resource
    except ImportError:
        return

    def out_of_time(signal_number: int, frame: object) -> None:
        raise OutOfBounds(f"it takes more than {TIME} seconds")

    signal.signal(signal.SIGXCPU, out_of_time)
    for what, wanted, after in ((resource.RLIMIT_AS, MEMORY, 0), (resource.RLIMIT_CPU, TIME, 5)):
        hard = resource.getrlimit(what)[1]
        hard = wanted + after if hard == resource.RLIM_INFINITY else min(wanted + after, hard)
        resource.setrlimit(what, (min(wanted, hard), hard))


def main() -> None:
    job = json.load(sys.stdin)
    _limit()
    answer: dict[str, Any]
    try:
        answer = {"texts": render(job)}
    except MemoryError:
        answer = {"error": f"it takes more than {MEMORY >> 20:,} MiB of memory", "out_of_bounds": True}
    except Exception as error:  # each template raises what it likes
        known = type(error).__module__.startswith("jinja2") or isinstance(error, OutOfBounds)
        said = f"{error}" if known else f"{type(error).__name__}: {error}"
        answer = {"error": said[:500], "out_of_bounds": isinstance(error, OutOfBounds)}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
