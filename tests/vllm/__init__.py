"""What needs a real vLLM: minutes and gigabytes, so only `make test-vllm` runs it."""
