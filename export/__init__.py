"""Floor 5: a checkpoint becomes a bundle, and every full-precision level is held against the reference first."""
