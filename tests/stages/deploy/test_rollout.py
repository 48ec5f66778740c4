"""Deploys to a fake cluster: what is sent, in which order, and what serves in the end."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from runner.errors import RunnerError
from runner.pipeline.manifest import Manifest
from runner.recipe.load import to_recipe
from runner.storage.atomic import write_state
from stages.deploy import rollout as services
from stages.deploy.candidate import Wanted, find_results
from stages.deploy.history import before_the_present, place_of
from stages.deploy.rollout import Rollout, undeploy
from tests.runner.recipes import given as recipe_given

ADDRESS = "http://10.0.0.1:8265"
OTHER = {"name": "other", "route_prefix": "/other", "import_path": "other:app", "args": {}}
OTHER_ENGINE = {"serve.engine_kwargs.max_num_seqs": 4}


class Cluster:
    """Ray Serve as its dashboard shows it. broken(application): its status is DEPLOY_FAILED."""

    def __init__(self, *applications: dict[str, Any], broken: Callable[[dict[str, Any]], bool] | None = None) -> None:
        self.applications = {each["name"]: deepcopy(each) for each in applications}
        self.puts: list[dict[str, Any]] = []
        self.broken = broken or (lambda application: False)
        self.runs: dict[str, Any] = {}
        self.host = "127.0.0.1"

    def deploy_applications(self, config: dict[str, Any]) -> None:
        self.puts.append(json.loads(json.dumps(config)))
        self.applications = {each["name"]: deepcopy(each) for each in config["applications"]}

    def get_serve_details(self) -> dict[str, Any]:
        found = {
            name: {
                "route_prefix": each["route_prefix"],
                "status": "DEPLOY_FAILED" if self.broken(each) else "RUNNING",
                "message": "ValueError: no such model" if self.broken(each) else "",
                "deployed_app_config": each,
                "deployments": {},
            }
            for name, each in self.applications.items()
        }
        return {
            "applications": found | self.runs,
            "http_options": {"host": self.host, "port": 8100},
            "proxy_location": "HeadOnly",
            "target_capacity": None,
        }

    def put_names(self) -> list[list[str]]:
        return [[each["name"] for each in put["applications"]] for put in self.puts]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "_POLL_S", 0.0)


@pytest.fixture
def wanted(tmp_path: Path) -> Callable[..., Wanted]:
    def make(changes: dict[str, Any] | None = None, adapter: str = "one") -> Wanted:
        values = {"name": "bot", "serve.model_id": "base", "serve.startup_timeout_s": 1, "cluster.address": ADDRESS}
        recipe = to_recipe(recipe_given(values | (changes or {})))[0]
        models = ["base", f"base:{adapter}"]
        return Wanted(recipe, tmp_path, "/models/m", "/store/adapters/base", [adapter], models, {"messages": []})

    return make


class Asked:
    """Stands for the openai client. fail(url): why the request fails, or ""."""

    def __init__(self, fail: Callable[[str], str] = lambda url: "") -> None:
        self.fail = fail
        self.asked: list[tuple[str, list[str]]] = []

    def __call__(self, url: str, models: list[str], requests: list[dict[str, Any]], *_: Any) -> None:
        self.asked.append((url, models))
        if reason := self.fail(url):
            raise RunnerError(reason)


def roll_out(wanted: Wanted, cluster: Cluster, ask: Asked | None = None) -> list[str]:
    lines: list[str] = []
    Rollout(wanted, cluster, ADDRESS, lines.append, ask or Asked()).run()
    return lines


def served(cluster: Cluster) -> Any:
    return cluster.applications["recipe-bot"]["deployments"][0]["user_config"]["only"]


def test_first_deploy_keeps_other_applications_and_writes_its_own_config(
    wanted: Callable[..., Wanted], tmp_path: Path
) -> None:
    cluster, ask = Cluster(OTHER), Asked()
    lines = roll_out(wanted(), cluster, ask)
    assert cluster.put_names() == [["other", "recipe-bot"]]
    assert cluster.applications["other"] == OTHER
    assert ask.asked == [("http://127.0.0.1:8100/v1", ["base", "base:one"])]
    (config,) = tmp_path.glob("deploy/*/serve_config.yaml")
    assert [each["name"] for each in yaml.safe_load(config.read_text())["applications"]] == ["recipe-bot"]
    assert json.loads(config.with_name("deploy.json").read_text())["outcome"] == "deployed"
    assert "serves base and base:one" in lines[-1]


def deployed(root: Path, run: str, adapter: str, at: float, **facts: Any) -> None:
    Manifest(run_id=run, recipe="bot").save(root / "bot" / run)
    folder = root / "bot" / run / "deploy" / f"{at:.0f}"
    record = {"outcome": "deployed", "adapters": [adapter], "address": ADDRESS, "at": at, **facts}
    write_state(folder / "deploy.json", {"place": place_of(folder), **record})


def test_a_rollback_leads_to_what_the_same_cluster_served_before(tmp_path: Path) -> None:
    def back() -> str:
        return before_the_present(tmp_path, "bot", ADDRESS).name

    with pytest.raises(RunnerError, match="by no other run before: there is none"):
        back()
    deployed(tmp_path, "first", "one", 1.0)
    with pytest.raises(RunnerError, match="there is only first"):
        back()
    deployed(tmp_path, "second", "two", 2.0)
    deployed(tmp_path, "elsewhere", "three", 3.0, address="http://10.0.0.2:8265")
    deployed(tmp_path, "failed", "four", 4.0, outcome="rolled back")
    deployed(tmp_path, "second", "two", 5.0)  # the same once more
    assert back() == "first"
    deployed(tmp_path, "first", "one", 6.0)  # that was the rollback, which can be undone
    assert back() == "second"


def test_a_deploy_leaves_the_record_that_a_rollback_reads(wanted: Callable[..., Wanted], tmp_path: Path) -> None:
    roll_out(wanted(), Cluster())
    (record,) = tmp_path.glob("deploy/*/deploy.json")
    assert json.loads(record.read_text())["address"] == ADDRESS


def test_new_adapter_is_one_put_that_replaces_no_replica(wanted: Callable[..., Wanted]) -> None:
    cluster = Cluster()
    roll_out(wanted(), cluster)
    args = cluster.applications["recipe-bot"]["args"]
    lines = roll_out(wanted(adapter="two"), cluster)
    assert len(cluster.puts) == 2
    assert cluster.applications["recipe-bot"]["args"] == args
    assert served(cluster) == ["two", "one"]
    assert "replicas of before" in lines[-1]


def test_as_many_adapters_as_the_recipe_says_stay_reachable(wanted: Callable[..., Wanted]) -> None:
    cluster = Cluster()
    for adapter in ("one", "two", "three", "two"):
        roll_out(wanted({"deploy.keep_adapters": 1}, adapter=adapter), cluster)
    assert served(cluster) == ["two", "three"]


def test_other_engine_settings_are_tried_next_to_what_serves(wanted: Callable[..., Wanted]) -> None:
    cluster, ask = Cluster(OTHER), Asked()
    roll_out(wanted(), cluster)
    roll_out(wanted(OTHER_ENGINE), cluster, ask)
    assert cluster.put_names()[1:] == [
        ["other", "recipe-bot", "recipe-bot-trial"],
        ["other", "recipe-bot"],
        ["other", "recipe-bot"],
    ]
    trial = cluster.puts[1]["applications"][2]
    assert trial["deployments"][0]["autoscaling_config"]["max_replicas"] == 1
    assert cluster.puts[1]["applications"][1]["args"] != trial["args"] == cluster.puts[3]["applications"][1]["args"]
    assert [url for url, _ in ask.asked] == ["http://127.0.0.1:8100/recipe-bot-trial/v1", "http://127.0.0.1:8100/v1"]


def test_version_that_does_not_start_never_touches_what_serves(wanted: Callable[..., Wanted], tmp_path: Path) -> None:
    cluster = Cluster(broken=lambda each: "max_num_seqs" in json.dumps(each))
    roll_out(wanted(), cluster)
    before = deepcopy(cluster.applications)
    with pytest.raises(RunnerError, match=r"next to the old one, failed: .*no such model.*the previous version serves"):
        roll_out(wanted(OTHER_ENGINE), cluster)
    assert cluster.applications == before
    assert all(before["recipe-bot"] in put["applications"] for put in cluster.puts[1:])
    outcomes = [json.loads(path.read_text())["outcome"] for path in tmp_path.glob("deploy/*/deploy.json")]
    assert "rolled back" in outcomes


def test_without_a_trial_the_config_of_before_is_put_back(wanted: Callable[..., Wanted]) -> None:
    cluster = Cluster(broken=lambda each: "max_num_seqs" in json.dumps(each))
    roll_out(wanted(), cluster)
    before = deepcopy(cluster.applications)
    with pytest.raises(RunnerError, match="rolled back: the previous version serves"):
        roll_out(wanted({**OTHER_ENGINE, "deploy.trial": False}), cluster)
    assert cluster.put_names() == [["recipe-bot"]] * 3
    assert cluster.applications == before


def test_adapter_that_fails_its_smoke_test_is_taken_back(wanted: Callable[..., Wanted]) -> None:
    cluster = Cluster()
    roll_out(wanted(), cluster)
    ask = Asked(lambda url: "base:two answered 500")
    with pytest.raises(RunnerError, match=r"smoke test: base:two answered 500; rolled back: the previous version"):
        roll_out(wanted(adapter="two"), cluster, ask)
    assert served(cluster) == ["one"]


def test_first_deploy_that_fails_leaves_nothing(wanted: Callable[..., Wanted]) -> None:
    cluster = Cluster(OTHER)
    with pytest.raises(RunnerError, match="nothing of this recipe is served, as before"):
        roll_out(wanted(), cluster, Asked(lambda url: "no"))
    assert list(cluster.applications) == ["other"]


def test_interruption_rolls_back(wanted: Callable[..., Wanted]) -> None:
    cluster = Cluster()

    def interrupt(url: str) -> str:
        raise KeyboardInterrupt

    with pytest.raises(RunnerError, match="interrupted; rolled back"):
        roll_out(wanted(), cluster, Asked(interrupt))
    assert cluster.applications == {}


def test_the_trial_of_a_killed_deploy_is_removed(wanted: Callable[..., Wanted]) -> None:
    cluster = Cluster({**OTHER, "name": "recipe-bot-trial"})
    roll_out(wanted(), cluster)
    assert list(cluster.applications) == ["recipe-bot"]


def test_taken_root_gives_way_to_the_applications_name(wanted: Callable[..., Wanted]) -> None:
    cluster = Cluster({**OTHER, "route_prefix": "/"})
    roll_out(wanted(), cluster)
    assert cluster.applications["recipe-bot"]["route_prefix"] == "/recipe-bot"
    roll_out(wanted(adapter="two"), cluster)
    assert cluster.applications["recipe-bot"]["route_prefix"] == "/recipe-bot"


def test_endpoint_behind_a_proxy_is_asked_there(wanted: Callable[..., Wanted]) -> None:
    ask = Asked()
    roll_out(wanted({"deploy.url": "https://models.example.com"}), Cluster(), ask)
    assert ask.asked[0][0] == "https://models.example.com/v1"


def test_application_that_a_run_serves_is_not_replaced(wanted: Callable[..., Wanted]) -> None:
    cluster = Cluster()
    cluster.runs = {"recipe-bot": {"status": "RUNNING", "route_prefix": "/", "deployed_app_config": None}}
    with pytest.raises(RunnerError, match="a run serves 'recipe-bot'"):
        roll_out(wanted(), cluster)
    assert cluster.puts == []


def test_serve_that_listens_to_all_asks_for_keys(wanted: Callable[..., Wanted]) -> None:
    cluster = Cluster({**OTHER, "route_prefix": "/other"})
    cluster.host = "0.0.0.0"
    with pytest.raises(RunnerError, match="names no API keys"):
        roll_out(wanted(), cluster)
    assert cluster.puts == []


def test_undeploy_removes_this_application_alone(wanted: Callable[..., Wanted]) -> None:
    cluster = Cluster(OTHER)
    roll_out(wanted(), cluster)
    undeploy(wanted().recipe, lambda text: None, lambda address: cluster)
    assert cluster.applications == {"other": OTHER}
    with pytest.raises(RunnerError, match="serves no application 'recipe-bot'"):
        undeploy(wanted().recipe, lambda text: None, lambda address: cluster)


def test_nothing_is_deployed_before_it_was_made(tmp_path: Path) -> None:
    recipe = to_recipe(recipe_given({"cluster.address": ADDRESS}))[0]
    with pytest.raises(RunnerError, match="there is no result to deploy"):
        find_results(recipe, tmp_path)
