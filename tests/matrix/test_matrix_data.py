"""Every kind of data and plans with every family of trainers, through training, validation and prediction."""

from __future__ import annotations

from pathlib import Path

import pytest
from cells import DATA, Cell, cells_of
from data_sets import PLANS, RESIDUAL_PLANS, TEST
from models import Models, check_predictions, check_refused, check_validation

pytestmark = pytest.mark.e2e
CASCADE = "3D low resolution and cascade"
CONFIGURATIONS = {
    "3D full resolution": "3d_fullres",
    "anisotropic voxels": "3d_fullres",
    "regions and ignore label in 3D": "3d_fullres",
}


@pytest.mark.parametrize("cell", cells_of(*(f for f in DATA if f != CASCADE)), ids=str)
def test_data_and_plans(cell: Cell, models: Models) -> None:
    configuration = CONFIGURATIONS.get(cell.feature, "2d")
    plans = RESIDUAL_PLANS if cell.feature == "residual encoder plans" else PLANS
    fold = "all" if cell.feature == "fold all" else 0
    name = DATA[cell.feature]
    if cell.refusal:
        kind = models.prepared(cell.trainer, name, configuration)
        check_refused(models, cell, kind, configuration)
        return
    model = models.trained(cell.trainer, name, configuration, plans=plans, fold=fold)
    kind = models.prepared(cell.trainer, name, configuration)
    if fold == 0:
        check_validation(model, kind)
        check_predictions(models.predicted(cell.trainer, name, configuration, plans), kind)
    else:
        output = models.world.root / "all" / model.name
        models.predict(cell.trainer, kind, output, "--save_probabilities", fold=fold)
        check_predictions(output, kind)


@pytest.mark.parametrize("cell", cells_of(CASCADE), ids=str)
def test_a_cascade(cell: Cell, models: Models, tmp_path: Path) -> None:
    """Fold "all" of the first stage predicts every case for the second."""
    low, second = "3d_lowres", "3d_cascade_fullres"
    kind = models.prepared(cell.trainer, "volumes", low, second)
    if cell.refusal:
        for configuration in (low, second):
            check_refused(models, cell, kind, configuration)
        return
    first = models.trained(cell.trainer, "volumes", low, fold="all")
    assert len(list((first / "predicted_next_stage" / second).iterdir())) == 4
    models.trained(cell.trainer, "volumes", second)
    models.predict(cell.trainer, kind, tmp_path / "low", configuration=low, fold="all")
    assert len(list((tmp_path / "low").glob("*.nii.gz"))) == len(TEST)
    output = tmp_path / "second"
    arguments = ("--save_probabilities", "-prev_stage_predictions", tmp_path / "low")
    models.predict(cell.trainer, kind, output, *arguments, configuration=second)
    check_predictions(output, kind)
