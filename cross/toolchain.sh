# What build and test share: a target's C compiler and its standard library. To be sourced, not run.
# shellcheck shell=bash disable=SC2034 # variables are for those who source it

targets=(aarch64-unknown-linux-gnu armv7-unknown-linux-gnueabihf aarch64-linux-android aarch64-apple-ios)

die() {
    printf 'cross: %s\n' "$@" >&2
    exit 1
}

# need COMMAND INSTALL: ends unless there is COMMAND, naming the command that installs it.
need() {
    command -v "$1" >/dev/null || die "there is no $1. On Debian: $2"
}

# known TARGET: ends unless it is one of ours.
known() {
    local target
    for target in "${targets[@]}"; do [ "$target" != "$1" ] || return 0; done
    die "no target $1; there are: ${targets[*]}"
}

host() {
    rustc -vV | sed -n 's/^host: //p'
}

# c_tools TARGET: exports what cargo, rustc and the cc crate read. Sets `links` to whether a program can be linked,
# which takes the target's C library and, for phones, an SDK.
c_tools() {
    links=yes
    [ "$1" != "$(host)" ] || return 0
    local ndk prefix
    case $1 in
        aarch64-unknown-linux-gnu)
            need aarch64-linux-gnu-gcc 'apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross'
            export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
            ;;
        armv7-unknown-linux-gnueabihf)
            need arm-linux-gnueabihf-gcc 'apt-get install gcc-arm-linux-gnueabihf libc6-dev-armhf-cross'
            export CARGO_TARGET_ARMV7_UNKNOWN_LINUX_GNUEABIHF_LINKER=arm-linux-gnueabihf-gcc
            ;;
        aarch64-linux-android)
            if [ -n "${ANDROID_NDK_HOME:-}" ]; then
                for ndk in "$ANDROID_NDK_HOME"/toolchains/llvm/prebuilt/*/bin; do prefix=$ndk/; done
                need "${prefix}aarch64-linux-android24-clang" 'set ANDROID_NDK_HOME to an unpacked NDK, r21 or later'
                export CC_aarch64_linux_android=${prefix}aarch64-linux-android24-clang
                export CARGO_TARGET_AARCH64_LINUX_ANDROID_LINKER=$CC_aarch64_linux_android
            else
                links=no
                prefix=
                need clang 'apt-get install clang'
                export CC_aarch64_linux_android=clang
                export CFLAGS_aarch64_linux_android=--target=aarch64-linux-android24
            fi
            need "${prefix}llvm-ar" 'apt-get install llvm'
            export AR_aarch64_linux_android=${prefix}llvm-ar
            ;;
        aarch64-apple-ios)
            links=no # an app links the library; iOS runs no programs
            if [ "$(uname)" != Darwin ]; then
                need clang 'apt-get install clang'
                need llvm-ar 'apt-get install llvm'
                export CC_aarch64_apple_ios=clang AR_aarch64_apple_ios=llvm-ar
                export CFLAGS_aarch64_apple_ios=--target=arm64-apple-ios14
                # tract's assembly includes nothing, so an SDK need only seem to be there; always in the same place, for
                # cargo builds tract again where it moves
                export SDKROOT=$PWD/cross
            fi
            ;;
    esac
}

# std TARGET [auto|rustup|source]: sets `cargo` and `flags` so that "${cargo[@]}" SUBCOMMAND "${flags[@]}" finds the
# target's standard library: rustup's, or one built from the source that Debian packages (its compiler too).
std() {
    local target=$1 from=${2:-auto} libdir library=/usr/lib/rustlib/src/rust/library
    local packages='apt-get install rustc-web cargo-web rust-web-src'
    cargo=(cargo)
    flags=(--target "$target")
    if [ "$from" != source ]; then
        need cargo "$packages"
        libdir=$(rustc --print target-libdir --target "$target")
        if [ -z "$(ls "$libdir"/libstd-* 2>/dev/null)" ]; then
            # in the checkout rustup takes the toolchain that cargo takes
            if command -v rustup >/dev/null; then rustup target add "$target" >&2 || true; fi
        fi
        [ -z "$(ls "$libdir"/libstd-* 2>/dev/null)" ] || return 0
        [ "$from" = auto ] || die "no standard library for $target: rustup target add $target"
    fi
    [ -d "$library" ] && [ -x /usr/bin/cargo ] && [ -x /usr/bin/rustc ] ||
        die "no standard library for $target, and none of its source: rustup target add $target, or on Debian: $packages"
    # -Zbuild-std is not stable; it works with the library's source of the same version
    export RUSTC_BOOTSTRAP=1 RUSTC=/usr/bin/rustc
    cargo=(/usr/bin/cargo)
    flags+=('-Zbuild-std=std,panic_abort')
    printf 'cross: building the standard library of %s from source\n' "$(/usr/bin/rustc --version)" >&2
}
