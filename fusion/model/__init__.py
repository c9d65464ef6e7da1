"""The network, and scoring with it."""
