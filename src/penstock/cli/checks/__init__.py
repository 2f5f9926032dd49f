"""What `penstock doctor` looks at: the machine, the data folder, the running instance."""
