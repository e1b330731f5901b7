"""Make ``pysodmetrics.npz``: scores of small slices by pysodmetrics, whose pins clash with this project's.

    python -m venv sod && sod/bin/pip install pysodmetrics==1.6.2
    sod/bin/python tests/evaluation/golden/make_pysodmetrics_golden.py

The file holds, per slice, the 8-bit map, the reference (0 or 255), and pysodmetrics' S-measure, E-measure curve, MAE
and Dice curve over the thresholds 255/255, …, 0. ``probability_*`` holds the same for a floating-point map of each
reference that is scored as it is, without the min–max normalisation.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from py_sod_metrics import MAE, DICEHandler, Emeasure, FmeasureV2, Smeasure

TARGET = Path(__file__).with_name("pysodmetrics.npz")
SHAPE = (24, 33)


def references() -> dict[str, np.ndarray]:
    """Masks: ordinary and degenerate ones."""
    rows, columns = np.indices(SHAPE)
    masks = {name: np.zeros(SHAPE, dtype=bool) for name in ("empty", "full", "pixel", "corner", "touching", "frame")}
    masks["full"][:] = True
    masks["pixel"][11, 17] = True
    masks["corner"][0, 0] = True
    masks["touching"][5:20, :9] = True
    masks["frame"][[0, -1], :] = True
    masks["frame"][:, [0, -1]] = True
    masks["disc"] = (rows - 10) ** 2 + (columns - 20) ** 2 < 49
    masks["two"] = ((rows - 5) ** 2 + (columns - 6) ** 2 < 12) | ((rows - 17) ** 2 + (columns - 26) ** 2 < 20)
    masks["all but one"] = ~masks["pixel"]
    masks["random"] = np.random.default_rng(1).random(SHAPE) < 0.3
    # Even numbers of rows and columns on either side: the centroid lies half-way between two pixels.
    masks["half-way"] = np.zeros(SHAPE, dtype=bool)
    masks["half-way"][4:8, 10:14] = True
    return masks


def maps(reference: np.ndarray) -> dict[str, np.ndarray]:
    """8-bit maps of one reference: noise, good and bad predictions, full and partial grey range."""
    rng = np.random.default_rng(2)
    noise = rng.integers(0, 256, SHAPE)
    blurred = reference * 150 + noise * 0.4
    return {
        "noise": noise,
        "good": blurred,
        "inverse": 255 - blurred,
        "narrow": 37 + reference * 90 + noise * 0.3,
        "binary": reference * 255,
        "wrong binary": np.roll(reference, (3, 5), (0, 1)) * 255,
        "black": np.zeros(SHAPE),
        "white": np.full(SHAPE, 255),
    }


def probability(reference: np.ndarray) -> np.ndarray:
    """A floating-point map that leaves part of [0, 1] unused."""
    noise = np.random.default_rng(3).random(SHAPE)
    return (0.1 + 0.5 * reference + 0.35 * noise).astype(np.float32)


def scores(grey: np.ndarray, reference: np.ndarray, *, normalize: bool = True) -> dict[str, np.ndarray]:
    """pysodmetrics' figures for one slice."""
    dice = FmeasureV2({"dice": DICEHandler(with_dynamic=True, with_adaptive=False)})
    meters = {"s": Smeasure(), "e": Emeasure(), "mae": MAE(), "dice": dice}
    for meter in meters.values():
        meter.step(grey, reference, normalize=normalize)
    return {
        "s": meters["s"].get_results()["sm"],
        "e": meters["e"].get_results()["em"]["curve"],
        "mae": meters["mae"].get_results()["mae"],
        "dice": dice.get_results()["dice"]["dynamic"],
    }


def main() -> None:
    """Write the file."""
    names, greys, masks, values = [], [], [], {"s": [], "e": [], "mae": [], "dice": []}
    for mask_name, reference in references().items():
        for map_name, grey in maps(reference).items():
            names.append(f"{mask_name}: {map_name}")
            greys.append(grey.astype(np.uint8))
            masks.append(reference.astype(np.uint8) * 255)
            for key, value in scores(greys[-1], masks[-1]).items():
                values[key].append(value)
    floats = [probability(r) for r in references().values()]
    plain = [scores(f, r, normalize=False) for f, r in zip(floats, references().values(), strict=True)]
    values |= {f"probability_{key}": [p[key] for p in plain] for key in plain[0]}
    values["probability_maps"] = floats
    values["probability_references"] = list(references().values())
    np.savez_compressed(
        TARGET, names=names, maps=greys, references=masks, **{k: np.array(v) for k, v in values.items()}
    )
    print(f"{len(names)} slices, {TARGET.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
