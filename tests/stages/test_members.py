"""A second trainer, engine or evaluator is one class and one line of its registry."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from runner.cluster import environments
from runner.cluster.environments import Chosen, unusable
from runner.cluster.session import RaySession
from runner.errors import Problem
from runner.pipeline.context import RunContext
from runner.pipeline.fingerprint import fingerprint_inputs
from runner.pipeline.optional import Rule
from runner.pipeline.plan import PastRuns, build
from runner.pipeline.registry import BUILTIN, choices, load_stage
from runner.pipeline.rules.check import load_recipe
from runner.recipe.arguments import RAY
from runner.recipe.arguments.mapped import Mapped
from runner.recipe.json_schema import FromStages, recipe_schema
from runner.recipe.schema import StageResources
from stages.data.prediction import Prediction
from stages.engines import base as engines
from stages.engines.base import load_engine
from stages.engines.vllm.batch import engine_runtime_env
from stages.engines.vllm.engine import Vllm
from stages.evaluate.slices import Slices
from stages.evaluators import base as evaluators
from stages.evaluators.base import Offered
from stages.evaluators.metrics import load_metrics
from stages.models.trained import Trained
from stages.sections.recipe import Recipe
from stages.serve.config import build_app, serve_config
from stages.train.stage import run_config
from stages.trainers import base as trainers
from stages.trainers.llamafactory.trainer import LlamaFactory
from tests.runner.recipes import changed, problems


def length_ratio(prediction: str, reference: str, *, least: float = 0.0) -> float:
    """The shorter text's share of the longer one, 0 below `least`."""
    shorter, longer = sorted((len(prediction), len(reference)))
    share = shorter / longer if longer else 1.0
    return share if share >= least else 0.0


def _least_is_a_share(args: Mapping[str, Any]) -> tuple[str, str] | None:
    return ("least is above 1", "Lower it.") if args.get("least", 0) > 1 else None


class DummyEvaluator:
    def metrics(self) -> Mapping[str, Offered]:
        return {
            "length_ratio": Offered(f"{__name__}:length_ratio", check=_least_is_a_share),
            "unheard": Offered(f"{__name__}:length_ratio", "no_such_library", install="unheard-of"),
        }

    def other_names(self) -> Mapping[str, str]:
        return {"lengths": "length_ratio"}

    def slices(self) -> Mapping[str, Callable[[str], str]]:
        return {"first_letter": lambda reference: reference[:1]}


@pytest.fixture
def dummy_evaluator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(evaluators.EVALUATORS, "dummy", f"{__name__}:DummyEvaluator")


@pytest.mark.usefixtures("dummy_evaluator")
def test_metrics_of_another_evaluator_are_known_with_their_arguments_and_other_names() -> None:
    keys = {"evaluate.metrics": ["exact_match", "length_ratio"]}
    assert problems(keys) == {}
    misnamed = problems({"evaluate.metrics": ["exact_match", "lengths"]})
    assert misnamed["evaluate.metrics[1]"].hint == "Did you mean length_ratio?"
    unknown = problems({**keys, "evaluate.metric_args": {"length_ratio": {"most": 1}}})
    assert "'most'" in unknown["evaluate.metric_args.length_ratio"].message
    wrong = problems({**keys, "evaluate.metric_args": {"length_ratio": {"least": 2}}})
    assert wrong["evaluate.metric_args.length_ratio"].message == "least is above 1"


@pytest.mark.usefixtures("dummy_evaluator")
def test_a_library_that_another_evaluator_lacks_is_named_before_anything_runs() -> None:
    found = problems({"evaluate.metrics": ["exact_match", "unheard"]})["evaluate.metrics[1]"]
    assert "no_such_library" in found.message
    assert found.hint.endswith("pip install unheard-of")


@pytest.mark.usefixtures("dummy_evaluator")
def test_metrics_and_slices_of_another_evaluator_are_computed() -> None:
    (metric,) = load_metrics(["length_ratio"], {"length_ratio": {"least": 0.5}}).values()
    assert callable(metric)
    assert [metric("ab", "abcd"), metric("a", "abcd")] == [0.5, 0.0]
    slices = Slices(["first_letter"])
    for number, reference in enumerate(["ab", "b", "ac"]):
        slices.add(Prediction(str(number), "base", "", reference, 0, 0, None, {}))
    assert slices.labels() == {"first_letter": ["a", "b", "a"]}


class DummyEngine(Vllm):
    """As vLLM, with a rule, an argument and a server of its own."""

    environment: ClassVar[str | None] = None
    libraries: ClassVar[tuple[str, ...]] = ("dummy-engine",)
    server: ClassVar[str] = f"{__name__}.DummyServer"

    def rules(self) -> Sequence[Rule]:
        return (_answers_are_short,)

    def batch_mappings(self) -> Sequence[Mapped]:
        return (
            Mapped("infer.engine_kwargs", "dummy", lambda recipe: recipe.infer.engine_kwargs, RAY, ("autoscaling",)),
        )

    def server_mappings(self) -> Sequence[Mapped]:
        return ()

    def refused(self, trained: Trained) -> Iterator[Problem]:
        yield Problem(trained.key, trained.value, "cannot be loaded by the dummy", "Remove it.")

    def server_kwargs(self, recipe: Recipe, *, with_adapters: bool) -> dict[str, Any]:
        return dict(recipe.serve.engine_kwargs)

    def server_env(self, recipe: Recipe) -> dict[str, str]:
        return {"DUMMY": "1"}


def _answers_are_short(recipe: Recipe) -> Iterator[Problem]:
    if recipe.infer.sampling.get("max_tokens", 0) > 100:
        yield Problem("infer.sampling.max_tokens", 200, "is more than the dummy answers", "Set it to 100.")


DUMMY_ENGINE: dict[str, Any] = {
    "infer.backend": "dummy",
    "infer.engine_kwargs": {"max_replicas": 2},
    "serve.engine_kwargs": {},
    "pipeline": ["ingest", "infer", "evaluate"],
}


@pytest.fixture
def dummy_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(engines.ENGINES, "dummy", f"{__name__}:DummyEngine")


def test_an_engine_that_is_not_there_is_refused_with_those_that_are() -> None:
    found = problems({"infer.backend": "vlm"})
    assert found.keys() == {"infer.backend"}
    assert found["infer.backend"].message == "is not a known engine; allowed: vllm"
    assert found["infer.backend"].hint == "Did you mean vllm?"
    assert problems({"infer.backend": 3}).keys() == {"infer.backend"}


@pytest.mark.usefixtures("dummy_engine")
def test_only_the_rules_and_arguments_of_the_engine_that_a_recipe_names_are_applied() -> None:
    assert problems({**DUMMY_ENGINE, "infer.sampling": {"max_tokens": 50}}) == {}
    assert problems({**DUMMY_ENGINE, "infer.sampling": {"max_tokens": 200}}).keys() == {"infer.sampling.max_tokens"}
    both = {"infer.engine_kwargs": {"max_model_len": 512}, "infer.sampling": {"max_tokens": 50}}
    assert problems({**DUMMY_ENGINE, **both}).keys() == {"infer.engine_kwargs.max_model_len"}
    assert problems({"infer.engine_kwargs": {"max_replicas": 2}}).keys() == {"infer.engine_kwargs.max_replicas"}
    trained = problems({**DUMMY_ENGINE, "infer.sampling": {}, "pipeline": ["ingest", "train", "publish", "infer"]})
    assert trained["train.args.finetuning_type"].message == "cannot be loaded by the dummy"


@pytest.mark.usefixtures("dummy_engine")
def test_another_engine_is_planned_and_its_libraries_count(tmp_path: Path) -> None:
    recipe, options = load_recipe(changed({**DUMMY_ENGINE, "storage.root": str(tmp_path), "infer.sampling": {}}))
    assert [step.name for step in build(recipe, options, PastRuns(tmp_path)).steps] == recipe.pipeline
    infer = load_stage("infer")
    covered = fingerprint_inputs(infer, recipe, {})
    assert covered["recipe"]["infer.backend"] == "dummy"
    assert {"ray", "transformers", "dummy-engine"} == set(covered["libraries"])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("dummy_engine")
def test_the_endpoint_is_built_of_another_engine() -> None:
    recipe = changed({**DUMMY_ENGINE, "serve.port": 8000, "infer.sampling": {}})
    config = serve_config(load_recipe(recipe)[0], "/model", None, env={})
    args = config["applications"][0]["args"]
    assert args["engine"] == "dummy"
    app = build_app(args)
    assert app._bound_deployment.func_or_class == DummyEngine.server


def test_an_engine_runs_in_the_environment_that_it_names(
    dummy_engine: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    library = tmp_path / "tool/lib/python3.11/site-packages/lib/libiomp5.so"
    metadata = tmp_path / "tool/lib/python3.11/site-packages/intel_openmp-1.dist-info"
    files = {library: "", metadata / "METADATA": "Name: intel-openmp\n", metadata / "RECORD": "lib/libiomp5.so,,\n"}
    for file, text in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.setenv(environments.HOME, str(tmp_path))
    monkeypatch.setattr(DummyEngine, "environment", "tool")
    monkeypatch.setattr(DummyEngine, "server_env", Vllm.server_env)
    recipe = load_recipe(changed({**DUMMY_ENGINE, "infer.sampling": {}, "pipeline": ["ingest", "infer", "serve"]}))[0]
    engine, python = load_engine(recipe), str(tmp_path / "tool" / "bin" / "python")
    assert {load_stage(name).environment(recipe) for name in ("infer", "serve")} == {
        Chosen("tool", "infer.backend", "dummy")
    }
    app = build_app({"llm_config": engine.server_config(recipe, "/model", None, engine.server_env(recipe))})
    others = recipe.cluster.model_copy(update={"address": "10.0.0.1:6379"})
    for own in (
        app._bound_deployment._replica_config.ray_actor_options["runtime_env"],
        app._bound_deployment.init_kwargs["llm_config"]["runtime_env"],
        engine_runtime_env(recipe, "tool", RaySession(others).import_ahead),
    ):
        assert own["py_executable"] == python
        assert own["env_vars"]["LD_PRELOAD"] == str(library)
    assert "py_executable" not in engine_runtime_env(recipe, None, RaySession(recipe.cluster).import_ahead)


class DummyTrainer(LlamaFactory):
    """As LLaMA-Factory, with a rule, an argument, an environment and an output of its own."""

    environment: ClassVar[str | None] = None
    libraries: ClassVar[tuple[str, ...]] = ("dummy-trainer",)

    def rules(self) -> Sequence[Rule]:
        return (_epochs_are_whole,)

    def mappings(self) -> Sequence[Mapped]:
        return (Mapped("train.args", "dummy", lambda recipe: recipe.train.args, RAY, ("autoscaling",)),)

    def canonical(self, recipe: Recipe) -> dict[str, Any]:
        return {"train.args": {**recipe.train.args, "meaning": "dummy"}}

    def trained(self, recipe: Recipe) -> Trained:
        return Trained("model", "train.trainer", "dummy")

    def longest_row(self, recipe: Recipe) -> None:
        return None

    def worker_env(self, resources: StageResources) -> dict[str, str]:
        return {"DUMMY": "1"}


def _epochs_are_whole(recipe: Recipe) -> Iterator[Problem]:
    if recipe.train.num_epochs % 1:
        yield Problem("train.num_epochs", recipe.train.num_epochs, "is not whole", "Round it.")


DUMMY_TRAINER: dict[str, Any] = {
    "train.trainer": "dummy",
    "train.args": {"max_replicas": 2},
    "pipeline": ["ingest", "train"],
}


@pytest.fixture
def dummy_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(trainers.TRAINERS, "dummy", f"{__name__}:DummyTrainer")


def test_a_trainer_that_is_not_there_is_refused_with_those_that_are() -> None:
    found = problems({"train.trainer": "lamafactory"})
    assert found.keys() == {"train.trainer"}
    assert found["train.trainer"].message == "is not a known trainer; allowed: llamafactory, accelerate, axolotl"
    assert found["train.trainer"].hint == "Did you mean llamafactory?"


@pytest.mark.usefixtures("dummy_trainer", "dummy_engine")
def test_schemas_list_the_members_of_the_registries() -> None:
    found = recipe_schema(FromStages([], choices(BUILTIN)))["$defs"]
    assert found["Train"]["properties"]["trainer"]["enum"] == ["llamafactory", "accelerate", "axolotl", "dummy"]
    assert found["Infer"]["properties"]["backend"]["enum"] == ["vllm", "dummy"]


@pytest.mark.usefixtures("dummy_trainer")
def test_only_the_rules_and_arguments_of_the_trainer_that_a_recipe_names_are_applied() -> None:
    assert problems({**DUMMY_TRAINER, "train.num_epochs": 1.0}) == {}
    assert problems({**DUMMY_TRAINER, "train.num_epochs": 1.5}).keys() == {"train.num_epochs"}
    assert problems({"train.num_epochs": 1.5}) == {}
    strange = {**DUMMY_TRAINER, "train.num_epochs": 1.0, "train.args": {"cutoff_len": 512}}
    assert problems(strange).keys() == {"train.args.cutoff_len"}
    loaded = problems({**DUMMY_TRAINER, "train.num_epochs": 1.0, "pipeline": ["ingest", "train", "publish", "infer"]})
    assert "train.trainer" in loaded


@pytest.fixture
def trainer_with_environment(dummy_trainer: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """Changes that name the dummy trainer, which runs in the environment `tool` whose lock is there."""
    (tmp_path / "tool-cpu.lock").write_text("dummy-trainer==7.1\n")
    monkeypatch.setattr(environments, "LOCKS", tmp_path)
    monkeypatch.setenv(environments.HOME, str(tmp_path / "environments"))
    monkeypatch.setattr(DummyTrainer, "environment", "tool")
    return {**DUMMY_TRAINER, "train.num_epochs": 1.0}


def test_a_trainer_runs_in_the_environment_that_it_names(
    trainer_with_environment: dict[str, Any], tmp_path: Path
) -> None:
    recipe = load_recipe(changed(trainer_with_environment))[0]
    covered = fingerprint_inputs(load_stage("train"), recipe, {})["libraries"]
    assert covered == {"dummy-trainer": "7.1", "environment tool": environments.digest(tmp_path / "tool-cpu.lock")}
    workers = run_config(recipe, tmp_path, "r1", "f" * 64)["worker_runtime_env"]
    assert workers["py_executable"] == str(tmp_path / "environments" / "tool" / "bin" / "python")
    assert workers["env_vars"]["DUMMY"] == "1"
    ctx = RunContext(recipe, "train", "r1", tmp_path, tmp_path, "f", {}, RaySession(recipe.cluster), environment="tool")
    assert ctx.resources.runtime_env["py_executable"] == workers["py_executable"]


def test_a_trainer_whose_environment_is_not_made_is_refused_where_it_would_run(
    trainer_with_environment: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.pipeline.rules.environments.unusable", unusable)
    refused = problems(trainer_with_environment)["train.trainer"]
    assert "runs in the environment tool, which is not made" in refused.message
    assert refused.hint == "Run: make env NAME=tool"
    assert "train.trainer" not in problems({**trainer_with_environment, "cluster.address": "10.0.0.1:6379"})


def test_workers_of_an_environment_take_no_other_packages(trainer_with_environment: dict[str, Any]) -> None:
    found = problems({**trainer_with_environment, "resources.train.runtime_env": {"pip": ["x"]}})
    assert "has the packages of its own environment" in found["resources.train.runtime_env.pip"].message


@pytest.mark.usefixtures("dummy_trainer")
def test_another_trainer_is_planned_and_its_worker_is_configured(tmp_path: Path) -> None:
    wanted = changed({**DUMMY_TRAINER, "train.num_epochs": 1.0, "storage.root": str(tmp_path)})
    recipe, options = load_recipe(wanted)
    assert [step.name for step in build(recipe, options, PastRuns(tmp_path)).steps] == ["ingest", "train"]
    covered = fingerprint_inputs(load_stage("train"), recipe, {})
    assert covered["recipe"]["train.trainer"] == "dummy"
    assert covered["recipe"]["train.args"]["meaning"] == "dummy"
    assert covered["libraries"].keys() == {"dummy-trainer"}
    assert run_config(recipe, tmp_path, "r1", "f" * 64)["worker_runtime_env"]["env_vars"]["DUMMY"] == "1"
