"""What `traitline doctor` looks at."""
