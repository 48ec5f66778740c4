"""The training's part of the report: loss with evaluation loss, learning rate, figures and settings."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from runner.pipeline.results import Card, Chart, FinishedRun, Part, Points, Series
from runner.text import count_text, duration_text
from stages.trainers.base import DEFAULT, TRAINERS, trainer_named

_TEMPLATES = Path(__file__).parent / "templates"
_FIGURES = {
    "num_steps": "steps",
    "num_samples": "rows",
    "num_workers": "workers",
    "train_loss": "mean loss",
    "loss_first": "first loss",
    "loss_last": "last loss",
    "eval_loss_last": "last evaluation loss",
    "eval_loss_best": "best evaluation loss",
    "samples_per_s": "rows per second",
    "resumed_at_step": "resumed at step",
}
_FOLLOWED = ("loss_last", "eval_loss_last")


def page(run: FinishedRun) -> Part:
    metrics, points = run.metrics("train"), log_points(run)
    loss, eval_loss, rate, chosen = (series(points, name) for name in ("loss", "eval_loss", "lr", "accuracy"))
    charts = {}
    if len(loss) > 1:
        lines = [Series("training", loss, "smooth")]
        lines += [Series("evaluation", eval_loss, "points")] if eval_loss else []
        charts["loss"] = Chart("step", lines)
    if len(rate) > 1 and charts:
        charts["rate"] = Chart("step", [Series("learning rate", rate)])
    if len(chosen) > 1:
        charts["chosen"] = Chart("step", [Series("share of the pairs", chosen, "smooth")])
    figures = _figures(metrics) + [
        ("pairs with the chosen answer preferred", f"{share:.0%}") for _, share in chosen[-1:]
    ]
    has_part = bool(charts or figures)
    return Part(
        order=20,
        templates=_TEMPLATES if has_part else None,
        facts={"figures": figures, "has_eval": bool(eval_loss)},
        charts=charts,
        sections=[("training", "Training")] if has_part else [],
        settings=_settings(run.section("train")),
        cards=_cards(metrics),
        figures={_FIGURES[name]: metrics[name] for name in _FOLLOWED if _is_number(metrics.get(name))},
        curves={name: found for name, found in (("loss", loss), ("evaluation loss", eval_loss)) if len(found) > 1},
    )


def log_points(run: FinishedRun) -> list[dict[str, Any]]:
    """The training log's entries; none when it is gone or damaged."""
    log, name = run.on_this_machine("training_log"), run.section("train").get("trainer", DEFAULT)
    if log is not None and name in TRAINERS:
        with suppress(OSError, ValueError):
            return trainer_named(name).log_points(log.path)
    return []


def series(points: list[dict[str, Any]], name: str) -> Points:
    """(step, value) of each entry that has the value."""
    return [(point["current_steps"], point[name]) for point in points if _is_number(point.get(name))]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _figures(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = []
    for name, label in _FIGURES.items():
        value = metrics.get(name)
        if _is_number(value):
            found.append((label, f"{value:,}" if isinstance(value, int) else f"{value:,.3g}"))
    if _is_number(metrics.get("train_runtime_s")):
        found.append(("time", duration_text(metrics["train_runtime_s"])))
    if metrics.get("num_checkpoints"):
        found.append(("checkpoints", f"{metrics['num_checkpoints']:,} in {duration_text(metrics['checkpoints_s'])}"))
    return found


def _settings(keys: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What decides most about a training, in the words of the recipe."""
    args = keys.get("args") or {}
    batch, stage = args.get("per_device_train_batch_size"), keys.get("stage") or "sft"
    named = {
        "method": ", ".join([*([stage] if stage != "sft" else []), args.get("finetuning_type", "lora")]),
        "LoRA rank": keys.get("lora_rank") if args.get("finetuning_type", "lora") == "lora" else None,
        "learning rate": keys.get("learning_rate"),
        "epochs": keys.get("num_epochs"),
        "batch size": _batch_size(batch, args.get("gradient_accumulation_steps") or 1) if batch else None,
    }
    return [(label, f"{value:g}" if isinstance(value, float) else str(value)) for label, value in named.items()
            if value is not None]  # fmt: skip


def _batch_size(rows: int, accumulated: int) -> str:
    """Rows of a worker between two updates of the weights: `8`, or `32 (8 x 4)` of four batches."""
    return str(rows) if accumulated == 1 else f"{rows * accumulated} ({rows} x {accumulated})"


def _cards(metrics: Mapping[str, Any]) -> list[Card]:
    rate = metrics.get("samples_per_s")
    return [Card("training", f"{rate:.1f} rows/s", count_text(metrics.get("num_steps", 0), "step"))] if rate else []
