"""The tokenized training set: what each training method learns of a row, what is too long, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runner.errors import RunnerError
from stages.data.example import Example, Message, write_examples
from stages.models import time_limit
from stages.models.chat_template import ChatTemplate
from stages.models.learned import NO_LOSS, Sample
from stages.samples.dataset import judge, remarks, tokenize, write_tokens
from stages.samples.encoder import Encoder
from stages.samples.packing import blocks, packed
from stages.samples.too_long import shortened, shortened_text
from stages.sections.recipe import Recipe
from stages.trainers.llamafactory.tokens import encoder_of, rules_of
from tests.stages.models.families import FAMILIES, ONE_CALL, save_model, tokenizer_of

pytestmark = pytest.mark.environment("llamafactory")

SYSTEM: Message = {"role": "system", "content": "Be brief."}
ASKED: Message = {"role": "user", "content": "Open?"}


def answer(text: str) -> Message:
    return {"role": "assistant", "content": text}


def recipe_of(stage: str = "sft", **args: Any) -> Recipe:
    train = {key: args.pop(key) for key in ("too_long", "max_samples") if key in args}
    return Recipe.model_validate(
        {
            "name": "tiny",
            "model": {"source": "org/tiny"},
            "dataset": {"source": "data", "prompt": {"user": "{question}", "assistant": "{answer}"}},
            "serve": {"model_id": "base"},
            "train": {"stage": stage, "args": args, **train},
        }
    )


def encoder(stage: str = "sft", **args: Any) -> Encoder:
    return Encoder(ChatTemplate(tokenizer_of("chatml")), rules_of(recipe_of(stage, **args)))


def text(of: Encoder, ids: list[int]) -> str:
    return str(of.template.tokenizer.decode([each for each in ids if each != NO_LOSS]))


def test_a_pair_has_one_prompt_with_its_system_message_and_two_answers() -> None:
    made = encoder("dpo")
    pair = Example("1", [SYSTEM, ASKED], chosen=[answer("Yes.")], rejected=[answer("No.")])
    (row,) = made.columns([pair])
    prompt = made.template.prompt_ids(pair.prompt)
    for name, given in (("chosen", "Yes."), ("rejected", "No.")):
        assert row[f"{name}_input_ids"][: len(prompt)] == prompt
        assert text(made, row[f"{name}_labels"]) == f"{given}<|im_end|>\n"
    assert "Be brief." in text(made, prompt)


def test_judged_answers_come_with_the_answer_of_another_row() -> None:
    made = encoder("kto")
    rows = [Example(str(n), [ASKED, answer(f"A{n}")], label=n == 0) for n in range(3)]
    columns = list(made.columns(rows))
    assert [each["kto_tags"] for each in columns] == [True, False, False]
    assert [text(made, each["labels"])[:2] for each in columns] == ["A0", "A1", "A2"]
    assert [text(made, each["kl_labels"])[:2] for each in columns] == ["A2", "A0", "A1"]


def test_plain_texts_are_packed_whole_and_lose_nothing() -> None:
    made = encoder("pt", cutoff_len=8)
    columns = list(made.columns([Example("1", text="abcdefghij"), Example("2", text="klm")]))
    assert text(made, [each for row in columns for each in row["input_ids"]]) == "abcdefghij<|im_end|>klm<|im_end|>"
    assert [len(row["input_ids"]) for row in columns] == [8, 7]


def test_prompts_and_answers_are_apart_for_ppo() -> None:
    made = encoder("ppo", reward_model="r")
    (row,) = made.columns([Example("1", [ASKED, answer("Yes.")])])
    assert text(made, row["input_ids"]).endswith("<|im_start|>assistant\n")
    assert text(made, row["labels"]) == "Yes.<|im_end|>\n"


def test_packed_samples_are_whole_and_know_their_borders() -> None:
    samples = [Sample([n] * n, [n] * n, 0) for n in (5, 3, 4, 2)]
    rows = list(packed(samples, 8, 0, neat=True))
    assert [row["attention_mask"] for row in rows] == [[1] * 5 + [2] * 3, [1] * 4 + [2] * 2 + [0] * 2]
    assert [row["input_ids"] for row in rows] == [[5] * 5 + [3] * 3, [4] * 4 + [2] * 2 + [0] * 2]
    assert rows[1]["labels"][-2:] == [NO_LOSS] * 2
    assert rows[0]["position_ids"] == [0, 1, 2, 3, 4, 0, 1, 2]
    assert list(packed(samples, 8, 0, neat=False))[1]["attention_mask"] == [1] * 8


def test_blocks_hold_every_token_in_order() -> None:
    assert list(blocks([[1, 2, 3], [4], [5, 6, 7]], 3)) == [[1, 2, 3], [4, 5, 6], [7]]


TALK = Sample([0, 1, 2, 3, 4, 5, 6, 7], [NO_LOSS, NO_LOSS, 2, 3, NO_LOSS, NO_LOSS, 6, 7], 6)


@pytest.mark.parametrize(
    ("rule", "ids", "labels"),
    [
        ("cut_start", [0, 3, 4, 5, 6, 7], [NO_LOSS, NO_LOSS, NO_LOSS, NO_LOSS, 6, 7]),
        ("cut_middle", [0, 1, 4, 5, 6, 7], [NO_LOSS, NO_LOSS, NO_LOSS, NO_LOSS, 6, 7]),
    ],
)
def test_a_cut_takes_from_the_prompt_and_half_an_answer_is_not_learned(
    rule: str, ids: list[int], labels: list[int]
) -> None:
    cut = shortened([TALK], 6, rule, first_id=0)
    assert cut.samples == [Sample(ids, labels, 4)]


@pytest.mark.parametrize("rule", ["fail", "drop"])
def test_what_is_not_to_be_cut_is_left_out(rule: str) -> None:
    assert shortened([TALK], 6, rule, None).samples is None
    assert shortened([TALK], 8, rule, None).samples == [TALK]


@pytest.mark.parametrize("rule", ["cut_start", "cut_middle"])
def test_an_answer_is_never_cut(rule: str) -> None:
    cut = shortened([TALK], 2, rule, None)
    assert (cut.samples, cut.unanswerable) == (None, True)


@pytest.mark.parametrize(("rule", "ids"), [("cut_start", [0, 4, 5]), ("cut_middle", [0, 1, 5])])
def test_a_text_without_an_answer_is_cut_after_what_it_begins_with(rule: str, ids: list[int]) -> None:
    text = Sample([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5], 1)
    assert shortened_text(text, 3, rule).samples == [Sample(ids, ids, 1)]
    assert shortened_text(text, 6, rule).samples == [text]
    assert shortened_text(text, 3, "drop").samples is None


def test_both_answers_of_a_pair_keep_the_same_prompt() -> None:
    pair = [Sample([0, 1, 2, 3, 9], [NO_LOSS] * 4 + [9], 4), Sample([0, 1, 2, 3, 7, 7], [NO_LOSS] * 4 + [7, 7], 4)]
    cut = shortened(pair, 5, "cut_start", None)
    assert cut.samples is not None
    assert [each.ids for each in cut.samples] == [[1, 2, 3, 9], [1, 2, 3, 7, 7]]


def test_samples_that_are_too_long_end_the_run_unless_the_recipe_says_what_to_do() -> None:
    rows = [Example("1", [{"role": "user", "content": "x" * 100}, answer("Yes.")])]
    for rule, kept in (("fail", 0), ("drop", 0), ("cut_start", 1), ("cut_middle", 1)):
        made = encoder(cutoff_len=60, too_long=rule)
        columns = list(made.columns(rows))
        assert (len(columns), made.counts.too_long) == (kept, 1)
        assert all(len(row["input_ids"]) == 60 and text(made, row["labels"]) == "Yes.<|im_end|>\n" for row in columns)
        if rule == "fail":
            with pytest.raises(RunnerError, match=r"train: 1 sample is longer than cutoff_len=60"):
                judge(made.counts, made.rules, "train")


def test_rows_that_cannot_be_learned_are_named_with_what_to_do() -> None:
    made = encoder()
    rows = [Example("1", [{**ASKED, "name": "Ann"}, answer("Yes.")], source="train.jsonl:7"),
            Example("2", [ASKED, {**answer("Yes."), "train": False}]),
            Example("3", [ASKED, answer("Yes.")], images=["roll.png"])]  # fmt: skip
    assert list(made.columns(rows)) == []
    with pytest.raises(RunnerError) as caught:
        judge(made.counts, made.rules, "train")
    for part in ("3 rows", "train.jsonl:7: the chat template drops the name 'Ann'", "no message of it", "images"):
        assert part in caught.value.message


def test_a_split_of_which_no_row_fits_the_limit_ends_the_run_with_its_longest(tmp_path: Path) -> None:
    write_examples(tmp_path / "train.jsonl", [Example("1", [ASKED, answer("x" * 100)])])
    recipe = recipe_of(cutoff_len=60, too_long="cut_start")
    with pytest.raises(RunnerError, match=r"1 sample is longer than cutoff_len=60 tokens") as caught:
        write_tokens(recipe, ChatTemplate(tokenizer_of("chatml")), tmp_path, tmp_path / "tokens", encoder_of)
    assert "the longest sample has 1" in caught.value.hint


@pytest.mark.timeout(60)
def test_a_template_that_does_not_end_with_some_row_ends_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_limit.USED, "seconds", 1.0)
    source = "{% if messages[0].content == 'stop here' %}" + ONE_CALL + "{% endif %}" + FAMILIES["chatml"][3]
    recipe = recipe_of()
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"chat_template": source})})
    rows = [Example("1", [ASKED, answer("Yes.")])] * 3
    write_examples(tmp_path / "train.jsonl", rows)
    given = (recipe, str(save_model("chatml", tmp_path / "model")), str(tmp_path), str(tmp_path / "tokens"), encoder_of)
    assert tokenize(*given)["train"]["samples"] == 3
    write_examples(tmp_path / "train.jsonl", [*rows, Example("2", [{**ASKED, "content": "stop here"}, answer("No.")])])
    with pytest.raises(RunnerError, match="the chat template or the tokenizer did not end within 1 s"):
        tokenize(*given)


def test_the_remarks_count_what_was_cut_split_and_trimmed() -> None:
    counts = {"train": {"rows": 2, "samples": 3, "too_long": 1, "unanswerable": 0, "trimmed": 1}}
    assert [line.partition(":")[2][:22] for line in remarks(counts, "drop", "sft")] == [
        " 1 sample is too long ", " 2 conversations are 3", " the chat template tri",
    ]  # fmt: skip


@pytest.mark.parametrize("method", ["dpo", "rm", "pt"])
def test_pairs_and_blocks_of_texts_are_not_told_as_turns_that_the_template_renders_otherwise(method: str) -> None:
    counts = {"train": {"rows": 2, "samples": 4, "too_long": 0, "unanswerable": 0, "trimmed": 0}}
    assert remarks(counts, "drop", method) == []


def test_the_dataset_on_disk_is_what_was_encoded_with_a_part_for_validation(tmp_path: Path) -> None:
    from datasets import load_from_disk

    rows = [Example(str(n), [ASKED, answer(f"A{n}")], columns={"n": n}) for n in range(8)]
    write_examples(tmp_path / "train.jsonl", rows)
    template = ChatTemplate(tokenizer_of("chatml"))
    counts = write_tokens(recipe_of(val_size=2, max_samples=6), template, tmp_path, tmp_path / "tokens", encoder_of)
    made = load_from_disk(str(tmp_path / "tokens"))
    assert {name: len(made[name]) for name in made} == {"train": 4, "validation": 2}
    assert counts["train"]["samples"] == 6
    answers = [template.tokenizer.decode([each for each in row["labels"] if each >= 0])[:2] for row in made["train"]]
    assert len(set(answers)) == 4
    assert not list(tmp_path.glob("*.parts"))
