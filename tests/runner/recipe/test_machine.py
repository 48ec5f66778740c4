"""What is known of the machine, from the kernel's own files."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.recipe import machine
from runner.recipe.load import compose


@pytest.fixture(
    params=[
        ("model name\t: AMD EPYC\nflags\t\t: fpu avx512f avx512_bf16 avx512_vnni\n", "bfloat16"),
        ("model name\t: Intel(R) Xeon(R)\nflags\t\t: fpu avx512f amx_bf16 amx_tile\n", "bfloat16"),
        ("processor\t: 0\nFeatures\t: fp asimd sve i8mm bf16\n", "bfloat16"),
        ("model name\t: AMD EPYC\nflags\t\t: fpu avx2 avx512f avx512_vnni\n", "float32"),
        ("", "float32"),
    ]
)
def dtype(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The type for a machine of so many instructions, which this one is from now on."""
    cpuinfo, dtype = request.param
    path = tmp_path / "cpuinfo"
    path.write_text(cpuinfo)
    monkeypatch.setattr(machine, "_CPUS", path)
    return str(dtype)


def test_an_engine_on_cpus_computes_in_what_they_have_instructions_for(dtype: str) -> None:
    assert machine.cpu_dtype() == dtype
    values = compose(["recipe=viggo_quickstart"]).values
    assert values["infer"]["engine_kwargs"]["dtype"] == dtype


def test_a_machine_without_such_a_file_computes_in_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_CPUS", tmp_path / "none")
    assert machine.cpu_dtype() == "float32"


def test_a_recipe_may_name_another_type() -> None:
    values = compose(["recipe=viggo_quickstart", "infer.engine_kwargs.dtype=float16"]).values
    assert values["infer"]["engine_kwargs"]["dtype"] == "float16"
