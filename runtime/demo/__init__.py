"""The embedded demo model: a stand-in of the true architecture, its clips and the recipe that trains it."""
