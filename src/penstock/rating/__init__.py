"""Prices, and what usage costs by them."""
