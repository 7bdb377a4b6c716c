"""The HTTP server: OpenAI's API, the Realtime API, health, metrics, admin calls, the web page."""
