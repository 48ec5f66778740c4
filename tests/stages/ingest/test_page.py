"""The data's part of the report."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from jinja2 import Environment, FileSystemLoader

from runner.pipeline.results import FinishedRun, Part
from stages.ingest.page import page

METRICS: dict[str, Any] = {
    "rows": {"train": 1200, "test": 3},
    "skipped": {"train": 7},
    "chars": {"train": {"50": 120, "90": 400, "99": 1900, "longest": 12000}, "test": {}},
    "remarks": ["train: 2 rows are duplicates of others"],
}


class Ended(FinishedRun):
    """A run whose ingest gave these figures."""

    def __init__(self, metrics: dict[str, Any]) -> None:
        super().__init__(SimpleNamespace(stages=[]), {}, Path())  # type: ignore[arg-type]
        object.__setattr__(self, "found", metrics)

    def metrics(self, stage: str) -> dict[str, Any]:
        return dict(vars(self)["found"]) if stage == "ingest" else {}


def test_the_report_has_rows_lengths_and_remarks_of_the_data() -> None:
    part = page(Ended(METRICS))
    assert part.templates is not None
    made = Environment(loader=FileSystemLoader(part.templates), autoescape=True)
    made.filters["cell"] = str
    for name, figure in (
        ("page.html.j2", 'data-label="99 %">1,900<'),
        ("page.md.j2", "50 %: 120, 90 %: 400, 99 %: 1,900"),
    ):
        text = made.get_template(name).render(**part.facts)
        assert figure in text
        assert "1,200" in text
        assert METRICS["remarks"][0] in text


def test_a_run_without_ingest_has_no_part_on_data() -> None:
    assert page(Ended({})) == Part()
