"""`action=serve`: the adapters of several finished runs behind one endpoint, each by its name.

The first run's recipe says how; its `serve` and `query` stages run again with the other runs in `serve.runs`.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from runner.errors import RunnerError
from runner.pipeline.manifest import MANIFEST
from runner.recipe.load import RECIPES_DIR, Composed, parse
from runner.recipe.schema import Recipe, RunOptions
from runner.storage.atomic import read_state
from runner.sweep.state import Sweep


def name_the_sweep(overrides: list[str], config_dir: Path | None) -> list[str]:
    """`sweep=<id>` names a finished sweep unless a file of the group `sweep` has that name: it becomes `sweep_id=`."""
    roots = [RECIPES_DIR, *([config_dir] if config_dir else [])]
    known = {file.stem for root in roots for file in (root / "sweep").glob("*.yaml")}
    return [
        f"sweep_id={text.removeprefix('sweep=')}"
        if text.startswith("sweep=") and text.removeprefix("sweep=") not in known
        else text
        for text in overrides
    ]


def serving(composed: Composed) -> tuple[Composed, RunOptions]:
    """The first run's recipe with the others in `serve.runs`, and options that run just serve and query.

    Keys given on the command line win over the run's recipe; the endpoint stays up until Ctrl-C unless they say
    otherwise. Raises RunnerError when no run is named, or one cannot be found.
    """
    options = parse(composed).options or RunOptions()
    root = Path(composed.values["storage"]["root"]).expanduser().resolve()
    runs = options.runs or _best_of_sweep(root, options)
    values = _recipe_of(root, runs[0])
    serve = values.setdefault("serve", {})
    serve |= {"runs": runs[1:], "keep_alive": True}
    for dotted in _given(composed.overrides):
        _copy(composed.values, values, dotted.split("."))
    values["storage"]["root"] = composed.values["storage"]["root"]
    only = [name for name in ("serve", "query") if name in values["pipeline"]]
    if "serve" not in only:
        raise RunnerError(f"the pipeline of the run {runs[0]} has no serve stage", "Name another run first.")
    return Composed(values, [], overrides=composed.overrides), RunOptions(action="serve", only=only, force=only)


def _best_of_sweep(root: Path, options: RunOptions) -> list[str]:
    if options.sweep_id is None:
        raise RunnerError(
            "action=serve needs the runs to serve", "Name them: runs=[ID,ID], or sweep=ID top=3 for a sweep's best."
        )
    folder = root / "sweeps" / options.sweep_id
    try:
        sweep = Sweep.load(folder)
    except FileNotFoundError:
        raise RunnerError(
            f"there is no sweep {options.sweep_id!r} below {root / 'sweeps'}", "Name one of its folders."
        ) from None
    scored = [job for job in sweep.jobs if job.status == "done" and job.value is not None]
    best = sorted(scored, key=lambda job: -(job.value or 0.0))[: options.top]
    if not best:
        raise RunnerError(f"no job of the sweep {options.sweep_id} has a score", "Continue the sweep first.")
    return [job.run_id for job in best]


def _recipe_of(root: Path, run_id: str) -> dict[str, Any]:
    found = next((path.parent for path in root.glob(f"*/*/{MANIFEST}") if path.parent.name == run_id), None)
    if found is None:
        raise RunnerError(f"there is no run {run_id!r} below {root}", "Name the folder of a run (its id).")
    values = read_state(found / "recipe.json")
    return {key: value for key, value in values.items() if key in Recipe.model_fields}


def _given(overrides: list[str]) -> list[str]:
    """Dotted recipe keys that the command line sets."""
    keys = []
    for override in OverridesParser.create().parse_overrides(overrides):
        key = override.get_key_element().lstrip("+~").split("@")[0]
        if key.partition(".")[0] in Recipe.model_fields and "." in key:
            keys.append(key)
    return keys


def _copy(source: Any, target: dict[str, Any], path: list[str]) -> None:
    for part in path[:-1]:
        source, target = source[part], target.setdefault(part, {})
    target[path[-1]] = deepcopy(source[path[-1]])
