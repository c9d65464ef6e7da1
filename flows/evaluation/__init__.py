"""How good models and features are."""
