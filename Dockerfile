# One image for the gateway (`forebay serve`, the default) and for its node (`forebay node`).
# Plain instructions only, so that the classic builder and BuildKit both build it:
#
#   docker build --tag forebay .
#
# The repository is not in the build context, so `forebay --version` knows its commit only from these arguments:
#
#   docker build --tag forebay --build-arg REVISION=$(git rev-parse --short=10 HEAD) \
#     --build-arg REVISION_DATE=$(git log -1 --format=%cs) .

# ---- manifests --------------------------------------------------------------------------------------------
# The manifests without their benches: these are not part of the image, and a new one should not cost a new build of
# all dependencies.
FROM debian:bookworm-slim AS manifests
COPY Cargo.toml /manifests/
COPY crates /manifests/crates
RUN cd /manifests \
 && find crates -type f ! -name Cargo.toml -delete \
 && find crates -depth -type d -empty -delete \
 && for manifest in Cargo.toml crates/*/Cargo.toml; do \
      awk '/^\[/ { keep = $0 != "[[bench]]" } keep' "$manifest" > /kept && mv /kept "$manifest" || exit 1; \
    done

# ---- sources ----------------------------------------------------------------------------------------------
# All that the program is made from. tests/compose.sh takes this stage out and checks that nothing is missing.
FROM debian:bookworm-slim AS sources
WORKDIR /sources
COPY build.rs Cargo.lock ./
COPY config/default.toml config/default.toml
COPY crates crates
COPY --from=manifests /manifests ./
COPY src src

# ---- builder ----------------------------------------------------------------------------------------------
FROM rust:1-slim-bookworm AS builder
WORKDIR /build

# The dependencies alone, with empty sources in place of ours. This layer takes minutes and is built again
# only when a copied file has changed.
COPY --from=manifests /manifests ./
COPY Cargo.lock ./
RUN for package in . crates/*; do mkdir "$package/src" && touch "$package/src/lib.rs" || exit 1; done \
 && echo 'fn main() {}' > src/main.rs \
 && cargo build --release --locked

COPY .ci/licence-texts /usr/local/bin/
RUN licence-texts /third-party

# Our own sources. COPY keeps their times, which are older than the empty crates built above: without the
# touch, cargo would take those crates for up to date.
COPY --from=sources /sources ./
ARG REVISION=unknown
ARG REVISION_DATE=unknown
RUN find src crates config build.rs -type f -exec touch {} + \
 && FOREBAY_COMMIT="${REVISION}" FOREBAY_DATE="${REVISION_DATE}" cargo build --release --locked

# ---- runtime ----------------------------------------------------------------------------------------------
FROM debian:bookworm-slim

# The version stands here once more because Docker cannot read Cargo.toml; tests/compose.sh compares the two.
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Forebay" \
      org.opencontainers.image.description="An ingest gateway for sensor readings, and a node that stores them" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="debian:bookworm-slim"

# A fixed number, so that the files in a volume keep their owner from one build of the image to the next.
RUN groupadd --gid 10001 forebay \
 && useradd --uid 10001 --gid forebay --no-create-home --home-dir /data --shell /usr/sbin/nologin forebay \
 && install --directory --owner=forebay --group=forebay --mode=0750 /data

COPY LICENSE /usr/share/doc/forebay/LICENSE
COPY --from=builder /third-party /usr/share/doc/forebay/third-party
# The authorities that are trusted where no file names others: at nodes over TLS, and in `forebay load https://…`.
COPY --from=builder /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=builder /build/target/release/forebay /usr/local/bin/forebay
# The settings of docker-compose.yml's gateway; FOREBAY_CONFIG names the file where it is wanted.
COPY config/compose.toml /etc/forebay/compose.toml

# The default paths are relative, such as "data/buffer": from / they all lie in the volume.
WORKDIR /
VOLUME /data
USER 10001:10001

# Inside a container the loopback address cannot be reached from outside; which addresses of the host are
# open is for `docker run --publish` to say.
ENV FOREBAY__SERVER__LISTEN=0.0.0.0:8080
EXPOSE 8080

# Asks what this container runs, gateway or node: it leaves its address for this in a file of its own user, in /tmp or,
# where that cannot be written to, in /dev/shm.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["forebay", "healthcheck"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["forebay"]
CMD ["serve"]
