"""Runs one router: `python services/router.py`."""

from metallm_stream.serve.open_router import open_router
from metallm_stream.serve.process import serve

if __name__ == "__main__":
    serve(open_router)
