"""`export`: the recipe as files that other tools run, with references to secrets and never their values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from runner.errors import UsageError
from runner.storage.atomic import write_text
from runner.storage.digest import digest_bytes
from stages.deploy.export import kubernetes, platforms
from stages.deploy.export.facts import Facts
from stages.deploy.export.own_paths import refuse_own_paths

TARGETS: dict[str, Callable[[Facts], dict[str, str]]] = {
    "ray-job": platforms.ray_job,
    "serve-config": platforms.serve_config_file,
    "kuberay": kubernetes.kuberay,
    "anyscale": platforms.anyscale,
    "compose": platforms.compose,
    "ci": platforms.workflow,
}
_MARK = "# made by recipe-runner, sha256 "


def files_of(target: str, facts: Facts) -> dict[str, str]:
    """The target's files by name. Raises UsageError when one would hold a path of this machine."""
    refuse_own_paths(target, facts)
    return TARGETS[target](facts)


def write_files(files: dict[str, str], folder: Path) -> list[str]:
    """Write the files below the folder. Returns for each what was done: `wrote PATH`, `replaced PATH`, `same PATH`.

    Every file ends with a digest of itself, by which one that was edited by hand is known.
    Raises UsageError naming such a file, before any is written.
    """
    texts = {folder / name: f"{text}{_MARK}{digest_bytes(text.encode())[:16]}\n" for name, text in files.items()}
    if edited := [path for path in texts if path.is_file() and not _is_own(path.read_text(encoding="utf-8"))]:
        raise UsageError(
            f"{edited[0]} was edited, or is not of the runner, and would be overwritten",
            "Move it away, or name another folder: export_to=...",
        )
    lines = []
    for path, text in texts.items():
        before = path.read_text(encoding="utf-8") if path.is_file() else None
        lines.append(f"{'wrote' if before is None else 'same' if before == text else 'replaced'} {path}")
        if before != text:
            try:
                write_text(path, text)
            except OSError as error:
                hint = "Name a folder that you may write to: export_to=FOLDER."
                reason = (error.strerror or str(error)).lower()
                raise UsageError(f"{error.filename or folder}: {reason}", hint) from error
    return lines


def _is_own(text: str) -> bool:
    body, mark, digest = text.rpartition(_MARK)
    return bool(mark) and digest_bytes(body.encode())[:16] == digest.strip()
