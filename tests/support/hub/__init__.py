"""A small hub on the loopback that speaks to the real clients: Hugging Face's way, ModelScope's, git with git-lfs, and
plain files; and that misbehaves as a test says."""
