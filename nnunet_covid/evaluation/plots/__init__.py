"""Pictures of an evaluation or a comparison, one kind per module. Nothing here computes a metric."""
