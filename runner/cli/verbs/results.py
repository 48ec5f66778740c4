"""Verbs of finished runs: `status`, `report`, `serve`, `export`, `clean`."""

from __future__ import annotations

import shutil
from pathlib import Path

from runner.cli.asked import Asked, Call, needed, print_json
from runner.cli.named_runs import find_named, recipe_of_run, serving
from runner.errors import EXIT_DONE, RunnerError, UsageError, printable
from runner.pipeline.runs import LATEST
from runner.text import count_text


def status(call: Call) -> int:
    """Print what the named run does, else the newest of the named recipe, else the newest; or how a job is."""
    from runner.report.status import status_lines, status_of

    if call.options.job:
        from runner.cli.verbs.cluster import job_of
        from runner.cluster import jobs

        return jobs.status(*job_of(call), call.options.format == "json")
    found = status_of(find_named(call, next(iter(call.options.runs), LATEST)))
    if call.options.format == "json":
        print_json(found)
    else:
        print(printable("\n".join(status_lines(found))))
    return EXIT_DONE


def report(call: Call) -> int:
    """Write the pages of the named runs again, or the one over all runs of a recipe, and print where they are."""
    from runner.report.pages import write_recipe_report, write_report

    recipe = call.recipe_name()
    if recipe and not call.options.runs:
        pages = write_recipe_report(call.root, recipe)
    else:
        pages = [path for name in call.options.runs or [LATEST] for path in write_report(find_named(call, name))]
    print("\n".join(map(str, pages)))
    return EXIT_DONE


def serve(call: Call) -> int:
    """Serve adapters of finished runs behind one endpoint, by the first run's recipe."""
    from runner.cli.verbs.run import run
    from runner.pipeline.rules.check import load_recipe

    served, options = serving(call)
    return run([Asked(load_recipe(served)[0], options, served, call.line)])


def of_run(call: Call) -> tuple[Call, Path | None]:
    """The call about the recipe of the run that `runs` names, with that run's folder; itself where it names none."""
    if not call.options.runs:
        return call, None
    if len(call.options.runs) > 1:
        raise UsageError(f"{call.line.verb} is about one run, and runs names {len(call.options.runs)}", "Name one.")
    folder = find_named(call, call.options.runs[0])
    return Call(call.line, recipe_of_run(call.composed, folder)), folder


def export(call: Call) -> int:
    """Write the files of `target`, and say which."""
    from stages.deploy.export import TARGETS, files_of, write_files
    from stages.deploy.export.facts import Facts, served_config, task_overrides
    from stages.sections.recipe import with_sections

    options = call.options
    if options.target is None:
        raise needed("target", "export", f"Add target=NAME: {', '.join(TARGETS)}.")
    about, folder = of_run(call)
    asked = about.checked()
    own_folder = None if options.export_to else (folder or find_named(call, LATEST)) / "export"
    where = own_folder or Path(str(options.export_to)).expanduser()
    recipe = with_sections(asked.recipe)
    serves = options.target in ("serve-config", "kuberay", "anyscale")
    config = served_config(recipe, asked.options, asked.root) if serves else None
    own = str(call.line.config_dir) if call.line.config_dir else None
    overrides = list(dict.fromkeys([*(_recorded(folder) if folder else []), *call.composed.overrides]))
    facts = Facts(recipe, task_overrides(overrides), options.image, config, own)
    print("\n".join(write_files(files_of(options.target, facts), where)))
    return EXIT_DONE


def _recorded(folder: Path) -> list[str]:
    """The overrides of the command that made the run."""
    import shlex

    from runner.cli.command_line import read_command_line
    from runner.pipeline.runs import state_of_run

    words = shlex.split(state_of_run(folder, "identity.json").get("command", ""))
    return read_command_line(words[3:]).overrides  # after `python -m runner`


def clean(call: Call) -> int:
    """List and remove the recipe's run folders; the artifact store and the model cache are left alone.

    A folder whose sealed manifest does not name a run of this recipe is left, and named.
    Raises LockedError while a run is active under the same `storage.root`.
    """
    from runner.pipeline.manifest import DRAWINGS
    from runner.pipeline.run_locks import no_runs

    asked = call.checked()
    name, root = asked.recipe.name, asked.root
    home = root / name
    if not home.is_dir():
        print(f"no runs of {name} below {root}")
        return EXIT_DONE
    with no_runs(root, call.line.text):
        own = [folder for folder in _folders(home) if _is_own_run(folder, name)]
        for folder in own:
            print(f"removing {folder}")
        for folder in _folders(home):
            if folder not in own:
                print(f"leaving {folder}: not a run of {name} by its manifest")
        _remove(own, root / "latest")
        if own:
            shutil.rmtree(home / DRAWINGS, ignore_errors=True)
    print(f"removed {count_text(len(own), 'run')} of {name}")
    return EXIT_DONE


def _folders(home: Path) -> list[Path]:
    return sorted(path for path in home.iterdir() if (path.is_dir() or path.is_symlink()) and path.name[0] != ".")


def _is_own_run(folder: Path, recipe: str) -> bool:
    """Whether the runner's own sealed record says that the folder is that run of the recipe."""
    from runner.pipeline.manifest import Manifest

    if folder.is_symlink():
        return False
    try:
        manifest = Manifest.load(folder)
    except (RunnerError, OSError):
        return False
    return (manifest.recipe, manifest.run_id) == (recipe, folder.name)


def _remove(folders: list[Path], latest: Path) -> None:
    if latest.is_symlink() and latest.resolve() in folders:
        latest.unlink()
    for folder in folders:
        shutil.rmtree(folder)
