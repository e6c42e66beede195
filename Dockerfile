# The agent, nft, the certificates of public authorities, and the libraries that these need. No shell, no package manager.
#
#   docker build --tag pod-identity-agent .                     (or podman, or buildah bud)
#   docker buildx build --platform linux/amd64,linux/arm64 .    each stage runs as the platform it builds for
#   make image                                                  without an engine and without a registry
#
# Both bases can be given by digest or from a registry of one's own. They must be of one release of Debian: the agent is linked
# with the C library of the first and runs with that of the second.
ARG BUILDER=rust:1.95-bookworm
ARG RUNTIME=debian:bookworm-slim

FROM ${BUILDER} AS build
# "trial" for an image to test with: minutes faster, and not for use.
ARG PROFILE=release
# Paths of the machine that builds are not part of the program.
ENV CARGO_TARGET_DIR=/build CARGO_INCREMENTAL=0 \
    RUSTFLAGS="--remap-path-prefix=/src=. --remap-path-prefix=/usr/local/cargo=cargo"
WORKDIR /src
COPY . .
# Stripped here too: the trial profile does not. /build is left: no layer of this stage is in the image, and build.sh keeps it.
RUN cargo build --locked --package pod-identity-agent --profile "${PROFILE}" \
    && strip --strip-all -o /pod-identity-agent "/build/${PROFILE}/pod-identity-agent"

FROM ${RUNTIME} AS rootfs
# Security updates of the release are wanted in every build, so versions are those of the base's day.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates libgcc-s1 nftables \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /pod-identity-agent /pod-identity-agent
COPY LICENSE deploy/image/rootfs.sh /tmp/
# After the packages, so that another commit's time does not install them again.
ARG SOURCE_DATE_EPOCH=0
RUN /tmp/rootfs.sh /pod-identity-agent /tmp/LICENSE /rootfs

FROM scratch
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="pod-identity-agent" \
      org.opencontainers.image.description="Gives the pods of a node their AWS credentials" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=rootfs /rootfs/ /
# No USER: it starts as uid 0 and gives its privileges away itself (docs/privileges.md).
# No HEALTHCHECK: the kubelet probes, there is no base to have one from, and an OCI image has no place for it.
ENTRYPOINT ["/pod-identity-agent"]
