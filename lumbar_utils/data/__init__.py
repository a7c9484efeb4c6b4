"""Where images and masks come from: sources, the canonical folder, checks, splits, decoding."""
