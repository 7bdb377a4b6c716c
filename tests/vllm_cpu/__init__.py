"""What makes .vllm: an environment in which vLLM runs on a CPU, for `make test-vllm`."""
