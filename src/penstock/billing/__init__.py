"""Invoices over what was used, and who they are from and to."""
