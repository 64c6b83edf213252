"""Maps from nothing: initial models."""
