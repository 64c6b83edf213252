"""Projects of other programs to optimisation sets, and the conventions of each."""
