# Two images: `docker build --target cpu .` and `docker build --target gpu .` (a GPU needs only the host's driver).
# EXTRAS without `build` makes an image that loads bundles and explains pictures, and does nothing else.
FROM python:3.12-slim AS source
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY craft_onnx craft_onnx
COPY converters converters
COPY models models
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM source AS install-cpu
ARG EXTRAS=build
RUN python -m venv /opt/craft && /opt/craft/bin/pip install --no-cache-dir "$(ls /wheels/*.whl)[cpu,${EXTRAS}]"

FROM source AS install-gpu
ARG EXTRAS=build
RUN python -m venv /opt/craft && /opt/craft/bin/pip install --no-cache-dir "$(ls /wheels/*.whl)[gpu,${EXTRAS}]"

FROM python:3.12-slim AS base
ENV PATH=/opt/craft/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 MPLCONFIGDIR=/tmp/matplotlib
WORKDIR /work
# Numeric, so that Kubernetes' runAsNonRoot can verify it. /tmp must be writable, everything else may be read-only.
USER 10001:10001
HEALTHCHECK --interval=60s --timeout=30s CMD ["craft-onnx", "check", "--quiet"]
ENTRYPOINT ["craft-onnx"]
CMD ["--help"]

FROM base AS gpu
COPY --from=install-gpu /opt/craft /opt/craft

FROM base AS cpu
COPY --from=install-cpu /opt/craft /opt/craft
