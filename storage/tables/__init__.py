"""Failures and scores: tables that only grow."""
