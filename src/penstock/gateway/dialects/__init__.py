"""How each family of callers' APIs says its requests, usage and errors."""
