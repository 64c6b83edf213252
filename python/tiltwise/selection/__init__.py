"""Which particles of a set are kept: by their columns, where they are seen, their neighbours; and symmetry mates."""
