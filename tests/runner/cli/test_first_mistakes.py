"""Mistakes of somebody who is new: each is answered with what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.cli.main import main
from runner.errors import EXIT_INVALID_RECIPE

RECIPE = "recipe=viggo_quickstart"


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What the command line says to an invalid command."""
    assert main(list(words)) == EXIT_INVALID_RECIPE
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["init", "tickets.csv"], "Write data=tickets.csv: values are written key=value."),
        (
            ["train", RECIPE],
            "Run that stage with `run ... only=[train]`, or end there with `run ... stop_after=train`.",
        ),
        (["status", "support"], "Values are written key=value, such as recipe=support."),
        (["run", RECIPE, "--epochs", "3"], "Keys of a recipe are written without dashes: train.num_epochs=3."),
        (["run", RECIPE, "--yess"], "Did you mean --yes?"),
    ],
)
def test_a_word_in_the_wrong_place_is_told_where_it_belongs(
    words: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hint in answer(capsys, *words)


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("train.lr=1e-3", "Did you mean train.learning_rate?"),
        ("train.r=8", "Did you mean train.lora_rank?"),
        ("train.alpha=16", "Did you mean train.args.lora_alpha?"),
        ("train.max_seq_length=128", "Did you mean train.args.cutoff_len?"),
        ("train.batch_size=4", "Did you mean train.args.per_device_train_batch_size?"),
        ("train.method=dpo", "Did you mean train.stage?"),
        ("dataset.path=rows.csv", "Did you mean dataset.source?"),
        ("dataset.test=rows.csv", "Did you mean dataset.files.test?"),
        ("evaluate.gate=0.8", "Did you mean evaluate.require?"),
        ("serve.replicas=2", "Did you mean serve.autoscaling.min_replicas?"),
        ("model=Qwen/Qwen2.5-0.5B", "Set what it comes from: model.source=Qwen/Qwen2.5-0.5B"),
    ],
)
def test_other_words_for_a_key_lead_to_it(override: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert hint in answer(capsys, "validate", RECIPE, override)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+dataset.split={val: 10%}", "dataset.split.val = '10%'\n    must be a number or a whole number\n"),
        ("dataset.files.test=5", "dataset.files.test = 5\n    must be a text or a list\n"),
    ],
)
def test_a_value_of_none_of_several_kinds_is_one_problem_with_the_recipes_key(
    override: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = answer(capsys, "validate", RECIPE, override)
    assert message in shown
    assert "1 problem in the recipe" in shown


def test_a_file_that_is_not_there_leads_to_one_of_almost_that_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tickets.yaml").write_text("name: tickets\n")
    assert f"Did you mean recipe={tmp_path}/tickets.yaml?" in answer(capsys, "plan", f"recipe={tmp_path}/ticket.yaml")
    assert "Correct the path." in answer(capsys, "plan", f"recipe={tmp_path}/other.yaml")
