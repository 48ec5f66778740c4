"""What ingest's comparison of training and requests costs, and by what: new processes of both environments, in turns.

    python -m benchmarks.parity
    python -m benchmarks.parity --repeats 3

The rows are those of `recipe=viggo_quickstart`, whose model's tokenizer is obtained before the first turn.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_PARTS = {"import": "import transformers' tokenizers", "load": "load the tokenizer", "rows": "compare the rows"}
_WHOSE = {"llamafactory": "llamafactory: training and requests", "engine": "engine: requests"}


def main() -> None:
    if "--turn" in sys.argv:  # before Hydra, which the engine's environment does not have
        print(json.dumps(_turn(*sys.argv[sys.argv.index("--turn") + 1 :])))
        return
    from benchmarks.common import measure
    from benchmarks.common.stages import parser, workspace

    args = parser(__doc__ or "", repeats=3).parse_args()
    with workspace(args.root) as root:
        given = _prepared(root)
        found: dict[str, Any] = {"load": round(os.getloadavg()[0], 1), "turns": []}
        for _ in range(args.repeats):
            found["turns"] += [{"who": who, **_process(who, given)} for who in _WHOSE]
    measure.write_section("parity", report(measure.save("parity", found)))


def _prepared(root: Path) -> list[str]:
    """The recipe as JSON, the tokenizer's folder, and the files of training and test rows."""
    from runner.testing import load_recipe
    from stages.ingest.data import prepare_data
    from stages.models.obtain import obtain_tokenizer
    from stages.sections.recipe import with_sections

    recipe = with_sections(load_recipe("viggo_quickstart"))
    folder = obtain_tokenizer(recipe.model.source, None, Path(recipe.storage.cache).expanduser())
    prepare_data(recipe, root, lambda *args, **figures: None)
    (root / "recipe.json").write_text(recipe.model_dump_json())
    rows = [root / "train_set" / "train.jsonl", root / "test_set" / "test.jsonl"]
    return [str(each) for each in (root / "recipe.json", folder, *rows)]


def _process(who: str, given: list[str]) -> dict[str, Any]:
    from runner.cluster import environments

    command = [str(environments.python(who)), "-m", "benchmarks.parity", "--turn", who, *given]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
    turn: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return turn


def _turn(who: str, recipe_file: str, model: str, train: str, test: str) -> dict[str, float]:
    """Seconds of each part of what a task of ingest does with the rows. The library is imported as ingest does."""
    from stages.ingest.asked import asked_digests
    from stages.ingest.parity import check_parts
    from stages.models.chat_template import ChatTemplate
    from stages.sections.recipe import Recipe

    recipe = Recipe.model_validate_json(Path(recipe_file).read_bytes())
    at = [time.perf_counter()]
    from transformers import AutoTokenizer  # noqa: F401

    at.append(time.perf_counter())
    template = ChatTemplate.of(recipe, model)
    at.append(time.perf_counter())
    if who == "llamafactory":
        check_parts(recipe, template, train, test)
    asked_digests(recipe, template, [train, test])
    at.append(time.perf_counter())
    return {name: round(end - begin, 3) for name, begin, end in zip(_PARTS, at, at[1:], strict=False)}


def report(found: dict[str, Any]) -> str:
    """The medians as Markdown."""
    from benchmarks.common import measure

    rows = []
    for who, name in _WHOSE.items():
        turns = [turn for turn in found["turns"] if turn["who"] == who]
        medians = {what: f"{statistics.median(turn[part] for turn in turns):.2f}" for part, what in _PARTS.items()}
        rows.append({"environment, what": name, **{f"{what}, s": value for what, value in medians.items()}})
    note = (
        f"Wall time, medians of {len(found['turns']) // 2} turns, each a process of its own. In a run both are tasks "
        f"side by side. Load by others at the beginning: {found['load']}."
    )
    return "\n\n".join([measure.head("Comparing training and requests", found), note, measure.table(rows)])


if __name__ == "__main__":
    main()
