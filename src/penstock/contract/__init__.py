"""What both planes and the world agree on: snapshot, usage event, journal, node messages."""
