"""Pictures of features, attention and architectures."""
