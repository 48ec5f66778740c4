"""What the report says of a run, as plain values: the view that the templates print."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from runner import __version__
from runner.errors import RunnerError
from runner.pipeline.manifest import DRAWINGS, ORIGINS, Manifest, StageRecord
from runner.recipe.comparison import parse_comparison
from runner.recipe.load import flatten
from runner.report.pages.mismatches import mismatches
from runner.report.pages.training import training
from runner.report.pages.verdict import verdict, warnings
from runner.storage.artifact import Artifact
from runner.storage.atomic import read_state
from stages.data.prediction import BASE, TUNED
from stages.evaluate.scores import measured
from stages.evaluate.slices import LENGTH

# The way from the data to the endpoint: artifact, and what it is made of.
_CHAIN = (
    ("train_set", "training rows", ()),
    ("test_set", "test rows", ()),
    ("model", "base model", ()),
    ("checkpoint", "trained adapter", ("train_set", "model")),
    ("adapter", "published adapter", ("checkpoint",)),
    ("predictions", "predictions", ("adapter", "model", "test_set")),
    ("scores", "scores", ("predictions", "adapter")),
    ("endpoint", "endpoint", ("adapter", "scores", "model")),
)


def run_facts(folder: Path) -> dict[str, Any]:
    """Everything the templates of a run need, read from its folder and the local artifacts it names.

    What is missing (a stage that did not run, a file that is gone) is missing in the page too.
    Raises RunnerError when the manifest cannot be read.
    """
    manifest = Manifest.load(folder)
    recipe, identity, origins = (_state(folder / name) for name in ("recipe.json", "identity.json", ORIGINS))
    records = {record.name: record for record in manifest.stages}
    scores = {key: value for key, value in _metrics(records, "evaluate").items() if key != "gate"}
    main = TUNED if TUNED in scores else BASE
    return {
        "run": _run(manifest, recipe, identity),
        "verdict": verdict(manifest, scores),
        "gate": _gate(recipe, scores),
        "scores": _scores(scores, main) if main in scores else None,
        "slices": _slices(scores, main),
        "training": training(manifest.artifact("training_log"), records.get("train"), folder.parent / DRAWINGS),
        "mismatches": mismatches(manifest.artifact("scores"), manifest.artifact("predictions"), recipe),
        "speed": list(_speed(records)),
        "answers": list(_answers(_metrics(records, "query"))),
        "stages": _timeline(manifest, recipe),
        "chain": _chain(manifest),
        "artifacts": [
            {**artifact.summary(), "stage": record.name} for record in manifest.stages for artifact in record.artifacts
        ],
        "recipe": [
            {"key": key, "value": value, "origin": _origin(key, origins)} for key, value in sorted(flatten(recipe))
        ],
        "versions": _versions(manifest),
        "warnings": list(warnings(manifest, recipe, scores)),
    }


def _state(path: Path) -> dict[str, Any]:
    with suppress(RunnerError, OSError):
        return {key: value for key, value in read_state(path).items() if key != "self_sha256"}
    return {}


def _metrics(records: Mapping[str, StageRecord], stage: str) -> dict[str, Any]:
    record = records.get(stage)
    return record.metrics if record and record.status in ("done", "skipped") else {}


def _run(manifest: Manifest, recipe: Mapping[str, Any], identity: Mapping[str, Any]) -> dict[str, Any]:
    model, dataset = recipe.get("model") or {}, recipe.get("dataset") or {}
    return {
        "id": manifest.run_id,
        "recipe": manifest.recipe,
        "status": manifest.status,
        "created_at": manifest.created_at,
        "wall_s": sum(record.wall_s for record in manifest.stages),
        "command": identity.get("command", ""),
        "model": model.get("source", ""),
        "dataset": dataset.get("source", ""),
    }


def _gate(recipe: Mapping[str, Any], scores: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each requirement: `{name, required, value, holds}`; value None was not measured."""
    require = (recipe.get("evaluate") or {}).get("require") or {}
    found = []
    for name, text in require.items() if scores else ():
        comparison, value = parse_comparison(text), measured(name, scores)
        holds = comparison is not None and value is not None and comparison.holds(value)
        found.append({"name": name, "required": text, "value": value, "holds": holds})
    return found


def _scores(scores: Mapping[str, Any], main: str) -> dict[str, Any]:
    """The table of metrics: `{n, num_errors, num_wrong, confidence, denominator, base, rows}`."""
    own, base = scores[main], scores.get(BASE) if main == TUNED else None
    delta = scores.get("delta_vs_base") or {}
    names = scores.get("metrics") or [name for name in own if isinstance(own[name], float)]
    rows = [
        {
            "name": name,
            "value": own[name],
            "interval": own.get(f"{name}_ci"),
            "base": base.get(name) if base else None,
            "base_interval": base.get(f"{name}_ci") if base else None,
            "delta": delta.get(name),
            "delta_interval": delta.get(f"{name}_ci"),
            "p": delta.get(f"{name}_p"),
        }
        for name in names
    ]
    return {
        "n": own["n"],
        "num_errors": own["num_errors"],
        "text": _counts(own, delta, scores.get("denominator", "")),
        "variant": main,
        "confidence": scores.get("confidence", 0.95),
        "has_base": base is not None,
        "other_run": scores.get("delta_vs_run"),
        "rows": rows,
    }


def _counts(own: Mapping[str, Any], delta: Mapping[str, Any], denominator: str) -> str:
    """Right, wrong and refused rows in words, what they are a share of, and what changed against the base model."""
    text = f"{own['n']} rows, {own['num_errors']} refused by the engine"
    if "num_wrong" in own:
        right = own["n"] - own["num_wrong"] - own["num_errors"]
        text = f"Of {own['n']} rows {right} are exactly right, {own['num_wrong']} wrong and {own['num_errors']} refused"
    text += f"; the denominator is {denominator}." if denominator else "."
    if "gained" in delta:
        text += f" {delta['gained']} rows are right that the base model got wrong, {delta['lost']} the other way round."
    return text


def _slices(scores: Mapping[str, Any], main: str) -> list[dict[str, Any]]:
    """For each slice `{name, metric, rows: [{value, n, score, interval, base}]}`, the largest first."""
    metric = (scores.get("metrics") or ["exact_match"])[0]
    found = []
    for name, parts in (scores.get("slices") or {}).items():
        rows = [
            {
                "value": value,
                "n": variants[main]["n"],
                "score": variants[main][metric],
                "interval": variants[main].get(f"{metric}_ci"),
                "base": variants[BASE][metric] if main == TUNED and BASE in variants else None,
            }
            for value, variants in parts.items()
        ]
        ordered = rows if name == LENGTH else sorted(rows, key=lambda row: -row["n"])
        found.append({"name": name, "metric": metric, "rows": ordered})
    return found


def _speed(records: Mapping[str, StageRecord]) -> Iterator[dict[str, str]]:
    """Cards of throughput and latency: `{what, figure, more}`."""
    train, infer, serve, query = (_metrics(records, name) for name in ("train", "infer", "serve", "query"))
    if "samples_per_s" in train:
        yield {"what": "training", "figure": f"{train['samples_per_s']:.1f} rows/s", "more": "LLaMA-Factory"}
    if "output_tokens_per_s" in infer:
        more = f"{infer['num_predictions']} predictions, engine ready in {infer['engine_start_s']:.0f} s"
        yield {"what": "batch inference", "figure": f"{infer['output_tokens_per_s']:.0f} tokens/s", "more": more}
    if "startup_s" in serve:
        yield {"what": "endpoint ready in", "figure": f"{serve['startup_s']:.0f} s", "more": "first answers included"}
    base = query.get("base", {})
    adapter = query if query.get("model") != base.get("model") else {}
    for label, answer in (("adapter", adapter), ("base model", base)):
        if "first_token_s" in answer:
            more = f"{answer['tokens_per_s']:.0f} tokens/s streamed"
            figure = f"{answer['first_token_s'] * 1000:.0f} ms"
            yield {"what": f"first token, {label}", "figure": figure, "more": more}


def _answers(query: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What the endpoint's models said to the first row, side by side: `{model, first_token_s, tokens_per_s, text,
    matches_batch}` of base model, adapter, and the adapters of other runs."""
    asked = [query.get("base"), query, *(query.get("others") or {}).values()]
    seen: set[str] = set()
    for answer in asked:
        if answer and answer.get("model") and answer["model"] not in seen:
            seen.add(answer["model"])
            names = ("model", "first_token_s", "tokens_per_s", "text", "matches_batch")
            yield {name: answer[name] for name in names}


def _timeline(manifest: Manifest, recipe: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Stages in order with their part of the whole time: left and width in percent."""
    total = sum(record.wall_s for record in manifest.stages) or 1.0
    configured, found, before = recipe.get("resources") or {}, [], 0.0
    for record in manifest.stages:
        resources = record.resources or configured.get(record.name) or {}
        found.append(
            {
                "name": record.name,
                "status": record.status,
                "wall_s": record.wall_s,
                "left": 100 * before / total,
                "width": 100 * record.wall_s / total,
                "resources": _resources(resources),
                "origin_run": record.origin_run,
                "note": record.error or record.note or record.status,
            }
        )
        before += record.wall_s
    return found


def _resources(resources: Mapping[str, Any]) -> str:
    parts = [f"{resources.get('cpus_per_worker', 1):g} CPU"]
    if resources.get("gpus_per_worker"):
        parts.append(f"{resources['gpus_per_worker']:g} GPU {resources.get('accelerator_type') or ''}".strip())
    parts += [f"{amount:g} {name}" for name, amount in (resources.get("custom") or {}).items()]
    workers = resources.get("num_workers", 1)
    return f"{workers} x ({', '.join(parts)})" if workers > 1 else ", ".join(parts)


def _chain(manifest: Manifest) -> list[dict[str, Any]]:
    """Digests from the data to the endpoint; each step says which of its inputs it has seen, by digest.

    holds: every input that its stage recorded is the artifact of that name in this run; None: nothing to compare.
    """
    artifacts: dict[str, tuple[Artifact, StageRecord]] = {
        artifact.name: (artifact, record) for record in manifest.stages for artifact in record.artifacts
    }
    steps = []
    for name, title, sources in _CHAIN:
        if name not in artifacts:
            continue
        artifact, record = artifacts[name]
        seen = record.inputs.get("inputs", {})
        known = [source for source in sources if source in seen and source in artifacts]
        same = [seen[source] == artifacts[source][0].sha256 for source in known]
        digest = artifact.meta.get("adapter_sha256") or artifact.sha256 if name == "endpoint" else artifact.sha256
        steps.append(
            {
                "name": name,
                "title": title,
                "digest": digest,
                "from": [source for source in sources if source in seen],
                "holds": all(same) if same else None,
            }
        )
    return steps


def _origin(key: str, origins: Mapping[str, str]) -> str:
    """What set the key or the nearest section above it; the schema's default when nothing did."""
    while key:
        if key in origins:
            return str(origins[key])
        key = key.rpartition(".")[0]
    return "default" if origins else ""


def _versions(manifest: Manifest) -> list[tuple[str, str]]:
    """Libraries that the results depend on, as the stages' records have them, and what wrote this page."""
    found: dict[str, str] = {}
    for record in manifest.stages:
        found |= {name: version for name, version in record.inputs.get("libraries", {}).items() if version}
    own = [("recipe-runner", __version__), ("python", platform.python_version()), ("platform", platform.platform())]
    return [*own, *sorted(found.items())]
