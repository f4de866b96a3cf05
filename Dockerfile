# The images of the services, a target for each: `docker build --target ingest --tag REGISTRY/millrace/ingest .`
# docs/images.md says how to build, push and check them. Bases are named by digest, because a tag may get another image.

FROM rust:1.95.0-bookworm@sha256:6258907abe69656e41cd992e0b705cdcfabcbbe3db374f92ed2d47121282d4a1 AS chef
WORKDIR /src
# The image's own compiler, which is the one of rust-toolchain.toml: without this rustup would download clippy and rustfmt.
ENV RUSTUP_TOOLCHAIN=1.95.0
RUN cargo install cargo-chef --version 0.1.78 --locked

# What the dependencies are. It changes with a manifest or the lock file, not with a source.
FROM chef AS plan
COPY . .
RUN cargo chef prepare --recipe-path recipe.json

# The dependencies, in a layer that a change of our sources does not build again, then the programs. Both with the same
# packages: for others cargo would choose other features and build dependencies again.
FROM chef AS build
COPY --from=plan /src/recipe.json ./
RUN cargo chef cook --release --locked --recipe-path recipe.json \
    --package ingest --package stream-agg --package query-api
COPY . .
RUN cargo build --release --locked --package ingest --package stream-agg --package query-api \
    && install -D --target-directory=/out target/release/ingest target/release/stream-agg target/release/query-api

# What the images have in common: glibc, libgcc, certificates and time zones; no shell and no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot@sha256:9dac0a79194e45a7da0158a9c6da57b217585af0786db3845d1f0ec1a0dd182f AS service
ARG VERSION=unknown
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.vendor="Millrace" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"
# By number: Kubernetes cannot see that a name is not root.
USER 65532:65532
# Kubernetes asks /healthz and /readyz; a probe in here would need a client, which the image does not have.
HEALTHCHECK NONE
STOPSIGNAL SIGTERM

FROM service AS ingest
LABEL org.opencontainers.image.title="millrace-ingest" \
      org.opencontainers.image.description="The edge of Millrace: takes events over HTTP and writes them to Kafka"
COPY --from=build /out/ingest /usr/local/bin/ingest
EXPOSE 8081 9081
ENTRYPOINT ["/usr/local/bin/ingest"]

FROM service AS stream-agg
LABEL org.opencontainers.image.title="millrace-stream-agg" \
      org.opencontainers.image.description="The aggregator of Millrace: writes events from Kafka into ClickHouse; also migrates"
COPY --from=build /out/stream-agg /usr/local/bin/stream-agg
EXPOSE 9082
ENTRYPOINT ["/usr/local/bin/stream-agg"]

FROM service AS query-api
LABEL org.opencontainers.image.title="millrace-query-api" \
      org.opencontainers.image.description="The query API of Millrace: prepared answers and queries from ClickHouse, and the page"
COPY --from=build /out/query-api /usr/local/bin/query-api
EXPOSE 8083 9083
ENTRYPOINT ["/usr/local/bin/query-api"]
