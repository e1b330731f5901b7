"""Converters from public data sets to nnU-Net raw data sets, one module per data set."""
