# SPDX-License-Identifier: Apache-2.0
# Build stage: everything from source by scripts/setup. Run stage: the installed folder, LibTorch's libraries, no compiler, no root.
#
#   docker build -t polysketch .                          for CPU hosts
#   docker build --build-arg CUDA=1 -t polysketch:cuda .  for GPU hosts (start with --gpus all); CPU hosts can run it, too
#
#   docker run --rm -v "$PWD:/workspace" polysketch train configs/small.yaml
ARG DEBIAN=debian:12-slim

FROM ${DEBIAN} AS build
ARG CUDA=0
ENV POLYSKETCH_CUDA=${CUDA} POLYSKETCH_CACHE=/cache
WORKDIR /source
# The slow part first, so that a change of the source does not repeat it.
COPY scripts/setup scripts/deps.lock scripts/
COPY scripts/lib scripts/lib
RUN scripts/setup
COPY . .
RUN scripts/container_build /install

FROM ${DEBIAN} AS run
RUN apt-get update -q && apt-get install -y -q --no-install-recommends libstdc++6 libgcc-s1 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 1000 polysketch && mkdir /workspace && chown polysketch /workspace
COPY --from=build /install/libtorch /opt/libtorch
COPY --from=build /install/polysketch /opt/polysketch
# What NVIDIA's container run time hands in: the driver's compute libraries and nvidia-smi.
ENV LIBTORCH_DIR=/opt/libtorch/torch PATH=/opt/polysketch/bin:$PATH NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER polysketch
WORKDIR /workspace
ENTRYPOINT ["polysketch"]
CMD ["--help"]
