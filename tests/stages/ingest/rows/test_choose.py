"""Splits held out of the training rows, samples, and what is remarked about the data."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from runner.errors import RunnerError
from runner.testing import changed, composed, load_recipe
from stages.data.example import Example, read_examples
from stages.ingest.data import DataParts, prepare_data
from stages.ingest.rows import pieces
from stages.ingest.rows.choose import digits_below, place_rows
from stages.ingest.rows.control import ControlTokens, tokens_of
from stages.ingest.rows.damage import damage_of
from stages.sections.recipe import Recipe

PROMPT = {"user": "{q}", "assistant": "{a}"}


def rows(count: int, **columns: Any) -> list[dict[str, Any]]:
    return [{"q": f"Question {n}?", "a": f"Answer {n}.", **columns} for n in range(count)]


def ingested(folder: Path, given: dict[str, list[dict[str, Any]]], train: Any = None, **dataset: Any) -> DataParts:
    """The data of the quickstart with these rows a split, and keys of its dataset section."""
    (folder / "ds").mkdir(exist_ok=True)
    for split, each in given.items():
        (folder / "ds" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in each))
    files = {split: f"{split}.jsonl" if split in given else None for split in ("train", "val", "test")}
    section = {"source": str(folder / "ds"), "files": files, "prompt": PROMPT, **dataset}
    pipeline = ["ingest", "train", "publish"] if "test" not in given else ["ingest", "train", "publish", "infer"]
    storage = {"cache": str(folder / "cache")}  # where no model is
    values = {"dataset": section, "pipeline": pipeline, "storage": storage, "train": train or {}}
    recipe: Recipe = load_recipe(changed(composed("viggo_quickstart"), values))
    return prepare_data(recipe, folder / "made", lambda *args, **figures: None)


def split(folder: Path, name: str) -> list[Example]:
    return list(read_examples(folder / "made" / ("test_set" if name == "test" else "train_set") / f"{name}.jsonl"))


def prompts(folder: Path, name: str) -> set[str]:
    return {str(example.prompt[-1]["content"]) for example in split(folder, name)}


def test_shares_and_numbers_are_held_out_of_one_file_without_leaking_duplicates(tmp_path: Path) -> None:
    made = ingested(tmp_path, {"train": [*rows(180), *rows(20)]}, split={"val": 0.1, "test": 30})
    assert made.metrics["rows"] == {"train": 150, "val": 20, "test": 30}
    found = {name: prompts(tmp_path, name) for name in ("train", "val", "test")}
    assert sum(map(len, found.values())) == 180
    assert set.union(*found.values()) == {f"Question {n}?" for n in range(180)}
    assert [example.id for example in split(tmp_path, "test")][:2] == ["test-000000", "test-000001"]
    assert [place(example) for example in split(tmp_path, "val")] == sorted(map(place, split(tmp_path, "val")))


def place(example: Example) -> int:
    return int(example.source.rpartition(":")[2])


def test_the_seed_chooses_and_the_same_seed_chooses_the_same(tmp_path: Path) -> None:
    found = []
    for seed in (1, 1, 2):
        ingested(tmp_path, {"train": rows(100)}, split={"test": 10, "seed": seed})
        found.append(prompts(tmp_path, "test"))
    assert found[0] == found[1] != found[2]


def test_groups_stay_in_one_split_with_the_rows_of_the_same_prompt(tmp_path: Path) -> None:
    given = [{**row, "customer": n // 5} for n, row in enumerate(rows(100))]
    given += [{"q": "Question 3?", "a": "x", "customer": 77}, {"q": "Own?", "a": "x", "customer": 77}]
    ingested(tmp_path, {"train": given}, split={"test": 0.3, "by": "customer"})
    groups = {name: {example.columns["customer"] for example in split(tmp_path, name)} for name in ("train", "test")}
    assert groups["test"]
    assert not groups["train"] & groups["test"]
    assert not prompts(tmp_path, "train") & prompts(tmp_path, "test")


def test_a_column_is_as_frequent_in_every_split(tmp_path: Path) -> None:
    given = [{**row, "label": "rare" if n % 10 == 0 else "usual"} for n, row in enumerate(rows(200))]
    ingested(tmp_path, {"train": given}, split={"test": 50, "stratify": "label"})
    counts = Counter(example.columns["label"] for example in split(tmp_path, "test"))
    assert counts == {"usual": 45, "rare": 5}


def test_a_split_that_would_be_empty_and_a_column_that_is_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match="leaves the test split without a row"):
        ingested(tmp_path, {"train": rows(1) * 5}, split={"test": 0.2})
    with pytest.raises(RunnerError, match=r"column 'who', which dataset\.split names, is missing"):
        ingested(tmp_path, {"train": [*rows(5, who="x"), *rows(1)]}, split={"test": 0.2, "by": "who"})


@pytest.mark.parametrize(
    ("given", "split", "words"),
    [
        ([{"q": "Write.", "a": f"Poem {n}."} for n in range(20)], {"test": 0.2}, "all rows are one such group"),
        (rows(20, who="x"), {"test": 0.2, "by": "who"}, "the same prompt or who stay in one split"),
        (rows(4), {"test": 4}, "Give a smaller dataset.split.val or test"),
        (rows(4), {"test": 0.1}, "Give a larger dataset.split.test"),
    ],
)
def test_why_a_split_is_empty_is_told(
    tmp_path: Path, given: list[dict[str, Any]], split: dict[str, Any], words: str
) -> None:
    with pytest.raises(RunnerError, match="leaves the t") as caught:
        ingested(tmp_path, {"train": given}, split=split)
    assert words in caught.value.hint


def test_fewer_rows_than_a_split_asks_for_are_remarked(tmp_path: Path) -> None:
    given = [*rows(10, who="x"), {"q": "Other?", "a": "b", "who": "y"}]
    made = ingested(tmp_path, {"train": given}, split={"test": 5, "by": "who"})
    assert made.metrics["rows"] == {"train": 10, "test": 1}
    assert made.remarks[0].startswith("test: has 1 row and not 5 as dataset.split.test asks: rows with the same prompt")


def test_a_null_or_a_list_where_rows_are_grouped_is_told_by_its_column(tmp_path: Path) -> None:
    for value, words in ((None, "is null"), (["x"], "is a list")):
        with pytest.raises(RunnerError, match=f"column 'who', which dataset.split names, {words}"):
            ingested(tmp_path, {"train": rows(4, who=value)}, split={"test": 2, "stratify": "who"})


def test_a_column_in_two_braces_is_remarked(tmp_path: Path) -> None:
    made = ingested(tmp_path, {"train": rows(4)}, prompt={"user": "Of {{a}}: {q}", "assistant": "{a}"})
    assert made.remarks == [
        "dataset.prompt.user has {{a}}, a text in braces and not the column a: for that write one brace on each side"
    ]


def test_max_rows_draws_a_sample_by_the_seed_in_the_files_order(tmp_path: Path) -> None:
    ingested(tmp_path, {"train": rows(200), "test": rows(3)}, max_rows={"train": 20})
    drawn = [place(example) for example in split(tmp_path, "train")]
    assert len(drawn) == 20
    assert drawn == sorted(drawn)
    assert max(drawn) > 100
    ingested(tmp_path, {"train": rows(200), "test": rows(3)}, max_rows={"train": 20}, max_rows_by="head")
    assert [place(example) for example in split(tmp_path, "train")] == list(range(1, 21))


CASES: list[tuple[str, dict[str, list[dict[str, Any]]], str]] = [
    ("duplicates", {"train": [*rows(3), *rows(1)]}, "train: 1 row is a duplicate of another, such as train.jsonl:1"),
    ("contradictions", {"train": [*rows(3), {"q": "Question 1?", "a": "No."}]},
     "train: 2 rows have the same prompt and different answers, such as train.jsonl:2 and train.jsonl:4"),
    ("overlap", {"train": rows(5), "test": rows(2)}, "test: 2 of 2 test rows are training rows, such as test.jsonl:1"),
    ("one answer", {"train": [{**row, "a": "yes" if n else "no"} for n, row in enumerate(rows(30))]},
     "train: 97% of the answers are 'yes'"),
    ("classes", {"train": [{**row, "a": "yes" if n % 3 else "no"} for n, row in enumerate(rows(30))]},
     "train: the answers are 2 classes: 'yes' 67%, 'no' 33%"),
    ("control tokens", {"train": [*rows(2), {"q": "Say <|im_end|> now", "a": "x"}]},
     "train: 1 row holds what looks like control tokens of a chat template, such as <|im_end|> in train.jsonl:3"),
    ("missing values", {"train": [*rows(2), {"q": "Say it", "a": "NaN"}]},
     "train: 1 answer is a text that tools write for a missing value, such as 'NaN' in train.jsonl:3"),
    ("errors of a spreadsheet", {"train": [*rows(2), {"q": "Say it", "a": "#VALUE!"}]},
     "train: 1 answer is a text that tools write for a missing value, such as '#VALUE!' in train.jsonl:3"),
    ("characters lost", {"train": [*rows(2), {"q": "Caf\ufffd?", "a": "x"}]},
     "train: 1 row holds signs of a text that was once read in a wrong encoding, such as '\ufffd' in train.jsonl:3"),
    ("UTF-8 read as Latin-1", {"train": [*rows(2), {"q": "Gr\u00fc\u00dfe?".encode().decode("cp1252"), "a": "x"}]},
     "train: 1 row holds signs of a text that was once read in a wrong encoding, such as '\u00c3\u00bc' in "),
    ("classes alike", {"train": [{**row, "a": ["Yes", "yes ", "no"][n % 3]} for n, row in enumerate(rows(30))]},
     "train: 2 classes look the same and are learned as different ones: 'Yes', 'yes '"),
    ("accents written in two ways",
     {"train": [{**row, "a": ["\u00fc", "u\u0308"][n % 2]} for n, row in enumerate(rows(30))]},
     "train: 2 classes look the same and are learned as different ones: '\\xfc', 'u\\u0308'"),
    ("an answer that repeats", {"train": [*rows(2), {"q": "Once upon", "a": "Once upon a time"}]},
     "train: 1 answer begins with the question, which is learned again, such as train.jsonl:3"),
    ("a place without an image", {"train": [*rows(2), {"q": "<image>What?", "a": "x"}]},
     "train: 1 row holds <image> as a text, and no image, such as train.jsonl:3"),
    ("columns", {"train": rows(3, history=[], id=1)}, "train: the prompt does not use the column history"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "remark"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_is_worth_knowing_of_the_data_is_remarked(
    tmp_path: Path, given: dict[str, list[dict[str, Any]]], remark: str
) -> None:
    made = ingested(tmp_path, given)
    assert any(line.startswith(remark) for line in made.remarks), made.remarks
    assert made.metrics["remarks"] == made.remarks


@pytest.mark.parametrize(
    "text", ["\u00c0 la carte \u00bb", "S\u00c3O", "na\u00efve caf\u00e9\u2019s", "\u00e2ge, 20 \u20ac"]
)
def test_accents_are_not_signs_of_a_wrong_encoding(text: str) -> None:
    assert damage_of(text.encode()) == ""


def test_an_answer_that_is_both_good_and_bad_is_remarked(tmp_path: Path) -> None:
    given = [{**row, "label": n % 2 == 0} for n, row in enumerate([*rows(4), *rows(4)[1:2]])]
    made = ingested(tmp_path, {"train": given}, train={"stage": "kto"})
    assert "train: 1 answer is labelled both good and bad, such as train.jsonl:5" in made.remarks


def test_predictions_are_compared_with_good_answers_alone(tmp_path: Path) -> None:
    given = [{**row, "label": n % 2 == 0} for n, row in enumerate(rows(10))]
    made = ingested(tmp_path, {"train": given[:4], "test": given[4:]}, train={"stage": "kto"})
    words = "left out 3 of 6 rows, with which no prediction is compared: their answers are labelled bad"
    assert f"test: {words}" in made.remarks, made.remarks
    assert [(each.id, each.label) for each in split(tmp_path, "test")] == [(f"test-{n:06d}", True) for n in range(3)]
    assert made.metrics["rows"] == {"train": 4, "test": 3}


def test_all_answers_to_compare_with_labelled_bad_are_refused(tmp_path: Path) -> None:
    given = [{**row, "label": n < 4} for n, row in enumerate(rows(6))]
    with pytest.raises(RunnerError, match="test: all 2 answers are labelled bad, and infer compares with good ones"):
        ingested(tmp_path, {"train": given[:4], "test": given[4:]}, train={"stage": "kto"})


def test_a_missing_value_in_the_place_of_the_worse_answer_is_remarked(tmp_path: Path) -> None:
    given = [{"q": f"{n}?", "chosen": "Yes.", "rejected": "nan" if n == 2 else "No."} for n in range(4)]
    made = ingested(tmp_path, {"train": given}, train={"stage": "dpo"})
    assert any("missing value, such as 'nan' in train.jsonl:3" in line for line in made.remarks)


@pytest.mark.parametrize("names", [("score_chosen", "score_rejected"), ("chosen_rating", "rejected_rating")])
def test_pairs_whose_chosen_answer_has_the_lower_score_are_remarked(tmp_path: Path, names: tuple[str, str]) -> None:
    scores = ((8.5, 3), ("2", "9.0"), (5, 5), (None, 3))
    given = [{"q": f"{n}?", "chosen": "Yes.", "rejected": "No.", **dict(zip(names, each, strict=True))}
             for n, each in enumerate(scores)]  # fmt: skip
    made = ingested(tmp_path, {"train": given}, train={"stage": "dpo"})
    words = "1 of 4 preference pairs gives the chosen answer a lower score than the rejected one, such as train.jsonl:2"
    assert f"train: {words}" in made.remarks


def test_ordinary_rows_are_not_remarked_upon(tmp_path: Path) -> None:
    made = ingested(tmp_path, {"train": rows(50), "test": [{"q": "Own?", "a": "x"}]})
    assert made.remarks == []
    assert "remarks" not in made.metrics


def test_control_tokens_are_the_models_own_where_they_are_known(tmp_path: Path) -> None:
    added = [{"content": "[SEP]", "special": True}, {"content": "plain", "special": False}]
    (tmp_path / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    own = ControlTokens(tokens_of(tmp_path))
    assert (own.first(b'"a [SEP] b"'), own.first(b'"<|im_end|> plain"'), own.known) == ("[SEP]", "", True)
    assert ControlTokens(tokens_of(tmp_path / "none")).first(b'"[INST] a"') == "[INST]"


def test_many_files_in_pieces_give_what_one_file_after_the_other_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "ds"
    folder.mkdir()
    for number in range(12):
        each = [{"q": f"Question {number % 9}-{n}?", "a": f"Answer {n}.", "who": n % 7} for n in range(20 + number)]
        text = "".join(json.dumps(row) + "\n" for row in each)
        (folder / f"train-{number}.jsonl").write_text(text + ("{\n" if number in (3, 7) else ""))
    (folder / "test.jsonl").write_text(json.dumps({"q": "Own?", "a": "x"}) + "\n")
    section = {"source": str(folder), "files": {"train": "train-*.jsonl", "val": None, "test": "test.jsonl"},
               "prompt": PROMPT, "on_bad_row": "skip"}  # fmt: skip
    for name, more in (
        ("all", {}),
        ("groups", {"split": {"val": 0.2, "by": "who"}}),
        ("few", {"max_rows": {"train": 50}}),
    ):
        recipe: Recipe = load_recipe(changed(composed("viggo_quickstart"), {"dataset": {**section, **more}}))
        one = prepare_data(recipe, tmp_path / f"{name}-one", lambda *args, **figures: None)
        calls: list[int] = []

        def spread(function: Any, given: Any, calls: list[int] = calls) -> list[Any]:
            calls.append(len(given))
            return [function(*args) for args in pickle.loads(pickle.dumps(given))]

        with monkeypatch.context() as small:
            small.setattr(pieces, "LEAST_BYTES", 1000)
            many = prepare_data(recipe, tmp_path / f"{name}-many", lambda *args, **figures: None, spread)
        assert calls[0] > 5
        assert [each.files for each in many.artifacts] == [each.files for each in one.artifacts]
        same = ("rows", "skipped", "chars", "bytes")
        assert {key: many.metrics[key] for key in same} == {key: one.metrics[key] for key in same}
        assert many.remarks[1:] == one.remarks[1:]


def test_rows_beyond_the_millionth_have_their_place_and_number(tmp_path: Path) -> None:
    def lines(start: int) -> bytes:
        return b"".join(b'{"id": "train-%06d", "n": %d}\n' % (start + n, n) for n in range(4))

    assert len(lines(999_998)) - len(lines(0)) == digits_below(1_000_002) - digits_below(999_998) - digits_below(4) == 2
    (tmp_path / "piece").write_bytes(lines(0))
    (tmp_path / "whole").write_bytes(b"before\n")
    place_rows(tmp_path / "piece", tmp_path / "whole", "train", 999_998, 7)
    assert (tmp_path / "whole").read_bytes() == b"before\n" + lines(999_998)


def test_prompts_that_differ_in_white_space_at_their_ends_are_the_same(tmp_path: Path) -> None:
    made = ingested(tmp_path, {"train": rows(9), "test": [{"q": "Question 3? \n", "a": "Answer 3."}]})
    assert any(line.startswith("test: 1 of 1 test row is a training row") for line in made.remarks)


def test_scripts_of_letters_are_told_where_some_are_not_latin(tmp_path: Path) -> None:
    texts = [
        "Guten Tag, wie geht's?",
        "Größe 12",
        "Привет, как дела?",
        "你好世界",
        "こんにちは世界",
        "สวัสดี",
        "12 + 4",
    ] * 2
    made = ingested(tmp_path, {"train": [{"q": f"{text} {at}", "a": "ok"} for at, text in enumerate(texts)]})
    (line,) = [each for each in made.remarks if "written" in each]
    assert line.startswith("train: the rows are written in Latin 43%, ")
    for script in ("Cyrillic", "Han", "Kana and Han", "Thai"):
        assert f"{script} 14%" in line
    plain = ingested(tmp_path, {"train": [{"q": "Größe?", "a": "12 €"}, {"q": "Hi?", "a": "x"}]})
    assert not [each for each in plain.remarks if "written" in each]


def test_a_column_names_each_rows_split_in_usual_words_or_the_recipes_own(tmp_path: Path) -> None:
    names = ["train", "Validation", "TEST", "unlabelled", 9]
    given = [{**row, "fold": names[n % 5]} for n, row in enumerate(rows(50))]
    rule = {"column": "fold", "values": {"9": "test", "unlabelled": "none"}}
    made = ingested(tmp_path, {"train": given}, split=rule)
    assert made.metrics["rows"] == {"train": 10, "val": 10, "test": 20}
    assert {example.columns["fold"] for example in split(tmp_path, "test")} == {"TEST", 9}
    assert [example.id for example in split(tmp_path, "val")][:2] == ["val-000000", "val-000001"]
    assert "left out 10 of 50 rows, whose 'fold' means none" in made.remarks
    with pytest.raises(RunnerError, match=r"10 rows .*: its column 'fold' is 'unlabelled', which names no split"):
        ingested(tmp_path, {"train": given}, split={"column": "fold", "values": {"9": "test"}})


def test_a_split_with_a_typing_mistake_is_told_which_it_may_be(tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match="'tset', which names no split") as caught:
        ingested(tmp_path, {"train": [*rows(4, fold="train"), {"q": "x", "a": "y", "fold": "tset"}]},
                 split={"column": "fold"})  # fmt: skip
    assert "dataset.split.values={tset: test}" in caught.value.hint


def test_a_column_of_splits_that_names_none_that_is_needed_is_refused(tmp_path: Path) -> None:
    given = [{**row, "fold": "dev"} for row in rows(5)]
    with pytest.raises(RunnerError, match=r"split\.column=fold names no row's split train"):
        ingested(tmp_path, {"train": given}, split={"column": "fold"})
    given = [{**row, "fold": "train"} for row in rows(5)]
    with pytest.raises(RunnerError, match="names no row's split val, whose rows train needs"):
        ingested(tmp_path, {"train": given}, split={"column": "fold"}, train={"args": {"eval_dataset": "val"}})
