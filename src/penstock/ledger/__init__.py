"""Accounts, transfers and their entries: what organizations owe and own, booked twice."""
