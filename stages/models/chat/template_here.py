"""The chat template and the tokenizer, as far as they are on this machine: for rules, without transformers."""

from __future__ import annotations

import json
from pathlib import Path

from runner.errors import RunnerError
from runner.storage.small import read_small
from stages.models.chat_template import template_text
from stages.sections.model import is_local
from stages.sections.recipe import Recipe

_MOST_BYTES = 4 << 20
_MORE = "additional_chat_templates"


def tokenizer_folder(recipe: Recipe) -> Path | None:
    """The folder of the model's tokenizer, where it is on this machine already; None otherwise."""
    source, cache = recipe.model.source, Path(recipe.storage.cache).expanduser()
    if is_local(source):
        folders = [Path(source).expanduser()]
    elif "://" in source:
        folders = []
    else:
        revision = recipe.model.revision or "main"
        repository = cache / "hub" / f"models--{source.replace('/', '--')}"
        named = repository / "refs" / revision
        commit = named.read_text().strip() if named.is_file() else revision
        folders = [repository / "snapshots" / commit]
    return next((each for each in folders if (each / "tokenizer_config.json").is_file()), None)


def template_here(recipe: Recipe) -> str | None:
    """The text of the chat template of requests; None where it is not on this machine."""
    try:
        if recipe.model.chat_template is not None:
            return template_text(recipe.model.chat_template)
        folder = tokenizer_folder(recipe)
        return own_template(folder) if folder is not None else None
    except (RunnerError, OSError, ValueError):
        return None


def own_template(folder: Path, *, tools: bool = False) -> str | None:
    """The template that a tokenizer's folder has; None without one. tools: the one for requests with tools."""
    named = own_templates(folder)
    return (named.get("tool_use") if tools else None) or named.get("default")


def own_templates(folder: Path) -> dict[str, str]:
    """The templates of a tokenizer's folder by their names, as transformers finds them: files win over its config."""
    files = {path.stem: path for path in sorted((folder / _MORE).glob("*.jinja"))}
    if (whole := folder / "chat_template.jinja").is_file():
        files["default"] = whole
    if files:
        return {name: read_small(path, _MOST_BYTES).decode("utf-8") for name, path in files.items()}
    config = folder / "tokenizer_config.json"
    if not config.is_file() or config.stat().st_size > _MOST_BYTES:
        return {}
    found = json.loads(config.read_bytes()).get("chat_template")
    if isinstance(found, list):
        named = {each.get("name"): each.get("template") for each in found if isinstance(each, dict)}
        return {str(name): text for name, text in named.items() if isinstance(text, str)}
    return {"default": found} if isinstance(found, str) else {}
