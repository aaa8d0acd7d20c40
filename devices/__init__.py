"""Floor 2: what a device is, and which level of a model fits on it."""
