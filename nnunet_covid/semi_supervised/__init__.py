"""Learning from unlabelled images: rounds of pseudo labels, and the parts of consistency inside a training."""
