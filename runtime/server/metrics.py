"""GET /metrics: what the server does, in figures for Prometheus."""

from fastapi import APIRouter

router = APIRouter()
