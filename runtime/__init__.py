"""Floor 1: levels, bundles, the pixel path, the token path, the engines. Never torch, transformers, peft, datasets."""
