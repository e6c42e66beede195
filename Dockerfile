# The agent, nft, the certificates of public authorities, and the libraries that these need. No shell, no package manager.
#
#   docker build --tag pod-identity-agent .                     (or podman, or buildah bud)
#   docker buildx build --platform linux/amd64,linux/arm64 .    each platform is built on itself or by emulation
#
# Both bases can be given by digest or from a registry of one's own. They must be of one release of Debian: the agent is linked
# with the C library of the first and runs with that of the second.
ARG RUST_IMAGE=docker.io/library/rust:1.95.0-bookworm
ARG DEBIAN_IMAGE=docker.io/library/debian:bookworm-slim

FROM ${RUST_IMAGE} AS build
# "dev" for an image to test with: minutes faster, and not for use.
ARG PROFILE=release
# The toolchain that the image has; rust-toolchain.toml would have more components downloaded.
ENV RUSTUP_TOOLCHAIN=1.95.0
# Paths of the machine that builds are not part of the program.
ENV RUSTFLAGS="--remap-path-prefix=/src=. --remap-path-prefix=/usr/local/cargo=cargo"
WORKDIR /src
COPY . .
RUN cargo build --locked --package pod-identity-agent --profile "${PROFILE}" --target-dir /target \
    && install -D /target/*/pod-identity-agent /out/pod-identity-agent

FROM ${DEBIAN_IMAGE} AS rootfs
# Security updates of the release are wanted in every build, so versions are those of the base's day.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates nftables \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /out/pod-identity-agent /out/pod-identity-agent
COPY deploy/image/rootfs.sh /out/rootfs.sh
ARG SOURCE_DATE_EPOCH=0
RUN /out/rootfs.sh /out/pod-identity-agent /rootfs

FROM scratch
COPY --from=rootfs /rootfs /
# Root without capabilities, but those that the pod's securityContext adds: docs/privileges.md.
# hadolint ignore=DL3002
USER 0:0
ENTRYPOINT ["/pod-identity-agent"]
LABEL org.opencontainers.image.title="pod-identity-agent" \
      org.opencontainers.image.licenses="Apache-2.0"
