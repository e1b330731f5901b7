"""Rounds of pseudo labels, with any trainer, on nnU-Net's own plans, data format, loaders and predictor."""
