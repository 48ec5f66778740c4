"""What a worker does around a training: it finds its checkpoint, its type and its steps, and saves the whole model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runner.errors import RunnerError
from stages.trainers.worker import precision
from stages.trainers.worker.callback import require_warm, save_in_one_piece
from stages.trainers.worker.loop import fetched


@pytest.fixture
def state() -> Iterator[Any]:
    """Accelerate's state of a process, forgotten afterwards."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    Accelerator(cpu=True)
    yield AcceleratorState()
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.environment("llamafactory")
def test_after_checkpoints_in_shards_the_model_is_saved_whole(state: Any) -> None:
    from accelerate import FullyShardedDataParallelPlugin

    state.fsdp_plugin = FullyShardedDataParallelPlugin(fsdp_version=2, cpu_ram_efficient_loading=False)
    assert state.fsdp_plugin.state_dict_type.name == "SHARDED_STATE_DICT"
    save_in_one_piece()
    assert state.fsdp_plugin.state_dict_type.name == "FULL_STATE_DICT"


@pytest.mark.environment("llamafactory")
def test_a_model_that_each_worker_has_is_saved_as_it_is(state: Any) -> None:
    save_in_one_piece()
    assert getattr(state, "fsdp_plugin", None) is None


def test_a_training_shorter_than_its_warm_up_is_refused() -> None:
    require_warm(8, 8)
    with pytest.raises(RunnerError, match="9 steps of warm-up are more than the training's 8"):
        require_warm(9, 8)


@pytest.mark.environment("llamafactory")
@pytest.mark.parametrize(("computed", "widened"), [("bfloat16", False), ("float32", True)])
def test_bfloat16_is_widened_where_the_cpu_does_not_compute_in_it(
    computed: str, widened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(precision, "cpu_dtype", lambda: computed)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4, dtype=torch.bfloat16), torch.nn.Linear(4, 2))
    trained = model[1].weight
    optimizer = torch.optim.SGD([trained], lr=1.0)
    assert precision.widen(model) is widened
    assert model[0].weight.dtype == (torch.float32 if widened else torch.bfloat16)
    assert optimizer.param_groups[0]["params"][0] is model[1].weight is trained
    assert precision.widen(None) is False


LOG = "trainer_log.jsonl"
ARGS = {"output_dir": "out"}


def test_resumes_from_a_far_checkpoint_and_continues_its_log(tmp_path: Path) -> None:
    def to_directory(path: str) -> None:
        Path(path).mkdir()
        (Path(path) / LOG).write_text("earlier\n")

    far = SimpleNamespace(filesystem=None, path="bucket/checkpoint_1", to_directory=to_directory)
    assert fetched(far, tmp_path, ARGS) == tmp_path / "resume"
    assert (tmp_path / "out" / LOG).read_text() == "earlier\n"


def test_a_checkpoint_on_a_disk_of_the_node_is_read_where_it_is(tmp_path: Path) -> None:
    from pyarrow.fs import LocalFileSystem

    saved, work = tmp_path / "checkpoint_1", tmp_path / "work"
    saved.mkdir()
    (saved / LOG).write_text("earlier\n")
    assert fetched(SimpleNamespace(filesystem=LocalFileSystem(), path=str(saved)), work, ARGS) == saved
    assert (saved / LOG).read_text() == (work / "out" / LOG).read_text() == "earlier\n"
    assert [path.name for path in work.iterdir()] == ["out"]
    assert fetched(None, work, ARGS) is None
