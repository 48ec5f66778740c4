"""KubeRay: a RayJob that runs the recipe, and a RayService that serves what it made (API ray.io/v1)."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from runner.errors import UsageError
from stages.deploy.export.facts import SECRET, Facts
from stages.deploy.export.text import document, yaml_text

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_HEAD_CPUS = 2


def kuberay(facts: Facts) -> dict[str, str]:
    """rayjob.yaml, and rayservice.yaml. Raises UsageError when the endpoint would listen on loopback only."""
    assert facts.serve is not None
    if facts.recipe.serve.host in _LOOPBACK:
        raise UsageError(
            f"serve.host={facts.recipe.serve.host} cannot be reached from outside a pod",
            "Set serve.host=0.0.0.0 and serve.api_keys.",
        )
    needs = (
        f"Needs: the image {facts.image} where the nodes can pull it; a PersistentVolumeClaim {SECRET}-runs that all "
        f"nodes can write; optionally a Secret {SECRET} with the credentials as variables."
    )
    return {
        "rayjob.yaml": document(f"kubectl create -f rayjob.yaml\n{needs}", ray_job(facts)),
        "rayservice.yaml": document(
            f"kubectl apply -f rayservice.yaml\n{needs}\nModel and adapters are where the job on this volume put them.",
            ray_service(facts),
        ),
    }


def ray_job(facts: Facts) -> dict[str, Any]:
    """A repeated attempt gets a new cluster and continues from what the one before finished."""
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"generateName": f"{facts.name}-"},
        "spec": {
            "entrypoint": facts.command("cluster.address=auto"),
            "backoffLimit": 2,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": 3600,
            "rayClusterSpec": _cluster(facts),
        },
    }


def ray_service(facts: Facts) -> dict[str, Any]:
    """KubeRay replaces the cluster when its spec changes, and updates it in place when only the Serve config does."""
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": facts.name},
        "spec": {"serveConfigV2": yaml_text(facts.serve), "rayClusterConfig": _cluster(facts)},
    }


def _cluster(facts: Facts) -> dict[str, Any]:
    count, cpus, gpus = facts.workers()
    return {
        "rayVersion": version("ray"),
        "authOptions": {"mode": "token"},
        "headGroupSpec": {"rayStartParams": {}, "template": _pod(facts, "ray-head", _HEAD_CPUS, 0)},
        "workerGroupSpecs": [
            {
                "groupName": "workers",
                "replicas": count,
                "minReplicas": count,
                "maxReplicas": max(count, _most_replicas(facts)),
                "rayStartParams": {},
                "template": _pod(facts, "ray-worker", cpus, gpus),
            }
        ],
    }


def _most_replicas(facts: Facts) -> int:
    most = facts.recipe.serve.autoscaling.get("max_replicas", 1)
    return most if isinstance(most, int) else 1


def _pod(facts: Facts, name: str, cpus: float, gpus: float) -> dict[str, Any]:
    limits = {"cpu": f"{cpus:g}", **({"nvidia.com/gpu": f"{gpus:g}"} if gpus else {})}
    return {
        "spec": {
            "containers": [
                {
                    "name": name,
                    "image": facts.image,
                    "envFrom": [{"secretRef": {"name": SECRET, "optional": True}}],
                    "resources": {"limits": limits, "requests": limits},
                    "volumeMounts": [
                        {"name": "runs", "mountPath": facts.root}, {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
                    ],
                }
            ],
            "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "fsGroup": 100},
            "volumes": [
                {"name": "runs", "persistentVolumeClaim": {"claimName": f"{SECRET}-runs"}},
                {"name": "shm", "emptyDir": {"medium": "Memory"}},
            ],
        }
    }  # fmt: skip
