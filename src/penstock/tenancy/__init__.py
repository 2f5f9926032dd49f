"""Organizations, their projects, and who belongs to them."""
