"""An engine's process is forked from its worker as that was before it was Ray's, with what it had imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from runner.cluster.environments.fork_worker import FOLDER
from tests.paths import ROOT

WORKER = """
import colorsys, os, sys
from stages.patches import vllm_forkserver
from tests.stages.patches.test_vllm_forkserver import engine

if __name__ == "__main__":
    os.environ["SET_LATER"] = "no"
    vllm_forkserver.fork()
    os.environ["SET_LATER"] = "yes"
    import wave
    process = vllm_forkserver._Context().Process(target=engine, kwargs={"path": sys.argv[1]})
    process.start()
    process.join(30)
    sys.exit(process.exitcode)
"""


def engine(path: str) -> None:
    seen = ("colorsys" in sys.modules, "wave" in sys.modules, os.environ["SET_LATER"])
    Path(path).write_text(repr(seen))


def test_an_engine_has_what_its_worker_had_imported_and_the_variables_that_it_has_now(tmp_path: Path) -> None:
    script, found = tmp_path / "worker.py", tmp_path / "seen"
    script.write_text(WORKER)
    env = {**os.environ, FOLDER: str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, str(script), str(found)], env=env, timeout=90, check=False)
    assert done.returncode == 0
    assert found.read_text() == "(True, False, 'yes')"
