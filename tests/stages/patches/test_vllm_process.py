"""An engine's process ends with the process that started it, however that ended, and never with half an answer."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stages.patches.vllm_process import (
    end_without_answers,
    engine_end,
    keep_files_in_session,
    keep_kernels_together,
    prepare,
)

pytestmark = pytest.mark.environment("engine")

# A parent that starts a child by multiprocessing, as vLLM does, and tells its process id.
PARENT = """
import multiprocessing, sys, time
sys.path[:0] = {path!r}
from stages.patches.vllm_process import end_with_parent

def child(queue):
    end_with_parent(multiprocessing.parent_process())
    queue.put(multiprocessing.current_process().pid)
    time.sleep(60)

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    print(queue.get(), flush=True)
    time.sleep(60)
"""


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(path=sys.path))
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert not ended(child)
        parent.send_signal(signal.SIGKILL)
    end = time.monotonic() + 20
    while not ended(child) and time.monotonic() < end:
        time.sleep(0.05)
    assert ended(child)


def test_a_process_that_multiprocessing_did_not_start_is_left_alone() -> None:
    code = (
        "import threading; from stages.patches.vllm_process import prepare; prepare();"
        "assert threading.active_count() == 1"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )


def test_vllm_finds_it() -> None:
    found = [each for each in entry_points(group="vllm.general_plugins") if each.name == "recipe_runner"]
    assert [each.load() for each in found] == [prepare]


@pytest.mark.parametrize(
    ("folder", "used"), [("/tmp/ray/session_1/sockets", True), ("/tmp/" + "a" * 70, False), (None, False)]
)
def test_sockets_lie_in_the_ray_session_where_their_path_is_short_enough(
    monkeypatch: pytest.MonkeyPatch, folder: str | None, used: bool
) -> None:
    from ray._private import worker

    node = SimpleNamespace(get_sockets_dir_path=lambda: folder) if folder else None
    monkeypatch.setattr(worker, "_global_node", node)
    monkeypatch.delenv("VLLM_RPC_BASE_PATH", raising=False)
    monkeypatch.delitem(multiprocessing.current_process()._config, "tempdir", raising=False)
    keep_files_in_session()
    assert os.environ.pop("VLLM_RPC_BASE_PATH", None) == (folder if used else None)
    assert multiprocessing.current_process()._config.pop("tempdir", None) == (folder if used else None)


def test_an_engine_that_ends_sends_no_half_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.v1.engine.core import EngineCoreProc, EngineShutdownState

    sent: list[Any] = []
    monkeypatch.setattr(EngineCoreProc, "_send_abort_outputs_to_client", lambda engine, *args: sent.append(args))
    end_without_answers()
    running = SimpleNamespace(shutdown_state=EngineShutdownState.RUNNING)
    ending = SimpleNamespace(shutdown_state=EngineShutdownState.REQUESTED)
    EngineCoreProc._send_abort_outputs_to_client(running, ["one"], 0)
    EngineCoreProc._send_abort_outputs_to_client(ending, ["two"], 0)
    assert sent == [(["one"], 0)]


def engine(sentinels: list[int], errored: bool = False) -> Any:
    resources = SimpleNamespace(engine_manager=SimpleNamespace(sentinels=lambda: sentinels))
    return SimpleNamespace(engine_core=SimpleNamespace(resources=resources), errored=errored)


def test_an_engine_is_dead_as_soon_as_a_process_of_it_is() -> None:
    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    process.start()

    async def kill_and_wait() -> None:
        waiting = asyncio.create_task(engine_end(engine([process.sentinel]), poll_s=600))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        process.kill()
        await asyncio.wait_for(waiting, 30)

    asyncio.run(kill_and_wait())
    process.join()


def test_an_engine_is_dead_when_vllm_says_so() -> None:
    asyncio.run(asyncio.wait_for(engine_end(engine([], errored=True)), 30))


def test_an_engine_that_compiles_keeps_its_kernels_where_one_that_loads_the_graph_looks_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor.runtime.cache_dir_utils import triton_cache_dir

    monkeypatch.setenv("VLLM_CACHE_ROOT", str(tmp_path))
    monkeypatch.setenv("TRITON_CACHE_DIR", "")  # so that what is set here ends with the test
    monkeypatch.delenv("TRITON_CACHE_DIR")
    prepare()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "of_one_graph"))  # as vLLM does before it compiles
    assert triton_cache_dir(0) == os.environ["TRITON_CACHE_DIR"] == str(tmp_path / "triton_cache")


def test_a_folder_of_kernels_that_the_environment_names_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    keep_kernels_together()
    assert os.environ["TRITON_CACHE_DIR"] == str(tmp_path)
