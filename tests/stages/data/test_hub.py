"""Datasets of the hub: `datasets` and `huggingface_hub` themselves, by HTTP, from a hub on loopback."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fake_hub import TOKEN, Repo, fake_hub
from tests.paths import ROOT

pytestmark = pytest.mark.e2e

CARD = b"""---
configs:
- config_name: en
  data_files:
  - {split: train, path: "en/train-*.parquet"}
  - {split: test, path: "en/test.parquet"}
- config_name: de
  data_files:
  - {split: train, path: "de/train.parquet"}
- config_name: fr
  data_files:
  - {split: train, path: "fr/train.jsonl"}
---
# Talks
"""
READ = """
import json, os, sys
from runner.errors import RunnerError
from stages.data.sources import hub
from stages.sections.dataset import Dataset
for asked in json.loads(sys.argv[1]):
    source, split, token = [*asked.split(" "), "", ""][:3]
    os.environ["HF_TOKEN"] = token
    section = Dataset.model_validate({"source": source, "prompt": {}, "files": {"train": split or "train"}})
    try:
        found = [[place, row["q"], row["a"]] for place, row in hub.rows(section, 0, "train")]
        print(json.dumps({"rows": found, "commit": hub.commit(source)}))
    except RunnerError as error:
        print(json.dumps({"error": error.message, "hint": error.hint}))
"""


def parquet(*rows: str) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = io.BytesIO()
    pq.write_table(pa.table({"q": list(rows), "a": ["yes"] * len(rows)}), out)
    return out.getvalue()


def lines(*rows: str) -> bytes:
    return "".join(json.dumps({"q": row, "a": "yes"}) + "\n" for row in rows).encode()


def repos() -> dict[str, Repo]:
    talks = {
        "README.md": CARD, "en/train-00000-of-00002.parquet": parquet("one", "two"),
        "en/train-00001-of-00002.parquet": parquet("three"), "en/test.parquet": parquet("new"),
        "de/train.parquet": parquet("eins"), "fr/train.jsonl": lines("un"),
    }  # fmt: skip
    plain = {"train.jsonl": lines("a", "b"), "test.jsonl": lines("c")}
    return {
        "org/talks": Repo({"main": talks, "v1": talks | {"en/test.parquet": parquet("old")}}),
        "org/plain": Repo({"main": plain}),
        "org/gated": Repo({"main": plain}, gated=True),
        "org/empty": Repo({"main": {"notes.bin": b"no rows"}}),
    }


ASKED = {
    "hf://org/talks?config=en": ["one", "two", "three"],
    "hf://org/talks?config=en test": ["new"],
    "hf://org/talks?config=en&revision=v1 test": ["old"],
    "hf://org/talks?config=de": ["eins"],
    "hf://org/plain": ["a", "b"],
    "hf://org/plain test": ["c"],
    "hf://org/talks": "has several configs, and the address names none; there are: en, de, fr",
    "hf://org/talks?config=it": "has no config 'it'; there are: en, de, fr",
    "hf://org/talks?config=fr": "has a file in another form than its first config",
    "hf://org/talks?config=en dev": "has no split 'dev'; there are: train, test",
    "hf://org/talks?config=en&revision=v9": "has no such revision",
    "hf://org/none": "the hub has no such dataset, or it is private",
    "hf://org/empty": "has no files of rows",
    "hf://org/gated": "is gated, and no token was given",
    "hf://org/gated train hf_of_another_account": "is gated, and this token may not read it",
    f"hf://org/gated train {TOKEN}": ["a", "b"],
}


def read(folder: Path, url: str, *asked: str) -> list[dict[str, Any]]:
    """What the hub's address gives in a process of its own, which takes mirror and token from the environment."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    given = {**outside, "HF_ENDPOINT": url, "HF_HOME": str(folder), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", READ, json.dumps(asked)]
    done = subprocess.run(command, env=given, cwd=folder, stdout=subprocess.PIPE, text=True, timeout=300, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    with fake_hub(repos()) as url:
        yield url


def test_configs_splits_shards_and_revisions_are_read_and_what_is_not_there_is_one_sentence(
    hub: str, tmp_path: Path
) -> None:
    for (asked, wanted), found in zip(ASKED.items(), read(tmp_path, hub, *ASKED), strict=True):
        if isinstance(wanted, list):
            assert [row[1] for row in found["rows"]] == wanted, asked
            assert found["rows"][0][0] == f"{[*asked.split(' '), 'train'][1]}:1"
            assert len(found["commit"]) == 40
        else:
            assert wanted in found["error"], (asked, found)
            assert "\n" not in found["error"]
            assert found["hint"]


def test_a_hub_that_does_not_answer_and_a_folder_of_the_datasets_name_are_told(hub: str, tmp_path: Path) -> None:
    (tmp_path / "org" / "talks").mkdir(parents=True)
    missing, hidden = read(tmp_path, "http://127.0.0.1:1", "hf://org/plain", "hf://org/talks")
    assert missing["error"].endswith("the hub at http://127.0.0.1:1 does not answer")
    assert "has the dataset's name" in hidden["error"]
