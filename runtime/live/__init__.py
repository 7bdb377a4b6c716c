"""Speech while it is spoken: samples as they come, who speaks when, and which words are certain."""
