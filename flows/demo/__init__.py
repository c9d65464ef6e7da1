"""A small corpus of drawn faces, for a first look and for tests."""
