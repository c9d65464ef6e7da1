"""Pictures of what the networks and a model see of a clip."""
