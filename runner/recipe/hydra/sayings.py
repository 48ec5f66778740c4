"""What Hydra says of mistakes, by its sentences, and what this product says of them."""

from __future__ import annotations

import re

from runner.errors import Problem

_SAYINGS = tuple(
    (re.compile(pattern), key, message, hint)
    for pattern, key, message, hint in (
        (r"Could not delete from config\. '(.+)' does not exist", "~{0}",
         "names a key that the recipe does not have", "Leave it out, or correct the key."),
        (r"Could not delete from config\. The value of '(.+)' is (.*) and not (.*)\.", "~{0}",
         "is to be removed where it is {2}, and it is {1}", "Write ~{0} to remove it whatever it is."),
        (r"Could not delete '(.*)'\. No match in the defaults list", "~{0}",
         "names nothing that can be removed", "Write ~KEY with a key of the recipe."),
        (r"force-add of config groups is not supported: '\+*([^=]+)=(.*)'", "{0}",
         "is a folder of variants that recipes do not choose from, or is written with plus signs",
         "Write GROUP=NAME with a group of `python -m runner list`, without plus signs."),
        (r"(\S+) appears more than once in the final defaults list", "{0}", "is given two variants",
         "Name one: {0}=NAME on the command line, without a plus sign; `- override /{0}: NAME` in a recipe."),
        (r"defaults must be a list \(got (\w+)\)", "defaults",
         "must be a list", "Write lines like `- override /model: NAME` below it, or leave it out."),
        (r"Error merging override \+*([^=\s]+)=(.*?);\s+Cannot merge", "{0}",
         "cannot be {1}: a mapping stays a mapping, and a list a list",
         "Write {{key: value}} for a mapping, [A,B] for a list."),
    )
)  # fmt: skip


def in_own_words(text: str) -> Problem | None:
    """The problem that Hydra's sentence tells of, or None for one that is not known. It has no origin."""
    for pattern, key, message, hint in _SAYINGS:
        if found := pattern.search(text):
            parts = found.groups()
            return Problem(key.format(*parts), None, message.format(*parts), hint.format(*parts))
    return None
