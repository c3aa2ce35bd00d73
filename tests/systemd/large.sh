# How long a bundle of 1 GiB takes until the runtime has its images, beside `ctr images import` of images as large. Sourced by
# run.

say "a bundle of 1 GiB, and the same by ctr"
machine_up large 61 "$repository"
install_packages large
check "init" machine large keelson init
debs="$MACHINE_CACHE/debs"
mkdir -p "$debs" "$MACHINES/large/containerd/given"
[ -n "$(ls "$debs"/containerd_*.deb "$debs"/runc_*.deb 2>/dev/null)" ] || (cd "$debs" && apt-get download containerd runc >/dev/null)
rm -rf "$work/unpacked"
dpkg-deb -x "$dist_folder"/keelson_*.deb "$work/unpacked"
# As large, and other bytes: the runtime has nothing twice.
for number in 1 2 3 4; do
    python3 tests/systemd/random_image.py "$MACHINES/large/containerd/given/by-ctr-$number.tar" "test.invalid/by-ctr-$number:1" 256
    python3 tests/systemd/random_image.py "$work/bundled-$number.tar" "test.invalid/bundled-$number:1" 256
done
rm -f "$work"/large.key*
"$work/unpacked/usr/bin/keelson" bundle key "$work/large.key"
"$work/unpacked/usr/bin/keelson" bundle create "$MACHINES/large/containerd/given/large.bundle" --key "$work/large.key" \
    --packages "$dist_folder"/keelson_*.deb "$dist_folder"/keelson-images_*.deb "$debs" --images "$work"/bundled-*.tar
rm "$work"/bundled-*.tar
cp "$work/large.key.pub" "$MACHINES/large/root/root/"
given=/var/lib/containerd/given
by_ctr() { machine large sh -c 'for archive in "$1"/by-ctr-*.tar; do ctr -n k8s.io images import "$archive" >/dev/null || exit 1; done' - "$given"; }
pinned_all() { [ "$(machine large ctr -n k8s.io images ls | grep '^test.invalid/bundled-' | grep -c pinned=pinned)" = 4 ]; }
bundled() { machine large keelson bundle install "$given/large.bundle" --public-key /root/large.key.pub && until_ok 120 pinned_all; }
sync
begun=$(moment)
check "ctr images import" by_ctr
by_ctr_s=$(since "$begun")
sync
begun=$(moment)
check "bundle install, until its images are in the runtime and pinned" bundled
bundled_s=$(since "$begun")
figure bundle_import_s "$by_ctr_s" s
figure bundle_1gib_install_s "$bundled_s" s
figure bundle_install_vs_import "$(awk "BEGIN {printf \"%.2f\", $by_ctr_s / $bundled_s}")" ratio 0.8
check "it is at least 0.8 times as fast" awk "BEGIN { exit !($by_ctr_s >= 0.8 * $bundled_s) }"
rm -rf "$MACHINES/large/containerd/given"
machine_down large
