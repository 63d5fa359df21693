#!/usr/bin/env bash
# image.sh DIR   Builds the guest once: DIR/{vmlinuz,initrd.gz,root/}. Debian's kernel, D-Bus and BlueZ of the release that this
# machine runs, from the mirrors that its own apt uses. As root, or as a user with subordinate ids (see mmdebstrap).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=$(realpath -m "$1")
image=$dir/image

# Built anew when what it is made of changes.
stamp=$(cat "$here/image.sh" "$here/guest/"* | sha256sum | cut -d' ' -f1)
if [ "$(cat "$image/stamp" 2>/dev/null)" = "$stamp" ]; then
    exit 0
fi
rm -rf "$image"
mkdir -p "$image/root"

# The release's own lines only: no backports, no other vendors.
release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
mapfile -t sources < <(apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN) $(ARCHITECTURE)' \
    'Created-By: Packages' 'Component: main' | awk -v release="$release" '
    $5 == "Debian" && $6 == "amd64" && ($3 == release || $3 == release "-updates" || $3 == release "-security") {
        print $1, $2, $3, $4
    }')
if [ ${#sources[@]} -eq 0 ]; then
    echo "apt on this machine has no Debian amd64 sources (after apt-get update): the guest is made of them" >&2
    exit 1
fi
echo "building the guest of Debian $release, once"

# The kernel is unpacked and not installed, because installing it makes an initrd with everything a PC may have.
# shellcheck disable=SC2016
kernel_hook='cd "$1"
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
kernel=$(apt-cache depends linux-image-amd64 | sed -n "s/.*Depends: \(linux-image-[0-9].*\)/\1/p" | head -1)
apt-get -qq -o APT::Sandbox::User=root download "$kernel"
dpkg-deb --fsys-tarfile "$kernel"_*.deb | tar -x --keep-directory-symlink
rm "$kernel"_*.deb'

# By way of a tar, so that the files belong to whoever runs qemu, which hands them to the guest.
mmdebstrap --quiet --architectures=amd64 --variant=minbase \
    --aptopt='Acquire::Languages "none"' --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --include=dbus,bluez,busybox-static,kmod --customize-hook="$kernel_hook" \
    "$release" - "${sources[@]}" |
    tar -x -C "$image/root" --no-same-owner --delay-directory-restore \
        --exclude='./dev/*' --exclude='./var/cache/*' --exclude='./var/lib/apt/*'
chmod -R u+rwX "$image/root"

export PATH=$PATH:/usr/sbin:/sbin
modules=("$image/root/lib/modules/"*)
version=${modules[0]##*/}
cp "$image/root/boot/vmlinuz-$version" "$image/vmlinuz"
depmod -b "$image/root" "$version"

# The files of modules and of what they need, in the order to load them.
files_of() {
    local module
    for module in "$@"; do
        modprobe -d "$image/root" -S "$version" --show-depends "$module" | awk '/^insmod/ { print $2 }'
    done | awk '!seen[$0]++'
}

mkdir -p "$image/initrd/"{bin,proc,sys,dev,lower,writable,root,modules}
cp "$image/root/bin/busybox" "$image/initrd/bin/"
cp "$here/guest/init" "$image/initrd/init"
number=100
# For the root; then for the bus (virtio_net) and the controller behind the serial line (hci_uart). The rest is what bluetoothd
# and the kernel's Bluetooth ask for by name, as the root has no modules: without the ciphers, pairing fails.
while read -r file; do
    cp "$file" "$image/initrd/modules/$number-${file##*/}"
    number=$((number + 1))
done < <(files_of virtio_pci 9pnet_virtio 9p overlay virtio_net hci_uart uhid algif_skcipher algif_hash cmac ecb hmac \
    sha512_generic drbg ecdh_generic)
(cd "$image/initrd" && find . | cpio --create --format=newc --owner=0:0 --quiet | gzip -1) >"$image/initrd.gz"

cp "$here/guest/start" "$image/root/sbin/bluez-vm"
cp "$here/guest/bus.conf" "$image/root/etc/dbus-1/bluez-vm.conf"
# The initrd has the modules; the guest loads no others.
rm -rf "$image/root/lib/modules/$version/kernel" "$image/initrd"
echo "$stamp" >"$image/stamp"
