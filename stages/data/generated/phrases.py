"""Values of the attributes that describe a game, each with the ways to say it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from stages.data.generated import words

# The order of phrases before and after "game"; the meaning representation can have another one.
PHRASE_ORDER = (
    "developer", "release_year", "exp_release_date", "rating", "esrb", "player_perspective", "has_multiplayer",
    "platforms", "genres", "available_on_steam", "has_linux_release", "has_mac_release",
)  # fmt: skip


class Phrase(NamedTuple):
    """A value of an attribute, and the ways to say it. A form is (slot, text).

    Slots: 0 before "game", 1 after "game", 2 after "it". `short` has those that describe a game in a noun phrase.
    """

    value: str
    short: tuple[tuple[int, str], ...]
    all: tuple[tuple[int, str], ...]


def _phrase(value: str, before: Sequence[str] = (), after: Sequence[str] = (), clauses: Sequence[str] = ()) -> Phrase:
    short = tuple([(0, text) for text in before] + [(1, text) for text in after])
    return Phrase(value, short, (*short, *((2, text) for text in clauses)))


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


@cache
def phrases(attribute: str) -> tuple[Phrase, ...]:
    """Every value of an attribute that describes a game, with its phrases."""
    match attribute:
        case "release_year":
            return tuple(
                _phrase(
                    year, (), (f"from {year}", f"released in {year}"), (f"came out in {year}", f"dates from {year}")
                )
                for year in words.YEARS
            )
        case "exp_release_date":
            found = [(date, f"on {date}") for date in words.DATES] + [(year, f"in {year}") for year in words.DATE_YEARS]
            return tuple(
                _phrase(date, (), (f"due {when}", f"expected {when}"), (f"comes out {when}", f"is expected {when}"))
                for date, when in found
            )
        case "developer":
            return tuple(
                _phrase(name, (), (f"by {name}", f"made by {name}"), (f"was made by {name}", f"comes from {name}"))
                for name in words.DEVELOPERS
            )
        case "esrb":
            return tuple(
                _phrase(value, (before,), (after, short), (f"is {after}", f"is {short}"))
                for value, (before, after, short) in words.ESRB.items()
            )
        case "rating":
            return tuple(
                _phrase(value, found, (), [f"is considered {found[0]}", f"is thought to be {found[1]}"])
                for value, found in words.RATINGS.items()
            )
        case "genres":
            return tuple(_genres(chosen) for chosen in words.GENRE_SETS for _ in range(12 if len(chosen) == 1 else 1))
        case "player_perspective":
            return tuple(
                _phrase(
                    ", ".join(chosen),
                    [words.PERSPECTIVES[chosen[0]]] if len(chosen) == 1 else (),
                    (f"played in {_listed(chosen)}", f"seen in {_listed(chosen)}"),
                    (f"is played in {_listed(chosen)}",),
                )
                for chosen in words.PERSPECTIVE_SETS
            )
        case "platforms":
            return tuple(
                _phrase(", ".join(chosen), chosen if len(chosen) == 1 else (), (f"for {_listed(chosen)}",),
                        (f"is out on {_listed(chosen)}", f"can be played on {_listed(chosen)}"))
                for chosen in words.PLATFORM_SETS
            )  # fmt: skip
        case _:
            yes, no = words.YES_NO[attribute]
            return _phrase("yes", *yes), _phrase("no", *no)


def _genres(chosen: tuple[str, ...]) -> Phrase:
    before = {" ".join(words.GENRES[genre][which % len(words.GENRES[genre])] for genre in chosen) for which in (0, 1)}
    after = f"in the {chosen[0]} genre" if len(chosen) == 1 else f"mixing {_listed(chosen)}"
    clause = f"belongs to the {chosen[0]} genre" if len(chosen) == 1 else f"mixes {_listed(chosen)}"
    return _phrase(", ".join(chosen), sorted(before), (after,), (clause,))
