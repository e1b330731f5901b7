"""Data linked to a COVID data set: other diseases and unlabelled images, pre-processed with the COVID plans."""
