"""Commands that write probabilities."""
