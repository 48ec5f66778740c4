"""Chat templates by jinja2 alone: what they read, and their text."""

from __future__ import annotations

import json
from datetime import datetime
from functools import lru_cache
from typing import Any


@lru_cache(maxsize=4)
def compiled(template: str) -> Any:
    """A chat template that can be rendered. Raises jinja2.TemplateSyntaxError."""
    return _environment().from_string(template)


def variables_of(template: str) -> frozenset[str]:
    """Names that the template reads from outside. Raises jinja2.TemplateSyntaxError."""
    from jinja2.meta import find_undeclared_variables

    environment = _environment()
    return frozenset(find_undeclared_variables(environment.parse(template)) - environment.globals.keys())


def _environment() -> Any:
    """Where transformers renders chat templates (`transformers.utils.chat_template_utils`)."""
    from jinja2 import nodes
    from jinja2.exceptions import TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}`, which marks answers and writes nothing."""

        tags = {"generation"}  # noqa: RUF012 (as jinja2's own)

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True)).set_lineno(line)

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def tojson(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment
