"""What the hub's libraries raise, as one sentence of what is wrong and what to do."""

from __future__ import annotations

import os
import re

from runner.errors import RunnerError, first_line

_NAMED = re.compile(r"\[(.*?)\]")
_TABLE = (
    (r"Config name is missing", "has several configs, and the address names none{there}", "Write {config}."),
    (r"BuilderConfig '(?P<it>.*?)' not found", "has no config {it!r}{there}", "Write {config}."),
    (r"Bad split: (?P<it>\S+?)\.", "has no split {it!r}{there}", "Name one of these in dataset.files."),
    (r"doesn't contain any data files|No \(supported\) data files", "has no files of rows", "Name another dataset."),
    (r"scripts are no longer supported", "is made by a script, which is not run",
     "Read the files that the hub converted: revision=refs/convert/parquet."),
    (r"magic bytes not found|JSON parse error|Error tokenizing", "has a file in another form than its first config",
     "Name the files themselves: dataset.source=https://HOST/datasets/ORG/NAME/resolve/main/FOLDER."),
)  # fmt: skip
"""What the `datasets` library writes, and what it means. `there`: the names that it lists. `config`: an address."""


def explained(source: str, split: str, error: Exception) -> RunnerError:
    """The error of a dataset of the hub. split: that was read; "" where none was."""
    if (found := _of_access(source, error)) is not None:
        return found
    text = " ".join(str(error).split())
    for pattern, words, hint in _TABLE:
        if match := re.search(pattern, text):
            listed = _NAMED.search(text, match.start())
            names = [each.strip(" '\"") for each in listed[1].split(",")] if listed else []
            there = f"; there are: {', '.join(names)}" if names else ""
            given = {"it": match.groupdict().get("it"), "there": there, "config": _with_config(source, names)}
            return RunnerError(f"dataset.source={source} {_filled(words, given)}", _filled(hint, given))
    of = f", split {split}" if split else ""
    return RunnerError(
        f"dataset.source={source}{of}: {first_line(error)}", "Check the name, config, split and network."
    )


def _filled(words: str, given: dict[str, str | None]) -> str:
    return words.replace("{it!r}", repr(given["it"])).format(**given)


def _with_config(source: str, names: list[str]) -> str:
    name, _, query = source.partition("?")
    others = [each for each in query.split("&") if each and not each.startswith("config=")]
    return f"{name}?" + "&".join([f"config={names[0] if names else 'NAME'}", *others])


def _of_access(source: str, error: Exception) -> RunnerError | None:
    """Where the hub does not answer, or refuses: also as the cause of what `datasets` raises."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(error, GatedRepoError):
            why = "and this token may not read it" if status == 403 else "and no token was given"
            hint = "Accept its terms on its page, and set HF_TOKEN to a token of that account."
            return RunnerError(f"dataset.source={source} is gated, {why}", hint)
        if isinstance(error, RevisionNotFoundError):
            hint = "Name a branch, a tag or a commit of it in revision=."
            return RunnerError(f"dataset.source={source} has no such revision", hint)
        if isinstance(error, RepositoryNotFoundError):
            hint = "Correct its name; for a private dataset set HF_TOKEN."
            return RunnerError(f"dataset.source={source}: the hub has no such dataset, or it is private", hint)
        if isinstance(error, ConnectionError | TimeoutError) or "Connect" in type(error).__name__:
            hub = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
            hint = "Check the network; a mirror is named by HF_ENDPOINT."
            return RunnerError(f"dataset.source={source}: the hub at {hub} does not answer", hint)
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return None
