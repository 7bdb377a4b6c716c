"""The engine vllm: a client of vLLM servers, which it starts or which run elsewhere. The kit never imports vLLM."""
