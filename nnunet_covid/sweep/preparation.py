"""Planning and pre-processing of a data set, once, before the runs that need it; ``python -m`` this module does it.

A configuration that the plans lack can be described in the sweep file; it inherits from one that nnU-Net plans.
"""

from __future__ import annotations

import copy
import inspect
import json
import math
import shutil
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from nnunet_covid.dataset_json import other_folds
from nnunet_covid.errors import UserError, reason_of
from nnunet_covid.files import environment_folder, files_in, lock_of, read_json, stays_below, write_json
from nnunet_covid.startup import cores

STAGES = ("features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage", "n_blocks_per_stage")
DECODER = "n_conv_per_stage_decoder"
SMALLER = "smaller"
USUAL_PLANS = "nnUNetPlans"


@dataclass(frozen=True)
class Preparation:
    """What must be planned and pre-processed of one data set.

    Attributes:
        dataset: Full name.
        plans: Name of the plans.
        configurations: That runs need.
        described: What the sweep file says of those of them that it describes, and of what they inherit from, by name;
            each behind what it inherits from.
        planner: nnU-Net's planner, where there are no plans yet.
    """

    dataset: str
    plans: str
    configurations: list[str]
    described: dict[str, dict[str, Any]] = field(default_factory=dict)
    planner: str = "ExperimentPlanner"

    def finished(self, preprocessed: Path) -> bool:
        """Whether all of it is there."""
        return not self.missing(preprocessed)

    def missing(self, preprocessed: Path) -> list[str]:
        """Configurations that are not in the plans, or whose cases are not all pre-processed."""
        folder = preprocessed / self.dataset
        plans = self.read_plans(preprocessed)
        cases = len(files_in(folder / "gt_segmentations"))
        lacking = []
        for name in self.configurations:
            entry = plans.get(name)
            identifier = resolved(plans, name).get("data_identifier") if entry else None
            there = len(list((folder / identifier).glob("*.pkl"))) if identifier else 0
            if entry is None or not cases or there < cases:
                lacking.append(name)
        return lacking

    def described_otherwise(self, preprocessed: Path) -> str:
        """A line about plans of another planner, or a configuration that has a described one's name and is another."""
        made_by = (read_json(self.file(preprocessed)) or {}).get("experiment_planner_used", self.planner)
        if self.planner not in (Preparation.planner, made_by):
            return (
                f"{self.file(preprocessed)} was written by {made_by}, not by the sweep file's planner "
                f"{self.planner}: give its plans another name (plans = …), or leave planner out"
            )
        plans = self.read_plans(preprocessed)
        for name in sorted(set(self.described) & set(plans)):
            wanted, there = self._entry(name, plans), plans[name]
            for key in sorted({*wanted, *there} - {"data_identifier"}):
                if wanted.get(key) != there.get(key):
                    return (
                        f"{self.file(preprocessed)} has another {key} in '{name}' than the sweep file describes: "
                        "give the configuration another name"
                    )
        return ""

    def read_plans(self, preprocessed: Path) -> dict[str, Any]:
        """The configurations of the plans; none where there are no plans."""
        return (read_json(self.file(preprocessed)) or {}).get("configurations", {})

    def file(self, preprocessed: Path) -> Path:
        """The plans."""
        return preprocessed / self.dataset / f"{self.plans}.json"

    def run(self, preprocessed: Path) -> None:
        """Do what is missing; nnU-Net's own planning and pre-processing.

        One process at a time works at a data set: several plans can share a folder of pre-processed data, which nnU-Net
        empties when it begins.

        Raises:
            UserError: If the plans have no configuration of a name that the sweep file does not describe either, or
                nnU-Net has no such planner, or one that writes other plans.
        """
        with FileLock(lock_of(preprocessed / self.dataset)):
            self._run(preprocessed)

    def _run(self, preprocessed: Path) -> None:
        from nnunetv2.experiment_planning import plan_and_preprocess_api as nnunet
        from nnunetv2.utilities.dataset_name_id_conversion import convert_dataset_name_to_id

        number, processes = convert_dataset_name_to_id(self.dataset), _processes()
        if not self.read_plans(preprocessed):
            name = None if self.plans == USUAL_PLANS else self.plans
            self._check_planner(name)
            raw = environment_folder("nnUNet_raw") or Path()
            if line := other_folds(*(place / self.dataset / "splits_final.json" for place in (preprocessed, raw))):
                raise UserError(line)
            nnunet.extract_fingerprints([number], num_processes=processes)
            nnunet.plan_experiments([number], self.planner, overwrite_plans_name=name)
            self._discard_earlier(preprocessed, _data_of(read_json(self.file(preprocessed))))
        self._describe(preprocessed)
        for name in self.missing(preprocessed):
            nnunet.preprocess_dataset(number, self.plans, configurations=(name,), num_processes=(processes,))

    def _discard_earlier(self, preprocessed: Path, names: set[str]) -> None:
        """Remove what earlier plans have left in folders of these names, but what other plans have part in."""
        own = self.file(preprocessed)
        others = [_data_of(read_json(path)) for path in own.parent.glob("*.json") if path != own]
        for folder in (own.parent / name for name in names.difference(*others)):
            if folder.is_symlink():
                folder.unlink()
            with suppress(FileNotFoundError):
                shutil.rmtree(folder)

    def _check_planner(self, name: str | None) -> None:
        """Before anything is computed: does it exist, and write the plans that are wanted?"""
        import nnunetv2
        from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

        folder = Path(nnunetv2.__path__[0], "experiment_planning")
        found = recursive_find_python_class(str(folder), self.planner, current_module="nnunetv2.experiment_planning")
        if found is None:
            raise UserError(
                f"planner {self.planner}: nnU-Net has none of this name; leave planner out for its usual one"
            )
        usual = inspect.signature(found).parameters["plans_name"].default
        if name is None and usual != USUAL_PLANS:
            raise UserError(f'{self.planner} writes the plans {usual}: set plans = "{usual}" in the sweep file')

    def _describe(self, preprocessed: Path) -> None:
        """Add the described configurations to the plans, without what earlier ones of the name have left."""
        file = self.file(preprocessed)
        plans = read_json(file) or {}
        before = _data_of(plans)
        self._complete(preprocessed, plans["configurations"])
        self._discard_earlier(preprocessed, _data_of(plans) - before)
        write_json(file, plans, indent=4)

    def check_configurations(self, preprocessed: Path) -> None:
        """Where there are plans: does each configuration stand in them, or can be made of them as the sweep file says?

        Raises:
            UserError: If one does not.
        """
        if known := self.read_plans(preprocessed):
            self._complete(preprocessed, known)

    def _complete(self, preprocessed: Path, known: dict[str, Any]) -> None:
        """Add the described configurations to those of the plans."""
        for name in (*self.described, *self.configurations):
            if name not in known and name not in self.described:
                raise UserError(
                    f"{self.file(preprocessed)} has no configuration '{name}', but {', '.join(known)}; "
                    f"take one of these, or describe it in the sweep file, [new_configurations.{name}]"
                )
            try:
                if name not in known:
                    known[name] = self._entry(name, known)
            except (KeyError, IndexError, TypeError) as e:  # such as a patch size that is one number
                raise UserError(
                    f"configuration '{name}' of the sweep file does not fit {self.file(preprocessed)} "
                    f"({reason_of(e)}); give its keys what they hold there"
                ) from e

    def _entry(self, name: str, known: dict[str, Any]) -> dict[str, Any]:
        described = dict(self.described[name])
        parent = described.setdefault("inherits_from", "2d")
        if parent not in known:
            raise UserError(f"configuration '{name}' inherits from '{parent}'; name one of {', '.join(known)}")
        if described.pop(SMALLER, False):
            described["architecture"] = smaller(resolved(known, parent)["architecture"])
        entry = {"data_identifier": f"{self.plans}_{name}", **described}
        if not stays_below(identifier := entry["data_identifier"], one_name=True):  # nnU-Net empties that folder
            raise UserError(f"configuration '{name}': data_identifier {identifier!r} is no name of a folder; give one")
        whole_entry = {**resolved(known, parent), **entry}
        patch, architecture = (whole_entry.get(key) for key in ("patch_size", "architecture"))
        strides = (architecture or {}).get("arch_kwargs", {}).get("strides", [])
        for axis, side in enumerate(patch or []):
            whole = math.prod(stride if isinstance(stride, int) else stride[axis] for stride in strides)
            if side % whole:
                raise UserError(
                    f"configuration '{name}': {side} of its patch_size {patch} is no multiple of {whole}, the "
                    "network's strides along this axis; give one that is"
                )
        return entry

    def as_json(self) -> str:
        """For the command line of this module."""
        return json.dumps(asdict(self))


def _data_of(plans: dict[str, Any] | None) -> set[str]:
    """The folders of pre-processed data that plans name; none of what are no plans."""
    configurations = (plans or {}).get("configurations")
    entries = configurations.values() if isinstance(configurations, dict) else ()
    names: list[Any] = [entry.get("data_identifier") for entry in entries if isinstance(entry, dict)]
    return {name for name in names if stays_below(name, one_name=True)}


def smaller(architecture: dict[str, Any]) -> dict[str, Any]:
    """The architecture without its deepest stage and with half the features."""
    small = copy.deepcopy(architecture)
    arguments = small["arch_kwargs"]
    for name in (*STAGES, DECODER):
        if name in arguments:
            arguments[name] = arguments[name][:-1]
    arguments["n_stages"] -= 1
    arguments["features_per_stage"] = [n // 2 for n in arguments["features_per_stage"]]
    return small


def resolved(configurations: dict[str, Any], name: str) -> dict[str, Any]:
    """A configuration with what it inherits, as nnU-Net puts it together."""
    entry = configurations[name]
    return {**resolved(configurations, entry["inherits_from"]), **entry} if "inherits_from" in entry else entry


def _processes() -> int:
    """As many as nnU-Net would start (``nnUNet_def_n_proc``), and no more than there are cores for this process."""
    from nnunetv2.configuration import default_num_processes

    return max(1, min(default_num_processes, cores()))


def main() -> None:
    """Do the preparation that is given as JSON."""
    folder = environment_folder("nnUNet_preprocessed")
    assert folder is not None
    try:
        Preparation(**json.loads(sys.argv[1])).run(folder)
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        raise SystemExit(2) from e


if __name__ == "__main__":
    main()
