"""CTF refinement: defocus, astigmatism, contrast scale and aberrations from all particles of a tilt (Appendix 1)."""
