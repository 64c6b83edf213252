"""Files: STAR documents, MRC maps and stacks, RELION-4 and RELION-5 optimisation sets."""
