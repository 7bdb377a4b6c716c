"""What operators may do to a running server: its cache, its log, its drain."""

from fastapi import APIRouter

router = APIRouter()
