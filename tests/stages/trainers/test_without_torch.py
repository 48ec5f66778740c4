"""Tasks that compare token ids do not import torch, and make the ids that a process with torch makes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runner.cluster.session import RaySession
from runner.recipe.schema import Cluster, StageResources
from stages.samples import without_torch
from stages.sections.recipe import Recipe
from tests.paths import ROOT
from tests.stages.models.families import save_tokenizer

_IDS = """
import json, sys
from stages.samples import without_torch
without_torch.begin()
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
asked = [{"role": "user", "content": "Ça va? 7"}]
ids = tokenizer.apply_chat_template(asked, tokenize=True, return_dict=False)
from datasets import Dataset
rows = Dataset.from_dict({"input_ids": [ids]})  # which names its content by a pickle
print(json.dumps([rows["input_ids"][0], "torch" in sys.modules]))
"""


def model_of(folder: Path, **values: Any) -> Path:
    save_tokenizer("qwen3", folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3", **values}))
    return folder


def with_model(recipe: Recipe, **values: Any) -> Recipe:
    return recipe.model_copy(update={"model": recipe.model.model_copy(update=values)})


@pytest.mark.environment("llamafactory")
def test_the_ids_are_those_of_a_process_that_has_torch_and_torch_is_not_imported(tmp_path: Path) -> None:
    folder = model_of(tmp_path)
    found = []
    for variables in (
        {},
        without_torch.in_own_process(StageResources(), None, RaySession(Cluster()).import_ahead).runtime_env[
            "env_vars"
        ],
    ):
        done = subprocess.run(
            [sys.executable, "-c", _IDS, str(folder)],
            env={**os.environ, **variables}, cwd=ROOT, check=True, capture_output=True, text=True,
        )  # fmt: skip
        found.append((json.loads(done.stdout), done.stderr))
    ((ids, _), _), ((same_ids, has_torch), messages) = found
    assert ids == same_ids
    assert ids
    assert not has_torch
    assert "PyTorch" not in messages


def test_images_named_templates_own_code_and_a_model_elsewhere_need_more(quickstart: Recipe, tmp_path: Path) -> None:
    folder = model_of(tmp_path / "text")
    assert without_torch.possible(with_model(quickstart, template=None), folder)
    assert not without_torch.possible(with_model(quickstart, template="qwen"), folder)
    assert not without_torch.possible(with_model(quickstart, trust_remote_code=True), folder)
    assert not without_torch.possible(quickstart, model_of(tmp_path / "images", vision_config={}))
    assert not without_torch.possible(quickstart, tmp_path / "not here")


def test_variables_of_the_recipe_are_kept() -> None:
    resources = StageResources(runtime_env={"env_vars": {"NCCL_DEBUG": "INFO"}, "py_executable": "/x/python"})
    given = without_torch.in_own_process(resources, None, RaySession(Cluster()).import_ahead).runtime_env
    assert given["py_executable"] == "/x/python"
    assert given["env_vars"]["NCCL_DEBUG"] == "INFO"
    assert len(given["env_vars"]) > 1
    assert len(resources.runtime_env["env_vars"]) == 1


def test_processes_of_an_environment_begin_to_import_at_once() -> None:
    begun: list[tuple[Any, ...]] = []
    resources = StageResources(runtime_env={"env_vars": {"NCCL_DEBUG": "INFO"}, "py_executable": "/x/python"})
    there = without_torch.in_own_process(
        resources, "tool", lambda *given: begun.append(given) or {"py_executable": "/y"}
    )
    assert there.runtime_env == {"py_executable": "/y"}
    ((environment, imports, given),) = begun
    assert environment == "tool"
    assert imports == ["stages.samples.without_torch:begin"]
    assert given.keys() == {"env_vars"}
    assert given["env_vars"].items() > {"NCCL_DEBUG": "INFO"}.items()


def test_other_processes_keep_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    before = sys.modules.get("torch", "not imported")
    without_torch.begin()
    assert sys.modules.get("torch", "not imported") == before
