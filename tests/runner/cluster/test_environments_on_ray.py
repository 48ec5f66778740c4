"""Real: a task of a stage that runs in an environment of its own has that environment's packages."""

from __future__ import annotations

import sys

import pytest

from runner.cluster import environments
from runner.cluster.environments.nodes import records
from runner.cluster.session import RaySession
from runner.recipe.schema import Cluster, StageResources

pytestmark = pytest.mark.e2e


def test_a_task_runs_by_the_interpreter_and_packages_of_its_environment() -> None:
    # Pickled by value: this module needs pytest, which the environment lacks.
    def seen() -> tuple[str, str | None, bool]:
        import sys
        from importlib.metadata import version
        from importlib.util import find_spec

        there = find_spec("transformers") is not None
        return sys.prefix, version("transformers") if there else None, find_spec("hydra") is None

    name = "accelerate"
    assert environments.unusable(name, "cpu") == ""
    session = RaySession(Cluster(num_cpus=1))
    try:
        one = StageResources(runtime_env=environments.runtime_env(name, {"env_vars": {"A": "1"}}))
        prefix, transformers, without_hydra = session.call(seen, one)
        assert prefix == str(environments.folder(name))
        assert transformers == environments.version(name, "transformers", "cpu")
        assert without_hydra
        assert session.call(seen, StageResources()) == (sys.prefix, None, False)
        found = records(session, Cluster(), StageResources(), name)
        assert list(found.values()) == [environments.record(name)]
    finally:
        session.close()
