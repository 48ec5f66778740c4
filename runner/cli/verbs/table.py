"""The verbs of the command line: what each does, on what, with which options. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

Subject = Literal["recipe", "result", "none"]
GRANTS = ("trust", "allow_env", "allow")  # options of every verb, given as --trust, --allow-env and --allow
SELECTION = ("only", "start_at", "stop_after", "force")


@dataclass(frozen=True)
class Verb:
    """A verb.

    summary: one line of the overview. example: arguments that show it. on: `recipe` needs `recipe=NAME`; `result` takes
    the recipe of a run where `runs=[...]` names one; `none` needs neither. options: keys of `RunOptions` that it uses.
    function: `module:function` below runner.cli.verbs; it takes a `Call`, or where the verb `sweeps` (with -m) the
    checked recipe of each job, which is one without -m. One that composes no recipe takes the `CommandLine`.
    """

    name: str
    summary: str
    example: str
    on: Subject
    options: tuple[str, ...]
    function: str
    sweeps: bool = False
    composes: bool = True

    def load(self) -> Any:
        """The function that does it."""
        module, _, name = self.function.partition(":")
        return getattr(import_module(f"runner.cli.verbs.{module}"), name)


_RECIPE = "recipe=viggo_quickstart"
_HEAD = "cluster.address=http://10.0.0.1:8265"

FAMILIES: dict[str, tuple[Verb, ...]] = {
    "begin": (
        Verb("init", "write a recipe and its test for data of your own", "data=tickets.csv", "none",
             ("data", "user", "answer"), "init:init", composes=False),
    ),
    "run a recipe": (
        Verb("run", "run the pipeline; unchanged stages are reused (the default verb)", f"{_RECIPE} train.lora_rank=16",
             "recipe", (*SELECTION, "max_parallel_jobs"), "run:run", True),
        Verb("plan", "show which stages would run and why, with memory and time", _RECIPE, "recipe",
             (*SELECTION, "format"), "run:plan", True),
    ),
    "look at a recipe": (
        Verb("validate", "report every problem, without a GPU or a network", f"{_RECIPE} format=json", "recipe",
             (*SELECTION, "format"), "inspect:validate", True),
        Verb("show", "print every value, and the file and line it comes from", _RECIPE, "recipe",
             (*SELECTION, "format"), "inspect:show", True),
        Verb("diff", "compare with another recipe, a recipe file or a run", f"{_RECIPE} other=latest", "recipe",
             ("other", "format"), "inspect:diff"),
        Verb("preview", "print a row as the model sees it, and token lengths", f"{_RECIPE} row=3", "recipe",
             ("row", "format"), "inspect:preview"),
        Verb("list", "list recipes, group variants and stages", "--config-dir mine", "none", ("format",),
             "inspect:list_all"),
        Verb("schema", "print the JSON Schema: every key, type, default, meaning", "group=recipe", "none", ("group",),
             "inspect:schema"),
    ),
    "look at results": (
        Verb("status", "show what a run does or did, from any terminal", "runs=[latest]", "none",
             ("runs", "job", "format"), "results:status"),
        Verb("report", "write a run's page again, or one over all runs of recipe=NAME", "runs=[latest]", "none",
             ("runs",), "results:report"),
        Verb("serve", "bring adapters of finished runs back behind one endpoint", "runs=[latest] serve.port=8130",
             "result", ("runs", "sweep_id", "top"), "results:serve"),
        Verb("export", "write files that other tools run, from a recipe", f"{_RECIPE} target=ci export_to=.", "result",
             ("runs", "target", "export_to", "image", *SELECTION), "results:export"),
        Verb("clean", "list and remove the recipe's run folders", _RECIPE, "recipe", (), "results:clean"),
    ),
    "use a Ray cluster": (
        Verb("submit", "run the recipe there as a Ray Job and show its log", f"{_RECIPE} {_HEAD}", "recipe",
             ("follow", *SELECTION), "cluster:submit"),
        Verb("logs", "show the log of a job", f"job=ID {_HEAD}", "none", ("job",), "cluster:logs"),
        Verb("stop", "end a job in order; submitted again, it continues", f"job=ID {_HEAD}", "none", ("job",),
             "cluster:stop"),
        Verb("deploy", "serve an evaluated adapter there; a failure is rolled back", f"runs=[latest] {_HEAD}", "result",
             ("runs",), "cluster:deploy"),
        Verb("rollback", "deploy again what was served there before", f"{_RECIPE} {_HEAD}", "recipe", (),
             "cluster:rollback"),
        Verb("undeploy", "remove that application", f"{_RECIPE} {_HEAD}", "result", ("runs",), "cluster:undeploy"),
    ),
}  # fmt: skip
VERBS: dict[str, Verb] = {verb.name: verb for verbs in FAMILIES.values() for verb in verbs}
