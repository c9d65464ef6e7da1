"""Pictures of what a model sees and how it is wired."""
