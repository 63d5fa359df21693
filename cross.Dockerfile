# The image of cross.toml: the hub's own Debian, so that the binary finds its glibc and its libssl3 there.
FROM debian:12

# arm64 or armhf; cross gives it.
ARG CROSS_DEB_ARCH

# The C compiler builds zstd and links; the target's OpenSSL is what native-tls is linked to, its D-Bus library
# what Bluetooth is.
RUN dpkg --add-architecture $CROSS_DEB_ARCH \
    && apt-get update \
    && apt-get install --yes --no-install-recommends \
        crossbuild-essential-$CROSS_DEB_ARCH libssl-dev:$CROSS_DEB_ARCH libdbus-1-dev:$CROSS_DEB_ARCH \
        pkg-config \
    && rm -rf /var/lib/apt/lists/*

# cross's own images set these; openssl-sys and libdbus-sys find their libraries by pkg-config, which has to
# look at the target's and never at the image's own.
ENV CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
    CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc \
    AR_aarch64_unknown_linux_gnu=aarch64-linux-gnu-ar \
    PKG_CONFIG_LIBDIR_aarch64_unknown_linux_gnu=/usr/lib/aarch64-linux-gnu/pkgconfig \
    CARGO_TARGET_ARMV7_UNKNOWN_LINUX_GNUEABIHF_LINKER=arm-linux-gnueabihf-gcc \
    CC_armv7_unknown_linux_gnueabihf=arm-linux-gnueabihf-gcc \
    AR_armv7_unknown_linux_gnueabihf=arm-linux-gnueabihf-ar \
    PKG_CONFIG_LIBDIR_armv7_unknown_linux_gnueabihf=/usr/lib/arm-linux-gnueabihf/pkgconfig \
    PKG_CONFIG_ALLOW_CROSS=1
