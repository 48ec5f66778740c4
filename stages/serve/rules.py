"""Rules about who may use the endpoint, its replicas and how long it stays up."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from runner.errors import Problem, RunnerError
from runner.recipe.arguments import RAY
from runner.recipe.machine import is_loopback
from runner.recipe.secrets import names_secret
from stages.sections.recipe import Recipe
from stages.serve.guard.keys import NoKeysError, keys_of_environment, keys_of_file
from stages.serve.other_runs import run_folder


def open_endpoint_asks_for_a_key(recipe: Recipe) -> Iterator[Problem]:
    if not is_loopback(recipe.serve.host) and recipe.serve.api_keys is None:
        yield Problem(
            "serve.host",
            recipe.serve.host,
            "would open the endpoint to others, and it has no API key to ask them for",
            "Set serve.api_keys.file=PATH (one key a line), or serve.host=127.0.0.1.",
        )


def host_is_of_ipv4(recipe: Recipe) -> Iterator[Problem]:
    """Ray Serve's HAProxy reaches the replicas at 127.0.0.1, whatever they listen on."""
    if ":" in recipe.serve.host:
        message = "is an IPv6 address, which Ray Serve's proxies and replicas do not share"
        yield Problem("serve.host", recipe.serve.host, message, "Set serve.host=127.0.0.1, or another IPv4 address.")


def keys_are_somewhere(recipe: Recipe) -> Iterator[Problem]:
    """Only for a cluster that is started here: with another one, the run may be sent to a machine that has them."""
    keys = recipe.serve.api_keys
    if keys is None:
        return
    if keys.file is None and keys.env is None:
        hint = "Set serve.api_keys.file or serve.api_keys.env, or leave serve.api_keys out."
        yield Problem("serve.api_keys", None, "names no place of keys", hint)
    if keys.env is not None and not names_secret(keys.env):
        hint = "Name it as a secret is named: RECIPE_API_KEYS."
        yield Problem("serve.api_keys.env", keys.env, "is not named as a secret, so that others may know it", hint)
        return
    if recipe.cluster.address is not None or "serve" not in recipe.pipeline:
        return
    for name, where, keys_of in (("file", keys.file, keys_of_file), ("env", keys.env, keys_of_environment)):
        if where is not None:
            try:
                keys_of(where)
            except NoKeysError as error:
                yield Problem(f"serve.api_keys.{name}", where, error.message, error.hint)


def query_stays_within_the_limits(recipe: Recipe) -> Iterator[Problem]:
    """The query stage asks as batch inference did, which no limit of the endpoint binds."""
    limits, sampling = recipe.serve.limits, recipe.infer.sampling
    if "query" not in recipe.pipeline:
        return
    bounds = (("max_tokens", "max_tokens"), ("max_n", "n"), ("max_answers", "n"))
    for key, name, most in ((key, name, getattr(limits, key)) for key, name in bounds):
        value = sampling.get(name)
        if isinstance(value, int) and most is not None and value > most:
            message = f"is below infer.sampling.{name}={value}, which query asks for"
            yield Problem(f"serve.limits.{key}", most, message, f"Set serve.limits.{key}={value} or more.")


def replicas_are_ordered(recipe: Recipe) -> Iterator[Problem]:
    scaling, defaults = recipe.serve.autoscaling, RAY.table("autoscaling")
    values = {}
    for name in ("min_replicas", "initial_replicas", "max_replicas"):
        value = scaling.get(name, defaults[name].get("default"))
        if isinstance(value, int):
            values[name] = value
    for low, high in pairwise(values):
        if values[low] > values[high]:
            given = f"{high}={values[high]}" if high in scaling else f"{high}, which is {values[high]} if not given"
            yield Problem(
                f"serve.autoscaling.{low}",
                values[low],
                f"must be at most {given}",
                f"Lower it, or set serve.autoscaling.{high}={values[low]}.",
            )


def service_can_stay_up(recipe: Recipe) -> Iterator[Problem]:
    if recipe.serve.keep_alive and "serve" not in recipe.pipeline:
        hint = "Put serve into the pipeline, or set serve.keep_alive=false."
        yield Problem("serve.keep_alive", True, "has nothing to keep alive: the pipeline has no serve", hint)


def other_runs_are_there(recipe: Recipe) -> Iterator[Problem]:
    """Only where this run's cluster is this machine; what they have made is looked at when the endpoint starts."""
    if recipe.cluster.address is not None or "serve" not in recipe.pipeline:
        return
    for index, run_id in enumerate(recipe.serve.runs):
        try:
            run_folder(recipe, run_id, "serve.runs")
        except RunnerError as error:
            yield Problem(f"serve.runs[{index}]", run_id, error.message.removeprefix("serve.runs "), error.hint)


RULES = (
    host_is_of_ipv4,
    open_endpoint_asks_for_a_key,
    keys_are_somewhere,
    other_runs_are_there,
    query_stays_within_the_limits,
    replicas_are_ordered,
    service_can_stay_up,
)
