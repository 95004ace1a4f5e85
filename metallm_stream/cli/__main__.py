"""`python -m metallm_stream.cli`: the same as `metallm`, for whoever starts it without a PATH."""

from metallm_stream.cli.main import main

if __name__ == "__main__":
    main()
