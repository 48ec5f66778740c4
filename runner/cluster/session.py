"""The run's Ray session, and the recipe's resources as Ray takes them. Imports Ray only when it is used."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

from runner.cluster import environments
from runner.cluster.environments.ahead import ForkServers
from runner.cluster.reach import Watch, check_reachable, check_temporary_folder
from runner.errors import RunnerError
from runner.patches import ray_haproxy as haproxy
from runner.patches import ray_start, ray_state, ray_store
from runner.recipe.schema import Cluster, StageResources
from runner.text import count_text

_POLL_S = 0.5
_PATIENCE_S, _PATIENCE_WITH_OTHERS_S = 5.0, 45.0  # another's head may be restarted; Ray gives up after a minute
_IDLE_CPUS = 2
_NAMESPACE = "recipe_runner"
_LOOPBACK = "127.0.0.1"

# Ray reads these when it is imported or started. Usage reports and uv's hook have no place in a batch run.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_worker_niceness": "0",  # Ray's own 15 lets anything else on the machine slow a run several times over
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",  # as for the replicas, see `serve_engine.engine_env`
    # A loaded machine's proxy would be killed for starting slowly (5 s); one that ends is seen without these.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "30",
    "PYTHONSAFEPATH": "1",  # no process imports from the folder that the run is started in, see `ray_start`
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # Ray Train ends three polls after the last step; the default is 2 s
}

# Of a cluster that the run starts itself. Without the first Ray replaces a loopback address by one that others can
# reach, and all its processes listen there. The second is an actor that asks whether nodes are about to be taken away.
_OWN_ENVIRONMENT = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}


@dataclass(frozen=True)
class ProgressHandle:
    """Tells the driver, from any process of the cluster, how far a stage is.

    It goes by the key-value store of Ray's head node. An actor would be one more process that wakes 170 times a second
    next to the stage's work on the same cores.
    """

    stage: str
    board: str

    def update(self, done: float, total: float | None, unit: str, **figures: Any) -> None:
        """`done` of `total` units (None: unknown); `figures` are shown with them, such as loss=0.1.

        The work continues when the progress cannot be reported.
        """
        event = {"done": done, "total": total, "unit": unit, **figures}
        with suppress(Exception):
            _Board(self.board).post(self.stage, event)

    def is_stopping(self) -> bool:
        """Whether the run is to end and the stage should save what it has."""
        return _Board(self.board).is_stopping()


class _Board:
    """What `ProgressHandle` and the driver tell each other: the latest event of each stage, and whether to stop.

    name: of this run's part of the store, which `clear` empties.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def post(self, stage: str, event: Mapping[str, Any]) -> None:
        text = json.dumps(event, default=float)  # numpy's numbers
        ray_store.put(f"{self._name}/stage/{stage}", text, _NAMESPACE)

    def latest(self) -> dict[str, dict[str, Any]]:
        prefix = f"{self._name}/stage/"
        found = ray_store.values(prefix, _NAMESPACE)
        return {key.removeprefix(prefix): json.loads(text) for key, text in found.items()}

    def stop(self, stopping: bool) -> None:
        if stopping:
            ray_store.put(f"{self._name}/stop", b"1", _NAMESPACE)
        else:
            ray_store.delete(f"{self._name}/stop", _NAMESPACE)

    def is_stopping(self) -> bool:
        return ray_store.exists(f"{self._name}/stop", _NAMESPACE)

    def clear(self) -> None:
        ray_store.delete_all(f"{self._name}/", _NAMESPACE)


class RaySession:
    """One Ray session for a run: started or joined at the first use, left or stopped by `close`."""

    def __init__(
        self,
        cluster: Cluster,
        on_progress: Callable[[str, dict[str, Any]], None] | None = None,
        on_lost: Callable[[str], None] | None = None,
    ) -> None:
        """on_lost: called in another thread with why the cluster is lost; Ray ends this process soon after."""
        self._cluster = cluster
        self._on_lost = on_lost
        self._watch: Watch | None = None
        self._on_progress = on_progress
        self._board = uuid.uuid4().hex
        self._stop = threading.Event()
        self._poller: threading.Thread | None = None
        self._session_dir = ""
        self.started = False
        self.dashboard_url = ""
        self._fork_servers = ForkServers()

    def start(self) -> None:
        """Start a cluster on loopback, or join `cluster.address`. Does nothing the second time."""
        if self.started:
            return
        if (self._cluster.address or "").startswith(("http://", "https://")):
            raise RunnerError(
                f"cluster.address={self._cluster.address} is a dashboard's, which a run cannot join",
                "Send the recipe there with `submit`, or name the cluster's own address (host:6379, or auto).",
            )
        if self._cluster.address is None:
            check_temporary_folder()
        else:
            check_reachable(self._cluster.address)
        self._set_variables()
        import ray

        options: dict[str, Any] = {"log_to_driver": True, "logging_level": "warning", "configure_logging": False}
        options |= ray_start.without_the_working_folder()
        if self._cluster.address is None:
            options |= {
                "address": "local",  # none at all would join the cluster that RAY_ADDRESS names
                "num_cpus": self._cluster.num_cpus or _own_cpus(),
                "num_gpus": self._cluster.num_gpus,
                "resources": self._cluster.resources or None,
                "include_dashboard": self._cluster.dashboard,
                "dashboard_host": _LOOPBACK,
                **ray_start.on_address(_LOOPBACK),
            }
        else:
            options["address"] = self._cluster.address
        try:
            with (
                own_sigterm_from_the_first(),
                ray_start.in_sessions_of_their_own(),
                nullcontext() if self._cluster.address else haproxy.of_clusters_started_here(),
            ):
                context = ray.init(**options)
        except ConnectionError as error:
            raise RunnerError(
                f"no Ray cluster answers at cluster.address={self._cluster.address}: {error}",
                "Start one with `ray start --head`, or leave cluster.address out to have the run start its own.",
            ) from error
        except Exception as error:
            if late := not_started_in_time(error):
                raise late from error
            raise
        self.started = True
        if self._cluster.address is None:
            self._session_dir = context.address_info["session_dir"]
        self.dashboard_url = f"http://{context.dashboard_url}" if context.dashboard_url else ""
        if self._on_lost is not None:
            patience_s = _PATIENCE_S if self._cluster.address is None else _PATIENCE_WITH_OTHERS_S
            self._watch = Watch(self._addresses(), patience_s, self._on_lost)
        if self._on_progress:
            self._poller = threading.Thread(target=self._poll, name="progress", daemon=True)
            self._poller.start()

    def _set_variables(self) -> None:
        own = {} if self._cluster.address else _OWN_ENVIRONMENT
        for name, value in {**_ENVIRONMENT, **own}.items():
            os.environ.setdefault(name, value)

    def import_ahead(self, environment: str | None, modules: Sequence[str], given: Mapping[str, Any]) -> dict[str, Any]:
        """Ray's runtime environment of workers, which import the modules from now on, before there are any.

        environment, given: as of `environments.runtime_env`. On a cluster that this session does not start, and in the
        runner's own environment, workers import them when they begin. Needs no cluster yet. No module may import Ray.
        """
        if environment is None or self._cluster.address is not None:
            return environments.runtime_env(environment, given)
        self._set_variables()
        return self._fork_servers.runtime_env(environment, modules, given)

    def forget_imports(self, environment: str | None = None) -> None:
        """End what `import_ahead` has begun for the environment; None: all. Workers that are there stay; others import
        by themselves."""
        self._fork_servers.close(environment)

    def has_idle_cpus(self, busy: StageResources, tasks: int) -> bool:
        """Whether two CPUs of this machine are idle while so many workers of a stage compute, so that nothing waits for
        what begins early."""
        return len(os.sched_getaffinity(0)) - tasks * busy.cpus_per_worker >= _IDLE_CPUS

    def _addresses(self) -> dict[str, str]:
        """What the run cannot do without, and where it is; behind a client's proxy (ray://) nodes are elsewhere."""
        import ray

        context = ray.get_runtime_context()
        found = {"the head of the Ray cluster": context.gcs_address}
        own = [node for node in ray.nodes() if node["NodeID"] == context.get_node_id()]
        if own and not (self._cluster.address or "").startswith("ray://"):
            found["Ray's node on this machine"] = f"{own[0]['NodeManagerAddress']}:{own[0]['NodeManagerPort']}"
        return found

    def call(self, function: Callable[..., Any], resources: StageResources, *args: Any, **kwargs: Any) -> Any:
        """Run the function as one Ray task with a worker's resources and wait for its result.

        A RunnerError raised inside is raised here as itself.
        """
        return self.call_each(function, resources, [args], **kwargs)[0]

    def call_each(
        self, function: Callable[..., Any], resources: StageResources, calls: list[tuple[Any, ...]], **kwargs: Any
    ) -> list[Any]:
        """Run the function once for each tuple of arguments, as Ray tasks side by side; results in order."""
        self.start()
        return run_tasks(function, resources, calls, **kwargs)

    def call_together(self, *calls: tuple[Callable[..., Any], StageResources, tuple[Any, ...]]) -> list[Any]:
        """Run functions as Ray tasks side by side, each with its resources and arguments; results in order."""
        self.start()
        return run_together(calls)

    def progress(self, stage: str) -> ProgressHandle:
        """A handle to report a stage's progress with, to be sent to workers."""
        self.start()
        return ProgressHandle(stage, self._board)

    def ask_to_stop(self, stop: bool = True) -> None:
        """Have every `ProgressHandle` say from now on that the run is to end, or not."""
        _Board(self._board).stop(stop)

    def latest(self, stage: str) -> dict[str, Any] | None:
        """The stage's latest progress event, None before the first."""
        return _Board(self._board).latest().get(stage)

    def _poll(self) -> None:
        board, shown = _Board(self._board), dict[str, dict[str, Any]]()
        while not self._stop.wait(_POLL_S):
            latest = shown
            with suppress(Exception):  # whatever is wrong with the cluster, the stage will say
                latest = board.latest()
            for stage, event in latest.items():
                if shown.get(stage) != event and self._on_progress:
                    self._on_progress(stage, event)
            shown = latest

    def close(self) -> None:
        """Leave the cluster; stop it if this session started it."""
        self.forget_imports()
        if not self.started:
            return
        import ray

        self._stop.set()
        if self._watch is not None:
            self._watch.stop()
        if self._poller:
            self._poller.join(timeout=15)
        if self._cluster.address is not None:  # whose store stays
            with suppress(Exception):
                _Board(self._board).clear()
        ray.shutdown()
        self.started = False

    def remove_logs(self) -> None:
        """Remove what a cluster that this session started, and that has ended, wrote into its temporary folder."""
        if self._session_dir:
            shutil.rmtree(self._session_dir, ignore_errors=True)


def run_tasks(
    function: Callable[..., Any], resources: StageResources, calls: Sequence[tuple[Any, ...]], **kwargs: Any
) -> list[Any]:
    """Run the function once for each tuple of arguments, as Ray tasks side by side, also from inside a task; results in
    order. A RunnerError raised inside is raised here as itself."""
    import ray

    remote = ray.remote(**task_options(resources))(function)
    return _results([remote.remote(*args, **kwargs) for args in calls])


def run_together(calls: Sequence[tuple[Callable[..., Any], StageResources, tuple[Any, ...]]]) -> list[Any]:
    """As `run_tasks`, each call with a function and resources of its own."""
    import ray

    return _results([ray.remote(**task_options(where))(function).remote(*args) for function, where, args in calls])


def _results(tasks: list[Any]) -> list[Any]:
    import ray

    try:
        results: list[Any] = ray.get(tasks)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, RunnerError):
            raise error.cause from None
        raise
    return results


def not_started_in_time(error: Exception) -> RunnerError | None:
    """What to say where Ray's own processes have not started within the time that Ray gives them; None for any other
    error. That time has no setting: 15 s for a process's first word, 30 s for all of them."""
    if type(error) is not Exception or "timed out during startup" not in str(error):
        return None
    load, cpus = os.getloadavg()[0], len(os.sched_getaffinity(0))
    return RunnerError(
        f"Ray's processes did not start within 30 s; this machine's load is {load:.1f}, on {count_text(cpus, 'CPU')}",
        "Run the same command again when less else is running. Their logs lie in /tmp/ray/session_latest/logs.",
    )


def _own_cpus() -> int | None:
    """CPUs that this process may use where they are not all: Ray counts the machine's. None leaves it to Ray."""
    own = len(os.sched_getaffinity(0))
    return own if own < (os.cpu_count() or own) else None


@contextmanager
def own_sigterm() -> Iterator[None]:
    """Keep the process's handler of SIGTERM: `ray.init` puts one in its place that ends the process on the spot."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


@contextmanager
def own_sigterm_from_the_first() -> Iterator[None]:
    """As `own_sigterm`, and where Ray would put its handler it puts ours: it takes seconds, and the signal may come.

    Ray's C++ has a handler too, which ends the process by SIGABRT; what Python puts in its place is ours again.
    """
    with ray_start.sigterm_handler(signal.getsignal(signal.SIGTERM)), own_sigterm():
        yield


def task_options(resources: StageResources) -> dict[str, Any]:
    """The recipe's resources of one worker as options of `ray.remote`."""
    options: dict[str, Any] = {"num_cpus": resources.cpus_per_worker, "max_retries": 0}
    if resources.gpus_per_worker:
        options["num_gpus"] = resources.gpus_per_worker
    if resources.accelerator_type:
        options["accelerator_type"] = resources.accelerator_type
    if resources.custom:
        options["resources"] = dict(resources.custom)
    if resources.runtime_env:
        options["runtime_env"] = dict(resources.runtime_env)
    if resources.placement_strategy == "SPREAD":
        options["scheduling_strategy"] = "SPREAD"
    return options


def worker_bundle(resources: StageResources) -> dict[str, float]:
    """Resources of one worker as a placement group bundle."""
    bundle = {"CPU": resources.cpus_per_worker, "GPU": resources.gpus_per_worker, **resources.custom}
    if resources.accelerator_type:
        bundle[f"accelerator_type:{resources.accelerator_type}"] = 0.001
    return {name: amount for name, amount in bundle.items() if amount}


def check_fits(resources: StageResources, num_bundles: int, key: str) -> None:
    """Raise RunnerError when the cluster can never place so many workers, however idle: Ray would wait forever.

    key: recipe key of the resources, for the message. A cluster that scales itself is asked for its upper limits.
    """
    import ray

    bundle = worker_bundle(resources)
    largest = ray_state.largest_node()
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    strategy = resources.placement_strategy
    if largest:
        nodes, strategy = [largest], "PACK"
    if num_places(nodes, bundle, strategy) >= num_bundles:
        return
    raise RunnerError(
        f"{key} asks for {num_bundles} x {_amounts(bundle)} ({strategy}), and the cluster has "
        + "; ".join(f"{_amounts({name: node.get(name, 0) for name in bundle})} on a node" for node in nodes),
        f"Lower {key}.num_workers, cpus_per_worker or gpus_per_worker, or use a larger cluster (cluster.address).",
    )


def fit_together(*groups: tuple[StageResources, int]) -> bool:
    """Whether the cluster's nodes, were they idle, could hold all groups of workers at once.

    groups: resources of a worker, and how many there are. The first node that a worker fits on takes it.
    """
    import ray

    nodes = [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]
    for resources, count in groups:
        bundle = worker_bundle(resources)
        for _ in range(count):
            node = next((node for node in nodes if num_places([node], bundle, "PACK")), None)
            if node is None:
                return False
            for name, amount in bundle.items():
                node[name] -= amount
    return True


def num_places(nodes: list[dict[str, float]], bundle: dict[str, float], strategy: str) -> int:
    """How many such bundles fit on empty nodes under Ray's placement strategy."""
    each = [min([int(node.get(name, 0) / bundle[name] + 1e-6) for name in bundle] or [1]) for node in nodes]
    if strategy == "STRICT_PACK":
        return max(each, default=0)
    if strategy == "STRICT_SPREAD":
        return sum(count > 0 for count in each)
    return sum(each)


def _amounts(resources: dict[str, float]) -> str:
    return "{" + ", ".join(f"{name}: {amount:g}" for name, amount in resources.items()) + "}"
