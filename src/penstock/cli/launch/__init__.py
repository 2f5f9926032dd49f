"""What `penstock dev` does: plans the processes, starts them, keeps them, stops them in order."""
