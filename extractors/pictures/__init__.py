"""Pictures of the feature networks' inputs, layers and features."""
