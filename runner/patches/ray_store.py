"""The key-value store of a Ray cluster's head node, which every process of the cluster reads and writes.

Ray 2.60 has it as `ray.experimental.internal_kv`, whose functions are private. A public way would be an actor.
"""

from __future__ import annotations


def put(key: str, value: str | bytes, namespace: str) -> None:
    """Write a value, over the one that is there."""
    from ray.experimental import internal_kv

    internal_kv._internal_kv_put(key, value, namespace=namespace)


def values(prefix: str, namespace: str) -> dict[str, bytes]:
    """Values by key of all keys that begin with the prefix."""
    from ray.experimental import internal_kv

    keys: list[bytes] = internal_kv._internal_kv_list(prefix, namespace=namespace)
    found = {key.decode(): internal_kv._internal_kv_get(key, namespace=namespace) for key in keys}
    return {key: value for key, value in found.items() if value}


def exists(key: str, namespace: str) -> bool:
    """Whether the store has the key."""
    from ray.experimental import internal_kv

    return bool(internal_kv._internal_kv_exists(key, namespace=namespace))


def delete(key: str, namespace: str) -> None:
    """Delete a key, if it is there."""
    from ray.experimental import internal_kv

    internal_kv._internal_kv_del(key, namespace=namespace)


def delete_all(prefix: str, namespace: str) -> None:
    """Delete all keys that begin with the prefix."""
    from ray.experimental import internal_kv

    internal_kv._internal_kv_del(prefix, del_by_prefix=True, namespace=namespace)
