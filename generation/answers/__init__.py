"""The engine of answers: questions to what a tenant knows, quoted with citations."""
