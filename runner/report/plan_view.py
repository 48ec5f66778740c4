"""The plan for a person: in short before a run, in full for `plan`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from runner.pipeline.optional import HasRemarks
from runner.pipeline.plan import Step
from runner.pipeline.rules.check import trusted_values
from runner.recipe.extension import extension
from runner.recipe.schema import Recipe
from runner.recipe.secrets import redact
from runner.report.console import SafeConsole
from runner.text import duration_text, size_text

if TYPE_CHECKING:
    from runner.pipeline.estimates import Estimate

_WIDE = 100  # columns from which resources and outputs have a place of their own


def print_plan(console: SafeConsole, recipe: Recipe, steps: Sequence[Step]) -> None:
    """A line for each stage: run or skip, and why; with its resources and outputs where the terminal is wide."""
    wide = console.width >= _WIDE
    table = Table(box=None, pad_edge=False)
    for column in ("stage", "", "why", *(("resources", "outputs") if wide else ())):
        table.add_column(column, overflow="fold")
    for step in steps:
        more = (resources_text(recipe, step.name), ", ".join(step.stage.provides)) if wide else ()
        style = "cyan" if step.action == "skip" else ""
        table.add_row(step.name, step.action, escape(step.why), *more, style=style)
    console.print(table, soft_wrap=False)
    _warn_of_code(console, recipe)


def print_plan_in_full(
    console: SafeConsole, recipe: Recipe, steps: Sequence[Step], estimates: Mapping[str, Sequence[Estimate]]
) -> None:
    """Each stage with run or skip and why, resources, inputs, outputs and estimates; folded to the terminal."""
    for step in steps:
        style = "bold cyan" if step.action == "skip" else "bold"
        console.print(f"[{style}]{step.name}[/]  {step.action}: {escape(step.why)}", soft_wrap=False)
        console.print(_step_table(recipe, step, estimates.get(step.name, ())))
    if text := _time_text(estimates, recipe.cluster.price_per_hour):
        console.print(text, markup=False, soft_wrap=False)
    for step in steps:
        if isinstance(step.stage, HasRemarks):
            for remark in step.stage.remarks(recipe):
                console.print(f"! {step.name}: {remark}", style="yellow", markup=False)
    _warn_of_code(console, recipe)


def _step_table(recipe: Recipe, step: Step, estimates: Sequence[Estimate]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, min_width=21)
    table.add_column(no_wrap=True, min_width=11, justify="right")
    table.add_column(overflow="fold")
    table.add_row("  resources", "", escape(resources_text(recipe, step.name)))
    for label, names in (("inputs", step.input_digests(recipe)), ("outputs", dict.fromkeys(step.stage.provides))):
        if names:
            table.add_row(f"  {label}", "", ", ".join(_artifact_text(step, *each) for each in names.items()))
    for each in estimates:
        table.add_row(f"  {each.what}", _amount_text(each), escape(_basis_text(each)))
        if each.fits is not None:
            word, text = _fit_text(each)
            table.add_row("  fits", word, escape(text), style="" if each.fits else "yellow")
    return table


def _warn_of_code(console: SafeConsole, recipe: Recipe) -> None:
    for key, _, whose in extension().code(recipe):
        console.print(f"[bold red]{key} is on: {whose} will run[/]")
    for key, value in trusted_values(recipe).items():
        console.print(f"[bold red]trusted by --trust:[/] {escape(f'{key} = {redact(value)}')}")


def resources_text(recipe: Recipe, stage: str) -> str:
    """A stage's resources in a few words: `4 x (4 CPU, 1 GPU A10G) PACK`."""
    resources = recipe.resources_of(stage)
    parts = [f"{resources.cpus_per_worker:g} CPU"]
    if resources.gpus_per_worker:
        parts.append(f"{resources.gpus_per_worker:g} GPU {resources.accelerator_type or ''}".strip())
    parts += [f"{amount:g} {name}" for name, amount in resources.custom.items()]
    text = ", ".join(parts)
    most = resources.most_workers
    least = resources.least_workers if recipe.cluster.address else most  # a run's own cluster has one node, which stays
    if most > 1:
        text = f"{most if least == most else f'{least} to {most}'} x ({text}) {resources.placement_strategy}"
    return text


def _artifact_text(step: Step, name: str, sha256: str | None) -> str:
    """An artifact's name, with its digest and size where they are known."""
    made = step.output(name)
    if made:
        return f"{name} ({made['sha256'][:8]}, {size_text(made['bytes'])})"
    return f"{name} ({sha256[:8]})" if sha256 else name


def _amount_text(estimate: Estimate) -> str:
    if estimate.value is None:
        return "unknown"
    most = "<= " if estimate.most else ""
    if estimate.unit == "bytes":
        return most + size_text(estimate.value)
    if estimate.unit == "s":
        about = "" if estimate.low is None or most else "~ "
        return most + about + duration_text(estimate.value)
    return f"{most}{estimate.value:,.0f} {estimate.unit}"


def _time_text(estimates: Mapping[str, Sequence[Estimate]], price_per_hour: float | None = None) -> str:
    """How long the stages take that run, one after another, the longest first, and at what price; "" when it is known
    of none."""
    times = {stage: each for stage, found in estimates.items() for each in found if each.what == "time"}
    known = {stage: each.value for stage, each in times.items() if each.value is not None}
    if not known:
        return ""
    longest = sorted(known, key=lambda stage: -known[stage])
    parts = [f"{stage} {duration_text(known[stage])}" for stage in longest if known[stage] >= 1]
    unknown = [stage for stage in times if stage not in known]
    parts += [f"{' and '.join(unknown)} unknown"] if unknown else []
    low, whole, high = run_seconds(estimates)
    least = "at least " if unknown and low == whole else ""
    about = f", between {duration_text(low)} and {duration_text(high)}" if low < whole else ""
    price = ""
    if price_per_hour is not None:
        spread = f" ({_price(low, price_per_hour)} to {_price(high, price_per_hour)})" if low < whole else ""
        price = f"\nprice: {least}{_price(whole, price_per_hour)}{spread} at {price_per_hour:g} an hour"
    return f"one stage after another: {least}{duration_text(whole)}{about} ({', '.join(parts)}){price}"


def run_seconds(estimates: Mapping[str, Sequence[Estimate]]) -> tuple[float, float, float]:
    """Seconds of all stages whose time is known: at least, about, at most."""
    known = [each for found in estimates.values() for each in found if each.what == "time" and each.value is not None]
    middle = [each.value or 0.0 for each in known]
    low = [value if each.low is None else each.low for value, each in zip(middle, known, strict=True)]
    high = [value if each.high is None else each.high for value, each in zip(middle, known, strict=True)]
    return sum(low), sum(middle), sum(high)


def _price(seconds: float, per_hour: float) -> str:
    return f"{seconds / 3600 * per_hour:,.2f}"


def _fit_text(estimate: Estimate) -> tuple[str, str]:
    """Whether it fits, in a word, and into what, or what would make it fit."""
    place = f"{size_text(estimate.limit or 0)} of {estimate.where}"
    if estimate.fits:
        return "yes", f"into {place}"
    could = f"would fit: {'; or '.join(estimate.ways)}" if estimate.ways else "no setting that is known here makes it"
    return ("perhaps not" if estimate.most else "no"), f"{place}; {could}"


def _basis_text(estimate: Estimate) -> str:
    parts = " + ".join(f"{name} {size_text(size)}" for name, size in estimate.parts.items())
    if parts or estimate.low is None:
        return f"{parts}; {estimate.basis}" if parts else estimate.basis
    high = duration_text(estimate.high or 0.0)
    spread = f"{duration_text(estimate.low)} to {high}" if not estimate.most else f"{high} at the very most"
    return f"{spread}; {estimate.basis}"
