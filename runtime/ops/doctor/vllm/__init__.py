"""Checks of the engine vllm: where it runs, what is installed there, its device, its servers."""
