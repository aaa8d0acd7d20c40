"""Floor 4: examples become an adapter, an adapter a merged checkpoint; the torch reference engine."""
