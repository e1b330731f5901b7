"""Everything that an evaluation leaves in a folder."""

from __future__ import annotations

from pathlib import Path

from nnunet_covid.errors import UserError
from nnunet_covid.evaluation.folders import Evaluation
from nnunet_covid.evaluation.tables import CSV_NAME, JSON_NAME, write_csv, write_json


def write_report(
    evaluation: Evaluation, folder: str | Path, *, images: str | Path | None = None, plots: bool = True
) -> list[Path]:
    """Write tables and plots into a folder, which is made if need be.

    Args:
        evaluation: what to report.
        folder: where to write.
        images: folder of the images behind the overlays of the worst cases.
        plots: False writes the tables only.

    Returns:
        The files written.

    Raises:
        UserError: if the folder cannot be made.
    """
    target = Path(folder)
    prepare_folder(target)
    written = [target / CSV_NAME, target / JSON_NAME]
    write_csv(evaluation, written[0])
    write_json(evaluation, written[1])
    if plots:
        written += _write_plots(evaluation, target, None if images is None else Path(images))
    return written


def _write_plots(evaluation: Evaluation, target: Path, images: Path | None) -> list[Path]:
    # Matplotlib doubles the time to start, and every process that scores cases would pay it.
    from nnunet_covid.evaluation.plots.bland_altman import write_bland_altman
    from nnunet_covid.evaluation.plots.distributions import write_distributions
    from nnunet_covid.evaluation.plots.worst_cases import write_worst_cases

    written = write_distributions(evaluation, target)
    written += write_bland_altman(evaluation, target)
    return written + write_worst_cases(evaluation, target, images)


def prepare_folder(folder: Path) -> None:
    """Make a folder for results, before the work whose results it shall hold.

    Raises:
        UserError: if that is impossible.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"{folder}: cannot be made ({e.strerror})") from e
