"""3D classification: which of several maps a particle shows, with or without alignment."""
