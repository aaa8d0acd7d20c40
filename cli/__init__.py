"""Floor 6: the verbs. Parse, call, draw progress, print; no logic."""
