"""Runs one judge: `python services/judge.py`."""

from metallm_stream.serve.open_judge import open_judge
from metallm_stream.serve.process import serve

if __name__ == "__main__":
    serve(open_judge)
