"""What a run has done, on disk after every unit of work, so that it can be killed at any moment; and what that tells.

A unit is a function that may be done again from its start without harm. Its result is written down when it has ended;
from then on it is never done again. Beside the state: the table of a round's pseudo labels, the history of the rounds
that the picture shows, and the table for the terminal.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from nnunet_covid.csv_files import write_csv
from nnunet_covid.errors import UserError
from nnunet_covid.evaluation.tables import aligned
from nnunet_covid.files import write_json
from nnunet_covid.semi_supervised.options import shown

VERSION = 1
FILE = "state.json"
PARTS = ("select", "label", "train", "validate", "other")
"""Of a round, for the time it took."""
HEAD = ("round", "pseudo-labelled", "pool left", "validation Dice", "kept", *(f"{part}, s" for part in PARTS))
"""Of the table for the terminal."""


class RunState:
    """The units that are done and their results: a new run's, or those of an interrupted one of the same options.

    Attributes:
        folder: Holds the state file.
        options: What decides the run, a dataclass.
        context: Data set, trainer and images it works on.
        units: Name of a unit to its result and its seconds.

    Raises:
        UserError: If the folder holds a run with other options, another trainer or other images.
    """

    def __init__(self, folder: Path, options: Any, context: dict[str, Any]) -> None:
        self.folder = folder
        self.options = options
        self.context = context
        found = read_state(folder) or {"options": asdict(options), "context": context, "units": {}}
        # a run that was begun before an option existed has its default
        defaults = {one.name: one.default for one in fields(options) if one.default is not MISSING}

        def told(key: str, value: Any) -> str:
            """A switch by whether it was given: the command line may call it by what it switches off."""
            default = defaults.get(key, MISSING)
            if value is default and (value is None or isinstance(value, bool)):
                return "not given"
            return "given" if isinstance(value, bool) and default is not MISSING else repr(value)

        both = (({**defaults, **found["options"]}, asdict(options), shown), (found["context"], context, str))
        changed = [
            f"{named(key)} was {told(key, before.get(key))} and is {told(key, value)}"
            for before, now, named in both
            for key, value in now.items()
            if before.get(key) != value
        ]
        if changed:
            raise UserError(
                f"{folder} holds a run with other settings ({'; '.join(changed)}). Give the same ones to go on, "
                "another `name` to start beside it, or delete the folder"
            )
        self.units: dict[str, dict[str, Any]] = found["units"]

    def require_same(self, unit: str, cases: list[str], data_folder: Path, fold: int | str, side: str) -> None:
        """The cases of a side of the fold, written down as a unit, are those that the run began with.

        Raises:
            UserError: If they are others.
        """
        if self.once(unit, lambda: cases) != cases:
            raise UserError(
                f"{data_folder / 'splits_final.json'}: fold {fold} has other {side} cases than when the run began. "
                "Put the file back, or start beside it with another `name`"
            )

    def forget_where_lost(self, unit: str, checkpoint: Path) -> None:
        """A unit whose checkpoint is not there any more, or damaged, is to be done again."""
        if not is_zipfile(checkpoint):
            self.units.pop(unit, None)

    def once(self, name: str, work: Callable[[], Any]) -> Any:
        """The result of a unit; it is done and written down if it is not done yet."""
        if name not in self.units:
            start = time.perf_counter()
            result = work()
            self.units[name] = {"result": result, "seconds": round(time.perf_counter() - start, 3)}
            parts = {"options": asdict(self.options), "context": self.context, "units": self.units}
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.folder / FILE, {"version": VERSION, **parts}, indent=1, durable=True)
        return self.units[name]["result"]


def read_state(folder: Path) -> dict[str, Any] | None:
    """The content of a state file; ``None`` if there is none.

    Raises:
        UserError: If it cannot be read or is of another version.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = int(content["version"])
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise UserError(f"{path} cannot be read ({e}); restore it, or delete the folder to start afresh") from e
    if found != VERSION:
        raise UserError(
            f"{path} is of version {found}, this program writes {VERSION}; delete the folder to start afresh"
        )
    return content


def write_manifest(folder: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Image, round, model checksum, mean confidence and share of voxels kept, one row per image."""
    classes = list(records[0]["predicted"]) if records else []
    rows = []
    for r in records:
        total = kept_shares({"": sum(r["predicted"].values())}, {"": sum(r["kept"].values())})
        shares = [*total.values(), *kept_shares(r["predicted"], r["kept"]).values()]
        cells = ["" if share is None else f"{share:.6f}" for share in shares]
        rows.append([r["image"], r["round"], r["model"], f"{r['confidence']:.6f}", *cells])
    folder.mkdir(parents=True, exist_ok=True)
    head = ["image", "round", "model", "confidence", "kept", *(f"kept_{name}" for name in classes)]
    write_csv(folder / "manifest.csv", head, rows, durable=True)


def summarise(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sums over a round: voxels by label value, predicted and kept voxels by class, mean confidence."""
    result: dict[str, Any] = {part: Counter() for part in ("counts", "predicted", "kept")}
    for record in records:
        for part in result:
            result[part].update(record[part])
    result["confidence"] = sum(r["confidence"] for r in records) / len(records) if records else None
    result["images"] = len(records)
    return result


def kept_shares(predicted: Mapping[str, int], kept: Mapping[str, int]) -> dict[str, float | None]:
    """Share of the predicted voxels of each class that are trusted; ``None`` where nothing was predicted."""
    return {name: kept[name] / voxels if voxels else None for name, voxels in predicted.items()}


@dataclass
class RoundHistory:
    """What a state file says about one round.

    Attributes:
        number: 0 is the training on labelled images alone.
        two_step: Whether it is no round but Semi-Inf-Net's two-step training after the last one.
        pseudo: Pseudo-labelled images at its end.
        left: Images that no round has taken yet.
        dice: Validation Dice of the last model it made, not a number before that.
        classes: The same by class.
        kept: Share of predicted voxels kept, by class.
        weights: Class weights of eq. (8), if any.
        seconds: Time of each part.
    """

    number: int
    two_step: bool = False
    pseudo: int = 0
    left: int = 0
    dice: float = math.nan
    classes: dict[str, float] = field(default_factory=dict)
    kept: dict[str, float | None] = field(default_factory=dict)
    weights: list[float] | None = None
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))


def history(units: Mapping[str, Any]) -> list[RoundHistory]:
    """The rounds of a run, in order.

    Args:
        units: Of its state.
    """
    pool = len(units.get("pool", {}).get("result", {}).get("cases", ()))
    rounds: dict[int, RoundHistory] = {}
    taken = 0
    for name, unit in units.items():
        number, _, what = name.partition("/")
        if not number.isdecimal():
            continue
        one = rounds.setdefault(int(number), RoundHistory(int(number)))
        result, part = unit["result"], what.split()[0]
        if part == "select":
            taken += len(result)
        elif part == "label":
            one.kept = kept_shares(result["predicted"], result["kept"])
        elif part == "validate":
            one.dice, one.classes = result["mean"], result["classes"]
        elif part == "weights":
            one.weights = result
        elif isinstance(result, dict) and "steps" in result:
            part = "train"  # the unit bears the name of the model
        one.two_step |= "pre_trained" in what
        one.pseudo, one.left = taken, pool - taken
        one.seconds[part if part in PARTS else "other"] += unit["seconds"]
    return [rounds[n] for n in sorted(rounds)]


def status_table(state: Mapping[str, Any]) -> str:
    """Rounds, pool, validation Dice and time per part, and what comes next.

    Args:
        state: Content of a state file.
    """
    context, units = state["context"], state["units"]
    rows = []
    for one in history(units):
        shares = [share for share in one.kept.values() if share is not None]
        dice = "" if math.isnan(one.dice) else f"{one.dice:.4f}"
        kept = f"{sum(shares) / len(shares):.3f}" if shares else ""
        times = [f"{seconds:.1f}" if seconds else "" for seconds in one.seconds.values()]
        name = "two-step" if one.two_step else str(one.number)
        rows.append((name, str(one.pseudo), str(one.left), dice, kept, *times))
    head = f"{context['trainer']} on {context['dataset']} {context['configuration']} fold {context['fold']}"
    head += f", strategy {state['options']['strategy']}"
    if "publish" in units:
        end = f"finished; nnU-Net's validation Dice at full resolution {units['publish']['result']['dice']:.4f}"
    else:
        end = "not finished; the command that started it goes on with it"
    return "\n".join([head, *aligned(HEAD, rows), end])
