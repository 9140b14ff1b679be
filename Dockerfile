# The demo for those who host it themselves: the files of `python -m app deploy`, and what they need.
FROM python:3.12-slim

# Another index may hold smaller wheels of torch, for processors only: --build-arg PIP_EXTRA_INDEX_URL=...
ARG PIP_EXTRA_INDEX_URL
ENV HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /demo

COPY requirements.txt ./
RUN python -m pip install --no-cache-dir --requirement requirements.txt

COPY README.md LICENSE space.py ./
COPY app ./app
COPY weights ./weights
COPY docs/*.md docs/*.png ./docs/

USER 1000:1000
EXPOSE 7860
HEALTHCHECK --start-period=60s --timeout=10s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:7860/config')"]
CMD ["python", "-m", "app", "serve", "--host", "0.0.0.0"]
