"""Evidence: does it transcribe, how fast, how well."""
