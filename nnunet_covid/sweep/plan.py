"""What a sweep is to run, from a file of some lines of TOML or from the flags of a command, which say the same.

A grid is data sets × configurations × trainers × lengths × seeds × folds. At the top stands one grid of trainings;
tables ``[[train]]``, ``[[pretrain]]`` and ``[[pseudo_label]]`` are further grids, and take from the top what they do
not say.
"""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from nnunet_covid.errors import UserError, did_you_mean, reason_of
from nnunet_covid.semi_supervised.options import check_tag
from nnunet_covid.startup import DEVICES
from nnunet_covid.sweep.preparation import SMALLER, Preparation
from nnunet_covid.sweep.runs import Kind, Run

GRID = ("datasets", "configurations", "trainers", "lengths", "folds", "seeds", "plans", "device", "probabilities")
OWN: dict[str, tuple[str, ...]] = {
    "train": ("pretrained", "options"),
    "pretrain": ("name", "images", "options"),
    "pseudo_label": ("name", "images", "strategy", "options"),
}
"""Tables of further grids, and what they know beside the grid."""
UNUSED = {"train": (), "pretrain": ("lengths", "folds", "seeds", "probabilities"), "pseudo_label": ("probabilities",)}
"""What of the grid means nothing to them: from the top it is passed over, in the table itself it is a mistake."""
TOP = ("baseline", "planner", "new_configurations", "slurm")
NNUNET_DEVICES = tuple(device for device in DEVICES if device != "auto")
"""Of nnU-Net's commands; which of them is there is not known where a sweep is handed to a cluster."""
FOLDS = (0, 1, 2, 3, 4)
INSTALL = 'pip install "nnunet_covid[cluster]"'
_TEXT, _TEXTS = "one text, in quotes", "one text or a list of texts"
_MIXED = "texts or numbers, one or a list"
KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    **dict.fromkeys(("plans", "device", "baseline", "planner", "inherits_from"), ((str,), _TEXT)),
    **dict.fromkeys(("pretrained", "name", "images", "strategy"), ((str,), _TEXT)),
    **dict.fromkeys(("configurations", "trainers", "lengths", "setup"), ((str,), _TEXTS)),
    **dict.fromkeys(("datasets", "options"), ((str, int, float), _MIXED)),
    **dict.fromkeys(("probabilities", SMALLER), ((bool,), "true or false, without quotes")),
}
"""What a key takes, and how that is said; seeds, folds, tables and ``[slurm]`` are looked at where they are read."""


@dataclass(frozen=True)
class Slurm:
    """What a job asks SLURM for.

    Attributes:
        minutes: Time limit; before it the job stops and is queued again, and goes on from nnU-Net's checkpoint.
        warning: Seconds before the limit at which it stops.
        memory_gb, cpus, gpus: Of one training; ``gpus`` is 1, or 0 where the device is the CPU.
        parallel: How many jobs of a sweep at once.
        partition, account, qos: Of the site.
        python: What starts Python on the nodes, such as ``apptainer exec --nv image.sif python3``.
        setup: Shell lines before it, such as ``module load cuda``.
        extra: Further options of ``sbatch``, by name.
    """

    minutes: int = 24 * 60
    warning: int = 120
    memory_gb: float = 24.0
    cpus: int = 8
    gpus: int | None = None
    parallel: int = 64
    partition: str = ""
    account: str = ""
    qos: str = ""
    python: str = ""
    setup: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sweep:
    """All runs, those that others need first, and what the table compares with.

    Attributes:
        name: In error messages.
        place: Of its file: what it is known by when the file was changed meanwhile; without one the keys of its runs.
    """

    name: str
    runs: tuple[Run, ...]
    baseline: str = "nnUNetTrainer"
    slurm: Slurm = Slurm()
    place: str = ""


def read_sweep(path: Path) -> dict[str, Any]:
    """The content of a sweep file.

    Raises:
        UserError: If it cannot be read or is no TOML, or Python is older than 3.11 and tomli is missing.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ImportError as e:
            raise UserError(f"{path}: this Python reads sweep files with tomli: {INSTALL}") from e
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as e:
        raise UserError(f"{path} cannot be read ({e.strerror}); name a sweep file") from e
    except UnicodeDecodeError as e:
        raise UserError(f"{path} is no text in UTF-8 (byte {e.start}); save it so") from e
    except tomllib.TOMLDecodeError as e:
        raise UserError(f"{path} is no TOML ({reason_of(e)}); see docs/how-to/cluster.md for an example") from e


def make_sweep(name: str, content: Mapping[str, Any]) -> Sweep:
    """The sweep that a file or the flags describe.

    Args:
        name: Of the sweep, in error messages too.
        content: As in the file.

    Raises:
        UserError: For an unknown or missing key or value.
    """
    _check_keys(name, content, (*GRID, *OWN, *TOP))
    shared = {key: content[key] for key in GRID if key in content}
    grids: list[tuple[str, Mapping[str, Any]]] = []
    for table in ("pretrain", "train", "pseudo_label"):
        for entry in _tables(name, table, content.get(table, [])):
            _check_keys(f"{name} [[{table}]]", entry, [key for key in (*GRID, *OWN[table]) if key not in UNUSED[table]])
            grids.append((table, {**shared, **entry}))
    if "trainers" in content:
        grids.append(("train", shared))
    if (described := content.get("new_configurations")) is not None:
        _check_described(name, described, content)
    if not grids:
        raise UserError(f'{name}: names no trainers; for example trainers = ["nnUNetTrainer"]')
    runs = list(itertools.chain.from_iterable(_grid(name, table, grid) for table, grid in grids))
    runs = _with_needs(name, list(dict.fromkeys(runs)), content)
    for key, count in Counter(run.key for run in runs).items():
        if count > 1:
            raise UserError(f"{name}: {count} different runs would write {key}; give them different names")
    slurm = _slurm(name, content.get("slurm", {}))
    place = " ".join(sorted(run.key for run in runs))
    return Sweep(name, tuple(runs), content.get("baseline", Sweep.baseline), slurm, place)


def _check_described(name: str, described: Any, content: Mapping[str, Any]) -> None:
    """A configuration that is described is one that runs ask for, too."""
    if not isinstance(described, Mapping):
        raise UserError(f"{name}: write [new_configurations.NAME] and the keys of the configuration NAME below it")
    for configuration, entry in described.items():
        _check_keys(f"{name} [new_configurations.{configuration}]", entry, entry)
    asked = set(map(str, _list(content.get("configurations"))))
    for table in ("pretrain", "train", "pseudo_label"):
        for entry in _tables(name, table, content.get(table, [])):
            asked |= set(map(str, _list(entry.get("configurations"))))
    heirs = {str(entry.get("inherits_from")) for entry in described.values()}
    if unused := sorted(set(described) - asked - heirs):
        raise UserError(
            f"{name}: no run has the configuration {unused[0]}, which it describes; add it to configurations"
        )


def _grid(name: str, table: str, grid: Mapping[str, Any]) -> Iterator[Run]:
    """The runs of one grid, in the order of seeds, folds, trainers."""
    from nnunet_covid.nnunet.dataset import dataset_name

    for key in ("datasets", "configurations", "trainers", *(set(OWN[table]) & {"name", "images", "strategy"})):
        if not _list(grid.get(key)):
            raise UserError(f"{name}: {key} is missing{'' if table == 'train' else f' in [[{table}]]'}")
    if "name" in OWN[table]:
        try:
            check_tag(str(grid["name"]))
        except UserError as e:
            raise UserError(f"{name} [[{table}]]: {e}") from e
    kind: Kind = "pseudo-label" if table == "pseudo_label" else "pretrain" if table == "pretrain" else "train"
    if (device := grid.get("device", Run.device)) not in NNUNET_DEVICES:
        raise UserError(f"{name}: device = {device!r}: expected one of {', '.join(NNUNET_DEVICES)}")
    options = tuple(map(str, _list(grid.get("options"))))
    if kind == "pseudo-label":
        options = ("--strategy", str(grid["strategy"]), *options)
    run = Run(
        kind,
        "",
        plans=str(grid.get("plans", Run.plans)),
        device=device,
        probabilities=grid.get("probabilities", Run.probabilities) and kind == "train",
        images=str(Path(str(grid["images"])).absolute()) if grid.get("images") else "",
        name=str(grid.get("name", "")),
        start=_start(str(grid.get("pretrained", ""))),
        options=options,
    )
    pretraining = kind == "pretrain"
    seeds = [] if pretraining else [f"seed{seed}" for seed in _numbers(name, "seeds", grid.get("seeds"))]
    lengths = [""] if pretraining else list(map(str, _list(grid.get("lengths")))) or [""]
    folds = [""] if pretraining else [_fold(name, fold) for fold in _list(grid.get("folds", FOLDS))]
    names = [dataset_name(str(dataset)) for dataset in _list(grid["datasets"])]
    for dataset, configuration, length, seed, fold, trainer in itertools.product(
        names, _list(grid["configurations"]), lengths, seeds or [""], folds, _list(grid["trainers"])
    ):
        full = "_".join(part for part in (str(trainer), length, seed) if part)
        yield replace(run, dataset=dataset, configuration=str(configuration), trainer=full, fold=fold)


def _with_needs(name: str, runs: list[Run], content: Mapping[str, Any]) -> list[Run]:
    """Preparations in front, and each run told what it waits for."""
    described = content.get("new_configurations", {})
    wanted: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        configurations = wanted.setdefault((run.dataset, run.plans), [])
        if run.configuration not in configurations:
            configurations.append(run.configuration)
    planner = str(content.get("planner", Preparation.planner))
    prepared = []
    for (dataset, plans), configurations in wanted.items():
        preparation = Preparation(dataset, plans, configurations, _parents_first(configurations, described), planner)
        prepared.append(Run("prepare", dataset, plans=plans, options=(preparation.as_json(),)))
    keys = {(run.dataset, run.plans): run.key for run in prepared}
    linked = []
    for run in runs:
        needs = [keys[run.dataset, run.plans]]
        if run.start and not run.starts_from_file:
            before = _pretraining_of(name, run, runs)
            needs.append(before.key)
            run = replace(run, pretraining=(before.images, *before.options))
        linked.append(replace(run, needs=tuple(needs)))
    return [*prepared, *linked]


def _parents_first(configurations: Iterable[str], described: Mapping[str, Any]) -> dict[str, Any]:
    """What the file says of configurations, and of those that they inherit from."""
    found: dict[str, Any] = {}
    for name in configurations:
        line: list[str] = []
        while name in described and name not in line:  # a circle is told where the plans are completed
            line.insert(0, name)
            name = described[name].get("inherits_from", "2d")
        found |= {name: described[name] for name in line}
    return found


def _pretraining_of(name: str, run: Run, runs: Iterable[Run]) -> Run:
    """The pre-training that a training starts from: of its data set, configuration and trainer."""
    candidates = [other for other in runs if other.kind == "pretrain" and other.name == run.start]
    for other in candidates:
        same = (other.dataset, other.configuration, other.plans) == (run.dataset, run.configuration, run.plans)
        if same and (run.trainer == other.trainer or run.trainer.startswith(f"{other.trainer}_")):
            seen = other.seen_fold
            if not seen or run.fold in (seen, "all"):
                return other
            raise UserError(
                f"{name}: [[pretrain]] {run.start} sees the training images of fold {seen}, validation images of "
                f"fold {run.fold} among them: take one [[pretrain]] of another name for each fold, or leave out -f"
            )
    if not candidates:
        raise UserError(f'{name}: pretrained = "{run.start}" is no name of a [[pretrain]] table, and no .pth file')
    raise UserError(
        f"{name}: [[pretrain]] {run.start} does not pre-train {run.trainer} on {run.dataset} {run.configuration}; "
        "a checkpoint fits the trainer and configuration that it was made with"
    )


def start_of(run: Run, sweep: Sweep, results: Path) -> Path | None:
    """The checkpoint that a training starts from, if any."""
    if not run.start:
        return None
    if run.starts_from_file:
        return Path(run.start)
    return _pretraining_of(sweep.name, run, sweep.runs).checkpoint(results)


def _slurm(name: str, content: Any) -> Slurm:
    _check_keys(f"{name} [slurm]", content, [entry.name for entry in fields(Slurm)])
    for key, value in content.items():
        default = 0 if key == "gpus" else getattr(Slurm(), key)
        wanted = (int, float) if isinstance(default, float) else (str, list) if key == "setup" else type(default)
        if isinstance(value, bool) or not isinstance(value, wanted):  # type: ignore[arg-type]
            raise UserError(
                f"{name} [slurm]: {key} = {value!r}: expected something like {_EXAMPLES.get(key, default)!r}"
            )
    return Slurm(**{**content, "setup": tuple(_list(content.get("setup")))})


_EXAMPLES = {"gpus": 1, "partition": "gpu", "account": "lab", "setup": ["module load cuda"]}


def _check_keys(name: str, content: Any, known: Iterable[str]) -> None:
    if not isinstance(content, Mapping):
        raise UserError(f"{name}: expected a table of keys and values")
    for key, value in content.items():
        if key not in known:
            hint = did_you_mean(key, known) or f"; known are {', '.join(known)}"
            raise UserError(f"{name}: unknown key '{key}'{hint}")
        kinds, wanted = KINDS.get(key, ((type(value),), ""))
        values = value if isinstance(value, (list, tuple)) and wanted in (_TEXTS, _MIXED) else [value]
        if not all(type(one) in kinds for one in values):
            raise UserError(f"{name}: {key} = {value!r}: expected {wanted}")


def _tables(name: str, table: str, content: Any) -> list[Mapping[str, Any]]:
    if not isinstance(content, list):
        raise UserError(f"{name}: write [[{table}]] with two brackets; there can be several")
    return content


def _start(pretrained: str) -> str:
    """A file with its whole path: jobs may work elsewhere."""
    return str(Path(pretrained).absolute()) if pretrained.endswith(".pth") else pretrained


def _list(value: Any) -> list[Any]:
    """One thing or several."""
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _numbers(name: str, key: str, value: Any) -> list[int]:
    found = _list(value)
    for number in found:
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise UserError(f"{name}: {key} {number!r}: expected whole numbers from 0 on")
    return found


def _fold(name: str, value: Any) -> str:
    if value == "all":
        return "all"
    return str(_numbers(name, "folds", value)[0])
