"""From nothing to an endpoint that answers, or to a sentence that says why not."""

from __future__ import annotations

import json
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

from runner.errors import RunnerError
from runner.patches import ray_serve, ray_state
from runner.recipe.machine import is_loopback
from stages.engines.root_cause import root_cause
from stages.sections.serve import Serve as ServeKeys

_POLL_S = 1.0
_IN_THE_LOG = "The replica's log is in Ray's session folder, under logs/serve."
_SERVE, _APPLICATION = "Ray Serve", "served application"  # what a run has to take down, by name


class Progress(Protocol):
    """What is told how far it is: `runner.cluster.session.ProgressHandle`, or a terminal."""

    def update(self, done: float, total: float | None, unit: str, **figures: Any) -> None: ...


@dataclass(frozen=True)
class Listener:
    """Where the application is reachable. url: of the OpenAI API, such as http://127.0.0.1:8000/v1."""

    app_name: str
    route_prefix: str
    url: str


def listen(
    keys: ServeKeys,
    app_name: str,
    defer: Callable[[str, Callable[[], None]], None],
    started: Collection[str] = (),
) -> Listener:
    """Start Ray Serve's HTTP proxy at serve.host and serve.port, or take the one that the cluster runs already.

    Registers how to take the application down, and Serve if it was started here. started: what this run has registered
    already, by name; its own application is updated. Raises RunnerError when the port is taken, the cluster already
    serves another run's application of that name, or its Ray Serve is open to others and the recipe names no API keys.
    """
    from ray import serve

    running = ray_serve.running_http()
    if running is None:
        port = free_port(keys.host, keys.port)
        defer(_SERVE, _shut_down)
        # One proxy, on the head node: the URL is of one machine, and two nodes on one machine would want the same port.
        http = {"host": keys.host, "port": port, "request_timeout_s": keys.request_timeout_s}
        serve.start(proxy_location="HeadOnly", http_options=http)
        host, prefix = keys.host, "/"
    else:
        if not is_loopback(running.host) and keys.api_keys is None:
            raise RunnerError(
                f"the cluster's Ray Serve listens on {running.host}, and the recipe names no API keys",
                "Set serve.api_keys.file or serve.api_keys.env.",
            )
        host, port = running.host, running.port
        if _APPLICATION in started:
            prefix = "/" if _SERVE in started else f"/{app_name}"
            return Listener(app_name, prefix, _url(host, port, prefix))
        there = serve.status().applications.get(app_name)
        if there and keys.redeploy:
            prefix = ray_serve.route_prefix(app_name)
            return Listener(app_name, prefix, _url(host, port, prefix))
        if there:
            raise RunnerError(
                f"the cluster already serves an application named {app_name!r}",
                "Set serve.redeploy=true to update it in place, stop the run that serves it, or delete it: "
                '`python -c "import ray; from ray import serve; '
                f"ray.init('auto'); serve.delete('{app_name}')\"`.",
            )
        prefix = f"/{app_name}"
    defer(_APPLICATION, lambda: _delete(app_name))
    return Listener(app_name, prefix, _url(host, port, prefix))


def _url(host: str, port: int, prefix: str) -> str:
    return f"http://{_reachable(host)}:{port}{prefix.rstrip('/')}/v1"


def _delete(app_name: str) -> None:
    from ray import serve

    if app_name in serve.status().applications:
        serve.delete(app_name)


def _shut_down() -> None:
    """Stop Ray Serve, unless somebody else serves something with it by now."""
    from ray import serve

    if not serve.status().applications:
        serve.shutdown()


def _reachable(host: str) -> str:
    """A listener on all addresses is reached through the head node's own."""
    if host not in ("0.0.0.0", "::"):  # noqa: S104 (the recipe's choice, compared here)
        return f"[{host}]" if ":" in host else host
    return ray_state.head_address()


def free_port(host: str, port: int) -> int:
    """The port, if nothing listens on it at that address; a free one for 0. Raises RunnerError naming who holds it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with closing(socket.socket(family)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise RunnerError(
                f"serve.port={port} cannot be used on {host}: {error.strerror}{holder_of(port)}",
                "Stop that process, or set serve.port to another port (0 takes a free one).",
            ) from error
        number: int = probe.getsockname()[1]
        return number


def holder_of(port: int) -> str:
    """ ", held by NAME (process PID)" for a listening port, or "" where that cannot be seen."""
    import psutil

    try:
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f", held by {psutil.Process(connection.pid).name()} (process {connection.pid})"
    except psutil.Error:
        pass
    return ""


def application_status(app_name: str) -> Any:
    """Ray Serve's status of the application and its deployments, or None before it knows of it."""
    from ray import serve

    return serve.status().applications.get(app_name)


def wait_until_running(
    status: Callable[[], Any],
    timeout_s: float,
    progress: Progress,
    hint: Callable[[str], str | None],
    poll_s: float = _POLL_S,
    engine: Callable[[], str] = str,
) -> None:
    """Wait until every deployment of the application is healthy, asking `status` every `poll_s` seconds.

    hint: `server_hint` of the engine. engine: what the engine does that is starting, "" where that is not known.
    Raises RunnerError with the reason when one is not.
    """
    started = time.monotonic()
    while True:
        app, waited = status(), time.monotonic() - started
        if app is not None and app.status == "RUNNING":
            return
        if app is not None and app.status in ("DEPLOY_FAILED", "UNHEALTHY"):
            reason = failure_reason(app)
            raise RunnerError(f"the endpoint did not start: {reason}", hint(reason) or _IN_THE_LOG)
        if waited >= timeout_s:
            why = f"{_state(app, engine)}{_lacking(app)}"
            raise RunnerError(
                f"the endpoint was not healthy in serve.startup_timeout_s={timeout_s:g}: {why}",
                "Raise serve.startup_timeout_s, or ask for less in resources.serve.",
            )
        progress.update(round(waited), None, "s", state=_state(app, engine))
        time.sleep(poll_s)


def _state(app: Any, engine: Callable[[], str]) -> str:
    """What the application is doing, in a few words."""
    if app is None:
        return "deploying"
    waiting = [name for name, each in app.deployments.items() if each.status != "HEALTHY"]
    if any("to be scheduled" in app.deployments[name].message for name in waiting):
        return "waiting to be placed"
    return starting(engine()) if waiting else "deploying"


def starting(engine_does: str) -> str:
    """The state of a stage that waits for an engine: `starting the engine: loading the weights`."""
    return f"starting the engine: {engine_does}" if engine_does else "starting the engine"


def _lacking(app: Any) -> str:
    """What a replica asks for and what is there, where Ray cannot place it: Ray's own sentence."""
    for deployment in app.deployments.values() if app else ():
        if found := re.search(r"Resources required for each replica: .*?(?=\. Use|$)", deployment.message):
            return f"; {found[0][0].lower()}{found[0][1:]}"
    return ""


def failure_reason(app: Any) -> str:
    """The root cause in the messages of an application's status, as one line."""
    messages = [each.message for each in app.deployments.values() if each.status != "HEALTHY"] + [app.message]
    for message in messages:
        if cause := root_cause(message):
            return cause
    return next((message.strip() for message in messages if message.strip()), str(app.status))


def warm(url: str, model: str, timeout_s: float, key: str | None = None) -> None:
    """Ask for one token, so that the adapter is loaded and the first real request is not slower than the next.

    key: API key to send. Raises RunnerError with the endpoint's message.
    """
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
    post_json(f"{url}/chat/completions", body, timeout_s, key)


def post_json(url: str, body: Mapping[str, Any], timeout_s: float, key: str | None = None) -> dict[str, Any]:
    """POST without any proxy, with the API key if there is one.

    Raises RunnerError with the status and the endpoint's message.
    """
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    request = urllib.request.Request(  # noqa: S310 (an endpoint that this run started, http)
        url, json.dumps(body).encode(), headers
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout_s) as response:
            answer: dict[str, Any] = json.load(response)
            return answer
    except urllib.error.HTTPError as error:
        raise RunnerError(
            f"{url} answered {error.code} for {body.get('model')}: {error_message(error.read())}"
        ) from error
    except OSError as error:
        raise RunnerError(f"{url} does not answer: {error}", "Is the runner on the cluster's head node?") from error


def error_message(body: bytes) -> str:
    """The message in an OpenAI error body, or the body's start."""
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body[:300].decode(errors="replace")
