"""Many trainings from one plan: what is to be run, on which machines, what is done, and the table of it."""
