from __future__ import annotations

import re
from collections import Counter
from itertools import islice

import pytest

from runner.errors import RunnerError
from stages.data.generated import words
from stages.data.generated.grammar import GrammarSpec, Split, generate, parse_uri
from stages.data.generated.phrases import phrases

SMALL = "generated://viggo?functions=inform,request_attribute&attributes=name,release_year,genres"
MEANING = re.compile(r"([a-z_]+)\((.*)\)")
PART = re.compile(r"([a-z_]+)\[([^\[\]]*)\]")


def rows(uri: str, split: Split = "train", most: int | None = None) -> list[dict[str, str]]:
    return list(islice(generate(parse_uri(uri), split), most))


def normalized(sentence: str) -> str:
    return re.sub(r"[^a-z0-9]", "", sentence.lower())


def parts(row: dict[str, str]) -> tuple[str, list[tuple[str, str]]]:
    matched = MEANING.fullmatch(row["output"])
    assert matched, row
    listed = PART.findall(matched[2])
    assert ", ".join(f"{name}[{value}]" for name, value in listed) == matched[2], row
    return matched[1], listed


def test_every_function_and_attribute_appears_in_the_corpus_order() -> None:
    functions: Counter[str] = Counter()
    attributes: Counter[str] = Counter()
    for row in rows("generated://viggo?train=4000&seed=3"):
        assert set(row) == {"instruction", "input", "output"}
        function, listed = parts(row)
        names = [name for name, _ in listed]
        assert names == [name for name in words.ATTRIBUTES if name in names]
        required, optional, least, most, _ = words.FUNCTIONS[function]
        assert set(required) <= set(names) <= set(required) | optional
        assert least <= len(names) - len(required) <= most
        assert not {"release_year", "exp_release_date"} <= set(names)
        functions[function] += 1
        attributes.update(names)
    assert set(functions) == set(words.FUNCTIONS)
    assert len(functions) == 9
    assert set(attributes) == set(words.ATTRIBUTES)
    assert len(attributes) == 14


def test_values_look_like_the_corpus() -> None:
    seen: dict[str, set[str]] = {}
    for row in rows("generated://viggo?train=6000"):
        function, listed = parts(row)
        for name, value in listed:
            assert (value == "") == (function == "request_attribute")
            seen.setdefault(name, set()).add(value)
    assert seen["rating"] == {"excellent", "good", "average", "poor"}
    assert seen["has_linux_release"] == {"yes", "no", ""}
    assert "E 10+ (for Everyone 10 and Older)" in seen["esrb"]
    assert any(", " in value for value in seen["genres"])
    assert any(re.fullmatch(r"[A-Z][a-z]+ \d+, \d{4}", value) for value in seen["exp_release_date"])


def test_a_sentence_has_one_meaning_and_says_every_name() -> None:
    meanings: dict[str, str] = {}
    for row in rows("generated://viggo?train=20000&seed=5"):
        assert meanings.setdefault(normalized(row["input"]), row["output"]) == row["output"]
        for name, value in parts(row)[1]:
            if name in ("name", "developer", "release_year", "specifier", "exp_release_date"):
                assert value in row["input"]
        assert "{" not in row["input"]
        assert "  " not in row["input"]
        assert row["input"].isascii()


def test_every_value_has_a_phrase_for_a_description() -> None:
    for attribute in words.ATTRIBUTES:
        if attribute not in ("name", "specifier"):
            assert all(phrase.short for phrase in phrases(attribute))


@pytest.mark.parametrize(
    "uri", [f"{SMALL}&train=2000&val=40&test=100", "generated://viggo?train=4000&val=200&test=400"]
)
def test_no_sentence_is_in_two_splits_and_none_twice_in_a_held_out_one(uri: str) -> None:
    splits = {split: [normalized(row["input"]) for row in rows(uri, split)] for split in ("train", "val", "test")}
    assert [len(splits[split]) for split in ("val", "test")] == ([40, 100] if "inform" in uri else [200, 400])
    assert len(set(splits["test"])) == len(splits["test"])
    assert len(set(splits["val"])) == len(splits["val"])
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        assert not set(splits[one]) & set(splits[other])


def test_no_test_sentence_of_one_seed_is_a_training_sentence_of_another() -> None:
    train = {normalized(row["input"]) for row in rows(f"{SMALL}&train=5000&seed=1")}
    assert not train & {normalized(row["input"]) for row in rows(f"{SMALL}&test=200&seed=2", "test")}


def test_the_same_uri_gives_the_same_rows_and_a_longer_split_begins_alike() -> None:
    assert rows(f"{SMALL}&train=50&seed=7") == rows(f"{SMALL}&train=500&seed=7", most=50)
    assert rows(f"{SMALL}&train=50&seed=7") != rows(f"{SMALL}&train=50&seed=8")


def test_rows_are_what_they_were() -> None:
    """Whoever changes the grammar raises Ingest.version, so that no run takes the old rows for the new ones."""
    assert [(row["input"], row["output"]) for row in rows(f"{SMALL}&seed=7", most=3)] == [
        (
            "A word on Paper Harbor 4: it is a shooter game from 1993.",
            "inform(name[Paper Harbor 4], release_year[1993], genres[shooter])",
        ),
        (
            "Neon Sparrow can be described as a game released in 2014.",
            "inform(name[Neon Sparrow], release_year[2014])",
        ),
        (
            "Copper Canyon happens to be a game from 2005.",
            "inform(name[Copper Canyon], release_year[2005])",
        ),
    ]


def test_a_slice_keeps_to_its_functions_and_attributes() -> None:
    used = [parts(row) for row in rows(f"{SMALL}&train=500")]
    assert {function for function, _ in used} == {"inform", "request_attribute"}
    assert {name for _, listed in used for name, _ in listed} == {"name", "release_year", "genres"}


def test_rows_are_made_as_they_are_asked_for() -> None:
    assert len(rows("generated://viggo?train=1000000", most=3)) == 3


def test_a_slice_that_runs_out_says_how_many_sentences_it_has() -> None:
    with pytest.raises(RunnerError, match=r"has only \d+ different test sentences, not the 500 that test=500 asks for"):
        rows("generated://viggo?functions=request_attribute&attributes=esrb&test=500", "test")


def test_query_is_read() -> None:
    spec = parse_uri("generated://viggo?train=5&val=0&test=2&seed=9&functions=confirm,inform&attributes=genres,name")
    assert spec == GrammarSpec(5, 0, 2, 9, ("inform", "confirm"), ("name", "genres"))
    assert parse_uri("generated://viggo", default_seed=42) == GrammarSpec(seed=42)
    assert list(generate(spec, "val")) == []


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("generated://vigo", "there is generated://viggo"),
        ("generated://viggo/x", "there is no grammar"),
        ("generated://viggo?trains=5", "no key 'trains'; did you mean train?"),
        ("generated://viggo?train=5&train=6", "train is given twice"),
        ("generated://viggo?train=-5", "train=-5 is not a whole number"),
        ("generated://viggo?seed=x", "seed=x is not a whole number"),
        ("generated://viggo?functions=informs", "no function 'informs'; did you mean inform?"),
        ("generated://viggo?attributes=name,genre", "no attribute 'genre'; did you mean genres?"),
        ("generated://viggo?functions=", "no function ''"),
        ("generated://viggo?functions=give_opinion&attributes=name,genres", "give_opinion needs the attribute rating"),
        ("generated://viggo?functions=inform&attributes=name", "inform needs at least 1 of the attributes"),
        ("generated://viggo?functions=inform&attributes=name,genres,specifier", "takes the attribute specifier"),
    ],
)
def test_a_mistake_in_the_uri_is_named(uri: str, message: str) -> None:
    with pytest.raises(RunnerError, match=re.escape(message)):
        parse_uri(uri)
