"""Runs one router: `python services/router.py`."""

from metallm_stream.serve import router, serve

if __name__ == "__main__":
    serve(router)
