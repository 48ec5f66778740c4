"""What only some modules may import, and that the light verbs load nothing heavy; import-linter holds the layers."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT

HEAVY = {
    "ray", "torch", "vllm", "transformers", "llamafactory", "boto3", "botocore", "openai", "datasets", "peft", "jinja2",
    "matplotlib", "numpy", "scipy",
}  # fmt: skip


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


# Classes that Ray Serve and vLLM load by name in their own processes; nothing else may import these modules.
RAY_SIDE = {
    "stages.patches.ray_llm_api",
    "stages.patches.ray_llm_engine",
    "stages.patches.ray_llm_server",
    "stages.patches.vllm_cpu_lora",
    "stages.engines.vllm.serving.replica",
    "stages.engines.vllm.serving.replica_entry",
}


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
    assert users
    assert all(name.startswith("runner.report.") for name in users)


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
        "import sys; from runner.cli.main import main; code = main(sys.argv[1:]); "
        f"loaded = {HEAVY!r} & set(sys.modules); assert not loaded, loaded; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout
