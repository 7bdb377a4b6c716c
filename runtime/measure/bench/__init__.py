"""The benchmark: parts that each yield figures, for one record. A part's module has `measure(bench)`."""
