"""`submit`: the recipe as a Ray Job on a cluster, which continues without this terminal; `status`, `logs`, `stop`.

Job ids and addresses are Ray's own, so that `ray job logs`, `ray job stop` and the dashboard work on the same job.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from runner.errors import (
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_STAGE_FAILED,
    Problem,
    RecipeError,
    RunnerError,
    UsageError,
)
from runner.recipe.load import RECIPES_DIR
from runner.recipe.schema import Recipe, RunOptions

_PACKAGES = ("runner", "stages", "recipes")
_CONFIG = "config"  # the user's own recipes, next to the packages
_DISTRIBUTION = "recipe-runner"
_POLL_S = 1.0
_PATIENCE_S = 90.0
_NOT_YET = "No available agent to submit job"
_RECONNECT_S = 2.0
_NUM_RECONNECTS = 30
_STOP_MARGIN_S = 30  # to end Ray and write the run's record, after the stage has saved its work
_HEARTBEAT_S = 15.0
# What steers the submission, and is not for the job.
_OWN_KEYS = ("cluster.address", "job", "follow", "format", "submit")
_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


class Client(Protocol):
    """What is used of `ray.job_submission.JobSubmissionClient`."""

    def submit_job(self, **settings: Any) -> str: ...
    def get_job_info(self, job_id: str) -> Any: ...
    def tail_job_logs(self, job_id: str) -> AsyncIterator[str]: ...
    def stop_job(self, job_id: str) -> bool: ...


def connect(address: str) -> Client:
    """A client of the cluster. Raises RunnerError when none answers there."""
    dashboard_address(address)
    from ray.job_submission import JobSubmissionClient

    try:
        client: Client = JobSubmissionClient(address)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise no_answer(address, error) from error
    return client


def dashboard_address(address: str | None) -> str:
    """The address, if it is one of a cluster's dashboard. Raises RecipeError when it is not."""
    if address and urlsplit(address).scheme in ("http", "https"):
        return address
    message = "must be the address of the cluster's dashboard, such as http://10.0.0.1:8265"
    raise RecipeError([Problem("cluster.address", address, message, "`ray start --head` prints it.")])


def no_answer(address: str, error: Exception) -> RunnerError:
    """Why a cluster cannot be talked to."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return RunnerError(
        f"cluster.address={address} does not answer: {text}",
        "Is its dashboard up and reachable from here? Where the cluster asks for its token, set RAY_AUTH_MODE=token.",
    )


def submit(
    recipe: Recipe,
    options: RunOptions,
    overrides: Sequence[str],
    config_dir: Path | None,
    connect_to: Callable[[str], Client] = connect,
    *,
    stop_s: float,
) -> int:
    """Send the recipe as a job and follow its log. Returns the job's exit code.

    stop_s: seconds that its stages need to save their work when the job is stopped.
    Raises RecipeError for keys that cannot work on another machine.
    """
    address = dashboard_address(recipe.cluster.address)
    problems = portability_problems(recipe)
    if problems:
        raise RecipeError(problems)
    client = connect_to(address)
    with tempfile.TemporaryDirectory(prefix="recipe-runner-") as temporary:
        folder = Path(temporary) / "code"
        pack(folder, recipe, config_dir)
        overrides = _with_recipe_files(overrides, folder)
        settings = job_settings(
            recipe, overrides, config_dir, folder if any(folder.iterdir()) else None, os.environ, stop_s
        )
        job = _accepted(client, settings)
    print(f"submitted {job}\n{return_commands(job, address)}", flush=True)
    return follow(client, job, address) if options.follow else EXIT_DONE


def _accepted(client: Client, settings: Mapping[str, Any]) -> str:
    """Submit the job. A cluster that has just started has no agent for it for some seconds, and is asked again."""
    end = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return client.submit_job(**settings)
        except RuntimeError as error:
            if _NOT_YET not in str(error) or time.monotonic() >= end:
                raise RunnerError(f"the cluster did not take the job: {_last_line(error)}") from error
            time.sleep(_POLL_S)


def portability_problems(recipe: Recipe) -> list[Problem]:
    """Paths that a job would have in its own temporary folder, and variables that are not set here."""
    problems = []
    paths = {"storage.root": recipe.storage.root, "storage.artifacts": recipe.storage.artifacts}
    for key, path in paths.items():
        if "://" not in path and not path.startswith(("/", "~")):
            message = "would be below the job's temporary folder, which the next job does not have"
            hint = "Name a folder that all nodes see, or an object store for storage.artifacts."
            problems.append(Problem(key, path, message, hint))
    for name in recipe.submit.env:
        if name not in os.environ:
            problems.append(Problem("submit.env", name, "is not set here", "Set it, or leave it out."))
    return problems


def pack(folder: Path, recipe: Recipe, config_dir: Path | None) -> None:
    """Put into the folder what the job's working directory holds: this package, unless the cluster has it, and the
    user's recipes."""
    folder.mkdir(parents=True)
    leave_out = shutil.ignore_patterns("__pycache__", "*.pyc")
    if recipe.submit.code == "ship":
        for name in _PACKAGES:
            shutil.copytree(RECIPES_DIR.parent / name, folder / name, ignore=leave_out)
        _pack_metadata(folder)
    if config_dir is not None:
        shutil.copytree(config_dir, folder / _CONFIG, ignore=leave_out)


def _with_recipe_files(overrides: Sequence[str], folder: Path) -> list[str]:
    """The overrides, with a recipe file that they name by its path put into the folder and named there."""
    found = []
    for text in overrides:
        key, _, value = text.partition("=")
        if key.lstrip("+") == "recipe" and (path := Path(value.strip("'\""))).suffix == ".yaml":
            shutil.copyfile(path.expanduser(), folder / path.name)
            text = f'{key}="{path.name}"'
        found.append(text)
    return found


def _pack_metadata(folder: Path) -> None:
    """Let the shipped package know its own version, and its libraries their plug-ins."""
    with suppress(PackageNotFoundError):
        found = distribution(_DISTRIBUTION)
        target = folder / f"{_DISTRIBUTION.replace('-', '_')}-{found.version}.dist-info"
        target.mkdir()
        for name in ("METADATA", "entry_points.txt"):
            (target / name).write_text(found.read_text(name) or "", encoding="utf-8")


def job_settings(
    recipe: Recipe,
    overrides: Sequence[str],
    config_dir: Path | None,
    working_dir: Path | None,
    environment: Mapping[str, str],
    stop_s: float,
) -> dict[str, Any]:
    """What `JobSubmissionClient.submit_job` takes.

    working_dir: what `pack` made, None when the job needs none. environment: where `submit.env` finds its values; they
    go into the job's runtime_env and nowhere else. Raises RunnerError when one of them is also in the command line.
    """
    passed = {name: environment[name] for name in recipe.submit.env}
    command = entrypoint(recipe, overrides, has_config=config_dir is not None)
    for name, value in passed.items():
        if len(value) >= 8 and value in command:
            raise UsageError(
                f"the value of {name} is part of the command line, which the cluster shows to everybody",
                f"Write ${{oc.env:{name}}} into the recipe instead.",
            )
    wait_s = int(stop_s) + _STOP_MARGIN_S  # Ray kills a job that is stopped after 3 s
    env_vars = {"RAY_JOB_STOP_WAIT_TIME_S": str(wait_s), "PYTHONUNBUFFERED": "1", **passed}
    settings: dict[str, Any] = {
        "entrypoint": command,
        "submission_id": f"{recipe.name}-{time.strftime('%Y%m%d-%H%M%S')}-{os.urandom(2).hex()}",
        "runtime_env": {"env_vars": env_vars, **({"working_dir": str(working_dir)} if working_dir else {})},
        "metadata": {"recipe": recipe.name, "storage_root": recipe.storage.root},
    }
    if recipe.submit.num_cpus:
        settings["entrypoint_num_cpus"] = recipe.submit.num_cpus
    if recipe.submit.resources:
        settings["entrypoint_resources"] = dict(recipe.submit.resources)
    return settings


def entrypoint(recipe: Recipe, overrides: Sequence[str], *, has_config: bool) -> str:
    """The job's command line: the one given here, without what steers the submission, on the cluster that it is in."""
    kept = [text for text in overrides if not _is_own(text)]
    words = [recipe.submit.python, "-m", "runner", *kept, "cluster.address=auto"]
    return shlex.join([*words, "--config-dir", _CONFIG] if has_config else words)


def _is_own(override: str) -> bool:
    key = override.partition("=")[0].lstrip("+~")
    return any(key == own or key.startswith(f"{own}.") for own in _OWN_KEYS) or key == "hydra.searchpath"


def return_commands(job: str, address: str) -> str:
    """Commands that return to the job from any terminal."""
    verbs = (("how it is", "status"), ("its log", "logs"), ("end it", "stop"))
    lines = [f"  {what:<10} python -m runner {verb} job={job} cluster.address={address}" for what, verb in verbs]
    return "\n".join(lines)


def follow(client: Client, job: str, address: str) -> int:
    """Print the job's log until it ends, and return its exit code. Ctrl-C leaves the job alone."""
    try:
        asyncio.run(_print_log(client, job))
    except KeyboardInterrupt:
        print(f"\n{job} continues without this terminal\n{return_commands(job, address)}", flush=True)
        return EXIT_INTERRUPTED
    except Exception as error:
        raise RunnerError(
            f"lost the log of {job}: {_last_line(error)}", f"Return to it:\n{return_commands(job, address)}"
        ) from error
    info = _info(client, job)
    if info.status != "SUCCEEDED":
        print(f"{job} {str(info.status).lower()}: {info.message or ''}".rstrip(": "), file=sys.stderr)
    return exit_code(info)


async def _print_log(client: Client, job: str) -> None:
    """Print what comes; after a broken connection continue where it was. Returns when the job has ended."""
    printed, num_failures = 0, 0
    while True:
        skip = printed
        try:
            async for text in client.tail_job_logs(job):
                fresh = text[skip:] if skip < len(text) else ""
                skip = max(0, skip - len(text))
                printed += len(fresh)
                print(fresh, end="", flush=True)
            if _info(client, job).status in _ENDED:
                return
            num_failures = 0
        except Exception:  # aiohttp's and requests' many; the cluster's dashboard may restart, and the job continues
            num_failures += 1
            if num_failures == _NUM_RECONNECTS:
                raise
        await asyncio.sleep(_RECONNECT_S)


def exit_code(info: Any) -> int:
    """The exit code of a job that has ended: its command's own."""
    if info.status == "SUCCEEDED":
        return EXIT_DONE
    if info.status == "STOPPED":
        return EXIT_INTERRUPTED
    code: int | None = info.driver_exit_code
    return code if code and code > 0 else EXIT_STAGE_FAILED


def _info(client: Client, job: str) -> Any:
    try:
        return client.get_job_info(job)
    except RuntimeError as error:
        if "does not exist" not in str(error):
            raise RunnerError(f"the cluster does not say how {job} is: {_last_line(error)}") from error
        raise UsageError(f"the cluster has no job {job!r}", "`ray job list` names those that it has.") from error


def status(job: str, address: str, as_json: bool, connect_to: Callable[[str], Client] = connect) -> int:
    """Print how the job is; without its environment, which may hold secrets."""
    info = _info(connect_to(address), job)
    found = {
        "job": job,
        "status": str(info.status),
        "message": info.message or "",
        "recipe": (info.metadata or {}).get("recipe", ""),
        "entrypoint": info.entrypoint,
        "started_at": (info.start_time or 0) / 1000,
        "ended_at": info.end_time / 1000 if info.end_time else None,
        "exit_code": exit_code(info) if info.status in _ENDED else None,
    }
    if as_json:
        print(json.dumps(found, indent=2))
        return EXIT_DONE
    passed_s = (found["ended_at"] or time.time()) - found["started_at"]
    print(f"{job}  {found['status'].lower()}  {passed_s:.0f} s  {found['message']}\n{found['entrypoint']}")
    if info.status not in _ENDED:
        print(return_commands(job, address))
    return EXIT_DONE


def logs(job: str, address: str, connect_to: Callable[[str], Client] = connect) -> int:
    """Print the job's log from its start, and follow it to the end. Returns the job's exit code."""
    client = connect_to(address)
    _info(client, job)
    return follow(client, job, address)


def stop(job: str, address: str, connect_to: Callable[[str], Client] = connect, poll_s: float = _POLL_S) -> int:
    """End the job as Ctrl-C would: its run saves what it has, takes down what it started and leaves a record."""
    client = connect_to(address)
    if _info(client, job).status in _ENDED:
        print(f"{job} has ended already")
        return EXIT_DONE
    client.stop_job(job)
    printed_at = time.monotonic()
    while (info := _info(client, job)).status not in _ENDED:
        if time.monotonic() - printed_at >= _HEARTBEAT_S:
            printed_at = time.monotonic()
            print("waiting for it to save what it has", flush=True)
        time.sleep(poll_s)
    print(f"{job} {str(info.status).lower()}; submit it again to continue")
    return EXIT_DONE


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
