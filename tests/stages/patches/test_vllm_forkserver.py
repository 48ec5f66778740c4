"""An engine's process is forked from a server that has imported vLLM, and finds the environment of its parent."""

from __future__ import annotations

import subprocess
import sys
from multiprocessing import forkserver
from pathlib import Path

import pytest

from stages.patches.vllm_forkserver import ENGINE_IN_REPLICA, begin, engines_from_it

pytestmark = pytest.mark.environment("engine")

# A parent whose server has imported a module before the variable was set.
PARENT = """
import multiprocessing, os, sys
sys.path[:0] = {path!r}
from multiprocessing import forkserver
from stages.patches.vllm_forkserver import _Context

def child(queue, word):
    import setproctitle
    setproctitle.setproctitle("VLLM::EngineCore")
    title = open("/proc/self/cmdline").read().strip("\\0").split("\\0")[0]
    queue.put((word, os.environ["LATER"], os.environ.get("GONE"), "colorsys" in sys.modules, title))

if __name__ == "__main__":
    os.environ["GONE"] = "yes"
    multiprocessing.set_forkserver_preload(["colorsys"])
    forkserver.ensure_running()
    del os.environ["GONE"]
    os.environ["LATER"] = "yes"
    context = _Context()
    queue = context.Queue()
    process = context.Process(target=child, name="engine", kwargs={{"queue": queue, "word": "hello"}})
    process.start()
    print(*queue.get(), process.name)
    process.join()
"""


def test_the_child_has_what_the_server_imported_and_its_parents_environment(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(path=sys.path))
    done = subprocess.run([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["hello", "yes", "None", "True", "VLLM::EngineCore", "engine"]


def test_no_server_starts_outside_of_rays_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forkserver, "ensure_running", lambda: pytest.fail("a server was started"))
    begin()


@pytest.mark.parametrize(
    ("device", "more", "less"),
    [
        ("cpu", "stages.patches.vllm_cpu_lora", "vllm.v1.worker.gpu_worker"),
        ("gpu", "vllm.v1.worker.gpu_worker", "stages.patches.vllm_cpu_lora"),
    ],
)
def test_the_server_imports_what_the_device_needs(
    device: str, more: str, less: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray._private.worker import WORKER_MODE, global_worker

    asked: list[list[str]] = []
    monkeypatch.setattr(global_worker, "mode", WORKER_MODE, raising=False)
    monkeypatch.setattr("multiprocessing.set_forkserver_preload", asked.append)
    monkeypatch.setattr(forkserver, "ensure_running", lambda: None)
    begin()
    assert asked == []
    monkeypatch.setenv(ENGINE_IN_REPLICA, device)
    begin()
    (names,) = asked
    assert more in names
    assert less not in names


def test_vllm_asks_the_server_for_an_engine_while_one_starts() -> None:
    from vllm.v1.engine import utils

    usual = utils.get_mp_context
    with engines_from_it():
        assert utils.get_mp_context().get_start_method() == "forkserver"
    assert utils.get_mp_context is usual
