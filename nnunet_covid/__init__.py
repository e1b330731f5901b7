"""nnU-Net v2 trainers, converters and tools for lung-infection segmentation in chest CT.

Importing this package is light: torch and nnunetv2 are imported by the modules that need them.
"""

__version__ = "0.1.0"
