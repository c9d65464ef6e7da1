"""The one error that means: what lies in the store, or where it lies, is not usable as it is."""

from __future__ import annotations


class StoreError(Exception):
    """The store cannot be read or written as asked; the message is one line that names the file and the cure."""
