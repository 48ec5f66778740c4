"""A grammar that writes rows of ViGGO's shape: a sentence about a video game and its meaning representation.

`generated://viggo?train=512&val=32&test=100&seed=7&functions=inform,confirm&attributes=name,genres` names the rows. The
same URI gives the same rows everywhere, and a longer split begins with the rows of a shorter one. A sentence belongs
to one split for good, by a hash of its text, so that no test sentence is ever among the training sentences.
"""

from __future__ import annotations

import difflib
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import combinations
from random import Random
from typing import Literal
from urllib.parse import parse_qsl, urlsplit

from runner.errors import RunnerError
from stages.data.generated import frames, words
from stages.data.generated.phrases import PHRASE_ORDER, Phrase, phrases

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
SPLIT_BUCKETS: dict[Split, range] = {
    "test": range(15),
    "val": range(15, 25),
    "train": range(25, 100),
}  # hundredths of all sentences
MOST_ROWS = 1_000_000
"""Rows of one split."""
_MOST_MISSES = 100_000
_PUNCTUATION = b" .,:;?!'-&/()"

_Random = Callable[[], float]
_Forms = tuple[list[str], list[str], list[str]]
URI_HINT = "Write generated://viggo?train=512&val=32&test=100&seed=7&functions=inform,confirm&attributes=name,genres"


@dataclass(frozen=True)
class RowsSpec:
    """How many rows of each split to generate, and the seed."""

    train: int = 1000
    val: int = 100
    test: int = 100
    seed: int = 0

    def num_rows(self, split: Split) -> int:
        return {"train": self.train, "val": self.val, "test": self.test}[split]


@dataclass(frozen=True)
class GrammarSpec(RowsSpec):
    """What to generate: rows, seed, and the slice of functions and attributes to draw from."""

    functions: tuple[str, ...] = tuple(words.FUNCTIONS)
    attributes: tuple[str, ...] = words.ATTRIBUTES


def parse_uri(uri: str, default_seed: int = 0) -> GrammarSpec:
    """The spec that a `generated://viggo` URI names. Raises RunnerError naming what is unknown and the nearest name.

    default_seed: taken when the URI names none. What the query leaves out has `GrammarSpec`'s defaults.
    """
    parts = urlsplit(uri)
    if parts.scheme != "generated" or parts.netloc != "viggo" or parts.path.strip("/") or parts.fragment:
        raise RunnerError(f"there is no grammar {uri!r}; there is generated://viggo", URI_HINT)
    query = dict(pairs_of(uri, ("functions", "attributes"), URI_HINT))
    counts = {key: count_of(key, query[key], uri) for key in (*SPLITS, "seed") if key in query}
    functions = _names(query, "functions", tuple(words.FUNCTIONS), uri)
    attributes = _names(query, "attributes", words.ATTRIBUTES, uri)
    spec = GrammarSpec(**{"seed": default_seed, **counts}, functions=functions, attributes=attributes)
    _check_slice(spec, "attributes" in query, uri)
    return spec


def pairs_of(uri: str, more: Sequence[str], hint: str) -> Iterator[tuple[str, str]]:
    """The keys and values of the URI's query, one by one. more: keys besides those of `RowsSpec`.

    Raises RunnerError at a key that is unknown or given twice.
    """
    seen: set[str] = set()
    for key, value in parse_qsl(urlsplit(uri).query, keep_blank_values=True):
        known(key, (*SPLITS, "seed", *more), "key", uri)
        if key in seen:
            raise RunnerError(f"{uri}: {key} is given twice", hint)
        seen.add(key)
        yield key, value


def known(name: str, allowed: Sequence[str], what: str, uri: str) -> None:
    """Raise RunnerError with the nearest name where it is not among the allowed."""
    if name not in allowed:
        near = difflib.get_close_matches(name, allowed, n=1, cutoff=0.5)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise RunnerError(f"{uri}: there is no {what} {name!r}{meant}", f"There are: {', '.join(allowed)}.")


def count_of(key: str, value: str, uri: str, hint: str = URI_HINT) -> int:
    """A whole number of the query; of rows, at most MOST_ROWS. Raises RunnerError."""
    if not (value.isascii() and value.isdigit()):
        raise RunnerError(f"{uri}: {key}={value} is not a whole number", hint)
    if key != "seed" and (len(value) > len(str(MOST_ROWS)) or int(value) > MOST_ROWS):
        raise RunnerError(f"{uri}: {key} asks for more than {MOST_ROWS:,} rows", f"Write {key}={MOST_ROWS} or less.")
    return int(value)


def _names(query: dict[str, str], key: str, allowed: tuple[str, ...], uri: str) -> tuple[str, ...]:
    """The comma-separated names of the key, in the grammar's own order; all of them when the key is left out."""
    if key not in query:
        return allowed
    chosen = {name.strip() for name in query[key].split(",")}
    for name in sorted(chosen):
        known(name, allowed, key.removesuffix("s"), uri)
    return tuple(name for name in allowed if name in chosen)


def _check_slice(spec: GrammarSpec, attributes_given: bool, uri: str) -> None:
    used: set[str] = set()
    for function in spec.functions:
        required, optional, least, _, _ = words.FUNCTIONS[function]
        there = [name for name in spec.attributes if name in optional]
        if missing := [name for name in required if name not in spec.attributes]:
            raise RunnerError(
                f"{uri}: {function} needs the attribute {missing[0]}", "Add it, or leave the function out."
            )
        if len(there) < least:
            raise RunnerError(
                f"{uri}: {function} needs at least {least} of the attributes {', '.join(sorted(optional))}",
                "Add one, or leave the function out.",
            )
        used |= {*required, *there}
    if attributes_given and (unused := [name for name in spec.attributes if name not in used]):
        raise RunnerError(
            f"{uri}: no chosen function takes the attribute {unused[0]}",
            "Leave it out, or add a function that takes it (exp_release_date: inform, confirm; specifier: request; "
            "rating: inform, give_opinion, verify_attribute, request_explanation).",
        )


def generate(spec: GrammarSpec, split: Split) -> Iterator[dict[str, str]]:
    """The split's rows, one by one: `{instruction, input, output}`. No two rows of val or of test have one sentence.

    Training rows are not kept in memory, so a small slice repeats some. Raises RunnerError when the slice runs out.
    """
    random = Random(f"{spec.seed}/{split}").random  # noqa: S311 - made-up data, not a secret
    draws = [_draws(function, spec) for function in spec.functions]
    wheel = [draw for draw, function in zip(draws, spec.functions, strict=True)
             for _ in range(int(2 * words.FUNCTIONS[function][4]))]  # fmt: skip
    bucket, unique = SPLIT_BUCKETS[split], split != "train"
    seen: set[bytes] = set()
    made = misses = 0
    wanted = spec.num_rows(split)
    while made < wanted:
        sentence, output = wheel[int(random() * len(wheel))](random)
        text = sentence.encode().lower().translate(None, _PUNCTUATION)
        digest = blake2b(text, digest_size=8).digest() if unique else b""
        if zlib.crc32(text) % 100 not in bucket or digest in seen:
            misses += 1
            if misses > _MOST_MISSES:
                raise RunnerError(
                    f"this slice of the grammar has only {made} different {split} sentences, "
                    f"not the {wanted} that {split}={wanted} asks for",
                    "Ask for fewer rows, or allow more functions or attributes.",
                )
            continue
        if unique:
            seen.add(digest)
        made, misses = made + 1, 0
        yield {"instruction": words.INSTRUCTION, "input": sentence, "output": output}


@dataclass(frozen=True)
class _Plan:
    """One set of attributes of a function.

    output: its meaning representation with %s for each value. facts: position among the values, and phrases, of each
    attribute that describes the game, in the order of the sentence. The rest: positions of what frames say; or None.
    """

    output: str
    num_values: int
    facts: tuple[tuple[int, tuple[Phrase, ...]], ...]
    name: int | None
    rating: int | None
    specifier: int | None


def _plans(function: str, spec: GrammarSpec) -> list[list[_Plan]]:
    """The function's sets of attributes within the slice, grouped by size."""
    required, optional, least, most, _ = words.FUNCTIONS[function]
    there = [name for name in spec.attributes if name in optional]
    groups = []
    for size in range(least, min(most, len(there)) + 1):
        chosen = [names for names in combinations(there, size) if not {"exp_release_date", "release_year"} <= {*names}]
        groups.append([_plan(function, {*required, *names}) for names in chosen])
    return [group for group in groups if group]


def _plan(function: str, names: set[str]) -> _Plan:
    order = [name for name in words.ATTRIBUTES if name in names]
    position = {name: order.index(name) for name in order}
    framed = set(words.FUNCTIONS[function][0])
    facts = tuple((position[name], phrases(name)) for name in PHRASE_ORDER if name in names - framed)
    output = f"{function}({', '.join(f'{name}[%s]' for name in order)})"
    return _Plan(output, len(order), facts, *(position.get(n) if n in framed else None
                                             for n in ("name", "rating", "specifier")))  # fmt: skip


def _draws(function: str, spec: GrammarSpec) -> Callable[[_Random], tuple[str, str]]:
    """A function that draws one (sentence, meaning) of the dialogue function."""
    if function == "request_attribute":
        asked = [name for name in spec.attributes if name in words.ASKED]
        return lambda random: _ask_attribute(asked, random)
    groups = _plans(function, spec)
    make = _inform if function == "inform" else _framed

    def draw(random: _Random) -> tuple[str, str]:
        group = groups[int(random() * len(groups))]
        return make(function, group[int(random() * len(group))], random)

    return draw


def _ask_attribute(asked: list[str], random: _Random) -> tuple[str, str]:
    name = asked[int(random() * len(asked))]
    matter, favor = words.ASKED[name]
    frame = _pick(frames.FRAMES["request_attribute"], random)
    return frame.format(matter=_pick(matter, random), favor=_pick(favor, random)), f"request_attribute({name}[])"


def _pick(items: tuple[str, ...], random: _Random) -> str:
    return items[int(random() * len(items))]


def _describe(plan: _Plan, values: list[str], random: _Random, with_clauses: bool) -> _Forms:
    """Draw the facts' values into `values`, and a form of each: (before "game", after it, after "it")."""
    chosen: _Forms = ([], [], [])
    for position, table in plan.facts:
        value, short, every = table[int(random() * len(table))]
        values[position] = value
        forms = every if with_clauses else short
        slot, text = forms[int(random() * len(forms))]
        chosen[slot].append(text)
    return chosen


def _noun(chosen: _Forms, noun: str) -> str:
    before, after, _ = chosen
    words_before = " ".join((*before, noun))
    if not after:
        return words_before
    return f"{words_before} {' '.join(after)}" if len(after) < 3 else f"{words_before} {', '.join(after)}"


def _with_article(text: str) -> str:
    return f"an {text}" if text[0] in "aeiouEMRX" else f"a {text}"  # letters that are spelled: M-rated, RPG, Xbox


def _inform(_: str, plan: _Plan, random: _Random) -> tuple[str, str]:
    values = [""] * plan.num_values
    values[0] = name = _pick(words.NAMES, random)
    chosen = _describe(plan, values, random, with_clauses=True)
    clauses = chosen[2]
    if chosen[0] or chosen[1]:
        sentences = [_pick(frames.INFORM, random).format(name=name, a_game=_with_article(_noun(chosen, "game")))]
    else:
        sentences = [_pick(frames.INFORM_CLAUSES, random).format(name=name, clauses=" and ".join(clauses[:2]))]
        clauses = clauses[2:]
    for start in range(0, len(clauses), 2):
        more = _pick(frames.INFORM_MORE, random)
        sentences.append(more.format(clauses=" and ".join(clauses[start : start + 2])))
    return " ".join(sentences), plan.output % tuple(values)


def _framed(function: str, plan: _Plan, random: _Random) -> tuple[str, str]:
    """A sentence of any function whose frames hold one description of a game."""
    values = [""] * plan.num_values
    fields: dict[str, str] = {}
    if plan.name is not None:
        values[plan.name] = fields["name"] = _pick(words.NAMES, random)
    if plan.rating is not None:
        level, adjectives = _RATINGS[int(random() * len(_RATINGS))]
        values[plan.rating] = level
        fields |= {"rating": _pick(adjectives, random), "verb": _pick(words.RATING_VERBS[level], random)}
    kind = function
    if plan.specifier is not None:
        superlative = random() < 0.25
        kind = "request/superlative" if superlative else function
        specifier = _pick(words.SUPERLATIVES if superlative else words.SPECIFIERS, random)
        values[plan.specifier] = fields["specifier"] = specifier
    forms = _describe(plan, values, random, with_clauses=False)
    frame = _pick(frames.FRAMES[kind], random)
    if "{games}" in frame:
        fields["games"] = _noun(forms, "games")
    else:
        fields["game"] = game = _noun(forms, "game")
        fields["a_game"] = _with_article(game)
    return frame.format_map(fields), plan.output % tuple(values)


_RATINGS = tuple(words.RATINGS.items())
