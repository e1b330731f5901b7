"""Prediction of many images: read ahead, compute and write behind in threads, and go on after any interruption."""
