"""Every picture that the project draws, from plain arrays and numbers: nothing here measures, reads a model or a run."""
