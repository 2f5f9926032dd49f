"""What is known of each kind of model server."""
