"""Every picture that the project draws, from arrays and numbers: nothing here measures, or reads a model or a run."""
