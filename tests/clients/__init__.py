"""The clients that people have, at a server of the kit: a gigabyte, so only `make test-clients` runs them."""
