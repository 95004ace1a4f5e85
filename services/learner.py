"""Runs one learner: `python services/learner.py`."""

from metallm_stream.serve import learner, serve

if __name__ == "__main__":
    serve(learner)
