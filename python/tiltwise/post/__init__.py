"""From half maps to a result: masks, post-processing, local and directional resolution."""
