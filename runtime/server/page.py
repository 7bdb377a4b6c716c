"""GET /: a page to try the server with."""

from fastapi import APIRouter

router = APIRouter()
