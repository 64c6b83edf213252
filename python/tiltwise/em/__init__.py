"""Expectation maximisation: reconstruction from given poses, and refinement of poses and map."""
