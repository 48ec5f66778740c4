"""Rules about data, where models come from, and where artifacts go."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from runner.errors import Problem
from stages.data import prompt_rules, source_rules
from stages.data.source_rules import s3_address
from stages.sections.model import is_local
from stages.sections.recipe import Recipe

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_PACKAGE = re.compile(r"(?!.*\.\.)package://[A-Za-z0-9][\w.-]*/[\w./-]+\.gguf")


def addresses_are_well_formed(recipe: Recipe) -> Iterator[Problem]:
    artifacts, path = recipe.storage.artifacts, recipe.train.storage_path
    for key, value in (("storage.artifacts", artifacts), ("train.storage_path", path)):
        if value is None:
            continue
        if value.startswith("s3://"):
            yield from s3_address(key, value)
        elif "://" in value:
            yield Problem(key, value, "is not a store", "Give s3://bucket/prefix or a local folder.")
        elif not value.strip():
            yield Problem(key, value, "is empty", "Give s3://bucket/prefix or a local folder.")
    for key, folder in (("storage.root", recipe.storage.root), ("storage.cache", recipe.storage.cache)):
        if "://" in folder or not folder.strip():
            yield Problem(key, folder, "must be a folder that all nodes see", "Give a path; artifacts may go to s3://.")


def model_source_is_known(recipe: Recipe) -> Iterator[Problem]:
    source = recipe.model.source
    if source.startswith("s3://"):
        yield from s3_address("model.source", source)
    elif source.startswith("package://"):
        if not _PACKAGE.fullmatch(source):
            yield Problem(
                "model.source", source, "names no GGUF file of a package", "Write package://<distribution>/<file>.gguf."
            )
    elif is_local(source):
        if recipe.cluster.address is None and not (Path(source).expanduser() / "config.json").is_file():
            message = "is not a model folder of this machine: it has no config.json"
            yield Problem("model.source", source, message, "Give a folder that save_pretrained wrote.")
    elif not _HUB_ID.fullmatch(source):
        yield Problem(
            "model.source",
            source,
            "names no model",
            "Give a hub id (owner/name), s3://bucket/prefix, a folder, or package://<distribution>/<file>.gguf.",
        )


RULES = (
    *source_rules.RULES,
    *prompt_rules.RULES,
    addresses_are_well_formed,
    model_source_is_known,
)
