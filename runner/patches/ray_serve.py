"""Ray Serve 2.60 where its public functions end: who serves on a cluster, versions, addresses, calls by reference."""

from __future__ import annotations

import dataclasses
from typing import Any

_LOOPBACK = "127.0.0.1"


def running_http() -> Any | None:
    """HTTP options (`host`, `port`) of the Ray Serve that the cluster runs; None when it runs none.

    `serve.start` tells nobody what it found, and `serve.status` has no address.
    """
    from ray.serve.context import _get_global_client

    client = _get_global_client(raise_if_no_controller_running=False)
    return client.http_config if client is not None else None


def route_prefix(app_name: str) -> str:
    """Where a running application is. `serve.status` does not have it; the dashboard's REST API has."""
    from ray.serve.context import _get_global_client

    prefix: str = _get_global_client().get_serve_details()["applications"][app_name]["route_prefix"]
    return prefix


def set_version(app: Any, version: str) -> None:
    """Have Serve replace the application's replicas only when the version differs; else every deploy replaces all.

    `serve.deployment(version=...)` did that once, and Ray 2.60 raises ValueError for it.
    """
    app._bound_deployment._version = version


def by_reference(handle: Any) -> Any:
    """The handle with calls of actors, not by gRPC: only these fail with Ray's error of a replica that has died."""
    return handle.options(_by_reference=True)


def listen_on_loopback() -> None:
    """Have this replica's port for calls between replicas listen on loopback, when the whole cluster does.

    Ray Serve binds it to all addresses and has no setting for that. Ray's token guards it all the same.
    """
    import ray.util
    from ray.serve._private import replica

    if ray.util.get_node_ip_address() == _LOOPBACK:
        bind = replica.add_port_to_grpc_server
        replica.add_port_to_grpc_server = lambda server, _: bind(server, f"{_LOOPBACK}:0")


def set_multiplexed_model(model_id: str) -> None:
    """Have this request be for the model, whatever the client has put into Serve's header for it; "" is none."""
    from ray.serve import context

    context._serve_request_context.set(
        dataclasses.replace(context._get_serve_request_context(), multiplexed_model_id=model_id)
    )


def answers_http_itself() -> bool:
    """Whether Serve's HAProxy passes requests on to replicas, which then answer by HTTP themselves."""
    from ray.serve._private.constants import RAY_SERVE_ENABLE_DIRECT_INGRESS

    return bool(RAY_SERVE_ENABLE_DIRECT_INGRESS)
