"""Maps from particle images whose poses are known: what refinement of poses and of CTFs share."""
