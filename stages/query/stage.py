"""Stream answers for test rows from base and adapter with the openai client, as any user of the endpoint would."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from itertools import islice
from typing import Any, ClassVar
from urllib.parse import urlsplit

from runner.cluster.session import ProgressHandle, task_options
from runner.errors import RunnerError
from runner.pipeline.context import RunContext
from runner.pipeline.estimates.rates import Conditions
from runner.pipeline.manifest import StageRecord
from runner.pipeline.results import FinishedRun, Part
from runner.pipeline.stage import StageResult
from runner.recipe.machine import is_loopback
from runner.recipe.schema import StageResources
from runner.storage.artifact import Artifact, scan_folder
from runner.storage.atomic import write_json
from runner.text import count_text
from stages.data.example import Example, read_examples
from stages.data.prediction import BASE, TUNED, read_predictions
from stages.infer.sampling import drawn_by_seed, request_sampling
from stages.models.endpoint_form import sent_messages
from stages.models.known import ENGINE, conditions
from stages.query.received import Received
from stages.sections.recipe import Recipe
from stages.serve.endpoint import Endpoint
from stages.serve.guard.keys import own_key
from stages.serve.other_runs import same_rows

# What the openai client names itself; all else of vLLM's sampling parameters travels in the request's extra body.
_OPENAI_PARAMETERS = frozenset(
    {"temperature", "top_p", "max_tokens", "seed", "stop", "presence_penalty", "frequency_penalty", "logit_bias"}
)

_PLACEMENT_S = 120.0


class Query:
    """Asks the endpoint about the first test rows and measures what a user would see."""

    name: ClassVar[str] = "query"
    version: ClassVar[int] = 2
    reads: ClassVar[tuple[str, ...]] = ("seed", "query.num_rows", "infer.sampling", "train.reasoning")
    libraries: ClassVar[tuple[str, ...]] = ("openai",)
    provides: ClassVar[tuple[str, ...]] = ("answers",)
    ephemeral: ClassVar[bool] = False

    def needs(self, recipe: Recipe) -> tuple[str, ...]:
        """The endpoint, the rows to ask about, and batch inference's answers to them, if there are any."""
        predictions = ("predictions",) if "infer" in recipe.pipeline else ()
        return ("endpoint", "test_set", *predictions)

    def canonical(self, recipe: Recipe) -> dict[str, Any]:
        """The seed only where answers are drawn at random by it."""
        return {} if drawn_by_seed(recipe) else {"seed": None}

    def summary(self, record: StageRecord | None) -> dict[str, Any]:
        """`query`: the stage's figures; empty when it did not run."""
        return {"query": record.metrics if record else {}}

    def page(self, run: FinishedRun) -> Part:
        from stages.query.page import page

        return page(run)

    def conditions(self, values: Mapping[str, Any]) -> Conditions:
        return conditions(values, (*ENGINE, "serve.engine_kwargs", "infer.sampling", "query"))

    def run(self, ctx: RunContext[Recipe]) -> StageResult:
        """Raises RunnerError with the endpoint's message when a request fails."""
        recipe, endpoint = ctx.recipe, Endpoint.of(ctx.input("endpoint"))
        rows = list(islice(read_examples(ctx.input("test_set").path / "test.jsonl"), recipe.query.num_rows))
        if not rows:
            raise RunnerError("the test set has no rows to ask about", "Raise dataset.max_rows.test.")
        requests = [request_of(recipe, row) for row in rows]
        models = {BASE: endpoint.base, **({TUNED: endpoint.adapter} if endpoint.adapter else {}), **endpoint.others}
        answers = ask_near_endpoint(ctx, endpoint.url, list(models.values()), requests)
        ids = {row.id for row in rows}
        batch = batch_predictions(ctx.inputs.get("predictions"), ids)
        for run_id in endpoint.others:
            theirs = batch_predictions(same_rows(recipe, run_id, ctx.input("test_set")), ids)
            batch |= {(run_id, row_id): text for (variant, row_id), text in theirs.items() if variant == TUNED}
        table = [row_report(row.id, models, each, batch) for row, each in zip(rows, answers, strict=True)]
        folder = ctx.stage_dir / "answers"
        write_json(folder / "answers.json", table)
        metrics = figures(models, table)
        return StageResult([scan_folder("answers", folder)], metrics, _note(metrics))


def request_of(recipe: Recipe, example: Example) -> dict[str, Any]:
    """What `chat.completions.create` takes to ask about the example, without the model: the messages and sampling of
    batch inference, and the client's own `timeout` in seconds."""
    sampling = request_sampling(recipe)
    own = {name: value for name, value in sampling.items() if name in _OPENAI_PARAMETERS}
    extra = {name: value for name, value in sampling.items() if name not in _OPENAI_PARAMETERS}
    return {
        "messages": sent_messages(example.prompt, example.images, reasoning=recipe.train.reasoning),
        **({"tools": example.tools} if example.tools else {}),
        **own,
        "extra_body": extra,
        "timeout": recipe.query.timeout_s,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def ask_near_endpoint(
    ctx: RunContext[Recipe], url: str, models: list[str], requests: list[dict[str, Any]]
) -> list[dict[str, dict[str, Any]]]:
    """`ask_all` as a Ray task with the stage's resources, on the node of this process.

    The endpoint is on loopback, and serve has found it answering from here; Ray would place the task anywhere.
    Raises RunnerError at once when this node cannot grant the resources while the endpoint holds its own.
    """
    handle = ctx.progress()
    key = own_key(ctx.recipe.serve.api_keys)
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    node = ray.get_runtime_context().get_node_id()
    # A client waits for the network, and the endpoint may hold every CPU: it asks for one only if the recipe says so.
    options = task_options(ctx.recipe.resources.get("query") or StageResources(cpus_per_worker=0.0))
    free = ray.available_resources() if len(ray.nodes()) == 1 else {}
    if free and options["num_cpus"] > free.get("CPU", 0.0):
        raise RunnerError(
            f"query asks for {count_text(options['num_cpus'], 'CPU')} and next to the endpoint "
            f"{count_text(free.get('CPU', 0.0), 'is', 'are')} free",
            "Set resources.query.cpus_per_worker=0 (it waits for the network), or raise cluster.num_cpus.",
        )
    options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node, soft=False)
    try:
        answers: list[dict[str, dict[str, Any]]] = ray.get(
            ray.remote(**options)(ask_all).remote(url, models, requests, handle, key),
            timeout=_PLACEMENT_S + ctx.recipe.query.timeout_s * len(models) * len(requests),
        )
    except ray.exceptions.GetTimeoutError as error:
        raise RunnerError(
            f"query did not finish in time: has this node {count_text(options['num_cpus'], 'free CPU')}?",
            "Set resources.query.cpus_per_worker=0 (it waits for the network).",
        ) from error
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, RunnerError):
            raise error.cause from None
        raise
    return answers


def ask_all(
    url: str, models: list[str], requests: list[dict[str, Any]], progress: ProgressHandle, key: str | None
) -> list[dict[str, dict[str, Any]]]:
    """Send every request to every model, one after the other; for each request, `{model: answer}` as `ask` gives it.

    key: the endpoint's API key, if it asks for one.
    """
    import openai

    # Whatever proxy the environment names cannot reach an address of this machine.
    direct = openai.DefaultHttpxClient(trust_env=not is_loopback(urlsplit(url).hostname))
    with openai.OpenAI(base_url=url, api_key=key or "none", max_retries=0, http_client=direct) as client:
        answers = []
        for number, request in enumerate(requests, 1):
            answers.append({model: ask(client, model, request) for model in models})
            progress.update(number, len(requests), "rows", first_token_s=answers[-1][models[-1]]["first_token_s"])
        return answers


def ask(client: Any, model: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Stream one answer: `{model, text, num_tokens, first_token_s, tokens_per_s, total_s, finish_reason}`, with
    `calls` and `reasoning` where it has them.

    text: with its calls (`answer_text`). first_token_s: seconds from sending to the first token. tokens_per_s: tokens
    after the first by the time after it; None for an answer of one token.
    Raises RunnerError with the endpoint's message.
    """
    import openai

    started = time.perf_counter()
    first = last = None
    received, num_tokens, finish_reason = Received(), 0, None
    try:
        for chunk in client.chat.completions.create(model=model, **request):
            if chunk.usage:
                num_tokens = chunk.usage.completion_tokens
            for choice in chunk.choices:
                finish_reason = choice.finish_reason or finish_reason
                if received.add(choice.delta) or choice.finish_reason:
                    last = time.perf_counter()
                    first = first or last
    except openai.APITimeoutError as error:
        raise RunnerError(
            f"{model} did not answer within query.timeout_s={request['timeout']:g}", "Raise query.timeout_s."
        ) from error
    except openai.APIStatusError as error:
        raise RunnerError(f"the endpoint refused {model} with status {error.status_code}: {error.message}") from error
    except openai.APIConnectionError as error:
        raise RunnerError(f"{client.base_url} does not answer: {error.__cause__ or error}") from error
    except openai.APIError as error:
        raise RunnerError(f"{model} broke off its answer: {error.message}") from error
    if first is None or last is None:
        raise RunnerError(f"{model} ended its answer without a token")
    answer = received.answer()
    return {
        "model": model,
        "text": answer.text,
        **({"calls": answer.calls} if answer.calls else {}),
        **({"reasoning": answer.reasoning} if answer.reasoning is not None else {}),
        "num_tokens": num_tokens,
        "first_token_s": round(first - started, 4),
        "tokens_per_s": round((num_tokens - 1) / (last - first), 2) if num_tokens > 1 and last > first else None,
        "total_s": round(last - started, 4),
        "finish_reason": finish_reason,
    }


def batch_predictions(predictions: Artifact | None, ids: set[str]) -> dict[tuple[str, str], str]:
    """Text that batch inference gave for the rows: (variant, row id) -> prediction, where there is one."""
    found: dict[tuple[str, str], str] = {}
    if predictions is None:
        return found
    for row in read_predictions(predictions):
        if row.id in ids and not row.error:
            found[row.variant, row.id] = row.prediction
    return found


def row_report(
    row_id: str, models: Mapping[str, str], answers: Mapping[str, dict[str, Any]], batch: Mapping[tuple[str, str], str]
) -> dict[str, Any]:
    """A row's line of answers.json: `{id, base: answer, tuned: answer}`, each with `batch` and `matches_batch`.

    models: variant -> its name at the endpoint; the adapter of another run has the run's id as its variant.
    matches_batch is None where batch inference did not predict the row. White space before an answer may be the chat
    template's, which predictions are without.
    """
    line: dict[str, Any] = {"id": row_id}
    for variant, model in models.items():
        answer, expected = answers[model], batch.get((variant, row_id))
        matches = None if expected is None else expected in (answer["text"], answer["text"].lstrip())
        line[variant] = {**answer, "batch": expected, "matches_batch": matches}
    return line


def figures(models: Mapping[str, str], table: list[dict[str, Any]]) -> dict[str, Any]:
    """Figures of the adapter (of the base model where there is none), with the base model's under `base`.

    Text and model are of the first row; first_token_s and tokens_per_s are medians over the rows (0 tokens/s where
    every answer was one token long); matches_batch is whether all compared rows match, None when none was compared.
    `others` has the figures of other runs' adapters, by run.
    """
    main = TUNED if TUNED in models else BASE
    others = {name: _of_variant(name, table) for name in models if name not in (BASE, TUNED)}
    return {**_of_variant(main, table), "base": _of_variant(BASE, table), "others": others, "rows": table}


def _of_variant(variant: str, table: list[dict[str, Any]]) -> dict[str, Any]:
    answers = [line[variant] for line in table]
    rates = [answer["tokens_per_s"] for answer in answers if answer["tokens_per_s"] is not None]
    matches = [answer["matches_batch"] for answer in answers if answer["matches_batch"] is not None]
    return {
        "first_token_s": round(statistics.median(answer["first_token_s"] for answer in answers), 4),
        "tokens_per_s": round(statistics.median(rates), 2) if rates else 0.0,
        "text": answers[0]["text"],
        "model": answers[0]["model"],
        "matches_batch": all(matches) if matches else None,
    }


def _note(metrics: Mapping[str, Any]) -> str:
    compared = {True: ", same as in batch", False: ", DIFFERENT from batch", None: ""}
    batch = compared[metrics["matches_batch"]]
    others = [f"{run_id}{compared[other['matches_batch']]}" for run_id, other in metrics["others"].items()]
    if others:
        batch += f"; next to it {'; '.join(others)}"
    return (
        f"first token {metrics['first_token_s'] * 1000:.0f} ms, {metrics['tokens_per_s']:.0f} tokens/s{batch}: "
        f"{metrics['text'][:60]!r}"
    )
