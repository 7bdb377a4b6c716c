"""The report's chapters: what each says, in both languages."""
