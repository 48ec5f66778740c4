"""`deploy`: the serve stage as a Ray Serve config on a cluster that keeps it up; `undeploy`.

A deploy is one PUT of the cluster's whole declared config, as `serve deploy` makes it, with every other application in
it as it was. What would replace replicas is first started next to them as an application of its own and asked; only
what answers there takes the place of what serves. Whatever fails, the config of before is put back.
"""

from __future__ import annotations

import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from runner.cluster.jobs import dashboard_address, no_answer
from runner.errors import EXIT_DONE, RunnerError, UsageError
from runner.pipeline.run_locks import one_run
from runner.recipe.machine import is_loopback
from runner.storage.atomic import write_state
from runner.storage.digest import digest_json
from stages.deploy.candidate import Wanted, find_results, new_config
from stages.deploy.history import DEPLOYED, RECORD, place_of
from stages.deploy.serve_config import (
    TRIAL,
    declared,
    endpoint_url,
    find_application,
    refuse_foreign,
    same_replicas,
    status_in,
    trial_of,
    with_application,
    without_application,
    write_config,
)
from stages.engines.base import load_engine
from stages.query.stage import ask_all
from stages.sections.recipe import Recipe
from stages.serve.config import app_name, server_name
from stages.serve.guard.keys import own_key
from stages.serve.health import wait_until_running

Ask = Callable[[str, list[str], list[dict[str, Any]], Any, str | None], Any]

_GONE_TIMEOUT_S = 120.0
_PATIENCE_S = 60.0
_ANSWER_S = 5.0
_POLL_S = 0.5


class Client(Protocol):
    """What is used of Ray's ServeSubmissionClient, which `serve deploy` is made of."""

    def get_serve_details(self) -> dict[str, Any]: ...
    def deploy_applications(self, config: dict[str, Any]) -> None: ...


def connect(address: str) -> Client:
    """A client of the cluster's dashboard. Raises RunnerError when none answers there."""
    dashboard_address(address)
    from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

    try:
        client: Client = ServeSubmissionClient(address)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise no_answer(address, error) from error
    return client


def smoke_test(url: str, models: list[str], requests: list[dict[str, Any]], progress: Any, key: str | None) -> None:
    """Ask every model with the openai client, once Serve's proxy knows the way. Raises RunnerError."""
    end = time.monotonic() + _PATIENCE_S
    while not has_route(url):
        if time.monotonic() >= end:
            hint = "Set deploy.url to where this machine reaches Ray Serve, or deploy from the cluster's head node."
            raise RunnerError(f"{url} does not answer", hint)
        time.sleep(_POLL_S)
    ask_all(url, models, requests, progress, key)


def has_route(url: str) -> bool:
    """Whether something answers there; that it refuses is an answer, too."""
    handlers = [urllib.request.ProxyHandler({})] if is_loopback(urlsplit(url).hostname) else []
    try:
        urllib.request.build_opener(*handlers).open(f"{url}/models", timeout=_ANSWER_S).close()
    except urllib.error.HTTPError as error:
        return error.code not in (404, 503)
    except OSError:
        return False
    return True


def deploy(
    recipe: Recipe,
    root: Path,
    command: str,
    say: Callable[[str], None],
    connect_to: Callable[[str], Client] = connect,
    ask: Ask = smoke_test,
) -> int:
    """Serve the recipe's adapter on the cluster. Returns the exit code.

    ask: sends requests to each model at a URL, raising RunnerError.
    Raises RunnerError saying what failed and what serves now, GateError when the gate of `evaluate.require` refused it.
    """
    address = dashboard_address(recipe.cluster.address)
    wanted = find_results(recipe, root)
    client = connect_to(address)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what is half done is rolled back
    with one_run(root, f"deploy{digest_json(app_name(recipe))}", command):
        Rollout(wanted, client, address, say, ask).run()
    return EXIT_DONE


class Rollout:
    """One deploy, from the config of before to the new one or back."""

    def __init__(
        self,
        wanted: Wanted,
        client: Client,
        address: str,
        say: Callable[[str], None],
        ask: Ask,
    ) -> None:
        self._wanted, self._client, self._address, self._say, self._ask = wanted, client, address, say, ask
        self._name = app_name(wanted.recipe)
        self._folder = wanted.folder / "deploy" / time.strftime("%Y%m%d-%H%M%S")
        self._before: dict[str, Any] = {}

    def run(self) -> None:
        """Raises RunnerError saying what failed and what serves now."""
        details = self._details()
        refuse_foreign(details, self._name)
        refuse_open(details, self._wanted.recipe)
        self._before = without_application(declared(details), self._name + TRIAL)  # what a killed deploy left
        old = find_application(self._before, self._name)
        config = new_config(self._wanted, details, old)
        new = config["applications"][0]
        write_config(self._folder, config)
        self._say(f"config: {self._folder / 'serve_config.yaml'}")
        try:
            if old and not same_replicas(old, new) and self._wanted.recipe.deploy.trial:
                self._try_next_to_it(config, new)
            self._apply(with_application(self._before, config, new))
            self._check(self._name, "the endpoint")
        except (RunnerError, KeyboardInterrupt) as error:
            self._roll_back(error, old)
        url = self._url(self._name)
        self._record(DEPLOYED, url=url)
        kept = ", by the replicas of before" if old and same_replicas(old, new) else ""
        self._say(f"{url} serves {' and '.join(self._wanted.models)}{kept}")

    def _try_next_to_it(self, config: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        """Start the new application under another name and ask it, while the old one serves."""
        trial = trial_of(new, server_name(self._wanted.recipe))
        self._say("starting the new version next to the old one")
        try:
            self._apply(with_application(self._before, config, trial))
            self._check(trial["name"], "the new version, next to the old one,")
        finally:
            self._client.deploy_applications(self._before)
            wait_until_gone(self._client, trial["name"], self._wanted.recipe)

    def _details(self) -> dict[str, Any]:
        """What the cluster serves. A dashboard that does not answer is asked again for a while."""
        return details_of(self._client)

    def _url(self, name: str) -> str:
        return endpoint_url(self._details(), name, self._wanted.recipe.deploy.url, self._address)

    def _apply(self, config: dict[str, Any]) -> None:
        try:
            self._client.deploy_applications(config)
        except (RuntimeError, OSError) as error:
            raise RunnerError(f"the cluster did not take the config: {error}") from error

    def _check(self, name: str, what: str) -> None:
        """Wait until the application is healthy, and ask it."""
        recipe = self._wanted.recipe
        try:
            wait_until_running(
                lambda: status_in(self._details(), name),
                recipe.serve.startup_timeout_s,
                Progress(self._say),
                load_engine(recipe).server_hint,
                poll_s=_POLL_S,
            )
        except RunnerError as error:
            raise RunnerError(f"{what} failed: {error.message}", error.hint) from error
        url = self._url(name)
        self._say(f"asking {', '.join(self._wanted.models)} at {url}")
        try:
            key = own_key(recipe.serve.api_keys)
            self._ask(url, self._wanted.models, [self._wanted.request], Progress(self._say), key)
        except RunnerError as error:
            raise RunnerError(f"{what} failed its smoke test: {error.message}", error.hint) from error

    def _roll_back(self, error: BaseException, old: Mapping[str, Any] | None) -> None:
        """Put the config of before back, wait until it serves, and raise what went wrong."""
        message = error.message if isinstance(error, RunnerError) else "interrupted"
        hint = error.hint if isinstance(error, RunnerError) else ""
        self._say(f"{message}; putting the config of before back")
        try:
            self._client.deploy_applications(self._before)
        except (RuntimeError, OSError) as failed:
            raise RunnerError(f"{message}; not rolled back, since the cluster does not answer: {failed}") from error
        if old is None:
            wait_until_gone(self._client, self._name, self._wanted.recipe)
            now = "nothing of this recipe is served, as before"
        else:
            status = self._wait_until_back()
            now = "the previous version serves" if status == "RUNNING" else f"the previous version is {status}"
        self._record("rolled back", error=message)
        raise RunnerError(f"{message}; rolled back: {now}", hint) from error

    def _wait_until_back(self) -> str:
        patience_s = self._wanted.recipe.serve.startup_timeout_s
        end = time.monotonic() + patience_s
        while True:
            found = status_in(self._details(), self._name)
            if (found and found.status == "RUNNING") or time.monotonic() >= end:
                return found.status if found else "gone"
            time.sleep(_POLL_S)

    def _record(self, outcome: str, **facts: Any) -> None:
        """deploy.json next to the config: what became of it."""
        known = {"outcome": outcome, "adapters": self._wanted.adapters, "address": self._address, "at": time.time()}
        write_state(self._folder / RECORD, {"place": place_of(self._folder), **known, **facts})


def undeploy(recipe: Recipe, say: Callable[[str], None], connect_to: Callable[[str], Client] = connect) -> int:
    """Remove the recipe's application, and nothing else, after it has finished its requests."""
    client = connect_to(dashboard_address(recipe.cluster.address))
    details, name = details_of(client), app_name(recipe)
    refuse_foreign(details, name)
    before = declared(details)
    if find_application(before, name) is None:
        raise UsageError(f"the cluster serves no application {name!r}", "`serve status` names those that it does.")
    client.deploy_applications(without_application(without_application(before, name), name + TRIAL))
    wait_until_gone(client, name, recipe)
    say(f"{name} is no longer served")
    return EXIT_DONE


def details_of(client: Client, patience_s: float = _PATIENCE_S) -> dict[str, Any]:
    """What the cluster serves. A dashboard that does not answer is asked again for a while; then RunnerError."""
    end = time.monotonic() + patience_s
    while True:
        try:
            return client.get_serve_details()
        except (RuntimeError, OSError) as error:  # requests' errors are OSErrors
            if time.monotonic() >= end:
                raise RunnerError(f"the cluster does not say what it serves: {error}") from error
            time.sleep(_POLL_S)


def refuse_open(details: Mapping[str, Any], recipe: Recipe) -> None:
    """Raise UsageError when the cluster's Ray Serve can be reached from elsewhere and the recipe names no keys."""
    host = details.get("http_options", {}).get("host") if details["applications"] else recipe.serve.host
    if not is_loopback(host) and recipe.serve.api_keys is None:
        raise UsageError(
            f"the cluster's Ray Serve listens on {host}, and the recipe names no API keys",
            "Set serve.api_keys.file or serve.api_keys.env.",
        )


def wait_until_gone(client: Client, name: str, recipe: Recipe) -> None:
    """Wait until the application has finished its requests and ended."""
    end = time.monotonic() + _GONE_TIMEOUT_S + recipe.serve.request_timeout_s
    while name in details_of(client)["applications"]:
        if time.monotonic() >= end:
            raise RunnerError(f"Ray Serve does not end the application {name}", "`serve status` says more.")
        time.sleep(_POLL_S)


class Progress:
    """Says what is waited for when that changes, and every 15 s."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._state, self._spoke = say, "", 0.0

    def update(self, done: float, total: float | None, unit: str, **figures: Any) -> None:
        """As `runner.cluster.session.ProgressHandle.update`."""
        state = str(figures.get("state", ""))
        if state != self._state or time.monotonic() - self._spoke >= 15:
            self._state, self._spoke = state, time.monotonic()
            self._say(f"{done:g} {unit}: {state}")
