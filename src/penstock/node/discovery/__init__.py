"""Where endpoints of upstreams are found: by name, in files, in clusters."""
