"""Jobs of a project, live in a browser on this machine."""
