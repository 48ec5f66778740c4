"""The config that a cluster's Ray Serve was given, as plain values: read from its status, changed, written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from runner.errors import RunnerError
from runner.storage.atomic import write_text

TRIAL = "-trial"


def declared(details: Mapping[str, Any]) -> dict[str, Any]:
    """The config that the cluster was last given, as a PUT would take it: what `serve config` prints, in one."""
    applications = [
        deepcopy(each["deployed_app_config"])
        for each in details["applications"].values()
        if each.get("deployed_app_config") and each.get("status") != "DELETING"
    ]
    config: dict[str, Any] = {"applications": applications}
    for key in ("proxy_location", "http_options", "grpc_options", "target_capacity"):
        if details.get(key) is not None:
            config[key] = deepcopy(details[key])
    if config.get("proxy_location") == "Disabled" and not details["applications"]:
        del config["proxy_location"]  # what a cluster says where Serve does not run
    return config


def refuse_foreign(details: Mapping[str, Any], name: str) -> None:
    """Raise RunnerError when a run serves an application of that name, which the cluster's config does not know."""
    found = details["applications"].get(name)
    if found and found.get("status") != "DELETING" and not found.get("deployed_app_config"):
        raise RunnerError(f"a run serves {name!r} on this cluster (serve.keep_alive)", "Stop that run first.")


def find_application(config: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """The application of that name in a config."""
    return next((each for each in config["applications"] if each["name"] == name), None)


def with_application(
    before: Mapping[str, Any], new: Mapping[str, Any], application: Mapping[str, Any]
) -> dict[str, Any]:
    """The config of before with that application put in or replaced; settings of the new one where Serve has none."""
    others = [each for each in before["applications"] if each["name"] != application["name"]]
    return {**new, **before, "applications": [*others, dict(application)]}


def without_application(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The config without that application."""
    return {**config, "applications": [each for each in config["applications"] if each["name"] != name]}


def same_replicas(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether Serve keeps an application's replicas: ray.serve._private.deploy_utils.get_app_code_version."""
    return all((old.get(key) or {}) == (new.get(key) or {}) for key in ("import_path", "runtime_env", "args"))


def trial_of(application: Mapping[str, Any], server: str) -> dict[str, Any]:
    """The same application a second time: under another name and route, with one replica."""
    trial = deepcopy(dict(application))
    trial["name"] = application["name"] + TRIAL
    trial["route_prefix"] = f"/{trial['name']}"
    for deployment in trial["deployments"]:
        if deployment["name"] == server and "autoscaling_config" in deployment:
            deployment["autoscaling_config"] |= {"min_replicas": 1, "max_replicas": 1, "initial_replicas": 1}
    return trial


def earlier_adapters(old: Mapping[str, Any] | None, new: Mapping[str, Any], own: Sequence[str], keep: int) -> list[str]:
    """Adapters that an application knew and that stay reachable, newest first: none of another store or base model.

    old, new: the application before and now. own: adapters that the new one serves anyway. keep: the most to keep.
    """
    if old is None or _served_from(old) != _served_from(new):
        return []
    settings = [each["user_config"] for each in old.get("deployments", []) if each.get("user_config")]
    known = settings[0].get("only") if settings else None
    return [each for each in known or [] if each not in own][:keep]


def _served_from(application: Mapping[str, Any]) -> tuple[str | None, str]:
    """The store of adapters, and the base model."""
    config = application["args"]["llm_config"]
    store = config["experimental_configs"].get("adapter_store")
    return store["uri"] if store else None, config["model_loading_config"]["model_source"]


def endpoint_url(details: Mapping[str, Any], name: str, proxy: str | None, address: str) -> str:
    """The OpenAI API of an application, as this machine reaches it.

    proxy: URL of Serve's HTTP proxy, None for where it listens. address: of the cluster's dashboard.
    """
    prefix = str(details["applications"][name]["route_prefix"] or "/").rstrip("/")
    if proxy:
        return f"{proxy.rstrip('/')}{prefix}/v1"
    http = details["http_options"]
    host = http["host"]
    if host in ("0.0.0.0", "::"):  # noqa: S104 (compared; the head node is where the dashboard is)
        host = urlsplit(address).hostname or host
    return f"http://{f'[{host}]' if ':' in host else host}:{http['port']}{prefix}/v1"


def status_in(details: Mapping[str, Any], name: str) -> Any:
    """The application's status in the shape of `serve.status()`: `.status`, `.message`, `.deployments`."""
    found = details["applications"].get(name)
    if found is None:
        return None
    deployments = {
        key: SimpleNamespace(status=each["status"], message=each.get("message", ""))
        for key, each in found.get("deployments", {}).items()
    }
    return SimpleNamespace(status=found["status"], message=found.get("message", ""), deployments=deployments)


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """serve_config.yaml, as `serve deploy` reads it."""
    import yaml

    head = (
        "# `serve deploy` of this file makes it all that the cluster serves; `deploy` keeps the other\n"
        "# applications that there are.\n"
    )
    write_text(folder / "serve_config.yaml", head + yaml.safe_dump(dict(config), sort_keys=False))
