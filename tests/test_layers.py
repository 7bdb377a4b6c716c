"""Modules import downwards only: each layer knows those below it, none above (DESIGN.md)."""

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

from env.sources import PROJECT

# From the top; folders and modules of one layer do not import each other.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("tasks",),
    ("runtime.tasks",),
    ("runtime.measure", "runtime.demo_recipe"),
    ("runtime.server",),
    ("runtime.ops",),
    ("runtime.transcriber", "runtime.transcript", "runtime.formats"),
    ("runtime.weights", "runtime.engines"),
    ("runtime.host", "runtime.audio", "runtime.model"),
    ("runtime",),
    ("env",),
)
# The modules of one layer that read like one: the transcript, and the ways to write it down.
TOGETHER = {"runtime.transcriber", "runtime.transcript", "runtime.formats"}


def room(module: str) -> tuple[int, str]:
    """The number of a module's layer from the top, and the folder or module of it that it is in."""
    found = [
        (len(name), number, name)
        for number, layer in enumerate(LAYERS)
        for name in layer
        if module == name or module.startswith(f"{name}.")
    ]
    _, number, name = max(found)
    return number, name


def modules() -> dict[str, Path]:
    """The project's own modules, by name."""
    files = subprocess.run(
        ["git", "ls-files", "*.py", ":!tests", ":!docker"], cwd=PROJECT, capture_output=True, text=True, check=True
    ).stdout.split()
    return {name.removesuffix(".py").replace("/", ".").removesuffix(".__init__"): PROJECT / name for name in files}


def imported(source: Path, known: dict[str, Path]) -> Iterator[str]:
    """Each of the project's modules that a module imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & known.keys()
            yield from inner or {node.module} & known.keys()


def test_no_module_imports_one_of_a_layer_above_it() -> None:
    known = modules()
    upwards = []
    for name, source in known.items():
        number, here = room(name)
        for other in imported(source, known):
            above, there = room(other)
            beside = above == number and there != here and not {here, there} <= TOGETHER
            if above < number or beside:
                upwards.append(f"{name} imports {other}")
    assert not upwards, "\n".join(upwards)


def test_the_product_imports_nothing_of_the_tests() -> None:
    helpers = {path.stem for path in (PROJECT / "tests").rglob("*.py")} - {"conftest", "__init__"}
    for name, source in modules().items():
        for node in ast.walk(ast.parse(source.read_text())):
            found = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not [one for one in found if one.partition(".")[0] in {"tests", *helpers}], name


def test_images_have_no_training_recipe_and_only_developers_ask_for_it() -> None:
    assert "runtime/demo_recipe" in (PROJECT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    known = modules()
    users = {
        name
        for name, source in known.items()
        if not name.startswith("runtime.demo_recipe")
        and any(other.startswith("runtime.demo_recipe") for other in imported(source, known))
    }
    assert users == {"runtime.tasks.develop"}
