# cudafilter with its GPU engine, without a CUDA toolkit: the driver comes from the host.
#
#   docker build -t cudafilter .
#   docker build --build-arg EXTRAS=cuda,nvcodec,cloud,cluster -t cudafilter .
#   docker run --rm --gpus all --user "$(id -u):$(id -g)" -v "$PWD:/work" cudafilter blur in.jpg out.jpg

# The smallest of NVIDIA's runtime images. Both stages need the same Python.
ARG BASE=nvidia/cuda:13.0.0-base-ubuntu24.04

FROM ${BASE} AS build
# The image's release pins the versions of its packages.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# PyCUDA's build needs g++ and no GPU, and what it needs stays in this stage.
RUN python3 -m venv /build \
    && /build/bin/python -m pip install --no-cache-dir . \
    && /build/bin/python -m cudafilter.install_cuda --wheel /wheels
ARG EXTRAS=cuda,nvcodec
RUN python3 -m venv /opt/cudafilter \
    && /opt/cudafilter/bin/python -m pip install --no-cache-dir /wheels/*.whl ".[${EXTRAS}]" \
    && /opt/cudafilter/bin/cudafilter doctor

FROM ${BASE}
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/cudafilter /opt/cudafilter
ENV PATH=/opt/cudafilter/bin:$PATH \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000:1000
WORKDIR /work
ENTRYPOINT ["cudafilter"]
CMD ["--help"]
