"""What every plans file of nnU-Net has: looked through once, so that whoever uses it later finds what it expects.

Files are read in :mod:`nnunet_covid.nnunet.models`. What is made of plans stands in
:mod:`nnunet_covid.nnunet.architecture` and :mod:`nnunet_covid.nnunet.preprocess`.
"""

from __future__ import annotations

from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_covid.files import stays_below


def fault_of_plans(content: Any) -> str | None:
    """What a plans file's content lacks or has of a wrong kind; ``None`` if nothing."""
    configurations = content.get("configurations") if isinstance(content, dict) else None
    if not isinstance(configurations, dict) or not configurations:
        return "it has no 'configurations'"
    for entry in ("dataset_name", "plans_name", "image_reader_writer"):
        if not stays_below(content.get(entry), one_name=True):
            return f"its {entry!r} is no name"
    for entry in ("transpose_forward", "transpose_backward"):
        if not _is_list_of(content.get(entry), int) or sorted(content[entry]) != [0, 1, 2]:
            return f"its {entry!r} is no order of three axes"
    for name in configurations:
        try:
            found = PlansManager(content).get_configuration(name).configuration
        except Exception as e:  # what is inherited may be missing, be no configuration, or inherit itself
            return f"its configuration {name!r} cannot be put together ({type(e).__name__})"
        if fault := _fault_of_configuration(found):
            return f"its configuration {name!r} {fault}"
    return None


def _fault_of_configuration(found: dict[str, Any]) -> str | None:
    if not stays_below(found.get("data_identifier"), one_name=True):  # what is in that folder may be deleted
        return "has a 'data_identifier' that is no name of a folder"
    for entry, kind in (("patch_size", int), ("spacing", (int, float)), ("normalization_schemes", str)):
        if not found.get(entry) or not _is_list_of(found[entry], kind):
            return f"has no list {entry!r}"
    numbers = [*found["patch_size"], *found["spacing"]]
    if len(found["patch_size"]) != len(found["spacing"]) or not all(0 < number < 1e6 for number in numbers):
        return "has no patch size and spacing of as many axes"
    if not isinstance(found.get("architecture", {}), dict):
        return "has no 'architecture'"
    return None


def _is_list_of(values: Any, kind: Any) -> bool:
    return isinstance(values, list) and all(isinstance(v, kind) and not isinstance(v, bool) for v in values)
