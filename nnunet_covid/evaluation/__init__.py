"""Metrics of segmentations, tables, comparison of methods and plots.

One call scores a folder of predictions::

    from nnunet_covid.evaluation import evaluate_folders, summarise, terminal_table, write_report

    evaluation = evaluate_folders("predictions", "labelsTs")
    print(terminal_table(evaluation))
    summarise(evaluation).classes["infection"].metrics["dice"].mean
    write_report(evaluation, "evaluation")

The functions on arrays (``confusion``, ``surface_distance``, ``s_measure``, ``e_measure``, ``toolbox`` …) are
pure and can be used alone. Nothing here is used in training.
"""

from nnunet_covid.evaluation.confusion import EmptyPolicy
from nnunet_covid.evaluation.folders import Evaluation, evaluate_folders
from nnunet_covid.evaluation.tables import summarise, summary_as_json, terminal_table, write_report

__all__ = [
    "EmptyPolicy",
    "Evaluation",
    "evaluate_folders",
    "summarise",
    "summary_as_json",
    "terminal_table",
    "write_report",
]
