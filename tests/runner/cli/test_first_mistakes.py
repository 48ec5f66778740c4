"""Mistakes of somebody who is new: each is answered with what to write instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
        (["run", RECIPE, "--dry-run"], "`plan` shows what a run would do."),
        (["check", RECIPE], "Did you mean validate?"),
        (["rm", RECIPE], "Did you mean clean?"),
        (["viggo_quickstart"], "Name it as a value: recipe=viggo_quickstart"),
        (["validate", "train.lora_rank"], "Values are written key=value: train.lora_rank=VALUE."),
        (["validate", "train.lora_rank:4"], "Values are written key=value: train.lora_rank=4."),
        (["run", "help"], "Write run --help."),
        (["validate", ""], "is an empty word"),
        (["list", "--config-dir", "a", "--config-dir", "b"], "Give one folder"),
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
        ("dataset=.", "Set what it comes from: dataset.source=."),
        ("lora_rank=4", "Did you mean train.lora_rank?"),
        ("train/lora_rank=4", "Did you mean train.lora_rank?"),
        ("source=x", "Did you mean model.source or dataset.source?"),
        ("bf16=true", "put it under train.args."),
        ("dataset.max_rows=100", "It has keys of its own: dataset.max_rows.train"),
        ('seed="42"', "Write 42 without quotes."),
        ("seed=1.0", "Write 1."),
        ("name=12", "put quotes around the text."),
        ("evaluate.require.exact_match=0.5", "Gate: metric -> comparison"),
        ("model=null", "is a group, and takes a variant's name"),
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


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("=4", "has no key before the ="),
        ("train..lora_rank=4", "has a key that cannot be read: 'train..lora_rank'"),
        ("train.lora_rank:=4", "has a key that cannot be read: 'train.lora_rank:'"),
        ("+++seed=4", "has a key that cannot be read: '+++seed'"),
        ("evaluate.metrics[0]=exact_match", "A list is given as a whole: evaluate.metrics=[A,B]."),
        ("train.lora_rank=choice(4,8)", "has several values"),
        ("~train.nope", "names a key that the recipe does not have"),
        ("~train.lora_rank=99", "is to be removed where it is 99, and it is "),
        ("~train", "and not the values that a file sets besides"),
        ("+model=smollm2_135m", "is given two variants"),
        ("++model=smollm2_135m", "without plus signs"),
        ("evaluate.require=[]", "a mapping stays a mapping, and a list a list"),
        ("name=a/b", "must be 1 to 128 letters (a to z), digits, '.', '-' and '_'"),
        ("name=sweeps", "is a name that the runner uses below storage.root"),
        ("pipeline=[]", "must have at least 1 item"),
        ("storage.root=$HOME/runs", "has $HOME, which is a shell's to replace"),
        ("storage.artifacts=s3:/bucket/x", "Write s3://bucket/x."),
        ("dataset.source=hf:/org/name", "Write hf://org/name."),
        ("dataset.source=", "must have at least 1 character"),
        ("dataset.source=org/name", "For a dataset of the hub write hf://org/name."),
        ("storage.artifacts=pyproject.toml", "pyproject.toml is a file, not a folder"),
        ("seed=-1", "must be greater than or equal to 0"),
    ],
)
def test_a_value_that_cannot_be_used_is_told_in_plain_words(
    override: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = answer(capsys, "validate", RECIPE, "evaluate.require.exact_match='>=0'", override)
    assert message in shown
    assert "hydra.verbose" not in shown


def test_a_mistake_of_the_command_line_is_not_called_one_of_the_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert "1 problem in the command line" in answer(capsys, "validat", RECIPE)
    assert "set by command line" in answer(capsys, "validate", "recipe=viggo_quikstart")


def test_a_file_that_is_not_there_leads_to_one_of_almost_that_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tickets.yaml").write_text("name: tickets\n")
    assert f"Did you mean recipe={tmp_path}/tickets.yaml?" in answer(capsys, "plan", f"recipe={tmp_path}/ticket.yaml")
    assert "Correct the path." in answer(capsys, "plan", f"recipe={tmp_path}/other.yaml")


@pytest.mark.parametrize("path", ["/" + "a/" * 3000, "a" * 300, "~/" + "a" * 300])
@pytest.mark.parametrize(
    "words",
    [
        *(
            ["validate", RECIPE, f"{key}=PATH"]
            for key in ("storage.root", "storage.artifacts", "storage.cache", "model.source", "model.chat_template")
        ),
        *(["validate", RECIPE, f"{key}=PATH"] for key in ("dataset.source", "train.storage_path")),
        ["validate", RECIPE, "serve.api_keys.file=PATH"],
        ["validate", RECIPE, "--config-dir", "PATH"],
        ["validate", "recipe=PATH"],
        ["validate", "recipe=PATH.yaml"],
        ["diff", RECIPE, "other=PATH"],
        ["init", "data=PATH"],
        ["export", RECIPE, "target=compose", "export_to=PATH"],
    ],
    ids=lambda words: words[-1],
)
def test_a_path_longer_than_the_system_takes_is_a_mistake_of_the_command_line(
    words: list[str], path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = answer(capsys, *(word.replace("PATH", path) for word in words))
    assert len(shown) < 10 * len(path) + 3000


@pytest.mark.parametrize("module", ["psutil", "numpy.linalg"])
def test_a_package_that_the_light_base_lacks_is_named_with_what_installs_it(
    module: str, fake_stages: Any, local: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lacking(*_: Any, **__: Any) -> Any:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setattr("runner.pipeline.engine.run", lacking)
    assert main(["run", "recipe=viggo_quickstart", *local]) == EXIT_INVALID_RECIPE
    shown = " ".join(capsys.readouterr().err.split())
    assert f"needs the package {module.partition('.')[0]}, which is not installed" in shown
    assert "install 'recipe-runner[stack]'" in shown


def test_a_module_that_no_package_of_ours_brings_is_shown_as_the_fault_that_it_is(
    fake_stages: Any, local: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(*_: Any, **__: Any) -> Any:
        raise ModuleNotFoundError("No module named 'mine'", name="mine")

    monkeypatch.setattr("runner.pipeline.engine.run", lacking)
    with pytest.raises(ModuleNotFoundError):
        main(["run", "recipe=viggo_quickstart", *local])
