"""The container's life, from the host: image, start, readiness, end."""
