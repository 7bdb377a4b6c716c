"""WS /v1/realtime: speech as it is spoken, in the transcription events of OpenAI's Realtime API."""

from fastapi import APIRouter

router = APIRouter()
