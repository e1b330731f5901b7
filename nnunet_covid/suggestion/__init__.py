"""Which unlabelled images to label next: where a model disagrees with itself, spread over patients and looks."""
