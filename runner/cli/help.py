"""The text of `--help`: an overview, and a page for each verb with its own options and an example."""

from __future__ import annotations

import textwrap

from runner.cli.unknown_words import unknown_word
from runner.cli.verbs.table import FAMILIES, VERBS, Verb
from runner.errors import RecipeError

WIDTH = 80
_HEAD = """\
usage: python -m runner [VERB] [recipe=NAME] [key=value ...] [--config-dir DIR]

Run a recipe: ingest a dataset, fine-tune with LoRA, publish, batch-infer,
evaluate, serve, query, clean up.

  python -m runner init data=tickets.csv              a recipe for your data
  python -m runner list                               the recipes there are
  python -m runner run recipe=viggo_quickstart        run one (or without `run`)
  python -m runner validate recipe=path/to/mine.yaml  check a file of your own
  python -m runner VERB --help                        options and an example
"""
_TAIL = """
values
  key=value          change any key of the recipe: train.lora_rank=16
  group=variant      swap a part: model=smollm2_135m cluster=local_cpu
  key=a key=b        of a key that is given twice, the last value counts
  "a\\nb"             \\n and \\t are a newline and a tab in double quotes:
                     'dataset.prompt.user="Question:\\n{input}"'

options
  -m, --multirun     sweep: key=a,b,c runs once for each value
  --config-dir DIR   your own recipes: DIR/recipe/NAME.yaml, and variants such
                     as DIR/dataset/NAME.yaml; yours win over shipped ones
  --trust KEY        let these keys of the recipe name code, files, packages,
                     processes or hosts (KEY,KEY)
  --allow-env NAME   let the recipe read these environment variables (NAME,NAME)
  hydra.verbose=true show tracebacks, and digests and sizes at the end of a run
  -h, --help         this text, or with a verb its own
  --version          the version

your settings: ~/.config/recipe-runner/settings.yaml
  Which variables and which hosts a recipe may use is yours to say, here or on
  the command line, never a recipe file's:
    submit.env: [HF_TOKEN]
    cluster.address: http://10.0.0.1:8265    # of submit, logs, stop, deploy
    deploy.url: https://models.example.com
    allow: [s3://our-bucket]    # places that recipe files may name, all verbs

shell completion: echo 'eval "$(recipe-runner completion bash)"' >> ~/.bashrc
                  (zsh: completion zsh, and ~/.zshrc)

exit codes: 0 done, 1 a stage or what else was begun failed, 2 nothing was
begun: the recipe or command line is invalid, names a run or job that is not
there or a place that cannot be written, 3 a quality gate failed, 4 another run
holds the lock, 130 interrupted
"""
_COMPLETION = """\
usage: python -m runner completion bash|zsh

Print the script by which a shell completes verbs, recipes, keys and values.

example
  echo 'eval "$(recipe-runner completion bash)"' >> ~/.bashrc
"""
_SWEEP = ("-m, --multirun", "do it for each combination of key=a,b,c")
_CONFIG_DIR = ("--config-dir DIR", "folder of your own recipes and group variants")
_YES = ("--yes", "ask nothing, and overwrite files that are there")
_GRANTS = (
    ("--trust KEY,KEY", "let these keys of the recipe name code, files, packages, processes or hosts"),
    ("--allow-env NAME", "let the recipe read these environment variables (NAME,NAME)"),
    ("--allow PLACE", "let the recipe name these hosts, buckets, folders and what is below them (PLACE,PLACE)"),
)


def page(name: str) -> str:
    """The verb's page, or the overview where no verb is named. Raises RecipeError for a name that is not a verb."""
    if name in ("", "help"):
        return overview()
    if name == "completion":
        return _COMPLETION
    if name not in VERBS:
        raise RecipeError([unknown_word(name)])
    return verb_help(name)


def overview() -> str:
    """The text of `--help`."""
    lines = [_HEAD]
    for family, verbs in FAMILIES.items():
        lines += [family, *(f"  {verb.name:<10} {verb.summary}" for verb in verbs), ""]
    return "\n".join(lines).rstrip() + "\n" + _TAIL


def verb_help(name: str) -> str:
    """The text of `VERB --help`."""
    verb = VERBS[name]
    subject = {"recipe": " recipe=NAME", "result": " [recipe=NAME | runs=[ID]]", "none": ""}[verb.on]
    values = "" if verb.on == "none" else " [key=value ...]"
    lines = [f"usage: python -m runner {name}{subject}{values}", "", _sentence(verb.summary), ""]
    lines += ["example", *_wrapped(f"python -m runner {name} {verb.example}", "  ", " \\\n      "), ""]
    return "\n".join([*lines, "options", *_options(verb)]) + "\n"


def _options(verb: Verb) -> list[str]:
    from runner.recipe.schema import RunOptions

    rows = []
    for key in verb.options:
        info = RunOptions.model_fields[key]
        shown = "sweep=ID" if key == "sweep_id" else f"{key}={_value(key, info.examples)}"
        rows.append((shown, info.description or ""))
    rows += [_SWEEP] if verb.sweeps else []
    if not verb.composes:
        rows += [("recipe=FILE.yaml", "the file to write"), ("model=NAME", "the variant to train"),
                 ("cluster=NAME", "the variant to train on"), _YES]  # fmt: skip
        return [line for shown, text in rows for line in _row(shown, text)]
    rows += [_CONFIG_DIR, *(_GRANTS if verb.on == "recipe" else ())]
    return [line for shown, text in rows for line in _row(shown, text)]


def _value(key: str, examples: list[object] | None) -> str:
    example = (examples or ["VALUE"])[0]
    return f"[{','.join(map(str, example))}]" if isinstance(example, list) else str(example)


def _row(shown: str, text: str) -> list[str]:
    lines = textwrap.wrap(text, WIDTH - 24)
    if len(shown) > 20:
        return [f"  {shown}", *(f"{'':<24}{line}" for line in lines)]
    return [f"  {shown:<22}{line}" if not index else f"{'':<24}{line}" for index, line in enumerate(lines or [""])]


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _wrapped(text: str, indent: str, joint: str) -> list[str]:
    lines = textwrap.wrap(text, WIDTH - 8, break_long_words=False, break_on_hyphens=False)
    return [indent + joint.join(lines)]
