"""Runs one learner: `python services/learner.py`."""

from metallm_stream.serve.open_learner import open_learner
from metallm_stream.serve.process import serve

if __name__ == "__main__":
    serve(open_learner)
