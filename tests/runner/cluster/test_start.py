"""The message where Ray does not start."""

from __future__ import annotations

from runner.cluster.session import not_started_in_time

# Of ray/_private/node.py; a busy machine is enough.
RAYS_OWN = (
    "The current node timed out during startup. This could happen because some of the raylet failed to startup or the "
    "GCS has become overloaded."
)


def test_a_machine_too_busy_to_start_ray_is_named_with_its_load() -> None:
    found = not_started_in_time(Exception(RAYS_OWN))
    assert found is not None
    assert "this machine's load is" in found.message
    assert "less else is running" in found.hint


def test_any_other_error_stays_what_it_is() -> None:
    assert not_started_in_time(Exception("no such node")) is None
    assert not_started_in_time(RuntimeError(RAYS_OWN)) is None
