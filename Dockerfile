# One image for the three services and the command line; what it runs is said by its command.
FROM python:3.12-slim

WORKDIR /app
RUN useradd --create-home --uid 1000 metallm

COPY pyproject.toml README.md LICENSE ./
COPY metallm_stream metallm_stream
COPY migrations migrations
COPY services services
RUN pip install --no-cache-dir '.[vendors]'

USER metallm
ENV PYTHONUNBUFFERED=1
CMD ["metallm", "--help"]
