"""The control plane's process: HTTP in front of the rooms."""
