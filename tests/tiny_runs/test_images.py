"""Images, from rows to an endpoint whose answers are those of batch inference: a tiny LLaVA, real parts."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.stages.models.vision import picture, save_llava
from tests.tiny_runs.tiny_run import run, write_rows

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900), pytest.mark.filterwarnings("default")]

COLOURS = ("red", "blue", "green")
STEPS = 120


def row(colour: str, shape: str) -> dict[str, Any]:
    talk = [{"role": "user", "content": "<image>?"}, {"role": "assistant", "content": colour}]
    return {"messages": talk, "images": [f"{colour}-{shape}.png"]}


def write(folder: Path) -> None:
    """The model, pictures of two shapes in each colour, and rows that ask for the colour."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save_llava(folder / "model")
    shapes = ("square", "circle")
    for colour in COLOURS:
        for shape in shapes:
            (folder / f"{colour}-{shape}.png").write_bytes(picture(colour, shape))
    write_rows(folder, [row(colour, shape) for colour in COLOURS for shape in shapes], times=20)


@pytest.mark.parametrize("engine", ["shared", pytest.param("own", marks=pytest.mark.chaos)])
def test_what_is_seen_is_learned_and_the_endpoint_sees_what_batch_inference_sees(tmp_path: Path, engine: str) -> None:
    write(tmp_path)
    summary = run(
        tmp_path, f"infer.engine={engine}", f"train.args.max_steps={STEPS}", "infer.sampling.max_tokens=8",
        "query.num_rows=3",
    )  # fmt: skip
    assert summary["scores"]["tuned"]["exact_match"] == 1.0
    assert summary["query"]["matches_batch"] is True
    assert [line["tuned"]["text"] for line in summary["query"]["rows"]] == ["red", "red", "blue"]
