"""The test set as requests to an engine, and its answers as predictions: what Ray Data runs with the engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from runner.errors import RunnerError
from runner.text import count_text
from stages.data.answer import Answer
from stages.data.example import Example
from stages.data.prediction import Prediction
from stages.engines.base import engine_named
from stages.engines.work import Answers
from stages.infer.prompts import Prompts
from stages.infer.sampling import sampling_params
from stages.models.chat.end_of_turn import with_stop
from stages.models.chat_template import ChatTemplate
from stages.models.vision import decoded
from stages.sections.model import Model
from stages.sections.recipe import Recipe


@dataclass(frozen=True)
class RowFile:
    """The rows of a file in pieces: where each begins, the index of its first row, and how many rows it has."""

    path: Path
    chunks: tuple[dict[str, int], ...]
    num_rows: int

    def missing(self, variants: Sequence[str], is_done: Callable[[int, str], bool]) -> list[dict[str, Any]]:
        """The pieces with a row that has no prediction yet. `todo`: for each row and variant, 1 if it has none."""
        pieces = []
        for chunk in self.chunks:
            indices = range(chunk["index"], chunk["index"] + chunk["num_rows"])
            todo = "".join("01"[not is_done(index, variant)] for index in indices for variant in variants)
            if "1" in todo:
                pieces.append({**chunk, "todo": todo})
        return pieces

    @classmethod
    def scan(cls, path: Path, rows_per_chunk: int) -> RowFile:
        """Read the file once, a line at a time. Raises RunnerError when it has no row."""
        chunks: list[dict[str, int]] = []
        num_rows = offset = 0
        size = rows_per_chunk
        with path.open("rb") as file:
            for line in file:
                if line.strip():
                    if num_rows % size == 0:
                        chunks.append({"offset": offset, "index": num_rows, "num_rows": 0})
                    chunks[-1]["num_rows"] += 1
                    num_rows += 1
                offset += len(line)
        if not num_rows:
            raise RunnerError(
                f"{path} has no rows to predict",
                "Name a test split in dataset.files.test, or leave infer and evaluate out of `pipeline`.",
            )
        return cls(path, tuple(chunks), num_rows)


def rows_per_chunk(recipe: Recipe) -> int:
    """Rows of the pieces that are handed to the engines, so that each brings about a batch of requests."""
    variants = 2 if "publish" in recipe.pipeline and recipe.evaluate.compare_base else 1
    return max(1, recipe.infer.batch_size // variants)


@dataclass(frozen=True)
class Engine:
    """One vLLM engine's work. models: variant -> what its rows' `model` names, the adapter's folder or `source`.

    source: the folder of the model that it loads. lora_rank: of the adapter that it loads as well; None without one.
    """

    source: str
    models: dict[str, str]
    lora_rank: int | None = None


def read_chunk(chunk: Mapping[str, Any], *, path: Path, variants: list[str]) -> Iterator[dict[str, Any]]:
    """The rows of a piece of the test set, as text, each once for every variant that is still to predict it.

    Ray Data would give a column one type, and a row that lacks a column of another row a null.
    """
    index, end, todo = chunk["index"], chunk["index"] + chunk["num_rows"], iter(chunk["todo"])
    with path.open("rb") as file:
        file.seek(chunk["offset"])
        while index < end:
            line = file.readline().decode()
            if line.strip():
                for variant in variants:
                    if next(todo) == "1":
                        yield {"index": index, "variant": variant, "text": line}
                index += 1


def request(row: dict[str, Any], *, recipe: Recipe, engine: Engine) -> dict[str, Any]:
    """A row of `PredictionWork.read` as the engine takes it: its tokens, which model, and how to sample.

    A row that the template does not take is not given to the engine: Ray Data hands on a row with an error.
    """
    model, example = recipe.model.model_dump_json(), Example.from_json(row["text"])
    sees, stop = _template(engine.source, model).vision is not None, _prompts(recipe, engine).stop
    sampling = with_stop(sampling_params(recipe), stop)
    seen = _images(row, example) if sees and not row["__inference_error__"] else {}
    return {
        **seen,
        "tokenized_prompt": row["tokenized_prompt"],
        "model": engine.models[row["variant"]],
        "sampling_params": _answers(recipe.infer.backend, engine.source, model).sampling(sampling, example.tools),
        "__inference_error__": row["__inference_error__"],
    }


def _images(row: Mapping[str, Any], example: Example) -> dict[str, Any]:
    """A request's images, and how many tokens its prompt has with them, which is compared with what was learned
    (`answer`)."""
    images = {"image": decoded(example.images)} if example.images else None
    return {"multimodal_data": images, "num_learned_tokens": row["num_learned_tokens"]}


@dataclass(frozen=True)
class PredictionWork:
    """Batch inference over the test set, as an engine runs it (`stages.engines.work.Work`)."""

    path: Path
    recipe: Recipe
    engine: Engine

    @property
    def source(self) -> str:
        return self.engine.source

    @property
    def lora_rank(self) -> int | None:
        return self.engine.lora_rank

    def read(self, piece: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The piece's rows that have no prediction yet, each for every variant that is to predict it, with its prompt.

        Raises RunnerError when the chat template takes too long.
        """
        rows = list(read_chunk(piece, path=self.path, variants=list(self.engine.models)))
        texts = {row["index"]: row["text"] for row in rows}
        prompts = _prompts(self.recipe, self.engine).of(list(texts.items()))
        return ({**row, **prompts[row["index"]]} for row in rows)

    def adapter(self, row: Mapping[str, Any]) -> str | None:
        """What the engine knows the row's adapter by; None for a row of the model that it loads."""
        model = self.engine.models[row["variant"]]
        return None if model == self.engine.source else model

    def ask(self, row: dict[str, Any]) -> dict[str, Any]:
        """See `request`."""
        return request(row, recipe=self.recipe, engine=self.engine)

    def tell(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """See `answer`."""
        template = _template(self.engine.source, self.recipe.model.model_dump_json())
        return answer(row, partial(_read, self.recipe, self.engine), template.lead)


@lru_cache(maxsize=1)
def _template(source: str, model: str) -> ChatTemplate:
    """model: the recipe's section, as JSON."""
    values = Model.model_validate_json(model)
    return ChatTemplate.load(
        source, values.chat_template, values.chat_template_kwargs, trust_remote_code=values.trust_remote_code
    )


def _prompts(recipe: Recipe, engine: Engine) -> Prompts:
    return _prompts_of(engine.source, recipe.model.model_dump_json(), recipe.train.reasoning)


@lru_cache(maxsize=1)
def _prompts_of(source: str, model: str, reasoning: str) -> Prompts:
    return Prompts(_template(source, model), reasoning)


@lru_cache(maxsize=1)
def _answers(backend: str, source: str, model: str) -> Answers:
    return engine_named(backend).answers(Model.model_validate_json(model), _template(source, model))


def _read(recipe: Recipe, engine: Engine, text: str, example: Example) -> Answer | None:
    """What a client would receive for the engine's text; None where the recipe names no parser."""
    if recipe.model.tool_parser is None and recipe.model.reasoning_parser is None:
        return None
    return _answers(recipe.infer.backend, engine.source, recipe.model.model_dump_json()).read(text, example.tools)


def answer(
    row: Mapping[str, Any],
    read: Callable[[str, Example], Answer | None] = lambda text, example: None,
    lead: str = "",
) -> dict[str, Any]:
    """A finished request as a line of the predictions file, with what the writer needs to know of it.

    read: gives what a client would receive for the engine's text. lead: white space that the chat template writes
    before answers, which is not part of them. started_at: when the engine was given the request (Unix time, s).
    """
    error, example = row["__inference_error__"] or None, Example.from_json(row["text"])
    learned = row.get("num_learned_tokens")
    if not error and learned is not None and learned != row["num_input_tokens"]:
        error = (
            f"the engine reads the prompt as {count_text(row['num_input_tokens'], 'token')}, and {learned} were learned"
        )
    text = "" if error else row["generated_text"].removeprefix(lead)
    received = None if error else read(text, example)
    made = Prediction.of(example, row["variant"], {**row, "generated_text": text}, error, received)
    return {
        "index": row["index"],
        "variant": row["variant"],
        "line": made.line(),
        "num_tokens": made.num_generated_tokens,
        "started_at": time.time() - (0.0 if error else row["time_taken_llm"]),
    }
