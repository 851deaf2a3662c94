"""Hand-over to people, and what is learnt from it; in no platform's terms."""
