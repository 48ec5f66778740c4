"""Verbs of a Ray cluster: `submit`, `logs`, `stop`, `deploy`, `rollback`, `undeploy`."""

from __future__ import annotations

from runner.cli.asked import Call, needed
from runner.report.terminal import Report


def submit(call: Call) -> int:
    """Send the recipe as a Ray Job. Returns the job's exit code, or 0 with follow=false."""
    from runner.cluster import jobs
    from runner.pipeline.registry import stop_seconds

    asked = call.checked()
    overrides, stop_s = asked.composed.overrides, stop_seconds(asked.recipe)
    return jobs.submit(asked.recipe, asked.options, overrides, call.line.config_dir, stop_s=stop_s)


def logs(call: Call) -> int:
    """Show a job's log to its end."""
    from runner.cluster import jobs

    return jobs.logs(*job_of(call))


def stop(call: Call) -> int:
    """End a job as Ctrl-C would."""
    from runner.cluster import jobs

    return jobs.stop(*job_of(call))


def job_of(call: Call) -> tuple[str, str]:
    """The job that the command line names, and its cluster's address. Raises RecipeError."""
    from runner.cluster import jobs

    job = call.options.job
    address = jobs.dashboard_address(call.composed.values["cluster"]["address"])
    if not job:
        raise needed("job", call.line.verb, "`submit` prints it.")
    return job, address


def deploy(call: Call) -> int:
    """Serve the adapter of the recipe, or of the run that `runs` names, as an application of the cluster."""
    from runner.cli.verbs.results import of_run
    from stages.deploy import rollout
    from stages.sections.recipe import with_sections

    asked = of_run(call)[0].checked()
    return rollout.deploy(with_sections(asked.recipe), asked.root, call.line.text, Report().say)


def rollback(call: Call) -> int:
    """Deploy what the recipe's application served before, by the same steps as any deploy."""
    from runner.cli.named_runs import recipe_of_run
    from runner.cluster import jobs
    from stages.deploy import rollout
    from stages.deploy.history import before_the_present
    from stages.sections.recipe import with_sections

    asked = call.checked()
    address = jobs.dashboard_address(asked.recipe.cluster.address)
    folder = before_the_present(asked.root, asked.recipe.name, address)
    earlier = Call(call.line, recipe_of_run(call.composed, folder)).checked()
    Report().say(f"back to the run {folder.name}")
    return rollout.deploy(with_sections(earlier.recipe), earlier.root, call.line.text, Report().say)


def undeploy(call: Call) -> int:
    """Remove the application of the recipe, or of the run that `runs` names."""
    from runner.cli.verbs.results import of_run
    from stages.deploy import rollout
    from stages.sections.recipe import with_sections

    return rollout.undeploy(with_sections(of_run(call)[0].checked().recipe), Report().say)
