"""Draw the page of what works with what from the results of the tests in ``tests/matrix``.

NNUNET_COVID_MATRIX_RESULTS=results.jsonl pytest tests/matrix
python docs/draw_feature_matrix.py results.jsonl    writes docs/images/feature_matrix.png
                                                    and docs/reference/feature-matrix.md
"""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests" / "matrix"))
from cells import ALL_TRAINERS, FAMILIES, FEATURES, REFUSALS, family_of  # noqa: E402

PICTURE = REPOSITORY / "docs" / "images" / "feature_matrix.png"
PAGE = REPOSITORY / "docs" / "reference" / "feature-matrix.md"
SIGNS = {"works": "✓", "refused": "–", "fails": "✗", "not run": "?"}
COLOURS = {"works": "#9bd3be", "refused": "#e2e2e2", "fails": "#e9a07a", "not run": "#ffffff"}
INTRODUCTION = """\
# What works with what

Every feature of nnU-Net with every family of trainers, drawn by `docs/draw_feature_matrix.py` from the results of the
tests in `tests/matrix`: tiny data, one epoch of one step, nnU-Net's own commands.

![Features in rows, families of trainers in columns](../images/feature_matrix.png)

✓ works; – is refused in one line, with exit status 2, before anything is written; ✗ fails; ? was not run.

"""
NOTES = """\
Two plans of one trainer stand for two configurations where an ensemble is tried. Two processes (`-num_gpus 2`) use gloo
on the CPU in the place of NCCL. `torch.compile` runs on the CPU, through training, validation and prediction, without a
graph break. bfloat16 is torch's autocast on the CPU. "All in one, timm encoder" and "SSA-Net, ResNet34" are tried with
six and seven features by default and with all for this page. In the whole test suite, on two cores with no other work,
the default size took 298 s by the clock.

Contracts (`tests/nnunet/test_contracts.py`) and a part of the matrix also pass, on Python 3.10, 3.11, 3.12 and 3.13
each, with the lowest dependencies that are allowed (nnunetv2 2.8.1, torch 2.6.0, timm 1.0.15; numpy 1.26.0 and scipy
1.13.0, on 3.12 and later numpy 2.1.0) and with the newest (torch 2.15.0, timm 1.0.22, numpy 2.5.5, scipy 1.18.1, on
3.10 torch 2.14.1 and numpy 2.2.6). `.ci/versions` repeats that.

`NNUNET_COVID_MATRIX=all pytest tests/matrix` tries every trainer with every feature, compiles with the inductor, and
installs the zip in another virtual environment; it takes hours.
"""


def outcomes(results: Path) -> dict[tuple[str, str], str]:
    """Outcome by family and feature: a failure of any trainer is the family's, an exception is its own trainer's."""
    found = {(family, feature): "not run" for family in FAMILIES for feature in FEATURES}
    for line in results.read_text(encoding="utf-8").splitlines():
        cell = json.loads(line)
        key = cell["family"], cell["feature"]
        if cell["outcome"] == "fails" or (cell["trainer"] == cell["family"] and found[key] != "fails"):
            found[key] = cell["outcome"]
    return found


def draw(found: dict[tuple[str, str], str], output: Path) -> None:
    """A square for each feature and family, with a colour and a sign."""
    figure, axes = pyplot.subplots(figsize=(12, 0.36 * len(FEATURES) + 1.4), layout="constrained")
    for column, family in enumerate(FAMILIES):
        for row, feature in enumerate(FEATURES):
            outcome = found[family, feature]
            square = pyplot.Rectangle((column, row), 0.94, 0.9, fc=COLOURS[outcome], ec="#999999", lw=0.5)
            axes.add_patch(square)
            axes.text(column + 0.47, row + 0.47, SIGNS[outcome], ha="center", va="center", fontsize=12)
    axes.set(xlim=(0, len(FAMILIES)), ylim=(len(FEATURES), 0))
    names = [textwrap.fill(name, 13) for name in FAMILIES.values()]
    axes.set_xticks([c + 0.47 for c in range(len(FAMILIES))], names)
    axes.set_yticks([r + 0.45 for r in range(len(FEATURES))], FEATURES)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    used = [o for o in SIGNS if o in found.values()]
    handles = [pyplot.Rectangle((0, 0), 1, 1, fc=COLOURS[o], ec="#999999") for o in used]
    labels = [f"{SIGNS[o]}  {'refused in one line' if o == 'refused' else o}" for o in used]
    figure.legend(handles, labels, loc="outside lower center", ncols=len(used), frameon=False)
    figure.savefig(output, dpi=110)
    pyplot.close(figure)


def page(found: dict[tuple[str, str], str]) -> str:
    """The table and every declared exception."""
    lines = ["| | " + " | ".join(FAMILIES.values()) + " |", "| --- |" + " :-: |" * len(FAMILIES)]
    for feature in FEATURES:
        signs = [SIGNS[found[family, feature]] for family in FAMILIES]
        lines.append(f"| {_code(feature)} | " + " | ".join(signs) + " |")
    lines += ["", "## Declared exceptions", "", "| trainers | refuse | because |", "| --- | --- | --- |"]
    for refusal in REFUSALS:
        names = ", ".join(f"`{t}`" for t in ALL_TRAINERS if t in refusal.trainers)
        lines.append(f"| {names} | {', '.join(refusal.features)} | {refusal.because}; {refusal.instead} |")
    lines += ["", "## Families", "", "| family | tried with every feature | with 2D |", "| --- | --- | --- |"]
    for trainer, name in FAMILIES.items():
        members = [t for t in ALL_TRAINERS if family_of(t) == trainer and t != trainer]
        lines.append(f"| {name} | `{trainer}` | {', '.join(f'`{t}`' for t in members)} |")
    return INTRODUCTION + "\n".join(lines) + "\n\n" + NOTES


def _code(feature: str) -> str:
    return f"`{feature}`" if feature.startswith("-") or feature == "torch.compile" else feature


if __name__ == "__main__":
    results = outcomes(Path(sys.argv[1]))
    draw(results, PICTURE)
    PAGE.write_text(page(results), encoding="utf-8")
    print(f"wrote {PICTURE} and {PAGE}")
