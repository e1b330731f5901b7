"""A synthetic lung-CT data set and the run of the whole pipeline on it."""
