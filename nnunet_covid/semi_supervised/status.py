"""Where a run stands, as a table for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from nnunet_covid.semi_supervised.history import PARTS, RoundHistory, history

HEAD = ("round", "pseudo-labelled", "pool left", "validation Dice", "kept", *(f"{part}, s" for part in PARTS))


def status_table(state: Mapping[str, Any]) -> str:
    """Rounds, pool, validation Dice and time per part, and what comes next."""
    rows = [HEAD, *(_row(one) for one in history(state))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    context, units = state["context"], state["units"]
    head = f"{context['trainer']} on {context['dataset']} {context['configuration']} fold {context['fold']}"
    head += f", strategy {state['options']['strategy']}"
    if "publish" in units:
        end = f"finished; nnU-Net's validation Dice at full resolution {units['publish']['result']['dice']:.4f}"
    else:
        end = "not finished; the command that started it goes on with it"
    return "\n".join([head, *lines, end])


def _row(one: RoundHistory) -> tuple[str, ...]:
    shares = [share for share in one.kept.values() if share is not None]
    dice = "" if math.isnan(one.dice) else f"{one.dice:.4f}"
    kept = f"{sum(shares) / len(shares):.3f}" if shares else ""
    times = [f"{one.seconds[part]:.1f}" if one.seconds[part] else "" for part in PARTS]
    return (str(one.number), str(one.pseudo), str(one.left), dice, kept, *times)
