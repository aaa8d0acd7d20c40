"""Floor 3: examples, phantoms, scoring, predictions, drift and its report. Engines are seen only through their protocol."""
