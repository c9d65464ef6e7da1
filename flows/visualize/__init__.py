"""Pictures of what the networks and a model see in a clip."""
