"""What has changed since an earlier report, and where the earlier lungs lie in the new scan, for the picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import SimpleITK as sitk

from nnunet_covid.errors import UserError
from nnunet_covid.report.document import days_between

WORKING_MM = 6.0
"""Spacing at which lungs are registered: their shape is wanted, not their vessels."""
SMOOTHING_MM = 6.0
GOOD_DICE = 0.85
"""Overlap of the lungs below which a side-by-side picture says that the scans do not lie alike: below what two breaths
of one patient usually reach after an affine registration of the whole lungs, a choice of this project."""
ROUNDS = 60
SAMPLED = 0.25
"""Part of the voxels that are compared in every step."""


def changes(previous: Mapping[str, Any], current: Mapping[str, Any]) -> dict[str, Any]:
    """Differences of two documents' numbers, the current less the previous, for every region that both have.

    Args:
        previous: As ``read_document`` returns it.
        current: The new one, in the same form.

    Returns:
        ``days`` (None if a date is missing, or moved otherwise under another pseudonym), ``infection_ml``, ``regions``
        (name to ``infection_ml`` and ``infection_percent``, the latter in points of per cent), ``severity_points``
        (None unless both have the same score), ``notes``.

    Raises:
        UserError: If one of both is pseudonymised: the other's names would go into it, and its dates are moved.
    """
    require_same_kind(previous, current["scan"]["pseudonymous"])
    before, after = previous["quantities"], current["quantities"]
    earlier = {region["name"]: region for region in before["regions"]}
    notes = []
    if previous["model"]["digest"] != current["model"]["digest"]:
        notes.append("The earlier report is by another model or of other classes: part of the change may be theirs.")
    if before["settings"] != after["settings"]:
        notes.append("The earlier report was made with other settings of bands or cut-offs.")
    if before["lungs_by"] != after["lungs_by"]:
        notes.append(f"The lungs were found by {before['lungs_by']} then and by {after['lungs_by']} now.")
    days = days_between(previous["scan"]["study_date"], current["scan"]["study_date"])
    if days is None:
        notes.append("The days between the scans are not available: a scan has no date.")
    elif current["scan"]["pseudonymous"] and previous["scan"]["name"] != current["scan"]["name"]:
        days = None
        notes.append("The days between the scans are not known: dates of two identifiers are moved differently.")
    elif days < 0:
        notes.append("The earlier report's scan is the later one: check their order.")
    scores = (before["severity"], after["severity"])
    same_score = all(scores) and scores[0]["name"] == scores[1]["name"]
    return {
        "days": days,
        "previous_scan": previous["scan"]["name"],
        "infection_ml": after["infection_ml"] - before["infection_ml"],
        "regions": {
            region["name"]: {
                "infection_ml": region["infection_ml"] - earlier[region["name"]]["infection_ml"],
                "infection_percent": _difference(region, earlier[region["name"]], "infection_percent"),
            }
            for region in after["regions"]
            if region["name"] in earlier
        },
        "severity_points": scores[1]["points"] - scores[0]["points"] if same_score else None,
        "notes": notes,
    }


def require_same_kind(previous: Mapping[str, Any], pseudonymous: bool) -> None:
    """Refuse an earlier report that is pseudonymised where the new one is not, or the other way round.

    Raises:
        UserError: As of :func:`changes`.
    """
    if previous["scan"]["pseudonymous"] != pseudonymous:
        raise UserError("one of both reports is pseudonymised and the other is not; compare two of a kind")


def _difference(after: Mapping[str, Any], before: Mapping[str, Any], key: str) -> float | None:
    return None if after[key] is None or before[key] is None else after[key] - before[key]


@dataclass(frozen=True)
class Registration:
    """Where the earlier lungs lie in the new scan.

    Attributes:
        transform: From points of the new scan to points of the earlier one.
        dice: Overlap of both lung masks after it, 0 to 1.
    """

    transform: sitk.Transform
    dice: float

    @property
    def is_good(self) -> bool:
        """Whether the pictures may stand side by side without a warning."""
        return self.dice >= GOOD_DICE


def register_lungs(earlier: sitk.Image, new: sitk.Image) -> Registration | None:
    """Rigid, then affine registration of one patient's lung masks; None where a mask is empty or it does not converge.

    Mean squares of the smoothed masks, by SimpleITK's conjugate gradients; the start lays the centres of mass together.
    """
    try:
        moving, fixed = (_soft(mask) for mask in (earlier, new))
        if min(sitk.GetArrayViewFromImage(image).max() for image in (moving, fixed)) < 0.5:
            return None
        start = sitk.CenteredTransformInitializer(
            fixed, moving, sitk.Euler3DTransform(), sitk.CenteredTransformInitializerFilter.MOMENTS
        )
        rigid = sitk.Euler3DTransform(_refined(fixed, moving, start))
        affine = sitk.AffineTransform(3)
        affine.SetCenter(rigid.GetCenter())
        affine.SetMatrix(rigid.GetMatrix())
        affine.SetTranslation(rigid.GetTranslation())
        best = _refined(fixed, moving, affine)
    except RuntimeError:
        return None
    return max((Registration(t, _dice(moving, fixed, t)) for t in (rigid, best)), key=lambda found: found.dice)


def _soft(mask: sitk.Image) -> sitk.Image:
    """A mask as smooth values 0 to 1 on a coarse grid."""
    factors = [max(1, round(WORKING_MM / spacing)) for spacing in mask.GetSpacing()]
    return sitk.SmoothingRecursiveGaussian(
        sitk.BinShrink(sitk.Cast(mask != 0, sitk.sitkFloat32), factors), SMOOTHING_MM / 2
    )


def _refined(fixed: sitk.Image, moving: sitk.Image, start: sitk.Transform) -> sitk.Transform:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMeanSquares()
    method.SetInterpolator(sitk.sitkLinear)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(SAMPLED)
    method.SetOptimizerAsConjugateGradientLineSearch(1.0, ROUNDS, 1e-6, 5)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(start, inPlace=False)
    found = method.Execute(fixed, moving)
    return found.GetBackTransform() if isinstance(found, sitk.CompositeTransform) else found


def _dice(earlier: sitk.Image, new: sitk.Image, transform: sitk.Transform) -> float:
    """Overlap of soft masks where they are above one half."""
    moved = sitk.GetArrayFromImage(sitk.Resample(earlier, new, transform, sitk.sitkLinear, 0.0)) > 0.5
    lungs = sitk.GetArrayFromImage(new) > 0.5
    total = int(moved.sum()) + int(lungs.sum())
    return 2 * int((moved & lungs).sum()) / total if total else 0.0
