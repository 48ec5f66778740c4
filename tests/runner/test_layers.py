"""Which module may import which, and that the light verbs load nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# From the bottom up: a module imports only from layers before its own, or from its own.
LAYERS = [
    {
        "runner.errors",
        "runner.secrets",
        "runner.known_keys",
        "runner.comparisons",
        "runner.durable",
        "runner.machine",
        "runner.haproxy",
    },
    {"runner.schema"},
    {"runner.partial", "runner.hydra_errors", "runner.hydra_code", "runner.yaml_limits"},
    {"runner.origins"},
    {"runner.resolve"},
    {
        "runner.manifest",
        "runner.storage",
        "runner.blobs",
        "runner.s3",
        "runner.checksums",
        "runner.lock",
        "runner.running",
        "runner.output",
        "runner.progress",
    },
    {"runner.cluster", "runner.leaks"},
    {"runner.context"},
    {"stages"},
    {"runner.fingerprint", "runner.shared"},
    {"runner.checks", "runner.plan", "runner.summary", "runner.sweep_state", "runner.tracking"},
    {"runner.estimates"},
    {"runner.show", "runner.json_schema"},
    {"runner.diff"},
    {"runner.report", "runner.pages"},
    {"runner.engine", "runner.sweep_room", "runner.jobs"},
    {"runner.services", "runner.deployable", "runner.declared"},
    {"runner.sweep_jobs"},
    {
        "runner.cli",
        "runner.sweep",
        "runner.sweep_job",
        "runner.serving",
        "runner.status",
        "runner.exports",
        "runner.known_keys.generate",
    },
    {"runner.testing"},
    {"runner.__main__"},
]
HEAVY = {
    "ray", "torch", "vllm", "transformers", "llamafactory", "boto3", "botocore", "openai", "datasets", "peft", "jinja2",
    "matplotlib", "numpy", "scipy",
}  # fmt: skip


def layer(module: str) -> int | None:
    """A module of a package that is not named itself belongs to the package's layer."""
    name = "stages" if module.split(".")[0] == "stages" else module
    found = next((index for index, names in enumerate(LAYERS) if name in names), None)
    return layer(name.rpartition(".")[0]) if found is None and "." in name else found


def modules() -> dict[str, Path]:
    found = {}
    for folder in ("runner", "stages"):
        for path in (ROOT / folder).rglob("*.py"):
            found[".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")] = path
    return found


def imports(tree: ast.AST, module: str) -> list[str]:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [
                f"{node.module}.{alias.name}" if node.module in ("runner", "stages") else node.module
                for alias in node.names
            ]
    return names


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_point_to_lower_layers(module: str) -> None:
    if module == "runner":
        return
    own = layer(module)
    assert own is not None, f"{module} has no layer; name it in LAYERS"
    tree = ast.parse(modules()[module].read_text())
    for name in imports(tree, module):
        if name.split(".")[0] not in ("runner", "stages"):
            continue
        known = [candidate for candidate in (name, name.rpartition(".")[0]) if layer(candidate) is not None]
        for candidate in known[:1]:
            target = layer(candidate)
            assert target is not None
            assert target <= own, f"{module} imports {candidate}, which is above it"


# Classes that Ray Serve and vLLM load by name in their own processes; nothing else may import these modules.
RAY_SIDE = {"stages.cpu_executor", "stages.cpu_lora", "stages.serve_app", "stages.serve_replica"}


@pytest.mark.parametrize("module", sorted(set(modules()) - RAY_SIDE))
def test_nobody_imports_what_only_ray_and_vllm_load(module: str) -> None:
    names = set(imports(ast.parse(modules()[module].read_text()), module))
    assert not names & RAY_SIDE


@pytest.mark.parametrize("module", sorted(set(modules()) - RAY_SIDE))
def test_heavy_libraries_are_imported_inside_functions_only(module: str) -> None:
    tree = ast.parse(modules()[module].read_text())
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    found = {name.split(".")[0] for node in top for name in imports(node, module)}
    assert not found & HEAVY


def test_only_report_imports_rich() -> None:
    users = {
        name
        for name, path in modules().items()
        if "rich" in {n.split(".")[0] for n in imports(ast.parse(path.read_text()), name)}
    }
    assert users == {"runner.report"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["action=list"],
        ["action=schema"],
        ["recipe=viggo_quickstart", "action=plan"],
        ["recipe=viggo_quickstart", "action=show"],
        ["recipe=viggo_quickstart", "action=diff", "other=viggo_quickstart"],
        ["recipe=viggo_qwen7b", "action=validate", "storage.artifacts=s3://bucket/prefix"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_light_verbs_load_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import sys; from runner.cli import main; code = main(sys.argv[1:]); "
        f"loaded = {HEAVY!r} & set(sys.modules); assert not loaded, loaded; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout
