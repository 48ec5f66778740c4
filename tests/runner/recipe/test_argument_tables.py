"""The tables of the libraries' arguments: what they hold, and what a value may be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from runner.cluster import environments
from runner.recipe.arguments import RAY, Entry, Library, accepts, allowed
from stages.engines.vllm.generate import SAMPLING_BOUNDS
from stages.engines.vllm.mappings import VLLM
from stages.trainers.accelerate.mappings import TRL
from stages.trainers.axolotl.mappings import AXOLOTL
from stages.trainers.llamafactory.mappings import LLAMAFACTORY

WRITERS = {
    "runner.recipe.arguments.generate": RAY,
    "stages.engines.vllm.generate": VLLM,
    "stages.trainers.llamafactory.generate": LLAMAFACTORY,
    "stages.trainers.accelerate.generate": TRL,
    "stages.trainers.axolotl.generate": AXOLOTL,
}
MADE_IN = {
    "stages.engines.vllm.generate": "engine",
    "stages.trainers.llamafactory.generate": "llamafactory",
    "stages.trainers.accelerate.generate": "accelerate",
    "stages.trainers.axolotl.generate": "axolotl",
}


def table(name: str) -> dict[str, Entry]:
    library, _, section = name.partition(".")
    return {each.name: each for each in WRITERS.values()}[library].table(section)


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("vllm.engine", "max_model_len"),
        ("vllm.frontend", "chat_template"),
        ("vllm.sampling", "max_tokens"),
        ("llamafactory.arguments", "cutoff_len"),
        ("llamafactory.arguments", "per_device_train_batch_size"),
        ("trl.arguments", "max_length"),
        ("trl.dpo", "beta"),
        ("axolotl.arguments", "sequence_len"),
        ("ray.autoscaling", "max_replicas"),
        ("ray.deployment", "max_ongoing_requests"),
        ("ray.runtime_env", "env_vars"),
    ],
)
def test_tables_hold_well_known_arguments(name: str, argument: str) -> None:
    assert argument in table(name)


def test_tables_say_what_the_libraries_say() -> None:
    assert table("vllm.engine")["max_lora_rank"]["choices"] == [1, 8, 16, 32, 64, 128, 256, 320, 512]
    assert table("vllm.engine")["gpu_memory_utilization"]["le"] == 1
    assert table("llamafactory.arguments")["finetuning_type"]["choices"] == ["lora", "oft", "freeze", "full"]
    assert table("ray.autoscaling")["max_replicas"] == {"type": "int", "default": 1, "gt": 0}
    assert {"qwen", "smollm2", "llama3"} <= set(LLAMAFACTORY.content["templates"])


def test_every_default_is_accepted_by_its_own_entry() -> None:
    vllm = ("vllm.engine", "vllm.frontend", "vllm.sampling")
    for name in (*vllm, "llamafactory.arguments", "trl.arguments", "axolotl.arguments", "ray.autoscaling"):
        for argument, entry in table(name).items():
            if "default" in entry:
                assert accepts(entry, entry["default"]), f"{name}: {argument}"


@pytest.mark.parametrize(
    ("entry", "good", "bad"),
    [
        ({"type": "int"}, [0, -3], ["3", 2.5, True, None, [1]]),
        ({"type": "int|null", "ge": 1}, [1, None], [0, "1"]),
        ({"type": "float", "gt": 0, "le": 1}, [1, 0.5], [0, 1.5, "0.5", True]),
        ({"type": "float", "ge": 0, "lt": 1}, [0, 0.9], [1, -0.1]),
        ({"type": "bool"}, [True, False, 0, 1], [2, "true", None]),
        ({"type": "list|str"}, ["a", ["a"]], [{"a": 1}, 1]),
        ({"type": "dict"}, [{}], [[]]),
        ({"choices": ["auto", "half"]}, ["auto"], ["AUTO", None, 1]),
        ({"choices": [1, 8]}, [8], [True, 2, 8.0]),
        ({"choices": ["FLASH_ATTN"], "ignore_case": True, "type": "null"}, ["flash_attn", None], ["flash"]),
        ({"type": "any"}, [None, 1, "x", {}], []),
    ],
)
def test_values_are_judged_by_kind_choice_and_bound(entry: Entry, good: list[object], bad: list[object]) -> None:
    assert all(accepts(entry, value) for value in good)
    assert not any(accepts(entry, value) for value in bad)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"type": "int|null", "ge": 1}, "a whole number >= 1, or null"),
        ({"type": "float", "gt": 0, "le": 1}, "a number > 0 and <= 1"),
        ({"choices": ["a", "b"], "type": "null"}, "one of a, b, or null"),
        ({"type": "str|list"}, "a text, or a list"),
        ({"type": "bool"}, "true or false"),
    ],
)
def test_what_is_allowed_is_written_in_words(entry: Entry, words: str) -> None:
    assert allowed(entry) == words


def test_tables_are_read_without_the_libraries() -> None:
    code = (
        "import sys; from runner.recipe.arguments import RAY; from stages.engines.vllm.mappings import VLLM; "
        "VLLM.table('engine'), RAY.table('autoscaling'); "
        "assert not {'vllm', 'ray', 'llamafactory', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


INSTALLED = [
    pytest.param(*each, marks=pytest.mark.chaos if each[1] is AXOLOTL else (), id=each[1].name)  # not in every .venv
    for each in WRITERS.items()
]


@pytest.mark.e2e
@pytest.mark.parametrize(("module", "library"), INSTALLED)
def test_tables_are_those_of_the_installed_libraries(module: str, library: Library, tmp_path: Path) -> None:
    python = environments.python(MADE_IN[module]) if module in MADE_IN else sys.executable
    done = subprocess.run([python, "-m", module, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / f"{library.name}.json").read_text())
    assert written == library.content, f"{library.file} is not of the installed version; run `make known-keys`"


@pytest.mark.e2e
def test_sampling_bounds_are_those_that_vllm_enforces() -> None:
    """Runs in a process of its own, since importing vLLM changes this one."""
    steps = {"gt": (0, 1e-6), "ge": (-1, 0), "lt": (0, -1e-6), "le": (1, 0)}
    cases = [
        (name, bound + outside, bound + inside)
        for name, bounds in SAMPLING_BOUNDS.items()
        for sign, bound in bounds.items()
        for outside, inside in [steps[sign]]
    ]
    code = (
        "import sys, json\nfrom vllm import SamplingParams\nfrom vllm.exceptions import VLLMValidationError\n"
        "for name, outside, inside in json.loads(sys.argv[1]):\n"
        "    base = {'max_tokens': 16} if name != 'max_tokens' else {}\n"
        "    SamplingParams(**base, **{name: inside})\n"
        "    try:\n        SamplingParams(**base, **{name: outside})\n"
        "    except VLLMValidationError:\n        continue\n"
        "    raise SystemExit(f'{name}={outside} is accepted')\n"
    )
    done = subprocess.run(
        [environments.python("engine"), "-c", code, json.dumps(cases)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
