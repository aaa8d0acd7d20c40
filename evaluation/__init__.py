"""Floor 3: examples, phantoms, scoring, predictions, drift and its report; engines only through their protocol."""
