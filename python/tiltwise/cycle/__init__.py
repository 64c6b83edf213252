"""The whole cycle: refinement, CTF refinement and alignment in turn, as long as each helps."""
