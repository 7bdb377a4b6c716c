"""The report: one document with today's facts and all that was measured, to be repeated and compared."""
