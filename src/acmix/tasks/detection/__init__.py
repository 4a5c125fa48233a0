"""Training and using detectors."""
