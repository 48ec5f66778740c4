"""Models that Python packages carry as GGUF, converted to a Hugging Face folder in bfloat16.

The environment that such packages are installed in converts them: some releases of transformers convert a tokenizer's
rules wrongly.
"""

from __future__ import annotations

import re
import shutil
from contextlib import redirect_stderr, suppress
from importlib.metadata import Distribution, distributions
from io import StringIO
from pathlib import Path
from typing import Any

from runner.cluster import environments
from runner.errors import RunnerError

_ROUND_TRIP = "A line of 4 words, then:\n  1994 (été)."
ENVIRONMENT = "engine"  # that packages with models are installed in
_CONVERSION = 1  # raise it when convert() writes something else for the same file


def find_packaged_file(distribution: str, name: str, environment: str | None = None) -> Path:
    """Path of a GGUF file of an installed distribution, which is not imported.

    name: the file's name, or its path inside the distribution. environment: in which it is looked for; None for that
    of this process. Raises RunnerError when either is not there.
    """
    found = _distribution(distribution, environment)
    if found is None:
        raise RunnerError(
            f"model.source=package://{distribution}/{name}: the package {distribution!r} is not installed",
            f"Install it without what it depends on: {_install(distribution)}",
        )
    entries = [entry for entry in found.files or [] if entry.suffix == ".gguf"]
    for entry in entries:
        if name in (entry.name, entry.as_posix()) and ".." not in entry.parts:
            path = Path(str(entry.locate()))
            if path.is_file():
                return path
    there = ", ".join(entry.name for entry in entries) or "none"
    raise RunnerError(
        f"model.source=package://{distribution}/{name}: the package has no such GGUF file; it has: {there}",
        "Write package://<distribution>/<file>.gguf.",
    )


def _distribution(name: str, environment: str | None) -> Distribution | None:
    with suppress(ValueError):  # no name at all
        return next(iter(distributions(name=name, path=environments.packages(environment))), None)
    return None


def _install(distribution: str) -> str:
    """What installs the package where models are converted."""
    return f"uv pip install --python {environments.python(ENVIRONMENT)} --no-deps {distribution}"


def installed_version(distribution: str, environment: str | None) -> str | None:
    """Version of the distribution in the environment, None where it is not there."""
    found = _distribution(distribution, environment)
    return found.version if found else None


def installed_hash(distribution: str, name: str, environment: str | None) -> str | None:
    """The digest that the distribution's own list of files has for the GGUF file; None where it has none."""
    found = _distribution(distribution, environment)
    for entry in (found.files or []) if found else []:
        if name in (entry.name, entry.as_posix()) and entry.hash:
            return f"{entry.hash.mode}={entry.hash.value}"
    return None


def cache_name(distribution: str, path: Path, environment: str | None = None) -> str:
    """Name of the folder that the file's conversion is kept in: it changes with all that the conversion depends on.

    environment: that it is converted in; None for that of this process.
    """
    parts = (
        f"{distribution}-{installed_version(distribution, environment)}",
        path.stem,
        str(path.stat().st_size),
        f"transformers-{installed_version('transformers', environment)}",
        f"v{_CONVERSION}",
    )
    return re.sub(r"[^A-Za-z0-9._-]", "-", "--".join(parts))


def convert(path: Path, folder: Path) -> None:
    """Write the GGUF model as a Hugging Face folder: bfloat16 safetensors, config, tokenizer and chat template.

    The quantised weights are expanded, not requantised. Raises RunnerError when transformers cannot read the file.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    shutil.rmtree(folder, ignore_errors=True)
    try:
        with redirect_stderr(StringIO()):  # a progress bar that has no switch
            model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.bfloat16)
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    except (ImportError, OSError, ValueError) as error:
        reason = str(error).rstrip(". ")
        raise RunnerError(f"transformers cannot convert {path.name}: {reason}", _hint(error)) from error
    set_special_tokens(tokenizer, model.config)
    check_round_trip(tokenizer, path.name)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    readable = (folder / "config.json").stat().st_mode
    for weights in folder.glob("*.safetensors"):  # safetensors writes files that only their owner may read
        weights.chmod(readable)


def convert_tokenizer(file: str, folder: str) -> None:
    """Write only the tokenizer and the config, as `convert` does: seconds instead of a minute. Called by `call`.

    Raises RunnerError when transformers cannot read the file.
    """
    from transformers import AutoConfig, AutoTokenizer

    path = Path(file)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    except (ImportError, OSError, ValueError) as error:
        raise RunnerError(f"transformers cannot read {path.name}: {error}", _hint(error)) from error
    set_special_tokens(tokenizer, config)
    check_round_trip(tokenizer, path.name)
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _hint(error: Exception) -> str:
    return f"Make the environment {ENVIRONMENT} again." if isinstance(error, ImportError) else "Take another model."


def set_special_tokens(tokenizer: Any, config: Any) -> None:
    """Give the tokenizer the end and padding tokens that the model's config names.

    transformers' conversion takes the config's ids from the GGUF metadata, but guesses the tokenizer's tokens: for
    SmolLM2 it makes <|im_start|> the end of a sequence, and no answer would ever stop.
    """
    eos_id = config.eos_token_id[0] if isinstance(config.eos_token_id, list) else config.eos_token_id
    if eos_id is None:
        return
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(eos_id)
    pad_id = eos_id if config.pad_token_id is None else config.pad_token_id
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad_id)


def check_round_trip(tokenizer: Any, name: str) -> None:
    """Raise RunnerError unless the words of a text survive the tokenizer.

    Some releases of transformers convert its rules wrongly (5.5.4 turns SmolLM2's spaces into <|endoftext|>), and a
    model would be trained on tokens that stand for other text.
    """
    ids = tokenizer.encode(_ROUND_TRIP, add_special_tokens=False)
    if (back := tokenizer.decode(ids)).split() != _ROUND_TRIP.split():
        raise RunnerError(
            f"the tokenizer that transformers makes of {name} turns {_ROUND_TRIP!r} into {back!r}",
            "Install another release of transformers, or use another model.",
        )
