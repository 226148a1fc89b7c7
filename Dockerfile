# redrive[postgres,otel] from this checkout. Every package is one that requirements-dev.lock names, hash and all;
# it is only what tests run with besides that is left out.
#
#   docker build --tag redrive .
#   docker run --publish 127.0.0.1:8080:8080 --volume redrive:/var/lib/redrive redrive
#
# Behind a package index of your own: --build-arg PIP_INDEX_URL=… --build-arg UV_DEFAULT_INDEX=…

FROM python:3.11-slim AS build
ARG PIP_INDEX_URL UV_DEFAULT_INDEX
ENV UV_PYTHON_DOWNLOADS=never UV_NO_CACHE=1 UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy
WORKDIR /src

COPY requirements-uv.lock ./
RUN python -m pip install --no-cache-dir --no-deps --only-binary :all: --require-hashes --requirement requirements-uv.lock

COPY pyproject.toml requirements-dev.lock ./
RUN uv venv /opt/redrive \
    && uv pip install --python /opt/redrive/bin/python --only-binary :all: \
        --require-hashes --constraint requirements-dev.lock \
        --requirement pyproject.toml --extra postgres --extra otel

COPY README.md LICENSE ./
COPY src src
RUN uv build --wheel --require-hashes --build-constraint requirements-dev.lock --out-dir /dist \
    && uv pip install --python /opt/redrive/bin/python --no-deps /dist/*.whl


FROM python:3.11-slim
RUN useradd --uid 10001 --user-group --home-dir /var/lib/redrive --create-home --shell /usr/sbin/nologin redrive
COPY --from=build /opt/redrive /opt/redrive
ENV PATH=/opt/redrive/bin:$PATH REDRIVE_HOST=0.0.0.0 REDRIVE_DATA_DIR=/var/lib/redrive
USER 10001:10001
WORKDIR /var/lib/redrive
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8080, timeout=2); c.request('GET', '/healthz'); exit(c.getresponse().status != 200)"]
ENTRYPOINT ["redrive"]
CMD ["serve"]
