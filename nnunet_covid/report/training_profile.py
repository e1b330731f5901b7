"""The profile of a model from its training images: read them, let the model see them, keep what was observed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from nnunet_covid.errors import UserError
from nnunet_covid.files import evenly_spread
from nnunet_covid.nnunet.cases import CaseFiles
from nnunet_covid.nnunet.dataset import open_raw_dataset
from nnunet_covid.raw_dataset import UnusableFile
from nnunet_covid.raw_dataset.volumes import read_header
from nnunet_covid.report.confidence import Profile, profile_of, require_enough
from nnunet_covid.report.model import TRAINED_AS, Observed, ReportModel
from nnunet_covid.report.regions import storage_order


def profile_training_images(
    model: ReportModel, at_most: int, progress: Callable[[list[CaseFiles]], Iterable[CaseFiles]] = iter
) -> Profile:
    """Observe training images, evenly spread over the data set, in the storage order in which their reader gives them.

    Args:
        model: Whose profile is made.
        at_most: Number of images.
        progress: Wraps the list of cases, as tqdm does.

    Raises:
        UserError: If the raw data set is not there or has too few cases.
    """
    name = model.facts.dataset
    try:
        cases = list(open_raw_dataset(name).cases.values())
    except UserError as e:
        raise UserError(f"the training images of {model.facts.name} are needed for its profile: {e}") from e
    require_enough(min(at_most, len(cases)))
    chosen = [cases[i] for i in evenly_spread(len(cases), at_most)]
    orders: Counter[str] = Counter()
    observed: list[Observed] = []
    for case in progress(chosen):
        image, properties = model.model.read(case)
        orders[model.turned or _order_of(case)] += 1
        spacing = tuple(float(value) for value in properties["spacing"])
        observed.append(model.observe([(image, spacing)])[1])
    return profile_of(observed, model.facts.digest, orders.most_common(1)[0][0])


def _order_of(case: CaseFiles) -> str:
    """Storage order of a case's first file; pictures, which have none, are stored as they are shown."""
    try:
        header = read_header(case.files[0])
    except UnusableFile:
        return TRAINED_AS
    return storage_order(header) if header.GetDimension() == 3 else TRAINED_AS
