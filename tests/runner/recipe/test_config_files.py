"""The user's folders and files: any path, any usual encoding; one sentence reports a file that cannot be used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runner.cli.main import main
from runner.errors import RecipeError
from runner.recipe.load import Composed, compose, to_recipe
from runner.testing import problems_of
from stages.sections.recipe import Recipe

HEAD = "# @package _global_\n"
DATA = "dataset=viggo_slice"  # for recipes of a line or two
ODD = ["my recipes, v2", "Übung", "a=b", "br[1]", "par(copy)", "it's", "hash#1", "{x}", "$HOME", "a:b"]


def write(folder: Path, name: str, text: str | bytes) -> Path:
    file = folder / "recipe" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def made(folder: Path | None, *overrides: str) -> Recipe:
    return to_recipe(compose([DATA, *overrides], folder))[0]


def refused(folder: Path | None, *overrides: str) -> str:
    """The first problem: its key, message, hint and origin in one text."""
    with pytest.raises(RecipeError) as caught:
        made(folder, *overrides)
    problem = caught.value.problems[0]
    return f"{problem.key}: {problem.message}. {problem.hint} [{problem.origin}]"


@pytest.mark.parametrize("name", ODD)
def test_a_config_folder_may_have_any_name(name: str, tmp_path: Path) -> None:
    file = write(tmp_path / name, "bot.yaml", f"{HEAD}seed: 7\n")
    assert (made(tmp_path / name, "recipe=bot").name, made(tmp_path / name, "recipe=bot").seed) == ("bot", 7)
    assert made(None, f'recipe="{file}"').seed == 7


@pytest.mark.parametrize("name", [*ODD, "my recipe"])
def test_a_path_as_a_shell_completes_it_names_the_file(name: str, tmp_path: Path) -> None:
    """Without quotes of Hydra's; the recipe has the file's name, without what a name may not hold."""
    file = write(tmp_path / name, f"{name}.yaml", f"{HEAD}seed: 7\n")
    recipe = made(None, f"recipe={file}")
    assert recipe.seed == 7
    assert recipe.name == {"Übung": "Ubung", "my recipe": "my_recipe", "$HOME": "HOME", "{x}": "x"}.get(
        name, recipe.name
    )


@pytest.mark.parametrize(
    "text", [b"\xef\xbb\xbf" + HEAD.encode(), f"---\n{HEAD}", f"\n\n{HEAD}", f"# Mine.\n{HEAD}"], ids=repr
)
def test_a_byte_order_mark_a_blank_line_and_dashes_are_nothing_special(text: str | bytes, tmp_path: Path) -> None:
    content = text.encode() if isinstance(text, str) else text
    write(tmp_path, "bot.yaml", content + b"seed: 7\n")
    assert made(tmp_path, "recipe=bot").seed == 7


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("# caf\xe9\n".encode("latin-1"), "is not UTF-8: line 1"),
        (HEAD.encode("utf-16"), "is UTF-16"),
        (HEAD.encode("utf-32"), "is UTF-32"),
        ("\n", "is empty"),
        ("seed: 1\n", "has no line `# @package _global_`"),
        ("# @package train\nseed: 1\n", "has `# @package train`"),
        (f"{HEAD}seed: [1\n", "is not valid YAML"),
        (f"{HEAD}seed:\t1\n", "Write spaces instead of the tab"),
        (f"{HEAD}query: {{a: b: c}}\n", "not valid YAML"),
        (f"{HEAD}name: a: b\n", "Put quotes around a text that holds a colon and a space."),
        (f"{HEAD}name: @a\n", "Put quotes around a text that begins with such a character."),
        (HEAD.encode("utf-16-le"), "is UTF-16LE"),
        (b"\x7fELF\x02\x00\xf0", "is not a text"),
        (
            f"{HEAD}defaults: [override /model: smollm2_135m, override /model: gemma_3_4b_it]\n",
            "for `override /model` twice",
        ),
        (f"{HEAD}- seed\n", "must be a mapping"),
        (f"{HEAD}a: {'x' * (1 << 20)}\n", "bytes; there may be"),
        (f"{HEAD}train:\n  lora_rank: 010\n", "has 010 in line 3, which YAML reads as the number 8"),
        (f"{HEAD}serve: {{port: 1:30}}\n", "has 1:30 in line 2, which YAML reads as the number 90"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 40 else "",
)
def test_a_file_that_cannot_be_used_is_named_with_the_reason(text: str | bytes, words: str, tmp_path: Path) -> None:
    file = write(tmp_path, "bot.yaml", text)
    message = refused(tmp_path, "recipe=bot")
    assert words in message
    assert str(file) in message


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("defaults: [model: smollm2_135m]", "`- override /model: smollm2_135m`"),
        ("defaults: [override model: smollm2_135m]", "`- override /model: NAME`"),
        ("defaults: [/model: smollm2_135m]", "`- override /model: NAME` in a recipe"),
        ("defaults: {model: smollm2_135m}", "must be a list"),
        ("defaults:", "must be a list"),
        ("defaults: [override /model: nope]", "there is no model 'nope'"),
        ("defaults: [override /sweep: optuna]", "Choose it on the command line: sweep=NAME."),
        ("defaults: [other]", "To include a file next to yours, have both in"),
        ("train.num_epochs: 2", "Write train: {num_epochs: ...}."),
        ("serve: {autoscaling.max_replicas: 2}", "Write autoscaling: {max_replicas: ...}."),
        ("dataset: {dataset: {source: x}}", "has its keys at the top"),
        ("name: on", "YAML reads yes, no, on, off, true and false so"),
    ],
)
def test_a_line_that_hydra_refuses_is_explained_with_its_file(line: str, words: str, tmp_path: Path) -> None:
    write(tmp_path, "other.yaml", HEAD)
    file = write(tmp_path, "bot.yaml", f"{HEAD}{line}\n")
    message = refused(None, f"recipe={file}")
    assert words in message
    assert f"[{file}" in message


def test_a_file_behind_a_link_has_the_same_limits(tmp_path: Path) -> None:
    elsewhere = write(tmp_path / "elsewhere", "big.yaml", f"{HEAD}a: {'x' * (1 << 20)}\n")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "recipe").symlink_to(elsewhere.parent)
    assert "bytes; there may be" in refused(tmp_path / "mine", "recipe=big")


def test_plain_numbers_and_texts_in_quotes_are_left_alone(tmp_path: Path) -> None:
    write(
        tmp_path, "bot.yaml", f"{HEAD}seed: 0\ntrain: {{learning_rate: 0.010}}\ndataset: {{roles: {{'010': user}}}}\n"
    )
    recipe = made(tmp_path, "recipe=bot")
    assert (recipe.seed, recipe.train.learning_rate, recipe.dataset.roles) == (0, 0.01, {"010": "user"})


def test_a_pipe_or_a_folder_that_is_named_as_a_recipe_is_not_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "bot.yaml", HEAD)
    os.mkfifo(tmp_path / "recipe" / "pipe.yaml")
    (tmp_path / "recipe" / "folder.yaml").mkdir()
    assert main(["list", "--config-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("is a folder, a pipe or a device") == 2
    assert "pipe" not in refused(tmp_path, "recipe=nothing")


def test_files_of_the_folder_that_are_not_recipes_are_not_read(tmp_path: Path) -> None:
    write(tmp_path, "bot.yaml", HEAD)
    (tmp_path / "config.yaml").write_text("name: another\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "big.yaml").write_text("x" * (2 << 20))
    assert made(tmp_path, "recipe=bot").name == "bot"


def test_a_recipe_without_a_name_has_its_files(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", HEAD)
    write(tmp_path, "b.yaml", f"{HEAD}name: other\n")
    assert [made(tmp_path, f"recipe={name}").name for name in "ab"] == ["a", "other"]
    assert made(tmp_path, "recipe=a", "name=mine").name == "mine"


def test_a_users_file_under_a_shipped_name_wins_and_is_the_origin(tmp_path: Path) -> None:
    file = write(tmp_path, "viggo_quickstart.yaml", f"{HEAD}seed: 7\n")
    composed = compose(["recipe=viggo_quickstart", DATA], tmp_path)
    assert to_recipe(composed)[0].seed == 7
    assert composed.origin("seed") == f"{file}:2"


def test_a_file_by_its_path_is_a_recipe_with_its_own_origins(tmp_path: Path) -> None:
    file = write(tmp_path, "bot.yaml", f"{HEAD}seed: 7\n")
    composed: Composed = compose([f"recipe={file}", DATA])
    assert (to_recipe(composed)[0].name, composed.origin("seed")) == ("bot", f"{file}:2")


@pytest.mark.parametrize(
    ("folder", "overrides", "words"),
    [
        ("mine", ["recipe=short"], "must end in .yaml"),
        ("mine", ["recipe=mine/recipe/short.yml"], "must end in .yaml"),
        ("mine", ["recipe=mine/recipe/none.yaml"], "is not a file"),
        (None, ["recipe=mine/recipe/bot"], "recipe=mine/recipe/bot.yaml"),
        ("nowhere", ["recipe=bot"], "is not there"),
        ("mine/recipe", ["recipe=bot"], "Name the folder above"),
        ("mine/recipe/bot.yaml", ["recipe=bot"], "is a file, not a folder"),
    ],
)
def test_a_path_that_is_not_what_it_should_be_is_reported_plainly(
    folder: str | None, overrides: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("mine"), "bot.yaml", HEAD)
    write(Path("mine"), "short.yml", HEAD)
    assert words in refused(Path(folder) if folder else None, *overrides)


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("dataset.prompt.system=Grüße", "Grüße"),
        ("dataset.prompt.system=~/x", "~/x"),
        ("dataset.prompt.system=a?b=c", "a?b=c"),
        (r'dataset.prompt.system="a\nb\tc"', "a\nb\tc"),
        (r'dataset.prompt.system="\\d"', r"\\d"),
    ],
)
def test_plain_text_is_read_as_it_is_written(override: str, value: str) -> None:
    composed = compose(["recipe=viggo_quickstart", override])
    assert composed.values["dataset"]["prompt"]["system"] == value
    assert compose(composed.overrides).values == composed.values  # what comes out can be given in again


def test_a_mapping_may_be_json() -> None:
    override = 'infer.engine_kwargs.hf_overrides={"rope_scaling":{"factor":4.0,"rope_type":"yarn"}}'
    values = compose(["recipe=viggo_quickstart", override]).values
    assert values["infer"]["engine_kwargs"]["hf_overrides"] == {"rope_scaling": {"factor": 4.0, "rope_type": "yarn"}}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (r"dataset.prompt.system=a\nb", "outside of double quotes"),
        (r"dataset.prompt.system='a\nb'", "outside of double quotes"),
        ("pipeline=[Grüße]", "'ü'"),
        ("train.lora_rank=[8", "cannot be read"),
        ("bad key=1", "a key that cannot be read"),
        ("seed=-1", "greater than or equal to 0"),
        ("train.learning_rate=inf", "finite"),
        ("train.args.weight_decay=nan", "finite"),
    ],
)
def test_what_cannot_be_read_is_named_in_this_products_words(override: str, words: str) -> None:
    message = refused(None, "recipe=viggo_quickstart", override)
    assert words in message
    assert "LexerNoViableAlt" not in message


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.batch_size=4", "Did you mean train.args.per_device_train_batch_size?"),
        ("evaluate.metrics=[accuracy]", "Did you mean exact_match?"),
    ],
)
def test_a_usual_name_from_elsewhere_leads_to_the_name_here(override: str, words: str) -> None:
    problems = problems_of("viggo_quickstart", override)
    assert words in " ".join(problem.hint for problem in problems.values())
