"""The command line: parse, compose, check, then one function for each verb. Exit codes are in `runner.errors`."""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.errors import EXIT_DONE, EXIT_INTERRUPTED, Problem, RecipeError, RunnerError, printable
from runner.recipe.grants import as_overrides
from runner.recipe.load import RECIPES_DIR, Composed, compose
from runner.recipe.schema import Recipe, RunOptions
from runner.report.terminal import Report

UNNAMED = "custom"  # the name in recipes/config.yaml, when no recipe is asked for
HELP = """\
usage: python -m runner recipe=NAME [key=value ...] [-m] [--config-dir DIR]

Run a recipe: ingest a dataset, fine-tune with LoRA, publish, batch-infer, evaluate, serve, query, clean up.

  python -m runner action=list                                  the recipes there are
  python -m runner recipe=viggo_quickstart                      run one
  python -m runner recipe=viggo_quickstart action=plan          what would run, and why
  python -m runner recipe=viggo_qwen7b action=validate          check it, without a GPU or a network
  python -m runner recipe=viggo_quickstart train.lora_rank=16   change any key of the recipe
  python -m runner recipe=viggo_qwen7b model=smollm2_135m dataset=viggo_generated storage=local cluster=local_cpu
                                                                swap whole groups
  python -m runner -m recipe=viggo_quickstart train.lora_rank=4,8    sweep

what to do (action=...)
  run        run the pipeline; stages whose inputs have not changed are taken over from earlier runs (default)
  plan       say which stages would run and why, with resources and what is known of bytes, memory, steps and time
  validate   report every problem of the recipe
  show       print the resolved recipe, with the file and line that each value comes from
  diff       print what differs from other=RECIPE, a recipe file, a run's folder or id, or latest
  preview    print a row (row=0) as the model sees it, what carries loss, and token lengths against the limits
  schema     print the recipe's JSON Schema: every key, its type, default and meaning; with group=recipe (or model,
             dataset, ...) the schema of such files, for editors
  list       list recipes, group variants and stages, those of other packages too
  clean      remove the run folders of the recipe (and nothing else)
  status     what a run does or did, from another terminal: the newest, of recipe=NAME, or runs=[ID]
  export     write what others run: target=ray-job, serve-config, kuberay, anyscale, compose or ci (export_to=FOLDER)
  serve      the adapters of finished runs behind one endpoint: runs=[ID,ID], or sweep=ID top=3

on a Ray cluster, cluster.address=http://HEAD:8265
  submit     run the recipe there as a Ray Job and show its log; it goes on without this terminal
  status     how job=ID is    logs  its log    stop  end it in order; submitted again, it continues
  deploy     serve the recipe's adapter as a Ray Serve application; what fails is rolled back
  undeploy   remove that application

which stages
  only=[evaluate]     just these, on the results of earlier runs
  start_at=infer      from this one on          stop_after=train    up to this one
  force=[train]       run it even when a result can be taken over

options
  -m, --multirun      Hydra sweep: key=a,b,c runs once for each value
  --config-dir DIR    your own recipes: DIR/recipe/NAME.yaml, and group variants such as DIR/dataset/NAME.yaml
  --trust KEY         let these keys of the recipe name code, files, packages, processes or hosts (KEY,KEY)
  --allow-env NAME    let the recipe read these environment variables (NAME,NAME)
  format=json         plan, validate, show, diff, preview and list print one JSON document
  hydra.verbose=true  show tracebacks
  -h, --help          this text                 --version           the version

exit codes: 0 done, 1 a stage failed, 2 the recipe is invalid, 3 a quality gate said no, 4 another run holds the lock,
130 interrupted
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_intermixed_args(argv)  # overrides may stand on both sides of an option
    verbose = "hydra.verbose=true" in args.overrides
    if args.help:
        print(HELP, end="")
        return EXIT_DONE
    if args.version:
        from runner import __version__

        print(__version__)
        return EXIT_DONE
    try:
        args.overrides += as_overrides({"trust": args.trust, "allow_env": args.allow_env})
        if args.multirun:
            return _sweep(args, _command(argv))
        return dispatch(args.overrides, args.config_dir, _command(argv))
    except RunnerError as error:
        if verbose:
            raise
        return _explain(error, args.overrides)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def dispatch(overrides: list[str], config_dir: Path | None, command: str) -> int:
    """Compose the configuration and do what `action` says."""
    from runner.cli.serve_runs import name_the_sweep
    from runner.pipeline.check import load_recipe

    composed = compose(name_the_sweep(overrides, config_dir), config_dir)
    action = composed.values.get("action", "run")
    if action == "list":
        return _list(composed, config_dir)
    if action == "schema":
        return _schema(composed)
    if action == "serve":
        return _serve(composed, config_dir, command)
    if action == "status" and not composed.values.get("job"):
        return _status(composed)
    if action in ("status", "logs", "stop"):
        return _job(action, composed)
    recipe, options = load_recipe(composed)
    verbs: dict[str, Callable[[Asked], int]] = {
        "run": _run,
        "plan": _plan,
        "validate": _validate,
        "show": _show,
        "diff": _diff,
        "preview": _preview,
        "clean": _clean,
        "submit": _submit,
        "deploy": _deploy,
        "undeploy": _undeploy,
        "export": _export,
    }
    return verbs[options.action](Asked(recipe, options, composed, config_dir, command))


@dataclass(frozen=True)
class Asked:
    """What a verb is about."""

    recipe: Recipe
    options: RunOptions
    composed: Composed
    config_dir: Path | None
    command: str

    @property
    def root(self) -> Path:
        """The folder of the run folders."""
        return self.recipe.storage.runs


def _run(asked: Asked) -> int:
    from runner.pipeline.engine import run
    from runner.report.observers import observers

    return run(asked.recipe, asked.options, asked.command, observers(Report()), asked.composed.origins)[0]


def _serve(composed: Composed, config_dir: Path | None, command: str) -> int:
    from runner.cli.serve_runs import serving
    from runner.pipeline.check import load_recipe

    served, options = serving(composed)
    return _run(Asked(load_recipe(served)[0], options, served, config_dir, command))


def _status(composed: Composed) -> int:
    """Print what the named run does, else the newest of the recipe that the command line names, else the newest."""
    from runner.report.status import find_run, status_lines, status_of

    values = composed.values
    root = Path(values["storage"]["root"]).expanduser().resolve()
    recipe = None if values["name"] == UNNAMED else values["name"]
    status = status_of(find_run(root, recipe, next(iter(values.get("runs") or []), None)))
    if values.get("format") == "json":
        _print_json(status)
    else:
        print(printable("\n".join(status_lines(status))))
    return EXIT_DONE


def _job(action: str, composed: Composed) -> int:
    """`status`, `logs` or `stop` of a job, which needs no recipe."""
    from runner.cluster import jobs

    values = composed.values
    job, address = values.get("job"), jobs.dashboard_address(values["cluster"]["address"])
    if not job:
        raise RecipeError([Problem("job", None, f"is needed by action={action}", "action=submit says it.")])
    if action == "status":
        return jobs.status(job, address, values.get("format") == "json")
    return jobs.logs(job, address) if action == "logs" else jobs.stop(job, address)


def _submit(asked: Asked) -> int:
    from runner.cluster import jobs

    return jobs.submit(asked.recipe, asked.options, asked.composed.overrides, asked.config_dir)


def _deploy(asked: Asked) -> int:
    from stages.deploy import rollout as services

    return services.deploy(asked.recipe, asked.root, asked.command, Report().say)


def _undeploy(asked: Asked) -> int:
    from stages.deploy import rollout as services

    return services.undeploy(asked.recipe, Report().say)


def _plan(asked: Asked) -> int:
    from runner.pipeline import plan
    from runner.pipeline.check import trusted_values
    from runner.pipeline.estimates import estimate
    from runner.pipeline.shared_cache import SharedCache, is_shared

    recipe, shared = asked.recipe, None
    if is_shared(recipe) and "://" not in recipe.storage.artifacts:
        shared = SharedCache(recipe, lambda remark: print(printable(remark), file=sys.stderr))
    past = plan.PastRuns(asked.root, shared)
    if is_shared(recipe) and shared is None:
        past.remarks.append(f"results of other machines in {recipe.storage.artifacts} are not looked at in a plan")
    for remark in past.remarks:
        print(printable(remark), file=sys.stderr)
    made = plan.build(recipe, asked.options, past)
    found = estimate(recipe, made, past)
    if asked.options.format == "json":
        figures = {name: [each.as_dict() for each in listed] for name, listed in found.items()}
        steps = [step.as_dict(recipe) | {"estimates": figures.get(step.name, [])} for step in made.steps]
        _print_json({"recipe": recipe.name, "trusted": trusted_values(recipe), "steps": steps})
    else:
        Report().plan_in_full(recipe, made.steps, found)
    return EXIT_DONE


def _validate(asked: Asked) -> int:
    if asked.options.format == "json":
        _print_json({"ok": True, "problems": []})
    else:
        print(f"{asked.recipe.name}: ok")
    return EXIT_DONE


def _show(asked: Asked) -> int:
    from runner.recipe import show

    if asked.options.format == "json":
        values = show.shown_values(asked.recipe)
        _print_json({"recipe": values, "origins": show.value_origins(values, asked.composed)})
    else:
        print(show.as_yaml(asked.recipe, asked.composed), end="")
    return EXIT_DONE


def _diff(asked: Asked) -> int:
    from runner.report import diff

    if asked.options.other is None:
        hint = "Add other=NAME: a recipe's name or file, a run's folder or id, or latest."
        raise RecipeError([Problem("other", None, "is needed by action=diff and was not given", hint)])
    other = diff.find_other(asked.options.other, asked.root, asked.config_dir)
    found = diff.differences(diff.Side.of_recipe(asked.recipe.name, asked.recipe, asked.composed), other)
    if asked.options.format == "json":
        named = {"this": asked.recipe.name, "other": other.name}
        _print_json(named | {"differences": [each.as_dict() for each in found]})
    else:
        Report().diff(asked.recipe.name, other.name, [each.as_dict() for each in found])
    return EXIT_DONE


def _preview(asked: Asked) -> int:
    from stages.ingest.preview import preview, preview_lines

    found = preview(asked.recipe, asked.options.row)
    if asked.options.format == "json":
        _print_json(found)
    else:
        print(printable("\n".join(preview_lines(found))))
    return EXIT_DONE


def _clean(asked: Asked) -> int:
    """Remove the recipe's run folders; the artifact store and the model cache are left alone.

    Raises LockedError while a run is going on under the same `storage.root`.
    """
    from runner.pipeline.manifest import DRAWINGS, MANIFEST
    from runner.pipeline.run_locks import no_runs

    recipe, root = asked.recipe, asked.root
    with no_runs(root, asked.command):
        folders = [path.parent for path in sorted((root / recipe.name).glob(f"*/{MANIFEST}"))]
        latest = root / "latest"
        if latest.is_symlink() and latest.resolve().parent == root / recipe.name:
            latest.unlink()
        for folder in folders:
            shutil.rmtree(folder)
        shutil.rmtree(root / recipe.name / DRAWINGS, ignore_errors=True)
    print(f"removed {len(folders)} run{'s' if len(folders) != 1 else ''} of {recipe.name}")
    return EXIT_DONE


def _export(asked: Asked) -> int:
    """Write the files of `target`, and say which."""
    from runner.report.status import find_run
    from stages.deploy.export import TARGETS, write_files
    from stages.deploy.export.facts import Facts, served_config, task_overrides

    target = asked.options.target
    if target is None:
        hint = f"Add target=NAME: {', '.join(TARGETS)}."
        raise RecipeError([Problem("target", None, "is needed by action=export and was not given", hint)])
    where = asked.options.export_to
    folder = Path(where).expanduser() if where else find_run(asked.root, asked.recipe.name, None) / "export"
    serves = target in ("serve-config", "kuberay", "anyscale")
    config = served_config(asked.recipe, asked.options, asked.root) if serves else None
    own = str(asked.config_dir) if asked.config_dir else None
    facts = Facts(asked.recipe, task_overrides(asked.composed.overrides), asked.options.image, config, own)
    print("\n".join(write_files(TARGETS[target](facts), folder)))
    return EXIT_DONE


def _schema(composed: Composed) -> int:
    from runner.pipeline.registry import mappings, stage_settings
    from runner.recipe import json_schema

    group, known = composed.values.get("group"), ("recipe", *json_schema.sections())
    if group is not None and group not in known:
        raise RecipeError(
            [Problem("group", group, f"has no files; there are: {', '.join(known)}", "Name one of these.")]
        )
    stages = json_schema.FromStages(mappings(), stage_settings())
    _print_json(json_schema.recipe_schema(stages) if group is None else json_schema.file_schema(group, stages))
    return EXIT_DONE


def _list(composed: Composed, config_dir: Path | None) -> int:
    from runner.pipeline.registry import describe_stage, known_stages

    roots = [RECIPES_DIR, *([config_dir.resolve()] if config_dir else [])]
    groups = sorted(
        {path.name for root in roots for path in root.iterdir() if path.is_dir() and path.name[0] not in "_."}
    )
    found = {
        group: {file.stem: headline(file) for root in roots for file in sorted((root / group).glob("*.yaml"))}
        for group in groups
    }
    stages = {name: describe_stage(name) for name in known_stages()}
    if composed.values.get("format") == "json":
        _print_json(found | {"stages": stages})
        return EXIT_DONE
    for group in ["recipe", *(name for name in groups if name != "recipe")]:
        print(f"{group}=")
        for name, line in found.get(group, {}).items():
            print(f"  {name:<22} {line}".rstrip())
    print("stages of a pipeline")
    for name, line in stages.items():
        print(f"  {name:<22} {line}".rstrip())
    return EXIT_DONE


def headline(file: Path) -> str:
    """The first comment line of a recipe file that says what it is."""
    for line in file.read_text(encoding="utf-8").splitlines():
        text = line.removeprefix("#").strip()
        if line.startswith("#") and not text.startswith(("@package", "yaml-language-server")):
            return text
    return ""


def _sweep(args: argparse.Namespace, command: str) -> int:
    from runner.sweep.grid import sweep

    return sweep(args.overrides, args.config_dir, command)


def _explain(error: RunnerError, overrides: list[str]) -> int:
    problems = error.problems if isinstance(error, RecipeError) else []
    if "format=json" in overrides:
        listed = problems or [Problem("", None, error.message, error.hint)]
        _print_json({"ok": False, "problems": [problem.as_dict() for problem in listed]})
    else:
        Report(sys.stderr).error(error, problems)
    return error.exit_code


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def _command(argv: list[str]) -> str:
    return shlex.join(["python", "-m", "runner", *argv])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m runner", add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("--config-dir", type=Path)
    parser.add_argument("--trust", action="append", default=[])
    parser.add_argument("--allow-env", action="append", default=[])
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--version", action="store_true")
    return parser
