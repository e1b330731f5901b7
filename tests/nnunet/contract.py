"""What this project's source asks of nnU-Net and its libraries, read off the source itself.

Imports, calls of what is imported, methods that are overridden, and attributes that are read from trainers, plans,
label managers and predictors: whatever the code begins to use is under contract from then on.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.metadata
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
ROOMS = ("nnunet_covid", "trainers", "dataset_conversion")
DISTRIBUTIONS = {
    "nnunetv2": "nnunetv2",
    "dynamic_network_architectures": "dynamic-network-architectures",
    "batchgenerators": "batchgenerators",
    "batchgeneratorsv2": "batchgeneratorsv2",
    "acvl_utils": "acvl_utils",
}
"""Packages under contract, to the names that they install under."""


@dataclass(frozen=True)
class Use:
    """A name of another package that a file of ours imports.

    Attributes:
        module, name: As in ``from module import name``.
        file: Of ours, relative to the repository.
    """

    module: str
    name: str
    file: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True)
class Call:
    """A call of an imported name: how many arguments without a name, and the names of the others."""

    use: Use
    line: int
    positional: int
    named: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.use.file}:{self.line}-{self.use.name}"

    def shape(self) -> str:
        return ", ".join([*["…"] * self.positional, *(f"{name}=…" for name in self.named)])


def moved(thing: str, what: str, where: str) -> str:
    """The message of a broken contract: package and version, what moved, and the file that relies on it."""
    package = thing.split(".")[0]
    version = importlib.metadata.version(DISTRIBUTIONS[package])
    return f"{package} {version}: {thing} {what}; {where} relies on it"


@functools.cache
def sources() -> list[tuple[str, ast.Module]]:
    """Our files, relative to the repository, and their trees."""
    paths = [path for room in ROOMS for path in sorted((REPOSITORY / room).rglob("*.py"))]
    return [(str(path.relative_to(REPOSITORY)), ast.parse(path.read_text(encoding="utf-8"))) for path in paths]


@functools.cache
def uses() -> list[Use]:
    """Every import from the packages under contract."""
    return [
        Use(node.module, alias.name, file)
        for file, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in DISTRIBUTIONS
        for alias in node.names
        if node.module
    ]


def calls() -> list[Call]:
    """Every call of an imported name whose arguments are written out."""
    found = []
    for file, tree in sources():
        imported = {use.name: use for use in uses() if use.file == file}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in imported:
                if any(isinstance(a, ast.Starred) for a in node.args) or any(k.arg is None for k in node.keywords):
                    continue
                named = tuple(k.arg for k in node.keywords if k.arg)
                found.append(Call(imported[node.func.id], node.lineno, len(node.args), named))
    return found


def attributes_of(*names: str) -> dict[str, set[str]]:
    """Attributes that our source reads from variables (or attributes) of these names, to the files that do.

    Left out is what a class of ours brings: one that stands in the place of theirs, or another thing of that name.
    """
    found: dict[str, set[str]] = {}
    brought = {name for _, tree in sources() for node in ast.walk(tree) for name in _brought_by(node)}
    for file, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and _last_name(node.value) in names and node.attr not in brought:
                found.setdefault(node.attr, set()).add(file)
    return found


def _brought_by(node: ast.AST) -> list[str]:
    """Methods and declared fields of a class that derives from a class under contract (by its name, nnUNet…)."""
    if not isinstance(node, ast.ClassDef) or not any((_last_name(b) or "").startswith("nnUNet") for b in node.bases):
        return []
    fields = [s.target.id for s in node.body if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)]
    stored = [n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)]
    methods = [s.name for s in node.body if isinstance(s, ast.FunctionDef)]
    plain = [t.id for s in node.body if isinstance(s, ast.Assign) for t in s.targets if isinstance(t, ast.Name)]
    return [*fields, *stored, *methods, *plain]


def _last_name(node: ast.expr) -> str | None:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else None


def attributes_of_self(kind: type) -> dict[str, str]:
    """What a class of ours reads from itself or its base without bringing it, to the file."""
    try:
        source = inspect.getsource(kind)
    except OSError:  # made in a loop out of two others, which are looked at themselves
        return {}
    tree = ast.parse(inspect.cleandoc("\n" + source))
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    own = {node.attr for node in attributes if isinstance(node.ctx, ast.Store)}
    read = {node.attr for node in attributes if isinstance(node.ctx, ast.Load) and _is_itself(node.value)}
    ours = [base for base in kind.__mro__ if base.__module__.startswith("nnunet_covid")]
    brought = {name for base in ours for name in (*vars(base), *vars(base).get("__annotations__", {}))}
    file = Path(inspect.getfile(kind)).name
    return {name: file for name in read - own - brought if not name.startswith("__")}


def _is_itself(node: ast.expr) -> bool:
    name = node.func if isinstance(node, ast.Call) else node
    return isinstance(name, ast.Name) and name.id in ("self", "cls", "super")


def overridden(kind: type) -> list[str]:
    """Methods and properties of a class of ours that a class under contract has too."""
    theirs = [base for base in kind.__mro__ if base.__module__.split(".")[0] in DISTRIBUTIONS]
    names = [n for n in vars(kind) if n == "__init__" or not n.startswith("__")]
    return [n for n in names if any(n in vars(base) for base in theirs)]


def resolve(use: Use) -> Any:
    """The imported thing, which may be a module of its own; ``None`` if it is not there."""
    try:
        module = importlib.import_module(use.module)
        if hasattr(module, use.name):
            return getattr(module, use.name)
        return importlib.import_module(f"{use.module}.{use.name}")
    except ModuleNotFoundError:
        return None
