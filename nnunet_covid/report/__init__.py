"""From a CT volume and its label map to the numbers, pictures and files of a report.

Start at :func:`nnunet_covid.report.quantify.quantify`: numbers alone, no file is touched.
"""

from nnunet_covid.report.quantify import Quantities, Settings, quantify

__all__ = ["Quantities", "Settings", "quantify"]
