"""How the store's schema came to be, version by version."""
