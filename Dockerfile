# curlgrad's service. `docker build -t curlgrad .`; with NVIDIA GPUs: `docker build --target cuda12 -t curlgrad:cuda12 .`
# (or cuda13).
# Without keys the service refuses any address but loopback, which in a container is unreachable: either publish the
# port on 127.0.0.1 only and say --allow-open, as docker-compose.yml does, or it ends at once and says why.
ARG PYTHON=3.13-slim-bookworm

# --- a virtual environment for each set -------------------------------------------------------------------------------

FROM python:${PYTHON} AS serve-builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY requirements/ /build/requirements/
RUN python -m venv /opt/curlgrad/venv \
 && /opt/curlgrad/venv/bin/python -m pip install --require-hashes --only-binary :all: -r /build/requirements/serve.txt \
 && /opt/curlgrad/venv/bin/python -m pip uninstall --quiet --yes pip

FROM python:${PYTHON} AS cuda12-builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY requirements/ /build/requirements/
RUN python -m venv /opt/curlgrad/venv \
 && /opt/curlgrad/venv/bin/python -m pip install --require-hashes --only-binary :all: -r /build/requirements/cuda12.txt \
 && /opt/curlgrad/venv/bin/python -m pip uninstall --quiet --yes pip

FROM python:${PYTHON} AS cuda13-builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY requirements/ /build/requirements/
RUN python -m venv /opt/curlgrad/venv \
 && /opt/curlgrad/venv/bin/python -m pip install --require-hashes --only-binary :all: -r /build/requirements/cuda13.txt \
 && /opt/curlgrad/venv/bin/python -m pip uninstall --quiet --yes pip

# --- the service itself, the same in every image ----------------------------------------------------------------------

FROM python:${PYTHON} AS code
COPY app/ /opt/curlgrad/app/
COPY engine/ /opt/curlgrad/engine/
COPY LICENSE /opt/curlgrad/
# Compiled now: the running container can write no bytecode. /data is made here so that a new volume takes its owner.
RUN python -m compileall -q --invalidation-mode unchecked-hash /opt/curlgrad/app /opt/curlgrad/engine \
 && install -d -o 10001 -g 10001 -m 0700 /made/data

FROM python:${PYTHON} AS runtime
LABEL org.opencontainers.image.title="curlgrad" \
      org.opencontainers.image.description="PyTorch-style tensors and autograd over HTTP" \
      org.opencontainers.image.licenses="MIT"
ENV PATH=/opt/curlgrad/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp
COPY --from=code /opt/curlgrad /opt/curlgrad
COPY --from=code --chown=10001:10001 /made/data /data
WORKDIR /opt/curlgrad
USER 10001:10001
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
  CMD ["python", "-c", "from urllib import request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:8000/readyz', timeout=2)"]
CMD ["python", "-m", "app", "--host", "0.0.0.0", "--port", "8000", "--data-dir", "/data"]

# --- the images: the last one is what is built when no target is named ------------------------------------------------

FROM runtime AS cuda12
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=cuda12-builder /opt/curlgrad/venv /opt/curlgrad/venv

FROM runtime AS cuda13
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=cuda13-builder /opt/curlgrad/venv /opt/curlgrad/venv

FROM runtime AS serve
COPY --from=serve-builder /opt/curlgrad/venv /opt/curlgrad/venv
