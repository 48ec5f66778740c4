"""Training and requests are compared on the user's rows, and a difference ends the run before training."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from runner.errors import RunnerError
from stages.data.example import Example, Message, write_examples
from stages.ingest.parity import NUM_RANDOM, check, check_lengths, check_parts, check_slices, sample_of
from stages.models.chat_template import ChatTemplate
from stages.sections.recipe import Recipe
from tests.stages.models.families import save_model, tokenizer_of

pytestmark = pytest.mark.environment("llamafactory")

ASKED: list[Message] = [{"role": "user", "content": "Open?"}, {"role": "assistant", "content": "At eight."}]


def recipe_of(stage: str = "sft", **model: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "tiny",
            "model": {"source": "org/tiny", **model},
            "dataset": {"source": "data", "prompt": {"user": "{question}", "assistant": "{answer}"}},
            "serve": {"model_id": "base"},
            "train": {"stage": stage},
        }
    )


def test_the_first_the_longest_and_each_kind_of_row_are_compared_and_some_at_random(tmp_path: Path) -> None:
    rows = [Example(str(n), ASKED) for n in range(500)]
    rows[250] = Example("250", [{**ASKED[0], "content": "x" * 999}, ASKED[1]])
    rows[300] = Example("300", [ASKED[0], {**ASKED[1], "reasoning_content": "Hm."}])
    write_examples(tmp_path / "train.jsonl", rows)
    found = [int(example.id) for example in sample_of(tmp_path / "train.jsonl", seed=1)]
    assert {0, 250, 300} <= set(found)
    assert NUM_RANDOM <= len(found) <= NUM_RANDOM + 4
    assert found == sorted(set(found))
    assert found == [int(example.id) for example in sample_of(tmp_path / "train.jsonl", seed=1)]


@pytest.mark.parametrize("family", ["chatml", "gemma", "mistral", "phi"])
def test_the_chat_template_learns_what_it_asks(family: str) -> None:
    assert check(recipe_of(), ChatTemplate(tokenizer_of(family)), [Example("1", ASKED)] * 3) == 3


def test_a_pair_is_compared_by_both_of_its_prompts() -> None:
    pair = Example("1", ASKED[:1], chosen=ASKED[1:], rejected=ASKED[1:])
    assert check(recipe_of("dpo"), ChatTemplate(tokenizer_of("chatml")), [pair]) == 1


def test_a_template_that_writes_todays_date_is_refused() -> None:
    with pytest.raises(RunnerError, match="today's date") as caught:
        check(recipe_of(), ChatTemplate(tokenizer_of("llama3.1")), [Example("1", ASKED)])
    assert "date_string" in caught.value.hint


def test_a_row_that_the_template_refuses_is_named(tmp_path: Path) -> None:
    rows = [Example("1", [{"role": "system", "content": "Short."}, *ASKED], source="train.jsonl:3")]
    with pytest.raises(RunnerError, match=r"train\.jsonl:3: the chat template takes no system message"):
        check(recipe_of(), ChatTemplate(tokenizer_of("gemma")), rows)


@pytest.mark.parametrize(
    ("too_long", "cutoff", "words"),
    [
        ("fail", 200, "train: 1 sample is longer than cutoff_len=200 tokens"),
        ("fail", 900, ""),
        ("drop", 200, ""),
        ("drop", 3, "the train split has nothing to learn"),
    ],
)
def test_a_limit_that_would_end_the_training_is_told_before(
    too_long: str, cutoff: int, words: str, tmp_path: Path
) -> None:
    rows = [Example(str(n), ASKED) for n in range(60)]
    rows[50] = Example("50", [{**ASKED[0], "content": "Is it open? " * 40}, ASKED[1]])
    write_examples(tmp_path / "train.jsonl", rows)
    recipe = recipe_of()
    train = recipe.train.model_copy(update={"too_long": too_long, "args": {"cutoff_len": cutoff}})
    arguments = (recipe.model_copy(update={"train": train}), ChatTemplate(tokenizer_of("chatml")), tmp_path)
    with pytest.raises(RunnerError, match=words) if words else nullcontext():
        check_lengths(*arguments[:2], tmp_path / "train.jsonl", sample_of(tmp_path / "train.jsonl", seed=1))


def test_a_slice_that_no_test_row_has_is_told_before_training(tmp_path: Path) -> None:
    write_examples(tmp_path / "test.jsonl", [Example("1", ASKED, columns={"label": "a"})])
    recipe = recipe_of()
    for name, fits in (("label", True), ("length", True), ("lable", False)):
        changed = recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update={"slices": [name]})})
        with nullcontext() if fits else pytest.raises(RunnerError, match="'lable' is not a column") as caught:
            check_slices(changed, tmp_path / "test.jsonl")
    assert caught.value.hint == "Did you mean label?"


def test_a_test_row_that_the_template_refuses_is_named_where_nothing_is_trained(tmp_path: Path) -> None:
    model = save_model("gemma", tmp_path / "model")
    row = Example("1", [{"role": "system", "content": "Short."}, *ASKED], columns={"n": 1}, source="test.jsonl:3")
    write_examples(tmp_path / "test.jsonl", [row])
    with pytest.raises(RunnerError, match=r"test\.jsonl:3: the chat template takes no system message"):
        check_parts(recipe_of(), ChatTemplate.of(recipe_of(), model), None, str(tmp_path / "test.jsonl"))


@pytest.mark.parametrize(
    ("family", "name", "part"),
    [
        ("llama3.1", "llama3", "prompt's token 2"),
        ("qwen3", "qwen3", "prompt's token"),
        ("chatml", "qwen", "prompt's token 1"),
        ("chatml", "qwen3", "answer's token 0"),
    ],
)
def test_llamafactorys_own_template_is_refused_where_it_differs(
    family: str, name: str, part: str, tmp_path: Path
) -> None:
    kwargs = {"llama3.1": {"date_string": "1 Jan 2024"}, "qwen3": {"enable_thinking": False}}.get(family, {})
    model = save_model(family, tmp_path / "model")
    recipe = recipe_of(template=name, source=str(model), chat_template_kwargs=kwargs)
    with pytest.raises(RunnerError) as caught:
        check(recipe, ChatTemplate.of(recipe, model), [Example("1", ASKED)])
    assert f"differ from the {part}" in caught.value.message
    assert "learned: " in caught.value.message
    assert caught.value.hint.startswith("Set model.template=null")


def test_llamafactorys_own_template_is_taken_where_it_is_equal(tmp_path: Path) -> None:
    model = save_model("chatml", tmp_path / "model")
    recipe = recipe_of(template="chatml", source=str(model))
    assert check(recipe, ChatTemplate.of(recipe, model), [Example("1", ASKED)]) == 1


ENDLESS = "{% for m in messages %}{{ m.content }}\n{% endfor %}"


def test_a_template_that_never_ends_an_answer_is_refused_unless_the_recipe_says_where_one_ends() -> None:
    recipe, template = recipe_of(), ChatTemplate(tokenizer_of("base"), ENDLESS)
    with pytest.raises(RunnerError, match="would not learn to end one"):
        check(recipe, template, [Example("1", ASKED)])
    sampling = recipe.infer.model_copy(update={"sampling": {"stop": ["\n"]}})
    assert check(recipe.model_copy(update={"infer": sampling}), template, [Example("1", ASKED)]) == 1


def test_a_row_whose_last_answer_is_not_learned_is_compared_by_the_one_that_is() -> None:
    last: Message = {**ASKED[1], "train": False}
    assert check(recipe_of(), ChatTemplate(tokenizer_of("chatml")), [Example("1", [*ASKED, ASKED[0], last])]) == 1


def test_nobody_is_asked_about_a_text_of_the_test_split(tmp_path: Path) -> None:
    write_examples(tmp_path / "test.jsonl", [Example("1", text="A text.")])
    assert check_parts(recipe_of("pt"), ChatTemplate(tokenizer_of("base")), None, str(tmp_path / "test.jsonl")) == 0
