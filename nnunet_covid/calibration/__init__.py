"""The operating point of a trained model: temperature and thresholds from cross-validation, kept in its checkpoints."""
