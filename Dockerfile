# `colbert-vespa serve` for production: API and page over a local index or a Vespa application (docs/how-to/serving.md).
#
#   docker build -t colbert-vespa .
#   docker run -p 127.0.0.1:8000:8000 -v ./index:/index -v ./keys.json:/keys.json:ro colbert-vespa
#   docker run -p 127.0.0.1:8000:8000 -v ./bundle:/bundle:ro -v ./keys.json:/keys.json:ro colbert-vespa http://vespa:8080 --bundle /bundle
ARG PYTHON_VERSION=3.12

FROM python:${PYTHON_VERSION}-slim AS build
WORKDIR /source
COPY pyproject.toml requirements.lock README.md ./
COPY colbert_vespa colbert_vespa
COPY exporter exporter
COPY feeder feeder
COPY late_interaction late_interaction
COPY query query
COPY vespa_app vespa_app
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .
# versions as they are tested; without hashes, which pip would ask of the wheel above, too
RUN sed -n 's/^\([A-Za-z0-9][^\\]*\)\\$/\1/p' requirements.lock > /wheels/versions.txt
RUN python -m venv /opt/colbert-vespa
RUN /opt/colbert-vespa/bin/pip install --no-cache-dir --constraint /wheels/versions.txt "$(echo /wheels/colbert_vespa-*.whl)[local,feed,serve]"

FROM python:${PYTHON_VERSION}-slim
COPY --from=build /opt/colbert-vespa /opt/colbert-vespa
# compiled loops and known bundles are kept in the cache
RUN useradd --uid 10001 --create-home --home-dir /var/cache/colbert-vespa colbert
ENV PATH=/opt/colbert-vespa/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    XDG_CACHE_HOME=/var/cache/colbert-vespa \
    NUMBA_CACHE_DIR=/var/cache/colbert-vespa/numba
USER 10001
WORKDIR /var/cache/colbert-vespa
VOLUME ["/index", "/bundle", "/var/cache/colbert-vespa"]
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["colbert-vespa", "serve", "--host", "0.0.0.0", "--port", "8000", "--keys", "/keys.json", "--log-json"]
CMD ["/index"]
