"""Runs one worker: `python services/worker.py --provider NAME`."""

import argparse

from metallm_stream.serve.open_worker import open_worker
from metallm_stream.serve.process import serve

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--provider", required=True, help="a provider of the settings")
    provider = parser.parse_args().provider
    serve(lambda settings: open_worker(settings, provider))
