"""Rounds of pseudo labels on nnU-Net's own plans, data format, loaders, trainers and predictor."""
